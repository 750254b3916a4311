//! Who waits for what, and how they are woken.
//!
//! A wake-up must never be lost: whoever went away is skipped, and what is skipped here by a race is found again by
//! the store's timer, or by the poll of the one who waits. Nothing here knows whether a place is free.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use tokio::sync::oneshot::{self, Sender};

use super::{Fence, Key, Wake, Woken, hash::Short};

/// How many may wait in all. Routes bound their followers and lanes far lower; this bounds their sum.
const WAITERS_MAX: usize = 1 << 20;

/// What somebody who waits at a fingerprint is woken with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wants {
    /// The answer of the flight, when there is one.
    Answer,
    /// Only to look again: the flight began before the request came (`signal`).
    Turn,
}

#[derive(Default)]
pub(super) struct Waiters {
    fingerprints: HashMap<Key, Gathering, Short>,
    lanes: HashMap<Key, VecDeque<InLane>, Short>,
    count: usize,
}

/// Those who wait for the end of one flight.
pub(super) struct Gathering {
    pub(super) fence: Fence,
    pub(super) waiting: Vec<(Wants, Sender<Woken>)>,
}

struct InLane {
    fingerprint: Option<Key>,
    wake: Sender<Woken>,
}

impl Waiters {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Waits for the end of a flight. `None`: too many wait already.
    pub(super) fn gather(&mut self, fingerprint: Key, fence: Fence, wants: Wants) -> Option<Wake> {
        if self.is_full() {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        let gathering = match self.fingerprints.entry(fingerprint) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Gathering { fence, waiting: Vec::new() }),
        };
        if gathering.fence != fence {
            // Everyone here was to be woken when that flight ended. Dropping their senders tells them to look again.
            self.count -= gathering.waiting.len();
            *gathering = Gathering { fence, waiting: Vec::new() };
        }
        if gathering.waiting.len() == gathering.waiting.capacity() {
            let before = gathering.waiting.len();
            gathering.waiting.retain(|(_, wake)| !wake.is_closed());
            self.count -= before - gathering.waiting.len();
        }
        gathering.waiting.push((wants, wake));
        self.count += 1;
        Some(woken)
    }

    /// Waits for a lane, behind those who wait already. `None`: too many wait already.
    pub(super) fn queue(&mut self, lane: Key, fingerprint: Option<Key>) -> Option<Wake> {
        if self.is_full() {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        let queue = self.lanes.entry(lane).or_default();
        if queue.len() == queue.capacity() {
            let before = queue.len();
            queue.retain(|waiter| !waiter.wake.is_closed());
            self.count -= before - queue.len();
        }
        queue.push_back(InLane { fingerprint, wake });
        self.count += 1;
        Some(woken)
    }

    /// Takes those who wait for the end of this flight, to be woken outside the lock.
    pub(super) fn disperse(&mut self, fingerprint: Key, fence: Fence) -> Option<Gathering> {
        if self.fingerprints.is_empty() {
            return None;
        }
        let Entry::Occupied(entry) = self.fingerprints.entry(fingerprint) else {
            return None;
        };
        if entry.get().fence != fence {
            return None;
        }
        let gathering = entry.remove();
        self.count -= gathering.waiting.len();
        Some(gathering)
    }

    /// Wakes the first who is still there.
    pub(super) fn wake_next(&mut self, lane: Key) {
        if self.lanes.is_empty() {
            return;
        }
        let Entry::Occupied(mut entry) = self.lanes.entry(lane) else {
            return;
        };
        while let Some(waiter) = entry.get_mut().pop_front() {
            self.count -= 1;
            if waiter.wake.send(Woken::Again).is_ok() {
                break;
            }
        }
        if entry.get().is_empty() {
            entry.remove();
        }
    }

    pub(super) fn wake_all(&mut self, lane: Key) {
        // A dropped sender counts as "again".
        self.count -= self.lanes.remove(&lane).map_or(0, |queue| queue.len());
    }

    /// Wakes those in a lane who wait with this request; the order of the others stays.
    pub(super) fn wake_same(&mut self, lane: Key, fingerprint: Key) {
        if self.lanes.is_empty() {
            return;
        }
        let Entry::Occupied(mut entry) = self.lanes.entry(lane) else {
            return;
        };
        let before = entry.get().len();
        entry.get_mut().retain(|waiter| waiter.fingerprint != Some(fingerprint) && !waiter.wake.is_closed());
        self.count -= before - entry.get().len();
        if entry.get().is_empty() {
            entry.remove();
        }
    }

    /// The lanes that somebody waits for.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Key> + '_ {
        self.lanes.keys().copied()
    }

    /// The flights whose end somebody waits for.
    pub(super) fn flights(&self) -> impl Iterator<Item = (Key, Fence)> + '_ {
        self.fingerprints.iter().map(|(fingerprint, gathering)| (*fingerprint, gathering.fence))
    }

    fn is_full(&mut self) -> bool {
        if self.count < WAITERS_MAX {
            return false;
        }
        self.fingerprints.retain(|_, gathering| {
            gathering.waiting.retain(|(_, wake)| !wake.is_closed());
            !gathering.waiting.is_empty()
        });
        self.lanes.retain(|_, queue| {
            queue.retain(|waiter| !waiter.wake.is_closed());
            !queue.is_empty()
        });
        self.count = self.fingerprints.values().map(|gathering| gathering.waiting.len()).sum::<usize>()
            + self.lanes.values().map(VecDeque::len).sum::<usize>();
        self.count >= WAITERS_MAX
    }
}
