//! The memory store, ticking, with calls that can be made to fail.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use oncegate::{
    config::Config,
    gate::core::TICK,
    ops::words::StoreOp,
    server,
    store::{
        Ask, Claimed, Ending, Fence, Hold, Key, LaneView, Renewed, Reply, Resolution, Resolved, Restored,
        Settled, Store, StoreError, memory::Memory,
    },
};

pub(crate) struct Flaky {
    memory: Arc<Memory>,
    failing: Mutex<BTreeSet<&'static str>>,
    losing: Mutex<BTreeSet<&'static str>>,
}

impl Flaky {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let memory = Arc::new(server::memory(config));
        let ticking = Arc::clone(&memory);
        // The control thread's part.
        drop(tokio::task::spawn_local(async move {
            let mut interval = tokio::time::interval(TICK);
            loop {
                interval.tick().await;
                ticking.tick();
            }
        }));
        Arc::new(Self { memory, failing: Mutex::default(), losing: Mutex::default() })
    }

    /// From now on calls of this kind are not answered.
    pub(crate) fn fail(&self, operation: StoreOp) {
        self.failing.lock().expect("nobody panics with it").insert(operation.as_str());
    }

    /// From now on calls of this kind are carried out, and their answers are lost.
    pub(crate) fn lose_answers(&self, operation: StoreOp) {
        self.losing.lock().expect("nobody panics with it").insert(operation.as_str());
    }

    pub(crate) fn mend(&self) {
        self.failing.lock().expect("nobody panics with it").clear();
        self.losing.lock().expect("nobody panics with it").clear();
    }

    fn unless_failing<'a, T: Send + 'a>(
        &self,
        operation: StoreOp,
        call: impl FnOnce() -> Reply<'a, T>,
    ) -> Reply<'a, T> {
        let down = || Reply::now(Err(StoreError::Down("made to fail".to_owned())));
        let is_in = |set: &Mutex<BTreeSet<_>>| {
            set.lock().expect("nobody panics with it").contains(operation.as_str())
        };
        if is_in(&self.failing) {
            return down();
        }
        // The memory store acts when it is called, not when it is awaited.
        let reply = call();
        if is_in(&self.losing) { down() } else { reply }
    }
}

impl Store for Flaky {
    fn claim<'a>(&'a self, ask: &'a Ask) -> Reply<'a, Claimed> {
        self.unless_failing(StoreOp::Claim, || self.memory.claim(ask))
    }

    fn renew<'a>(&'a self, hold: &'a Hold) -> Reply<'a, Renewed> {
        self.unless_failing(StoreOp::Renew, || self.memory.renew(hold))
    }

    fn settle<'a>(&'a self, hold: &'a Hold, ending: Ending) -> Reply<'a, Settled> {
        self.unless_failing(StoreOp::Settle, || self.memory.settle(hold, ending))
    }

    fn abandon<'a>(&'a self, hold: &'a Hold) -> Reply<'a, ()> {
        self.unless_failing(StoreOp::Abandon, || self.memory.abandon(hold))
    }

    fn delivered<'a>(&'a self, fences: &'a [Fence]) -> Reply<'a, ()> {
        self.unless_failing(StoreOp::Delivered, || self.memory.delivered(fences))
    }

    fn begin_generation(&self, identity: Key) -> Reply<'_, ()> {
        self.unless_failing(StoreOp::Generation, || self.memory.begin_generation(identity))
    }

    fn inspect(&self, lane: Key) -> Reply<'_, LaneView> {
        self.unless_failing(StoreOp::Inspect, || self.memory.inspect(lane))
    }

    fn resolve(&self, lane: Key, resolution: Resolution) -> Reply<'_, Resolved> {
        self.unless_failing(StoreOp::Resolve, || self.memory.resolve(lane, resolution))
    }

    fn forget(&self, lane: Key) -> Reply<'_, usize> {
        self.unless_failing(StoreOp::Forget, || self.memory.forget(lane))
    }

    fn restore<'a>(&'a self, restored: &'a Restored) -> Reply<'a, Settled> {
        self.unless_failing(StoreOp::Restore, || self.memory.restore(restored))
    }
}
