//! Who may send: flights and lanes of this process, and the claim in the store behind them.
//!
//! [`Claims::take_part`] joins a request to its flight or begins one. A flight is driven by a task of its own
//! ([`driver`]): it waits for its lanes, claims in the store, sends once, settles, and tells everybody. A client
//! only ever waits, so that a client that goes away ends nothing.

pub mod driver;
pub mod flight;
pub mod lane;
pub mod roll;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ops::words::{ClaimOutcome, StoreOp},
    store::{
        Claimed, Ending, Fence, Hold, InDoubtPolicy, Judged, Key, OnStoreDown, Owner, Record, Store,
        StoreError,
    },
};

pub use flight::{Boarding, Joined, Role};

/// What a request asks for: which orders, which request, under which rules.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The route's number, for whoever counts.
    pub route: usize,
    pub lanes: SmallVec<[Key; 1]>,
    pub fingerprint: Option<Key>,
    pub scope: Option<Key>,
    pub body: Option<Key>,
    pub generations: SmallVec<[Key; 1]>,
    pub boarding: Boarding,
    pub in_doubt: InDoubtPolicy,
    pub on_store_down: OnStoreDown,
    pub followers_max: usize,
    pub lane_depth_max: usize,
    /// The order as the log shows it, where somebody can ask what runs.
    pub order: Option<Arc<str>>,
}

/// What sending came to.
pub enum Sent {
    /// Not one byte left for the shop.
    NotSent(NotSent),
    /// The shop's whole answer.
    Answered(Answered),
    /// Something was sent and no answer is known.
    Lost(Lost),
}

pub struct Answered {
    pub answer: Arc<Record>,
    pub judged: Judged,
    pub keep: Keep,
}

/// How long a done or pending answer lives.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    Not,
    For { unseen: Duration, seen: Duration },
}

impl Keep {
    /// How the flight of such an answer ends.
    fn ending(self, answer: Arc<Record>, judged: Judged) -> Ending {
        match (judged, self) {
            (Judged::Done | Judged::Pending, Self::For { unseen, seen }) => {
                Ending::Done { record: answer, unseen, seen }
            }
            (Judged::Done | Judged::Pending, Self::Not) => Ending::DoneUnkept { answer },
            (Judged::Failed, Self::For { .. } | Self::Not) => Ending::Failed { answer },
        }
    }
}

pub struct Lost {
    pub cause: LostCause,
    /// The shop may still answer: what to listen to, and how long. Nobody waits for it any more.
    pub late: Option<(Later, Duration)>,
}

pub type Later = std::pin::Pin<Box<dyn Future<Output = Option<Answered>>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostCause {
    Reset,
    Truncated,
    Timeout,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// No server of the upstream could be reached.
    Unreachable,
    /// The moment was over before which the first byte had to leave.
    TooLate,
}

/// Sends a request, at most once per call. The promise of `NotSent` is absolute: not one byte has left.
pub trait Sender {
    fn send(&self, hold: &Hold) -> impl Future<Output = Sent>;

    /// From this moment on no first byte may leave, unless a later one is named before: the lease may have run out by
    /// then, and somebody else may send. A sender looks at the clock right before that byte, since a process can be
    /// stopped for any time between its claim and it.
    fn begin_before(&self, moment: Instant);

    /// Lets time pass, from now on. It is nearly always given up before; whoever has a cheaper timer than the runtime
    /// gives that.
    fn rest(&self, _from: Instant, length: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(length)
    }
}

/// How a flight ended, for everybody who waited.
#[derive(Clone, Debug)]
pub struct End {
    pub what: Ended,
    /// Of the flight whose answer this is.
    pub fence: Option<Fence>,
    pub spent: Spent,
}

#[derive(Clone, Debug)]
pub enum Ended {
    /// This flight was answered by the shop.
    Answered {
        answer: Arc<Record>,
        judged: Judged,
        hold: Arc<Hold>,
    },
    /// A flight of another replica was.
    Followed {
        answer: Arc<Record>,
        judged: Judged,
    },
    /// The answer was known already.
    Replayed(Arc<Record>),
    /// In doubt since just now: sent by this flight, and no answer came.
    Lost(LostCause),
    /// In doubt since before.
    InDoubt {
        remaining: Duration,
    },
    Resolved {
        remaining: Duration,
    },
    Mismatch,
    Unreachable,
    LaneFull,
    /// The store's state cannot be read, or its bound is reached.
    Busy,
    StoreDown,
    /// The task of the flight died: a broken invariant.
    Broken,
}

/// Where the time of a flight went.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spent {
    pub queued: Duration,
    pub claiming: Duration,
    pub upstream: Duration,
}

/// What is worth counting. Called from the task of the flight, never while a lock is held.
pub trait Observer: Send + Sync + 'static {
    fn claimed(&self, _outcome: ClaimOutcome, _took: Duration) {}
    fn queued(&self, _took: Duration) {}
    fn lease_lost(&self) {}
    fn late_answer(&self) {}
    /// Sent, and no answer is known: an operator should know which order it is.
    fn in_doubt(&self, _route: usize, _cause: LostCause, _hold: &Hold) {}
    fn store_error(&self, _operation: StoreOp, _error: &StoreError) {}
}

pub type Flights = flight::Flights<End>;
pub type Ticket = flight::Ticket<End>;

/// The claim table of a process.
pub struct Claims {
    pub store: Arc<dyn Store>,
    pub lease: Duration,
    /// Store calls that take longer count as failed.
    pub deadline: Duration,
    replica: u64,
    owners: AtomicU64,
    pub flights: Arc<Flights>,
    pub lanes: Arc<lane::Lanes>,
    /// For operators: what runs here, by the orders' names.
    pub roll: Arc<roll::Roll>,
    pub observer: Arc<dyn Observer>,
    /// Every flight's task, so that a drain can wait for them.
    pub tasks: TaskTracker,
    /// Set when the process is to end: nobody listens for late answers any more.
    pub stopping: CancellationToken,
}

/// What a request gets that asks to take part.
pub enum Part {
    Seat(Ticket),
    FollowersFull,
    Mismatch,
}

impl Claims {
    /// `replica` tells the owners of this process from those of others; it should be random.
    pub fn new(
        store: Arc<dyn Store>,
        lease: Duration,
        deadline: Duration,
        replica: u64,
        observer: Arc<dyn Observer>,
    ) -> Arc<Self> {
        let (flights, lanes, roll) = (Arc::default(), Arc::default(), Arc::default());
        let (tasks, owners, stopping) = (TaskTracker::new(), AtomicU64::new(1), CancellationToken::new());
        Arc::new(Self {
            store,
            lease,
            deadline,
            replica,
            owners,
            flights,
            lanes,
            roll,
            observer,
            tasks,
            stopping,
        })
    }

    /// Waits until every flight of this process is over. Call it only once nothing new is let in, and cancel
    /// `stopping` once no core has a client any more: until then flights that are listening keep it waiting.
    pub async fn landed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tells the store that an answer has reached a client; in the background, where the store takes time.
    pub fn delivered(self: &Arc<Self>, hold: Arc<Hold>) {
        if self.store.delivered(&[hold.fence]).at_once().is_ok() {
            return;
        }
        // The reply was not awaited; it is asked for again by a task that has the time. Told twice is told once.
        let claims = Arc::clone(self);
        drop(tokio::task::spawn_local(self.tasks.track_future(async move {
            // If the store does not learn of it, the record lives as long as an undelivered one: a safe error.
            let _ = claims.store.delivered(&[hold.fence]).await;
        })));
    }

    /// A token that no other claim of any replica has.
    fn owner(&self) -> Owner {
        let number = self.owners.fetch_add(1, Relaxed);
        Owner((u128::from(self.replica) << 64) | u128::from(number))
    }

    /// Joins the flight of this request, or begins one and spawns its task on the current `LocalRuntime`.
    /// `sender` is only called where a flight begins.
    pub fn take_part<S: Sender + 'static>(
        self: &Arc<Self>,
        demand: Demand,
        sender: impl FnOnce() -> S,
    ) -> Part {
        match self.flights.join(demand.fingerprint, demand.body, demand.boarding, demand.followers_max) {
            Joined::Follow(ticket) => Part::Seat(ticket),
            Joined::Full => Part::FollowersFull,
            Joined::Mismatch => Part::Mismatch,
            Joined::Begin(ticket, flight) => {
                let driver = driver::Driver::new(Arc::clone(self), flight, demand, sender());
                drop(tokio::task::spawn_local(self.tasks.track_future(driver.run())));
                Part::Seat(ticket)
            }
        }
    }
}

/// What a claim is counted as.
fn outcome(claimed: &Result<Claimed, StoreError>) -> ClaimOutcome {
    match claimed {
        Ok(Claimed::Lead(_)) => ClaimOutcome::Lead,
        Ok(Claimed::Follow { .. }) => ClaimOutcome::Follow,
        Ok(Claimed::Replay(_)) => ClaimOutcome::Replay,
        Ok(Claimed::Resolved { .. }) => ClaimOutcome::Resolved,
        Ok(Claimed::Queue { .. }) => ClaimOutcome::Queue,
        Ok(Claimed::InDoubt { .. }) => ClaimOutcome::InDoubt,
        Ok(Claimed::Mismatch) => ClaimOutcome::Mismatch,
        Ok(Claimed::Busy) => ClaimOutcome::Busy,
        Err(_) => ClaimOutcome::Error,
    }
}
