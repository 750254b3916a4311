//! TLS on a client's connection: what is shown to whom, and how long a handshake may take.
//!
//! Modern defaults and no switches: TLS 1.2 and 1.3 of rustls, with its suites in its order. There is no early data,
//! since what can be sent again by anybody must not move money. It never looks at HTTP but for the version that both
//! sides choose.

mod files;
mod names;
pub mod watch;

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use self::files::{Expiry, TlsError};
use self::{
    files::{Contents, Hash, Loaded},
    names::Names,
};
use crate::config::{Http2, Need, Tls as Config};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What all listeners of a process encrypt with.
///
/// The keys of tickets are made once, and stay when certificates are read again: a client that was here before needs
/// no whole handshake. Other replicas do not have them; there it takes one.
#[derive(Clone)]
pub struct Crypto {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Crypto {
    /// # Errors
    /// Where the system has no random numbers.
    pub fn new() -> Result<Self, TlsError> {
        let tickets = aws_lc_rs::Ticketer::new().map_err(|source| TlsError::Crypto { source })?;
        Ok(Self { provider: Arc::new(aws_lc_rs::default_provider()), tickets })
    }

    fn config(&self, loaded: Loaded, http2: Http2) -> Result<ServerConfig, TlsError> {
        let crypto = |source| TlsError::Crypto { source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_protocol_versions(&VERSIONS).map_err(crypto)?;
        let knows_clients = loaded.clients.is_some();
        let builder = match loaded.clients {
            None => builder.with_no_client_auth(),
            Some((path, roots, need)) => {
                let verifier = self.verifier(roots, need);
                builder.with_client_cert_verifier(
                    verifier.map_err(|source| TlsError::Authority { path, source: Box::new(source) })?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Names::new(loaded.certificates)));
        config.alpn_protocols = match http2 {
            Http2::Offered => vec![HTTP2.to_vec(), HTTP1.to_vec()],
            Http2::Off => vec![HTTP1.to_vec()],
        };
        // A ticket would let a client in whose certificate has been taken back since.
        if !knows_clients {
            config.ticketer = Arc::clone(&self.tickets);
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn verifier(
        &self,
        roots: RootCertStore,
        need: Need,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, rustls::server::VerifierBuilderError>
    {
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        match need {
            Need::Required => builder.build(),
            Need::Optional => builder.allow_unauthenticated().build(),
        }
    }
}

/// What one listener encrypts with. Read by every core, exchanged by whoever watches the files.
pub struct Tls {
    crypto: Crypto,
    files: Config,
    /// Of what was read at the start.
    first: Hash,
    current: RwLock<Arc<ServerConfig>>,
}

/// Which HTTP both sides have chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chosen {
    Http1,
    Http2,
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the handshake failed: {0}")]
    Failed(#[from] io::Error),
    #[error("the handshake took too long")]
    Late,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one of them cannot be read or used; nothing is served from the others then.
    pub fn load(files: &Config, crypto: &Crypto) -> Result<(Self, Vec<Expiry>), TlsError> {
        let contents = Contents::read(files);
        let (config, expiries) = build(files, &contents, crypto)?;
        let current = RwLock::new(Arc::new(config));
        let tls = Self { crypto: crypto.clone(), files: files.clone(), first: contents.hash(), current };
        Ok((tls, expiries))
    }

    /// From the next handshake on. Connections that are open keep what they began with.
    fn exchange(&self, contents: &Contents) -> Result<Vec<Expiry>, TlsError> {
        let (config, expiries) = build(&self.files, contents, &self.crypto)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(expiries)
    }

    /// Encrypts a connection.
    ///
    /// # Errors
    /// Where the client speaks no TLS, or none that we do, or takes longer than `patience`.
    pub async fn accept<IO>(&self, io: IO, patience: Duration) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let handshake = TlsAcceptor::from(config).accept(io);
        Ok(tokio::time::timeout(patience, handshake).await.map_err(|_| HandshakeError::Late)??)
    }
}

/// What ALPN came to (RFC 7301); a client that asked for nothing speaks HTTP/1.1.
#[must_use]
pub fn chosen<IO>(stream: &TlsStream<IO>) -> Chosen {
    match stream.get_ref().1.alpn_protocol() {
        Some(HTTP2) => Chosen::Http2,
        Some(_) | None => Chosen::Http1,
    }
}

/// Whether the client was here before, and its handshake was a short one.
#[must_use]
pub fn is_resumed<IO>(stream: &TlsStream<IO>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

fn build(
    files: &Config,
    contents: &Contents,
    crypto: &Crypto,
) -> Result<(ServerConfig, Vec<Expiry>), TlsError> {
    let (loaded, expiries) = Loaded::from(files, contents, &crypto.provider)?;
    Ok((crypto.config(loaded, files.http2)?, expiries))
}
