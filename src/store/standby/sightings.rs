//! What other replicas were seen to do, for as long as it may matter: a store that goes away takes the knowledge with
//! it that an order is at the shop, and a replica that goes on alone would send it again.
//!
//! A sighting is the shared store's last word on a lane that another replica held. It blocks the lane here: as a queue
//! for as long as a lease can run, then as a doubt for as long as the route holds one. It knows nothing of what this
//! replica does itself, and ends nothing.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::store::{Ask, Claimed, InDoubtPolicy, Key, Woken};

/// How many lanes are remembered. What is over the bound is not: the replica then knows as little as one that has just
/// been started.
const SIGHTINGS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Sightings {
    lanes: HashMap<Key, Sighting>,
}

struct Sighting {
    /// Until when the flight may run without being heard of.
    flies: Instant,
    /// Until when its outcome is unknown.
    doubtful: Instant,
    /// Those who wait here. They are woken by being dropped.
    waiting: Vec<oneshot::Sender<Woken>>,
}

impl Sightings {
    /// What the shared store said to a claim.
    pub(super) fn see(&mut self, ask: &Ask, claimed: &Claimed, now: Instant) {
        let hold = match ask.in_doubt {
            InDoubtPolicy::Hold(length) => length,
            InDoubtPolicy::Retry => Duration::ZERO,
        };
        match claimed {
            Claimed::Follow { .. } | Claimed::Queue { .. } => self.note(ask, ask.lease, hold, now),
            Claimed::InDoubt { remaining, .. } => self.note(ask, Duration::ZERO, *remaining, now),
            Claimed::Lead(_) => self.lift(&ask.lanes),
            Claimed::Replay(_) | Claimed::Resolved { .. } | Claimed::Mismatch | Claimed::Busy => {}
        }
    }

    /// What a claim is told that this replica would otherwise grant itself.
    pub(super) fn obstacle(&mut self, ask: &Ask, now: Instant) -> Option<Claimed> {
        let mut doubtful: Option<Instant> = None;
        for lane in &ask.lanes {
            let Some(sighting) = self.lanes.get_mut(lane) else { continue };
            if now < sighting.flies {
                sighting.waiting.retain(|wake| !wake.is_closed());
                let (wake, woken) = oneshot::channel();
                sighting.waiting.push(wake);
                return Some(Claimed::Queue { running: None, wake: woken });
            }
            if now < sighting.doubtful {
                doubtful = doubtful.max(Some(sighting.doubtful));
                // Nobody who waits for the lane can have it.
                sighting.waiting.clear();
            } else {
                self.lanes.remove(lane);
            }
        }
        let remaining = doubtful?.saturating_duration_since(now);
        Some(Claimed::InDoubt { age: Duration::ZERO, remaining })
    }

    /// This replica knows itself how what was seen has ended.
    pub(super) fn lift(&mut self, lanes: &[Key]) {
        for lane in lanes {
            self.lanes.remove(lane);
        }
    }

    /// The shared store is asked again: it knows better.
    pub(super) fn clear(&mut self) {
        self.lanes.clear();
    }

    fn note(&mut self, ask: &Ask, flies: Duration, doubtful: Duration, now: Instant) {
        if self.lanes.len() >= SIGHTINGS_MAX {
            self.lanes.retain(|_, sighting| now < sighting.doubtful.max(sighting.flies));
        }
        let Some((flies, doubtful)) =
            now.checked_add(flies).and_then(|flies| Some((flies, flies.checked_add(doubtful)?)))
        else {
            return;
        };
        for lane in &ask.lanes {
            if let Some(sighting) = self.lanes.get_mut(lane) {
                (sighting.flies, sighting.doubtful) = (flies, doubtful);
            } else if self.lanes.len() < SIGHTINGS_MAX {
                self.lanes.insert(*lane, Sighting { flies, doubtful, waiting: Vec::new() });
            }
        }
    }
}
