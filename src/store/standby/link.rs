//! What is known of the way to the shared store: whether it is asked, how often it failed, and what it does not know yet.
//!
//! Plain data behind one lock, with time as an argument. It asks nobody and wakes nobody. "Kept" is what stands in this
//! replica's own store and the shared one is still to be told.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::Instant;

use crate::store::{Ending, Fence, Key, Resolution, Restored, Standing};

/// Calls that have to fail one after the other before the store is taken for down.
pub(super) const FAILURES_MAX: u32 = 3;

/// How many generations, resolutions and drops are remembered for a store that is away.
const ERRANDS_MAX: usize = 262_144;

/// How many ended flights are remembered of which the store may still think that they run. There are as many as ran
/// when it went away; what is over the bound is left to its lease.
const ENDED_MAX: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Up,
    Down,
    /// It has forgotten; until then what it does not know may well be running.
    Forgot {
        until: Instant,
    },
}

/// Whether the shared store may know of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    Never,
    Maybe,
}

/// A run that the shared store is to be told of.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) known: Known,
    /// Changes whenever the run does, so that what was told of it is not taken for what it has become.
    pub(super) version: u64,
    pub(super) what: What,
    /// The store has something else in its place. It is told again when the run has changed.
    pub(super) refused: bool,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// How far the run has come stands in this replica's own store.
    Held,
    /// Nothing is left of it here, and the shared store may have it still.
    Ended(Box<Restored>, Over),
}

/// How a run ended of which nothing is left.
#[derive(Clone, Debug)]
pub(super) enum Over {
    Settled(Ending),
    /// Nothing was sent.
    Abandoned,
}

/// Something else that the shared store is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errand {
    Generation(Key, Fence),
    Resolve(Key, Resolution),
    Forget(Key),
}

/// What a failure did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opened {
    /// From now on the store is not asked any more.
    Now,
    No,
}

pub(super) struct Link {
    state: Mutex<State>,
    /// Up, and nothing is kept: the shared store alone is to be asked.
    plain: AtomicBool,
    /// The last call failed.
    failing: AtomicBool,
}

pub(super) struct State {
    pub(super) mode: Mode,
    failures: u32,
    versions: u64,
    kept: HashMap<Fence, Kept>,
    /// How many of them are over.
    endings: usize,
    errands: Vec<Errand>,
}

impl Link {
    pub(super) fn new(mode: Mode) -> Self {
        let state =
            State { mode, failures: 0, versions: 0, kept: HashMap::new(), endings: 0, errands: Vec::new() };
        let plain = AtomicBool::new(mode == Mode::Up);
        Self { state: Mutex::new(state), plain, failing: AtomicBool::new(false) }
    }

    /// Whether the shared store alone is to be asked. May be a moment old.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Acquire)
    }

    /// One look or change, as a whole.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let came = act(&mut state);
        let plain = state.mode == Mode::Up && state.kept.is_empty() && state.errands.is_empty();
        self.plain.store(plain, Ordering::Release);
        self.failing.store(state.failures > 0, Ordering::Relaxed);
        came
    }

    /// A call was answered: failures before it do not count any more.
    pub(super) fn answered(&self) {
        if self.failing.load(Ordering::Relaxed) {
            self.with(|state| state.failures = 0);
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.lock().mode
    }

    pub(super) fn standing(&self) -> Standing {
        if self.is_plain() {
            return Standing::Up;
        }
        match self.mode() {
            Mode::Up => Standing::Up,
            Mode::Down => Standing::Down,
            Mode::Forgot { .. } => Standing::Forgot,
        }
    }

    pub(super) fn keeps(&self, fence: Fence) -> bool {
        !self.is_plain() && self.lock().keeps(fence)
    }

    /// No step here can panic half way, so a poisoned lock holds nothing that is half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn failed(&mut self) -> Opened {
        if self.mode != Mode::Up {
            return Opened::No;
        }
        self.failures += 1;
        if self.failures < FAILURES_MAX {
            return Opened::No;
        }
        self.mode = Mode::Down;
        Opened::Now
    }

    pub(super) fn up(&mut self) {
        self.mode = Mode::Up;
        self.failures = 0;
    }

    /// Keeps a run that stands in this replica's own store, in whatever state.
    pub(super) fn keep(&mut self, fence: Fence, known: Known) {
        self.versions += 1;
        let known = match self.remove(fence) {
            Some(Kept { known: Known::Maybe, .. }) => Known::Maybe,
            Some(_) | None => known,
        };
        let kept = Kept { known, version: self.versions, what: What::Held, refused: false };
        self.kept.insert(fence, kept);
    }

    /// Keeps a run that has only gone on.
    pub(super) fn keep_on(&mut self, fence: Fence) {
        if !self.keeps(fence) {
            self.keep(fence, Known::Maybe);
        }
    }

    /// A kept run is over, and nothing of it stands here any more.
    pub(super) fn ended(&mut self, run: Restored, known: Known, over: Over) {
        let fence = run.hold.fence;
        let known = self.remove(fence).map_or(known, |kept| kept.known);
        if known == Known::Never || self.endings >= ENDED_MAX {
            return;
        }
        self.versions += 1;
        self.endings += 1;
        let what = What::Ended(Box::new(run), over);
        self.kept.insert(fence, Kept { known, version: self.versions, what, refused: false });
    }

    pub(super) fn keeps(&self, fence: Fence) -> bool {
        self.kept.contains_key(&fence)
    }

    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    /// What is about to be told. From now on the store may know of it.
    pub(super) fn begin_return(&mut self, fence: Fence) -> Option<Kept> {
        let kept = self.kept.get_mut(&fence)?;
        kept.known = Known::Maybe;
        Some(kept.clone())
    }

    /// The store has been told, unless the run has changed since.
    pub(super) fn returned(&mut self, fence: Fence, version: u64) {
        if self.kept.get(&fence).is_some_and(|kept| kept.version == version) {
            self.remove(fence);
        }
    }

    pub(super) fn remove(&mut self, fence: Fence) -> Option<Kept> {
        let kept = self.kept.remove(&fence)?;
        self.endings -= usize::from(matches!(kept.what, What::Ended(..)));
        Some(kept)
    }

    /// Lets go what has ended by itself, so that a long outage does not grow a list of what was once there.
    pub(super) fn prune(&mut self, is_there: impl Fn(Fence) -> bool) {
        self.kept.retain(|fence, kept| match kept.what {
            What::Held => is_there(*fence),
            What::Ended(..) => true,
        });
    }

    /// The store has something else in its place.
    pub(super) fn refused(&mut self, fence: Fence, version: u64) {
        if let Some(kept) = self.kept.get_mut(&fence).filter(|kept| kept.version == version) {
            kept.refused = true;
        }
    }

    /// What the store is to be told of, oldest first.
    pub(super) fn returnable(&self) -> Vec<Fence> {
        let open = self.kept.iter().filter(|(_, kept)| !kept.refused);
        let mut fences: Vec<Fence> = open.map(|(fence, _)| *fence).collect();
        fences.sort_unstable();
        fences
    }

    pub(super) fn has_returnable(&self) -> bool {
        !self.errands.is_empty() || self.kept.values().any(|kept| !kept.refused)
    }

    pub(super) fn errand(&mut self, errand: Errand) {
        if self.errands.len() < ERRANDS_MAX {
            self.errands.push(errand);
        }
    }

    pub(super) fn take_errands(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.errands)
    }

    /// Errands that could not be carried out come before those that came since.
    pub(super) fn put_back(&mut self, mut errands: Vec<Errand>) {
        errands.append(&mut self.errands);
        errands.truncate(ERRANDS_MAX);
        self.errands = errands;
    }
}
