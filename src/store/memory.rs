//! The store of one process: the record machine over tables in memory, behind one lock.
//!
//! A step takes about a microsecond, so one lock serves all; nothing waits while it is held. What was in flight is
//! forgotten with the process: this store knows no restart.

mod table;
mod waiters;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot::Sender, time::Instant};

pub(crate) use self::table::Table;
use self::waiters::{Waiters, Wants};
use super::{
    Ask, Claimed, Ending, Fence, Hold, Judged, Key, LaneView, Millis, Record, Renewed, Reply, Resolution,
    Resolved, Settled, Store, StoreError, Woken,
    machine::{
        self, Decision, Effects, Nudge, Step,
        cells::{Cells as _, Place},
    },
};

/// How many runs a tick ends before it lets others have the lock, and how often it comes back for more.
const TICK_BATCH: usize = 512;
const TICK_BATCHES_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimits {
    /// What done records may weigh together, with their overhead.
    pub records_bytes_max: usize,
    /// How many flights and doubts there may be together; one more claim is busy.
    pub states_max: usize,
}

/// What the store holds now, and what it has counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    pub flights: usize,
    pub in_doubt: usize,
    pub records: usize,
    pub record_bytes: usize,
    pub lanes: usize,
    pub waiters: usize,
    pub generations: usize,
    pub bodies_dropped_early: u64,
    pub records_dropped_early: u64,
    pub generations_dropped_early: u64,
    pub leases_lost: u64,
}

/// The memory store. [`Memory::tick`] has to be called about every 100 ms: nobody else notices that a lease ran out
/// on which others wait.
pub struct Memory {
    started: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    table: Table,
    waiters: Waiters,
    leases_lost: u64,
}

/// Wake-ups that are carried out once the lock is free: a thousand followers shall not hold up everybody else.
type Calls = Vec<(Sender<Woken>, Woken)>;

/// What the followers of a flight get: its answer, or the word to look again.
type Answer<'a> = Option<&'a (Arc<Record>, Judged)>;

impl Memory {
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        let inner = Inner { table: Table::new(limits), waiters: Waiters::default(), leases_lost: 0 };
        Self { started: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Ends what has run out, wakes those who wait for it, and makes good any wake-up that was lost to a race.
    pub fn tick(&self) {
        for _ in 0..TICK_BATCHES_MAX {
            if self.step(Inner::end_due) == Due::None {
                break;
            }
        }
        self.step(|inner, now, calls| {
            inner.table.drop_ended_generations(now);
            inner.wake_forgotten(calls);
        });
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.lock();
        let counts = inner.table.counts;
        Stats {
            flights: counts.flights,
            in_doubt: counts.in_doubt,
            records: inner.table.records(),
            record_bytes: counts.whole_bytes + counts.stone_bytes,
            lanes: counts.lanes,
            waiters: inner.waiters.count(),
            generations: inner.table.generations(),
            bodies_dropped_early: counts.bodies_dropped_early,
            records_dropped_early: counts.records_dropped_early,
            generations_dropped_early: counts.generations_dropped_early,
            leases_lost: inner.leases_lost,
        }
    }

    /// One step: the clock is read under the lock, so that time never goes back between two steps.
    fn step<T>(&self, act: impl FnOnce(&mut Inner, Millis, &mut Calls) -> T) -> T {
        let mut calls = Calls::new();
        let reply = {
            let mut inner = self.lock();
            let now = Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            act(&mut inner, now, &mut calls)
        };
        for (wake, woken) in calls {
            // Whoever is gone needs no wake-up.
            drop(wake.send(woken));
        }
        reply
    }

    /// A step that panicked may have left cells half written. They read as busy, never as free, so the store goes
    /// on with the others.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        ready(match self.step(|inner, now, calls| inner.claim(now, ask, calls)) {
            // Headers are copied here, where nobody waits for the lock; a body is shared.
            Given::Replay(record, remaining) => {
                Claimed::Replay(Arc::new(Record { remaining, ..(*record).clone() }))
            }
            Given::Claimed(claimed) => claimed,
        })
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        ready(self.step(|inner, now, calls| {
            let step = machine::renew(&mut inner.table, now, hold);
            inner.finish(step, None, calls)
        }))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, mut ending: Ending) -> Reply<'a, Settled> {
        if let Ending::Done { record, unseen, .. } = &mut ending
            && record.remaining != *unseen
        {
            // Followers are told how long it lives. It copies only where the settler keeps an answer of its own.
            Arc::make_mut(record).remaining = *unseen;
        }
        let answer = answer_of(&ending);
        ready(self.step(|inner, now, calls| {
            let step = machine::settle(&mut inner.table, now, hold, ending);
            inner.table.fit_records();
            inner.finish(step, answer.as_ref(), calls)
        }))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        ready(self.step(|inner, now, calls| {
            let step = machine::abandon(&mut inner.table, now, hold);
            inner.finish(step, None, calls);
        }))
    }

    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        ready(self.step(|inner, now, calls| {
            let step = machine::delivered(&mut inner.table, now, hold);
            inner.finish(step, None, calls);
        }))
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        ready(self.step(|inner, now, _| machine::begin_generation(&mut inner.table, now, identity)))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        ready(self.step(|inner, now, calls| {
            let step = machine::inspect(&mut inner.table, now, lane);
            inner.finish(step, None, calls)
        }))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        ready(self.step(|inner, now, calls| {
            let step = machine::resolve(&mut inner.table, now, lane, resolution);
            inner.table.fit_records();
            inner.finish(step, None, calls)
        }))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        ready(self.step(|inner, now, calls| {
            let step = machine::forget(&mut inner.table, now, lane);
            inner.finish(step, None, calls)
        }))
    }
}

/// Whether a tick has to come back.
#[derive(PartialEq, Eq)]
enum Due {
    More,
    None,
}

/// What a claim came to, with the work that is left to do outside the lock.
enum Given {
    Replay(Arc<Record>, Duration),
    Claimed(Claimed),
}

impl Inner {
    fn claim(&mut self, now: Millis, ask: &Ask, calls: &mut Calls) -> Given {
        let step = machine::claim(&mut self.table, now, ask);
        // What was is woken before the asker waits: it must not be woken by its own step.
        Given::Claimed(match self.finish(step, None, calls) {
            Decision::Replay { record, remaining } => return Given::Replay(record, remaining),
            Decision::Lead(hold) => Claimed::Lead(hold),
            Decision::Follow { fingerprint, fence } => self
                .waiters
                .gather(fingerprint, fence, Wants::Answer)
                .map_or(Claimed::Busy, |wake| Claimed::Follow { fence, wake }),
            Decision::Queue { at, running } => {
                let wake = match at {
                    Place::Fingerprint(fingerprint) => self.waiters.gather(fingerprint, running, Wants::Turn),
                    Place::Lane(lane) | Place::Scope(lane) => self.waiters.queue(lane, ask.fingerprint),
                };
                wake.map_or(Claimed::Busy, |wake| Claimed::Queue { running: Some(running), wake })
            }
            Decision::Resolved { until, remaining } => Claimed::Resolved { until, remaining },
            Decision::InDoubt { age, remaining } => Claimed::InDoubt { age, remaining },
            Decision::Mismatch => Claimed::Mismatch,
            Decision::Busy => Claimed::Busy,
        })
    }

    fn finish<T>(&mut self, step: Step<T>, answer: Answer<'_>, calls: &mut Calls) -> T {
        self.apply(&step.effects, answer, calls);
        step.reply
    }

    fn apply(&mut self, effects: &Effects, answer: Answer<'_>, calls: &mut Calls) {
        self.leases_lost += effects.leases_lost;
        for nudge in &effects.nudges {
            match *nudge {
                Nudge::Waiting { fingerprint, fence } => self.wake_waiting(fingerprint, fence, answer, calls),
                Nudge::Next { lane } => self.waiters.wake_next(lane),
                Nudge::All { lane } => self.waiters.wake_all(lane),
                Nudge::Same { lane, fingerprint } => self.waiters.wake_same(lane, fingerprint),
            }
        }
    }

    fn wake_waiting(&mut self, fingerprint: Key, fence: Fence, answer: Answer<'_>, calls: &mut Calls) {
        let Some(gathering) = self.waiters.disperse(fingerprint, fence) else {
            return;
        };
        calls.extend(gathering.waiting.into_iter().map(|(wants, wake)| match (wants, answer) {
            (Wants::Answer, Some((answer, outcome))) => {
                (wake, Woken::Answered { fence, answer: Arc::clone(answer), outcome: *outcome })
            }
            (Wants::Answer, None) | (Wants::Turn, _) => (wake, Woken::Again),
        }));
    }

    fn end_due(&mut self, now: Millis, calls: &mut Calls) -> Due {
        for _ in 0..TICK_BATCH {
            let Some(fence) = self.table.take_due(now) else {
                return Due::None;
            };
            let effects = machine::expire(&mut self.table, now, fence);
            self.apply(&effects, None, calls);
        }
        Due::More
    }

    /// One who was woken may have gone away before it looked again, and its turn with it.
    fn wake_forgotten(&mut self, calls: &mut Calls) {
        let lanes: Vec<Key> =
            self.waiters.lanes().filter(|lane| machine::is_lane_free(&self.table, *lane)).collect();
        for lane in lanes {
            self.waiters.wake_next(lane);
        }
        let over: Vec<(Key, Fence)> = self
            .waiters
            .flights()
            .filter(|(_, fence)| self.table.run(*fence).is_none_or(|cell| !cell.value.state.is_live()))
            .collect();
        for (fingerprint, fence) in over {
            self.wake_waiting(fingerprint, fence, None, calls);
        }
    }
}

fn answer_of(ending: &Ending) -> Option<(Arc<Record>, Judged)> {
    match ending {
        Ending::Done { record: answer, .. } | Ending::DoneUnkept { answer } => {
            Some((Arc::clone(answer), Judged::Done))
        }
        Ending::Failed { answer } => Some((Arc::clone(answer), Judged::Failed)),
        Ending::InDoubt => None,
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Reply<'a, T> {
    Box::pin(std::future::ready(Ok::<T, StoreError>(value)))
}
