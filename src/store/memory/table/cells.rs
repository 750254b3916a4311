//! The table as the machine reads and writes it. Every method is a plain read or write; what they keep right beside
//! that are the indexes and the counts.

use std::sync::Arc;

use super::{
    super::ends::Look, Filed, GENERATION_LIFE_MIN, GENERATIONS_MAX, Generation, Rank, Table, has_fingerprint,
    is_of, life_of, queue::NONE,
};
use crate::store::{
    Fence, Key, Millis,
    machine::cells::{Cell, Cells, Place, Room, Run, State},
};

impl Cells for Table {
    fn run(&self, fence: Fence) -> Option<&Cell<Run>> {
        self.filed(fence).map(|filed| &filed.cell)
    }

    fn place(&self, place: Place) -> Option<Cell<Fence>> {
        match place {
            Place::Lane(key) => self.lanes.get(&key).copied(),
            Place::Scope(key) => self.scopes.get(&key).copied(),
            Place::Fingerprint(key) => {
                let found =
                    self.by_fingerprint.find((&key).into(), |at| has_fingerprint(&self.runs, at, &key));
                match found.and_then(|at| self.runs.get(at)) {
                    Some(filed) => Some(Cell::new(filed.fence)),
                    None if self.strays.is_empty() => None,
                    None => self.strays.get(&key).copied(),
                }
            }
        }
    }

    fn generation(&self, identity: Key) -> Option<&Cell<Fence>> {
        self.generations.get(&identity).map(|generation| &generation.began)
    }

    fn last_fence(&self) -> Fence {
        Fence(self.last)
    }

    fn room(&self) -> Room {
        if self.counts.flights + self.counts.in_doubt < self.limits.states_max {
            Room::Left
        } else {
            Room::Full
        }
    }

    /// Looks at every run: an operator's question, seldom enough to go without an index.
    fn led_under(&self, lane: Key) -> Vec<Fence> {
        self.runs
            .iter()
            .filter(|filed| filed.cell.value.lanes.contains(&lane))
            .map(|filed| filed.fence)
            .collect()
    }

    fn next_fence(&mut self, now: Millis) -> Fence {
        // 2^64 claims take longer than any process lives.
        self.last += 1;
        self.last = self.last.max(self.fences.least(now));
        Fence(self.last)
    }

    fn raise_fence(&mut self, seen: Fence) {
        self.last = self.last.max(seen.0);
    }

    fn insert_run(&mut self, fence: Fence, run: Run) {
        self.note(|changes| changes.runs.push(fence));
        self.note_life(&run.state);
        let at = run.state.ends();
        match run.state {
            State::Flight { .. } => self.ends.plan_lease(Look { at, fence }),
            State::InDoubt { .. } | State::Done { .. } | State::Resolved { .. } => {
                self.ends.plan(Look { at, fence });
            }
        }
        let (rank, weight) = Rank::of(&run.state);
        let cell = Cell::new(run);
        let filed = Filed { fence, cell, look_at: Some(at), weight, before: NONE, behind: NONE };
        let place = self.runs.insert(filed);
        self.by_fence.insert(fence.into(), place, |place| is_of(&self.runs, place, fence));
        self.enlist(place, fence, (rank, weight));
    }

    fn set_state(&mut self, fence: Fence, state: State) {
        let Some(place) = self.place_of(fence) else { return };
        let Some(filed) = self.runs.get_mut(place) else { return };
        let ends = state.ends();
        // An end that moves away is found when the old one comes.
        if filed.look_at.is_none_or(|planned| planned > ends) {
            if let Some(planned) = filed.look_at.replace(ends) {
                self.ends.cancel(Look { at: planned, fence });
            }
            self.ends.plan(Look { at: ends, fence });
        }
        let old = std::mem::replace(&mut filed.cell.value.state, state);
        let state = &filed.cell.value.state;
        let is_prolonged = matches!((&old, state), (State::Flight { .. }, State::Flight { .. }));
        let is_same = is_same_answer(&old, state);
        let (life, anew) = (life_of(state), Rank::of(state));
        let (before, links) = ((Rank::of(&old).0, filed.weight), (filed.before, filed.behind));
        filed.weight = anew.1;
        if !is_prolonged {
            self.note(|changes| changes.runs.push(fence));
        }
        self.life_longest = self.life_longest.max(life);
        if !is_same {
            self.strike(fence, before, links);
            self.enlist(place, fence, anew);
            self.clear_idle();
        }
    }

    fn remove_run(&mut self, fence: Fence) -> Option<Run> {
        let place = self.by_fence.remove(fence.into(), |place| is_of(&self.runs, place, fence))?;
        if let Some(fingerprint) = self.runs.get(place)?.cell.value.fingerprint
            && self.place(Place::Fingerprint(fingerprint)) == Some(Cell::new(fence))
        {
            // What points to it goes on pointing there until it is cleared.
            self.unpoint_fingerprint(&fingerprint);
            self.strays.insert(fingerprint, Cell::new(fence));
        }
        let Filed { cell, look_at, weight, before, behind, .. } = self.runs.remove(place)?;
        self.note(|changes| changes.runs.push(fence));
        if let Some(at) = look_at {
            self.ends.cancel(Look { at, fence });
        }
        self.strike(fence, (Rank::of(&cell.value.state).0, weight), (before, behind));
        self.clear_idle();
        Some(cell.value)
    }

    fn point(&mut self, place: Place, fence: Fence) {
        let cell = Cell::new(fence);
        match place {
            Place::Lane(lane) => {
                if self.lanes.insert(lane, cell).is_none() {
                    self.counts.lanes += 1;
                }
            }
            Place::Fingerprint(key) => self.point_fingerprint(key, cell),
            Place::Scope(scope) => {
                self.note(|changes| changes.scopes.push(scope));
                self.scopes.insert(scope, cell);
            }
        }
    }

    fn clear(&mut self, place: Place) {
        match place {
            Place::Lane(lane) => {
                if self.lanes.remove(&lane).is_some() {
                    self.counts.lanes -= 1;
                }
            }
            Place::Fingerprint(key) => {
                if self.unpoint_fingerprint(&key).is_none() {
                    self.strays.remove(&key);
                }
            }
            Place::Scope(scope) => {
                self.note(|changes| changes.scopes.push(scope));
                self.scopes.remove(&scope);
            }
        }
    }

    fn set_generation(&mut self, now: Millis, identity: Key, began: Fence) {
        self.note(|changes| changes.generations.push(identity));
        let life = self.life_longest.max(GENERATION_LIFE_MIN);
        let ends = Millis(now.0.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)));
        let generation = Generation { began: Cell::new(began), ends };
        if let Some(before) = self.generations.insert(identity, generation) {
            self.generation_ends.remove(&(before.ends, identity));
        }
        self.generation_ends.insert((ends, identity));
        if self.generations.len() > GENERATIONS_MAX
            && let Some((_, oldest)) = self.generation_ends.pop_first()
        {
            self.generations.remove(&oldest);
            self.note(|changes| changes.generations.push(oldest));
            self.counts.generations_dropped_early += 1;
        }
    }
}

/// Whether only the life of a kept answer changes, and neither what it weighs nor when it was settled.
fn is_same_answer(old: &State, new: &State) -> bool {
    match (old, new) {
        (
            State::Done { record: one, settled_at: then, .. },
            State::Done { record: other, settled_at: now, .. },
        ) => Arc::ptr_eq(one, other) && then == now,
        _ => false,
    }
}
