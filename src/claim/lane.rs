//! Lanes of this process: one queue per order, first come, first served.
//!
//! Only the head of a queue asks the store for the lane, so that waiting costs the store nothing and the order of
//! arrival is kept. An exchange that is about several orders takes its lanes one after the other in sorted order,
//! so that two exchanges can never wait for each other.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::store::{Key, hash::Short};

/// More wait for this order than the route allows.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct LaneFull;

#[derive(Default)]
pub struct Lanes {
    queues: DashMap<Key, VecDeque<Waiter>, Short>,
    waiting: AtomicUsize,
    tokens: AtomicUsize,
}

struct Waiter {
    token: usize,
    turn: oneshot::Sender<()>,
}

/// The lanes of one exchange; one for nearly all.
pub type Places = SmallVec<[Place; 1]>;

/// A place in the queue of one lane, or its head. Dropping it lets the next one in.
pub struct Place {
    lanes: Arc<Lanes>,
    lane: Key,
    token: usize,
    turn: Option<oneshot::Receiver<()>>,
}

impl Lanes {
    /// Takes all lanes if nobody is in any of them, the usual case.
    pub fn enter_free(self: &Arc<Self>, lanes: &[Key]) -> Option<Places> {
        let mut places = Places::new();
        for lane in lanes {
            let is_free = match self.queues.entry(*lane) {
                Entry::Vacant(place) => {
                    drop(place.insert(VecDeque::new()));
                    true
                }
                Entry::Occupied(_) => false,
            };
            if !is_free {
                // What was taken so far is given back.
                return None;
            }
            places.push(Place { lanes: Arc::clone(self), lane: *lane, token: self.token(), turn: None });
        }
        Some(places)
    }

    /// Takes all lanes, in the order given (sorted), each as soon as its turn comes. At most `depth_max` wait
    /// behind the head of one lane.
    pub async fn enter(self: &Arc<Self>, lanes: &[Key], depth_max: usize) -> Result<Places, LaneFull> {
        let mut places = Places::new();
        for lane in lanes {
            let mut place = self.queue_up(*lane, depth_max)?;
            place.turn().await;
            places.push(place);
        }
        Ok(places)
    }

    fn queue_up(self: &Arc<Self>, lane: Key, depth_max: usize) -> Result<Place, LaneFull> {
        let token = self.token();
        let turn = match self.queues.entry(lane) {
            Entry::Vacant(place) => {
                drop(place.insert(VecDeque::new()));
                None
            }
            Entry::Occupied(mut place) => {
                let queue = place.get_mut();
                if queue.len() >= depth_max {
                    return Err(LaneFull);
                }
                let (sender, turn) = oneshot::channel();
                queue.push_back(Waiter { token, turn: sender });
                self.waiting.fetch_add(1, Relaxed);
                Some(turn)
            }
        };
        Ok(Place { lanes: Arc::clone(self), lane, token, turn })
    }

    fn token(&self) -> usize {
        self.tokens.fetch_add(1, Relaxed)
    }

    fn leave(&self, lane: Key, token: usize) {
        let Entry::Occupied(mut place) = self.queues.entry(lane) else { return };
        let queue = place.get_mut();
        if let Some(position) = queue.iter().position(|waiter| waiter.token == token) {
            queue.remove(position);
            self.waiting.fetch_sub(1, Relaxed);
            return;
        }
        // The head leaves.
        while let Some(next) = queue.pop_front() {
            self.waiting.fetch_sub(1, Relaxed);
            if next.turn.send(()).is_ok() {
                return;
            }
        }
        place.remove();
    }

    /// Exchanges that wait behind the head of a lane, over all lanes.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Lanes that somebody holds or waits for.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

impl Place {
    async fn turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            // The sender lives in the queue until it is used; a closed channel cannot mean "your turn" by mistake,
            // because only the head's leaving takes a sender out while its receiver lives.
            let _ = turn.await;
        }
        self.turn = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The receiver must outlive this call: were it dropped first, a head that leaves at the same moment would skip
        // us, and we would then let in a second head. A turn given but never taken up is passed on by `leave`.
        self.lanes.leave(self.lane, self.token);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    fn key(n: u8) -> Key {
        Key([n; 32])
    }

    async fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        let mut future = Some(future);
        std::future::poll_fn(move |cx| {
            Poll::Ready(future.take().is_none_or(|future| future.poll(cx).is_pending()))
        })
        .await
    }

    #[tokio::test]
    async fn a_lane_is_given_on_in_the_order_of_arrival() {
        let lanes = Arc::new(Lanes::default());
        let one = [key(1)];
        let head = lanes.enter(&one, 9).await;
        let mut second = pin!(lanes.enter(&one, 9));
        let mut third = pin!(lanes.enter(&one, 9));
        assert!(is_pending(second.as_mut()).await);
        assert!(is_pending(third.as_mut()).await);
        drop(head);
        assert!(is_pending(third.as_mut()).await, "the third overtook the second");
        let second = second.await;
        assert!(is_pending(third.as_mut()).await);
        drop(second);
        assert!(third.await.is_ok());
        assert!(lanes.is_empty());
    }

    #[tokio::test]
    async fn who_leaves_the_queue_or_never_takes_its_turn_holds_nobody_up() {
        let lanes = Arc::new(Lanes::default());
        let one = [key(1)];
        let head = lanes.enter(&one, 9).await;
        let mut leaver = Box::pin(lanes.enter(&one, 9));
        let mut sleeper = Box::pin(lanes.enter(&one, 9));
        let mut last = pin!(lanes.enter(&one, 9));
        for waiter in [&mut leaver, &mut sleeper] {
            assert!(is_pending(waiter.as_mut()).await);
        }
        assert!(is_pending(last.as_mut()).await);
        drop(leaver);
        drop(head);
        drop(sleeper);
        assert!(last.await.is_ok());
        assert_eq!(lanes.waiting(), 0);
    }

    #[tokio::test]
    async fn lanes_are_taken_without_waiting_only_if_all_of_them_are_free() {
        let lanes = Arc::new(Lanes::default());
        let both = [key(1), key(2)];
        let held = lanes.enter(&both[1..], 9).await;
        assert!(lanes.enter_free(&both).is_none());
        let first = lanes.enter_free(&both[..1]);
        assert!(first.is_some(), "what was taken in vain was given back");
        drop((held, first));
        assert!(lanes.enter_free(&both).is_some());
        assert!(lanes.is_empty());
    }

    #[tokio::test]
    async fn depth_is_bounded() {
        let lanes = Arc::new(Lanes::default());
        let one = [key(1)];
        let _head = lanes.enter(&one, 1).await;
        let mut second = pin!(lanes.enter(&one, 1));
        assert!(is_pending(second.as_mut()).await);
        assert!(lanes.enter(&one, 1).await.is_err());
    }

    #[tokio::test]
    async fn several_lanes_are_taken_together_and_given_back_together() {
        let lanes = Arc::new(Lanes::default());
        let both = [key(1), key(2)];
        let held = lanes.enter(&both, 9).await;
        let two = [key(2)];
        let mut second = pin!(lanes.enter(&two, 9));
        assert!(is_pending(second.as_mut()).await);
        drop(held);
        assert!(second.await.is_ok());
    }
}
