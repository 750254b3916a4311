//! A shared store and the ways of several replicas to it, each of which can be cut, slow, or lose answers. The store
//! itself can be restarted empty, or lose what it was told last.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oncegate::{
    ops::words::StoreOp,
    store::{
        Ask, Claimed, Ending, Epoch, Fence, Hold, Key, LaneView, Past, Recall, Renewed, Reply, Resolution,
        Resolved, Restored, Settled, Store, StoreError,
        memory::{Memory, MemoryLimits},
    },
};
use tokio::time::{Instant, sleep};

pub(crate) const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 1 << 24, states_max: 10_000 };

/// What all replicas share. Ticks are made by whoever holds it.
pub(crate) struct Remote {
    memory: Mutex<(Arc<Memory>, Epoch)>,
    /// Since when it has this memory, and whether somebody remembers another one.
    since: Mutex<(Option<Instant>, Past)>,
}

impl Remote {
    pub(crate) fn new() -> Arc<Self> {
        let remote = Arc::new(Self {
            memory: Mutex::new((Arc::new(Memory::new(LIMITS)), Epoch(1))),
            since: Mutex::new((None, Past::Unknown)),
        });
        let ticking = Arc::clone(&remote);
        drop(tokio::task::spawn_local(async move {
            loop {
                sleep(Duration::from_millis(100)).await;
                ticking.memory().tick();
            }
        }));
        remote
    }

    /// The store as it is, for a look behind the replicas.
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.lock().expect("nobody panics with it").0)
    }

    fn recall(&self) -> Recall {
        let (since, past) = *self.since.lock().expect("nobody panics with it");
        Recall { epoch: self.epoch(), age: since.map_or(Duration::MAX, |since| since.elapsed()), past }
    }

    fn epoch(&self) -> Epoch {
        self.memory.lock().expect("nobody panics with it").1
    }

    /// A restart without persistence.
    pub(crate) fn forgets(&self) {
        let mut memory = self.memory.lock().expect("nobody panics with it");
        *memory = (Arc::new(Memory::new(LIMITS)), Epoch(memory.1.0 + 1));
        *self.since.lock().expect("nobody panics with it") = (Some(Instant::now()), Past::Unknown);
    }

    /// A failover to one that was told nothing yet, and bears the same mark.
    pub(crate) fn loses_what_it_was_told(&self) {
        self.memory.lock().expect("nobody panics with it").0 = Arc::new(Memory::new(LIMITS));
    }

    /// A replica's way to it.
    pub(crate) fn wire(self: &Arc<Self>) -> Arc<Wire> {
        Arc::new(Wire {
            remote: Arc::clone(self),
            adopted: Mutex::new(Epoch::default()),
            faults: Mutex::default(),
            calls: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        })
    }
}

#[derive(Default)]
struct Faults {
    cut: Cut,
    delay: Duration,
    losing: BTreeSet<&'static str>,
    failing: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Cut {
    #[default]
    No,
    /// Calls are refused at once.
    Refused,
    /// Calls are never answered, and not carried out.
    Silent,
}

pub(crate) struct Wire {
    remote: Arc<Remote>,
    adopted: Mutex<Epoch>,
    faults: Mutex<Faults>,
    calls: AtomicU64,
    looks: AtomicU64,
}

impl Wire {
    pub(crate) fn cut(&self, cut: Cut) {
        self.faults.lock().expect("nobody panics with it").cut = cut;
    }

    pub(crate) fn slow(&self, delay: Duration) {
        self.faults.lock().expect("nobody panics with it").delay = delay;
    }

    /// Calls of this kind are carried out and their answers are lost.
    pub(crate) fn lose_answers(&self, operation: StoreOp) {
        self.faults.lock().expect("nobody panics with it").losing.insert(operation.as_str());
    }

    /// Calls of this kind are refused at once, from now on only these.
    pub(crate) fn fail(&self, operation: StoreOp) {
        let mut faults = self.faults.lock().expect("nobody panics with it");
        faults.failing = BTreeSet::from([operation.as_str()]);
    }

    pub(crate) fn mend(&self) {
        *self.faults.lock().expect("nobody panics with it") = Faults::default();
    }

    /// Round trips so far that requests have caused or that were made on the way back.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// How often it was only looked at.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(SeqCst)
    }

    /// Makes a call on the store as it then is.
    async fn pass<T: Send>(
        &self,
        operation: StoreOp,
        trusting: Trust,
        call: impl FnOnce(&Memory) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let counter = if operation == StoreOp::Epoch { &self.looks } else { &self.calls };
        counter.fetch_add(1, SeqCst);
        let (cut, delay, loses) = {
            let faults = self.faults.lock().expect("nobody panics with it");
            let cut = if faults.failing.contains(operation.as_str()) { Cut::Refused } else { faults.cut };
            (cut, faults.delay, faults.losing.contains(operation.as_str()))
        };
        match cut {
            Cut::No => {}
            Cut::Refused => return Err(StoreError::Down("cut off".to_owned())),
            Cut::Silent => pending().await,
        }
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let adopted = *self.adopted.lock().expect("nobody panics with it");
        if trusting == Trust::Epoch && adopted != self.remote.epoch() {
            return Err(StoreError::Forgot);
        }
        let answer = call(&self.remote.memory());
        if loses { pending().await } else { answer }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Epoch,
    Any,
}

impl Store for Wire {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        Reply::later(self.pass(StoreOp::Claim, Trust::Epoch, |memory| {
            // Shared stores give out fences by their clock.
            memory.raise_fences(clock());
            at_once(memory.claim(ask))
        }))
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        Reply::later(self.pass(StoreOp::Renew, Trust::Epoch, |memory| at_once(memory.renew(hold))))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        Reply::later(self.pass(StoreOp::Settle, Trust::Epoch, |memory| at_once(memory.settle(hold, ending))))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        Reply::later(self.pass(StoreOp::Abandon, Trust::Epoch, |memory| at_once(memory.abandon(hold))))
    }

    fn delivered<'a>(&'a self, fences: &'a [Fence]) -> Reply<'a, ()> {
        Reply::later(self.pass(StoreOp::Delivered, Trust::Epoch, |memory| at_once(memory.delivered(fences))))
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        Reply::later(self.pass(StoreOp::Generation, Trust::Epoch, move |memory| {
            at_once(memory.begin_generation(identity))
        }))
    }

    fn restore_generation(&self, identity: Key, began: Fence) -> Reply<'_, ()> {
        Reply::later(self.pass(StoreOp::Generation, Trust::Any, move |memory| {
            at_once(memory.restore_generation(identity, began))
        }))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        Reply::later(self.pass(StoreOp::Inspect, Trust::Epoch, move |memory| at_once(memory.inspect(lane))))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        Reply::later(
            self.pass(StoreOp::Resolve, Trust::Epoch, move |memory| {
                at_once(memory.resolve(lane, resolution))
            }),
        )
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        Reply::later(self.pass(StoreOp::Forget, Trust::Epoch, move |memory| at_once(memory.forget(lane))))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        Reply::later(self.pass(StoreOp::Restore, Trust::Any, |memory| at_once(memory.restore(restored))))
    }

    fn epoch(&self) -> Reply<'_, Recall> {
        Reply::later(self.pass(StoreOp::Epoch, Trust::Any, |_| {
            let adopted = *self.adopted.lock().expect("nobody panics with it");
            if adopted != Epoch::default() && adopted != self.remote.epoch() {
                self.remote.since.lock().expect("nobody panics with it").1 = Past::Forgotten;
            }
            Ok(self.remote.recall())
        }))
    }

    fn adopt_epoch(&self, epoch: Epoch) {
        *self.adopted.lock().expect("nobody panics with it") = epoch;
    }
}

/// The memory store acts when it is called.
fn at_once<T>(reply: Reply<'_, T>) -> Result<T, StoreError> {
    reply.at_once().unwrap_or_else(|_| panic!("the memory store waits for nothing"))
}

fn clock() -> Fence {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    Fence(u64::try_from(since.as_micros()).expect("it is earlier than that"))
}

/// Waits until something holds, ten minutes of the test's own time at most; says how long it took.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1200) {
        if holds().await {
            return began.elapsed();
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("it never happened that {what}");
}
