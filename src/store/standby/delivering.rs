//! Which deliveries the shared store was told of, or is being told of: a storm of followers gets one answer at the
//! same moment, and the store need hear of it once.
//!
//! It remembers the last ones only. A delivery that is told twice changes nothing but the work that the store has.

use std::collections::{HashSet, VecDeque};

use crate::store::Fence;

/// More runs than end within the time in which the followers of one of them are answered.
const DELIVERIES_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Deliveries {
    fences: HashSet<Fence>,
    /// In the order in which they came; one that was taken out since is skipped.
    order: VecDeque<Fence>,
}

impl Deliveries {
    /// Whether it is for the caller to tell the store.
    pub(super) fn begin(&mut self, fence: Fence) -> bool {
        if !self.fences.insert(fence) {
            return false;
        }
        self.order.push_back(fence);
        if self.order.len() > DELIVERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.fences.remove(&oldest);
        }
        true
    }

    /// The store did not hear of it.
    pub(super) fn failed(&mut self, fence: Fence) {
        self.fences.remove(&fence);
    }

    /// The store has forgotten what it was told.
    pub(super) fn clear(&mut self) {
        self.fences.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_told_once_and_again_only_after_a_failure() {
        let mut deliveries = Deliveries::default();
        assert!(deliveries.begin(Fence(1)));
        assert!(!deliveries.begin(Fence(1)));
        assert!(deliveries.begin(Fence(2)));
        deliveries.failed(Fence(1));
        assert!(deliveries.begin(Fence(1)));
        deliveries.clear();
        assert!(deliveries.begin(Fence(2)));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut deliveries = Deliveries::default();
        for fence in 0..=DELIVERIES_MAX as u64 {
            assert!(deliveries.begin(Fence(fence)));
        }
        assert_eq!((deliveries.fences.len(), deliveries.order.len()), (DELIVERIES_MAX, DELIVERIES_MAX));
        assert!(deliveries.begin(Fence(0)));
    }
}
