//! The store that all replicas share: the record machine over memory, which can go away, fail over to a copy that was not
//! told its last writes, or come back empty.
//!
//! What was waited for in a store that is no more is waited for in vain: nobody there sends a wake-up any more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oncegate::store::{
    Epoch, Fence, Past, Recall,
    memory::{Memory, MemoryLimits},
};
use tokio::time::Instant;

const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 1 << 20, states_max: 1000 };

/// What becomes of calls, whoever makes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Out {
    No,
    /// Refused at once, and not carried out.
    Refused,
    /// Never answered, and not carried out.
    Silent,
    /// Carried out, and never answered.
    Unheard,
}

pub(crate) struct Shared {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    memory: Arc<Memory>,
    epoch: Epoch,
    born: Option<Instant>,
    past: Past,
    out: Out,
    /// Those who wait there are not to be woken by its end.
    gone: Vec<Arc<Memory>>,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        let memory = Arc::new(Memory::new(LIMITS));
        let (epoch, born, past, out, gone) = (Epoch(1), None, Past::Unknown, Out::No, Vec::new());
        let state = Mutex::new(State { memory, epoch, born, past, out, gone });
        Arc::new(Self { began: Instant::now(), state })
    }

    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.lock().memory)
    }

    pub(crate) fn out(&self) -> Out {
        self.lock().out
    }

    pub(crate) fn goes(&self, out: Out) {
        self.lock().out = out;
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// `trusted` is the memory that the asker trusts. Who trusts another one tells so by asking.
    pub(crate) fn recall(&self, trusted: Option<Epoch>) -> Recall {
        let mut state = self.lock();
        if trusted.is_some_and(|trusted| trusted != state.epoch) {
            state.past = Past::Forgotten;
        }
        let age = state.born.map_or(Duration::MAX, |born| born.elapsed());
        Recall { epoch: state.epoch, age, past: state.past }
    }

    /// What a replica of the store has that is never told anything more.
    pub(crate) fn copy(&self) -> Memory {
        self.lock().memory.copy()
    }

    /// The copy takes the place of the store, and passes for it.
    pub(crate) fn fails_over_to(&self, copy: Memory) {
        let mut state = self.lock();
        let gone = std::mem::replace(&mut state.memory, Arc::new(copy));
        state.gone.push(gone);
    }

    /// A restart without anything that was kept.
    pub(crate) fn restarts_empty(&self) {
        let mut state = self.lock();
        let gone = std::mem::replace(&mut state.memory, Arc::new(Memory::new(LIMITS)));
        state.gone.push(gone);
        state.epoch = Epoch(state.epoch.0 + 1);
        (state.born, state.past) = (Some(Instant::now()), Past::Unknown);
    }

    /// Fences are given out by the clock.
    pub(crate) fn fence(&self) -> Fence {
        Fence(u64::try_from(self.began.elapsed().as_micros()).expect("a run is short"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
