//! The memory store as the mirror of another one: what this process holds there stands here too, so that it can go on
//! alone, and write it back.
//!
//! The other store's word counts: whatever the mirror has at the places of a run that was led there makes way for it.
//! Nothing here decides which of the two is to be asked.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Memory, restored};
use crate::store::{
    Ask, Fence, Key, Millis, Restored,
    machine::{
        self,
        cells::{Cell, Cells as _, Place, Run, State},
    },
};

impl Memory {
    /// Takes over a run that was led in the other store.
    pub(in crate::store) fn mirror(&self, led: &Restored) {
        self.step(|inner, now, calls| {
            let hold = &led.hold;
            let lanes = hold.lanes.iter().copied().map(Place::Lane);
            for place in lanes.chain(hold.fingerprint.map(Place::Fingerprint)) {
                let stands = inner.table.place(place).and_then(Cell::into_read);
                if let Some(outdated) = stands.filter(|fence| *fence != hold.fence) {
                    let effects = machine::evict(&mut inner.table, outdated);
                    inner.apply(&effects, None, calls);
                }
            }
            let step = machine::restore(&mut inner.table, now, led);
            inner.finish(step, None, calls);
        });
    }

    /// The other store has let it go.
    pub(in crate::store) fn evict(&self, fence: Fence) {
        self.step(|inner, _, calls| {
            let effects = machine::evict(&mut inner.table, fence);
            inner.apply(&effects, None, calls);
        });
    }

    /// What is held under a fence, to be written back. None where there is nothing, or only a record that a later
    /// generation has ended.
    pub(in crate::store) fn held_under(&self, fence: Fence) -> Option<Restored> {
        self.step(|inner, now, calls| {
            let effects = machine::expire(&mut inner.table, now, fence);
            inner.apply(&effects, None, calls);
            if machine::is_outdated(&inner.table, fence) {
                return None;
            }
            restored(now, fence, inner.table.run(fence)?.read()?)
        })
    }

    /// The runs that stand at the places of a claim.
    pub(in crate::store) fn standing_at(&self, ask: &Ask) -> SmallVec<[Fence; 4]> {
        machine::standing_at(&self.lock().table, ask)
    }

    /// The run that holds a lane.
    pub(in crate::store) fn standing_in(&self, lane: Key) -> Option<Fence> {
        self.lock().table.place(Place::Lane(lane))?.into_read()
    }

    /// What runs or is in doubt now, and the answers that came this short a time ago: what a store that fails over may
    /// have been told and lost.
    pub(in crate::store) fn live_or_recent(&self, recent: Duration) -> Vec<Fence> {
        self.step(|inner, now, _| {
            let is_meant = |run: &Run| match &run.state {
                State::Flight { .. } | State::InDoubt { .. } => true,
                State::Done { settled_at: at, .. } | State::Resolved { since: at, .. } => {
                    between(*at, now) <= recent
                }
            };
            let meant = inner.table.runs().filter(|(_, run)| is_meant(run));
            meant.map(|(fence, _)| fence).collect()
        })
    }

    /// The generations that have begun here, each with the last fence that was older.
    pub(in crate::store) fn generations(&self) -> Vec<(Key, Fence)> {
        let mut begun: Vec<(Key, Fence)> = self.lock().table.generations_begun().collect();
        begun.sort_unstable();
        begun
    }

    /// Everything that is held.
    pub(in crate::store) fn fences(&self) -> Vec<Fence> {
        self.lock().table.runs().map(|(fence, _)| fence).collect()
    }

    /// The last fence that was given out or seen.
    pub(in crate::store) fn last_fence(&self) -> Fence {
        self.lock().table.last_fence()
    }

    /// Whether there is a run of this fence.
    pub(in crate::store) fn has(&self, fence: Fence) -> bool {
        self.lock().table.run(fence).is_some()
    }
}

fn between(from: Millis, to: Millis) -> Duration {
    Duration::from_millis(to.0.saturating_sub(from.0))
}
