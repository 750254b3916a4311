//! Sending one request to one of an upstream's servers, at most once.
//!
//! hyper gives a request back only if nothing of it was serialised; that, and a connection that could not be made,
//! are the only cases in which another connection or server is tried. For a request that is safe by its method and
//! has no body, the closing race of an idle connection is mended by sending it once more (RFC 9110 section 9.2.2).

use std::{cell::Cell, time::Duration};

use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::{
    Affinity, ConnectError, Reached, Upstream,
    body::{FromShop, ToShop},
    fleet::{Full, Slot},
    pool::{Reuse, Warmth, Wire},
    turn::{Chosen, Tried},
};

/// How long a pooled connection may take to be ready again; usually one turn of its task.
const READY_MAX: Duration = Duration::from_millis(10);

/// What a request is for, as far as connections are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A single exchange. Lost to the closing race of an idle connection, it may be sent again if it is safe.
    Exchange,
    /// An exchange that a guard has promised to send at most once, whatever its method.
    Once,
    /// It asks for an upgrade: a fresh connection that is never pooled.
    Upgrade,
}

/// When the first byte may have left for the shop, and what has been a sign of life since.
#[derive(Default)]
pub struct Begun(Cell<Option<Instant>>);

impl Begun {
    fn begin(&self) {
        self.0.set(Some(Instant::now()));
    }

    /// The request came back whole: nothing of it was written.
    fn undo(&self) {
        self.0.set(None);
    }

    /// The shop has shown a sign of life: patience with it begins anew.
    pub fn renew(&self) {
        if self.0.get().is_some() {
            self.begin();
        }
    }

    /// `None` as long as not one byte can have left.
    pub fn at(&self) -> Option<Instant> {
        self.0.get()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not one byte left for the shop, on any server.
    #[error("no server of the upstream could be reached; the last one, {server}: {source}")]
    Unreachable { server: String, source: ConnectError },
    /// The connection broke after the request had begun to leave.
    #[error("the connection to {server} broke before an answer: {source}")]
    Broken { server: String, source: hyper::Error },
    /// Every server that may be sent to has as much to do as it may.
    #[error("{server} has as many exchanges as its connections_max, and {}", match full {
        Full::Queue => "as many wait for it as may (queue_max)",
        Full::Timeout => "none of them ended within queue_timeout",
    })]
    Full { server: String, full: Full },
    /// The upstream has no server, or none that may be sent to.
    #[error("no server of the upstream is up: health checks fail, or an operator took them out")]
    NoServer,
}

/// The shop's answer, its body still on the way.
pub struct Sent {
    pub response: Response<FromShop>,
    /// Which of the upstream's servers answered.
    pub server: usize,
}

enum Attempt {
    Answered(Response<Incoming>, Wire),
    /// Nothing was written; the request is back in its place.
    Returned(Option<hyper::Error>),
    Broken(hyper::Error, Warmth),
}

/// A request until its first byte leaves. It stays where its sender has it, and is not moved from future to future.
pub type Outgoing = Option<Request<ToShop>>;

impl Upstream {
    /// Sends to one server after the other until one takes the first byte. `begun` is set as long as a byte may have
    /// left; `outgoing` is there again if none did.
    pub async fn send(
        &self,
        outgoing: &mut Outgoing,
        purpose: Purpose,
        begun: &Begun,
        affinity: Option<Affinity>,
    ) -> Result<Sent, SendError> {
        let safe = outgoing.as_ref().is_some_and(|request| {
            is_safe(request.method()) && http_body::Body::is_end_stream(request.body())
        });
        let reuse = if safe && purpose != Purpose::Once { Reuse::Any } else { Reuse::WarmOnly };
        let (mut tried, mut last) = (Tried::default(), None);
        while let Some((server, slot)) = self.place(affinity, &mut tried).await? {
            self.name_server(server, outgoing);
            let pooled = match purpose {
                Purpose::Upgrade => None,
                Purpose::Exchange | Purpose::Once => self.send_pooled(server, outgoing, reuse, begun).await,
            };
            let came = match pooled {
                Some(came) => came,
                // In a box: most requests find a connection and need no room for making one.
                None => Box::pin(self.send_fresh(server, outgoing, begun)).await,
            };
            match came {
                Ok(response) => {
                    self.fleet.answered(server);
                    return Ok(Sent { response: response.map(|body| body.holding(slot)), server });
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::NotSent(source)) => last = Some((server, source)),
            }
        }
        match last {
            Some((server, source)) => {
                Err(SendError::Unreachable { server: self.server(server).to_owned(), source })
            }
            None => Err(SendError::NoServer),
        }
    }

    /// The server to try next, and a place at it. `None`: none is left that may be tried.
    async fn place(
        &self,
        affinity: Option<Affinity>,
        tried: &mut Tried,
    ) -> Result<Option<(usize, Option<Slot>)>, SendError> {
        if !self.fleet.counts() && tried.is_empty() && self.fleet.is_open(0) {
            tried.push(0);
            return Ok(Some((0, None)));
        }
        let mut first_full: Option<Chosen> = None;
        while let Some(chosen) = self.turns.next(&self.fleet, affinity, tried) {
            // Those that are worse than a full one are for when it is gone, not for when it is busy.
            if first_full.is_some_and(|full| full.tier < chosen.tier) {
                break;
            }
            tried.push(chosen.server);
            match self.fleet.enter(chosen.server) {
                Some(slot) => return Ok(Some((chosen.server, Some(slot)))),
                None => first_full = first_full.or(Some(chosen)),
            }
        }
        let Some(Chosen { server, .. }) = first_full else { return Ok(None) };
        // In a box: most exchanges need not wait.
        match Box::pin(self.fleet.wait(server)).await {
            Ok(slot) => Ok(Some((server, Some(slot)))),
            Err(full) => Err(SendError::Full { server: self.server(server).to_owned(), full }),
        }
    }

    /// HTTP/1.1 cannot do without a `Host` (RFC 9112 section 3.2), an HTTP/1.0 client can. The server's own name is
    /// what it gets then, since an empty one, though allowed, is a bad request to nginx.
    fn name_server(&self, server: usize, outgoing: &mut Outgoing) {
        if let Some(request) = outgoing
            && !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(self.server(server))
        {
            request.headers_mut().insert(header::HOST, host);
        }
    }

    /// `None`: there is no connection to be had that may be used again.
    async fn send_pooled(
        &self,
        server: usize,
        outgoing: &mut Outgoing,
        reuse: Reuse,
        begun: &Begun,
    ) -> Option<Result<Response<FromShop>, Failed>> {
        let pool = &self.pools[server];
        loop {
            let wire = pool.take(reuse, self.fleet.generation(server))?;
            // Kept only where a second sending is allowed and may be needed.
            let spare = match wire.warmth {
                Warmth::Warm => None,
                Warmth::Idled => outgoing.as_ref().map(|request| Box::new(copy_of(request))),
            };
            match attempt(wire, outgoing, begun).await {
                Attempt::Answered(response, wire) => return Some(Ok(answer(response, wire))),
                Attempt::Returned(_) => {}
                Attempt::Broken(error, warmth) => match spare {
                    Some(spare) if warmth == Warmth::Idled => {
                        *outgoing = Some(*spare);
                        return None;
                    }
                    Some(_) | None => return Some(Err(self.broken(server, error))),
                },
            }
        }
    }

    async fn send_fresh(
        &self,
        server: usize,
        outgoing: &mut Outgoing,
        begun: &Begun,
    ) -> Result<Response<FromShop>, Failed> {
        let generation = self.fleet.generation(server);
        let target = self.fleet.target(server);
        let connected = timeout(self.settings.connect_timeout, self.connector.connect(target)).await;
        self.fleet.connected(server, if matches!(connected, Ok(Ok(_))) { Reached::Yes } else { Reached::No });
        let sender = match connected {
            Ok(Ok(sender)) => sender,
            Ok(Err(error)) => return Err(Failed::NotSent(error)),
            Err(_) => return Err(Failed::NotSent(ConnectError::Timeout(self.settings.connect_timeout))),
        };
        match attempt(self.pools[server].adopt(sender, generation), outgoing, begun).await {
            Attempt::Answered(response, wire) => Ok(answer(response, wire)),
            Attempt::Returned(error) => {
                Err(Failed::NotSent(error.map_or(ConnectError::Timeout(READY_MAX), ConnectError::from)))
            }
            Attempt::Broken(error, _) => Err(self.broken(server, error)),
        }
    }

    fn broken(&self, server: usize, source: hyper::Error) -> Failed {
        // What a client did not send to its end is not the server's fault.
        if !source.is_user() {
            self.fleet.failed(server);
        }
        Failed::Final(SendError::Broken { server: self.server(server).to_owned(), source })
    }

    pub fn server(&self, index: usize) -> &str {
        self.fleet.address(index)
    }
}

enum Failed {
    NotSent(ConnectError),
    Final(SendError),
}

async fn attempt(mut wire: Wire, outgoing: &mut Outgoing, begun: &Begun) -> Attempt {
    // The connection's own task may still have to notice that the last exchange is over. Where it is not, the shop
    // has answered before the whole request was there, and somebody else's slow upload is not worth waiting for.
    if !wire.sender.is_ready() {
        match Box::pin(timeout(READY_MAX, wire.sender.ready())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Attempt::Returned(Some(error)),
            Err(_) => return Attempt::Returned(None),
        }
    }
    let Some(request) = outgoing.take() else { return Attempt::Returned(None) };
    begun.begin();
    match wire.sender.try_send_request(request).await {
        Ok(response) => Attempt::Answered(response, wire),
        Err(mut error) => match error.take_message() {
            Some(request) => {
                begun.undo();
                *outgoing = Some(request);
                Attempt::Returned(Some(error.into_error()))
            }
            None => Attempt::Broken(error.into_error(), wire.warmth),
        },
    }
}

fn answer(response: Response<Incoming>, wire: Wire) -> Response<FromShop> {
    response.map(|incoming| FromShop::new(incoming, wire))
}

fn copy_of(request: &Request<ToShop>) -> Request<ToShop> {
    let mut copy = Request::new(ToShop::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// RFC 9110 section 9.2.1.
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The request line and headers as they go to the shop, from those the client sent: the target in origin form
/// (RFC 9112 section 3.2.1), always HTTP/1.1.
pub fn outgoing(parts: Parts, body: ToShop) -> Request<ToShop> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = origin_form(parts.uri);
    *request.headers_mut() = parts.headers;
    *request.extensions_mut() = parts.extensions;
    let has_length = http_body::Body::size_hint(request.body()).exact().is_some();
    if matches!(*request.method(), Method::GET | Method::HEAD) && !has_length {
        // hyper takes it that a body of unknown length under these methods is none, and would drop what the client
        // sent, unless the framing is spelled out.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}

fn origin_form(uri: http::Uri) -> http::Uri {
    if uri.authority().is_none() {
        return uri;
    }
    uri.into_parts().path_and_query.map_or_else(http::Uri::default, http::Uri::from)
}

#[cfg(test)]
mod tests {
    use std::{io, rc::Rc, sync::Arc, time::Duration};

    use hyper::client::conn::http1;

    use super::*;
    use crate::upstream::{
        Connect, Fleet, Settings,
        connect::LocalBoxFuture,
        fleet::{Condition, FleetSettings, Role, ServerSettings, Target},
    };

    struct Refusing;

    impl Connect for Refusing {
        fn connect<'a>(
            &'a self,
            _server: Target<'a>,
        ) -> LocalBoxFuture<'a, Result<http1::SendRequest<ToShop>, ConnectError>> {
            Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()) })
        }
    }

    #[tokio::test]
    async fn each_server_that_refuses_is_tried_once_and_told_of_and_nothing_was_sent() {
        let settings = Settings {
            name: "shop".into(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
            idle_max: 1,
        };
        let server = |address: &str| ServerSettings {
            address: address.into(),
            weight: 1,
            connections_max: None,
            role: Role::Primary,
        };
        let fleet = Fleet::new(vec![server("a:80"), server("b:80")], FleetSettings::default());
        let upstream = Upstream::new(settings, Arc::clone(&fleet), Rc::new(Refusing));
        let begun = Begun::default();
        let mut outgoing = Some(Request::new(ToShop::empty()));
        let sent = upstream.send(&mut outgoing, Purpose::Exchange, &begun, None).await;
        assert!(outgoing.is_some());
        assert!(matches!(sent, Err(SendError::Unreachable { .. })));
        assert!(begun.at().is_none());
        assert_eq!([0, 1].map(|server| fleet.condition(server)), [Condition::Unreached; 2]);
    }
}
