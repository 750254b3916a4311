//! The store of one process: the record machine over tables in memory, behind one lock.
//!
//! A step takes about a microsecond, so one lock serves all; nothing waits while it is held. What was in flight is
//! forgotten with the process: this store knows no restart.

mod ends;
mod mirror;
mod table;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot::Sender, time::Instant};

use self::table::Looked;
pub(crate) use self::table::{Changes, Table};
use super::{
    Ask, Claimed, Ending, Fence, Hold, Judged, Key, LaneView, Millis, Record, Renewed, Reply, Resolution,
    Resolved, Restored, RestoredState, Settled, Store, Woken,
    machine::{
        self, Decision, Effects, Nudge, Step,
        cells::{Cells as _, Place, Run, State},
    },
    waiters::{Waiters, Wants},
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
    /// The store's time when it started: 0, or where one that was written down had come to.
    began: Millis,
    inner: Mutex<Inner>,
    journal: Option<Arc<dyn Journal>>,
}

/// Whoever writes down what a memory store does, so that it survives its process.
pub(super) trait Journal: Send + Sync {
    /// A step has changed something. Called while the store is locked, step by step, so it must not wait for anything.
    /// It may keep wake-ups that shall not be heard before the step is written.
    fn enter(&self, table: &Table, now: Millis, changes: Changes, calls: &mut Calls);
}

pub(super) struct Inner {
    table: Table,
    waiters: Waiters,
    leases_lost: u64,
}

/// Wake-ups that are carried out once the lock is free: a thousand followers shall not hold up everybody else.
pub(super) type Calls = Vec<(Sender<Woken>, Woken)>;

/// What the followers of a flight get: its answer, or the word to look again.
type Answer<'a> = Option<&'a (Arc<Record>, Judged)>;

impl Memory {
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        Self::of(Table::new(limits), Millis(0), None)
    }

    /// A store that goes on where its table comes from, at a time of its own, and is written down from now on.
    pub(super) fn journaled(mut table: Table, began: Millis, journal: Arc<dyn Journal>) -> Self {
        table.note_changes();
        Self::of(table, began, Some(journal))
    }

    fn of(table: Table, began: Millis, journal: Option<Arc<dyn Journal>>) -> Self {
        let inner = Inner { table, waiters: Waiters::default(), leases_lost: 0 };
        Self { started: Instant::now(), began, inner: Mutex::new(inner), journal }
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

    /// Fences given out from now on are higher than this one.
    pub fn raise_fences(&self, seen: Fence) {
        self.lock().table.raise_fence(seen);
    }

    /// All that is held here and has not ended, oldest first, for a store that is to have it too. What is left of a
    /// lease stands for its length.
    #[must_use]
    pub fn held(&self) -> Vec<Restored> {
        self.step(|inner, now, _| {
            let mut held: Vec<Restored> =
                inner.table.runs().filter_map(|(fence, run)| restored(now, fence, run)).collect();
            held.sort_unstable_by_key(|restored| restored.hold.fence);
            held
        })
    }

    pub(super) fn claim_now(&self, ask: &Ask) -> Claimed {
        match self.step(|inner, now, calls| inner.claim(now, ask, calls)) {
            // Headers are copied here, where nobody waits for the lock; a body is shared.
            Given::Replay(record, remaining) => {
                Claimed::Replay(Arc::new(Record { remaining, ..(*record).clone() }))
            }
            Given::Claimed(claimed) => claimed,
        }
    }

    pub(super) fn abandon_now(&self, hold: &Hold) {
        self.step(|inner, now, calls| {
            let step = machine::abandon(&mut inner.table, now, hold);
            inner.finish(step, None, calls);
        });
    }

    /// The flights of a process that is no more are held in doubt, or free where their rule says so.
    pub(super) fn take_over(&self, flights: &[Flight]) {
        self.step(|inner, now, calls| {
            inner.end_flights(now, calls, flights);
            inner.table.fit_records();
        });
    }

    /// One step: the clock is read under the lock, so that time never goes back between two steps.
    pub(super) fn step<T>(&self, act: impl FnOnce(&mut Inner, Millis, &mut Calls) -> T) -> T {
        let mut calls = Calls::new();
        let reply = {
            let mut inner = self.lock();
            let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let now = Millis(self.began.0.saturating_add(passed));
            let reply = act(&mut inner, now, &mut calls);
            if let Some(journal) = &self.journal
                && let Some(changes) = inner.table.take_changes()
            {
                journal.enter(&inner.table, now, changes, &mut calls);
            }
            reply
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
        ready(self.claim_now(ask))
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
        self.abandon_now(hold);
        ready(())
    }

    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        self.step(|inner, now, calls| {
            let step = machine::delivered(&mut inner.table, now, hold);
            inner.finish(step, None, calls);
        });
        ready(())
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        self.step(|inner, now, _| machine::begin_generation(&mut inner.table, now, identity));
        ready(())
    }

    fn restore_generation(&self, identity: Key, began: Fence) -> Reply<'_, ()> {
        self.step(|inner, now, _| machine::restore_generation(&mut inner.table, now, identity, began));
        ready(())
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

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        ready(self.step(|inner, now, calls| {
            let step = machine::restore(&mut inner.table, now, restored);
            inner.table.fit_records();
            inner.finish(step, None, calls)
        }))
    }
}

/// A flight that nobody of this process will end.
pub(super) enum Flight {
    /// Its owner was not told that it leads, and never will be.
    Unsent(Hold),
    /// Its owner is gone and may have sent.
    Orphan(Fence),
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
    /// Ends flights that nobody of this process will end.
    pub(super) fn end_flights(&mut self, now: Millis, calls: &mut Calls, flights: &[Flight]) {
        for flight in flights {
            let effects = match flight {
                Flight::Unsent(hold) => machine::abandon(&mut self.table, now, hold).effects,
                Flight::Orphan(fence) => machine::orphan(&mut self.table, now, *fence),
            };
            self.apply(&effects, None, calls);
        }
    }

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
            match self.table.look_at_due(now) {
                Looked::Nothing => return Due::None,
                Looked::NotOver => {}
                Looked::Over(fence) => {
                    let effects = machine::expire(&mut self.table, now, fence);
                    self.apply(&effects, None, calls);
                }
            }
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

fn restored(now: Millis, fence: Fence, run: &Run) -> Option<Restored> {
    let left = |until: Millis| Duration::from_millis(until.0.saturating_sub(now.0));
    let remaining = left(run.state.ends());
    if remaining.is_zero() {
        return None;
    }
    let state = match &run.state {
        State::Flight { .. } => RestoredState::Flight,
        State::InDoubt { since, .. } => {
            let age = Duration::from_millis(now.0.saturating_sub(since.0));
            RestoredState::InDoubt { age, remaining }
        }
        State::Done { record, delivery, .. } => {
            RestoredState::Done { record: Arc::clone(record), remaining, delivery: *delivery }
        }
        State::Resolved { .. } => RestoredState::Resolved { remaining },
    };
    let hold = Hold {
        owner: run.owner,
        fence,
        lanes: run.lanes.clone(),
        fingerprint: run.fingerprint,
        scope: run.scope,
        lease: remaining,
    };
    Some(Restored {
        hold,
        body: run.body,
        generations: run.generations.clone(),
        in_doubt: run.in_doubt,
        state,
    })
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

fn ready<'a, T>(value: T) -> Reply<'a, T> {
    Reply::now(Ok(value))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, HeaderValue, LOCATION},
    };
    use smallvec::smallvec;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::store::{InDoubtPolicy, Kept, May, Owner, Wake};

    const LEASE: Duration = Duration::from_secs(10);
    const HOLD: Duration = Duration::from_secs(600);
    const UNSEEN: Duration = Duration::from_secs(7200);
    const SEEN: Duration = Duration::from_secs(3600);
    const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 };

    fn key(name: &str) -> Key {
        Key(*blake3::hash(name.as_bytes()).as_bytes())
    }

    fn ask(owner: u128, fingerprint: &str, lane: &str) -> Ask {
        Ask {
            owner: Owner(owner),
            lanes: smallvec![key(lane)],
            fingerprint: Some(key(fingerprint)),
            scope: None,
            body: None,
            generations: smallvec![],
            may: May::FollowAny,
            lease: LEASE,
            in_doubt: InDoubtPolicy::Hold(HOLD),
        }
    }

    fn record(body: &'static [u8]) -> Arc<Record> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(LOCATION, HeaderValue::from_static("/order/1001"));
        Arc::new(Record {
            status: StatusCode::CREATED,
            headers: headers.into(),
            body: Kept::Whole(Bytes::from_static(body)),
            fence: Fence(1),
            answered_at: 0,
            remaining: Duration::ZERO,
        })
    }

    fn done() -> Ending {
        Ending::Done { record: record(b"order 1001"), unseen: UNSEEN, seen: SEEN }
    }

    async fn claim(store: &Memory, ask: &Ask) -> Claimed {
        store.claim(ask).await.expect("memory is never down")
    }

    async fn lead(store: &Memory, ask: &Ask) -> Hold {
        match claim(store, ask).await {
            Claimed::Lead(hold) => hold,
            other => panic!("expected to lead, got {other:?}"),
        }
    }

    async fn follow(store: &Memory, ask: &Ask) -> Wake {
        match claim(store, ask).await {
            Claimed::Follow { wake, .. } => wake,
            other => panic!("expected to follow, got {other:?}"),
        }
    }

    async fn queue(store: &Memory, ask: &Ask) -> Wake {
        match claim(store, ask).await {
            Claimed::Queue { wake, .. } => wake,
            other => panic!("expected to queue, got {other:?}"),
        }
    }

    async fn settle(store: &Memory, hold: &Hold, ending: Ending) -> Settled {
        store.settle(hold, ending).await.expect("memory is never down")
    }

    /// Woken with "again", or by a dropped sender, which means the same.
    fn is_woken(wake: &mut Wake) -> bool {
        !matches!(wake.try_recv(), Err(TryRecvError::Empty))
    }

    #[tokio::test(start_paused = true)]
    async fn all_followers_get_the_answer_with_its_fence_and_its_life() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let wakes = [follow(&store, &ask(2, "a", "lane")).await, follow(&store, &ask(3, "a", "lane")).await];
        assert_eq!(settle(&store, &hold, done()).await, Settled::InTime);
        for wake in wakes {
            match wake.await {
                Ok(Woken::Answered { fence, answer, outcome: Judged::Done }) => {
                    assert_eq!((fence, answer.remaining), (hold.fence, UNSEEN));
                    assert_eq!(answer.body, Kept::Whole("order 1001".into()));
                }
                other => panic!("expected the answer, got {other:?}"),
            }
        }
        assert_eq!(store.stats().waiters, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn followers_of_a_failure_get_it_and_followers_of_a_doubt_look_again() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let wake = follow(&store, &ask(2, "a", "lane")).await;
        settle(&store, &hold, Ending::Failed { answer: record(b"declined") }).await;
        assert!(matches!(wake.await, Ok(Woken::Answered { outcome: Judged::Failed, .. })));

        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let wake = follow(&store, &ask(2, "a", "lane")).await;
        settle(&store, &hold, Ending::InDoubt).await;
        assert!(matches!(wake.await, Ok(Woken::Again)));
        assert!(matches!(claim(&store, &ask(2, "a", "lane")).await, Claimed::InDoubt { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_flight_is_led_by_exactly_one_of_its_followers() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let mut first = follow(&store, &ask(2, "a", "lane")).await;
        let mut second = follow(&store, &ask(3, "a", "lane")).await;
        store.abandon(&hold).await.expect("memory is never down");
        assert!(is_woken(&mut first) && is_woken(&mut second));
        lead(&store, &ask(2, "a", "lane")).await;
        follow(&store, &ask(3, "a", "lane")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_lane_wakes_one_and_the_first_who_came() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let mut first = queue(&store, &ask(2, "b", "lane")).await;
        let mut second = queue(&store, &ask(3, "c", "lane")).await;
        settle(&store, &hold, done()).await;
        assert!(is_woken(&mut first));
        assert!(!is_woken(&mut second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_went_away_does_not_take_the_wake_up_with_it() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        drop(queue(&store, &ask(2, "b", "lane")).await);
        let mut second = queue(&store, &ask(3, "c", "lane")).await;
        settle(&store, &hold, done()).await;
        assert!(is_woken(&mut second));
        assert_eq!(store.stats().waiters, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_after_its_wake_up_is_made_good_by_the_next_tick() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let first = queue(&store, &ask(2, "b", "lane")).await;
        let mut second = queue(&store, &ask(3, "c", "lane")).await;
        settle(&store, &hold, done()).await;
        drop(first);
        assert!(!is_woken(&mut second));
        store.tick();
        assert!(is_woken(&mut second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_queued_duplicate_becomes_a_replay_and_passes_its_turn_on() {
        let store = Memory::new(LIMITS);
        let other = lead(&store, &ask(1, "other", "lane")).await;
        let mut wakes = Vec::new();
        for owner in 2..5 {
            wakes.push(queue(&store, &ask(owner, "a", "lane")).await);
        }
        let mut last = queue(&store, &ask(9, "c", "lane")).await;
        settle(&store, &other, done()).await;
        let hold = lead(&store, &ask(2, "a", "lane")).await;
        assert!(wakes.iter_mut().all(is_woken), "the same request need not wait for the lane any more");
        assert!(!is_woken(&mut last));
        let follower = follow(&store, &ask(3, "a", "lane")).await;
        settle(&store, &hold, done()).await;
        assert!(matches!(follower.await, Ok(Woken::Answered { .. })));
        assert!(is_woken(&mut last));
        assert!(matches!(claim(&store, &ask(4, "a", "lane")).await, Claimed::Replay(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_in_a_lane_does_not_strand_those_behind_it() {
        let store = Memory::new(LIMITS);
        let first = lead(&store, &ask(1, "a", "lane")).await;
        settle(&store, &first, done()).await;
        let running = lead(&store, &ask(2, "b", "lane")).await;
        let mut woken = queue(&store, &ask(3, "c", "lane")).await;
        let mut behind = queue(&store, &ask(4, "d", "lane")).await;
        settle(&store, &running, done()).await;
        assert!(is_woken(&mut woken) && !is_woken(&mut behind));
        // Whoever was woken finds its answer kept meanwhile and leaves the lane free.
        assert!(matches!(claim(&store, &ask(3, "a", "lane")).await, Claimed::Replay(_)));
        assert!(is_woken(&mut behind));
    }

    #[tokio::test(start_paused = true)]
    async fn signals_that_arrive_during_a_run_share_one_run_after_it() {
        let store = Memory::new(LIMITS);
        let signal = |owner, after| Ask { may: May::FollowAfter(after), ..ask(owner, "tr_1", "lane") };
        let first = lead(&store, &signal(1, None)).await;
        let mut wakes = Vec::new();
        for owner in 2..6 {
            wakes.push(queue(&store, &signal(owner, None)).await);
        }
        settle(&store, &first, Ending::DoneUnkept { answer: record(b"ok") }).await;
        for wake in wakes {
            assert!(matches!(wake.await, Ok(Woken::Again)), "an earlier run's answer is not theirs");
        }
        let second = lead(&store, &signal(2, Some(first.fence))).await;
        let mut followers = Vec::new();
        for owner in 3..6 {
            followers.push(follow(&store, &signal(owner, Some(first.fence))).await);
        }
        settle(&store, &second, Ending::DoneUnkept { answer: record(b"ok") }).await;
        for wake in followers {
            assert!(matches!(wake.await, Ok(Woken::Answered { fence, .. }) if fence == second.fence));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_ends_leases_and_holds_and_wakes_those_who_wait() {
        let store = Memory::new(LIMITS);
        lead(&store, &ask(1, "a", "lane")).await;
        let mut follower = follow(&store, &ask(2, "a", "lane")).await;
        let mut queued =
            [queue(&store, &ask(3, "b", "lane")).await, queue(&store, &ask(4, "c", "lane")).await];
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        store.tick();
        assert!(!is_woken(&mut follower));
        tokio::time::advance(Duration::from_millis(1)).await;
        store.tick();
        assert!(is_woken(&mut follower) && queued.iter_mut().all(is_woken));
        let stats = store.stats();
        assert_eq!((stats.flights, stats.in_doubt, stats.lanes, stats.leases_lost), (0, 1, 1, 1));
        tokio::time::advance(HOLD).await;
        store.tick();
        let stats = store.stats();
        assert_eq!((stats.in_doubt, stats.lanes, stats.waiters), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_purges_records_and_generations() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        settle(&store, &hold, done()).await;
        store.begin_generation(key("session")).await.expect("memory is never down");
        let stats = store.stats();
        assert_eq!((stats.records, stats.generations), (1, 1));
        tokio::time::advance(UNSEEN - Duration::from_millis(1)).await;
        store.tick();
        let stats = store.stats();
        assert_eq!((stats.records, stats.generations), (1, 1));
        tokio::time::advance(Duration::from_millis(1)).await;
        store.tick();
        let stats = store.stats();
        assert_eq!((stats.records, stats.record_bytes), (0, 0));
        assert_eq!(stats.generations, 1, "the record might have been delivered at its last moment");
        tokio::time::advance(SEEN).await;
        store.tick();
        assert_eq!(store.stats().generations, 0);
        assert_eq!(stats.records_dropped_early, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_of_an_ended_generation_does_not_come_back_when_the_generation_is_purged() {
        let store = Memory::new(LIMITS);
        let slow =
            |owner| Ask { generations: smallvec![key("session")], lease: UNSEEN, ..ask(owner, "a", "lane") };
        let hold = lead(&store, &slow(1)).await;
        store.begin_generation(key("session")).await.expect("memory is never down");
        tokio::time::advance(Duration::from_secs(3000)).await;
        assert_eq!(settle(&store, &hold, done()).await, Settled::InTime);
        tokio::time::advance(Duration::from_secs(3000)).await;
        store.tick();
        assert_eq!(store.stats().generations, 0);
        lead(&store, &slow(2)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_tells_how_long_it_still_lives_and_shares_the_body() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        let body = Bytes::from(vec![b'x'; 1000]);
        let kept = Arc::new(Record { body: Kept::Whole(body.clone()), ..(*record(b"")).clone() });
        settle(&store, &hold, Ending::Done { record: kept, unseen: UNSEEN, seen: SEEN }).await;
        tokio::time::advance(UNSEEN - Duration::from_secs(1)).await;
        store.delivered(&hold).await.expect("memory is never down");
        tokio::time::advance(Duration::from_secs(600)).await;
        let Claimed::Replay(replayed) = claim(&store, &ask(2, "a", "lane")).await else { panic!("a replay") };
        assert_eq!(replayed.remaining, SEEN - Duration::from_secs(600));
        assert_eq!(replayed.headers.get(LOCATION).unwrap(), "/order/1001");
        assert!(matches!(&replayed.body, Kept::Whole(given) if given.as_ptr() == body.as_ptr()));
    }

    /// Leads and settles one order of its own with a body of 1,000 bytes.
    async fn one_done(store: &Memory, number: u128) {
        let name = format!("order {number}");
        let hold = lead(store, &ask(number, &name, &name)).await;
        settle(store, &hold, Ending::Done { record: record(&[b'x'; 1000]), unseen: UNSEEN, seen: SEEN })
            .await;
    }

    async fn kept(store: &Memory, number: u128) -> Option<Kept> {
        let name = format!("order {number}");
        match claim(store, &ask(1000 + number, &name, &name)).await {
            Claimed::Replay(record) => Some(record.body.clone()),
            Claimed::Lead(hold) => {
                store.abandon(&hold).await.expect("memory is never down");
                None
            }
            other => panic!("expected a replay or nothing, got {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_budget_the_oldest_body_goes_first_and_leaves_a_tombstone() {
        let one = record(&[b'x'; 1000]).bytes() + table::OVERHEAD_BYTES;
        let store = Memory::new(MemoryLimits { records_bytes_max: 3 * one, ..LIMITS });
        for number in 1..=4 {
            tokio::time::advance(Duration::from_secs(1)).await;
            one_done(&store, number).await;
        }
        assert_eq!(kept(&store, 1).await, Some(Kept::Dropped));
        assert_eq!(store.stats().records, 4);
        assert!(matches!(kept(&store, 4).await, Some(Kept::Whole(_))));
        let Claimed::Replay(stone) = claim(&store, &ask(99, "order 1", "order 1")).await else {
            panic!("a replay")
        };
        assert_eq!(
            (stone.status, stone.headers.get(LOCATION)),
            (StatusCode::CREATED, Some("/order/1001".parse().unwrap()))
        );
        assert!(stone.headers.get(CONTENT_TYPE).is_none());
        let stats = store.stats();
        assert!(stats.record_bytes <= 3 * one);
        assert_eq!(stats.records_dropped_early, 0);
        assert!(stats.bodies_dropped_early >= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tombstones_go_oldest_first_and_never_push_out_the_newest_body() {
        let one = record(&[b'x'; 1000]).bytes() + table::OVERHEAD_BYTES;
        let store = Memory::new(MemoryLimits { records_bytes_max: 4 * one, ..LIMITS });
        for number in 1..=40 {
            tokio::time::advance(Duration::from_secs(1)).await;
            one_done(&store, number).await;
            assert!(store.stats().record_bytes <= 4 * one);
            assert!(matches!(kept(&store, number).await, Some(Kept::Whole(_))), "order {number}");
        }
        let mut found = Vec::new();
        for number in 1..=40 {
            found.push(match kept(&store, number).await {
                None => 0,
                Some(Kept::Dropped) => 1,
                Some(Kept::Whole(_)) => 2,
            });
        }
        assert!(found.is_sorted(), "gone, then tombstones, then bodies: {found:?}");
        assert!(found.contains(&0) && found.contains(&1));
        let stats = store.stats();
        assert_eq!(stats.records_dropped_early, found.iter().filter(|kept| **kept == 0).count() as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn no_budget_at_all_drops_records_but_nothing_that_is_live() {
        let store = Memory::new(MemoryLimits { records_bytes_max: 0, ..LIMITS });
        let running = lead(&store, &ask(1, "a", "x")).await;
        let lost = lead(&store, &ask(2, "b", "y")).await;
        settle(&store, &lost, Ending::InDoubt).await;
        one_done(&store, 3).await;
        let stats = store.stats();
        assert_eq!((stats.records, stats.record_bytes, stats.records_dropped_early), (0, 0, 1));
        assert_eq!((stats.flights, stats.in_doubt, stats.lanes), (1, 1, 2));
        assert_eq!(store.renew(&running).await, Ok(Renewed::Held));
        assert!(matches!(claim(&store, &ask(4, "b", "y")).await, Claimed::InDoubt { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_left_do_not_pile_up() {
        let store = Memory::new(LIMITS);
        lead(&store, &ask(1, "a", "lane")).await;
        for owner in 2..2000 {
            drop(follow(&store, &ask(owner, "a", "lane")).await);
            drop(queue(&store, &ask(owner, "b", "lane")).await);
        }
        assert!(store.stats().waiters < 32, "{}", store.stats().waiters);
    }

    #[tokio::test(start_paused = true)]
    async fn flights_and_records_that_are_over_do_not_pile_up_in_the_queues_of_the_table() {
        let store = Memory::new(MemoryLimits { records_bytes_max: 4096, states_max: 10 });
        for number in 0..3000 {
            let hold = lead(&store, &ask(number, &format!("request {number}"), "order")).await;
            if number % 2 == 0 {
                store.abandon(&hold).await.unwrap();
            } else {
                settle(&store, &hold, done()).await;
            }
        }
        store.lock().table.assert_sound();
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_frees_a_doubt_through_the_seam() {
        let store = Memory::new(LIMITS);
        let hold = lead(&store, &ask(1, "a", "lane")).await;
        settle(&store, &hold, Ending::InDoubt).await;
        assert!(matches!(store.inspect(key("lane")).await, Ok(LaneView::InDoubt { .. })));
        assert_eq!(store.resolve(key("lane"), Resolution::Free).await, Ok(Resolved::Changed));
        assert_eq!(store.inspect(key("lane")).await, Ok(LaneView::Free));
        one_done(&store, 7).await;
        assert_eq!(store.forget(key("order 7")).await, Ok(1));
        assert_eq!(kept(&store, 7).await, None);
    }

    #[test]
    fn threads_of_duplicates_lead_once() {
        let store = Memory::new(LIMITS);
        let leads: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..64_u128)
                .map(|owner| {
                    let store = &store;
                    scope.spawn(move || {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                        runtime.block_on(async {
                            match claim(store, &ask(owner, "a", "lane")).await {
                                Claimed::Lead(hold) => {
                                    settle(store, &hold, done()).await;
                                    1
                                }
                                Claimed::Follow { wake, .. } => {
                                    assert!(matches!(wake.await, Ok(Woken::Answered { .. })));
                                    0
                                }
                                Claimed::Replay(_) => 0,
                                other => panic!("unexpected {other:?}"),
                            }
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that did not panic")).sum()
        });
        assert_eq!(leads, 1);
    }
}
