//! Making a connection to a server of the shop. The connector is injected, so that tests need no network.

use std::{future::Future, io, pin::Pin, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{body::ToShop, fleet::Target};
use crate::ops::gather::Gathering;

/// Header lines of an answer; shops that set many cookies need more than hyper's 100.
const HEADERS_MAX: usize = 512;

pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    #[error("the connection failed while it was set up: {0}")]
    Handshake(#[from] hyper::Error),
}

/// Opens a connection and leaves its task running on the current `LocalRuntime`.
pub trait Connect {
    fn connect<'a>(
        &'a self,
        server: Target<'a>,
    ) -> LocalBoxFuture<'a, Result<http1::SendRequest<ToShop>, ConnectError>>;
}

/// Any `tower::Service` from an address to a byte stream is a connector: the seam for TLS and for tests.
pub struct ServiceConnector<S>(pub S);

impl<S, IO> Connect for ServiceConnector<S>
where
    S: tower::Service<String, Response = IO, Error = io::Error> + Clone,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn connect<'a>(
        &'a self,
        server: Target<'a>,
    ) -> LocalBoxFuture<'a, Result<http1::SendRequest<ToShop>, ConnectError>> {
        let service = self.0.clone();
        Box::pin(async move {
            let io = tower::ServiceExt::oneshot(service, server.to_string()).await?;
            handshake(io).await
        })
    }
}

/// Plain TCP.
pub struct TcpConnector;

impl Connect for TcpConnector {
    fn connect<'a>(
        &'a self,
        server: Target<'a>,
    ) -> LocalBoxFuture<'a, Result<http1::SendRequest<ToShop>, ConnectError>> {
        Box::pin(async move {
            let stream = match server {
                Target::Named(name) => TcpStream::connect(name).await?,
                Target::At(address) => TcpStream::connect(address).await?,
            };
            // Requests are written whole; waiting for more bytes would only add latency.
            stream.set_nodelay(true)?;
            handshake(stream).await
        })
    }
}

async fn handshake<IO>(io: IO) -> Result<http1::SendRequest<ToShop>, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        // An order that was placed must not become a doubt because of one line that no client would mind: it is left
        // out, and white space before a colon is taken away (RFC 9112 section 5.1).
        .ignore_invalid_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .max_headers(HEADERS_MAX)
        .handshake::<_, ToShop>(TokioIo::new(Gathering(io)))
        .await?;
    // The connection's error reaches the exchange that uses it; between exchanges it only means "closed".
    drop(tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    }));
    Ok(sender)
}
