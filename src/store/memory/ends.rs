//! When each run is to be looked at again: no later than it ends, and seldom earlier.
//!
//! Most runs are flights that end as records long before their lease does, so an end that moves away is not moved
//! here: the run is looked at when its old one comes, and planned anew then. Nothing here knows a run; whoever takes
//! a look out compares.

use std::collections::{BTreeSet, VecDeque};

use crate::store::{Fence, Millis};

/// The queue is cleared of looks that nobody waits for any more when they could be more than half of it, and these
/// many.
pub(super) const CLEAR_MIN: usize = 1024;

/// A look that is planned for a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Look {
    pub(super) at: Millis,
    pub(super) fence: Fence,
}

#[derive(Clone, Default)]
pub(super) struct Ends {
    /// Ends of leases, which come in order because leases are equally long. One that is out of order goes to the rest.
    leases: VecDeque<Look>,
    rest: BTreeSet<Look>,
}

impl Ends {
    pub(super) fn plan_lease(&mut self, look: Look) {
        match self.leases.back() {
            Some(last) if last.at > look.at => self.plan(look),
            Some(_) | None => self.leases.push_back(look),
        }
    }

    pub(super) fn plan(&mut self, look: Look) {
        self.rest.insert(look);
    }

    /// The run is gone, or was planned anew. A look in the queue stays until its time, and is found to be idle then.
    pub(super) fn cancel(&mut self, look: Look) {
        self.rest.remove(&look);
    }

    /// The earliest look that is due.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<Look> {
        let (lease, other) = (self.leases.front().copied(), self.rest.first().copied());
        let earliest = lease.into_iter().chain(other).min().filter(|look| look.at <= now)?;
        match lease == Some(earliest) {
            true => self.leases.pop_front(),
            false => self.rest.pop_first(),
        }
    }

    /// Bounds the queue by the number of runs. `is_planned` tells the looks that a run waits for.
    pub(super) fn clear_idle(&mut self, runs: usize, is_planned: impl Fn(Look) -> bool) {
        if self.leases.len() > 2 * runs + CLEAR_MIN {
            self.leases.retain(|look| is_planned(*look));
        }
    }

    #[cfg(test)]
    pub(super) fn holds(&self, look: Look) -> bool {
        self.rest.contains(&look) || self.leases.contains(&look)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.leases.len() + self.rest.len()
    }
}
