//! The way back: noticing that the shared store answers again, telling it what it does not know, and only then asking
//! it again.
//!
//! Flights are told with everything else, oldest first, some at a time. A store that has forgotten is told the same, and
//! more: all that this replica holds. It is not asked for claims before whatever it forgot must have ended. Nothing
//! here serves a request.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{
    Change, Standby,
    link::{Errand, Known, Mode, Over, What},
};
use crate::{
    ops::words::StoreOp,
    store::{Epoch, Fence, Past, Recall, Reply, Restored, RestoredState, Settled, StoreError},
};

/// Between two looks at a store that is down: from the first pause to the longest, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A store that is down again so soon after it came back is looked at as seldom as before.
const STEADY: Duration = Duration::from_secs(10);
/// How soon what could not be told is told again while the store is up.
const AGAIN: Duration = Duration::from_millis(250);
/// How often the list of what was kept is rid of what has ended by itself.
const PRUNE: Duration = Duration::from_secs(10);
/// How often a store is looked at that nobody asks: an idle replica is to notice that it went away or has forgotten.
const BEAT: Duration = Duration::from_secs(2);
/// By how much the clocks of a replica and of the store may come apart in the time for which a store is not trusted.
const PACE: Duration = Duration::from_secs(1);
/// How many rounds are made for what has come while the round before was told.
const ROUNDS_MAX: u32 = 8;

/// What the way back needs to remember.
pub(super) struct Home {
    state: Mutex<State>,
    written_back: AtomicU64,
    superseded: AtomicU64,
    /// Requests have asked the store since the last beat.
    asked: AtomicBool,
}

struct State {
    /// The memory of the shared store that is trusted.
    epoch: Option<Epoch>,
    left: Option<Instant>,
    came: Option<Instant>,
    pause: Duration,
    pruned: Instant,
}

impl Home {
    pub(super) fn new(epoch: Option<Epoch>) -> Self {
        let now = Instant::now();
        let left = epoch.is_none().then_some(now);
        let state = State { epoch, left, came: None, pause: PAUSE_MIN, pruned: now };
        let (written_back, superseded) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { state: Mutex::new(state), written_back, superseded, asked: AtomicBool::new(false) }
    }

    /// The store is not asked from now on.
    pub(super) fn left(&self, now: Instant) {
        let mut state = self.lock();
        state.left.get_or_insert(now);
        if state.came.is_none_or(|came| now.saturating_duration_since(came) >= STEADY) {
            state.pause = PAUSE_MIN;
        }
    }

    /// A request asks the store.
    pub(super) fn asked(&self) {
        self.asked.store(true, Relaxed);
    }

    fn next_pause(&self) -> Duration {
        let mut state = self.lock();
        let pause = state.pause;
        state.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// The store is asked again. Answers how long it was not.
    fn came(&self, now: Instant) -> Duration {
        let mut state = self.lock();
        state.came = Some(now);
        state.left.take().map_or(Duration::ZERO, |left| now.saturating_duration_since(left))
    }

    fn is_time_to_prune(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let due = now.saturating_duration_since(state.pruned) >= PRUNE;
        if due {
            state.pruned = now;
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standby {
    /// Looks after the shared store for as long as it is polled.
    pub async fn tend(&self) {
        tokio::join!(self.tell_deliveries(), async {
            loop {
                match self.round().await {
                    Next::WorkOr(pause) => drop(timeout(pause, self.work.notified()).await),
                    Next::After(pause) => tokio::time::sleep(pause).await,
                }
            }
        });
    }

    /// One look, and what follows from it.
    async fn round(&self) -> Next {
        let now = Instant::now();
        if self.home.is_time_to_prune(now) {
            self.link.with(|state| state.prune(|fence| self.local.has(fence)));
        }
        match self.link.mode() {
            Mode::Up => {
                if self.link.with(|state| state.has_returnable()) && self.tell_all().await.is_err() {
                    // It may be down, and nobody else may ask.
                    let _ = self.beat().await;
                    return Next::After(AGAIN);
                }
                let silent = !self.home.asked.swap(false, Relaxed) && self.beat().await.is_err();
                // What could not be placed is let go once it has ended.
                Next::WorkOr(if silent || self.kept() > 0 { AGAIN } else { BEAT })
            }
            Mode::Down => match self.look().await {
                Ok(Memory::Same) if self.come_back().await.is_ok() => Next::After(Duration::ZERO),
                Ok(Memory::Another) => Next::After(Duration::ZERO),
                Ok(Memory::Same) | Err(_) => Next::After(self.home.next_pause()),
            },
            Mode::Forgot { until } => match self.look().await {
                Ok(Memory::Another) => Next::After(Duration::ZERO),
                Ok(Memory::Same) if now >= until => match self.come_back().await {
                    Ok(()) => Next::After(Duration::ZERO),
                    Err(_) => Next::After(self.home.next_pause()),
                },
                Ok(Memory::Same) => match self.tell_all().await {
                    Ok(()) => Next::WorkOr(PAUSE_MAX.min(until.saturating_duration_since(now))),
                    Err(_) => Next::After(self.home.next_pause()),
                },
                Err(_) => Next::After(self.home.next_pause()),
            },
        }
    }

    /// A look at a store that should be up. It counts like the call of a request.
    async fn beat(&self) -> Result<(), StoreError> {
        let recall = self.call(self.remote.epoch()).await?;
        self.home.asked.store(false, Relaxed);
        if self.home.lock().epoch != Some(recall.epoch) {
            self.forgot();
        } else {
            self.heed(recall);
        }
        Ok(())
    }

    /// Who remembers another memory may have come by only after this replica began to trust this one.
    fn heed(&self, recall: Recall) {
        let length = recall.untrusted_for(self.terms.longest);
        let is_told = match self.link.mode() {
            Mode::Forgot { until } => after(Instant::now(), length) <= after(until, PACE),
            Mode::Up | Mode::Down => length <= PACE,
        };
        if recall.past == Past::Forgotten && !is_told {
            self.quarantine(length);
        }
    }

    /// Whether the store answers, and with which memory.
    async fn look(&self) -> Result<Memory, StoreError> {
        let recall = self.ask(StoreOp::Epoch, self.remote.epoch()).await?;
        let known = self.home.lock().epoch.replace(recall.epoch);
        let untrusted = recall.untrusted_for(self.terms.longest);
        if known == Some(recall.epoch) {
            self.heed(recall);
            return Ok(Memory::Same);
        }
        self.remote.adopt_epoch(recall.epoch);
        match known {
            Some(_) => self.quarantine(self.terms.longest),
            // The first one that is seen, and old enough that others would have said if they remembered another one.
            None if untrusted.is_zero() => return Ok(Memory::Same),
            None => self.quarantine(untrusted),
        }
        Ok(Memory::Another)
    }

    /// A call has met another memory than the one that is trusted. Which one it is, is looked at in time.
    pub(super) fn forgot(&self) {
        if !matches!(self.link.mode(), Mode::Forgot { .. }) {
            self.home.lock().epoch = Some(Epoch(u128::MAX));
            self.quarantine(self.terms.longest);
        }
        self.work.notify_one();
    }

    /// What the store does not know may well be running, for so long at most. It never ends sooner than was said before.
    fn quarantine(&self, length: Duration) {
        let now = Instant::now();
        let until = after(now, length);
        let begins = self.link.with(|state| {
            let begins = !matches!(state.mode, Mode::Forgot { .. });
            state.mode = match state.mode {
                Mode::Forgot { until: before } => Mode::Forgot { until: until.max(before) },
                Mode::Up | Mode::Down => Mode::Forgot { until },
            };
            for fence in self.local.fences() {
                state.keep(fence, Known::Maybe);
            }
            for (identity, began) in self.local.generations() {
                state.errand(Errand::Generation(identity, began));
            }
            begins
        });
        self.home.left(now);
        if begins {
            self.watch.changed(&Change::Forgot { treated_as_down: length });
        }
    }

    /// Tells the store what it does not know, and asks it again from the moment at which nothing is left to tell; or
    /// nearly nothing, where new flights begin as fast as they are told: for their places this replica goes on to
    /// answer until they are.
    async fn come_back(&self) -> Result<(), StoreError> {
        for round in 1.. {
            self.tell_all().await?;
            let back = self.link.with(|state| {
                let back = !state.has_returnable() || round >= ROUNDS_MAX;
                if back {
                    state.up();
                }
                back
            });
            if back {
                break;
            }
        }
        self.sightings().clear();
        self.deliveries().clear();
        let after = self.home.came(Instant::now());
        let (written_back, superseded) =
            (self.home.written_back.swap(0, Relaxed), self.home.superseded.swap(0, Relaxed));
        self.watch.changed(&Change::Back { after, written_back, superseded });
        self.work.notify_one();
        Ok(())
    }

    /// Tells the store everything that is kept now.
    pub(super) async fn tell_all(&self) -> Result<(), StoreError> {
        let (errands, fences) = self.link.with(|state| (state.take_errands(), state.returnable()));
        let (before, after): (Vec<_>, Vec<_>) =
            errands.into_iter().partition(|errand| matches!(errand, Errand::Generation(..)));
        self.run_errands(before).await?;
        let queue = Mutex::new(VecDeque::from(fences));
        let told = tokio::join!(
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
            self.tell_some(&queue),
        );
        let told = [told.0, told.1, told.2, told.3, told.4, told.5, told.6, told.7];
        if let Some(failed) = told.into_iter().find(Result::is_err) {
            self.link.with(|state| state.put_back(after));
            return failed;
        }
        self.run_errands(after).await
    }

    async fn run_errands(&self, errands: Vec<Errand>) -> Result<(), StoreError> {
        let mut left = errands.into_iter();
        while let Some(errand) = left.next() {
            let ran = match errand {
                Errand::Generation(identity, began) => {
                    self.ask(StoreOp::Generation, self.remote.restore_generation(identity, began)).await
                }
                Errand::Resolve(lane, resolution) => {
                    self.ask(StoreOp::Resolve, self.remote.resolve(lane, resolution)).await.map(drop)
                }
                Errand::Forget(lane) => self.ask(StoreOp::Forget, self.remote.forget(lane)).await.map(drop),
            };
            if let Err(error) = ran {
                let rest = std::iter::once(errand).chain(left).collect();
                self.link.with(|state| state.put_back(rest));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn tell_some(&self, queue: &Mutex<VecDeque<Fence>>) -> Result<(), StoreError> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(fence) = next else { return Ok(()) };
            if let Err(error) = self.tell(fence).await {
                // The others find nothing more to do.
                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(error);
            }
        }
    }

    /// Tells the store of one run.
    async fn tell(&self, fence: Fence) -> Result<(), StoreError> {
        let Some(kept) = self.link.with(|state| state.begin_return(fence)) else { return Ok(()) };
        match &kept.what {
            What::Held => {
                let Some(mut run) = self.local.held_under(fence) else {
                    self.link.with(|state| state.returned(fence, kept.version));
                    return Ok(());
                };
                run.hold.lease = self.terms.lease;
                let told = self.ask(StoreOp::Restore, self.remote.restore(&run)).await?;
                self.told(told);
                let flies = matches!(run.state, RestoredState::Flight);
                self.link.with(|state| match told {
                    // What is at the shop under another fence as well is not told again before it has ended; until
                    // then it blocks its places here.
                    Settled::Superseded if flies => state.refused(fence, kept.version),
                    Settled::InTime | Settled::Late | Settled::Superseded => {
                        state.returned(fence, kept.version);
                    }
                });
            }
            What::Ended(run, over) => {
                let told = self.tell_ended(run, over).await?;
                self.told(told);
                self.link.with(|state| state.returned(fence, kept.version));
            }
        }
        Ok(())
    }

    /// The store may think that it runs, may have lost it, or may know it under a fence that was never heard of: written
    /// back first it is one thing, and is ended like any other.
    async fn tell_ended(&self, run: &Restored, over: &Over) -> Result<Settled, StoreError> {
        let mut flight = run.clone();
        flight.state = RestoredState::Flight;
        flight.hold.lease = self.terms.lease;
        let told = self.ask(StoreOp::Restore, self.remote.restore(&flight)).await?;
        match (told, over) {
            (Settled::Superseded, _) => {}
            (Settled::InTime | Settled::Late, Over::Settled(ending)) => {
                self.ask(StoreOp::Settle, self.remote.settle(&flight.hold, ending.clone())).await?;
            }
            // Nobody knows better than its owner that nothing was sent, in doubt or not.
            (Settled::InTime | Settled::Late, Over::Abandoned) => {
                self.ask(StoreOp::Abandon, self.remote.abandon(&flight.hold)).await?;
            }
        }
        Ok(told)
    }

    fn told(&self, settled: Settled) {
        match settled {
            Settled::InTime | Settled::Late => self.home.written_back.fetch_add(1, Relaxed),
            Settled::Superseded => self.home.superseded.fetch_add(1, Relaxed),
        };
    }

    /// A call that no request waits for: it does not count for the breaker.
    async fn ask<T>(&self, operation: StoreOp, reply: Reply<'_, T>) -> Result<T, StoreError> {
        let answered = timeout(self.terms.deadline, reply).await.unwrap_or(Err(StoreError::Deadline));
        if let Err(error) = &answered {
            self.served(operation, Some(error));
            if *error == StoreError::Forgot {
                self.forgot();
            }
        }
        answered
    }
}

/// A time that no clock can reach is as good as now: the store is then taken as it is.
pub(super) fn after(now: Instant, length: Duration) -> Instant {
    now.checked_add(length).unwrap_or(now)
}

/// When the next look is due.
enum Next {
    /// As soon as there is something to do, or then.
    WorkOr(Duration),
    /// Not before: the store is left alone meanwhile.
    After(Duration),
}

/// What a look found.
enum Memory {
    Same,
    Another,
}
