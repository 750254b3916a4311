//! How the machine reads cells: what stands at a place, what an owner still has, what is older than what.
//!
//! Nothing here writes. What cannot be read is told apart from what is absent, everywhere.

use std::time::Duration;

use smallvec::SmallVec;

use super::cells::{Cell, Cells, Place, Run, State};
use crate::store::{Ask, Fence, Hold, Key, Millis};

/// What stands at a place.
pub(super) enum Look<'a> {
    Free,
    /// Written in another format, or pointing to a run that is missing: busy, never expired.
    Unreadable,
    Run(Fence, &'a Run),
}

/// What an owner still has.
#[derive(PartialEq, Eq)]
pub(super) enum Standing {
    Flight,
    InDoubt,
    Lost,
}

pub(super) fn look(cells: &impl Cells, place: Place) -> Look<'_> {
    let Some(cell) = cells.place(place) else {
        return Look::Free;
    };
    let Some(fence) = cell.into_read() else {
        return Look::Unreadable;
    };
    run(cells, fence).map_or(Look::Unreadable, |run| Look::Run(fence, run))
}

pub(super) fn run(cells: &impl Cells, fence: Fence) -> Option<&Run> {
    cells.run(fence)?.read()
}

pub(super) fn standing(cells: &impl Cells, hold: &Hold) -> Standing {
    match run(cells, hold.fence) {
        Some(run) if run.owner == hold.owner => match run.state {
            State::Flight { .. } => Standing::Flight,
            State::InDoubt { .. } => Standing::InDoubt,
            State::Done { .. } | State::Resolved { .. } => Standing::Lost,
        },
        Some(_) | None => Standing::Lost,
    }
}

pub(super) fn named(ask: &Ask) -> impl Iterator<Item = Place> + '_ {
    let fingerprint = ask.fingerprint.map(Place::Fingerprint);
    let scope = ask.scope.map(Place::Scope);
    fingerprint.into_iter().chain(scope).chain(ask.lanes.iter().copied().map(Place::Lane))
}

pub(super) fn is_readable(cells: &impl Cells, ask: &Ask) -> bool {
    named(ask).all(|place| !matches!(look(cells, place), Look::Unreadable))
        && ask.generations.iter().all(|key| cells.generation(*key).is_none_or(|cell| cell.read().is_some()))
}

pub(super) fn is_stale(cells: &impl Cells, generations: &[Key], fence: Fence) -> bool {
    generations
        .iter()
        .any(|key| cells.generation(*key).and_then(Cell::read).is_some_and(|began| *began >= fence))
}

/// The runs that stand at the places of a claim.
pub fn standing_at(cells: &impl Cells, ask: &Ask) -> SmallVec<[Fence; 4]> {
    let fences = named(ask).filter_map(|place| match look(cells, place) {
        Look::Run(fence, _) => Some(fence),
        Look::Free | Look::Unreadable => None,
    });
    fences.collect()
}

/// Whether a run is a record that a later generation of its identity has ended.
pub fn is_outdated(cells: &impl Cells, fence: Fence) -> bool {
    run(cells, fence).is_some_and(|run| !run.state.is_live() && is_stale(cells, &run.generations, fence))
}

/// The invariant of one run: it is pointed to by all its lanes if it is live, by none if it is not.
pub(super) fn is_whole(cells: &impl Cells, fence: Fence) -> bool {
    let Some(run) = run(cells, fence) else {
        return true;
    };
    let points_here = |place| cells.place(place).is_some_and(|cell| cell.value == fence);
    let fingerprint = run.fingerprint.is_none_or(|key| points_here(Place::Fingerprint(key)));
    let lanes = run.lanes.iter().all(|lane| points_here(Place::Lane(*lane)) == run.state.is_live());
    fingerprint && lanes && fence <= cells.last_fence()
}

pub(super) fn after(now: Millis, length: Duration) -> Millis {
    Millis(now.0.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
}

pub(super) fn between(from: Millis, to: Millis) -> Duration {
    Duration::from_millis(to.0.saturating_sub(from.0))
}
