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

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use self::{
    cells::{Cells, Place, Room, Run, State},
    read::{Look, Standing, after, between, is_readable, is_stale, is_whole, look, named, run, standing},
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
    for place in named(ask) {
        if let Look::Run(fence, _) = look(cells, place) {
            lapse(cells, now, fence, &mut effects);
        }
    }
    if let Some(fence) = led_already(cells, ask) {
        cells.set_state(fence, State::Flight { lease_ends: after(now, ask.lease) });
        return Step { reply: Decision::Lead(hold(ask, fence)), effects };
    }
    let obstacle = fingerprint_says(cells, now, ask)
        .or_else(|| scope_says(cells, now, ask))
        .or_else(|| lanes_say(cells, now, ask))
        .or_else(|| (cells.room() == Room::Full).then_some(Decision::Busy));
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
            let done = State::Done { record, settled_at: now, until: after(now, unseen), seen };
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

/// The answer has reached a client: the record's life is `seen` from when it was settled.
pub fn delivered(cells: &mut impl Cells, now: Millis, hold: &Hold) -> Step<()> {
    let mut effects = Effects::default();
    lapse(cells, now, hold.fence, &mut effects);
    if let Some(run) = run(cells, hold.fence)
        && run.owner == hold.owner
        && let State::Done { record, settled_at, seen, .. } = &run.state
    {
        let (record, settled_at, seen) = (Arc::clone(record), *settled_at, *seen);
        cells.set_state(hold.fence, State::Done { record, settled_at, until: after(settled_at, seen), seen });
        lapse(cells, now, hold.fence, &mut effects);
    }
    Step { reply: (), effects }
}

/// Ends the records of an identity that were claimed before now; a flight that runs is not disturbed.
///
/// "Before" is told by fences, not by time: two things of one millisecond would have no order.
pub fn begin_generation(cells: &mut impl Cells, now: Millis, identity: Key) {
    cells.set_generation(now, identity, cells.last_fence());
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
    let fence = cells.next_fence();
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
        lanes: ask.lanes.clone(),
        fingerprint: ask.fingerprint,
        scope: ask.scope,
        body: ask.body,
        generations: ask.generations.clone(),
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
    let Some(_) = run.fingerprint.filter(|_| !is_stale(cells, &run.generations, fence)) else {
        return free(cells, fence, effects);
    };
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
        lanes: ask.lanes.clone(),
        fingerprint: ask.fingerprint,
        scope: ask.scope,
        lease: ask.lease,
    }
}

fn replay(record: &Arc<Record>, now: Millis, until: Millis) -> Decision {
    Decision::Replay { record: Arc::clone(record), remaining: between(now, until) }
}
