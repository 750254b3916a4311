//! What an operator sees of a lane and may do about it. A flight that runs is never freed here.

use super::{
    Effects, Step,
    cells::{Cells, Delivery, Place, State},
    free, keep, lapse, lapse_at,
    read::{Look, after, between, look, run},
};
use crate::store::{KEPT_RUNS_MAX, KeptAs, KeptRun, Key, LaneView, Millis, Reached, Resolution, Resolved};

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

/// The ended runs that were led under a lane, newest first.
pub fn kept(cells: &mut impl Cells, now: Millis, lane: Key) -> Step<Vec<KeptRun>> {
    let mut effects = Effects::default();
    let mut fences = cells.led_under(lane);
    fences.sort_unstable_by(|one, other| other.cmp(one));
    let mut reply = Vec::new();
    for fence in fences {
        lapse(cells, now, fence, &mut effects);
        let (what, since, until) = match run(cells, fence).map(|run| &run.state) {
            Some(State::Done { record, settled_at, until, delivery }) => {
                let reached = match delivery {
                    Delivery::Awaited { .. } => Reached::NobodyYet,
                    Delivery::Made => Reached::Client,
                };
                (KeptAs::Answer { status: record.status, reached }, *settled_at, *until)
            }
            Some(State::Resolved { since, until }) => (KeptAs::Resolved, *since, *until),
            Some(State::Flight { .. } | State::InDoubt { .. }) | None => continue,
        };
        if reply.len() < KEPT_RUNS_MAX {
            reply.push(KeptRun { fence, what, age: between(since, now), remaining: between(now, until) });
        }
    }
    Step { reply, effects }
}
