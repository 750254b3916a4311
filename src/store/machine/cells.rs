//! What the record machine reads and writes: plain data, and the trait by which a store hands it over.
//!
//! Everything that is known of one run (a flight and whatever became of it) stands in one cell under its fence;
//! fingerprints, scopes and lanes are pointers to it. So a change of state is a change of one cell, and no two
//! cells can disagree about it. Nothing here decides anything.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::store::{Fence, InDoubtPolicy, Key, Millis, Owner, Record};

/// The format of every cell that this version writes and the only one that it reads.
pub const VERSION: u16 = 1;

/// A value with the format it was written in. Two versions of oncegate may share one store: what the other one
/// wrote is neither free nor expired, it is busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell<T> {
    pub version: u16,
    pub value: T,
}

impl<T> Cell<T> {
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { version: VERSION, value }
    }

    /// The value, where this version can read it.
    #[must_use]
    pub fn read(&self) -> Option<&T> {
        (self.version == VERSION).then_some(&self.value)
    }

    /// Likewise, of a cell that nobody needs any more.
    #[must_use]
    pub fn into_read(self) -> Option<T> {
        (self.version == VERSION).then_some(self.value)
    }
}

/// Where a run can be found from. The three kinds never meet, though their keys were equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Place {
    Fingerprint(Key),
    Scope(Key),
    Lane(Key),
}

/// A flight and what became of it. Only its state changes after the claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub owner: Owner,
    pub lanes: SmallVec<[Key; 1]>,
    pub fingerprint: Option<Key>,
    pub scope: Option<Key>,
    pub body: Option<Key>,
    pub generations: SmallVec<[Key; 1]>,
    pub in_doubt: InDoubtPolicy,
    pub state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Someone may be sending, or may have sent.
    Flight { lease_ends: Millis },
    /// Something may have been sent and no answer is known. The lanes stay held: the shop may still be at work.
    InDoubt { since: Millis, until: Millis },
    /// The answer is known.
    Done { record: Arc<Record>, settled_at: Millis, until: Millis, delivery: Delivery },
    /// An operator says that the work was done; no answer is known.
    Resolved { since: Millis, until: Millis },
}

impl State {
    /// When this state ends unless something happens before.
    #[must_use]
    pub fn ends(&self) -> Millis {
        match self {
            Self::Flight { lease_ends } => *lease_ends,
            Self::InDoubt { until, .. } | Self::Done { until, .. } | Self::Resolved { until, .. } => *until,
        }
    }

    /// Whether the run holds its lanes. Such a state is never evicted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Flight { .. } | Self::InDoubt { .. })
    }
}

/// Whether a client has the answer of a done run. It changes once, so that no sender can keep a record alive by
/// asking for it: a record never lives longer than its undelivered life and `seen` together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// No client has it yet. `seen` is the life that begins when the first one does.
    Awaited {
        seen: Duration,
    },
    Made,
}

/// Whether the store may take one more live run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Left,
    Full,
}

/// The cells of a store. Every method is a plain read or write; the machine alone decides which.
pub trait Cells {
    fn run(&self, fence: Fence) -> Option<&Cell<Run>>;
    fn place(&self, place: Place) -> Option<Cell<Fence>>;
    /// The last fence that had been given out when the identity's generation began: records up to it are older.
    fn generation(&self, identity: Key) -> Option<&Cell<Fence>>;
    /// The last fence that was given out.
    fn last_fence(&self) -> Fence;
    /// Whether one more live run may be added.
    fn room(&self) -> Room;
    /// The runs, whatever their state, that were led under a lane.
    fn led_under(&self, lane: Key) -> Vec<Fence>;

    /// Gives out a fence that is higher than every one before. A store that others share makes it from its clock.
    fn next_fence(&mut self, now: Millis) -> Fence;
    /// Fences given out from now on are higher than this one.
    fn raise_fence(&mut self, seen: Fence);
    fn insert_run(&mut self, fence: Fence, run: Run);
    /// Does nothing where there is no such run.
    fn set_state(&mut self, fence: Fence, state: State);
    fn remove_run(&mut self, fence: Fence) -> Option<Run>;
    fn point(&mut self, place: Place, fence: Fence);
    fn clear(&mut self, place: Place);
    /// Keeps `began` at least as long as any record that is older than it can live.
    fn set_generation(&mut self, now: Millis, identity: Key, began: Fence);
}
