//! The cells of the memory store, with what they weigh and when they end.
//!
//! It carries out what the machine decided and keeps the indexes right. By itself it does one thing: it lets
//! records go early when they are over their budget, and never anything that is live.

mod written;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use http::header::LOCATION;

pub(crate) use self::written::Changes;
use super::{
    MemoryLimits,
    ends::{Ends, Look},
};
use crate::store::{
    Fence, Kept, Key, Millis, Record,
    hash::Short,
    machine::cells::{Cell, Cells, Delivery, Place, Room, Run, State},
};

/// What an ended run weighs beside its answer: the run, its pointers and its places in the indexes.
pub(crate) const OVERHEAD_BYTES: usize = 768;

/// What an answer without body and headers weighs, see [`Record::bytes`].
const RECORD_BYTES_MIN: usize = 256;

/// For how many runs room is made at the start.
const RUNS_RESERVED_MAX: usize = 1 << 19;

/// How many generations are kept. One that goes early lets a record of its identity answer again: a purchase is
/// then answered with an older one, none is made twice.
const GENERATIONS_MAX: usize = 262_144;

/// The queue of records is cleared of what is gone when that could be more than half of it, and these many.
const CLEAR_MIN: usize = 1024;

/// A generation is kept at least this long: flights that began before it may settle much later.
const GENERATION_LIFE_MIN: Duration = Duration::from_secs(3600);

pub(crate) struct Table {
    limits: MemoryLimits,
    last: u64,
    fences: Fences,
    /// Boxed, so that a growing map moves pointers while everybody waits, not runs.
    runs: HashMap<Fence, Box<Filed>, Short>,
    places: HashMap<Place, Cell<Fence>, Short>,
    generations: HashMap<Key, Generation, Short>,
    /// Generations in the order in which they end.
    generation_ends: BTreeSet<(Millis, Key)>,
    /// When each run is to be looked at, whatever its state.
    ends: Ends,
    /// Ended runs with a body, oldest first: those that were settled first. Some may have lost it or be gone since.
    whole: VecDeque<Fence>,
    /// Ended runs without one (tombstones and operators' marks), oldest first.
    stones: BTreeSet<(Millis, Fence)>,
    life_longest: Duration,
    pub(crate) counts: Counts,
    changes: Option<Changes>,
}

/// A run with its places in the indexes.
struct Filed {
    cell: Cell<Run>,
    /// When it is to be looked at: no later than its state ends. `None`: it was, and not a word was heard since.
    look_at: Option<Millis>,
    /// What it counts for against the budget.
    weight: usize,
}

/// What came of looking at a run whose time may be over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Looked {
    /// Its time is over. Each is given once: the machine ends it, or it cannot be read and then it never ends.
    Over(Fence),
    /// It goes on, or is gone.
    NotOver,
    /// Nothing is due.
    Nothing,
}

/// What the table holds and what it had to let go.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) flights: usize,
    pub(crate) in_doubt: usize,
    pub(crate) lanes: usize,
    /// Ended runs with a body.
    pub(crate) whole: usize,
    pub(crate) whole_bytes: usize,
    pub(crate) stone_bytes: usize,
    pub(crate) bodies_dropped_early: u64,
    pub(crate) records_dropped_early: u64,
    pub(crate) generations_dropped_early: u64,
}

/// Where a new fence comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fences {
    Counted,
    /// As in a store that is shared: the microseconds of its clock, if that is more.
    #[cfg(test)]
    Clocked,
}

impl Fences {
    #[cfg_attr(not(test), expect(unused_variables, reason = "only a shared store has a clock for it"))]
    fn least(self, now: Millis) -> u64 {
        match self {
            Self::Counted => 0,
            #[cfg(test)]
            Self::Clocked => now.0.saturating_mul(1000),
        }
    }
}

struct Generation {
    began: Cell<Fence>,
    ends: Millis,
}

impl Table {
    pub(crate) fn new(limits: MemoryLimits) -> Self {
        // A map that grows copies itself while everybody waits for the lock: some 10 ms at a million entries. Pages
        // that are reserved and not used cost address space only.
        let records = limits.records_bytes_max / (RECORD_BYTES_MIN + OVERHEAD_BYTES);
        let runs = records.saturating_add(limits.states_max).min(RUNS_RESERVED_MAX);
        Self {
            limits,
            last: 0,
            fences: Fences::Counted,
            runs: HashMap::with_capacity_and_hasher(runs, Short::default()),
            places: HashMap::with_capacity_and_hasher(runs * 2, Short::default()),
            generations: HashMap::default(),
            generation_ends: BTreeSet::new(),
            ends: Ends::default(),
            whole: VecDeque::new(),
            stones: BTreeSet::new(),
            life_longest: Duration::ZERO,
            counts: Counts::default(),
            changes: None,
        }
    }

    /// Looks at the run that is to be looked at first, if that is by `now`.
    pub(crate) fn look_at_due(&mut self, now: Millis) -> Looked {
        let Some(look) = self.ends.take_due(now) else { return Looked::Nothing };
        let Some(filed) = self.runs.get_mut(&look.fence).filter(|filed| filed.look_at == Some(look.at))
        else {
            return Looked::NotOver;
        };
        let ends = filed.cell.value.state.ends();
        if ends <= now {
            filed.look_at = None;
            return Looked::Over(look.fence);
        }
        filed.look_at = Some(ends);
        self.ends.plan(Look { at: ends, fence: look.fence });
        Looked::NotOver
    }

    pub(crate) fn drop_ended_generations(&mut self, now: Millis) {
        while let Some(&(ends, identity)) = self.generation_ends.first()
            && ends <= now
        {
            self.generation_ends.remove(&(ends, identity));
            self.generations.remove(&identity);
            self.note(|changes| changes.generations.push(identity));
        }
    }

    /// Lets records go until they fit: bodies first, oldest first. Tombstones may fill half of the budget, so that
    /// they never push out the body of an answer that has just come, for which duplicates are most likely.
    pub(crate) fn fit_records(&mut self) {
        while self.counts.whole_bytes + self.counts.stone_bytes > self.limits.records_bytes_max {
            let many_stones = self.counts.stone_bytes > self.limits.records_bytes_max / 2;
            let oldest = if many_stones { None } else { self.oldest_whole() };
            match (oldest, self.stones.first().copied()) {
                (Some(fence), _) => self.drop_body(fence),
                (None, Some((_, fence))) => self.drop_record(fence),
                (None, None) => break,
            }
        }
    }

    pub(crate) fn records(&self) -> usize {
        self.counts.whole + self.stones.len()
    }

    pub(crate) fn generations(&self) -> usize {
        self.generations.len()
    }

    /// Every generation that can be read, with the last fence that was older.
    pub(crate) fn generations_begun(&self) -> impl Iterator<Item = (Key, Fence)> {
        self.generations
            .iter()
            .filter_map(|(identity, generation)| Some((*identity, *generation.began.read()?)))
    }

    /// Every run that can be read, in no order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Fence, &Run)> {
        self.runs.iter().filter_map(|(fence, filed)| Some((*fence, filed.cell.read()?)))
    }

    fn oldest_whole(&mut self) -> Option<Fence> {
        while let Some(fence) = self.whole.front().copied() {
            if self.runs.get(&fence).is_some_and(|filed| is_whole(&filed.cell.value.state)) {
                return Some(fence);
            }
            self.whole.pop_front();
        }
        None
    }

    fn drop_body(&mut self, fence: Fence) {
        let Some(State::Done { record, settled_at, until, delivery }) =
            self.runs.get(&fence).map(|filed| filed.cell.value.state.clone())
        else {
            return;
        };
        let record = Arc::new(tombstone(&record));
        self.set_state(fence, State::Done { record, settled_at, until, delivery });
        self.counts.bodies_dropped_early += 1;
    }

    fn drop_record(&mut self, fence: Fence) {
        let Some(run) = self.remove_run(fence) else {
            return;
        };
        for place in run.fingerprint.map(Place::Fingerprint).into_iter().chain(run.scope.map(Place::Scope)) {
            if self.places.get(&place).is_some_and(|cell| cell.value == fence) {
                self.clear(place);
            }
        }
        self.counts.records_dropped_early += 1;
    }

    /// Counts a run in under its state; answers what it weighs.
    fn enlist(&mut self, fence: Fence, state: &State) -> usize {
        match state {
            State::Flight { .. } => self.counts.flights += 1,
            State::InDoubt { .. } => self.counts.in_doubt += 1,
            State::Done { record, settled_at, .. } => {
                let weight = record.bytes() + OVERHEAD_BYTES;
                match record.body {
                    Kept::Whole(_) => {
                        self.counts.whole += 1;
                        self.counts.whole_bytes += weight;
                        self.whole.push_back(fence);
                    }
                    Kept::Dropped => {
                        self.counts.stone_bytes += weight;
                        self.stones.insert((*settled_at, fence));
                    }
                }
                return weight;
            }
            State::Resolved { since, .. } => {
                self.counts.stone_bytes += OVERHEAD_BYTES;
                self.stones.insert((*since, fence));
                return OVERHEAD_BYTES;
            }
        }
        0
    }

    fn strike(&mut self, fence: Fence, state: &State, weight: usize) {
        match state {
            State::Flight { .. } => self.counts.flights -= 1,
            State::InDoubt { .. } => self.counts.in_doubt -= 1,
            State::Done { record, settled_at, .. } => match record.body {
                Kept::Whole(_) => {
                    self.counts.whole -= 1;
                    self.counts.whole_bytes -= weight;
                    self.clear_idle();
                }
                Kept::Dropped => {
                    self.counts.stone_bytes -= weight;
                    self.stones.remove(&(*settled_at, fence));
                }
            },
            State::Resolved { since, .. } => {
                self.counts.stone_bytes -= weight;
                self.stones.remove(&(*since, fence));
            }
        }
    }

    /// Bounds the queues, from which nobody is taken out in the middle.
    fn clear_idle(&mut self) {
        let runs = &self.runs;
        if self.whole.len() > 2 * self.counts.whole + CLEAR_MIN {
            self.whole.retain(|fence| runs.get(fence).is_some_and(|filed| is_whole(&filed.cell.value.state)));
        }
        self.ends.clear_idle(runs.len(), |look| {
            runs.get(&look.fence).is_some_and(|filed| filed.look_at == Some(look.at))
        });
    }

    fn note_life(&mut self, state: &State) {
        let life = |from: Millis, until: Millis| Duration::from_millis(until.0.saturating_sub(from.0));
        let longest = match state {
            State::Flight { .. } | State::InDoubt { .. } => return,
            // It may be delivered at the last moment, and its seen life begins then.
            State::Done { settled_at, until, delivery: Delivery::Awaited { seen }, .. } => {
                life(*settled_at, *until).saturating_add(*seen)
            }
            State::Done { settled_at, until, delivery: Delivery::Made, .. } => life(*settled_at, *until),
            State::Resolved { since, until } => life(*since, *until),
        };
        self.life_longest = self.life_longest.max(longest);
    }
}

fn is_whole(state: &State) -> bool {
    matches!(state, State::Done { record, .. } if matches!(record.body, Kept::Whole(_)))
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

impl Cells for Table {
    fn run(&self, fence: Fence) -> Option<&Cell<Run>> {
        self.runs.get(&fence).map(|filed| &filed.cell)
    }

    fn place(&self, place: Place) -> Option<&Cell<Fence>> {
        self.places.get(&place)
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
            .filter(|(_, filed)| filed.cell.value.lanes.contains(&lane))
            .map(|(fence, _)| *fence)
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
        let weight = self.enlist(fence, &run.state);
        self.note_life(&run.state);
        let at = run.state.ends();
        match run.state {
            State::Flight { .. } => self.ends.plan_lease(Look { at, fence }),
            State::InDoubt { .. } | State::Done { .. } | State::Resolved { .. } => {
                self.ends.plan(Look { at, fence });
            }
        }
        self.runs.insert(fence, Box::new(Filed { cell: Cell::new(run), look_at: Some(at), weight }));
    }

    fn set_state(&mut self, fence: Fence, state: State) {
        let Some(filed) = self.runs.get_mut(&fence) else {
            return;
        };
        let ends = state.ends();
        // An end that moves away is found when the old one comes.
        if filed.look_at.is_none_or(|planned| planned > ends) {
            if let Some(planned) = filed.look_at.replace(ends) {
                self.ends.cancel(Look { at: planned, fence });
            }
            self.ends.plan(Look { at: ends, fence });
        }
        let weight = filed.weight;
        let old = std::mem::replace(&mut filed.cell.value.state, state.clone());
        if !matches!((&old, &state), (State::Flight { .. }, State::Flight { .. })) {
            self.note(|changes| changes.runs.push(fence));
        }
        self.note_life(&state);
        if is_same_answer(&old, &state) {
            return;
        }
        self.strike(fence, &old, weight);
        let weight = self.enlist(fence, &state);
        if let Some(filed) = self.runs.get_mut(&fence) {
            filed.weight = weight;
        }
    }

    fn remove_run(&mut self, fence: Fence) -> Option<Run> {
        let Filed { cell, look_at, weight } = *self.runs.remove(&fence)?;
        self.note(|changes| changes.runs.push(fence));
        if let Some(at) = look_at {
            self.ends.cancel(Look { at, fence });
        }
        self.strike(fence, &cell.value.state, weight);
        self.clear_idle();
        Some(cell.value)
    }

    fn point(&mut self, place: Place, fence: Fence) {
        if let Place::Scope(scope) = place {
            self.note(|changes| changes.scopes.push(scope));
        }
        let before = self.places.insert(place, Cell::new(fence));
        if before.is_none() && matches!(place, Place::Lane(_)) {
            self.counts.lanes += 1;
        }
    }

    fn clear(&mut self, place: Place) {
        if let Place::Scope(scope) = place {
            self.note(|changes| changes.scopes.push(scope));
        }
        if self.places.remove(&place).is_some() && matches!(place, Place::Lane(_)) {
            self.counts.lanes -= 1;
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

/// That the work is done and where it led, without the answer itself.
fn tombstone(record: &Record) -> Record {
    let Record { status, ref headers, body: _, fence, answered_at, remaining } = *record;
    // A copy: the lines share one piece of memory with the body, which a clone would hold on to.
    Record { status, headers: headers.only(&LOCATION), body: Kept::Dropped, fence, answered_at, remaining }
}

/// The cells as they are, for a test that compares them with those of another store.
#[cfg(test)]
pub(crate) struct Everything {
    pub(crate) last: u64,
    pub(crate) life_longest: Duration,
    pub(crate) runs: Vec<(Fence, Cell<Run>)>,
    pub(crate) places: Vec<(Place, Cell<Fence>)>,
    pub(crate) generations: Vec<(Key, Cell<Fence>)>,
}

/// What only tests may see and do.
#[cfg(test)]
impl Table {
    pub(crate) fn clocked(limits: MemoryLimits) -> Self {
        Self { fences: Fences::Clocked, ..Self::new(limits) }
    }

    pub(crate) fn everything(&self) -> Everything {
        let generations = self.generations.iter().map(|(key, generation)| (*key, generation.began.clone()));
        Everything {
            last: self.last,
            life_longest: self.life_longest,
            runs: self.runs.iter().map(|(fence, filed)| (*fence, filed.cell.clone())).collect(),
            places: self.places.iter().map(|(place, cell)| (*place, cell.clone())).collect(),
            generations: generations.collect(),
        }
    }

    pub(crate) fn place_foreign(&mut self, place: Place, fence: Fence) {
        self.places.insert(place, Cell { version: u16::MAX, value: fence });
    }

    pub(crate) fn make_run_foreign(&mut self, fence: Fence) {
        self.runs.get_mut(&fence).expect("a run to make foreign").cell.version = u16::MAX;
    }

    pub(crate) fn make_generation_foreign(&mut self, identity: Key) {
        self.generations.get_mut(&identity).expect("a generation to make foreign").began.version = u16::MAX;
    }

    /// The next run that is over.
    pub(crate) fn take_due(&mut self, now: Millis) -> Option<Fence> {
        loop {
            match self.look_at_due(now) {
                Looked::Over(fence) => return Some(fence),
                Looked::NotOver => {}
                Looked::Nothing => return None,
            }
        }
    }

    /// Everything points to what points back, and every index and count agrees with the runs.
    pub(crate) fn assert_sound(&self) {
        let (mut flights, mut in_doubt, mut lanes, mut bytes, mut whole, mut stones) = (0, 0, 0, 0, 0, 0);
        for (fence, filed) in &self.runs {
            let run = &filed.cell.value;
            for lane in &run.lanes {
                let held = self.places.get(&Place::Lane(*lane)).is_some_and(|cell| cell.value == *fence);
                assert_eq!(held, run.state.is_live(), "a lane is held exactly while its run is live");
            }
            if let Some(key) = run.fingerprint {
                assert_eq!(self.places[&Place::Fingerprint(key)].value, *fence, "one run per fingerprint");
            }
            assert!(fence.0 <= self.last);
            match &run.state {
                State::Flight { .. } => flights += 1,
                State::InDoubt { .. } => in_doubt += 1,
                State::Done { record, settled_at, .. } => {
                    assert_eq!(filed.weight, record.bytes() + OVERHEAD_BYTES);
                    bytes += filed.weight;
                    match record.body {
                        Kept::Whole(_) => whole += usize::from(self.whole.contains(fence)),
                        Kept::Dropped => stones += usize::from(self.stones.contains(&(*settled_at, *fence))),
                    }
                }
                State::Resolved { since, .. } => {
                    bytes += OVERHEAD_BYTES;
                    stones += usize::from(self.stones.contains(&(*since, *fence)));
                }
            }
            let at = filed.look_at.expect("every run is looked at");
            assert!(at <= run.state.ends(), "no run is looked at after its end");
            assert!(self.ends.holds(Look { at, fence: *fence }), "every look is planned");
        }
        for (place, cell) in &self.places {
            let run = &self.runs[&cell.value].cell.value;
            match place {
                Place::Lane(lane) => {
                    lanes += 1;
                    assert!(run.lanes.contains(lane));
                }
                Place::Fingerprint(key) => assert_eq!(run.fingerprint, Some(*key)),
                Place::Scope(key) => assert!(run.scope == Some(*key) && !run.state.is_live()),
            }
        }
        let counts = self.counts;
        assert_eq!((counts.flights, counts.in_doubt, counts.lanes), (flights, in_doubt, lanes));
        assert_eq!(counts.whole_bytes + counts.stone_bytes, bytes);
        assert_eq!((counts.whole, self.stones.len()), (whole, stones));
        assert!(self.whole.len() <= 2 * whole + CLEAR_MIN + 1);
        assert!(self.ends.len() <= 3 * self.runs.len() + 1 + super::ends::CLEAR_MIN, "looks do not pile up");
        assert_eq!(self.generation_ends.len(), self.generations.len());
    }
}
