//! What the leader of a flight does: send once, capture the answer, judge it.
//!
//! It runs in the flight's task, not in a client's. It never sends again by itself; what it cannot know (a reset, a
//! timeout, an answer that breaks off) it says.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    body::BodyError,
    core::{Core, Lent, unix_now},
};
use crate::{
    answer::record,
    claim::{Answered, Keep, Lost, LostCause, NotSent, Sender, Sent},
    config::{Guard, Mode},
    store::{Fence, Hold, InDoubtPolicy, Judged},
    upstream::{FromShop, Purpose, SendError, ToShop, send},
};

/// Pieces of an answer under way to a client that reads more slowly than the shop writes.
const RELAY_DEPTH: usize = 8;

/// What only the leader's client gets: the answer's headers as the shop sent them, and a body too large to keep.
pub struct LeadersOwn {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub stream: Option<mpsc::Receiver<Result<Bytes, BodyError>>>,
}

/// Which server answered, for the log. Shared with the leader's client, which runs on the same core.
#[derive(Default)]
pub struct Trace {
    pub server: Cell<Option<usize>>,
}

/// The request of a flight, ready to be sent.
pub struct Lead {
    core: Rc<Core>,
    route: usize,
    request: Parts,
    body: Bytes,
    /// The body counts against the budget until the flight is over.
    _lent: Lent,
    keep: Keep,
    own: Option<oneshot::Sender<LeadersOwn>>,
    idempotency_key: Option<HeaderValue>,
    trace: Rc<Trace>,
}

/// What of a request its leader needs.
pub struct Ready {
    pub route: usize,
    /// Headers as they go to the shop.
    pub request: Parts,
    pub body: Bytes,
    pub lent: Lent,
    pub keep: Keep,
    pub idempotency_key: Option<HeaderValue>,
    pub trace: Rc<Trace>,
}

impl Lead {
    pub fn new(core: Rc<Core>, ready: Ready, own: oneshot::Sender<LeadersOwn>) -> Self {
        let Ready { route, request, body, lent, keep, idempotency_key, trace } = ready;
        Self { core, route, request, body, _lent: lent, keep, own: Some(own), idempotency_key, trace }
    }

    fn request(&self, fence: Fence) -> Request<ToShop> {
        let mut request = send::outgoing(self.request.clone(), ToShop::whole(self.body.clone()));
        let headers = request.headers_mut();
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        if !self.body.is_empty() || self.request.headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        // A kept answer is given to clients that did not ask for it themselves: no coding suits them all but this.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert("oncegate-fence", HeaderValue::from(fence.0));
        if let Some(key) = &self.idempotency_key {
            headers.entry("idempotency-key").or_insert_with(|| key.clone());
        }
        request
    }
}

impl Sender for Lead {
    async fn send(&mut self, hold: &Hold) -> Sent {
        let core = Rc::clone(&self.core);
        let route = &core.gate.config.routes[self.route];
        let Some(guard) = &route.guard else { return Sent::NotSent(NotSent::Unreachable) };
        let patience = core.gate.config.upstreams[route.upstream].answer_timeout;
        let begun = Rc::new(Cell::new(false));
        let exchange = Exchange {
            core: Rc::clone(&self.core),
            route: self.route,
            fence: hold.fence,
            keep: self.keep,
            begun: Rc::clone(&begun),
            trace: Rc::clone(&self.trace),
        };
        let request = self.request(hold.fence);
        // A second attempt happens only after nothing was sent: then nothing was given to the leader either.
        let mut running = Box::pin(exchange.run(request, self.own.take()));
        match timeout(patience, &mut running).await {
            Ok((sent, own)) => {
                self.own = own;
                sent
            }
            Err(_) if !begun.get() => Sent::NotSent(NotSent::Unreachable),
            Err(_) => {
                let late = listening_for(guard).map(|patience| -> (crate::claim::Later, Duration) {
                    (
                        Box::pin(async move {
                            match running.await.0 {
                                Sent::Answered(answered) => Some(answered),
                                Sent::NotSent(_) | Sent::Lost(_) => None,
                            }
                        }),
                        patience,
                    )
                });
                Sent::Lost(Lost { cause: LostCause::Timeout, late })
            }
        }
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
    begun: Rc<Cell<bool>>,
    trace: Rc<Trace>,
}

type Own = Option<oneshot::Sender<LeadersOwn>>;

impl Exchange {
    async fn run(self, request: Request<ToShop>, own: Own) -> (Sent, Own) {
        let core = Rc::clone(&self.core);
        let route = &core.gate.config.routes[self.route];
        let Some(guard) = &route.guard else { return (Sent::NotSent(NotSent::Unreachable), own) };
        let upstream = &core.upstreams[route.upstream];
        let sent_at = tokio::time::Instant::now();
        core.gate.metrics.route(self.route).upstream_sends.inc();
        let sent = match upstream.send(request, Purpose::Once, &self.begun).await {
            Ok(sent) => sent,
            Err(SendError::Unreachable { .. } | SendError::NoServer) => {
                return (Sent::NotSent(NotSent::Unreachable), own);
            }
            Err(SendError::Broken { .. }) => return (lost(LostCause::Reset), None),
        };
        self.trace.server.set(Some(sent.server));
        let (parts, body) = sent.response.into_parts();
        core.gate.upstream_answered(route.upstream, parts.status, sent_at.elapsed());
        match capture(body, guard.record_max, Lent::none(&core.gate.buffers)).await {
            Captured::Whole(body) => {
                let judged = guard.done_when.judge(parts.status, &parts.headers, &body);
                let answer = record::record(parts.status, &parts.headers, &body, self.fence, unix_now());
                give(own, LeadersOwn { status: parts.status, headers: parts.headers, stream: None });
                let answer = Arc::new(answer);
                (Sent::Answered(Answered { answer, judged, keep: self.keep }), None)
            }
            Captured::Broken => (lost(LostCause::Truncated), None),
            Captured::TooLarge { begun, rest } => {
                let judged = judge_begun(guard, &parts, &begun);
                let answer = record::tombstone(parts.status, &parts.headers, self.fence, unix_now());
                let (relay, stream) = mpsc::channel(RELAY_DEPTH);
                give(own, LeadersOwn { status: parts.status, headers: parts.headers, stream: Some(stream) });
                match pass_on(begun, rest, relay).await {
                    Passed::Whole => {
                        let answer = Arc::new(answer);
                        (Sent::Answered(Answered { answer, judged, keep: self.keep }), None)
                    }
                    Passed::Broken => (lost(LostCause::Truncated), None),
                }
            }
        }
    }
}

fn lost(cause: LostCause) -> Sent {
    Sent::Lost(Lost { cause, late: None })
}

fn give(own: Own, what: LeadersOwn) {
    if let Some(own) = own {
        // A leader's client that has gone away wants nothing any more.
        let _ = own.send(what);
    }
}

/// An answer larger than what is kept is judged by its beginning. Where its status and headers speak for success
/// and only the body could say otherwise, it counts as done: a second order is worse than a refused retry.
fn judge_begun(guard: &Guard, parts: &http::response::Parts, begun: &[u8]) -> Judged {
    match guard.done_when.judge(parts.status, &parts.headers, begun) {
        Judged::Done => Judged::Done,
        Judged::Failed => guard.done_when.judge_head(parts.status, &parts.headers),
    }
}

enum Captured {
    Whole(Bytes),
    /// Larger than what is kept, or than what there is room for.
    TooLarge {
        begun: Bytes,
        rest: FromShop,
    },
    Broken,
}

async fn capture(mut body: FromShop, bytes_max: usize, mut lent: Lent) -> Captured {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Captured::Broken };
        let Ok(data) = frame.into_data() else { continue };
        let fits = first.len() + more.len() + data.len() <= bytes_max && lent.grow(data.len());
        if first.is_empty() && more.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
                first = Bytes::new();
            }
            more.extend_from_slice(&data);
        }
        if !fits {
            let begun = if more.is_empty() { first } else { more.freeze() };
            return Captured::TooLarge { begun, rest: body };
        }
    }
    Captured::Whole(if more.is_empty() { first } else { more.freeze() })
}

enum Passed {
    Whole,
    Broken,
}

/// Reads the shop to its end, whether or not the client still takes what is read.
async fn pass_on(begun: Bytes, mut rest: FromShop, relay: mpsc::Sender<Result<Bytes, BodyError>>) -> Passed {
    let mut relay = Some(relay);
    let mut data = begun;
    loop {
        if let Some(to) = &relay
            && to.send(Ok(data)).await.is_err()
        {
            relay = None;
        }
        data = loop {
            match rest.frame().await {
                None => return Passed::Whole,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => break data,
                    Err(_) => continue,
                },
                Some(Err(_)) => {
                    if let Some(to) = relay {
                        let _ = to.send(Err(BodyError::Relay)).await;
                    }
                    return Passed::Broken;
                }
            }
        };
    }
}
