//! `enforce = false`: everything is computed, logged and counted, and the traffic is not touched, byte for byte.
//!
//! Observed exchanges are claimed in a store of their own, which nobody waits for: what would have followed or been
//! replayed is sent to the shop like everything else, and counted.

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::{
    Client, Core, TRY_AGAIN,
    body::{Reply, Watch},
    core::{Lent, unix_now},
    find::{self, Matched},
    lead, pass,
    renew::Renewing,
    report::Report,
    verify::{self, Signed},
};
use crate::{
    answer::{
        judge::Seen,
        record,
        refusal::{Refusal, Wants},
    },
    claim::{Boarding, Keep},
    config::{Guard, Mode},
    ops::words::{Phase, Reason},
    request::{Reading, Unread},
    store::{
        Ask, Claimed, Ending, Hold, Judged, Key, May, Owner, Store,
        memory::{Memory, MemoryLimits},
    },
};

/// How much the store of observed exchanges may keep; it keeps no bodies worth mentioning.
const RECORD_BYTES_MAX: usize = 16 << 20;
const STATES_MAX: usize = 100_000;

/// What is remembered of observed exchanges.
pub struct Observation {
    store: Arc<Memory>,
}

impl Default for Observation {
    fn default() -> Self {
        let limits = MemoryLimits { records_bytes_max: RECORD_BYTES_MAX, states_max: STATES_MAX };
        Self { store: Arc::new(Memory::new(limits)) }
    }
}

impl Observation {
    pub fn tick(&self) {
        self.store.tick();
    }

    /// Renewal ends what is remembered here too: an honest second purchase is no duplicate.
    pub async fn begin_generation(&self, identity: Key) {
        // The memory store has no errors to tell of.
        let _ = self.store.begin_generation(identity).await;
    }
}

/// Passes a request on as if there were no guard, and finds out what the guard would have done.
pub async fn exchange(
    core: &Rc<Core>,
    client: &Rc<Client>,
    (id, wants): (&HeaderValue, Wants),
    guard: &Guard,
    mut matched: Matched,
) -> Response<Reply> {
    let mut report = Report::begin(core, client, matched.route, (id, wants), &matched.parts);
    let upstream = core.gate.config.routes[matched.route].upstream;
    let read = match find::peeked(core, client, guard, &mut matched).await {
        Err(refusal) => return report.refuse(&refusal, Phase::Read),
        Ok(read) => read,
    };
    let renewing = super::renew::of_request(core, upstream, &matched, read.as_ref()).await;
    let (reason, hold) = match read {
        None => (Reason::BodyTooLarge, None),
        Some(read) => {
            report.read();
            let signed = verify::check(core, id.to_str().unwrap_or(""), guard, &matched, &read);
            match super::extract(core, guard, &matched, &read) {
                _ if signed != Signed::Good => (Reason::BadSignature, None),
                Err(Unread::NoKey { .. }) => (Reason::NoOrderKey, None),
                Err(Unread::Unreadable { .. }) => (Reason::BodyUnreadable, None),
                Ok(mut reading) => {
                    report.reading(&mut reading);
                    would(core, guard, upstream, matched.route, &reading, &renewing).await
                }
            }
        }
    };
    if matches!(reason, Reason::WouldCoalesce | Reason::WouldReplay) {
        core.gate.metrics.route(matched.route).observed_duplicates.inc();
    }
    // Here until the answer begins: only then is it known whether the shop has seen the request at all.
    let watching = Rc::new(Cell::new(hold.map(|hold| Watching::new(core, matched.route, hold))));
    let watch: pass::Watcher = {
        let watching = Rc::clone(&watching);
        Box::new(move |head| Some(Box::new(watching.take()?.began(head))))
    };
    report.passing();
    let Matched { parts, found, .. } = matched;
    match pass::pass(core, client, upstream, id, parts, found.into_body(), &renewing, Some(watch)).await {
        Ok(passed) => report.bypass(passed, reason),
        Err(refusal) => {
            if let (Refusal::UpstreamUnreachable { .. }, Some(watching)) = (&refusal, watching.take()) {
                watching.abandon();
            }
            report.refuse(&refusal, Phase::Send)
        }
    }
}

/// What the guard would have done, and the lease that was taken in the store of observed exchanges.
async fn would(
    core: &Rc<Core>,
    guard: &Guard,
    upstream: usize,
    route: usize,
    reading: &Reading,
    renewing: &Renewing,
) -> (Reason, Option<Hold>) {
    let demand = super::demand(guard, route, reading, renewing.generations(), None);
    let ask = Ask {
        owner: Owner(core.random()),
        lanes: demand.lanes,
        fingerprint: demand.fingerprint,
        scope: demand.scope,
        body: demand.body,
        generations: demand.generations,
        may: match demand.boarding {
            Boarding::UntilEnd => May::FollowAny,
            Boarding::UntilSent => May::FollowAfter(None),
        },
        // Nobody renews an observed lease: it covers what the shop may take.
        lease: core.gate.config.upstreams[upstream].answer_timeout + TRY_AGAIN,
        in_doubt: demand.in_doubt,
    };
    match core.gate.observation.store.claim(&ask).await {
        Ok(Claimed::Lead(hold)) => (Reason::Observe, Some(hold)),
        Ok(Claimed::Follow { .. }) => (Reason::WouldCoalesce, None),
        Ok(Claimed::Queue { .. }) => match guard.mode {
            Mode::Signal => (Reason::WouldCoalesce, None),
            Mode::Once | Mode::Serial => (Reason::WouldQueue, None),
        },
        Ok(Claimed::Replay(_) | Claimed::Resolved { .. }) => (Reason::WouldReplay, None),
        Ok(Claimed::InDoubt { .. } | Claimed::Mismatch) => (Reason::WouldRefuse, None),
        Ok(Claimed::Busy) | Err(_) => (Reason::Observe, None),
    }
}

/// Looks on while an answer passes, and judges it at its end.
struct Watching {
    core: Rc<Core>,
    route: usize,
    hold: Option<Hold>,
    status: StatusCode,
    headers: HeaderMap,
    /// As long as it is no larger than what would be kept, and there is room for it.
    body: Option<BytesMut>,
    lent: Lent,
}

impl Watching {
    fn new(core: &Rc<Core>, route: usize, hold: Hold) -> Self {
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        let lent = Lent::none(&core.gate.buffers);
        let body = Some(BytesMut::new());
        Self { core: Rc::clone(core), route, hold: Some(hold), status, headers, body, lent }
    }

    fn began(mut self, head: &http::response::Parts) -> Self {
        self.status = head.status;
        self.headers = head.headers.clone();
        self
    }

    /// Not one byte has left for the shop.
    fn abandon(mut self) {
        let (Some(hold), core) = (self.hold.take(), Rc::clone(&self.core)) else { return };
        drop(tokio::task::spawn_local(async move {
            // The memory store has no errors to tell of.
            let _ = core.gate.observation.store.abandon(&hold).await;
        }));
    }

    fn settle(&mut self, judged: Option<Judged>) {
        let (Some(hold), Some(guard)) = (self.hold.take(), &self.core.gate.config.routes[self.route].guard)
        else {
            return;
        };
        let answer = || Arc::new(record::tombstone(self.status, &self.headers, hold.fence, unix_now()));
        let keep = |judged| lead::keep(guard, judged, hold.fingerprint.is_some());
        let ending = match judged.map(|judged| (judged, keep(judged))) {
            // Its client is there, or the answer would not have come to its end.
            Some((Judged::Done | Judged::Pending, Keep::For { seen, .. })) => {
                Ending::Done { record: answer(), unseen: seen, seen }
            }
            Some((Judged::Done | Judged::Pending, Keep::Not)) => Ending::DoneUnkept { answer: answer() },
            Some((Judged::Failed, _)) => Ending::Failed { answer: answer() },
            None => Ending::InDoubt,
        };
        let core = Rc::clone(&self.core);
        drop(tokio::task::spawn_local(async move {
            // The memory store has no errors to tell of.
            let _ = core.gate.observation.store.settle(&hold, ending).await;
        }));
    }
}

impl Watch for Watching {
    fn data(&mut self, bytes: &Bytes) {
        let Some(guard) = &self.core.gate.config.routes[self.route].guard else { return };
        let Some(body) = &mut self.body else { return };
        if body.len() + bytes.len() <= guard.record_max && self.lent.grow(bytes.len()) {
            body.extend_from_slice(bytes);
        } else {
            (self.body, self.lent) = (None, Lent::none(&self.core.gate.buffers));
        }
    }

    fn end(&mut self) {
        let Some(guard) = &self.core.gate.config.routes[self.route].guard else { return };
        let seen = self.body.as_deref().map_or(Seen::Begun, Seen::Whole);
        let judged = guard.done_when.judge_seen(self.status, &self.headers, seen, guard.record_max);
        self.settle(Some(judged));
    }
}

impl Drop for Watching {
    /// The answer broke off, or none came, or the client hung up on it.
    fn drop(&mut self) {
        self.settle(None);
    }
}
