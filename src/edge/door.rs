//! From a socket that was accepted to a connection that speaks HTTP: who it is from, and what it is encrypted with.
//!
//! All of it runs on the core that serves the connection. It never reads a request.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use super::{
    accept::{Accepted, Stream},
    http, http2,
    roster::Roster,
    tls::{self, Chosen, Crypto, Expiry, HandshakeError, Tls, TlsError},
};
use crate::{
    config::Config,
    gate::{
        Core,
        forward::{Peer, Trust},
    },
    ops::words::Handshake,
};

/// What all cores share of the edge.
pub struct Door {
    /// By listener.
    tls: Vec<Option<Arc<Tls>>>,
    handshakes: AtomicUsize,
}

impl Door {
    /// Reads every file that a listener needs.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn open(config: &Config) -> Result<(Self, Vec<Expiry>), TlsError> {
        let (mut tls, mut all_expiries) = (Vec::new(), Vec::new());
        let mut crypto = None;
        for listener in &config.listeners {
            tls.push(match &listener.tls {
                None => None,
                Some(files) => {
                    let crypto = match &crypto {
                        Some(crypto) => crypto,
                        None => crypto.insert(Crypto::new()?),
                    };
                    let (loaded, expiries) = Tls::load(files, crypto)?;
                    all_expiries.extend(expiries);
                    Some(Arc::new(loaded))
                }
            });
        }
        Ok((Self { tls, handshakes: AtomicUsize::new(0) }, all_expiries))
    }

    /// What there is to watch.
    #[must_use]
    pub fn encrypted(&self) -> Vec<Arc<Tls>> {
        self.tls.iter().flatten().map(Arc::clone).collect()
    }
}

/// Serves a connection until it closes.
pub async fn enter(door: &Door, core: Rc<Core>, roster: Rc<Roster>, accepted: Accepted) {
    let listener = accepted.listener;
    match accepted.stream {
        Stream::Tcp(stream, address) => {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            pass(door, core, roster, stream, Some(address), listener).await;
        }
        Stream::Unix(stream) => {
            let Ok(stream) = UnixStream::from_std(stream) else { return };
            pass(door, core, roster, stream, None, listener).await;
        }
    }
}

async fn pass<IO>(
    door: &Door,
    core: Rc<Core>,
    roster: Rc<Roster>,
    io: IO,
    address: Option<IpAddr>,
    listener: usize,
) where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let peer = Peer::new(address, trust(&core, listener, address));
    match &door.tls[listener] {
        None => http::serve(core, roster, io, peer, listener).await,
        // In a box: a plain connection would carry the room for all this along.
        Some(tls) => Box::pin(encrypted(door, tls, core, roster, io, peer, listener)).await,
    }
}

fn trust(core: &Core, listener: usize, address: Option<IpAddr>) -> Trust {
    let trusted = &core.gate.config.listeners[listener].trusted_proxies;
    match address.is_some_and(|address| trusted.iter().any(|net| net.contains(&address))) {
        true => Trust::Trusted,
        false => Trust::Untrusted,
    }
}

async fn encrypted<IO>(
    door: &Door,
    tls: &Tls,
    core: Rc<Core>,
    roster: Rc<Roster>,
    io: IO,
    peer: Peer,
    listener: usize,
) where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &core.gate.config.limits;
    let metrics = &core.gate.metrics.edge;
    let stream = {
        let Some(_shaking) = Shaking::begin(door, limits.handshakes_max) else {
            metrics.handshake(listener, Handshake::Refused);
            return;
        };
        tls.accept(io, limits.handshake_timeout).await
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(HandshakeError::Failed(_)) => return metrics.handshake(listener, Handshake::Failed),
        Err(HandshakeError::Late) => return metrics.handshake(listener, Handshake::Late),
    };
    let came_to = if tls::is_resumed(&stream) { Handshake::Resumed } else { Handshake::Done };
    metrics.handshake(listener, came_to);
    let peer = peer.encrypted();
    match tls::chosen(&stream) {
        Chosen::Http1 => http::serve(core, roster, stream, peer, listener).await,
        Chosen::Http2 => http2::serve(core, roster, stream, peer, listener).await,
    }
}

/// A handshake under way, counted until it is over.
struct Shaking<'a>(&'a AtomicUsize);

impl<'a> Shaking<'a> {
    fn begin(door: &'a Door, handshakes_max: usize) -> Option<Self> {
        let shaking = Self(&door.handshakes);
        let before = door.handshakes.fetch_add(1, Relaxed);
        (before < handshakes_max).then_some(shaking)
    }
}

impl Drop for Shaking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
