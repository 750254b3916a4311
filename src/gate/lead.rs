//! What the leader of a flight does: send once, capture the answer, judge it.
//!
//! It runs in the flight's task, not in a client's. It never sends again by itself; what it cannot know (a reset, a
//! timeout, an answer that breaks off) it says.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    body::{Piece, Pieces},
    core::{Core, Lent, unix_now},
    forward, pass,
    renew::{self, Renewing},
};
use crate::{
    answer::{judge::Seen, record},
    claim::{Answered, Keep, Lost, LostCause, NotSent, Sender, Sent},
    config::{Guard, Mode},
    ops::words::CodeClass,
    store::{Fence, Hold, InDoubtPolicy, Judged, Record},
    upstream::{Begun, FromShop, Purpose, SendError, ToShop, send},
};

/// Pieces of an answer under way to a client that reads more slowly than the shop writes.
const RELAY_DEPTH: usize = 8;
/// How long such a client may take for one of them.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);
/// An answer that is no larger is captured even where the budget for buffers is spent, since `flights_max` bounds it
/// as well. Were it judged by its head instead, a declined payment would count as done because others are busy.
const SMALL_BYTES: usize = 64 << 10;

/// What only the leader's client gets: the answer's headers as the shop sent them, and a body too large to keep.
pub struct LeadersOwn {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub judged: Judged,
    pub fence: Fence,
    pub stream: Option<mpsc::Receiver<Piece>>,
    /// Counts the answer against the budget until it is written.
    pub lent: Lent,
}

/// Where the leader's client waits for what is its own. Shared, since an attempt that came to nothing gives it back.
type Own = Rc<Cell<Option<oneshot::Sender<LeadersOwn>>>>;

/// Which server answered, for the log. Shared with the leader's client, which runs on the same core.
#[derive(Default)]
pub struct Trace {
    pub server: Cell<Option<usize>>,
}

/// The request of a flight, ready to be sent.
pub struct Lead {
    core: Rc<Core>,
    ready: Ready,
    own: Own,
}

/// What of a request its leader needs.
pub struct Ready {
    pub route: usize,
    /// Headers as they go to the shop.
    pub request: Parts,
    pub body: Bytes,
    /// The body counts against the budget until the shop has answered, or everybody was told that it did not.
    pub lent: Lent,
    pub keep: Keep,
    pub idempotency_key: Option<HeaderValue>,
    pub renewing: Renewing,
    pub trace: Rc<Trace>,
}

impl Lead {
    pub fn new(core: Rc<Core>, ready: Ready, own: oneshot::Sender<LeadersOwn>) -> Self {
        Self { core, ready, own: Rc::new(Cell::new(Some(own))) }
    }

    fn request(&self, fence: Fence) -> Request<ToShop> {
        let Ready { request, body, idempotency_key, .. } = &self.ready;
        let framed = request.headers.contains_key(header::CONTENT_LENGTH);
        let mut request = send::outgoing(request.clone(), ToShop::whole(body.clone()));
        let headers = request.headers_mut();
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        if !body.is_empty() || framed {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        // A kept answer is given to clients that did not ask for it themselves: no coding suits them all but this.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(forward::FENCE, HeaderValue::from(fence.0));
        if let Some(key) = idempotency_key {
            headers.entry("idempotency-key").or_insert_with(|| key.clone());
        }
        request
    }
}

impl Sender for Lead {
    async fn send(&mut self, hold: &Hold) -> Sent {
        let core = Rc::clone(&self.core);
        let route = &core.gate.config.routes[self.ready.route];
        let Some(guard) = &route.guard else { return Sent::NotSent(NotSent::Unreachable) };
        let patience = core.gate.config.upstreams[route.upstream].answer_timeout;
        let begun = Rc::new(Begun::default());
        let exchange = Exchange {
            core: Rc::clone(&self.core),
            route: self.ready.route,
            fence: hold.fence,
            keep: self.ready.keep,
            renewing: self.ready.renewing.clone(),
            begun: Rc::clone(&begun),
            own: Rc::clone(&self.own),
            trace: Rc::clone(&self.ready.trace),
            listeners: Rc::new(Listeners::new()),
        };
        let listeners = Rc::clone(&exchange.listeners);
        let mut running = Box::pin(exchange.run(self.request(hold.fence)));
        let last_alive = || begun.at().unwrap_or_else(Instant::now);
        let came = pass::within(patience, last_alive, &mut running).await;
        if begun.at().is_some() {
            core.gate.metrics.route(self.ready.route).upstream_sends.inc();
        }
        if let Some(sent) = came {
            return sent;
        }
        listeners.count(&core, route.upstream, CodeClass::None);
        listeners.relay.take();
        // Nobody waits for the request any more: what it took of the budget is free for others.
        self.ready.body = Bytes::new();
        self.ready.lent = Lent::none(&core.gate.buffers);
        let late = listening_for(guard).map(|patience| -> (crate::claim::Later, Duration) {
            let listening = async move {
                match running.await {
                    Sent::Answered(answered) => Some(answered),
                    Sent::NotSent(_) | Sent::Lost(_) => None,
                }
            };
            (Box::pin(listening), patience)
        });
        Sent::Lost(Lost { cause: LostCause::Timeout, late })
    }
}

/// How long the shop is listened to after everybody was told that its answer is not known: as long as the order is
/// held, since only then can a late answer still resolve it. A PHP script whose client has left may stop half way
/// through an order, so the connection stays open meanwhile.
fn listening_for(guard: &Guard) -> Option<Duration> {
    match guard.in_doubt {
        InDoubtPolicy::Hold(hold_for) => Some(hold_for),
        InDoubtPolicy::Retry => None,
    }
}

/// How long a done answer of this guard is kept.
pub fn keep(guard: &Guard, shares: bool) -> Keep {
    match guard.mode {
        Mode::Once if shares => Keep::For { unseen: guard.replay_unseen_for, seen: guard.replay_for },
        Mode::Once | Mode::Signal | Mode::Serial => Keep::Not,
    }
}

struct Exchange {
    core: Rc<Core>,
    route: usize,
    fence: Fence,
    keep: Keep,
    renewing: Renewing,
    begun: Rc<Begun>,
    own: Own,
    trace: Rc<Trace>,
    listeners: Rc<Listeners>,
}

/// Who still waits for what the shop sends. Shared with whoever has the patience, and ends it.
struct Listeners {
    sent_at: Instant,
    /// A request is counted once, also where its answer comes after it was given up.
    counted: Cell<bool>,
    /// To the leader's client. Once it is gone, the client sees that its answer has broken off.
    relay: RefCell<Option<mpsc::Sender<Piece>>>,
}

impl Listeners {
    fn new() -> Self {
        Self { sent_at: Instant::now(), counted: Cell::new(false), relay: RefCell::default() }
    }

    fn count(&self, core: &Core, upstream: usize, class: CodeClass) {
        if !self.counted.replace(true) {
            core.gate.upstream_answered(upstream, class, self.sent_at.elapsed());
        }
    }

    /// Passes a piece on. A client that does not read holds up nobody for long: the order's lane is behind this.
    async fn tell(&self, piece: Piece) {
        let Some(to) = self.relay.borrow().clone() else { return };
        if !matches!(timeout(RELAY_PATIENCE, to.send(piece)).await, Ok(Ok(()))) {
            self.relay.take();
        }
    }
}

impl Exchange {
    async fn run(self, request: Request<ToShop>) -> Sent {
        let mut outgoing = Some(request);
        let core = Rc::clone(&self.core);
        let route = &core.gate.config.routes[self.route];
        let Some(guard) = &route.guard else { return Sent::NotSent(NotSent::Unreachable) };
        let sent = match core.upstreams[route.upstream].send(&mut outgoing, Purpose::Once, &self.begun).await
        {
            Ok(sent) => sent,
            Err(error) => {
                self.listeners.count(&core, route.upstream, CodeClass::None);
                core.gate.upstream_failed(route.upstream, &error);
                return match error {
                    SendError::Unreachable { .. } | SendError::NoServer => {
                        Sent::NotSent(NotSent::Unreachable)
                    }
                    SendError::Broken { .. } => lost(LostCause::Reset),
                };
            }
        };
        self.trace.server.set(Some(sent.server));
        let (parts, body) = sent.response.into_parts();
        self.listeners.count(&core, route.upstream, CodeClass::of(parts.status.as_u16()));
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it (RFC 9110 section 15.2.2): whatever the shop means, it is no answer.
            return lost(LostCause::Reset);
        }
        renew::of_answer(&core, &self.renewing, &parts.headers).await;
        match capture(body, guard.record_max, Lent::none(&core.gate.buffers)).await {
            Captured::Whole(body, lent) => {
                let seen = Seen::Whole(&body);
                let judged = guard.done_when.judge_seen(parts.status, &parts.headers, seen, guard.record_max);
                let answer = record::record(parts.status, &parts.headers, &body, self.fence, unix_now());
                self.give(parts, judged, None, lent);
                self.answered(answer, judged)
            }
            Captured::Broken => lost(LostCause::Truncated),
            Captured::TooLarge { begun, rest } => {
                let judged =
                    guard.done_when.judge_seen(parts.status, &parts.headers, Seen::Begun, guard.record_max);
                let answer = record::tombstone(parts.status, &parts.headers, self.fence, unix_now());
                let (relay, stream) = mpsc::channel(RELAY_DEPTH);
                self.give(parts, judged, Some(stream), Lent::none(&core.gate.buffers));
                *self.listeners.relay.borrow_mut() = Some(relay);
                match pass_on(begun, rest, &self.listeners, &self.begun).await {
                    Passed::Whole => self.answered(answer, judged),
                    Passed::Broken => lost(LostCause::Truncated),
                }
            }
        }
    }

    fn answered(&self, answer: Record, judged: Judged) -> Sent {
        Sent::Answered(Answered { answer: Arc::new(answer), judged, keep: self.keep })
    }

    fn give(
        &self,
        parts: http::response::Parts,
        judged: Judged,
        stream: Option<mpsc::Receiver<Piece>>,
        lent: Lent,
    ) {
        if let Some(own) = self.own.take() {
            let http::response::Parts { status, headers, .. } = parts;
            // A leader's client that has gone away wants nothing any more.
            let _ = own.send(LeadersOwn { status, headers, judged, fence: self.fence, stream, lent });
        }
    }
}

fn lost(cause: LostCause) -> Sent {
    Sent::Lost(Lost { cause, late: None })
}

enum Captured {
    Whole(Bytes, Lent),
    /// Larger than what is kept, or than what there is room for.
    TooLarge {
        begun: Bytes,
        rest: FromShop,
    },
    Broken,
}

async fn capture(mut body: FromShop, bytes_max: usize, mut lent: Lent) -> Captured {
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Captured::Broken };
        let Ok(data) = frame.into_data() else { continue };
        let bytes = pieces.len() + data.len();
        let has_room = lent.grow(bytes - lent.bytes()) || bytes <= SMALL_BYTES;
        pieces.push(data, 0);
        if bytes > bytes_max || !has_room {
            return Captured::TooLarge { begun: pieces.join(), rest: body };
        }
    }
    Captured::Whole(pieces.join(), lent)
}

enum Passed {
    Whole,
    Broken,
}

/// Reads the shop to its end, whether or not the client still takes what is read.
async fn pass_on(begun: Bytes, mut rest: FromShop, to: &Listeners, alive: &Begun) -> Passed {
    to.tell(Piece::Data(begun)).await;
    while let Some(frame) = rest.frame().await {
        let Ok(frame) = frame else {
            to.relay.take();
            return Passed::Broken;
        };
        alive.renew();
        if let Ok(data) = frame.into_data() {
            to.tell(Piece::Data(data)).await;
        }
    }
    // Without this piece the client's answer is seen to have broken off.
    to.tell(Piece::Last).await;
    Passed::Whole
}
