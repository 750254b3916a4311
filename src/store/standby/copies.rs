//! Kept answers that this replica has seen, so that a storm of duplicates does not become a storm of store calls.
//!
//! A copy is of an answer that the store itself gave or took, under the fingerprint that it was given for, which has
//! the identity in it. It is given without asking for [`FRESH`] at most, never beyond its record's life, and never to a
//! request whose identity has generations: another replica may have begun a new one, and nobody would tell. While the
//! store is down it is given as long as its record lives.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::store::{Ask, Key, Record};

/// How long a copy is given before the store is asked again. So long at most does it take until every replica knows of
/// a record that an operator has dropped on another one.
pub(super) const FRESH: Duration = Duration::from_secs(10);

/// What one copy weighs beside its answer.
const OVERHEAD_BYTES: usize = 384;

/// How old a copy may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Age {
    Fresh,
    /// Anything that lives: there is nobody to ask.
    Any,
}

pub(super) struct Copies {
    bytes_max: usize,
    bytes: usize,
    by_fingerprint: HashMap<Key, Copy>,
    /// In the order in which they came; one that was replaced since is skipped.
    order: VecDeque<(Key, u64)>,
    numbers: u64,
}

struct Copy {
    number: u64,
    record: Arc<Record>,
    body: Option<Key>,
    lanes: SmallVec<[Key; 1]>,
    since: Instant,
    until: Instant,
    weight: usize,
}

impl Copies {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, by_fingerprint: HashMap::new(), order: VecDeque::new(), numbers: 0 }
    }

    /// Takes a copy of what the store gave out or took, with what is left of its life.
    pub(super) fn keep(&mut self, ask: &Ask, record: &Arc<Record>, remaining: Duration, now: Instant) {
        let Some(fingerprint) = ask.fingerprint.filter(|_| ask.generations.is_empty()) else { return };
        let weight = record.bytes() + OVERHEAD_BYTES;
        // A life that no clock can measure is as good as a long one.
        let Some(until) = now.checked_add(remaining).filter(|_| weight <= self.bytes_max) else { return };
        self.remove(&fingerprint);
        self.numbers += 1;
        let copy = Copy {
            number: self.numbers,
            record: Arc::clone(record),
            body: ask.body,
            lanes: ask.lanes.clone(),
            since: now,
            until,
            weight,
        };
        self.order.push_back((fingerprint, copy.number));
        self.bytes += weight;
        self.by_fingerprint.insert(fingerprint, copy);
        self.fit();
    }

    /// The answer to a claim, as long as it is certain enough. Another body of the same event is the store's business.
    pub(super) fn find(&mut self, ask: &Ask, age: Age, now: Instant) -> Option<Arc<Record>> {
        let fingerprint = ask.fingerprint.filter(|_| ask.generations.is_empty())?;
        let copy = self.by_fingerprint.get(&fingerprint)?;
        if copy.until <= now {
            self.remove(&fingerprint);
            return None;
        }
        let fresh = now.saturating_duration_since(copy.since) < FRESH;
        if copy.body != ask.body || (age == Age::Fresh && !fresh) {
            return None;
        }
        let remaining = copy.until.saturating_duration_since(now);
        Some(Arc::new(Record { remaining, ..(*copy.record).clone() }))
    }

    /// The records of a lane were dropped.
    pub(super) fn forget(&mut self, lane: Key) {
        let of_lane = self.by_fingerprint.iter().filter(|(_, copy)| copy.lanes.contains(&lane));
        let dropped: Vec<Key> = of_lane.map(|(fingerprint, _)| *fingerprint).collect();
        for fingerprint in dropped {
            self.remove(&fingerprint);
        }
    }

    /// What the store says of a fingerprint is no replay any more.
    pub(super) fn drop_of(&mut self, fingerprint: Option<Key>) {
        if let Some(fingerprint) = fingerprint {
            self.remove(&fingerprint);
        }
    }

    fn remove(&mut self, fingerprint: &Key) -> Option<Copy> {
        let copy = self.by_fingerprint.remove(fingerprint)?;
        self.bytes -= copy.weight;
        Some(copy)
    }

    fn fit(&mut self) {
        while self.bytes > self.bytes_max || self.order.len() > 2 * self.by_fingerprint.len() + 16 {
            let Some((fingerprint, number)) = self.order.pop_front() else { return };
            let Some(copy) = self.by_fingerprint.get(&fingerprint) else { continue };
            if copy.number != number {
                continue;
            }
            if self.bytes > self.bytes_max {
                self.remove(&fingerprint);
            } else {
                // It lives, and only the skipped ones before it were to go.
                self.order.push_back((fingerprint, number));
            }
        }
    }
}
