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
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    alarm::Nap,
    body::{Piece, Pieces},
    core::{Core, Lent, unix_now},
    desk::{Desk, LeadersOwn},
    forward, pass,
    renew::{self, Renewing},
};
use crate::{
    answer::{judge::Seen, record},
    claim::{Answered, Keep, Lost, LostCause, NotSent, Sender, Sent},
    config::{Guard, Mode},
    ops::words::CodeClass,
    request::Scope,
    store::{Fence, Hold, InDoubtPolicy, Judged, Record},
    upstream::{
        Affinity, Begun, FromShop, Purpose, SendError, ToShop,
        send::{self, Outgoing},
    },
};

/// Pieces of an answer under way to a client that reads more slowly than the shop writes.
const RELAY_DEPTH: usize = 8;
/// How long such a client may take for one of them.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);
/// An answer that is no larger is captured even where the budget for buffers is spent, since `flights_max` bounds it
/// as well. Were it judged by its head instead, a declined payment would count as done because others are busy.
const SMALL_BYTES: usize = 64 << 10;

/// The request of a flight, ready to be sent.
pub struct Lead {
    core: Rc<Core>,
    course: Rc<Course>,
    /// The body counts against the budget until the shop has answered, or everybody was told that it did not.
    lent: Cell<Option<Lent>>,
}

/// What of a request its leader needs.
pub struct Ready {
    pub route: usize,
    /// Headers as they go to the shop.
    pub request: Box<Parts>,
    pub body: Bytes,
    pub lent: Lent,
    /// Whether its answer may be given to others.
    pub shares: bool,
    pub idempotency_key: Option<HeaderValue>,
    /// Exchanges of one order go to one server, where that is asked for.
    pub affinity: Option<Affinity>,
    pub renewing: Renewing,
    pub desk: Rc<Desk>,
}

impl Lead {
    pub fn new(core: Rc<Core>, ready: Ready) -> Self {
        let Ready { route, request, body, lent, shares, idempotency_key, affinity, renewing, desk } = ready;
        let course = Rc::new(Course {
            route,
            shares,
            affinity,
            renewing,
            desk,
            begun: Begun::default(),
            sent_at: Cell::default(),
            counted: Cell::new(false),
            relay: RefCell::default(),
            outgoing: Cell::new(Box::new(Some(whole(*request, body, idempotency_key)))),
        });
        Self { core, course, lent: Cell::new(Some(lent)) }
    }
}

/// The request as it goes to the shop, but for its fence.
fn whole(parts: Parts, body: Bytes, idempotency_key: Option<HeaderValue>) -> Request<ToShop> {
    let length = body.len();
    let is_framed = length > 0 || parts.headers.contains_key(header::CONTENT_LENGTH);
    let mut request = send::outgoing(parts, ToShop::whole(body));
    let headers = request.headers_mut();
    if is_framed && !forward::says_length(headers, length) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // A kept answer is given to clients that did not ask for it themselves: no coding suits them all but this.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(key) = idempotency_key {
        headers.entry("idempotency-key").or_insert(key);
    }
    request
}

impl Sender for Lead {
    async fn send(&self, hold: &Hold) -> Sent {
        let (core, course) = (&self.core, &self.course);
        let route = &core.gate.config.routes[course.route];
        let Some(guard) = &route.guard else { return Sent::NotSent(NotSent::Unreachable) };
        let patience = core.gate.config.upstreams[route.upstream].answer_timeout;
        let now = Instant::now();
        course.sent_at.set(Some(now));
        course.counted.set(false);
        let exchange = Exchange { core: Rc::clone(core), course: Rc::clone(course), fence: hold.fence };
        let mut running = Box::pin(exchange.run());
        let last_alive = || course.begun.at().unwrap_or_else(Instant::now);
        let came = pass::within(core, (now, patience), last_alive, &mut running).await;
        if course.begun.at().is_some() {
            core.gate.metrics.route(course.route).upstream_sends.inc();
        }
        if let Some(sent) = came {
            return sent;
        }
        course.count(core, route.upstream, CodeClass::None);
        course.relay.take();
        // Nobody waits for the request any more: what it took of the budget is free for others.
        self.lent.take();
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

    fn rest(&self, from: Instant, length: Duration) -> impl Future<Output = ()> {
        Nap::new(&self.core.alarms, from, length)
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

/// How long an answer of this guard is kept.
///
/// One that is pending stays for seconds. Where a record answers for a whole order it is not kept at all: whoever comes
/// back with another means of payment is not to be sent to the provider that he has just left.
pub fn keep(guard: &Guard, judged: Judged, shares: bool) -> Keep {
    match (judged, guard.mode) {
        (Judged::Done, Mode::Once) if shares => {
            Keep::For { unseen: guard.replay_unseen_for, seen: guard.replay_for }
        }
        (Judged::Pending, Mode::Once) if shares && guard.rules.scope == Scope::Request => {
            Keep::For { unseen: guard.pending_for, seen: guard.pending_for }
        }
        (Judged::Done | Judged::Pending | Judged::Failed, Mode::Once | Mode::Signal | Mode::Serial) => {
            Keep::Not
        }
    }
}

/// One sending of the request.
struct Exchange {
    core: Rc<Core>,
    course: Rc<Course>,
    fence: Fence,
}

/// What the flight's task and whoever listens to the shop share, from the first attempt to the last.
struct Course {
    route: usize,
    shares: bool,
    affinity: Option<Affinity>,
    renewing: Renewing,
    desk: Rc<Desk>,
    begun: Begun,
    sent_at: Cell<Option<Instant>>,
    /// A request is counted once, also where its answer comes after it was given up.
    counted: Cell<bool>,
    /// To the leader's client. Once it is gone, the client sees that its answer has broken off.
    relay: RefCell<Option<mpsc::Sender<Piece>>>,
    /// Here as long as not one byte has left; each attempt takes it, and gives it back if it came to nothing.
    outgoing: Cell<Box<Outgoing>>,
}

impl Course {
    fn count(&self, core: &Core, upstream: usize, class: CodeClass) {
        if !self.counted.replace(true) {
            let took = self.sent_at.get().map_or(Duration::ZERO, |sent_at| sent_at.elapsed());
            core.gate.upstream_answered(upstream, class, took);
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
    async fn run(self) -> Sent {
        let route = &self.core.gate.config.routes[self.course.route];
        let Some(guard) = &route.guard else { return Sent::NotSent(NotSent::Unreachable) };
        let (parts, body) = match self.begin(route.upstream).await {
            Ok(response) => response.into_parts(),
            Err(came) => return came,
        };
        match capture(body, guard.record_max, Lent::none(&self.core.gate.buffers)).await {
            Captured::Whole(body, lent) => {
                let seen = Seen::Whole(&body);
                let judged = guard.done_when.judge_seen(parts.status, &parts.headers, seen, guard.record_max);
                let answer = record::record(parts.status, &parts.headers, &body, self.fence, unix_now());
                self.give(parts, judged, None, lent);
                self.answered(guard, answer, judged)
            }
            Captured::Broken => lost(LostCause::Truncated),
            // In a box: few answers are that large.
            Captured::TooLarge { begun, rest } => Box::pin(self.relay(guard, parts, begun, rest)).await,
        }
    }

    /// Sends, and gives the head of the shop's answer.
    async fn begin(&self, upstream: usize) -> Result<Response<FromShop>, Sent> {
        let Self { core, course, fence } = self;
        let mut outgoing = course.outgoing.take();
        if let Some(request) = &mut *outgoing {
            request.headers_mut().insert(forward::FENCE, forward::number(fence.0));
        }
        let sending =
            core.upstreams[upstream].send(&mut outgoing, Purpose::Once, &course.begun, course.affinity);
        let sent = match sending.await {
            Ok(sent) => sent,
            Err(error) => {
                course.count(core, upstream, CodeClass::None);
                core.gate.upstream_failed(upstream, &error);
                return Err(match error {
                    SendError::Unreachable { .. } | SendError::Full { .. } | SendError::NoServer => {
                        course.outgoing.set(outgoing);
                        Sent::NotSent(NotSent::Unreachable)
                    }
                    SendError::Broken { .. } => lost(LostCause::Reset),
                });
            }
        };
        course.desk.server.set(Some(sent.server));
        let status = sent.response.status();
        course.count(core, upstream, CodeClass::of(status.as_u16()));
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it (RFC 9110 section 15.2.2): whatever the shop means, it is no answer.
            return Err(lost(LostCause::Reset));
        }
        renew::of_answer(core, &course.renewing, sent.response.headers()).await;
        Ok(sent.response)
    }

    /// An answer that is larger than what is kept, or than what there is room for.
    async fn relay(&self, guard: &Guard, parts: http::response::Parts, begun: Bytes, rest: FromShop) -> Sent {
        let judged = guard.done_when.judge_seen(parts.status, &parts.headers, Seen::Begun, guard.record_max);
        let answer = record::tombstone(parts.status, &parts.headers, self.fence, unix_now());
        let (relay, stream) = mpsc::channel(RELAY_DEPTH);
        self.give(parts, judged, Some(stream), Lent::none(&self.core.gate.buffers));
        *self.course.relay.borrow_mut() = Some(relay);
        match pass_on(begun, rest, &self.course).await {
            Passed::Whole => self.answered(guard, answer, judged),
            Passed::Broken => lost(LostCause::Truncated),
        }
    }

    fn answered(&self, guard: &Guard, mut answer: Record, judged: Judged) -> Sent {
        let keep = keep(guard, judged, self.course.shares);
        if let Keep::For { unseen, .. } = keep {
            // Said here, while nobody else has it: the store would have to copy it.
            answer.remaining = unseen;
        }
        Sent::Answered(Answered { answer: Arc::new(answer), judged, keep })
    }

    fn give(
        &self,
        parts: http::response::Parts,
        judged: Judged,
        stream: Option<mpsc::Receiver<Piece>>,
        lent: Lent,
    ) {
        let http::response::Parts { status, headers, .. } = parts;
        self.course.desk.leave(LeadersOwn { status, headers, judged, fence: self.fence, stream, lent });
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
async fn pass_on(begun: Bytes, mut rest: FromShop, to: &Course) -> Passed {
    to.tell(Piece::Data(begun)).await;
    while let Some(frame) = rest.frame().await {
        let Ok(frame) = frame else {
            to.relay.take();
            return Passed::Broken;
        };
        to.begun.renew();
        if let Ok(data) = frame.into_data() {
            to.tell(Piece::Data(data)).await;
        }
    }
    // Without this piece the client's answer is seen to have broken off.
    to.tell(Piece::Last).await;
    Passed::Whole
}
