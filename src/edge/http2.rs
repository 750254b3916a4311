//! HTTP/2 on one client connection, over any byte stream.
//!
//! hyper and h2 read and write the messages. What is here bounds what a client can make them do, and lets only requests
//! through that mean the same to every server behind us; from there on they are the requests of any client, and go
//! through the same gate. There are no tunnels here: who wants a WebSocket speaks HTTP/1.1.

mod census;
mod form;
mod line;
mod watched;

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use ::http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::line::Line;
use self::{
    line::{Asked, Stream},
    watched::Watched,
};
use super::{redirect, roster::Roster};
use crate::{
    config::Limits,
    gate::{
        self, Client, Core,
        body::{BodyError, Reply},
        client::{Broken, Wire},
        forward::Peer,
    },
};

/// What a client may send us of one body before somebody reads it, and of all bodies of a connection. One upload that
/// nobody reads leaves room for three others.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;
/// What of an answer may wait in memory for a client that does not take it.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Streams that a client has reset before we began them, and those that we had to reset for its errors: one more, and
/// the connection ends (CVE-2023-44487, CVE-2025-8671).
const RESETS_PENDING_MAX: usize = 20;
const RESETS_OF_OURS_MAX: usize = 100;

/// Serves one connection until it closes.
pub async fn serve<IO>(core: Rc<Core>, roster: Rc<Roster>, io: IO, peer: Peer, listener: usize)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let line = Line::new(Rc::clone(&core.clock));
    let _listed = roster.list_http2(line.clone());
    let mut builder = http2::Builder::new(OnThisCore(line.clone()));
    set_bounds(&mut builder, &core.gate.config.limits);
    let service = {
        let (line, peer) = (line.clone(), Rc::new(peer));
        service_fn(move |request: Request<Incoming>| {
            let (parts, incoming) = request.into_parts();
            let (core, peer) = (Rc::clone(&core), Rc::clone(&peer));
            let stream = line.begin();
            if line.begun() >= core.gate.config.limits.requests_per_connection_max {
                line.end();
            }
            Box::pin(answer(core, peer, listener, stream, Box::new(parts), incoming))
        })
    };
    let io = Watched::new(io, line.clone());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    poll_fn(|cx| {
        line.wait(cx);
        if line.is_closed() {
            return Poll::Ready(());
        }
        if line.take_end() {
            connection.as_mut().graceful_shutdown();
        }
        // Whatever ends a connection here, a client that hangs up or breaks the rules: it has been told so.
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

fn set_bounds(builder: &mut http2::Builder<OnThisCore>, limits: &Limits) {
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    builder
        .max_concurrent_streams(bounded(limits.streams_max))
        .max_header_list_size(bounded(limits.header_bytes_max))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OF_OURS_MAX);
}

/// Streams run as tasks of the core that has their connection.
#[derive(Clone)]
struct OnThisCore(Line);

impl<F> Executor<F> for OnThisCore
where
    F: Future + 'static,
{
    fn execute(&self, stream: F) {
        let task = tokio::task::spawn_local(async move {
            let _ = stream.await;
        });
        self.0.adopt(task.abort_handle());
    }
}

async fn answer(
    core: Rc<Core>,
    peer: Rc<Peer>,
    listener: usize,
    stream: Stream,
    mut parts: Box<Parts>,
    incoming: Incoming,
) -> Result<Response<Answer>, Infallible> {
    let violation = form::settle(&mut parts, &core.gate.config.limits).err();
    let violation = violation.map(|violation| Broken { status: violation.status, what: violation.what });
    let client = Rc::new(Client::new(peer, listener, Box::new(One { violation })));
    client.begin_call();
    let response = match redirect::answer(&core, &client, &parts) {
        Some(response) => response,
        None => gate::exchange(&core, &client, parts, incoming).await,
    };
    Ok(response.map(|reply| Answer { reply, stream }))
}

/// What the gate needs to know of a stream: it has one request.
struct One {
    violation: Option<Broken>,
}

impl Wire for One {
    fn violation(&self, _call: u64) -> Option<Broken> {
        self.violation
    }

    /// h2 ends a stream whose body is not as long as it says (RFC 9113 section 8.1.1).
    fn body_violation(&self) -> Option<Broken> {
        None
    }

    /// hyper has no way to send these on HTTP/2; they are hints, and left out.
    fn inform(&self, _status: StatusCode, _headers: &HeaderMap) {}

    fn tunnel(&self, _call: u64) {}

    fn no_tunnel(&self, _call: u64) {}
}

/// An answer's body, that notes whether the client takes it.
struct Answer {
    reply: Reply,
    stream: Stream,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.reply).poll_frame(cx);
        self.stream.note(match &polled {
            Poll::Ready(Some(Ok(_))) => Asked::NotYet,
            Poll::Ready(_) | Poll::Pending => Asked::Waiting,
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
