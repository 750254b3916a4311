//! Which answers have reached a client, as the shared store is told: some at a time, and each of them once, though a storm
//! of followers gets one answer at the same moment.
//!
//! Nobody waits for it, and no request pays a round trip for it. Told a moment late, a record lives that moment longer;
//! not told at all, since this replica died, it lives as long as one that nobody has: both are safe errors. Only the last
//! ones are remembered: a delivery that is told twice changes nothing but the work that the store has.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use tokio::time::sleep;

use super::{Standby, link::Mode};
use crate::{
    ops::words::StoreOp,
    store::{Fence, Reply, Store as _, StoreError},
};

/// More runs than end within the time in which the followers of one of them are answered.
const DELIVERIES_MAX: usize = 4096;
/// How long deliveries are gathered before the store is told of them.
const GATHER: Duration = Duration::from_millis(200);
/// How many are told in one call: a script holds up everybody else.
const TOLD_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Deliveries {
    fences: HashSet<Fence>,
    /// In the order in which they came; one that was taken out since is skipped.
    order: VecDeque<Fence>,
    /// What the store is still to be told of.
    untold: VecDeque<Fence>,
}

impl Standby {
    pub(super) fn delivered_now(&self, fences: &[Fence]) -> Reply<'static, ()> {
        for fence in fences {
            if !self.deliveries().begin(*fence) {
                continue;
            }
            // It is memory: the answer is there at once.
            drop(self.local.delivered(&[*fence]));
            if self.asks_remote(*fence) {
                self.deliveries().untold.push_back(*fence);
                self.delivering.notify_one();
            } else {
                self.keep(*fence);
            }
        }
        Reply::now(Ok(()))
    }

    /// Tells the store now and then what has been delivered, for as long as it is polled.
    pub(super) async fn tell_deliveries(&self) {
        loop {
            self.delivering.notified().await;
            sleep(GATHER).await;
            // Who was not told is kept, or lives as long as an undelivered record.
            let _ = self.tell_delivered().await;
        }
    }

    /// Tells the store all that has been delivered.
    pub(super) async fn tell_delivered(&self) -> Result<(), StoreError> {
        loop {
            let some = self.deliveries().take();
            if some.is_empty() {
                return Ok(());
            }
            let told = match self.link.mode() {
                Mode::Up => self.call(self.remote.delivered(&some)).await,
                Mode::Down | Mode::Forgot { .. } => Err(super::down()),
            };
            if let Err(error) = told {
                self.served(StoreOp::Delivered, Some(&error));
                for fence in some {
                    self.deliveries().failed(fence);
                    self.keep(fence);
                }
                return Err(error);
            }
        }
    }
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

    fn take(&mut self) -> Vec<Fence> {
        let some = self.untold.len().min(TOLD_MAX);
        self.untold.drain(..some).collect()
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
