//! The checker itself, tried on made-up runs: one that excuses everything would never be noticed.

use std::time::{Duration, Instant};

use super::{Book, Found};
use crate::replicas::{
    ALONE, Plan, Policy,
    faults::{Fault, Kind, Place},
    network::Network,
    servers::Shape,
    shop::{Run, Said},
};

/// Milliseconds after the beginning.
struct Story {
    began: Instant,
    book: Book,
}

impl Story {
    fn of(plan: Plan) -> Self {
        let began = Instant::now();
        let (runs, asked, faults, turns) = Default::default();
        Self { began, book: Book { plan, began, runs, asked, faults, turns } }
    }

    fn waits(wait_replicas: usize) -> Self {
        Self::of(Plan { shape: Shape::Sentinels { replicas: 1 }, wait_replicas, ..ALONE })
    }

    fn at(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    /// Claimed and sent at once, by one replica after the other, and at the shop for 200 ms.
    fn run(self, began: u64, said: Said) -> Self {
        self.run_claimed(began, began, said)
    }

    fn run_claimed(mut self, claimed: u64, began: u64, said: Said) -> Self {
        let replica = self.book.runs.len();
        let ended = Some((self.at(began + 200), said));
        let (claimed, began) = (self.at(claimed), self.at(began));
        let request = "order=1&token=0".to_owned();
        self.book.runs.push(Run { replica, life: 1, request, fence: 1, claimed, began, ended });
        self
    }

    fn fault(mut self, place: Place, kind: Kind, (from, to): (u64, u64), taken: Option<u64>) -> Self {
        let (from, to, taken) = (self.at(from), self.at(to), taken.map(|taken| self.at(taken)));
        self.book.faults.push(Fault { place, kind, from, to, taken });
        self
    }

    fn failover(self, from: u64, taken: u64, to: u64) -> Self {
        self.fault(Place::Store, Kind::Cut(Network::Closed), (from, to), Some(taken))
    }

    fn found(&self) -> Found {
        self.book.check()
    }

    fn is_violated(&self) -> bool {
        !self.found().violations.is_empty()
    }
}

#[test]
fn two_of_an_order_at_a_time_and_one_again_after_it_is_done_are_violations() {
    assert_eq!(Story::of(ALONE).run(1000, Said::Done).run(1100, Said::Done).found().violations.len(), 2);
    assert_eq!(Story::of(ALONE).run(1000, Said::Done).run(60_000, Said::Done).found().violations.len(), 1);
}

#[test]
fn again_after_a_failure_is_none() {
    assert_eq!(Story::of(ALONE).run(1000, Said::Failed).run(1300, Said::Done).found().after_failure, 1);
}

#[test]
fn a_doubt_has_to_be_over_by_the_stores_clock() {
    let killed = |again: u64| {
        let story = Story::of(ALONE).run_claimed(1000, 1900, Said::Done).run(again, Said::Done);
        story.fault(Place::Replica(0), Kind::Killed, (2000, 3000), None)
    };
    // Lease and hold from the claim, which was long before the first byte.
    assert_eq!(killed(6000).found().after_doubt, 1);
    assert!(killed(5700).is_violated());
}

#[test]
fn a_failover_that_waits_for_nobody_may_lose_its_last_claims_and_no_others() {
    let story = |claimed: u64, again: u64| {
        Story::waits(0).run(claimed, Said::Done).run(again, Said::Done).failover(2000, 4000, 5000)
    };
    assert_eq!(story(1900, 4100).found().lost, 1, "just before it went");
    assert_eq!(story(3000, 4100).found().lost, 1, "by one that was taken for the primary still");
    assert!(story(1500, 4100).is_violated(), "long before it went");
    assert!(story(3000, 3500).is_violated(), "before anybody took over");
}

#[test]
fn one_that_waits_for_a_replica_may_lose_none() {
    let story = Story::waits(1).run(1900, Said::Done).run(4100, Said::Done).failover(2000, 4000, 5000);
    assert!(story.is_violated());
}

#[test]
fn a_leader_that_was_away_too_long_is_excused_and_one_that_was_not_is_none() {
    let stopped = |for_: u64| {
        let story = Story::of(ALONE).run(8000, Said::Done).run_claimed(1000, 1000 + for_, Said::Done);
        story.fault(Place::Replica(1), Kind::Stopped, (1000, 1000 + for_), None)
    };
    assert_eq!(stopped(7100).found().overlaps_excused, 1);
    let story = Story::of(ALONE).run(4000, Said::Done).run_claimed(1000, 4100, Said::Done);
    assert!(story.fault(Place::Replica(1), Kind::Stopped, (1000, 4100), None).is_violated());
}

#[test]
fn only_those_that_are_alone_may_differ_and_only_where_they_may_go_on_alone() {
    let story = |policy| {
        let story = Story::of(Plan { policy, ..ALONE }).run(3000, Said::Done).run(3100, Said::Done);
        story.fault(Place::Store, Kind::Stopped, (2500, 3500), None)
    };
    assert_eq!(story(Policy::Local).found().alone, 1);
    assert!(story(Policy::Refuse).is_violated());
    assert!(
        Story::of(Plan { policy: Policy::Local, ..ALONE })
            .run(3000, Said::Done)
            .run(3100, Said::Done)
            .is_violated()
    );
}
