//! The record machine: who may send, what is done, what is in doubt (promise, section 5).
//!
//! ```text
//! free --claim--> flight --settle done--> done --until--> free
//!                 flight --abandon | settle failed--> free
//!                 flight --lease ran out | settle in doubt--> in doubt --late answer | hold over | operator--> done or free
//! ```
//!
//! Each function is one atomic step over [`Cells`]: it reads the cells that its arguments name, lets run out what
//! has run out by `now`, decides, writes, and says who is to be woken. It never does I/O, reads no clock, draws no
//! random numbers and never waits, so that a store can run it as a script.

pub mod cells;
mod read;
mod restore;

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use self::{
    cells::{Cells, Delivery, Place, Room, Run, State},
    read::{Look, Standing, after, between, is_readable, is_stale, is_whole, look, named, run, standing},
};
pub use self::{
    read::{is_outdated, standing_at},
    restore::{restore, restore_generation},
};
use super::{
    Ask, Ending, Fence, Hold, InDoubtPolicy, Key, LaneView, May, Millis, Record, Renewed, Resolution,
    Resolved, Settled,
};

/// What a step came to, and what it causes.
#[derive(Debug)]
pub struct Step<T> {
    pub reply: T,
    pub effects: Effects,
}

/// What a step causes outside the cells.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Effects {
    pub nudges: SmallVec<[Nudge; 2]>,
    /// Flights whose lease was found to have run out.
    pub leases_lost: u64,
}

/// Who has to look again. A nudge is a hint: too many of them cost a claim each, one too few costs a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nudge {
    /// All who wait at a fingerprint for the end of this flight.
    Waiting { fingerprint: Key, fence: Fence },
    /// The lane is free: one of those who wait for it.
    Next { lane: Key },
    /// The lane went in doubt: all who wait for it, because none of them can have it.
    All { lane: Key },
    /// A flight of this fingerprint has begun: those who wait for the lane with the same request can follow it.
    Same { lane: Key, fingerprint: Key },
}

/// What a claim came to; [`super::Claimed`] without the means to wait.
#[derive(Clone, Debug)]
pub enum Decision {
    Lead(Hold),
    Follow { fingerprint: Key, fence: Fence },
    Replay { record: Arc<Record>, remaining: Duration },
    Resolved { until: Millis, remaining: Duration },
    Queue { at: Place, running: Fence },
    InDoubt { age: Duration, remaining: Duration },
    Mismatch,
    Busy,
}

/// Asks for lanes and fingerprint together, or is told why not.
///
/// Asked again by the owner of a running flight, it gives the same fence and restarts the lease: the first answer
/// may have been lost on its way.
pub fn claim(cells: &mut impl Cells, now: Millis, ask: &Ask) -> Step<Decision> {
    let mut effects = Effects::default();
    if !is_readable(cells, ask) {
        return Step { reply: Decision::Busy, effects };
    }
    let full = |cells: &_| (Cells::room(cells) == Room::Full).then_some(Decision::Busy);
    // Most requests are new: where nothing stands anywhere, nothing can lapse or be in the way.
    let obstacle = if named(ask).all(|place| cells.place(place).is_none()) {
        full(cells)
    } else {
        for place in named(ask) {
            if let Look::Run(fence, _) = look(cells, place) {
                lapse(cells, now, fence, &mut effects);
            }
        }
        if let Some(fence) = led_already(cells, ask) {
            cells.set_state(fence, State::Flight { lease_ends: after(now, ask.lease) });
            return Step { reply: Decision::Lead(hold(ask, fence)), effects };
        }
        fingerprint_says(cells, now, ask)
            .or_else(|| scope_says(cells, now, ask))
            .or_else(|| lanes_say(cells, now, ask))
            .or_else(|| full(cells))
    };
    let reply = match obstacle {
        Some(decision) => {
            pass_on(cells, ask, &mut effects);
            decision
        }
        None => Decision::Lead(lead(cells, now, ask, &mut effects)),
    };
    Step { reply, effects }
}

/// Prolongs a lease that has not run out.
pub fn renew(cells: &mut impl Cells, now: Millis, hold: &Hold) -> Step<Renewed> {
    let mut effects = Effects::default();
    lapse(cells, now, hold.fence, &mut effects);
    let reply = match standing(cells, hold) {
        Standing::Flight => {
            cells.set_state(hold.fence, State::Flight { lease_ends: after(now, hold.lease) });
            Renewed::Held
        }
        Standing::InDoubt | Standing::Lost => Renewed::Lost,
    };
    Step { reply, effects }
}

/// Ends a flight with what is known of its answer, or resolves a doubt of the same fence; changes nothing else.
pub fn settle(cells: &mut impl Cells, now: Millis, hold: &Hold, ending: Ending) -> Step<Settled> {
    let mut effects = Effects::default();
    lapse(cells, now, hold.fence, &mut effects);
    let reply = match standing(cells, hold) {
        Standing::Flight => Settled::InTime,
        Standing::InDoubt => Settled::Late,
        Standing::Lost => return Step { reply: Settled::Superseded, effects },
    };
    match ending {
        Ending::Done { record, unseen, seen } => {
            let (until, delivery) = (after(now, unseen), Delivery::Awaited { seen });
            let done = State::Done { record, settled_at: now, until, delivery };
            keep(cells, hold.fence, done, &mut effects);
        }
        Ending::DoneUnkept { .. } | Ending::Failed { .. } => free(cells, hold.fence, &mut effects),
        // A doubt that is confirmed does not begin anew: the hold would never end under a sender that repeats.
        Ending::InDoubt if reply == Settled::Late => {}
        Ending::InDoubt => doubt(cells, hold.fence, now, &mut effects),
    }
    Step { reply, effects }
}

/// Frees a flight of which the owner knows that nothing was sent.
pub fn abandon(cells: &mut impl Cells, now: Millis, hold: &Hold) -> Step<()> {
    let mut effects = Effects::default();
    lapse(cells, now, hold.fence, &mut effects);
    if standing(cells, hold) == Standing::Flight {
        free(cells, hold.fence, &mut effects);
    }
    Step { reply: (), effects }
}

/// The answer has reached a client. If it is the first one, the record lives `seen` from now, however long it has
/// waited: a retry that gets the answer late may be followed by a double click of its own. Later ones change nothing.
pub fn delivered(cells: &mut impl Cells, now: Millis, hold: &Hold) -> Step<()> {
    let mut effects = Effects::default();
    lapse(cells, now, hold.fence, &mut effects);
    if let Some(run) = run(cells, hold.fence)
        && let State::Done { record, settled_at, delivery: Delivery::Awaited { seen }, .. } = &run.state
    {
        let (record, settled_at, until) = (Arc::clone(record), *settled_at, after(now, *seen));
        cells.set_state(hold.fence, State::Done { record, settled_at, until, delivery: Delivery::Made });
    }
    Step { reply: (), effects }
}

/// Ends the records of an identity that were claimed before now; a flight that runs is not disturbed.
///
/// "Before" is told by fences, not by time: two things of one millisecond would have no order.
pub fn begin_generation(cells: &mut impl Cells, now: Millis, identity: Key) {
    cells.set_generation(now, identity, cells.last_fence());
}

/// Removes a run, whatever its state: for a store that mirrors another one, which has let it go.
pub fn evict(cells: &mut impl Cells, fence: Fence) -> Effects {
    let mut effects = Effects::default();
    free(cells, fence, &mut effects);
    effects
}

/// What a lane looks like to an operator.
pub fn inspect(cells: &mut impl Cells, now: Millis, lane: Key) -> Step<LaneView> {
    let mut effects = Effects::default();
    lapse_at(cells, now, Place::Lane(lane), &mut effects);
    let reply = match look(cells, Place::Lane(lane)) {
        Look::Free => LaneView::Free,
        Look::Unreadable => LaneView::Unreadable,
        Look::Run(fence, run) => match run.state {
            State::Flight { lease_ends } => LaneView::Flight { fence, lease_left: between(now, lease_ends) },
            State::InDoubt { since, until } => {
                LaneView::InDoubt { fence, age: between(since, now), remaining: between(now, until) }
            }
            // A lane never points to an ended run; one that does was written by someone else.
            State::Done { .. } | State::Resolved { .. } => LaneView::Unreadable,
        },
    };
    Step { reply, effects }
}

/// An operator's word on a lane in doubt. It speaks for the whole request, so all its lanes are freed.
pub fn resolve(cells: &mut impl Cells, now: Millis, lane: Key, resolution: Resolution) -> Step<Resolved> {
    let mut effects = Effects::default();
    lapse_at(cells, now, Place::Lane(lane), &mut effects);
    let doubtful = match look(cells, Place::Lane(lane)) {
        Look::Free => return Step { reply: Resolved::Nothing, effects },
        Look::Unreadable => return Step { reply: Resolved::Running, effects },
        Look::Run(fence, run) => matches!(run.state, State::InDoubt { .. }).then_some(fence),
    };
    let Some(fence) = doubtful else {
        return Step { reply: Resolved::Running, effects };
    };
    match resolution {
        Resolution::Done(life) => {
            keep(cells, fence, State::Resolved { since: now, until: after(now, life) }, &mut effects);
        }
        Resolution::Free => free(cells, fence, &mut effects),
    }
    Step { reply: Resolved::Changed, effects }
}

/// Drops the done records and resolved marks that were led under a lane; answers how many.
pub fn forget(cells: &mut impl Cells, now: Millis, lane: Key) -> Step<usize> {
    let mut effects = Effects::default();
    let mut dropped = 0;
    for fence in cells.led_under(lane) {
        lapse(cells, now, fence, &mut effects);
        if run(cells, fence).is_some_and(|run| !run.state.is_live()) {
            free(cells, fence, &mut effects);
            dropped += 1;
        }
    }
    Step { reply: dropped, effects }
}

/// Lets one run run out, if its time has come. For the timer of a store in which nobody else may come by.
pub fn expire(cells: &mut impl Cells, now: Millis, fence: Fence) -> Effects {
    let mut effects = Effects::default();
    lapse(cells, now, fence, &mut effects);
    effects
}

/// The owner of a flight is gone for good, and may have sent: the doubt begins now, whatever is known of its lease.
pub fn orphan(cells: &mut impl Cells, now: Millis, fence: Fence) -> Effects {
    let mut effects = Effects::default();
    if run(cells, fence).is_some_and(|run| matches!(run.state, State::Flight { .. })) {
        doubt(cells, fence, now, &mut effects);
    }
    effects
}

/// Whether no flight holds a lane and no doubt does. Unreadable is not free.
pub fn is_lane_free(cells: &impl Cells, lane: Key) -> bool {
    matches!(look(cells, Place::Lane(lane)), Look::Free)
}

fn led_already(cells: &impl Cells, ask: &Ask) -> Option<Fence> {
    let lane = Place::Lane(*ask.lanes.first()?);
    let Look::Run(fence, run) = look(cells, lane) else {
        return None;
    };
    let same = run.owner == ask.owner && run.lanes == ask.lanes && run.fingerprint == ask.fingerprint;
    (same && matches!(run.state, State::Flight { .. })).then_some(fence)
}

fn fingerprint_says(cells: &impl Cells, now: Millis, ask: &Ask) -> Option<Decision> {
    let fingerprint = ask.fingerprint?;
    let (fence, run) = match look(cells, Place::Fingerprint(fingerprint)) {
        Look::Free => return None,
        Look::Unreadable => return Some(Decision::Busy),
        Look::Run(fence, run) => (fence, run),
    };
    let other_body = matches!((run.body, ask.body), (Some(ours), Some(theirs)) if ours != theirs);
    match &run.state {
        State::Flight { .. } if other_body => Some(Decision::Mismatch),
        State::Flight { .. } => Some(match ask.may {
            May::FollowAny => Decision::Follow { fingerprint, fence },
            May::FollowAfter(Some(seen)) if seen < fence => Decision::Follow { fingerprint, fence },
            May::FollowAfter(_) => Decision::Queue { at: Place::Fingerprint(fingerprint), running: fence },
        }),
        State::InDoubt { since, until } => {
            Some(Decision::InDoubt { age: between(*since, now), remaining: between(now, *until) })
        }
        State::Done { .. } | State::Resolved { .. } if is_stale(cells, &ask.generations, fence) => None,
        State::Done { .. } if other_body => Some(Decision::Mismatch),
        State::Done { record, until, .. } => Some(replay(record, now, *until)),
        State::Resolved { until, .. } => {
            Some(Decision::Resolved { until: *until, remaining: between(now, *until) })
        }
    }
}

/// A scope points to ended runs only; that a flight of the same order runs is the lane's business.
fn scope_says(cells: &impl Cells, now: Millis, ask: &Ask) -> Option<Decision> {
    match look(cells, Place::Scope(ask.scope?)) {
        Look::Free => None,
        Look::Unreadable => Some(Decision::Busy),
        Look::Run(fence, _) if is_stale(cells, &ask.generations, fence) => None,
        Look::Run(_, run) => match &run.state {
            State::Done { record, until, .. } => Some(replay(record, now, *until)),
            State::Resolved { until, .. } => {
                Some(Decision::Resolved { until: *until, remaining: between(now, *until) })
            }
            State::Flight { .. } | State::InDoubt { .. } => None,
        },
    }
}

/// A flight comes before a doubt: it ends sooner, and the doubt is told when its turn has come.
fn lanes_say(cells: &impl Cells, now: Millis, ask: &Ask) -> Option<Decision> {
    let mut doubt: Option<(Millis, Millis)> = None;
    for lane in &ask.lanes {
        let place = Place::Lane(*lane);
        match look(cells, place) {
            Look::Free => {}
            Look::Unreadable => return Some(Decision::Busy),
            Look::Run(fence, run) => match run.state {
                State::Flight { .. } => return Some(Decision::Queue { at: place, running: fence }),
                State::InDoubt { since, until } => {
                    doubt = Some(match doubt {
                        Some(longest) if longest.1 >= until => longest,
                        Some(_) | None => (since, until),
                    });
                }
                State::Done { .. } | State::Resolved { .. } => return Some(Decision::Busy),
            },
        }
    }
    doubt.map(|(since, until)| Decision::InDoubt { age: between(since, now), remaining: between(now, until) })
}

fn lead(cells: &mut impl Cells, now: Millis, ask: &Ask, effects: &mut Effects) -> Hold {
    let older = cells.last_fence();
    let fence = cells.next_fence(now);
    debug_assert!(older < fence, "fences rise strictly");
    // What still stands at the fingerprint is a record of an older generation.
    if let Some(Look::Run(stale, _)) = ask.fingerprint.map(|key| look(cells, Place::Fingerprint(key))) {
        debug_assert!(
            run(cells, stale).is_some_and(|run| !run.state.is_live()),
            "no flight is led over another"
        );
        free(cells, stale, effects);
    }
    let run = Run {
        owner: ask.owner,
        lanes: SmallVec::from_slice(&ask.lanes),
        fingerprint: ask.fingerprint,
        scope: ask.scope,
        body: ask.body,
        generations: SmallVec::from_slice(&ask.generations),
        in_doubt: ask.in_doubt,
        state: State::Flight { lease_ends: after(now, ask.lease) },
    };
    cells.insert_run(fence, run);
    for lane in &ask.lanes {
        debug_assert!(is_lane_free(cells, *lane), "a lane is led by one flight");
        cells.point(Place::Lane(*lane), fence);
        if let Some(fingerprint) = ask.fingerprint {
            effects.nudges.push(Nudge::Same { lane: *lane, fingerprint });
        }
    }
    if let Some(fingerprint) = ask.fingerprint {
        cells.point(Place::Fingerprint(fingerprint), fence);
    }
    debug_assert!(is_whole(cells, fence), "a flight holds its fingerprint and all its lanes");
    hold(ask, fence)
}

/// Whoever was woken for a lane and does not take it passes the turn on; else those behind it would wait for a
/// wake-up that was spent.
fn pass_on(cells: &impl Cells, ask: &Ask, effects: &mut Effects) {
    for lane in &ask.lanes {
        if is_lane_free(cells, *lane) {
            effects.nudges.push(Nudge::Next { lane: *lane });
        }
    }
}

/// Lets a run end whose lease, hold or life is over. What cannot be read never runs out.
fn lapse(cells: &mut impl Cells, now: Millis, fence: Fence, effects: &mut Effects) {
    let Some(run) = run(cells, fence) else {
        return;
    };
    debug_assert!(is_whole(cells, fence), "a run holds its lanes as long as it is live, and no longer");
    match run.state {
        State::Flight { lease_ends } if lease_ends <= now => {
            effects.leases_lost += 1;
            doubt(cells, fence, lease_ends, effects);
            // The hold may be over as well, when nobody came by for that long.
            lapse(cells, now, fence, effects);
        }
        State::InDoubt { until, .. } | State::Done { until, .. } | State::Resolved { until, .. }
            if until <= now =>
        {
            free(cells, fence, effects);
        }
        State::Flight { .. } | State::InDoubt { .. } | State::Done { .. } | State::Resolved { .. } => {}
    }
}

fn lapse_at(cells: &mut impl Cells, now: Millis, place: Place, effects: &mut Effects) {
    if let Look::Run(fence, _) = look(cells, place) {
        lapse(cells, now, fence, effects);
    }
}

/// A flight without an answer: held, or free where the rule says that the next one leads.
fn doubt(cells: &mut impl Cells, fence: Fence, since: Millis, effects: &mut Effects) {
    let Some(run) = run(cells, fence) else {
        return;
    };
    match run.in_doubt {
        InDoubtPolicy::Retry => free(cells, fence, effects),
        InDoubtPolicy::Hold(length) => {
            nudge(run, fence, effects, |lane| Nudge::All { lane });
            cells.set_state(fence, State::InDoubt { since, until: after(since, length) });
        }
    }
}

/// Keeps an ended run, or frees it where nobody could ask for it or it is of an older generation already.
fn keep(cells: &mut impl Cells, fence: Fence, state: State, effects: &mut Effects) {
    let Some(run) = run(cells, fence) else {
        return;
    };
    if run.fingerprint.is_none() || is_stale(cells, &run.generations, fence) {
        return free(cells, fence, effects);
    }
    nudge(run, fence, effects, |lane| Nudge::Next { lane });
    let (lanes, scope) = (run.lanes.clone(), run.scope);
    for lane in lanes {
        cells.clear(Place::Lane(lane));
    }
    cells.set_state(fence, state);
    // A late answer does not take a scope from a newer one.
    if let Some(scope) = scope.map(Place::Scope)
        && cells.place(scope).is_none_or(|cell| cell.read().is_some_and(|newest| *newest < fence))
    {
        cells.point(scope, fence);
    }
    debug_assert!(is_whole(cells, fence), "an ended run holds no lane");
}

/// Removes a run and whatever points to it.
fn free(cells: &mut impl Cells, fence: Fence, effects: &mut Effects) {
    let Some(run) = cells.remove_run(fence) else {
        return;
    };
    if run.state.is_live() {
        nudge(&run, fence, effects, |lane| Nudge::Next { lane });
    }
    let fingerprint = run.fingerprint.map(Place::Fingerprint);
    let scope = run.scope.map(Place::Scope);
    let lanes = run.lanes.iter().copied().map(Place::Lane);
    for place in fingerprint.into_iter().chain(scope).chain(lanes) {
        // Something newer may stand there by now.
        if cells.place(place).and_then(cells::Cell::read) == Some(&fence) {
            cells.clear(place);
        }
    }
}

fn nudge(run: &Run, fence: Fence, effects: &mut Effects, lane: impl Fn(Key) -> Nudge) {
    if let Some(fingerprint) = run.fingerprint {
        effects.nudges.push(Nudge::Waiting { fingerprint, fence });
    }
    effects.nudges.extend(run.lanes.iter().copied().map(lane));
}

fn hold(ask: &Ask, fence: Fence) -> Hold {
    Hold {
        owner: ask.owner,
        fence,
        lanes: SmallVec::from_slice(&ask.lanes),
        fingerprint: ask.fingerprint,
        scope: ask.scope,
        lease: ask.lease,
    }
}

fn replay(record: &Arc<Record>, now: Millis, until: Millis) -> Decision {
    Decision::Replay { record: Arc::clone(record), remaining: between(now, until) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::{cells::Run as CellRun, *};
    use crate::store::{
        Headers, Kept, Owner,
        memory::{MemoryLimits, Table},
    };

    const LEASE: Duration = Duration::from_secs(10);
    const HOLD: Duration = Duration::from_secs(600);
    const UNSEEN: Duration = Duration::from_secs(1000);
    const SEEN: Duration = Duration::from_secs(100);

    fn key(name: &str) -> Key {
        Key(*blake3::hash(name.as_bytes()).as_bytes())
    }

    fn ask(owner: u128, fingerprint: &str, lanes: &[&str]) -> Ask {
        let mut lanes: SmallVec<[Key; 1]> = lanes.iter().map(|lane| key(lane)).collect();
        lanes.sort_unstable();
        Ask {
            owner: Owner(owner),
            lanes,
            fingerprint: (!fingerprint.is_empty()).then(|| key(fingerprint)),
            scope: None,
            body: None,
            generations: smallvec![],
            may: May::FollowAny,
            lease: LEASE,
            in_doubt: InDoubtPolicy::Hold(HOLD),
        }
    }

    fn record(text: &'static str) -> Arc<Record> {
        Arc::new(Record {
            status: StatusCode::OK,
            headers: Headers::default(),
            body: Kept::Whole(Bytes::from_static(text.as_bytes())),
            fence: Fence(0),
            answered_at: 0,
            remaining: Duration::ZERO,
        })
    }

    fn done() -> Ending {
        Ending::Done { record: record("order 1001"), unseen: UNSEEN, seen: SEEN }
    }

    fn failed() -> Ending {
        Ending::Failed { answer: record("declined") }
    }

    /// A table with a clock of its own. Every step is followed by a look at the whole table.
    struct World {
        table: Table,
        now: Millis,
    }

    impl World {
        fn new() -> Self {
            let table = Table::new(MemoryLimits { records_bytes_max: 1 << 20, states_max: 100 });
            Self { table, now: Millis(0) }
        }

        fn wait(&mut self, length: Duration) {
            self.now = after(self.now, length);
        }

        fn step<T>(&mut self, act: impl FnOnce(&mut Table, Millis) -> Step<T>) -> Step<T> {
            let step = act(&mut self.table, self.now);
            self.table.assert_sound();
            step
        }

        fn claim(&mut self, ask: &Ask) -> Decision {
            self.step(|table, now| claim(table, now, ask)).reply
        }

        fn lead(&mut self, ask: &Ask) -> Hold {
            match self.claim(ask) {
                Decision::Lead(hold) => hold,
                other => panic!("expected to lead, got {other:?}"),
            }
        }

        fn settle(&mut self, hold: &Hold, ending: Ending) -> Settled {
            self.step(|table, now| settle(table, now, hold, ending)).reply
        }

        fn renew(&mut self, hold: &Hold) -> Renewed {
            self.step(|table, now| renew(table, now, hold)).reply
        }

        fn abandon(&mut self, hold: &Hold) {
            self.step(|table, now| abandon(table, now, hold));
        }

        fn delivered(&mut self, hold: &Hold) {
            self.step(|table, now| delivered(table, now, hold));
        }

        fn inspect(&mut self, lane: &str) -> LaneView {
            self.step(|table, now| inspect(table, now, key(lane))).reply
        }

        fn resolve(&mut self, lane: &str, resolution: Resolution) -> Resolved {
            self.step(|table, now| resolve(table, now, key(lane), resolution)).reply
        }
    }

    #[test]
    fn a_free_order_is_led_and_its_lane_shows_the_flight() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        assert_eq!(world.inspect("lane"), LaneView::Flight { fence: hold.fence, lease_left: LEASE });
    }

    #[test]
    fn the_same_request_follows_the_flight() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        let reply = world.claim(&ask(2, "a", &["lane"]));
        assert!(matches!(reply, Decision::Follow { fence, .. } if fence == hold.fence), "{reply:?}");
    }

    #[test]
    fn another_request_of_the_order_queues_in_the_lane() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        let reply = world.claim(&ask(2, "b", &["lane"]));
        let at_lane = Place::Lane(key("lane"));
        assert!(
            matches!(reply, Decision::Queue { at, running } if at == at_lane && running == hold.fence),
            "{reply:?}"
        );
    }

    #[test]
    fn a_claim_asked_again_by_its_owner_gives_the_same_fence_and_a_new_lease() {
        for fingerprint in ["a", ""] {
            let mut world = World::new();
            let first = world.lead(&ask(1, fingerprint, &["lane"]));
            world.wait(LEASE - Duration::from_millis(1));
            let second = world.lead(&ask(1, fingerprint, &["lane"]));
            assert_eq!(first.fence, second.fence);
            assert_eq!(world.inspect("lane"), LaneView::Flight { fence: first.fence, lease_left: LEASE });
        }
    }

    #[test]
    fn an_owner_that_asks_for_something_else_is_not_taken_for_the_leader() {
        let mut world = World::new();
        world.lead(&ask(1, "a", &["lane"]));
        assert!(matches!(world.claim(&ask(1, "b", &["lane"])), Decision::Queue { .. }));
    }

    #[test]
    fn a_claim_asked_again_after_its_lease_is_in_doubt() {
        let mut world = World::new();
        world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE);
        assert!(matches!(world.claim(&ask(1, "a", &["lane"])), Decision::InDoubt { .. }));
    }

    #[test]
    fn serial_exchanges_share_nothing_but_the_lane() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "", &["lane"]));
        assert!(matches!(world.claim(&ask(2, "", &["lane"])), Decision::Queue { .. }));
        assert_eq!(world.settle(&hold, done()), Settled::InTime);
        world.lead(&ask(2, "", &["lane"]));
    }

    #[test]
    fn renewing_keeps_the_lease_and_not_renewing_loses_it() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        for _ in 0..5 {
            world.wait(LEASE / 3);
            assert_eq!(world.renew(&hold), Renewed::Held);
        }
        world.wait(LEASE);
        assert_eq!(world.renew(&hold), Renewed::Lost);
        assert_eq!(world.renew(&Hold { owner: Owner(9), ..hold }), Renewed::Lost);
    }

    #[test]
    fn a_stranger_can_neither_renew_nor_settle_nor_abandon() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        let thief = Hold { owner: Owner(2), ..hold.clone() };
        let elsewhen = Hold { fence: Fence(hold.fence.0 + 1), ..hold.clone() };
        for stranger in [thief, elsewhen] {
            assert_eq!(world.renew(&stranger), Renewed::Lost);
            assert_eq!(world.settle(&stranger, done()), Settled::Superseded);
            world.abandon(&stranger);
            world.delivered(&stranger);
        }
        assert_eq!(world.inspect("lane"), LaneView::Flight { fence: hold.fence, lease_left: LEASE });
        assert_eq!(world.settle(&hold, done()), Settled::InTime);
    }

    #[test]
    fn an_abandoned_order_is_led_anew_with_a_higher_fence() {
        let mut world = World::new();
        let first = world.lead(&ask(1, "a", &["lane"]));
        world.abandon(&first);
        assert_eq!(world.inspect("lane"), LaneView::Free);
        assert!(world.lead(&ask(2, "a", &["lane"])).fence > first.fence);
    }

    #[test]
    fn a_flight_in_doubt_cannot_be_abandoned() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE);
        world.abandon(&hold);
        assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::InDoubt { .. }));
    }

    #[test]
    fn a_done_order_is_replayed_until_its_life_is_over() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        assert_eq!(world.settle(&hold, done()), Settled::InTime);
        assert_eq!(world.inspect("lane"), LaneView::Free);
        world.wait(Duration::from_millis(1));
        let reply = world.claim(&ask(2, "a", &["lane"]));
        let life = UNSEEN - Duration::from_millis(1);
        assert!(matches!(reply, Decision::Replay { remaining, .. } if remaining == life), "{reply:?}");
        world.wait(life - Duration::from_millis(1));
        assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::Replay { .. }));
        world.wait(Duration::from_millis(1));
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn a_delivered_answer_lives_seen_long_from_its_first_delivery() {
        // At once, within its seen life, after it, and at the last moment of its undelivered one.
        for waited in [Duration::ZERO, SEEN / 2, SEEN * 2, UNSEEN - Duration::from_millis(1)] {
            let mut world = World::new();
            let hold = world.lead(&ask(1, "a", &["lane"]));
            world.settle(&hold, done());
            world.wait(waited);
            world.delivered(&hold);
            let reply = world.claim(&ask(2, "a", &["lane"]));
            assert!(matches!(reply, Decision::Replay { remaining, .. } if remaining == SEEN), "{reply:?}");
            world.wait(SEEN - Duration::from_millis(1));
            assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::Replay { .. }));
            world.wait(Duration::from_millis(1));
            world.lead(&ask(2, "a", &["lane"]));
        }
    }

    #[test]
    fn a_later_delivery_does_not_make_a_record_live_longer() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.settle(&hold, done());
        world.delivered(&hold);
        world.wait(SEEN / 2);
        world.delivered(&hold);
        let reply = world.claim(&ask(2, "a", &["lane"]));
        assert!(matches!(reply, Decision::Replay { remaining, .. } if remaining == SEEN / 2), "{reply:?}");
        world.wait(SEEN / 2);
        world.delivered(&hold);
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn a_delivery_that_is_told_after_the_records_end_brings_nothing_back() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.settle(&hold, done());
        world.wait(UNSEEN);
        world.delivered(&hold);
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn a_failure_and_an_unkept_answer_leave_nothing() {
        for ending in [failed(), Ending::DoneUnkept { answer: record("paid") }] {
            let mut world = World::new();
            let hold = world.lead(&ask(1, "a", &["lane"]));
            let step = world.step(|table, now| settle(table, now, &hold, ending));
            assert_eq!(step.reply, Settled::InTime);
            let waiting = Nudge::Waiting { fingerprint: key("a"), fence: hold.fence };
            assert_eq!(step.effects.nudges.as_slice(), [waiting, Nudge::Next { lane: key("lane") }]);
            world.lead(&ask(2, "a", &["lane"]));
        }
    }

    #[test]
    fn a_lost_lease_holds_fingerprint_and_lane_until_the_hold_is_over() {
        let mut world = World::new();
        world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE);
        for fingerprint in ["a", "b", ""] {
            let reply = world.claim(&ask(2, fingerprint, &["lane"]));
            let told = (Duration::ZERO, HOLD);
            assert!(
                matches!(reply, Decision::InDoubt { age, remaining } if (age, remaining) == told),
                "{reply:?}"
            );
        }
        world.wait(HOLD - Duration::from_millis(1));
        assert!(matches!(world.claim(&ask(2, "b", &["lane"])), Decision::InDoubt { .. }));
        world.wait(Duration::from_millis(1));
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn a_doubt_that_nobody_saw_begins_when_the_lease_ended() {
        let mut world = World::new();
        world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE + HOLD);
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn with_retry_a_lost_lease_frees_fingerprint_and_lane() {
        let mut world = World::new();
        let retry = |owner| Ask { in_doubt: InDoubtPolicy::Retry, ..ask(owner, "a", &["lane"]) };
        let first = world.lead(&retry(1));
        world.wait(LEASE);
        assert_eq!(world.inspect("lane"), LaneView::Free);
        let second = world.lead(&retry(2));
        assert_eq!(world.settle(&first, done()), Settled::Superseded);
        assert_eq!(world.renew(&second), Renewed::Held);
        assert_eq!(world.settle(&second, Ending::InDoubt), Settled::InTime);
        world.lead(&retry(3));
    }

    #[test]
    fn an_answer_in_doubt_holds_and_wakes_everyone_in_the_lane() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        let step = world.step(|table, now| settle(table, now, &hold, Ending::InDoubt));
        assert_eq!(step.reply, Settled::InTime);
        assert!(step.effects.nudges.contains(&Nudge::All { lane: key("lane") }));
        world.wait(Duration::from_secs(1));
        let reply = world.claim(&ask(2, "a", &["lane"]));
        assert!(matches!(reply, Decision::InDoubt { age, .. } if age == Duration::from_secs(1)), "{reply:?}");
        assert_eq!(world.settle(&hold, Ending::InDoubt), Settled::Late);
        let LaneView::InDoubt { remaining, .. } = world.inspect("lane") else { panic!("in doubt") };
        assert_eq!(remaining, HOLD - Duration::from_secs(1), "a doubt told twice does not begin anew");
    }

    #[test]
    fn a_late_answer_resolves_its_own_doubt() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE);
        let step = world.step(|table, now| settle(table, now, &hold, done()));
        assert_eq!((step.reply, step.effects.leases_lost), (Settled::Late, 1));
        assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::Replay { .. }));
        world.lead(&ask(3, "b", &["lane"]));
    }

    #[test]
    fn a_late_failure_frees_what_was_in_doubt() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE);
        assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::InDoubt { .. }));
        assert_eq!(world.settle(&hold, failed()), Settled::Late);
        world.lead(&ask(2, "a", &["lane"]));
    }

    #[test]
    fn a_late_answer_never_overwrites_anything_newer() {
        let mut world = World::new();
        let old = world.lead(&ask(1, "a", &["lane"]));
        world.wait(LEASE + HOLD);
        let new = world.lead(&ask(2, "a", &["lane"]));
        assert_eq!(world.settle(&old, failed()), Settled::Superseded);
        assert!(matches!(world.inspect("lane"), LaneView::Flight { fence, .. } if fence == new.fence));
        world.settle(&new, Ending::Done { record: record("second"), unseen: UNSEEN, seen: SEEN });
        assert_eq!(world.settle(&old, done()), Settled::Superseded);
        let reply = world.claim(&ask(3, "a", &["lane"]));
        assert!(
            matches!(&reply, Decision::Replay { record, .. } if record.body == Kept::Whole("second".into()))
        );
    }

    #[test]
    fn settling_twice_changes_nothing_the_second_time() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.settle(&hold, done());
        assert_eq!(world.settle(&hold, failed()), Settled::Superseded);
        world.abandon(&hold);
        assert!(matches!(world.claim(&ask(2, "a", &["lane"])), Decision::Replay { .. }));
    }

    #[test]
    fn another_body_under_the_same_event_id_is_a_mismatch_in_flight_and_when_done() {
        let mut world = World::new();
        let with = |owner, body: &str| Ask { body: Some(key(body)), ..ask(owner, "a", &["lane"]) };
        let hold = world.lead(&with(1, "ten euros"));
        assert!(matches!(world.claim(&with(2, "twenty euros")), Decision::Mismatch));
        assert!(matches!(world.claim(&with(2, "ten euros")), Decision::Follow { .. }));
        world.settle(&hold, done());
        assert!(matches!(world.claim(&with(2, "twenty euros")), Decision::Mismatch));
        assert!(matches!(world.claim(&with(2, "ten euros")), Decision::Replay { .. }));
    }

    #[test]
    fn a_signal_follows_only_a_flight_that_began_after_it() {
        let mut world = World::new();
        let signal = |owner, may| Ask { may, ..ask(owner, "tr_1", &["lane"]) };
        let first = world.lead(&signal(1, May::FollowAfter(None)));
        let at_run = Place::Fingerprint(key("tr_1"));
        for may in [May::FollowAfter(None), May::FollowAfter(Some(first.fence))] {
            let reply = world.claim(&signal(2, may));
            assert!(
                matches!(reply, Decision::Queue { at, running } if at == at_run && running == first.fence)
            );
        }
        world.settle(&first, Ending::DoneUnkept { answer: record("ok") });
        let second = world.lead(&signal(2, May::FollowAfter(Some(first.fence))));
        let reply = world.claim(&signal(3, May::FollowAfter(Some(first.fence))));
        assert!(matches!(reply, Decision::Follow { fence, .. } if fence == second.fence), "{reply:?}");
    }

    #[test]
    fn several_lanes_are_taken_together_or_not_at_all() {
        let mut world = World::new();
        let one = world.lead(&ask(1, "a", &["x"]));
        assert!(matches!(world.claim(&ask(2, "batch", &["w", "x", "y"])), Decision::Queue { .. }));
        assert_eq!((world.inspect("w"), world.inspect("y")), (LaneView::Free, LaneView::Free));
        world.settle(&one, failed());
        let batch = world.lead(&ask(2, "batch", &["w", "x", "y"]));
        for lane in ["w", "x", "y"] {
            assert!(matches!(world.claim(&ask(3, lane, &[lane])), Decision::Queue { .. }), "{lane}");
        }
        let step = world.step(|table, now| settle(table, now, &batch, failed()));
        for lane in ["w", "x", "y"] {
            assert!(step.effects.nudges.contains(&Nudge::Next { lane: key(lane) }), "{lane}");
            assert_eq!(world.inspect(lane), LaneView::Free);
        }
    }

    #[test]
    fn a_lane_in_flight_comes_before_a_lane_in_doubt() {
        let mut world = World::new();
        let lost = world.lead(&ask(1, "a", &["x"]));
        world.settle(&lost, Ending::InDoubt);
        let running = world.lead(&ask(2, "b", &["y"]));
        assert!(matches!(world.claim(&ask(3, "c", &["x", "y"])), Decision::Queue { .. }));
        world.settle(&running, failed());
        assert!(matches!(world.claim(&ask(3, "c", &["x", "y"])), Decision::InDoubt { .. }));
    }

    #[test]
    fn whoever_does_not_take_a_free_lane_passes_the_turn_on() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.settle(&hold, done());
        let step = world.step(|table, now| claim(table, now, &ask(2, "a", &["lane"])));
        assert!(matches!(step.reply, Decision::Replay { .. }));
        assert_eq!(step.effects.nudges.as_slice(), [Nudge::Next { lane: key("lane") }]);
    }

    #[test]
    fn a_flight_that_begins_calls_those_who_wait_in_its_lane_with_the_same_request() {
        let mut world = World::new();
        let step = world.step(|table, now| claim(table, now, &ask(1, "a", &["lane"])));
        let same = Nudge::Same { lane: key("lane"), fingerprint: key("a") };
        assert_eq!(step.effects.nudges.as_slice(), [same]);
    }

    #[test]
    fn a_done_record_of_the_scope_answers_another_body_of_the_order() {
        let mut world = World::new();
        let scoped =
            |owner, fingerprint| Ask { scope: Some(key("cart")), ..ask(owner, fingerprint, &["lane"]) };
        let hold = world.lead(&scoped(1, "token 1"));
        assert!(matches!(world.claim(&scoped(2, "token 2")), Decision::Queue { .. }));
        world.settle(&hold, done());
        assert!(matches!(world.claim(&scoped(2, "token 2")), Decision::Replay { .. }));
        let unscoped = world.lead(&ask(3, "token 3", &["lane"]));
        world.settle(&unscoped, failed());
        world.wait(UNSEEN);
        world.lead(&scoped(2, "token 2"));
    }

    #[test]
    fn a_failure_leaves_no_record_in_the_scope() {
        let mut world = World::new();
        let scoped =
            |owner, fingerprint| Ask { scope: Some(key("cart")), ..ask(owner, fingerprint, &["lane"]) };
        let hold = world.lead(&scoped(1, "token 1"));
        world.settle(&hold, failed());
        world.lead(&scoped(2, "token 2"));
    }

    #[test]
    fn a_new_generation_ends_older_records_but_not_a_running_flight() {
        let mut world = World::new();
        let of_identity = |owner, fingerprint| Ask {
            generations: smallvec![key("session")],
            scope: Some(key("cart")),
            ..ask(owner, fingerprint, &["lane"])
        };
        let first = world.lead(&of_identity(1, "a"));
        world.settle(&first, done());
        begin_generation(&mut world.table, world.now, key("session"));
        let second = world.lead(&of_identity(2, "a"));
        begin_generation(&mut world.table, world.now, key("session"));
        assert!(matches!(world.claim(&of_identity(3, "a")), Decision::Follow { .. }));
        assert_eq!(world.settle(&second, done()), Settled::InTime);
        let third = world.lead(&of_identity(3, "a"));
        world.settle(&third, done());
        assert!(matches!(world.claim(&of_identity(4, "a")), Decision::Replay { .. }));
        assert!(matches!(world.claim(&of_identity(4, "b")), Decision::Replay { .. }), "by its scope");
        begin_generation(&mut world.table, world.now, key("someone else"));
        assert!(matches!(world.claim(&of_identity(4, "a")), Decision::Replay { .. }));
        begin_generation(&mut world.table, world.now, key("session"));
        world.lead(&of_identity(4, "b"));
    }

    #[test]
    fn an_operator_resolves_a_doubt_as_done() {
        let mut world = World::new();
        let scoped =
            |owner, fingerprint| Ask { scope: Some(key("cart")), ..ask(owner, fingerprint, &["lane"]) };
        let hold = world.lead(&scoped(1, "a"));
        world.settle(&hold, Ending::InDoubt);
        assert_eq!(world.resolve("lane", Resolution::Done(SEEN)), Resolved::Changed);
        assert_eq!(world.inspect("lane"), LaneView::Free);
        for fingerprint in ["a", "b"] {
            let reply = world.claim(&scoped(2, fingerprint));
            assert!(matches!(reply, Decision::Resolved { remaining, .. } if remaining == SEEN), "{reply:?}");
        }
        assert_eq!(world.settle(&hold, failed()), Settled::Superseded, "the operator has spoken");
        assert_eq!(world.resolve("lane", Resolution::Free), Resolved::Nothing);
        world.wait(SEEN);
        world.lead(&scoped(2, "a"));
    }

    #[test]
    fn an_operator_frees_a_doubt_but_not_a_flight() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["x", "y"]));
        assert_eq!(world.resolve("x", Resolution::Free), Resolved::Running);
        assert_eq!(world.resolve("z", Resolution::Free), Resolved::Nothing);
        world.settle(&hold, Ending::InDoubt);
        let step = world.step(|table, now| resolve(table, now, key("x"), Resolution::Free));
        assert_eq!(step.reply, Resolved::Changed);
        assert!(step.effects.nudges.contains(&Nudge::Next { lane: key("y") }));
        world.lead(&ask(2, "a", &["x", "y"]));
    }

    #[test]
    fn forgetting_an_order_drops_its_records_and_marks_and_nothing_live() {
        let mut world = World::new();
        for fingerprint in ["a", "b"] {
            let hold = world.lead(&ask(1, fingerprint, &["lane"]));
            world.settle(&hold, done());
        }
        let other = world.lead(&ask(1, "other", &["another lane"]));
        world.settle(&other, done());
        let running = world.lead(&ask(1, "c", &["lane"]));
        assert_eq!(world.step(|table, now| forget(table, now, key("lane"))).reply, 2);
        assert_eq!(world.renew(&running), Renewed::Held);
        world.settle(&running, Ending::InDoubt);
        world.resolve("lane", Resolution::Done(SEEN));
        assert_eq!(world.step(|table, now| forget(table, now, key("lane"))).reply, 1);
        world.lead(&ask(2, "a", &["lane"]));
        assert!(matches!(world.claim(&ask(2, "other", &["another lane"])), Decision::Replay { .. }));
    }

    #[test]
    fn a_cell_of_another_version_is_busy_and_never_expires() {
        let places = [Place::Lane(key("lane")), Place::Fingerprint(key("a")), Place::Scope(key("cart"))];
        for place in places {
            let mut world = World::new();
            let scoped = |owner| Ask { scope: Some(key("cart")), ..ask(owner, "a", &["lane"]) };
            let hold = world.lead(&scoped(1));
            world.settle(&hold, done());
            world.table.place_foreign(place, hold.fence);
            world.wait(UNSEEN + HOLD);
            let reply = claim(&mut world.table, world.now, &scoped(2)).reply;
            assert!(matches!(reply, Decision::Busy), "{place:?}: {reply:?}");
        }
    }

    #[test]
    fn a_run_or_generation_of_another_version_is_busy() {
        let mut world = World::new();
        let hold = world.lead(&ask(1, "a", &["lane"]));
        world.table.make_run_foreign(hold.fence);
        world.wait(LEASE + HOLD);
        assert!(matches!(claim(&mut world.table, world.now, &ask(2, "b", &["lane"])).reply, Decision::Busy));
        assert_eq!(inspect(&mut world.table, world.now, key("lane")).reply, LaneView::Unreadable);
        let step = resolve(&mut world.table, world.now, key("lane"), Resolution::Free);
        assert_eq!(step.reply, Resolved::Running);
        assert_eq!(settle(&mut world.table, world.now, &hold, done()).reply, Settled::Superseded);

        begin_generation(&mut world.table, world.now, key("session"));
        world.table.make_generation_foreign(key("session"));
        let other = Ask { generations: smallvec![key("session")], ..ask(2, "c", &["free lane"]) };
        assert!(matches!(claim(&mut world.table, world.now, &other).reply, Decision::Busy));
    }

    #[test]
    fn a_lane_whose_lease_is_missing_is_busy() {
        let mut world = World::new();
        world.table.point(Place::Lane(key("lane")), Fence(77));
        world.wait(LEASE + HOLD);
        assert!(matches!(claim(&mut world.table, world.now, &ask(1, "a", &["lane"])).reply, Decision::Busy));
    }

    #[test]
    fn a_full_store_is_busy_for_new_flights_only() {
        let mut world = World::new();
        world.table = Table::new(MemoryLimits { records_bytes_max: 1 << 20, states_max: 2 });
        let first = world.lead(&ask(1, "a", &["x"]));
        let second = world.lead(&ask(2, "b", &["y"]));
        world.settle(&second, Ending::InDoubt);
        assert!(matches!(world.claim(&ask(3, "c", &["z"])), Decision::Busy));
        assert!(matches!(world.claim(&ask(3, "a", &["x"])), Decision::Follow { .. }));
        assert_eq!(world.lead(&ask(1, "a", &["x"])).fence, first.fence, "its own flight needs no room");
        world.settle(&first, done());
        world.lead(&ask(3, "c", &["z"]));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Claim { owner: u8, fingerprint: Option<u8>, lanes: u8, retry: bool, signal: bool },
        Renew(u8),
        Settle(u8, u8),
        Abandon(u8),
        Delivered(u8),
        Generation,
        Resolve(u8, bool),
        Forget(u8),
        Expire,
        Wait(u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..4_u8, prop::option::weighted(0.8, 0..3_u8), 1..8_u8, any::<bool>(), any::<bool>()).prop_map(
                |(owner, fingerprint, lanes, retry, signal)| Op::Claim { owner, fingerprint, lanes, retry, signal }
            ),
            2 => any::<u8>().prop_map(Op::Renew),
            4 => (any::<u8>(), 0..4_u8).prop_map(|(hold, ending)| Op::Settle(hold, ending)),
            1 => any::<u8>().prop_map(Op::Abandon),
            1 => any::<u8>().prop_map(Op::Delivered),
            1 => Just(Op::Generation),
            1 => (0..3_u8, any::<bool>()).prop_map(|(lane, done)| Op::Resolve(lane, done)),
            1 => (0..3_u8).prop_map(Op::Forget),
            1 => Just(Op::Expire),
            5 => (0..15_000_u16).prop_map(Op::Wait),
        ]
    }

    /// What the outside knows of a lease that it was given: nobody else may lead on its places before `covers`.
    struct Granted {
        hold: Hold,
        covers: Millis,
        hold_length: Duration,
    }

    /// Runs operations and checks each lead against the leases that were given out before, by their own arithmetic.
    #[derive(Default)]
    struct Checker {
        granted: Vec<Granted>,
    }

    impl Checker {
        fn check_lead(&mut self, now: Millis, hold: Hold, policy: InDoubtPolicy) {
            let hold_length = match policy {
                InDoubtPolicy::Hold(length) => length,
                InDoubtPolicy::Retry => Duration::ZERO,
            };
            let covers = after(after(now, LEASE), hold_length);
            if let Some(same) = self.granted.iter_mut().find(|granted| granted.hold.fence == hold.fence) {
                assert_eq!(same.hold.owner, hold.owner, "a fence is given to one owner");
                assert!(now < same.covers, "a lease that ran out is not given again");
                same.covers = covers;
                return;
            }
            for earlier in &self.granted {
                assert!(earlier.hold.fence < hold.fence, "fences rise strictly");
                let shared = earlier.hold.lanes.iter().any(|lane| hold.lanes.contains(lane))
                    || (hold.fingerprint.is_some() && earlier.hold.fingerprint == hold.fingerprint);
                assert!(!shared || earlier.covers <= now, "led while {:?} was covered", earlier.hold);
            }
            self.granted.push(Granted { hold, covers, hold_length });
        }

        fn pick(&mut self, which: u8) -> Option<&mut Granted> {
            let count = self.granted.len();
            (count > 0).then(|| &mut self.granted[count - 1 - usize::from(which) % count.min(6)])
        }
    }

    fn lane_name(lane: u8) -> String {
        format!("lane {lane}")
    }

    fn ask_of(owner: u8, fingerprint: Option<u8>, lanes: u8, retry: bool, signal: bool) -> Ask {
        let names: Vec<String> = (0..3).filter(|lane| lanes & (1 << lane) != 0).map(lane_name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // What a fingerprint is about follows from it, as it does for a real one.
        let fixed = ["lane 0", "lane 1", "lane 2"];
        let (name, lanes) = match fingerprint {
            Some(2) => ("all".to_owned(), fixed.to_vec()),
            Some(number) => {
                (format!("request {number}"), fixed[usize::from(number)..=usize::from(number)].to_vec())
            }
            None => (String::new(), names),
        };
        Ask {
            in_doubt: if retry { InDoubtPolicy::Retry } else { InDoubtPolicy::Hold(Duration::from_secs(20)) },
            may: if signal { May::FollowAfter(None) } else { May::FollowAny },
            generations: smallvec![key("session")],
            scope: fingerprint.map(|_| key("scope")),
            ..ask(u128::from(owner), &name, &lanes)
        }
    }

    fn carry_out(world: &mut World, checker: &mut Checker, op: Op) {
        let now = world.now;
        match op {
            Op::Claim { owner, fingerprint, lanes, retry, signal } => {
                let ask = ask_of(owner, fingerprint, lanes, retry, signal);
                if let Decision::Lead(hold) = world.claim(&ask) {
                    let policy = world.table.run(hold.fence).expect("led").value.in_doubt;
                    checker.check_lead(now, hold, policy);
                }
            }
            Op::Renew(which) => {
                let Some(granted) = checker.pick(which) else { return };
                if world.renew(&granted.hold) == Renewed::Held {
                    assert!(now < granted.covers, "what ran out is not renewed");
                    granted.covers = after(after(now, LEASE), granted.hold_length);
                }
            }
            Op::Settle(which, ending) => {
                let Some(granted) = checker.pick(which) else { return };
                let doubt = ending == 3;
                let ending = match ending {
                    0 => done(),
                    1 => failed(),
                    2 => Ending::DoneUnkept { answer: record("ok") },
                    _ => Ending::InDoubt,
                };
                match world.settle(&granted.hold, ending) {
                    Settled::InTime if doubt => granted.covers = after(now, granted.hold_length),
                    Settled::Late if doubt => {}
                    Settled::InTime | Settled::Late => granted.covers = now,
                    Settled::Superseded => {}
                }
            }
            Op::Abandon(which) => {
                let Some(granted) = checker.pick(which) else { return };
                let flew = matches!(
                    world.table.run(granted.hold.fence).map(|cell| &cell.value),
                    Some(CellRun { state: State::Flight { lease_ends }, .. }) if now < *lease_ends
                );
                world.abandon(&granted.hold);
                if flew {
                    granted.covers = now;
                }
            }
            Op::Delivered(which) => {
                let Some(granted) = checker.pick(which) else { return };
                world.delivered(&granted.hold);
            }
            Op::Generation => begin_generation(&mut world.table, now, key("session")),
            Op::Resolve(lane, done) => {
                let LaneView::InDoubt { fence, .. } = world.inspect(&lane_name(lane)) else { return };
                let resolution = if done { Resolution::Done(SEEN) } else { Resolution::Free };
                assert_eq!(world.resolve(&lane_name(lane), resolution), Resolved::Changed);
                for granted in checker.granted.iter_mut().filter(|granted| granted.hold.fence == fence) {
                    granted.covers = now;
                }
            }
            Op::Forget(lane) => drop(world.step(|table, now| forget(table, now, key(&lane_name(lane))))),
            Op::Expire => {
                while let Some(fence) = world.table.take_due(now) {
                    expire(&mut world.table, now, fence);
                }
                world.table.assert_sound();
            }
            Op::Wait(millis) => world.wait(Duration::from_millis(millis.into())),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_sequence_of_steps_lets_two_lead_at_once(ops in prop::collection::vec(op(), 1..120)) {
            let mut world = World::new();
            let mut checker = Checker::default();
            for op in ops {
                carry_out(&mut world, &mut checker, op);
            }
        }
    }
}
