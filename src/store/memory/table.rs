//! The cells of the memory store, with what they weigh and when they end.
//!
//! It carries out what the machine decided and keeps the indexes right. By itself it does one thing: it lets
//! records go early when they are over their budget, and never anything that is live.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header::LOCATION};
use smallvec::SmallVec;

use super::MemoryLimits;
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

/// A generation is kept at least this long: flights that began before it may settle much later.
const GENERATION_LIFE_MIN: Duration = Duration::from_secs(3600);

pub(crate) struct Table {
    limits: MemoryLimits,
    last: u64,
    fences: Fences,
    /// Boxed, so that a growing map moves pointers while everybody waits, not runs.
    runs: HashMap<Fence, Box<Cell<Run>>, Short>,
    places: HashMap<Place, Cell<Fence>, Short>,
    generations: HashMap<Key, Generation, Short>,
    /// Generations in the order in which they end.
    generation_ends: BTreeSet<(Millis, Key)>,
    /// Runs in the order in which they end, whatever their state.
    ends: BTreeSet<(Millis, Fence)>,
    /// Ended runs with a body, oldest first.
    whole: BTreeSet<(Millis, Fence)>,
    /// Ended runs without one (tombstones and operators' marks), oldest first.
    stones: BTreeSet<(Millis, Fence)>,
    life_longest: Duration,
    pub(crate) counts: Counts,
    changes: Option<Changes>,
}

/// Which cells a step has written, for a store that is written down; what they hold now says the table. A cell may be
/// named twice. A lease that was prolonged is no change: a flight that is found again has lost its leader. Places of
/// fingerprints and lanes are not named: they follow from the runs.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) runs: SmallVec<[Fence; 2]>,
    pub(crate) scopes: SmallVec<[Key; 2]>,
    pub(crate) generations: SmallVec<[Key; 2]>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.scopes.is_empty() && self.generations.is_empty()
    }
}

/// What the table holds and what it had to let go.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) flights: usize,
    pub(crate) in_doubt: usize,
    pub(crate) lanes: usize,
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
            ends: BTreeSet::new(),
            whole: BTreeSet::new(),
            stones: BTreeSet::new(),
            life_longest: Duration::ZERO,
            counts: Counts::default(),
            changes: None,
        }
    }

    /// From now on it notes what changes.
    pub(super) fn note_changes(&mut self) {
        self.changes = Some(Changes::default());
    }

    /// What has changed since it was last asked, if anything has.
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        self.changes.as_mut().filter(|changes| !changes.is_empty()).map(std::mem::take)
    }

    fn note(&mut self, note: impl FnOnce(&mut Changes)) {
        if let Some(changes) = &mut self.changes {
            note(changes);
        }
    }

    /// A run as it was written down, with the places that follow from it. Records come oldest first.
    pub(crate) fn load_run(&mut self, fence: Fence, run: Run) {
        self.raise_fence(fence);
        let lanes = if run.state.is_live() { run.lanes.clone() } else { SmallVec::new() };
        let fingerprint = run.fingerprint.map(Place::Fingerprint);
        for place in fingerprint.into_iter().chain(lanes.into_iter().map(Place::Lane)) {
            self.point(place, fence);
        }
        self.insert_run(fence, run);
    }

    pub(crate) fn load_generation(&mut self, identity: Key, began: Fence, ends: Millis) {
        self.generations.insert(identity, Generation { began: Cell::new(began), ends });
        self.generation_ends.insert((ends, identity));
    }

    /// When a generation began, and until when that is remembered.
    pub(crate) fn generation_until(&self, identity: Key) -> Option<(Fence, Millis)> {
        self.generations.get(&identity).map(|generation| (generation.began.value, generation.ends))
    }

    /// One run whose time is over by `now`. Each is given once: the machine ends it, or it cannot be read and then
    /// it never ends.
    pub(crate) fn take_due(&mut self, now: Millis) -> Option<Fence> {
        let first = *self.ends.first()?;
        (first.0 <= now).then(|| {
            self.ends.remove(&first);
            first.1
        })
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
            let oldest = if many_stones { None } else { self.whole.first().copied() };
            match (oldest, self.stones.first().copied()) {
                (Some((_, fence)), _) => self.drop_body(fence),
                (None, Some((_, fence))) => self.drop_record(fence),
                (None, None) => break,
            }
        }
    }

    pub(crate) fn records(&self) -> usize {
        self.whole.len() + self.stones.len()
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
        self.runs.iter().filter_map(|(fence, cell)| Some((*fence, cell.read()?)))
    }

    fn drop_body(&mut self, fence: Fence) {
        let Some(State::Done { record, settled_at, until, delivery }) =
            self.runs.get(&fence).map(|cell| cell.value.state.clone())
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

    fn enlist(&mut self, fence: Fence, state: &State) {
        self.ends.insert((state.ends(), fence));
        match state {
            State::Flight { .. } => self.counts.flights += 1,
            State::InDoubt { .. } => self.counts.in_doubt += 1,
            State::Done { record, settled_at, until, delivery } => {
                let life = Duration::from_millis(until.0.saturating_sub(settled_at.0));
                // It may be delivered at the last moment, and its seen life begins then.
                let longest = match delivery {
                    Delivery::Awaited { seen } => life.saturating_add(*seen),
                    Delivery::Made => life,
                };
                self.life_longest = self.life_longest.max(longest);
                self.shelf(record).insert((*settled_at, fence));
                *self.weight(record) += record.bytes() + OVERHEAD_BYTES;
            }
            State::Resolved { since, until } => {
                let life = Duration::from_millis(until.0.saturating_sub(since.0));
                self.life_longest = self.life_longest.max(life);
                self.stones.insert((*since, fence));
                self.counts.stone_bytes += OVERHEAD_BYTES;
            }
        }
    }

    fn strike(&mut self, fence: Fence, state: &State) {
        self.ends.remove(&(state.ends(), fence));
        match state {
            State::Flight { .. } => self.counts.flights -= 1,
            State::InDoubt { .. } => self.counts.in_doubt -= 1,
            State::Done { record, settled_at, .. } => {
                self.shelf(record).remove(&(*settled_at, fence));
                *self.weight(record) -= record.bytes() + OVERHEAD_BYTES;
            }
            State::Resolved { since, .. } => {
                self.stones.remove(&(*since, fence));
                self.counts.stone_bytes -= OVERHEAD_BYTES;
            }
        }
    }

    fn shelf(&mut self, record: &Record) -> &mut BTreeSet<(Millis, Fence)> {
        match record.body {
            Kept::Whole(_) => &mut self.whole,
            Kept::Dropped => &mut self.stones,
        }
    }

    fn weight(&mut self, record: &Record) -> &mut usize {
        match record.body {
            Kept::Whole(_) => &mut self.counts.whole_bytes,
            Kept::Dropped => &mut self.counts.stone_bytes,
        }
    }
}

impl Cells for Table {
    fn run(&self, fence: Fence) -> Option<&Cell<Run>> {
        self.runs.get(&fence).map(|cell| &**cell)
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
            .filter(|(_, cell)| cell.value.lanes.contains(&lane))
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
        self.enlist(fence, &run.state);
        self.runs.insert(fence, Box::new(Cell::new(run)));
    }

    fn set_state(&mut self, fence: Fence, state: State) {
        let Some(cell) = self.runs.get_mut(&fence) else {
            return;
        };
        let old = std::mem::replace(&mut cell.value.state, state.clone());
        if !matches!((&old, &state), (State::Flight { .. }, State::Flight { .. })) {
            self.note(|changes| changes.runs.push(fence));
        }
        self.strike(fence, &old);
        self.enlist(fence, &state);
    }

    fn remove_run(&mut self, fence: Fence) -> Option<Run> {
        let run = self.runs.remove(&fence)?.value;
        self.note(|changes| changes.runs.push(fence));
        self.strike(fence, &run.state);
        Some(run)
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
    let mut headers = HeaderMap::new();
    // A copy: the record's values share one block, which a clone would hold on to.
    if let Some(Ok(location)) =
        record.headers.get(LOCATION).map(|value| HeaderValue::from_bytes(value.as_bytes()))
    {
        headers.insert(LOCATION, location);
    }
    Record { headers, body: Kept::Dropped, ..record.clone() }
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
            runs: self.runs.iter().map(|(fence, cell)| (*fence, (**cell).clone())).collect(),
            places: self.places.iter().map(|(place, cell)| (*place, cell.clone())).collect(),
            generations: generations.collect(),
        }
    }

    pub(crate) fn place_foreign(&mut self, place: Place, fence: Fence) {
        self.places.insert(place, Cell { version: u16::MAX, value: fence });
    }

    pub(crate) fn make_run_foreign(&mut self, fence: Fence) {
        self.runs.get_mut(&fence).expect("a run to make foreign").version = u16::MAX;
    }

    pub(crate) fn make_generation_foreign(&mut self, identity: Key) {
        self.generations.get_mut(&identity).expect("a generation to make foreign").began.version = u16::MAX;
    }

    /// Everything points to what points back, and every index and count agrees with the runs.
    pub(crate) fn assert_sound(&self) {
        let (mut flights, mut in_doubt, mut lanes, mut bytes, mut whole, mut stones) = (0, 0, 0, 0, 0, 0);
        for (fence, cell) in &self.runs {
            let run = &cell.value;
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
                    bytes += record.bytes() + OVERHEAD_BYTES;
                    match record.body {
                        Kept::Whole(_) => whole += usize::from(self.whole.contains(&(*settled_at, *fence))),
                        Kept::Dropped => stones += usize::from(self.stones.contains(&(*settled_at, *fence))),
                    }
                }
                State::Resolved { since, .. } => {
                    bytes += OVERHEAD_BYTES;
                    stones += usize::from(self.stones.contains(&(*since, *fence)));
                }
            }
            assert!(self.ends.contains(&(run.state.ends(), *fence)), "every run ends");
        }
        for (place, cell) in &self.places {
            let run = &self.runs[&cell.value].value;
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
        assert_eq!((self.whole.len(), self.stones.len()), (whole, stones));
        assert_eq!(self.ends.len(), self.runs.len());
        assert_eq!(self.generation_ends.len(), self.generations.len());
    }
}
