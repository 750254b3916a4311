//! One process: its claims, its store, and all its tasks in one place, so that it can be stopped and killed like one.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use oncegate::{
    claim::{Claims, Observer},
    ops::words::StoreOp,
    store::{
        Fence, Store, StoreError,
        memory::{Memory, MemoryLimits},
        standby::{Change, Standby, Terms, Watch},
    },
};
use tokio::{
    sync::Notify,
    task::{LocalEnterGuard, LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    log::Log,
    plan::{DEADLINE, HOLD, LEASE, ms},
    wire::Wire,
};

pub(crate) struct Replica {
    pub(crate) number: u64,
    pub(crate) claims: Arc<Claims>,
    pub(crate) wire: Arc<Wire>,
    pub(crate) standby: Option<Arc<Standby>>,
    pub(crate) died: CancellationToken,
    /// None once it is dead.
    tasks: RefCell<Option<LocalSet>>,
    stopped_until: Cell<Option<Instant>>,
    stops: Notify,
}

struct Blind;
impl Observer for Blind {}

/// What an operator is told goes into the trace.
struct Told(u64, Log);

impl Watch for Told {
    fn changed(&self, change: &Change) {
        let word = match change {
            Change::Down { cause } => format!("is without the store: {cause}"),
            Change::Forgot { treated_as_down } => format!("treats the store as down for {treated_as_down:?}"),
            Change::Back { written_back, superseded, .. } => {
                format!("is back at the store, {written_back} written back, {superseded} superseded")
            }
        };
        self.1.write(|| format!("r{} {word}", self.0), |_, _| ());
    }

    fn failed(&self, _operation: StoreOp, _error: &StoreError) {}
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Fences of replicas that are alone go by the same clock as those of the store.
pub(crate) fn clock_begins() {
    BEGAN.set(Some(Instant::now()));
}

fn fence() -> Fence {
    let micros = BEGAN.get().map_or(0, |began| began.elapsed().as_micros());
    Fence(u64::try_from(micros).expect("a run is short"))
}

impl Replica {
    /// Before a store that never fails a replica needs none of its own.
    pub(crate) fn new(number: u64, wire: Arc<Wire>, log: &Log, stands_by: bool) -> Rc<Self> {
        let tasks = LocalSet::new();
        let shared: Arc<dyn Store> = Arc::clone(&wire) as _;
        let (store, standby) = if stands_by {
            let local = Arc::new(Memory::new(MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 }));
            let terms =
                Terms { deadline: ms(DEADLINE), lease: ms(LEASE), longest: ms(LEASE + HOLD), fences: fence };
            let watch = Arc::new(Told(number, log.clone()));
            let standby = Standby::new(shared, Arc::clone(&local), terms, watch, wire.recall_at_start());
            let tended = Arc::clone(&standby);
            drop(tasks.spawn_local(async move { tended.tend().await }));
            drop(tasks.spawn_local(async move {
                loop {
                    sleep(ms(100)).await;
                    local.tick();
                }
            }));
            (Arc::clone(&standby) as Arc<dyn Store>, Some(standby))
        } else {
            (shared, None)
        };
        let claims = Claims::new(store, ms(LEASE), ms(DEADLINE), number, Arc::new(Blind));
        let replica = Rc::new(Self {
            number,
            claims,
            wire,
            standby,
            died: CancellationToken::new(),
            tasks: RefCell::new(Some(tasks)),
            stopped_until: Cell::default(),
            stops: Notify::new(),
        });
        drop(spawn_local(Rc::clone(&replica).live()));
        replica
    }

    async fn live(self: Rc<Self>) {
        loop {
            self.awake().await;
            let working = poll_fn(|cx| {
                if let Some(tasks) = &mut *self.tasks.borrow_mut() {
                    let _ = Pin::new(tasks).poll(cx);
                }
                Poll::<()>::Pending
            });
            tokio::select! {
                biased;
                () = self.died.cancelled() => break,
                () = self.stops.notified() => {}
                () = working => {}
            }
        }
        // A process that is gone goes no step further. What it had under way at the shop and in the store goes on there.
        drop(self.tasks.take());
    }

    /// What is spawned as long as this is held is the replica's own task. None: it is dead.
    pub(crate) fn enter<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let tasks = self.tasks.borrow();
        let _inside: LocalEnterGuard = tasks.as_ref()?.enter();
        Some(act())
    }

    /// Not a step until then, as after a SIGSTOP.
    pub(crate) fn stops_until(&self, until: Instant) {
        self.stopped_until.set(Some(until));
        self.stops.notify_one();
    }

    /// Waits until it is not stopped, or is dead.
    pub(crate) async fn awake(&self) {
        while let Some(until) = self.stopped_until.get().filter(|until| Instant::now() < *until) {
            tokio::select! {
                biased;
                () = self.died.cancelled() => return,
                () = sleep_until(until) => {}
            }
        }
    }

    pub(crate) fn dies(&self) {
        self.wire.dies();
        self.died.cancel();
    }

    /// At the end of a run: its tasks hold it, and it them.
    pub(crate) fn is_buried(&self) {
        self.dies();
        drop(self.tasks.take());
    }
}
