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

mod copies;
mod home;
mod link;
mod sightings;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use self::{
    copies::{Age, Copies},
    link::{Errand, Known, Link, Mode, Opened, Over},
    sightings::Sightings,
};
use super::{
    Ask, Claimed, Ending, Epoch, Fence, Hold, Kept, Key, LaneView, May, OnStoreDown, Record, Renewed, Reply,
    Resolution, Resolved, Restored, RestoredState, Settled, Standing, Store, StoreError, memory::Memory,
};
use crate::ops::words::StoreOp;

/// What the local copies of replays may weigh together.
const COPIES_BYTES_MAX: usize = 32 << 20;

/// Of an answer that was kept for nobody and that other replicas could not be told: what is remembered of its body.
const UNTOLD_BODY_MAX: usize = 64 << 10;

/// What holds between this replica and the shared store.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Calls that take longer have failed.
    pub deadline: Duration,
    /// What a running flight is given anew when it is written back.
    pub lease: Duration,
    /// The longest lease and hold in use: what a store that forgot may have had running.
    pub longest: Duration,
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
    sightings: Mutex<Sightings>,
    home: home::Home,
    /// There is something to do for whoever tends.
    work: Notify,
}

/// Who is to be asked.
enum Way {
    /// The shared store alone.
    Remote,
    /// This replica's own: something of the claim's places is kept here.
    Kept,
    /// The shared store is not asked.
    Local,
}

impl Standby {
    /// `epoch` is the memory of the shared store that is trusted; none: it could not be asked yet.
    #[must_use]
    pub fn new(
        remote: Arc<dyn Store>,
        local: Arc<Memory>,
        terms: Terms,
        watch: Arc<dyn Watch>,
        epoch: Option<Epoch>,
    ) -> Arc<Self> {
        if let Some(epoch) = epoch {
            remote.adopt_epoch(epoch);
        }
        let mode = if epoch.is_some() { Mode::Up } else { Mode::Down };
        Arc::new(Self {
            remote,
            local,
            terms,
            watch,
            link: Link::new(mode),
            copies: Mutex::new(Copies::new(COPIES_BYTES_MAX)),
            sightings: Mutex::default(),
            home: home::Home::new(epoch),
            work: Notify::new(),
        })
    }

    /// This replica's own store.
    #[must_use]
    pub fn local(&self) -> &Arc<Memory> {
        &self.local
    }

    /// How many runs the shared store is still to be told of.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.link.with(|state| state.count())
    }

    async fn claim_by(&self, ask: &Ask, on_store_down: OnStoreDown) -> Result<Claimed, StoreError> {
        if let Some(record) = self.copy_of(ask, Age::Fresh) {
            return Ok(Claimed::Replay(record));
        }
        match self.way(ask) {
            Way::Remote => {}
            Way::Kept => {
                if let Some(claimed) = self.claim_kept(ask).await {
                    return Ok(claimed);
                }
            }
            // Where nothing comes of it the store has come back in between, and nothing was sent.
            Way::Local => {
                if let Some(claimed) = self.alone(ask, on_store_down, Known::Never, down()).await {
                    return claimed;
                }
            }
        }
        match self.call(self.remote.claim(ask)).await {
            Ok(claimed) => {
                self.learn(ask, &claimed);
                Ok(claimed)
            }
            Err(error) => {
                if on_store_down == OnStoreDown::Local {
                    self.served(StoreOp::Claim, Some(&error));
                }
                let claimed = self.alone(ask, on_store_down, Known::Maybe, error.clone()).await;
                claimed.unwrap_or(Err(error))
            }
        }
    }

    fn way(&self, ask: &Ask) -> Way {
        if self.link.is_plain() {
            return Way::Remote;
        }
        let standing = self.local.standing_at(ask);
        self.link.with(|state| match state.mode {
            Mode::Up if standing.iter().any(|fence| state.keeps(*fence)) => Way::Kept,
            Mode::Up => Way::Remote,
            Mode::Down | Mode::Forgot { .. } => Way::Local,
        })
    }

    /// Asks this replica's own store for a claim whose places it answers for. None: it is free there by now, and the
    /// shared store is to be asked.
    async fn claim_kept(&self, ask: &Ask) -> Option<Claimed> {
        match self.local.claim(ask).await.ok()? {
            Claimed::Lead(hold) => {
                // It was never given out, so nothing was sent under it.
                self.local.evict(hold.fence);
                None
            }
            claimed => Some(claimed),
        }
    }

    /// Goes on without the shared store, or refuses to. None: it came back, and nothing was claimed here.
    async fn alone(
        &self,
        ask: &Ask,
        on_store_down: OnStoreDown,
        known: Known,
        error: StoreError,
    ) -> Option<Result<Claimed, StoreError>> {
        if let Some(record) = self.copy_of(ask, Age::Any) {
            return Some(Ok(Claimed::Replay(record)));
        }
        if on_store_down == OnStoreDown::Refuse {
            return Some(Err(error));
        }
        // Other replicas may have been given fences by the clock of the shared store since.
        self.local.raise_fences(clock());
        let claimed = match self.local.claim(ask).await {
            Ok(claimed) => claimed,
            Err(error) => return Some(Err(error)),
        };
        let Claimed::Lead(hold) = &claimed else { return Some(Ok(claimed)) };
        if let Some(seen) = self.sightings().obstacle(ask, Instant::now()) {
            self.local.evict(hold.fence);
            return Some(Ok(seen));
        }
        let kept = self.link.with(|state| {
            // What the shared store was never asked for may as well be asked for now.
            let keep = known == Known::Maybe || state.mode != Mode::Up;
            if keep {
                state.keep(hold.fence, known);
            }
            keep
        });
        if !kept {
            self.local.evict(hold.fence);
            return None;
        }
        self.work.notify_one();
        Some(Ok(claimed))
    }

    /// What the shared store's answer means for this replica's own.
    fn learn(&self, ask: &Ask, claimed: &Claimed) {
        match claimed {
            Claimed::Lead(hold) => {
                self.copies().drop_of(ask.fingerprint);
                self.local.mirror(&flight(ask, hold));
                // It was away or has forgotten since: what it granted is to be kept as well.
                self.keep_unless_up(hold.fence);
            }
            Claimed::Replay(record) => {
                self.copies().keep(ask, record, record.remaining, Instant::now());
            }
            Claimed::Follow { .. }
            | Claimed::Queue { .. }
            | Claimed::Resolved { .. }
            | Claimed::InDoubt { .. }
            | Claimed::Mismatch
            | Claimed::Busy => self.copies().drop_of(ask.fingerprint),
        }
        self.sightings().see(ask, claimed, Instant::now());
    }

    async fn renew_by(&self, hold: &Hold) -> Result<Renewed, StoreError> {
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.renew(hold)).await {
                Ok(Renewed::Held) => {
                    self.local.renew(hold).await?;
                    return Ok(Renewed::Held);
                }
                Ok(Renewed::Lost) => return Ok(Renewed::Lost),
                Err(error) => failed = Some(error),
            }
        }
        match self.local.renew(hold).await? {
            Renewed::Held => {
                self.served(StoreOp::Renew, failed.as_ref());
                self.link.with(|state| state.keep_on(hold.fence));
                self.work.notify_one();
                Ok(Renewed::Held)
            }
            // It may well be held there.
            Renewed::Lost if !self.local.has(hold.fence) => Err(failed.unwrap_or_else(down)),
            Renewed::Lost => Ok(Renewed::Lost),
        }
    }

    async fn settle_by(&self, hold: &Hold, ending: Ending) -> Result<Settled, StoreError> {
        self.sightings().lift(&hold.lanes);
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.settle(hold, ending.clone())).await {
                Ok(Settled::Superseded) => {
                    self.local.evict(hold.fence);
                    return Ok(Settled::Superseded);
                }
                Ok(settled) => {
                    self.local.settle(hold, ending).await?;
                    self.copy_settled(hold);
                    return Ok(settled);
                }
                Err(error) => failed = Some(error),
            }
        }
        // Without a trace of it here there is nothing that could be told later.
        let Some(before) = self.local.held_under(hold.fence) else {
            return Err(failed.unwrap_or_else(down));
        };
        let settled = self.local.settle(hold, ending.clone()).await?;
        if settled != Settled::Superseded {
            self.served(StoreOp::Settle, failed.as_ref());
            self.over(before, Over::Settled(slim(ending)));
        }
        Ok(settled)
    }

    async fn abandon_by(&self, hold: &Hold) -> Result<(), StoreError> {
        self.sightings().lift(&hold.lanes);
        let mut failed = None;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.abandon(hold)).await {
                Ok(()) => return self.local.abandon(hold).await,
                Err(error) => failed = Some(error),
            }
        }
        let Some(before) = self.local.held_under(hold.fence) else {
            return Err(failed.unwrap_or_else(down));
        };
        self.served(StoreOp::Abandon, failed.as_ref());
        self.local.abandon(hold).await?;
        self.over(before, Over::Abandoned);
        Ok(())
    }

    /// A flight has ended here and the shared store could not be told.
    fn over(&self, before: Restored, over: Over) {
        let fence = before.hold.fence;
        let held = self.local.has(fence);
        self.link.with(|state| match held {
            true => state.keep(fence, Known::Maybe),
            false => state.ended(before, Known::Maybe, over),
        });
        self.work.notify_one();
    }

    async fn delivered_by(&self, hold: &Hold) -> Result<(), StoreError> {
        if self.copies().is_told(hold.fingerprint, hold.fence) {
            return Ok(());
        }
        self.local.delivered(hold).await?;
        if self.asks_remote(hold.fence) {
            match self.call(self.remote.delivered(hold)).await {
                Ok(()) => {
                    self.copies().told(hold.fingerprint, hold.fence);
                    return Ok(());
                }
                Err(error) => self.served(StoreOp::Delivered, Some(&error)),
            }
        }
        // A record that another replica led lives as long as an undelivered one: a safe error.
        self.keep(hold.fence);
        Ok(())
    }

    async fn begin_generation_by(&self, identity: Key) -> Result<(), StoreError> {
        let began = self.local.last_fence();
        self.local.begin_generation(identity).await?;
        if self.link.mode() == Mode::Up {
            match self.call(self.remote.begin_generation(identity)).await {
                Ok(()) => return Ok(()),
                Err(error) => self.served(StoreOp::Generation, Some(&error)),
            }
        }
        self.run_later(Errand::Generation(identity, began));
        Ok(())
    }

    async fn inspect_by(&self, lane: Key) -> Result<LaneView, StoreError> {
        if self.link.mode() == Mode::Up && !self.keeps_lane(lane) {
            return self.call(self.remote.inspect(lane)).await;
        }
        self.local.inspect(lane).await
    }

    /// While the store is down an operator's word holds for what this replica knows, and is passed on later.
    async fn resolve_by(&self, lane: Key, resolution: Resolution) -> Result<Resolved, StoreError> {
        if self.link.mode() == Mode::Up && !self.keeps_lane(lane) {
            let resolved = self.call(self.remote.resolve(lane, resolution)).await?;
            if resolved == Resolved::Changed {
                self.local.resolve(lane, resolution).await?;
                self.sightings().lift(&[lane]);
            }
            return Ok(resolved);
        }
        let resolved = self.local.resolve(lane, resolution).await?;
        if resolved == Resolved::Changed {
            self.sightings().lift(&[lane]);
            self.run_later(Errand::Resolve(lane, resolution));
        }
        match resolved {
            // The shared store may know of a doubt that is none here.
            Resolved::Nothing if self.link.mode() != Mode::Up => Err(down()),
            Resolved::Nothing | Resolved::Changed | Resolved::Running => Ok(resolved),
        }
    }

    async fn forget_by(&self, lane: Key) -> Result<usize, StoreError> {
        self.copies().forget(lane);
        let here = self.local.forget(lane).await?;
        if self.link.mode() == Mode::Up {
            return self.call(self.remote.forget(lane)).await;
        }
        self.run_later(Errand::Forget(lane));
        Ok(here)
    }

    fn run_later(&self, errand: Errand) {
        self.link.with(|state| state.errand(errand));
        self.work.notify_one();
    }

    fn keeps_lane(&self, lane: Key) -> bool {
        if self.link.is_plain() {
            return false;
        }
        let stands = self.local.standing_in(lane);
        stands.is_some_and(|fence| self.link.keeps(fence))
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
        let answered = timeout(self.terms.deadline, reply).await.unwrap_or(Err(StoreError::Deadline));
        match &answered {
            Ok(_) => self.link.answered(),
            Err(StoreError::Forgot) => self.forgot(),
            Err(error @ (StoreError::Deadline | StoreError::Down(_))) => self.failed(error),
        }
        answered
    }

    /// Counts a failure. After the last one that is borne, whatever runs here goes on without the shared store.
    fn failed(&self, cause: &StoreError) {
        let opened = self.link.with(|state| {
            let opened = state.failed();
            if opened == Opened::Now {
                for fence in self.local.live() {
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

    fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flight as it was granted, for this replica's own store.
fn flight(ask: &Ask, hold: &Hold) -> Restored {
    Restored {
        hold: hold.clone(),
        body: ask.body,
        generations: ask.generations.clone(),
        in_doubt: ask.in_doubt,
        state: RestoredState::Flight,
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

/// An answer that nobody is kept for, as it is remembered for followers on other replicas.
fn slim(mut ending: Ending) -> Ending {
    if let Ending::Failed { answer } | Ending::DoneUnkept { answer } = &mut ending
        && matches!(&answer.body, Kept::Whole(body) if body.len() > UNTOLD_BODY_MAX)
    {
        Arc::make_mut(answer).body = Kept::Dropped;
    }
    ending
}

/// Microseconds, the unit in which shared stores give out fences.
fn clock() -> Fence {
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
        Box::pin(self.claim_by(ask, on_store_down))
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        Box::pin(self.renew_by(hold))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        Box::pin(self.settle_by(hold, ending))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Box::pin(self.abandon_by(hold))
    }

    fn delivered<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Box::pin(self.delivered_by(hold))
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        Box::pin(self.begin_generation_by(identity))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        Box::pin(self.inspect_by(lane))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        Box::pin(self.resolve_by(lane, resolution))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        Box::pin(self.forget_by(lane))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        Box::pin(self.call(self.remote.restore(restored)))
    }

    fn epoch(&self) -> Reply<'_, Epoch> {
        Box::pin(self.call(self.remote.epoch()))
    }

    fn standing(&self) -> Standing {
        self.link.standing()
    }
}
