//! The cells of the memory store, with what they weigh and when they end.
//!
//! It carries out what the machine decided and keeps the indexes right. By itself it does one thing: it lets
//! records go early when they are over their budget, and never anything that is live.

mod cells;
mod queue;
mod written;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use http::header::LOCATION;

use self::queue::Queue;
pub(crate) use self::written::Changes;
use super::{
    MemoryLimits,
    ends::{Ends, Look},
    index::Index,
    slab::Slab,
};
use crate::store::{
    Fence, Kept, Key, Millis, Record,
    hash::Short,
    machine::cells::{Cell, Cells, Delivery, Place, Run, State},
};

/// What an ended run weighs beside its answer: the run, its pointers and its places in the indexes.
pub(crate) const OVERHEAD_BYTES: usize = 768;

/// How many generations are kept. One that goes early lets a record of its identity answer again: a purchase is
/// then answered with an older one, none is made twice.
const GENERATIONS_MAX: usize = 262_144;

/// A generation is kept at least this long: flights that began before it may settle much later.
const GENERATION_LIFE_MIN: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub(crate) struct Table {
    limits: MemoryLimits,
    last: u64,
    fences: Fences,
    runs: Slab<Filed>,
    by_fence: Index,
    /// The places of fingerprints, each of which points to a run that has this fingerprint.
    by_fingerprint: Index,
    /// Those of which that is not so: between two writes of one step, and where something else wrote.
    strays: HashMap<Key, Cell<Fence>, Short>,
    /// Few: only what is live holds lanes.
    lanes: HashMap<Key, Cell<Fence>, Short>,
    scopes: HashMap<Key, Cell<Fence>, Short>,
    generations: HashMap<Key, Generation, Short>,
    /// Generations in the order in which they end.
    generation_ends: BTreeSet<(Millis, Key)>,
    /// When each run is to be looked at, whatever its state.
    ends: Ends,
    /// Ended runs with a body, oldest first: those that were settled first.
    whole: Queue,
    /// Ended runs without one (tombstones and operators' marks), oldest first.
    stones: BTreeSet<(Millis, Fence)>,
    life_longest: Duration,
    pub(crate) counts: Counts,
    changes: Option<Changes>,
}

/// A run with its places in the indexes.
#[derive(Clone)]
struct Filed {
    fence: Fence,
    cell: Cell<Run>,
    /// When it is to be looked at: no later than its state ends. `None`: it was, and not a word was heard since.
    look_at: Option<Millis>,
    /// What it counts for against the budget.
    weight: usize,
    /// The places before and behind it in the queue that it stands in.
    before: u32,
    behind: u32,
}

/// What a run is counted under.
#[derive(Clone, Copy)]
enum Rank {
    Flight,
    InDoubt,
    /// An answer with its body.
    Whole,
    /// An end without an answer, since then.
    Stone(Millis),
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

#[derive(Clone)]
struct Generation {
    began: Cell<Fence>,
    ends: Millis,
}

impl Table {
    pub(crate) fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            last: 0,
            fences: Fences::Counted,
            runs: Slab::default(),
            by_fence: Index::default(),
            by_fingerprint: Index::default(),
            strays: HashMap::default(),
            lanes: HashMap::default(),
            scopes: HashMap::default(),
            generations: HashMap::default(),
            generation_ends: BTreeSet::new(),
            ends: Ends::default(),
            whole: Queue::default(),
            stones: BTreeSet::new(),
            life_longest: Duration::ZERO,
            counts: Counts::default(),
            changes: None,
        }
    }

    /// Looks at the run that is to be looked at first, if that is by `now`.
    pub(crate) fn look_at_due(&mut self, now: Millis) -> Looked {
        let Some(look) = self.ends.take_due(now) else { return Looked::Nothing };
        let planned = self.filed_mut(look.fence).filter(|filed| filed.look_at == Some(look.at));
        let Some(filed) = planned else {
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
            let oldest = if many_stones { None } else { self.runs.get(self.whole.first) };
            match (oldest, self.stones.first().copied()) {
                (Some(filed), _) => self.drop_body(filed.fence),
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
        self.runs.iter().filter_map(|filed| Some((filed.fence, filed.cell.read()?)))
    }

    fn place_of(&self, fence: Fence) -> Option<u32> {
        self.by_fence.find(fence.into(), |place| is_of(&self.runs, place, fence))
    }

    fn filed(&self, fence: Fence) -> Option<&Filed> {
        self.runs.get(self.place_of(fence)?)
    }

    fn filed_mut(&mut self, fence: Fence) -> Option<&mut Filed> {
        self.runs.get_mut(self.place_of(fence)?)
    }

    fn point_fingerprint(&mut self, key: Key, cell: Cell<Fence>) {
        if !self.strays.is_empty() {
            self.strays.remove(&key);
        }
        let place = self.place_of(cell.value).filter(|place| has_fingerprint(&self.runs, *place, &key));
        match place.filter(|_| cell.read().is_some()) {
            Some(place) => {
                let (index, runs) = (&mut self.by_fingerprint, &self.runs);
                index.insert((&key).into(), place, |place| has_fingerprint(runs, place, &key));
            }
            None => {
                self.unpoint_fingerprint(&key);
                self.strays.insert(key, cell);
            }
        }
    }

    fn unpoint_fingerprint(&mut self, key: &Key) -> Option<u32> {
        let (index, runs) = (&mut self.by_fingerprint, &self.runs);
        index.remove(key.into(), |place| has_fingerprint(runs, place, key))
    }

    fn drop_body(&mut self, fence: Fence) {
        let Some(State::Done { record, settled_at, until, delivery }) =
            self.filed(fence).map(|filed| filed.cell.value.state.clone())
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
            if self.place(place).is_some_and(|cell| cell.value == fence) {
                self.clear(place);
            }
        }
        self.counts.records_dropped_early += 1;
    }

    /// Counts a run in under its state.
    fn enlist(&mut self, place: u32, fence: Fence, (rank, weight): (Rank, usize)) {
        match rank {
            Rank::Flight => self.counts.flights += 1,
            Rank::InDoubt => self.counts.in_doubt += 1,
            Rank::Whole => {
                self.counts.whole += 1;
                self.counts.whole_bytes += weight;
                self.whole.push(&mut self.runs, place);
            }
            Rank::Stone(since) => {
                self.counts.stone_bytes += weight;
                self.stones.insert((since, fence));
            }
        }
    }

    /// `links` are the places before and behind it in its queue.
    fn strike(&mut self, fence: Fence, (rank, weight): (Rank, usize), links: (u32, u32)) {
        match rank {
            Rank::Flight => self.counts.flights -= 1,
            Rank::InDoubt => self.counts.in_doubt -= 1,
            Rank::Whole => {
                self.counts.whole -= 1;
                self.counts.whole_bytes -= weight;
                self.whole.remove(&mut self.runs, links);
            }
            Rank::Stone(since) => {
                self.counts.stone_bytes -= weight;
                self.stones.remove(&(since, fence));
            }
        }
    }

    /// Bounds the queue of looks, from which nobody is taken out in the middle.
    fn clear_idle(&mut self) {
        let (runs, by_fence) = (&self.runs, &self.by_fence);
        self.ends.clear_idle(runs.len(), |look| {
            let place = by_fence.find(look.fence.into(), |place| is_of(runs, place, look.fence));
            place.and_then(|place| runs.get(place)).is_some_and(|filed| filed.look_at == Some(look.at))
        });
    }

    fn note_life(&mut self, state: &State) {
        self.life_longest = self.life_longest.max(life_of(state));
    }
}

/// How long a record can live, if it is one.
fn life_of(state: &State) -> Duration {
    let life = |from: Millis, until: Millis| Duration::from_millis(until.0.saturating_sub(from.0));
    match state {
        State::Flight { .. } | State::InDoubt { .. } => Duration::ZERO,
        // It may be delivered at the last moment, and its seen life begins then.
        State::Done { settled_at, until, delivery: Delivery::Awaited { seen }, .. } => {
            life(*settled_at, *until).saturating_add(*seen)
        }
        State::Done { settled_at, until, delivery: Delivery::Made, .. } => life(*settled_at, *until),
        State::Resolved { since, until } => life(*since, *until),
    }
}

impl Rank {
    /// With what a run of this state counts for against the budget.
    fn of(state: &State) -> (Self, usize) {
        match state {
            State::Flight { .. } => (Self::Flight, 0),
            State::InDoubt { .. } => (Self::InDoubt, 0),
            State::Done { record, settled_at, .. } => {
                let rank = match record.body {
                    Kept::Whole(_) => Self::Whole,
                    Kept::Dropped => Self::Stone(*settled_at),
                };
                (rank, record.bytes() + OVERHEAD_BYTES)
            }
            State::Resolved { since, .. } => (Self::Stone(*since), OVERHEAD_BYTES),
        }
    }
}

fn is_of(runs: &Slab<Filed>, place: u32, fence: Fence) -> bool {
    runs.get(place).is_some_and(|filed| filed.fence == fence)
}

fn has_fingerprint(runs: &Slab<Filed>, place: u32, key: &Key) -> bool {
    runs.get(place).is_some_and(|filed| filed.cell.value.fingerprint.as_ref() == Some(key))
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
        let generations = self.generations.iter().map(|(key, generation)| (*key, generation.began));
        Everything {
            last: self.last,
            life_longest: self.life_longest,
            runs: self.runs.iter().map(|filed| (filed.fence, filed.cell.clone())).collect(),
            places: self.places(),
            generations: generations.collect(),
        }
    }

    fn places(&self) -> Vec<(Place, Cell<Fence>)> {
        let kept = self.runs.iter().filter_map(|filed| filed.cell.value.fingerprint);
        let fingerprints: BTreeSet<Key> = kept.chain(self.strays.keys().copied()).collect();
        let fingerprints = fingerprints.into_iter().map(Place::Fingerprint);
        let lanes = self.lanes.keys().copied().map(Place::Lane);
        let scopes = self.scopes.keys().copied().map(Place::Scope);
        fingerprints
            .chain(lanes)
            .chain(scopes)
            .filter_map(|place| Some((place, self.place(place)?)))
            .collect()
    }

    pub(crate) fn place_foreign(&mut self, place: Place, fence: Fence) {
        let cell = Cell { version: u16::MAX, value: fence };
        match place {
            Place::Fingerprint(key) => self.point_fingerprint(key, cell),
            Place::Lane(key) => drop(self.lanes.insert(key, cell)),
            Place::Scope(key) => drop(self.scopes.insert(key, cell)),
        }
    }

    pub(crate) fn make_run_foreign(&mut self, fence: Fence) {
        self.filed_mut(fence).expect("a run to make foreign").cell.version = u16::MAX;
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

    /// The queue of whole answers holds them all, forwards and backwards.
    fn assert_queued(&self, whole: usize) {
        let (mut before, mut place, mut count) = (queue::NONE, self.whole.first, 0);
        while let Some(filed) = self.runs.get(place) {
            assert!(matches!(Rank::of(&filed.cell.value.state), (Rank::Whole, _)));
            assert_eq!(filed.before, before);
            (before, place, count) = (place, filed.behind, count + 1);
        }
        assert_eq!((count, place, before), (whole, queue::NONE, self.whole.last));
    }

    /// Everything points to what points back, and every index and count agrees with the runs.
    pub(crate) fn assert_sound(&self) {
        let (mut flights, mut in_doubt, mut lanes, mut bytes, mut whole, mut stones) = (0, 0, 0, 0, 0, 0);
        let places = self.places();
        let at = |place: Place| self.place(place).map(|cell| cell.value);
        for filed in self.runs.iter() {
            let (fence, run) = (&filed.fence, &filed.cell.value);
            for lane in &run.lanes {
                let held = at(Place::Lane(*lane)) == Some(*fence);
                assert_eq!(held, run.state.is_live(), "a lane is held exactly while its run is live");
            }
            if let Some(key) = run.fingerprint {
                assert_eq!(at(Place::Fingerprint(key)), Some(*fence), "one run per fingerprint");
            }
            assert!(fence.0 <= self.last);
            match &run.state {
                State::Flight { .. } => flights += 1,
                State::InDoubt { .. } => in_doubt += 1,
                State::Done { record, settled_at, .. } => {
                    assert_eq!(filed.weight, record.bytes() + OVERHEAD_BYTES);
                    bytes += filed.weight;
                    match record.body {
                        Kept::Whole(_) => whole += 1,
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
        for (place, cell) in &places {
            let run = &self.filed(cell.value).expect("a run at every place").cell.value;
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
        assert!(self.strays.is_empty(), "nothing points to what is not there");
        assert_eq!((self.runs.len(), self.by_fence.len()), (self.runs.iter().count(), self.runs.len()));
        assert!(self.by_fingerprint.len() <= self.runs.len());
        self.assert_queued(whole);
        assert!(self.ends.len() <= 3 * self.runs.len() + 1 + super::ends::CLEAR_MIN, "looks do not pile up");
        assert_eq!(self.generation_ends.len(), self.generations.len());
    }
}
