//! Listening sockets and the loops that accept from them.
//!
//! An accept loop never ends by an error: each is logged, backed off with a bound, and tried again (`EMFILE` passes
//! when connections close).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{
    answer::refusal::{Busy, Refusal, Wants},
    config::Address,
    gate::Gate,
    ops::{log::Level, words::Reason},
};

/// How many connections may wait in the kernel for us to accept them.
const BACKLOG: i32 = 4096;
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// When a client may come back whose connection was one too many.
const TOO_MANY_RETRY: Duration = Duration::from_secs(2);

/// A bound socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, on its way to the core that will serve it.
pub struct Accepted {
    pub stream: Stream,
    pub listener: usize,
}

pub enum Stream {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// Whether several sockets are bound to the same address, one per core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    Alone,
    Shared,
}

/// Binds an address. The sockets of [`Binding::Shared`] share it by `SO_REUSEPORT`.
pub fn bind(address: &Address, binding: Binding) -> io::Result<std::net::TcpListener> {
    let Address::Tcp(address) = address else { return Err(io::ErrorKind::Unsupported.into()) };
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if binding == Binding::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&(*address).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds a socket file; one that a process which is gone left behind is replaced.
pub fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if path.exists() {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Listener {
    async fn accept(&self) -> io::Result<Fresh> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Fresh::Tcp(stream, peer)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Fresh::Unix(stream)),
        }
    }
}

enum Fresh {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Accepts until the future is dropped, and hands every connection to `deliver`.
pub async fn accept(gate: &Gate, listener: &Listener, number: usize, deliver: impl Fn(Accepted)) {
    let mut backoff = BACKOFF_MIN;
    let too_many = too_many();
    loop {
        match listener.accept().await {
            Ok(fresh) => {
                backoff = BACKOFF_MIN;
                if gate.connections.load(Relaxed) >= gate.config.limits.connections_max {
                    gate.metrics.unrouted().refusal(Reason::Overloaded);
                    if gate.config.listeners[number].tls.is_none() {
                        turn_away(fresh, &too_many);
                    }
                    continue;
                }
                if let Ok(stream) = detach(fresh) {
                    gate.connections.fetch_add(1, Relaxed);
                    gate.metrics.connections[number].inc();
                    deliver(Accepted { stream, listener: number });
                }
            }
            Err(error) => {
                let (text, pause) = (error.to_string(), format!("{backoff:?}"));
                gate.log.event(Level::Error, "accept-failed", &[("error", &text), ("retry_in", &pause)]);
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// A refusal that costs nothing: written if the socket takes it at once.
fn turn_away(fresh: Fresh, answer: &[u8]) {
    match fresh {
        Fresh::Tcp(stream, _) => drop(stream.try_write(answer)),
        Fresh::Unix(stream) => drop(stream.try_write(answer)),
    }
}

/// What a client gets whose connection is one too many: the refusal that it would get by a connection.
fn too_many() -> Vec<u8> {
    let bound = "connections of clients (limits.connections_max)";
    let refusal = Refusal::Overloaded { retry_after: TOO_MANY_RETRY, bound };
    let response = refusal.render(Busy::ByAccept, Wants::Problem, "");
    let status = response.status();
    let mut answer = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or(""));
    for (name, value) in response.headers() {
        answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or("")));
    }
    answer.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body().len()));
    [answer.as_bytes(), response.body()].concat()
}

/// Takes a connection off this runtime, so that another can take it on.
fn detach(fresh: Fresh) -> io::Result<Stream> {
    match fresh {
        Fresh::Tcp(stream, peer) => {
            // Answers are written whole; waiting for more bytes would only add latency.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream.into_std()?, peer.ip().to_canonical()))
        }
        Fresh::Unix(stream) => Ok(Stream::Unix(stream.into_std()?)),
    }
}
