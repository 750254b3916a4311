//! Who is under way in this process, and what became of those who were, by the orders' names: what an operator is shown.
//!
//! It is kept for operators only and decides nothing: claims go by lanes, flights and the store. Whatever is in doubt
//! stands here until the store, which is asked each time, says that it is not. Nothing is written here where nobody can
//! ask, and it has a bound.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use dashmap::DashMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{Demand, End, Ended, flight};
use crate::store::{Fence, Judged, Key, hash::Short};

/// How many orders in doubt are remembered by their names. The store knows the others all the same.
pub const DOUBTS_MAX: usize = 1000;

/// How many flights that have ended are remembered.
pub const FLOWN_MAX: usize = 1000;

/// Where a flight of this process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// It waits for its lane, here or behind another replica's.
    Queued,
    /// Another replica sends the same request; it waits for that answer.
    Following,
    /// It may have been sent; no end is known yet.
    AtShop,
}

/// An order as it is named to people, with its lanes.
#[derive(Clone, Debug)]
pub struct Named {
    pub route: usize,
    /// As the log shows it.
    pub order: Arc<str>,
    pub lanes: SmallVec<[Key; 1]>,
}

/// A flight, as it stood when the roll was asked.
#[derive(Clone, Debug)]
pub struct Aboard {
    pub named: Named,
    pub stage: Stage,
    /// Only of one that is at the shop.
    pub fence: Option<Fence>,
    pub since: Duration,
    /// Clients that wait for it.
    pub clients: usize,
}

/// A flight that has ended.
#[derive(Clone, Debug)]
pub struct Flown {
    pub named: Named,
    pub fence: Option<Fence>,
    /// What it came to, in a word.
    pub came: &'static str,
    pub ended: Instant,
    pub took: Duration,
}

struct Line {
    named: Named,
    began: Instant,
    stage: AtomicU8,
    fence: AtomicU64,
    flight: Arc<flight::Flight<End>>,
}

#[derive(Default)]
pub struct Roll {
    lines: DashMap<usize, Arc<Line>, Short>,
    numbers: AtomicUsize,
    doubts: Mutex<Doubts>,
    /// The oldest first.
    flown: Mutex<VecDeque<Flown>>,
}

#[derive(Default)]
struct Doubts {
    /// The oldest first; one for each set of lanes.
    known: VecDeque<Named>,
    /// When one was left out for lack of room.
    cut: Option<Instant>,
}

/// A flight's line on the roll, where it has one. Dropping it takes the line off.
#[derive(Default)]
pub(super) struct Listed(Option<OnRoll>);

struct OnRoll {
    roll: Arc<Roll>,
    number: usize,
    line: Arc<Line>,
}

impl Roll {
    /// A flight has no line where nobody can ask for it.
    pub(super) fn list_if_named(
        self: &Arc<Self>,
        demand: &Demand,
        flight: &Arc<flight::Flight<End>>,
    ) -> Listed {
        let Some(order) = demand.order.clone() else { return Listed::default() };
        self.list(Named { route: demand.route, order, lanes: demand.lanes.clone() }, flight)
    }

    fn list(self: &Arc<Self>, named: Named, flight: &Arc<flight::Flight<End>>) -> Listed {
        let number = self.numbers.fetch_add(1, Relaxed);
        let line = Arc::new(Line {
            named,
            began: Instant::now(),
            stage: AtomicU8::new(Stage::Queued as u8),
            fence: AtomicU64::new(0),
            flight: Arc::clone(flight),
        });
        self.lines.insert(number, Arc::clone(&line));
        Listed(Some(OnRoll { roll: Arc::clone(self), number, line }))
    }

    /// At most so many flights that `wanted` holds for, those at the shop first and of these the oldest, and whether
    /// there are more.
    #[must_use]
    pub fn aboard(&self, max: usize, wanted: impl Fn(&Named) -> bool) -> (Vec<Aboard>, bool) {
        let mut all: Vec<Arc<Line>> = Vec::new();
        for line in &self.lines {
            if wanted(&line.named) {
                all.push(Arc::clone(&line));
            }
        }
        all.sort_by_key(|line| (line.stage.load(Acquire) != Stage::AtShop as u8, line.began));
        let more = all.len() > max;
        (all.iter().take(max).map(|line| line.seen()).collect(), more)
    }

    /// Orders that were in doubt when this process last heard of them.
    #[must_use]
    pub fn doubts(&self) -> Vec<Named> {
        self.lock().known.iter().cloned().collect()
    }

    /// What has become of an order in this process, newest first.
    #[must_use]
    pub fn flown(&self, max: usize, wanted: impl Fn(&Named) -> bool) -> Vec<Flown> {
        let flown = self.flown.lock().unwrap_or_else(PoisonError::into_inner);
        flown.iter().rev().filter(|flown| wanted(&flown.named)).take(max).cloned().collect()
    }

    /// Whether a doubt was left out for lack of room, less than so long ago that it may still be one.
    #[must_use]
    pub fn left_out(&self, within: Duration) -> bool {
        self.lock().cut.is_some_and(|cut| cut.elapsed() < within)
    }

    /// The store says that they are in doubt no more.
    pub fn settled(&self, lanes: &[Key]) {
        self.lock().known.retain(|known| known.lanes.as_slice() != lanes);
    }

    fn doubt(&self, named: &Named) {
        let mut doubts = self.lock();
        if doubts.known.iter().any(|known| known.lanes == named.lanes) {
            return;
        }
        if doubts.known.len() >= DOUBTS_MAX {
            doubts.known.pop_front();
            doubts.cut = Some(Instant::now());
        }
        doubts.known.push_back(named.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Doubts> {
        // A poisoned lock means a panic elsewhere; each change here is whole.
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn seen(&self) -> Aboard {
        let stage = match self.stage.load(Acquire) {
            stage if stage == Stage::AtShop as u8 => Stage::AtShop,
            stage if stage == Stage::Following as u8 => Stage::Following,
            _ => Stage::Queued,
        };
        let fence = (stage == Stage::AtShop).then(|| Fence(self.fence.load(Relaxed)));
        let (since, clients) = (self.began.elapsed(), self.flight.clients());
        Aboard { named: self.named.clone(), stage, fence, since, clients }
    }
}

impl Listed {
    pub(super) fn waits(&self, stage: Stage) {
        if let Some(OnRoll { line, .. }) = &self.0 {
            line.stage.store(stage as u8, Release);
        }
    }

    pub(super) fn sets_out(&self, fence: Fence) {
        if let Some(OnRoll { line, .. }) = &self.0 {
            line.fence.store(fence.0, Relaxed);
        }
        self.waits(Stage::AtShop);
    }

    /// Everybody who waited has been told.
    pub(super) fn ended(&self, came: &Ended, fence: Option<Fence>) {
        let Some(OnRoll { roll, line, .. }) = &self.0 else { return };
        let (named, took) = (line.named.clone(), line.began.elapsed());
        let flown = Flown { named, fence, came: word(came), ended: Instant::now(), took };
        let mut all = roll.flown.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= FLOWN_MAX {
            all.pop_front();
        }
        all.push_back(flown);
    }

    /// No end is known, and none is waited for.
    pub(super) fn in_doubt(&self) {
        if let Some(OnRoll { roll, number, line }) = &self.0 {
            roll.doubt(&line.named);
            roll.lines.remove(number);
        }
    }
}

impl Drop for OnRoll {
    fn drop(&mut self) {
        self.roll.lines.remove(&self.number);
    }
}

fn word(came: &Ended) -> &'static str {
    match came {
        Ended::Answered { judged: Judged::Done, .. } => "done",
        Ended::Answered { judged: Judged::Failed, .. } => "failed",
        Ended::Answered { judged: Judged::Pending, .. } => "pending",
        Ended::Followed { .. } => "followed",
        Ended::Replayed(_) => "replayed",
        Ended::Lost(_) => "lost",
        Ended::InDoubt { .. } => "outcome-unknown",
        Ended::Resolved { .. } => "resolved-done",
        Ended::Mismatch => "event-mismatch",
        Ended::Unreachable => "upstream-unreachable",
        Ended::LaneFull => "lane-full",
        Ended::Busy => "overloaded",
        Ended::StoreDown => "store-down",
        Ended::Broken => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::flight::{Boarding, Flights, Joined},
        *,
    };

    fn named(number: usize) -> Named {
        let mut lane = [0; 32];
        lane[..8].copy_from_slice(&number.to_be_bytes());
        Named { route: 0, order: number.to_string().into(), lanes: SmallVec::from_iter([Key(lane)]) }
    }

    fn flight() -> Arc<flight::Flight<End>> {
        let table: Arc<Flights<End>> = Arc::default();
        let Joined::Begin(_ticket, flight) = table.join(None, None, Boarding::UntilEnd, 1) else {
            panic!("nobody is there")
        };
        flight
    }

    #[tokio::test]
    async fn a_flight_stands_on_the_roll_until_it_is_dropped_and_those_at_the_shop_come_first() {
        let roll = Arc::new(Roll::default());
        let listed: Vec<_> = (0..3).map(|number| roll.list(named(number), &flight())).collect();
        listed[2].sets_out(Fence(7));
        let (seen, more) = roll.aboard(2, |_| true);
        assert_eq!((seen.len(), more), (2, true));
        assert_eq!(
            (&*seen[0].named.order, seen[0].stage, seen[0].fence),
            ("2", Stage::AtShop, Some(Fence(7)))
        );
        drop(listed);
        assert!(roll.aboard(2, |_| true).0.is_empty());
    }

    #[tokio::test]
    async fn what_became_of_an_order_is_remembered_newest_first_within_a_bound() {
        let roll = Arc::new(Roll::default());
        for number in 0..=FLOWN_MAX {
            roll.list(named(number % 2), &flight()).ended(&Ended::Busy, Some(Fence(number as u64)));
        }
        let of_one = roll.flown(usize::MAX, |named| &*named.order == "1");
        assert_eq!(of_one.len(), FLOWN_MAX / 2);
        assert_eq!(of_one[0].fence, Some(Fence(FLOWN_MAX as u64 - 1)));
        assert_eq!(roll.flown(usize::MAX, |_| true).len(), FLOWN_MAX);
    }

    #[tokio::test]
    async fn doubts_are_bounded_and_it_is_known_that_one_was_left_out() {
        let roll = Arc::new(Roll::default());
        for number in (0..DOUBTS_MAX).chain(0..DOUBTS_MAX) {
            roll.list(named(number), &flight()).in_doubt();
        }
        assert_eq!((roll.doubts().len(), roll.left_out(Duration::MAX)), (DOUBTS_MAX, false));
        roll.list(named(DOUBTS_MAX), &flight()).in_doubt();
        assert_eq!((roll.doubts().len(), roll.left_out(Duration::MAX)), (DOUBTS_MAX, true));
        assert_eq!(&*roll.doubts()[0].order, "1", "the oldest goes");
        roll.settled(&named(1).lanes);
        assert_eq!(roll.doubts().len(), DOUBTS_MAX - 1);
    }
}
