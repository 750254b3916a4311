//! A store that all replicas share, with this replica's own standing by: what happens while the shared one is slow,
//! down, or has forgotten.
//!
//! Every call has a deadline. After some failures in a row the shared store is not asked any more until it answers
//! again (`standby/home.rs`); meanwhile a route goes on with this replica's own memory, or refuses. So that it can go
//! on, whatever this replica leads in the shared store stands in its own as well, under the same fence, and what
//! other replicas were seen to do is remembered (`standby/sightings.rs`). What has come to be here while the shared
//! store could not be told is *kept* (`standby/link.rs`): as long as it is, this replica's own store answers for its
//! places, and it is written back as soon as possible. So no flight of this replica is sent twice because the mode
//! changed, in either direction.
//!
//! What it cannot do: two replicas that are both alone do not know of each other's new flights.

mod claiming;
mod copies;
mod delivering;
mod flying;
mod home;
mod link;
mod operating;
mod sightings;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::{
    copies::{Age, Copies},
    delivering::Deliveries,
    link::{Known, Link, Mode, Opened},
    sightings::Sightings,
};
use super::{
    Ask, Claimed, Ending, Fence, Hold, KeptRun, Key, LaneView, May, OnStoreDown, Recall, Record, Renewed,
    Reply, Resolution, Resolved, Restored, RestoredState, Settled, Standing, Store, StoreError,
    memory::Memory,
};
use crate::ops::words::StoreOp;

/// What the local copies of replays may weigh together.
const COPIES_BYTES_MAX: usize = 32 << 20;

/// Answers of this age are told again after an outage: a failover loses the last that a store was told, and its memory
/// passes for the one it had.
const RECENT: Duration = Duration::from_secs(60);
/// Between two tries of a claim that was refused at once.
const CLAIM_PAUSE: Duration = Duration::from_millis(25);
const FAREWELL_PAUSE: Duration = Duration::from_millis(50);

/// What holds between this replica and the shared store.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Calls that take longer have failed.
    pub deadline: Duration,
    /// What a running flight is given anew when it is written back.
    pub lease: Duration,
    /// The longest lease and hold in use: what a store that forgot may have had running.
    pub longest: Duration,
    /// What the clock of the shared store gives out for fences: whoever is alone begins above it.
    pub fences: fn() -> Fence,
}

/// What an operator has to know of.
#[derive(Clone, Debug)]
pub enum Change {
    /// The shared store is not asked any more until it answers again.
    Down { cause: StoreError },
    /// It has forgotten what it was told; claims are treated as with a store that is down for this long.
    Forgot { treated_as_down: Duration },
    /// It is asked again.
    Back { after: Duration, written_back: u64, superseded: u64 },
}

/// Who is told.
pub trait Watch: Send + Sync + 'static {
    fn changed(&self, change: &Change);
    /// A call failed, and whoever made it was served all the same.
    fn failed(&self, operation: StoreOp, error: &StoreError);
}

/// The shared store and this replica's own. Somebody has to run [`Standby::tend`], and [`Memory::tick`] of the own one.
pub struct Standby {
    remote: Arc<dyn Store>,
    local: Arc<Memory>,
    terms: Terms,
    watch: Arc<dyn Watch>,
    link: Link,
    copies: Mutex<Copies>,
    deliveries: Mutex<Deliveries>,
    sightings: Mutex<Sightings>,
    home: home::Home,
    /// There is something to do for whoever tends.
    work: Notify,
    /// An answer has been delivered that the shared store is to be told of.
    delivering: Notify,
}

impl Standby {
    /// `recall` is what the shared store said of its memory; none: it could not be asked yet. Who comes new has nothing to
    /// compare it with: where others remember another one, or might and have not come by yet, it is treated as one that
    /// has forgotten.
    #[must_use]
    pub fn new(
        remote: Arc<dyn Store>,
        local: Arc<Memory>,
        terms: Terms,
        watch: Arc<dyn Watch>,
        recall: Option<Recall>,
    ) -> Arc<Self> {
        let mode = match recall {
            None => Mode::Down,
            Some(recall) => {
                remote.adopt_epoch(recall.epoch);
                match recall.untrusted_for(terms.longest) {
                    Duration::ZERO => Mode::Up,
                    length => Mode::Forgot { until: home::after(Instant::now(), length) },
                }
            }
        };
        let epoch = recall.map(|recall| recall.epoch);
        Arc::new(Self {
            remote,
            local,
            terms,
            watch,
            link: Link::new(mode),
            copies: Mutex::new(Copies::new(COPIES_BYTES_MAX)),
            deliveries: Mutex::default(),
            sightings: Mutex::default(),
            home: home::Home::new(epoch),
            work: Notify::new(),
            delivering: Notify::new(),
        })
    }

    /// This replica's own store.
    #[must_use]
    pub fn local(&self) -> &Arc<Memory> {
        &self.local
    }

    /// Before the process ends: tells the shared store what it does not know, as often as it takes. Gives the last
    /// error where `patience` is over before that.
    ///
    /// # Errors
    /// Where something is left that could not be told.
    pub async fn farewell(&self, patience: Duration) -> Result<(), StoreError> {
        let until = Instant::now() + patience;
        // What is left untold of these lives longer than it should.
        let _ = self.tell_delivered().await;
        while !self.link.is_plain() && self.link.with(|state| state.has_returnable()) {
            if let Err(error) = self.tell_all().await {
                if Instant::now() >= until {
                    return Err(error);
                }
                sleep(FAREWELL_PAUSE).await;
            }
        }
        Ok(())
    }

    /// How many runs the shared store is still to be told of.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.link.with(|state| state.count())
    }

    /// Whether the shared store is the one that knows of this run, and can be told.
    fn asks_remote(&self, fence: Fence) -> bool {
        self.link.is_plain() || self.link.with(|state| state.mode == Mode::Up && !state.keeps(fence))
    }

    fn keep(&self, fence: Fence) {
        if self.local.has(fence) {
            self.link.with(|state| state.keep(fence, Known::Maybe));
            self.work.notify_one();
        }
    }

    /// A call failed, and its caller is served all the same.
    fn served(&self, operation: StoreOp, failed: Option<&StoreError>) {
        if let Some(error) = failed {
            self.watch.failed(operation, error);
        }
    }

    fn keep_unless_up(&self, fence: Fence) {
        let kept = self.link.with(|state| {
            let keep = state.mode != Mode::Up;
            if keep {
                state.keep(fence, Known::Maybe);
            }
            keep
        });
        if kept {
            self.work.notify_one();
        }
    }

    /// One call of the shared store, with its deadline; counts what came of it.
    async fn call<T>(&self, reply: Reply<'_, T>) -> Result<T, StoreError> {
        self.home.asked();
        let answered = timeout(self.terms.deadline, reply).await.unwrap_or(Err(StoreError::Deadline));
        self.count(answered.as_ref().err());
        answered
    }

    /// A claim may be made again, and a store that is only just being connected to answers in time: it gets its whole
    /// deadline before this replica goes on alone.
    async fn claim_there(&self, ask: &Ask) -> Result<Claimed, StoreError> {
        self.home.asked();
        let until = Instant::now() + self.terms.deadline;
        let answered = loop {
            let answered =
                timeout_at(until, self.remote.claim(ask)).await.unwrap_or(Err(StoreError::Deadline));
            let again = matches!(answered, Err(StoreError::Down(_)))
                && Instant::now() + CLAIM_PAUSE < until
                && self.link.mode() == Mode::Up;
            if !again {
                break answered;
            }
            sleep(CLAIM_PAUSE).await;
        };
        self.count(answered.as_ref().err());
        answered
    }

    fn count(&self, failed: Option<&StoreError>) {
        match failed {
            None => self.link.answered(),
            Some(StoreError::Forgot) => self.forgot(),
            Some(error @ (StoreError::Deadline | StoreError::Down(_))) => self.failed(error),
        }
    }

    /// Counts a failure. After the last one that is borne, whatever runs here goes on without the shared store.
    fn failed(&self, cause: &StoreError) {
        let opened = self.link.with(|state| {
            let opened = state.failed();
            if opened == Opened::Now {
                for fence in self.local.live_or_recent(RECENT) {
                    state.keep(fence, Known::Maybe);
                }
            }
            opened
        });
        if opened == Opened::Now {
            self.home.left(Instant::now());
            self.watch.changed(&Change::Down { cause: cause.clone() });
            self.work.notify_one();
        }
    }

    fn copy_of(&self, ask: &Ask, age: Age) -> Option<Arc<Record>> {
        self.copies().find(ask, age, Instant::now())
    }

    /// Takes a copy of an answer that the shared store has just taken.
    fn copy_settled(&self, hold: &Hold) {
        let Some(settled) = self.local.held_under(hold.fence) else { return };
        let RestoredState::Done { record, remaining, delivery } = &settled.state else { return };
        // Another replica may be the one to deliver it first.
        let remaining = match delivery {
            super::Delivery::Awaited { seen } => (*remaining).min(*seen),
            super::Delivery::Made => *remaining,
        };
        self.copies().keep(&ask_of(&settled), record, remaining, Instant::now());
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim that a run was granted for, as far as it tells which request it is about.
fn ask_of(run: &Restored) -> Ask {
    Ask {
        owner: run.hold.owner,
        lanes: run.hold.lanes.clone(),
        fingerprint: run.hold.fingerprint,
        scope: run.hold.scope,
        body: run.body,
        generations: run.generations.clone(),
        may: May::FollowAny,
        lease: run.hold.lease,
        in_doubt: run.in_doubt,
    }
}

/// Microseconds, the unit in which shared stores give out fences.
#[must_use]
pub fn microseconds() -> Fence {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Fence(u64::try_from(since.as_micros()).unwrap_or(0))
}

fn down() -> StoreError {
    StoreError::Down("it did not answer before and is not asked until it does".to_owned())
}

impl Store for Standby {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        self.claim_where(ask, OnStoreDown::Local)
    }

    fn claim_where<'a>(&'a self, ask: &'a Ask, on_store_down: OnStoreDown) -> Reply<'a, Claimed> {
        match self.copy_of(ask, Age::Fresh) {
            Some(record) => Reply::now(Ok(Claimed::Replay(record))),
            None => Reply::later(self.claim_by(ask, on_store_down)),
        }
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        Reply::later(self.renew_by(hold))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        Reply::later(self.settle_by(hold, ending))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Reply::later(self.abandon_by(hold))
    }

    fn delivered<'a>(&'a self, fences: &'a [Fence]) -> Reply<'a, ()> {
        self.delivered_now(fences)
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        Reply::later(self.begin_generation_by(identity))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        Reply::later(self.inspect_by(lane))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        Reply::later(self.resolve_by(lane, resolution))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        Reply::later(self.forget_by(lane))
    }

    fn kept(&self, lane: Key) -> Reply<'_, Vec<KeptRun>> {
        Reply::later(self.kept_by(lane))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        Reply::later(self.call(self.remote.restore(restored)))
    }

    fn epoch(&self) -> Reply<'_, Recall> {
        Reply::later(self.call(self.remote.epoch()))
    }

    fn standing(&self) -> Standing {
        self.link.standing()
    }
}
