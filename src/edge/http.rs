//! HTTP/1.1 on one client connection, over any byte stream.
//!
//! hyper reads and writes the messages; [`super::strict`] stands between it and the socket and lets only requests
//! through that can be read in one way. No timer is set per request: the core's sweeper watches the [`Line`].

use std::{
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    redirect,
    roster::Roster,
    strict::{Line, Strict, StrictLimits, Violation, rules},
    tunnel,
};
use crate::{
    config::Limits,
    gate::{
        self, Client, Core,
        body::{BodyError, Reply},
        client::{Broken, Wire},
        forward::Peer,
    },
};

/// hyper refuses to buffer less than this.
const BUFFER_BYTES_MIN: usize = 8 << 10;

/// Serves one connection until it closes.
pub async fn serve<IO>(core: Rc<Core>, roster: Rc<Roster>, io: IO, peer: Peer, listener: usize)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &core.gate.config.limits;
    let bounds = strict_limits(limits);
    let mut builder = http1::Builder::new();
    // The strict reader's bounds come first; hyper's are only kept from being lower.
    builder.max_headers(limits.headers_max).max_buf_size((limits.header_bytes_max * 2).max(BUFFER_BYTES_MIN));
    let (strict, line) = Strict::new(io, bounds, Rc::clone(&core.clock));
    let _listed = roster.list(line.clone());
    let client = Rc::new(Client::new(Rc::new(peer), listener, Box::new(line.clone())));
    let service = {
        let client = Rc::clone(&client);
        // In a box of its own for each request: hyper keeps room for this future for as long as the connection lives,
        // and half of what an idle connection weighed was that room.
        service_fn(move |request: Request<Incoming>| {
            // The parts too: they are 224 bytes, and every stage from here to the shop hands them on.
            let (parts, incoming) = request.into_parts();
            let parts = Box::new(parts);
            Box::pin(answer(Rc::clone(&core), Rc::clone(&client), line.clone(), parts, incoming))
        })
    };
    let mut connection = builder.serve_connection(TokioIo::new(strict), service);
    // Whatever ends a connection here, a client that hangs up or a sweeper, was counted where it happened.
    let ended = (&mut connection).await;
    if let (Ok(()), Some(shop)) = (ended, client.take_tunnel()) {
        let parts = connection.into_parts();
        tunnel::run(parts.io.into_inner(), parts.read_buf, shop).await;
    }
}

/// What the strict reader is held to by a configuration.
#[must_use]
pub fn strict_limits(limits: &Limits) -> StrictLimits {
    StrictLimits {
        head_bytes_max: limits.header_bytes_max,
        target_bytes_max: rules::target_bytes_max(limits.header_bytes_max),
        fields_max: limits.headers_max,
    }
}

async fn answer(
    core: Rc<Core>,
    client: Rc<Client>,
    line: Line,
    parts: Box<Parts>,
    incoming: Incoming,
) -> Result<Response<Answer>, Infallible> {
    let call = client.begin_call();
    let refused = client.is_malformed();
    let mut response = match redirect::answer(&core, &client, &parts) {
        Some(response) => response,
        None => gate::exchange(&core, &client, parts, incoming).await,
    };
    let is_last = call >= core.gate.config.limits.requests_per_connection_max;
    if refused || is_last || core.gate.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    client.no_tunnel(call);
    Ok(response.map(|reply| Answer { reply, _over: Over { line, call } }))
}

/// What the gate needs to know of the line. It stands here, so that the strict reader knows nothing of the gate.
impl Wire for Line {
    fn violation(&self, call: u64) -> Option<Broken> {
        Self::violation(self, call).map(broken)
    }

    fn body_violation(&self) -> Option<Broken> {
        Self::body_violation(self).map(broken)
    }

    fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        // They are hints: one that cannot be written now is left out.
        let _ = Self::inform(self, status, headers);
    }

    fn tunnel(&self, call: u64) {
        Self::tunnel(self, call);
    }

    fn no_tunnel(&self, call: u64) {
        Self::no_tunnel(self, call);
    }
}

fn broken(violation: Violation) -> Broken {
    Broken { status: violation.status, what: violation.what }
}

/// An answer's body, that tells the line when the exchange is over.
pub struct Answer {
    reply: Reply,
    _over: Over,
}

struct Over {
    line: Line,
    call: u64,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.line.answered(self.call);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.reply).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
