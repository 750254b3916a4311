//! The queue of whole answers: runs in the order in which they came, linked to one another by their places, so that any
//! of them can leave it.

use super::{super::slab::Slab, Filed};

/// At either end of a queue.
pub(super) const NONE: u32 = u32::MAX;

/// Runs in the order in which they came, linked to one another.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl Queue {
    pub(super) fn push(&mut self, runs: &mut Slab<Filed>, place: u32) {
        if let Some(filed) = runs.get_mut(place) {
            (filed.before, filed.behind) = (self.last, NONE);
        }
        match runs.get_mut(self.last) {
            Some(last) => last.behind = place,
            None => self.first = place,
        }
        self.last = place;
    }

    pub(super) fn remove(&mut self, runs: &mut Slab<Filed>, (before, behind): (u32, u32)) {
        match runs.get_mut(before) {
            Some(filed) => filed.behind = behind,
            None => self.first = behind,
        }
        match runs.get_mut(behind) {
            Some(filed) => filed.before = before,
            None => self.last = before,
        }
    }
}
