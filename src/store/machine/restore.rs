//! Writes back a run that a replica knows and the store may have forgotten, or never heard of.
//!
//! Like every step it changes nothing where something else stands: what is at the shop by now counts more than what
//! a replica remembers. It gives out no new fence: a restored run keeps the one that the shop was told.

use std::sync::Arc;

use super::{
    Effects, Nudge, Step,
    cells::{Cells, Delivery, Place, Run, State},
    free, keep, lapse, lapse_at, nudge,
    read::{Look, after, is_stale, is_whole, look},
};
use crate::store::{Fence, Hold, Key, Millis, Restored, RestoredState, Settled};

/// Inserts a run where its places are free, or brings the store's own one on to where it was.
///
/// [`Settled::Late`] says what it says for a settle: the flight was in doubt here, and still is unless it is done.
pub fn restore(cells: &mut impl Cells, now: Millis, restored: &Restored) -> Step<Settled> {
    let mut effects = Effects::default();
    lapse(cells, now, restored.hold.fence, &mut effects);
    for place in places(&restored.hold) {
        lapse_at(cells, now, place, &mut effects);
    }
    let fence = restored.hold.fence;
    let reply = match cells.run(fence).map(|cell| cell.read().cloned()) {
        None => insert(cells, now, restored, &mut effects),
        Some(Some(run)) if run.owner == restored.hold.owner => {
            bring_on(cells, now, &run, restored, &mut effects)
        }
        Some(_) => Settled::Superseded,
    };
    Step { reply, effects }
}

/// Ends the records of an identity up to a fence: a generation that began where this store could not be told.
///
/// A store that is shared gives out fences on, so that "before now" would end records that are younger.
pub fn restore_generation(cells: &mut impl Cells, now: Millis, identity: Key, began: Fence) {
    let newer =
        cells.generation(identity).is_some_and(|cell| cell.read().is_none_or(|known| *known >= began));
    if !newer {
        cells.raise_fence(began);
        cells.set_generation(now, identity, began);
    }
}

/// The store knows the run: of the two states the further one stays.
fn bring_on(
    cells: &mut impl Cells,
    now: Millis,
    run: &Run,
    restored: &Restored,
    effects: &mut Effects,
) -> Settled {
    let fence = restored.hold.fence;
    let reply = match (&run.state, &restored.state) {
        (State::Flight { .. }, _) => Settled::InTime,
        (State::InDoubt { .. }, _) => Settled::Late,
        (State::Done { .. }, RestoredState::Done { .. }) => Settled::InTime,
        (State::Done { .. } | State::Resolved { .. }, _) => return Settled::Superseded,
    };
    let state = state(now, restored);
    match (&run.state, &state) {
        (State::Flight { lease_ends }, State::Flight { lease_ends: anew }) if lease_ends < anew => {
            cells.set_state(fence, state);
        }
        (State::Flight { .. }, State::InDoubt { .. }) => {
            nudge(run, fence, effects, |lane| Nudge::All { lane });
            cells.set_state(fence, state);
        }
        (State::Flight { .. } | State::InDoubt { .. }, State::Done { .. } | State::Resolved { .. }) => {
            keep(cells, fence, state, effects);
        }
        (
            State::Done { record, settled_at, delivery: Delivery::Awaited { .. }, .. },
            State::Done { until, delivery: Delivery::Made, .. },
        ) => {
            let (record, settled_at) = (Arc::clone(record), *settled_at);
            let done = State::Done { record, settled_at, until: *until, delivery: Delivery::Made };
            cells.set_state(fence, done);
        }
        _ => {}
    }
    reply
}

fn insert(cells: &mut impl Cells, now: Millis, restored: &Restored, effects: &mut Effects) -> Settled {
    let (fence, state) = (restored.hold.fence, state(now, restored));
    let is_over = state.ends() <= now;
    let is_useless = !state.is_live()
        && (restored.hold.fingerprint.is_none() || is_stale(cells, &restored.generations, fence));
    if is_over || is_useless || !make_way(cells, restored, &state, effects) {
        return Settled::Superseded;
    }
    cells.raise_fence(fence);
    let is_live = state.is_live();
    let hold = &restored.hold;
    let run = Run {
        owner: hold.owner,
        lanes: hold.lanes.clone(),
        fingerprint: hold.fingerprint,
        scope: hold.scope,
        body: restored.body,
        generations: restored.generations.clone(),
        in_doubt: restored.in_doubt,
        state,
    };
    cells.insert_run(fence, run);
    if let Some(fingerprint) = hold.fingerprint {
        cells.point(Place::Fingerprint(fingerprint), fence);
    }
    if is_live {
        for lane in &hold.lanes {
            cells.point(Place::Lane(*lane), fence);
            if let Some(fingerprint) = hold.fingerprint {
                effects.nudges.push(Nudge::Same { lane: *lane, fingerprint });
            }
        }
    } else {
        take_scope(cells, hold, fence);
    }
    debug_assert!(is_whole(cells, fence), "a restored run holds its lanes as long as it is live");
    Settled::InTime
}

/// Whether the run may be put in its places. A record of an older generation makes way, as it does for a claim, and so
/// does a claim of the same owner: it was carried out, its answer never arrived, and the owner went on without it.
fn make_way(cells: &mut impl Cells, restored: &Restored, state: &State, effects: &mut Effects) -> bool {
    let hold = &restored.hold;
    if let Some(unheard) = unheard(cells, hold) {
        free(cells, unheard, effects);
    }
    if hold.scope.is_some_and(|scope| matches!(look(cells, Place::Scope(scope)), Look::Unreadable)) {
        return false;
    }
    if state.is_live() && !hold.lanes.iter().all(|lane| matches!(look(cells, Place::Lane(*lane)), Look::Free))
    {
        return false;
    }
    let Some(fingerprint) = hold.fingerprint else {
        return true;
    };
    match look(cells, Place::Fingerprint(fingerprint)) {
        Look::Free => true,
        Look::Run(stale, run) if !run.state.is_live() && is_stale(cells, &restored.generations, stale) => {
            free(cells, stale, effects);
            true
        }
        Look::Run(..) | Look::Unreadable => false,
    }
}

/// What a claim of this owner left under another fence. An owner claims once, and always the same.
fn unheard(cells: &impl Cells, hold: &Hold) -> Option<Fence> {
    match look(cells, Place::Lane(*hold.lanes.first()?)) {
        Look::Run(fence, run)
            if run.owner == hold.owner && run.lanes == hold.lanes && run.fingerprint == hold.fingerprint =>
        {
            Some(fence)
        }
        Look::Run(..) | Look::Free | Look::Unreadable => None,
    }
}

/// The newest record of a scope answers for it.
fn take_scope(cells: &mut impl Cells, hold: &Hold, fence: Fence) {
    if let Some(scope) = hold.scope.map(Place::Scope)
        && cells.place(scope).is_none_or(|cell| cell.read().is_some_and(|newest| *newest < fence))
    {
        cells.point(scope, fence);
    }
}

fn state(now: Millis, restored: &Restored) -> State {
    match &restored.state {
        RestoredState::Flight => State::Flight { lease_ends: after(now, restored.hold.lease) },
        RestoredState::InDoubt { age, remaining } => {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            State::InDoubt { since: Millis(now.0.saturating_sub(age)), until: after(now, *remaining) }
        }
        RestoredState::Done { record, remaining, delivery } => State::Done {
            record: Arc::clone(record),
            settled_at: now,
            until: after(now, *remaining),
            delivery: *delivery,
        },
        RestoredState::Resolved { remaining } => {
            State::Resolved { since: now, until: after(now, *remaining) }
        }
    }
}

fn places(hold: &Hold) -> impl Iterator<Item = Place> + '_ {
    let fingerprint = hold.fingerprint.map(Place::Fingerprint);
    let scope = hold.scope.map(Place::Scope);
    fingerprint.into_iter().chain(scope).chain(hold.lanes.iter().copied().map(Place::Lane))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use smallvec::smallvec;

    use super::*;
    use crate::store::{
        Ask, Ending, Headers, InDoubtPolicy, Kept, Key, LaneView, May, Owner, Record, Renewed,
        machine::{self, Decision, begin_generation, claim, inspect, renew, settle},
        memory::{MemoryLimits, Table},
    };

    const LEASE: Duration = Duration::from_secs(10);
    const HOLD: Duration = Duration::from_secs(600);
    const LIFE: Duration = Duration::from_secs(100);
    const NOW: Millis = Millis(1_000_000);

    fn key(name: &str) -> Key {
        Key(*blake3::hash(name.as_bytes()).as_bytes())
    }

    fn table() -> Table {
        Table::new(MemoryLimits { records_bytes_max: 1 << 20, states_max: 100 })
    }

    fn ask(owner: u128, fingerprint: &str, lane: &str) -> Ask {
        Ask {
            owner: Owner(owner),
            lanes: smallvec![key(lane)],
            fingerprint: Some(key(fingerprint)),
            scope: Some(key("scope")),
            body: None,
            generations: smallvec![key("session")],
            may: May::FollowAny,
            lease: LEASE,
            in_doubt: InDoubtPolicy::Hold(HOLD),
        }
    }

    fn held(fence: u64, state: RestoredState) -> Restored {
        let ask = ask(1, "a", "lane");
        Restored {
            hold: machine::hold(&ask, Fence(fence)),
            body: None,
            generations: ask.generations,
            in_doubt: ask.in_doubt,
            state,
        }
    }

    fn done(delivery: Delivery) -> RestoredState {
        let record = Arc::new(Record {
            status: StatusCode::OK,
            headers: Headers::default(),
            body: Kept::Dropped,
            fence: Fence(50),
            answered_at: 0,
            remaining: LIFE,
        });
        RestoredState::Done { record, remaining: LIFE, delivery }
    }

    fn bring_back(table: &mut Table, restored: &Restored) -> Settled {
        let settled = restore(table, NOW, restored).reply;
        table.assert_sound();
        settled
    }

    #[test]
    fn a_flight_that_was_forgotten_flies_on_under_its_own_fence_and_later_ones_are_higher() {
        let mut table = table();
        let flight = held(50, RestoredState::Flight);
        assert_eq!(bring_back(&mut table, &flight), Settled::InTime);
        let reply = claim(&mut table, NOW, &ask(2, "a", "lane")).reply;
        assert!(matches!(reply, Decision::Follow { fence: Fence(50), .. }), "{reply:?}");
        assert_eq!(renew(&mut table, NOW, &flight.hold).reply, Renewed::Held);
        let Decision::Lead(other) = claim(&mut table, NOW, &ask(3, "b", "elsewhere")).reply else {
            panic!("a lane of its own")
        };
        assert!(other.fence > Fence(50));
    }

    #[test]
    fn a_doubt_comes_back_with_what_is_left_of_it() {
        let mut table = table();
        let (age, remaining) = (Duration::from_secs(5), Duration::from_secs(7));
        assert_eq!(
            bring_back(&mut table, &held(50, RestoredState::InDoubt { age, remaining })),
            Settled::InTime
        );
        let view = inspect(&mut table, NOW, key("lane")).reply;
        assert_eq!(view, LaneView::InDoubt { fence: Fence(50), age, remaining });
    }

    #[test]
    fn a_record_comes_back_though_its_lane_is_taken_and_answers_for_its_scope() {
        let mut table = table();
        assert!(matches!(claim(&mut table, NOW, &ask(2, "b", "lane")).reply, Decision::Lead(_)));
        assert_eq!(bring_back(&mut table, &held(50, done(Delivery::Made))), Settled::InTime);
        for fingerprint in ["a", "c"] {
            let reply = claim(&mut table, NOW, &ask(3, fingerprint, "lane")).reply;
            assert!(matches!(reply, Decision::Replay { remaining: LIFE, .. }), "{reply:?}");
        }
    }

    #[test]
    fn nothing_changes_where_something_else_stands() {
        let taken = [("a", "elsewhere"), ("b", "lane")];
        for (fingerprint, lane) in taken {
            let mut table = table();
            let Decision::Lead(other) = claim(&mut table, NOW, &ask(2, fingerprint, lane)).reply else {
                panic!("it is free")
            };
            assert_eq!(bring_back(&mut table, &held(50, RestoredState::Flight)), Settled::Superseded);
            let view = inspect(&mut table, NOW, key(lane)).reply;
            assert_eq!(view, LaneView::Flight { fence: other.fence, lease_left: LEASE });
            assert_eq!(table.last_fence(), other.fence);
        }
        let mut table = table();
        assert_eq!(bring_back(&mut table, &held(50, RestoredState::Flight)), Settled::InTime);
        let mut stranger = held(50, done(Delivery::Made));
        stranger.hold.owner = Owner(9);
        assert_eq!(bring_back(&mut table, &stranger), Settled::Superseded);
    }

    #[test]
    fn what_the_store_knows_is_brought_on_and_never_back() {
        let mut table = table();
        let flight = held(50, RestoredState::Flight);
        bring_back(&mut table, &flight);
        let awaited = done(Delivery::Awaited { seen: LIFE / 2 });
        assert_eq!(bring_back(&mut table, &held(50, awaited.clone())), Settled::InTime);
        assert_eq!(bring_back(&mut table, &held(50, awaited)), Settled::InTime, "asked again");
        assert_eq!(bring_back(&mut table, &flight), Settled::Superseded);
        let reply = claim(&mut table, NOW, &ask(2, "a", "lane")).reply;
        assert!(matches!(reply, Decision::Replay { .. }), "{reply:?}");
    }

    #[test]
    fn a_doubt_of_the_store_is_resolved_by_the_answer_and_by_nothing_less() {
        let mut table = table();
        let Decision::Lead(hold) = claim(&mut table, NOW, &ask(1, "a", "lane")).reply else {
            panic!("it is free")
        };
        settle(&mut table, NOW, &hold, Ending::InDoubt);
        assert_eq!(bring_back(&mut table, &held(hold.fence.0, RestoredState::Flight)), Settled::Late);
        let view = inspect(&mut table, NOW, key("lane")).reply;
        assert_eq!(view, LaneView::InDoubt { fence: hold.fence, age: Duration::ZERO, remaining: HOLD });
        assert_eq!(bring_back(&mut table, &held(hold.fence.0, done(Delivery::Made))), Settled::Late);
        assert_eq!(inspect(&mut table, NOW, key("lane")).reply, LaneView::Free);
    }

    #[test]
    fn a_claim_that_its_owner_never_heard_of_makes_way_for_what_the_owner_did_without_it() {
        for lapsed in [Duration::ZERO, LEASE] {
            let mut table = table();
            let Decision::Lead(unheard) = claim(&mut table, NOW, &ask(1, "a", "lane")).reply else {
                panic!("it is free")
            };
            let now = after(NOW, lapsed);
            let restored = held(unheard.fence.0 + 50, RestoredState::Flight);
            let step = restore(&mut table, now, &restored);
            table.assert_sound();
            assert_eq!(step.reply, Settled::InTime);
            let waiting = Nudge::Waiting { fingerprint: key("a"), fence: unheard.fence };
            assert!(step.effects.nudges.contains(&waiting), "they are to follow the one that runs");
            let reply = claim(&mut table, now, &ask(2, "a", "lane")).reply;
            assert!(
                matches!(reply, Decision::Follow { fence, .. } if fence == restored.hold.fence),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn a_record_of_an_older_generation_is_not_brought_back_and_makes_way() {
        let mut table = table();
        assert_eq!(bring_back(&mut table, &held(50, done(Delivery::Made))), Settled::InTime);
        begin_generation(&mut table, NOW, key("session"));
        assert_eq!(bring_back(&mut table, &held(40, done(Delivery::Made))), Settled::Superseded);
        assert_eq!(bring_back(&mut table, &held(51, RestoredState::Flight)), Settled::InTime);
    }
}
