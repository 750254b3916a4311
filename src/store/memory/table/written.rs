//! What the table tells a store that is written down, and what it takes back from one.
//!
//! Nothing here decides anything, or knows how cells are written.

use smallvec::SmallVec;

use super::{Generation, Table};
use crate::store::{
    Fence, Key, Millis,
    machine::cells::{Cell, Cells as _, Place, Run},
};

/// Which cells a step has written, for a store that is written down; what they hold now says the table. A cell may be
/// named twice. A lease that was prolonged is no change: a flight that is found again has lost its leader. Places of
/// fingerprints and lanes are not named: they follow from the runs.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub(crate) runs: SmallVec<[Fence; 2]>,
    pub(crate) scopes: SmallVec<[Key; 2]>,
    pub(crate) generations: SmallVec<[Key; 2]>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.scopes.is_empty() && self.generations.is_empty()
    }
}

impl Table {
    /// From now on it notes what changes.
    pub(in crate::store::memory) fn note_changes(&mut self) {
        self.changes = Some(Changes::default());
    }

    /// What has changed since it was last asked, if anything has.
    pub(in crate::store::memory) fn take_changes(&mut self) -> Option<Changes> {
        self.changes.as_mut().filter(|changes| !changes.is_empty()).map(std::mem::take)
    }

    pub(super) fn note(&mut self, note: impl FnOnce(&mut Changes)) {
        if let Some(changes) = &mut self.changes {
            note(changes);
        }
    }

    /// A run as it was written down, with the places that follow from it. Records come oldest first.
    pub(crate) fn load_run(&mut self, fence: Fence, run: Run) {
        self.raise_fence(fence);
        let lanes = if run.state.is_live() { run.lanes.clone() } else { SmallVec::new() };
        let fingerprint = run.fingerprint.map(Place::Fingerprint);
        self.insert_run(fence, run);
        for place in fingerprint.into_iter().chain(lanes.into_iter().map(Place::Lane)) {
            self.point(place, fence);
        }
    }

    pub(crate) fn load_generation(&mut self, identity: Key, began: Fence, ends: Millis) {
        self.generations.insert(identity, Generation { began: Cell::new(began), ends });
        self.generation_ends.insert((ends, identity));
    }

    /// When a generation began, and until when that is remembered.
    pub(crate) fn generation_until(&self, identity: Key) -> Option<(Fence, Millis)> {
        self.generations.get(&identity).map(|generation| (generation.began.value, generation.ends))
    }
}
