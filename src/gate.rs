//! THE page: a whole guarded exchange, from a request that was framed properly to the answer its client gets.
//!
//! The stages stand here in order, each with its failure branch beside it; what a stage does is in its own file.
//! A client only ever waits here: the flight itself (lanes, claim, sending, judging, settling) is the task of
//! [`crate::claim::driver`], which calls [`lead`] to send. Nothing here touches the store or the shop.

pub mod alarm;
pub mod body;
pub mod client;
pub mod core;
mod desk;
pub mod find;
pub mod forward;
mod given;
pub mod lead;
pub mod observe;
pub mod pass;
pub mod renew;
pub mod report;
pub mod search;
mod verify;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Response, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    answer::{
        refusal::Refusal,
        replay::{self, How, Share, Storing},
    },
    claim::{Boarding, Demand, End, Ended, Keep, LostCause, Part, Role, Ticket},
    config::{Enforce, Guard, Mode, SendKey},
    ops::words::{Phase, Reason},
    request::{self, IdentityRead, Reading, Unread},
    store::{Judged, Standing},
    upstream::{Affinity, ToShop},
};
use alarm::Nap;
use body::{Collected, Reply};
pub use client::Client;
pub use core::{Core, Gate};
use desk::{Desk, Front, LeadersOwn};
use find::{Found, Matched};
use given::{delivered, give, hold_of, leaders_answer, streamed};
use lead::{Lead, Ready};
use renew::Renewing;
use report::Report;
use verify::{Aside, Signed, understood};

/// How soon a client may try again that was refused for a bound or waited in vain; the flight goes on meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Answers one request of a client.
pub async fn exchange(
    core: &Rc<Core>,
    client: &Rc<Client>,
    mut parts: Box<Parts>,
    incoming: Incoming,
) -> Response<Reply> {
    forward::name_host(&mut parts);
    let id = forward::request_id(core, &client.peer, &parts.headers);
    let trace = forward::traceparent(core, &client.peer, &mut parts.headers);
    let wants = crate::answer::refusal::Wants::of(&parts.headers);
    let refuse = |refusal: Refusal, route| {
        core.gate.refused(&refusal, route, id.to_str().unwrap_or(""), client.peer.shown());
        report::plain_refusal(&refusal, wants, &id)
    };
    let mut response = match admitted(core, client, parts, incoming).await {
        Err(unfound) => {
            let find::Unfound { parts, asking, refusal } = *unfound;
            match asking.filter(|&number| core.gate.config.routes[number].guard.is_some()) {
                None => refuse(refusal, None),
                Some(number) => {
                    Report::begin(core, client, number, (&id, wants), &parts).refuse(&refusal, Phase::Read)
                }
            }
        }
        Ok(matched) => {
            let number = matched.route;
            match &core.gate.config.routes[number].guard {
                // No guard: streamed through untouched.
                None => {
                    let upstream = core.gate.config.routes[number].upstream;
                    let read = matched.found.collected();
                    let renewing = renew::of_request(core, upstream, &matched, read).await;
                    let Matched { parts, found, .. } = matched;
                    let body = found.into_body();
                    match pass::pass(core, client, upstream, &id, parts, body, &renewing, None).await {
                        Ok(passed) => passed.response,
                        Err(refusal) => refuse(refusal, Some(number)),
                    }
                }
                Some(guard) if guard.enforce == Enforce::Observe => {
                    Box::pin(observe::exchange(core, client, (&id, wants), guard, matched)).await
                }
                Some(guard) => {
                    let report = Report::begin(core, client, number, (&id, wants), &matched.parts);
                    guarded(core, client, &id, guard, matched, report).await
                }
            }
        }
    };
    response.headers_mut().insert(forward::TRACEPARENT, trace);
    response
}

/// A request that is whole so far, and the route that takes it.
async fn admitted(
    core: &Rc<Core>,
    client: &Client,
    parts: Box<Parts>,
    incoming: Incoming,
) -> Result<Matched, Box<find::Unfound>> {
    match client.admits(&parts) {
        Ok(()) => find::route(core, client, parts, incoming).await,
        Err(refusal) => Err(Box::new(find::Unfound { parts, asking: None, refusal })),
    }
}

/// A guarded exchange: read, extract, take part, wait.
///
/// In a box: traffic without a guard would carry the room for all this along.
fn guarded<'a>(
    core: &'a Rc<Core>,
    client: &'a Rc<Client>,
    id: &'a HeaderValue,
    guard: &'a Guard,
    mut matched: Matched,
    mut report: Report,
) -> Pin<Box<dyn Future<Output = Response<Reply>> + 'a>> {
    Box::pin(async move {
        if core.gate.is_draining() {
            return report.refuse(&Refusal::Draining { retry_after: TRY_AGAIN }, Phase::Read);
        }
        let read = match find::collected(core, client, guard, &mut matched).await {
            Ok(read) => read,
            Err(refusal) => return report.refuse(&refusal, Phase::Read),
        };
        report.read();
        let arrived = Instant::now();
        if let Some(doubt) = matched.doubt.take() {
            return report.refuse(&Refusal::PathUnreadable { detail: doubt.to_string().into() }, Phase::Read);
        }
        let signed = verify::check(core, id.to_str().unwrap_or(""), guard, &matched, &read);
        if signed == Signed::Refused {
            return report.refuse(&Refusal::BadSignature, Phase::Read);
        }
        let upstream = core.gate.config.routes[matched.route].upstream;
        let renewing = renew::of_request(core, upstream, &matched, Some(&read)).await;
        let mut reading = match understood(core, guard, &matched, &read, signed) {
            Ok(reading) => reading,
            Err(Aside::Pass(why)) => {
                return Box::pin(bypass(core, client, id, matched, (read, &renewing), (report, why))).await;
            }
            Err(Aside::Refuse(refusal)) => return report.refuse(&refusal, Phase::Read),
        };
        let named = for_operators(core, &reading);
        report.reading(&mut reading);
        let share = match reading.identity {
            IdentityRead::Undeclared => Share::NoIdentity,
            IdentityRead::Present | IdentityRead::Absent => Share::SameIdentity,
        };
        let demand = demand(guard, matched.route, &reading, renewing.generations(), named);
        if let Some(refusal) = no_room(core, &reading) {
            return report.refuse(&refusal, Phase::Claim);
        }
        let desk = Rc::new(Desk::default());
        let front = desk.front();
        let part = core.gate.claims.take_part(demand, || {
            Lead::new(Rc::clone(core), ready(client, id, guard, matched, read, &reading, (renewing, desk)))
        });
        match part {
            Part::Seat(mut ticket) => {
                report.boarded(ticket.role());
                let waited = wait(core, &mut ticket, &front, (arrived, guard.wait_max)).await;
                report.server(front.server());
                let mut response = came(core, id, &reading, guard, (&ticket, share), waited, report);
                if core.gate.claims.store.standing() != Standing::Up {
                    replay::decorate_alone(response.headers_mut());
                }
                response
            }
            Part::FollowersFull => {
                report.refuse(&Refusal::FollowersFull { retry_after: TRY_AGAIN }, Phase::Follow)
            }
            Part::Mismatch => report.refuse(&Refusal::EventMismatch, Phase::Claim),
        }
    })
}

/// What the waiting came to.
fn came(
    core: &Rc<Core>,
    id: &HeaderValue,
    reading: &Reading,
    guard: &Guard,
    (ticket, share): (&Ticket, Share),
    waited: Waited,
    report: Report,
) -> Response<Reply> {
    let retry_after = TRY_AGAIN;
    match waited {
        Waited::End(end, own) => answered(core, id, reading, guard, (ticket.role(), share), end, own, report),
        Waited::Stream(own) => {
            let (fence, reason) = (own.fence, reason_of(own.judged));
            report.streamed(fence).lead(streamed(id, own), reason)
        }
        Waited::Cut if ticket.has_set_out() => {
            report.refuse(&Refusal::OutcomeUnknown { retry_after }, Phase::Follow)
        }
        Waited::Cut => report.refuse(&Refusal::Draining { retry_after }, Phase::Follow),
        Waited::InVain => report.refuse(&Refusal::WaitExhausted { retry_after }, Phase::Follow),
    }
}

/// Which order, which request, whose.
fn extract(core: &Core, guard: &Guard, matched: &Matched, read: &Collected) -> Result<Reading, Unread> {
    let content =
        request::body::read_as(guard.body_as, &matched.parts.headers, &read.bytes, guard.decoded_max);
    let host = find::host(&matched.parts);
    let view = search::view(&matched.parts, &host, &matched.path, &matched.params);
    request::read(&guard.rules, &core.gate.secret, &view, &content)
}

/// The order's name, where operators can ask for it.
fn for_operators(core: &Core, reading: &Reading) -> Option<std::sync::Arc<str>> {
    core.gate.config.admin.is_some().then(|| reading.order.as_str().into())
}

fn demand(
    guard: &Guard,
    route: usize,
    reading: &Reading,
    generations: smallvec::SmallVec<[crate::store::Key; 1]>,
    order: Option<std::sync::Arc<str>>,
) -> Demand {
    Demand {
        route,
        lanes: reading.lanes.clone(),
        fingerprint: reading.fingerprint,
        scope: reading.scope,
        body: reading.body,
        generations,
        boarding: match guard.mode {
            Mode::Once | Mode::Serial => Boarding::UntilEnd,
            Mode::Signal => Boarding::UntilSent,
        },
        in_doubt: guard.in_doubt,
        on_store_down: guard.on_store_down,
        followers_max: guard.followers_max,
        lane_depth_max: guard.lane_depth_max,
        order,
    }
}

/// What the flight's task needs to send, should this exchange come to lead.
fn ready(
    client: &Client,
    id: &HeaderValue,
    guard: &Guard,
    matched: Matched,
    read: Collected,
    reading: &Reading,
    (renewing, desk): (Renewing, Rc<Desk>),
) -> Ready {
    let mut request = matched.parts;
    forward::to_shop(&client.peer, id, None, &mut request);
    Ready {
        route: matched.route,
        request,
        body: read.bytes,
        lent: read.lent,
        shares: reading.fingerprint.is_some(),
        idempotency_key: idempotency_key(guard, reading),
        affinity: reading.lanes.first().map(|lane| Affinity::of(&lane.0[..8])),
        renewing,
        desk,
    }
}

/// Flights outlive their clients, so the bound on connections does not bound them. A flight that is there may still
/// be joined. Cores look without a lock: each of them may go beyond the bound by one.
fn no_room(core: &Core, reading: &Reading) -> Option<Refusal> {
    let flights = &core.gate.claims.flights;
    let is_full = flights.running() >= core.gate.config.limits.flights_max;
    let begins = || reading.fingerprint.is_none_or(|fingerprint| !flights.has(&fingerprint));
    let bound = "flights (limits.flights_max)";
    (is_full && begins()).then_some(Refusal::Overloaded { retry_after: TRY_AGAIN, bound })
}

/// A stable key that a plugin of the shop may use: the same for the same request, a guess to nobody.
fn idempotency_key(guard: &Guard, reading: &Reading) -> Option<HeaderValue> {
    if guard.send_idempotency_key == SendKey::No {
        return None;
    }
    let key = reading.fingerprint?;
    HeaderValue::from_str(&format!("oncegate-{}", key.hex(16))).ok()
}

enum Waited {
    End(End, Option<LeadersOwn>),
    /// The leader's answer is too large to wait for its end.
    Stream(LeadersOwn),
    InVain,
    /// The process ends before the flight does.
    Cut,
}

/// Waits for the end of the flight, as long as the route's clients are willing to.
async fn wait(
    core: &Core,
    ticket: &mut Ticket,
    front: &Front,
    (arrived, wait_max): (Instant, Duration),
) -> Waited {
    let mut end = pin!(ticket.end());
    let mut nap = pin!(Nap::new(&core.alarms, arrived, wait_max));
    poll_fn(|cx| {
        if let Poll::Ready(end) = end.as_mut().poll(cx) {
            // The end may come before a large answer was begun to be read: it is streamed all the same.
            return Poll::Ready(match front.take() {
                Some(own) if own.stream.is_some() => Waited::Stream(own),
                own => Waited::End(end, own),
            });
        }
        if let Poll::Ready(own) = front.poll_begun(cx) {
            return Poll::Ready(Waited::Stream(own));
        }
        if nap.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Waited::InVain);
        }
        if core.alarms.is_cut() { Poll::Ready(Waited::Cut) } else { Poll::Pending }
    })
    .await
}

/// What the end of the flight means to one of those who waited for it.
#[expect(clippy::too_many_arguments, reason = "one exchange's parts, each used once")]
fn answered(
    core: &Rc<Core>,
    id: &HeaderValue,
    reading: &Reading,
    guard: &Guard,
    (role, share): (Role, Share),
    end: End,
    own: Option<LeadersOwn>,
    mut report: Report,
) -> Response<Reply> {
    report.end(&end);
    let phase = match role {
        Role::Leader => Phase::Answer,
        Role::Follower => Phase::Follow,
    };
    match end.what {
        Ended::Answered { answer, judged, hold } => {
            let reason = reason_of(judged);
            let delivered = delivered(core, guard, judged, hold);
            match (role, own) {
                (Role::Leader, Some(own)) => {
                    let stored = stored(guard, judged, reading);
                    report.lead(leaders_answer(id, own, &answer, stored, delivered), reason)
                }
                (Role::Leader, None) | (Role::Follower, _) => {
                    let given = give(id, &answer, (How::Follow, judged), share, delivered);
                    report.given(given, &answer, How::Follow, reason)
                }
            }
        }
        Ended::Followed { answer, judged } => {
            let hold = hold_of(reading, &answer, core.gate.claims.lease);
            let delivered = delivered(core, guard, judged, hold);
            let given = give(id, &answer, (How::Follow, judged), share, delivered);
            report.given(given, &answer, How::Follow, reason_of(judged))
        }
        Ended::Replayed(record) => {
            let hold = hold_of(reading, &record, core.gate.claims.lease);
            let delivered = delivered(core, guard, Judged::Done, hold);
            let given = give(id, &record, (How::Replay, Judged::Done), share, delivered);
            report.given(given, &record, How::Replay, Reason::Done)
        }
        Ended::Lost(LostCause::Timeout) => report.refuse(&Refusal::UpstreamTimeout { cause: None }, phase),
        Ended::Lost(LostCause::Reset | LostCause::Truncated) => {
            report.refuse(&Refusal::UpstreamReset { cause: None }, phase)
        }
        Ended::InDoubt { remaining } => {
            report.refuse(&Refusal::OutcomeUnknown { retry_after: remaining }, Phase::Claim)
        }
        Ended::Resolved { .. } => report.refuse(&Refusal::ResolvedDone, Phase::Claim),
        Ended::Mismatch => report.refuse(&Refusal::EventMismatch, Phase::Claim),
        Ended::Unreachable => {
            report.refuse(&Refusal::UpstreamUnreachable { retry_after: TRY_AGAIN, cause: None }, Phase::Send)
        }
        Ended::LaneFull => report.refuse(&Refusal::LaneFull { retry_after: TRY_AGAIN }, Phase::Queue),
        Ended::Busy => {
            let bound = "live states of the store";
            report.refuse(&Refusal::Overloaded { retry_after: TRY_AGAIN, bound }, Phase::Claim)
        }
        Ended::StoreDown => {
            report.refuse(&Refusal::StoreDown { retry_after: TRY_AGAIN, cause: None }, Phase::Claim)
        }
        Ended::Broken => report.refuse(&Refusal::Internal { cause: None }, Phase::Claim),
    }
}

fn reason_of(judged: Judged) -> Reason {
    match judged {
        Judged::Done => Reason::Done,
        Judged::Pending => Reason::Pending,
        Judged::Failed => Reason::Failed,
    }
}

fn stored(guard: &Guard, judged: Judged, reading: &Reading) -> Storing {
    match lead::keep(guard, judged, reading.fingerprint.is_some()) {
        Keep::For { .. } => Storing::Stored,
        Keep::Not => Storing::Unstored,
    }
}

/// The guard stands aside: the request has no order key, or no good signature, and the route says to pass it on.
async fn bypass(
    core: &Rc<Core>,
    client: &Rc<Client>,
    id: &HeaderValue,
    matched: Matched,
    (read, renewing): (Collected, &Renewing),
    (mut report, why): (Report, Reason),
) -> Response<Reply> {
    report.passing();
    let upstream = core.gate.config.routes[matched.route].upstream;
    match pass::pass(core, client, upstream, id, matched.parts, read.into_body(), renewing, None).await {
        Ok(mut passed) => {
            let how = How::Bypass(why);
            replay::decorate(passed.response.headers_mut(), how, 0);
            report.bypass(passed, why)
        }
        Err(refusal) => report.refuse(&refusal, Phase::Send),
    }
}

impl Found {
    fn collected(&self) -> Option<&Collected> {
        match self {
            Self::Collected(read) => Some(read),
            Self::Stream(_) | Self::Begun { .. } | Self::Taken => None,
        }
    }

    fn into_body(self) -> ToShop {
        match self {
            Found::Stream(incoming) => ToShop::client(incoming),
            Found::Collected(read) => read.into_body(),
            Found::Begun { begun, rest, lent } => ToShop::begun(lent.around(begun), rest),
            Found::Taken => ToShop::empty(),
        }
    }
}

impl Gate {
    /// From now on guarded requests are refused, and connections close after their running exchange.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }
}
