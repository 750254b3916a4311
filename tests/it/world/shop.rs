//! Shops of the world, named by what they do, that remember who came and when.
//!
//! A shop is naive: it does the work of every request that reaches it, and never looks whether it did it before.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::DuplexStream,
    time::{Instant, Sleep},
};

use super::eventually;

/// What a shop answers. `{n}` in body and fields stands for the number of the visit, from 1.
#[derive(Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

pub(crate) fn created(body: &str) -> Reply {
    Reply {
        status: 201,
        headers: vec![("content-type", "text/plain".to_owned())],
        body: body.to_owned().into(),
    }
}

pub(crate) fn ok(body: &str) -> Reply {
    Reply { status: 200, ..created(body) }
}

/// WooCommerce's way to say no: with 200.
pub(crate) fn declined() -> Reply {
    let body = r#"{"result":"failure","messages":"Your card was declined."}"#;
    Reply { status: 200, headers: vec![("content-type", "application/json".to_owned())], body: body.into() }
}

impl Reply {
    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.body = Bytes::copy_from_slice(bytes);
        self
    }

    /// Beside those of the same name.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn numbered(&self, number: usize) -> Self {
        let number = number.to_string();
        let headers =
            self.headers.iter().map(|(name, value)| (*name, value.replace("{n}", &number))).collect();
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) if text.len() < 4096 => text.replace("{n}", &number).into(),
            Ok(_) | Err(_) => self.body.clone(),
        };
        Self { status: self.status, headers, body }
    }
}

/// What a shop does with one request, once it has read it.
#[derive(Clone)]
enum Does {
    Answers {
        after: Duration,
        reply: Reply,
    },
    Stalls {
        before: Where,
        reply: Reply,
    },
    Resets {
        after: Duration,
        before: Where,
        reply: Reply,
    },
    /// Headers and half the body at once, the rest later.
    Dawdles {
        pause: Duration,
        reply: Reply,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Headers,
    BodyEnd,
}

/// How a visit ended, as the shop saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Answered,
    /// The shop broke it off.
    Reset,
    /// The other side went away while the shop was at work.
    Cut,
}

/// One request that reached the shop.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub order: String,
    pub server: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub began: Instant,
    pub ended: Option<(Instant, Ended)>,
}

impl Visit {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |line| line.to_str().expect("text"))
    }
}

#[derive(Clone)]
pub(crate) struct Shop(Rc<Inner>);

struct Inner {
    script: RefCell<VecDeque<Does>>,
    /// When the script is at its end.
    then: Does,
    refusals: Cell<usize>,
    /// How long each of the next connections takes to be made.
    waits: RefCell<VecDeque<Duration>>,
    attempts: Cell<usize>,
    /// A connection that idled longer is closed under the next request.
    idle_max: Option<Duration>,
    visits: RefCell<Vec<Visit>>,
    overlaps: Cell<usize>,
}

impl Shop {
    pub(crate) fn answers(reply: Reply) -> Self {
        Self::answers_after(Duration::ZERO, reply)
    }

    pub(crate) fn answers_after(after: Duration, reply: Reply) -> Self {
        Self::does(Does::Answers { after, reply })
    }

    pub(crate) fn fails_then_succeeds(after: Duration, failure: Reply, success: Reply) -> Self {
        Self::does(Does::Answers { after, reply: success }).at_first(Does::Answers { after, reply: failure })
    }

    /// Sends headers and half a body, the rest later.
    pub(crate) fn dawdles_mid_body(pause: Duration, reply: Reply) -> Self {
        Self::does(Does::Dawdles { pause, reply })
    }

    /// Does the work and never says a word.
    pub(crate) fn stalls_before_headers() -> Self {
        Self::does(Does::Stalls { before: Where::Headers, reply: ok("") })
    }

    /// Sends headers and half a body, then nothing.
    pub(crate) fn stalls_after_headers(reply: Reply) -> Self {
        Self::does(Does::Stalls { before: Where::BodyEnd, reply })
    }

    /// Does the work and dies. `then` comes to the next ones.
    pub(crate) fn resets_before_answer(after: Duration, then: Reply) -> Self {
        let reset = Does::Resets { after, before: Where::Headers, reply: then.clone() };
        Self::does(Does::Answers { after, reply: then }).at_first(reset)
    }

    /// Dies half way through its answer. `then` comes to the next ones.
    pub(crate) fn resets_mid_body(after: Duration, then: Reply) -> Self {
        let reset = Does::Resets { after, before: Where::BodyEnd, reply: then.clone() };
        Self::does(Does::Answers { after, reply: then }).at_first(reset)
    }

    pub(crate) fn refuses_connections(times: usize, then: Reply) -> Self {
        let shop = Self::answers_after(Duration::from_secs(1), then);
        shop.0.refusals.set(times);
        shop
    }

    /// The first connection takes this long to be made.
    pub(crate) fn connects_after(wait: Duration, reply: Reply) -> Self {
        let shop = Self::answers(reply);
        shop.0.waits.borrow_mut().push_back(wait);
        shop
    }

    pub(crate) fn answers_large(bytes: usize) -> Self {
        Self::answers(Reply { body: Self::large(bytes), ..created("") })
    }

    /// The body of such an answer.
    pub(crate) fn large(bytes: usize) -> Bytes {
        (0..bytes).map(|n| b'a' + (n % 23) as u8).collect::<Vec<u8>>().into()
    }

    /// Closes a connection that idled longer, in the very moment in which the next request comes.
    pub(crate) fn closes_idle(idle_max: Duration, reply: Reply) -> Self {
        let mut shop = Self::answers(reply);
        Rc::get_mut(&mut shop.0).expect("not shared yet").idle_max = Some(idle_max);
        shop
    }

    fn does(then: Does) -> Self {
        Self(Rc::new(Inner {
            script: RefCell::default(),
            then,
            refusals: Cell::new(0),
            waits: RefCell::default(),
            attempts: Cell::new(0),
            idle_max: None,
            visits: RefCell::default(),
            overlaps: Cell::new(0),
        }))
    }

    fn at_first(self, does: Does) -> Self {
        self.0.script.borrow_mut().push_back(does);
        self
    }

    /// How many requests have reached it.
    pub(crate) fn orders(&self) -> usize {
        self.0.visits.borrow().len()
    }

    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.0.visits.borrow().clone()
    }

    pub(crate) fn visit(&self, number: usize) -> Visit {
        self.0.visits.borrow()[number].clone()
    }

    /// How often a request came while another one of its order was being worked on.
    pub(crate) fn overlaps(&self) -> usize {
        self.0.overlaps.get()
    }

    /// How many connections were tried, refused ones too.
    pub(crate) fn attempts(&self) -> usize {
        self.0.attempts.get()
    }

    pub(crate) fn comes_back(&self) {
        self.0.refusals.set(0);
    }

    /// Waits until as many requests have reached it.
    pub(crate) async fn reached(&self, orders: usize) {
        eventually(&format!("{orders} requests reached the shop"), || self.orders() >= orders).await;
    }

    /// What the gate's connector calls.
    pub(super) async fn connect(&self, server: &str) -> io::Result<DuplexStream> {
        self.0.attempts.set(self.0.attempts.get() + 1);
        let refusals = self.0.refusals.get();
        if refusals > 0 {
            self.0.refusals.set(refusals - 1);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let wait = self.0.waits.borrow_mut().pop_front().unwrap_or_default();
        tokio::time::sleep(wait).await;
        let (gate, shop) = tokio::io::duplex(super::PIPE_BYTES);
        let (this, server) = (self.clone(), server.to_owned());
        let idle_since = Rc::new(Cell::new(Instant::now()));
        let service = service_fn(move |request| {
            let (this, server, idle_since) = (this.clone(), server.clone(), Rc::clone(&idle_since));
            async move {
                if this.0.idle_max.is_some_and(|max| idle_since.get().elapsed() > max) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                let answered = this.receive(server, request).await;
                idle_since.set(Instant::now());
                answered
            }
        });
        drop(tokio::task::spawn_local(async move {
            // A shop that resets ends its connection with an error: that is what it is for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(shop), service).await;
        }));
        Ok(gate)
    }

    async fn receive(&self, server: String, request: Request<Incoming>) -> io::Result<Response<Writing>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = parts.uri.to_string();
        let order = order_of(&target, &body);
        let work = self.begin(Visit {
            order,
            server,
            target,
            headers: parts.headers,
            body,
            began: Instant::now(),
            ended: None,
        });
        let does = self.0.script.borrow_mut().pop_front().unwrap_or_else(|| self.0.then.clone());
        match does {
            Does::Answers { after, reply } => {
                tokio::time::sleep(after).await;
                Ok(write(reply, Then::End, work))
            }
            Does::Stalls { before: Where::Headers, .. } => std::future::pending().await,
            Does::Stalls { before: Where::BodyEnd, reply } => Ok(write(reply, Then::Stall, work)),
            Does::Dawdles { pause, reply } => Ok(write(reply, Then::Pause(pause), work)),
            Does::Resets { after, before, reply } => {
                tokio::time::sleep(after).await;
                match before {
                    Where::Headers => {
                        work.end(Ended::Reset);
                        Err(io::ErrorKind::ConnectionReset.into())
                    }
                    Where::BodyEnd => Ok(write(reply, Then::Reset, work)),
                }
            }
        }
    }

    fn begin(&self, visit: Visit) -> Work {
        let mut visits = self.0.visits.borrow_mut();
        if visits
            .iter()
            .any(|other| other.ended.is_none() && other.order == visit.order && !visit.order.is_empty())
        {
            self.0.overlaps.set(self.0.overlaps.get() + 1);
        }
        visits.push(visit);
        Work { shop: self.clone(), number: visits.len() - 1 }
    }
}

/// The order that a request names, `order=…` in its body or query, `"order":"…"` in JSON.
fn order_of(target: &str, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let named = [target, &body].into_iter().find_map(|text| {
        let rest = text.split("order=").nth(1).or_else(|| text.split("\"order\":\"").nth(1))?;
        rest.split(['&', '"', '#']).next().map(ToOwned::to_owned)
    });
    named.unwrap_or_default()
}

/// A visit that is not over.
struct Work {
    shop: Shop,
    number: usize,
}

impl Work {
    fn end(&self, how: Ended) {
        let mut visits = self.shop.0.visits.borrow_mut();
        let ended = &mut visits[self.number].ended;
        if ended.is_none() {
            *ended = Some((Instant::now(), how));
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.end(Ended::Cut);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    End,
    Stall,
    Reset,
    Pause(Duration),
}

/// A body on its way to the gate: all of it, or half and what comes then.
struct Writing {
    rest: VecDeque<Bytes>,
    /// The second half, where there is one.
    second: VecDeque<Bytes>,
    pause: Option<Pin<Box<Sleep>>>,
    left: u64,
    then: Then,
    work: Work,
}

/// Pieces in which a body is written.
const PIECE_BYTES: usize = 16 << 10;

fn write(reply: Reply, then: Then, work: Work) -> Response<Writing> {
    let reply = reply.numbered(work.number + 1);
    let length = reply.body.len();
    let half = if then == Then::End { length } else { length / 2 };
    let pieces = |bytes: Bytes| bytes.chunks(PIECE_BYTES).map(|piece| bytes.slice_ref(piece)).collect();
    let (rest, second) = (pieces(reply.body.slice(..half)), pieces(reply.body.slice(half..)));
    if length == 0 {
        work.end(Ended::Answered);
    }
    let mut response = Response::new(Writing { rest, second, pause: None, left: length as u64, then, work });
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
    for (name, value) in reply.headers {
        let value = HeaderValue::from_str(&value).expect("a field value");
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
    response
}

impl Body for Writing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(piece) = this.rest.pop_front() {
            this.left -= piece.len() as u64;
            if this.left == 0 {
                this.work.end(Ended::Answered);
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match this.then {
            Then::End => Poll::Ready(None),
            Then::Stall => Poll::Pending,
            Then::Pause(pause) => {
                let timer = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
                std::task::ready!(timer.as_mut().poll(cx));
                this.rest = std::mem::take(&mut this.second);
                this.then = Then::End;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Then::Reset => {
                // What was written so far is on its way before the connection breaks.
                let timer = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(super::millis(1))));
                std::task::ready!(timer.as_mut().poll(cx));
                this.work.end(Ended::Reset);
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
