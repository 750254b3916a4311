//! What a replica does while the store that it shares with others is slow, down, or has forgotten, and on the way back.
//!
//! Two replicas' stores over one shared memory store, with the ways between them cut at will and time paused. The claims
//! are made by hand, as the task of a flight makes them; the whole gate over the same faults is in `standby/gate.rs`.

mod gate;
mod process;
mod wire;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use oncegate::{
    ops::words::StoreOp,
    store::{
        Ask, Claimed, Ending, Fence, Headers, Hold, InDoubtPolicy, Judged, Kept, Key, LaneView, May,
        OnStoreDown, Owner, Record, Renewed, Resolution, Resolved, Settled, Standing, Store, StoreError,
        Woken,
        memory::Memory,
        standby::{Change, Standby, Terms, Watch},
    },
};
use smallvec::smallvec;
use tokio::time::{Instant, sleep, timeout};

use wire::{Cut, LIMITS, Remote, Wire, eventually};

const LEASE: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_millis(250);
const UNSEEN: Duration = Duration::from_secs(7200);
const SEEN: Duration = Duration::from_secs(3600);

/// One replica's store.
pub(crate) struct Replica {
    pub(crate) store: Arc<Standby>,
    pub(crate) wire: Arc<Wire>,
    told: Arc<Told>,
    number: u128,
}

/// What an operator was told, in a word each.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Watch for Told {
    fn changed(&self, change: &Change) {
        let word = match change {
            Change::Down { .. } => "down".to_owned(),
            Change::Forgot { .. } => "forgot".to_owned(),
            Change::Back { written_back, superseded, .. } => format!("back {written_back} {superseded}"),
        };
        self.0.lock().expect("nobody panics with it").push(word);
    }

    fn failed(&self, operation: StoreOp, error: &StoreError) {
        let word = format!("{} {error}", operation.as_str());
        if *error == StoreError::Forgot {
            self.0.lock().expect("nobody panics with it").push(word);
        }
    }
}

impl Replica {
    pub(crate) async fn on(remote: &Arc<Remote>, number: u128) -> Self {
        Self::on_wire(remote.wire(), number).await
    }

    async fn on_wire(wire: Arc<Wire>, number: u128) -> Self {
        let told = Arc::new(Told::default());
        let local = Arc::new(Memory::new(LIMITS));
        let terms = Terms { deadline: DEADLINE, lease: LEASE, longest: HOLD + LEASE };
        let epoch = wire.epoch().await.ok();
        let watch: Arc<dyn Watch> = Arc::clone(&told) as _;
        let shared: Arc<dyn Store> = Arc::clone(&wire) as _;
        let store = Standby::new(shared, Arc::clone(&local), terms, watch, epoch);
        let tended = Arc::clone(&store);
        drop(tokio::task::spawn_local(async move { tended.tend().await }));
        drop(tokio::task::spawn_local(async move {
            loop {
                sleep(Duration::from_millis(100)).await;
                local.tick();
            }
        }));
        Self { store, wire, told, number }
    }

    /// A claim of this replica; `owner` tells its claims apart.
    fn ask(&self, owner: u128, fingerprint: &str, lane: &str) -> Ask {
        Ask {
            owner: Owner((self.number << 64) | owner),
            lanes: smallvec![key(lane)],
            fingerprint: Some(key(fingerprint)),
            scope: None,
            body: None,
            generations: smallvec![],
            may: May::FollowAny,
            lease: LEASE,
            in_doubt: InDoubtPolicy::Hold(HOLD),
        }
    }

    async fn claim(&self, ask: &Ask) -> Claimed {
        self.store.claim(ask).await.expect("this replica goes on alone")
    }

    async fn lead(&self, ask: &Ask) -> Hold {
        match self.claim(ask).await {
            Claimed::Lead(hold) => hold,
            other => panic!("expected to lead, got {other:?}"),
        }
    }

    async fn settle(&self, hold: &Hold, mut ending: Ending) -> Settled {
        if let Ending::Done { record, .. } = &mut ending {
            Arc::make_mut(record).fence = hold.fence;
        }
        self.store.settle(hold, ending).await.expect("this replica goes on alone")
    }

    /// Makes calls until the store is taken for down.
    async fn goes_down(&self, cut: Cut) {
        self.wire.cut(cut);
        for try_again in 0..5 {
            let probe = self.ask(1000 + try_again, "probe", &format!("probe {try_again}"));
            let _ = self.store.claim_where(&probe, OnStoreDown::Refuse).await;
        }
        assert_eq!(self.store.standing(), Standing::Down);
    }

    async fn comes_back(&self) {
        self.wire.mend();
        eventually("the store is back", async || self.store.standing() == Standing::Up).await;
        eventually("all is written back", async || self.store.kept() == 0).await;
    }

    fn told(&self) -> Vec<String> {
        self.told.0.lock().expect("nobody panics with it").clone()
    }

    /// While a flight runs its lease is renewed.
    async fn runs(&self, hold: &Hold, how_long: Duration) {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            sleep(LEASE / 3).await;
            assert_eq!(self.store.renew(hold).await, Ok(Renewed::Held));
        }
    }
}

fn key(name: &str) -> Key {
    Key(*blake3::hash(name.as_bytes()).as_bytes())
}

fn record(body: &'static str) -> Arc<Record> {
    Arc::new(Record {
        status: StatusCode::OK,
        headers: Headers::default(),
        body: Kept::Whole(Bytes::from_static(body.as_bytes())),
        fence: Fence(0),
        answered_at: 0,
        remaining: Duration::ZERO,
    })
}

fn done() -> Ending {
    Ending::Done { record: record("order 1001"), unseen: UNSEEN, seen: SEEN }
}

fn failed() -> Ending {
    Ending::Failed { answer: record("declined") }
}

async fn two(remote: &Arc<Remote>) -> (Replica, Replica) {
    (Replica::on(remote, 1).await, Replica::on(remote, 2).await)
}

// A dead store: the first requests wait for it a deadline each, the others not at all.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_dead_store_costs_a_request_at_most_one_deadline_and_soon_nothing() {
    let one = Replica::on(&Remote::new(), 1).await;
    one.wire.cut(Cut::Silent);
    let mut cost = Vec::new();
    for order in 0..5 {
        let began = Instant::now();
        one.lead(&one.ask(order, &format!("request {order}"), &format!("order {order}"))).await;
        cost.push(began.elapsed());
    }
    assert_eq!(cost, [DEADLINE, DEADLINE, DEADLINE, Duration::ZERO, Duration::ZERO]);
    assert_eq!(one.told(), ["down"], "once per change, not per request");
    assert_eq!(one.store.standing(), Standing::Down);
}

// The connection is lost and made anew within the deadline: nobody goes on alone for that.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_store_that_is_being_connected_to_is_waited_for_within_the_deadline() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    other.lead(&other.ask(1, "a", "lane")).await;
    one.wire.cut(Cut::Refused);
    let ask = one.ask(1, "a", "lane");
    let (claimed, ()) = tokio::join!(one.claim(&ask), async {
        sleep(DEADLINE / 2).await;
        one.wire.mend();
    });
    assert!(matches!(claimed, Claimed::Follow { .. }), "{claimed:?}");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_route_that_refuses_is_told_so_at_once_and_nothing_is_claimed() {
    let one = Replica::on(&Remote::new(), 1).await;
    one.goes_down(Cut::Refused).await;
    let ask = one.ask(1, "a", "lane");
    let refused = one.store.claim_where(&ask, OnStoreDown::Refuse).await;
    assert!(matches!(refused, Err(StoreError::Down(_))), "{refused:?}");
    assert!(matches!(one.claim(&one.ask(2, "a", "lane")).await, Claimed::Lead(_)), "the order is free");
}

// Nobody asks a store that is down but the one who looks after it, less and less often.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_store_that_is_down_is_looked_at_seldom() {
    let one = Replica::on(&Remote::new(), 1).await;
    one.goes_down(Cut::Refused).await;
    let before = one.wire.looks();
    sleep(Duration::from_secs(60)).await;
    let looks = one.wire.looks() - before;
    assert!((25..=40).contains(&looks), "{looks} looks in a minute");
    one.wire.mend();
    let took = eventually("it is back", async || one.store.standing() == Standing::Up).await;
    assert!(took <= Duration::from_millis(2100), "{took:?}");
    assert_eq!(one.told(), ["down", "back 0 0"]);
}

// Everything goes on inside the replica: one flight, one lane, records.
#[tokio::test(flavor = "local", start_paused = true)]
async fn alone_a_replica_keeps_its_own_requests_apart_and_its_records() {
    let one = Replica::on(&Remote::new(), 1).await;
    one.goes_down(Cut::Refused).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    assert!(matches!(one.claim(&one.ask(2, "b", "lane")).await, Claimed::Queue { .. }));
    let Claimed::Follow { wake, fence } = one.claim(&one.ask(3, "a", "lane")).await else {
        panic!("the same request runs")
    };
    one.settle(&hold, done()).await;
    let woken = wake.await.expect("the answer");
    assert!(
        matches!(woken, Woken::Answered { outcome: Judged::Done, .. }) && fence == hold.fence,
        "{woken:?}"
    );
    assert!(matches!(one.claim(&one.ask(4, "a", "lane")).await, Claimed::Replay(_)));
}

// A flight was claimed in the shared store; the store goes away under it. Here its places stay taken.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_was_led_before_the_outage_blocks_its_order_during_it() {
    let one = Replica::on(&Remote::new(), 1).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.goes_down(Cut::Refused).await;
    one.runs(&hold, Duration::from_secs(60)).await;
    assert!(
        matches!(one.claim(&one.ask(2, "a", "lane")).await, Claimed::Follow { fence, .. } if fence == hold.fence)
    );
    assert!(matches!(one.claim(&one.ask(3, "b", "lane")).await, Claimed::Queue { .. }));
    // Its answer never comes: the order is in doubt here as well.
    assert_eq!(one.settle(&hold, Ending::InDoubt).await, Settled::InTime);
    assert!(matches!(one.claim(&one.ask(4, "a", "lane")).await, Claimed::InDoubt { .. }));
}

// The other replica leads, the store goes away, and this one was following: it knows that the order is at the shop.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_another_replica_was_seen_to_lead_is_not_led_here_when_the_store_goes_away() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    one.lead(&one.ask(1, "a", "lane")).await;
    assert!(matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Follow { .. }));
    other.goes_down(Cut::Refused).await;
    let Claimed::Queue { wake, .. } = other.claim(&other.ask(1, "a", "lane")).await else {
        panic!("it may well run")
    };
    assert!(timeout(LEASE / 2, wake).await.is_err(), "nobody is woken for nothing");
    sleep(LEASE / 2).await;
    let doubt = other.claim(&other.ask(1, "a", "lane")).await;
    assert!(
        matches!(doubt, Claimed::InDoubt { remaining, .. } if remaining <= HOLD && remaining > HOLD - LEASE),
        "{doubt:?}"
    );
    sleep(HOLD).await;
    other.lead(&other.ask(1, "a", "lane")).await;
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn who_waits_for_another_replica_asks_again_when_the_store_is_back() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    assert!(matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Follow { .. }));
    other.goes_down(Cut::Refused).await;
    let Claimed::Queue { wake, .. } = other.claim(&other.ask(1, "a", "lane")).await else {
        panic!("it may well run")
    };
    one.settle(&hold, done()).await;
    other.wire.mend();
    let _ = timeout(Duration::from_secs(5), wake).await.expect("woken by the way back");
    assert!(matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Replay(_)));
}

// The way back: the flight that was led before the outage is renewed and settled in the shared store again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_flight_from_before_the_outage_is_known_to_all_after_it() {
    for outage in [Duration::from_secs(5), Duration::from_secs(60)] {
        let remote = Remote::new();
        let (one, other) = two(&remote).await;
        let hold = one.lead(&one.ask(1, "a", "lane")).await;
        one.goes_down(Cut::Refused).await;
        one.runs(&hold, outage).await;
        one.comes_back().await;
        let seen = other.claim(&other.ask(1, "a", "lane")).await;
        let blocked = matches!(seen, Claimed::Follow { .. } | Claimed::InDoubt { .. });
        assert!(blocked, "after {outage:?}: {seen:?}");
        let settled = one.settle(&hold, done()).await;
        assert!(matches!(settled, Settled::InTime | Settled::Late), "{settled:?}");
        assert!(matches!(other.claim(&other.ask(2, "a", "lane")).await, Claimed::Replay(_)));
    }
}

// Flights that began during the outage: none of them is led again because the store is back.
#[tokio::test(flavor = "local", start_paused = true)]
async fn flights_and_records_of_the_outage_are_written_back_before_the_store_is_asked_again() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    one.goes_down(Cut::Silent).await;
    let running = one.lead(&one.ask(1, "running", "lane 1")).await;
    let kept = one.lead(&one.ask(2, "kept", "lane 2")).await;
    one.settle(&kept, done()).await;
    let declined = one.lead(&one.ask(3, "declined", "lane 3")).await;
    one.settle(&declined, failed()).await;
    let lost = one.lead(&one.ask(4, "lost", "lane 4")).await;
    one.settle(&lost, Ending::InDoubt).await;
    one.comes_back().await;
    assert_eq!(one.told(), ["down", "back 3 0"], "the declined one was never known there");
    let theirs = |owner, name: &str, lane: &str| other.ask(owner, name, lane);
    assert!(
        matches!(other.claim(&theirs(1, "running", "lane 1")).await, Claimed::Follow { fence, .. } if fence == running.fence)
    );
    assert!(matches!(other.claim(&theirs(2, "kept", "lane 2")).await, Claimed::Replay(_)));
    assert!(
        matches!(other.claim(&theirs(3, "declined", "lane 3")).await, Claimed::Lead(_)),
        "nothing is kept"
    );
    assert!(matches!(other.claim(&theirs(4, "lost", "lane 4")).await, Claimed::InDoubt { .. }));
    one.runs(&running, Duration::from_secs(30)).await;
    assert_eq!(one.settle(&running, done()).await, Settled::InTime);
    assert!(matches!(other.claim(&theirs(5, "running", "lane 1")).await, Claimed::Replay(_)));
}

// A failover loses what the old primary was told last, and its memory still passes for the same one.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_a_failover_lost_is_told_again() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let hold = one.lead(&one.ask(1, "running", "lane 1")).await;
    let kept = one.lead(&one.ask(2, "kept", "lane 2")).await;
    one.settle(&kept, done()).await;
    one.goes_down(Cut::Refused).await;
    remote.loses_what_it_was_told();
    one.comes_back().await;
    let seen = other.claim(&other.ask(1, "running", "lane 1")).await;
    assert!(matches!(seen, Claimed::Follow { fence, .. } if fence == hold.fence), "{seen:?}");
    assert!(matches!(other.claim(&other.ask(2, "kept", "lane 2")).await, Claimed::Replay(_)));
}

// A claim fails, the replica goes on alone, and cannot make it known at once although the store takes claims again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn as_long_as_the_store_does_not_know_of_a_flight_it_is_not_asked_for_its_order() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    one.wire.fail(StoreOp::Claim);
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.wire.fail(StoreOp::Restore);
    assert_eq!(one.store.standing(), Standing::Up);
    assert!(matches!(one.claim(&one.ask(2, "b", "lane")).await, Claimed::Queue { .. }));
    assert!(matches!(one.claim(&one.ask(3, "a", "lane")).await, Claimed::Follow { .. }));
    one.lead(&one.ask(4, "c", "elsewhere")).await;
    assert!(matches!(other.claim(&other.ask(1, "d", "elsewhere")).await, Claimed::Queue { .. }));
    one.wire.mend();
    eventually("it is made known", async || one.store.kept() == 0).await;
    assert!(
        matches!(other.claim(&other.ask(2, "a", "lane")).await, Claimed::Follow { fence, .. } if fence == hold.fence)
    );
}

// Flights begin as fast as they are told: the way back has an end all the same, and nothing is led twice.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_busy_replica_finds_its_way_back_and_leads_nothing_twice() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    one.goes_down(Cut::Refused).await;
    one.wire.mend();
    one.wire.slow(Duration::from_millis(20));
    let mut holds = Vec::new();
    for number in 0..1000_u128 {
        let (request, order) = (format!("request {number}"), format!("order {number}"));
        holds.push((one.lead(&one.ask(number, &request, &order)).await, number));
        sleep(Duration::from_millis(1)).await;
        if number % 7 == 0 {
            let again = one.claim(&one.ask(5000 + number, &request, &order)).await;
            assert!(matches!(again, Claimed::Follow { .. }), "{again:?}");
        }
    }
    eventually("the store is back", async || one.store.standing() == Standing::Up).await;
    eventually("all is written back", async || one.store.kept() == 0).await;
    for (hold, number) in &holds {
        let ask = other.ask(*number, &format!("request {number}"), &format!("order {number}"));
        let seen = other.claim(&ask).await;
        assert!(matches!(seen, Claimed::Follow { fence, .. } if fence == hold.fence), "{number}: {seen:?}");
    }
}

// A single call times out though the store is well: the replica went on without its answer, and makes it known at once.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_claim_that_was_carried_out_unheard_is_one_flight() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    one.wire.lose_answers(StoreOp::Claim);
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    let LaneView::Flight { fence: unheard, .. } = remote.memory().inspect(key("lane")).await.expect("memory")
    else {
        panic!("the store carried it out")
    };
    assert_ne!(unheard, hold.fence);
    let Claimed::Follow { wake, .. } = other.claim(&other.ask(1, "a", "lane")).await else {
        panic!("it runs")
    };
    one.wire.mend();
    eventually("it is made known", async || one.store.kept() == 0).await;
    let woken = timeout(Duration::from_secs(1), wake).await;
    assert!(matches!(woken, Ok(Ok(Woken::Again) | Err(_))), "who follows looks again: {woken:?}");
    assert!(
        matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Follow { fence, .. } if fence == hold.fence)
    );
    one.runs(&hold, Duration::from_secs(30)).await;
    assert_eq!(one.settle(&hold, failed()).await, Settled::InTime);
    other.lead(&other.ask(2, "a", "lane")).await;
}

// The same, and nothing was sent or the shop declined before the store could be told: the order is free, for all.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_unheard_claim_whose_flight_is_over_leaves_no_doubt_behind() {
    for ending in [None, Some(failed())] {
        let remote = Remote::new();
        let (one, other) = two(&remote).await;
        one.wire.lose_answers(StoreOp::Claim);
        let hold = one.lead(&one.ask(1, "a", "lane")).await;
        one.wire.cut(Cut::Silent);
        match ending {
            None => one.store.abandon(&hold).await.expect("it is given back here"),
            Some(ending) => assert_eq!(one.settle(&hold, ending).await, Settled::InTime),
        }
        sleep(Duration::from_secs(30)).await;
        one.comes_back().await;
        other.lead(&other.ask(1, "a", "lane")).await;
    }
}

// A renewal fails and the store is well otherwise: nobody loses a lease over it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_lost_renewal_costs_no_lease() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.wire.lose_answers(StoreOp::Renew);
    one.runs(&hold, Duration::from_secs(60)).await;
    one.wire.mend();
    assert!(matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Follow { .. }));
    assert_eq!(one.settle(&hold, done()).await, Settled::InTime);
}

// The store fails to answer a settle: the answer is kept here, the next one gets it, and so does the store.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_settle_that_was_not_heard_is_told_again() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.wire.cut(Cut::Silent);
    assert_eq!(one.settle(&hold, done()).await, Settled::InTime);
    assert!(matches!(one.claim(&one.ask(2, "a", "lane")).await, Claimed::Replay(_)));
    one.comes_back().await;
    assert!(matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Replay(_)));
}

// Restarted empty while this replica was talking to it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_store_that_forgot_is_told_all_that_is_known_and_trusted_after_the_longest_hold() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let running = one.lead(&one.ask(1, "running", "lane 1")).await;
    let kept = one.lead(&one.ask(2, "kept", "lane 2")).await;
    one.settle(&kept, done()).await;
    let lost = one.lead(&one.ask(3, "lost", "lane 3")).await;
    one.settle(&lost, Ending::InDoubt).await;
    remote.forgets();
    let began = Instant::now();
    one.lead(&one.ask(4, "new", "lane 4")).await;
    assert_eq!(one.store.standing(), Standing::Forgot);
    assert_eq!(one.told(), ["forgot", "claim the store has forgotten what it was told"]);
    sleep(Duration::from_secs(5)).await;
    // The other replica has not noticed yet: it is told with its first call.
    assert!(matches!(other.claim(&other.ask(1, "other", "lane 9")).await, Claimed::Lead(_)));
    assert_eq!(other.store.standing(), Standing::Forgot);
    for (name, lane) in [("running", "lane 1"), ("new", "lane 4")] {
        let view = remote.memory().inspect(key(lane)).await.expect("memory");
        assert!(matches!(view, LaneView::Flight { .. }), "{name} was not written back: {view:?}");
    }
    assert!(matches!(remote.memory().inspect(key("lane 3")).await, Ok(LaneView::InDoubt { .. })));
    assert_eq!(remote.memory().stats().records, 1);
    one.runs(&running, Duration::from_secs(600)).await;
    assert_eq!(one.store.standing(), Standing::Forgot);
    one.runs(&running, HOLD + LEASE + Duration::from_secs(3) - began.elapsed()).await;
    assert_eq!(one.store.standing(), Standing::Up);
    assert_eq!(one.settle(&running, done()).await, Settled::InTime);
    assert_eq!(one.told().last().map(|word| word.starts_with("back")), Some(true), "{:?}", one.told());
}

// Restarted empty while nobody could reach it: it is not taken for the one that went away.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_store_that_comes_back_empty_is_not_taken_for_back() {
    let remote = Remote::new();
    let one = Replica::on(&remote, 1).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.goes_down(Cut::Refused).await;
    remote.forgets();
    one.wire.mend();
    eventually("it is noticed", async || one.store.standing() == Standing::Forgot).await;
    one.runs(&hold, Duration::from_secs(20)).await;
    let view = remote.memory().inspect(key("lane")).await.expect("memory");
    assert!(matches!(view, LaneView::Flight { fence, .. } if fence == hold.fence), "{view:?}");
    // And once more, before it was trusted again: the time begins anew.
    sleep(Duration::from_secs(300)).await;
    remote.forgets();
    sleep(Duration::from_secs(400)).await;
    assert_eq!(one.store.standing(), Standing::Forgot);
    eventually("it is trusted again", async || one.store.standing() == Standing::Up).await;
}

// One request meets a dead store and no other comes: what it did is tried to be told, which must not hide the outage.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_replica_with_something_to_tell_notices_that_nobody_listens() {
    let one = Replica::on(&Remote::new(), 1).await;
    one.wire.cut(Cut::Refused);
    one.lead(&one.ask(1, "a", "lane")).await;
    let took = eventually("it is noticed", async || one.store.standing() == Standing::Down).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

// Nobody asks this replica for anything while the store goes away, or forgets.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_idle_replica_notices_what_becomes_of_the_store() {
    let remote = Remote::new();
    let one = Replica::on(&remote, 1).await;
    one.wire.cut(Cut::Refused);
    let took = eventually("it is noticed", async || one.store.standing() == Standing::Down).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    one.comes_back().await;
    remote.forgets();
    let took = eventually("it is noticed", async || one.store.standing() == Standing::Forgot).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

// A replay that was seen here needs no call, as long as it is fresh; forgetting the order ends it at once.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_replay_that_was_seen_here_pays_no_round_trip() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.settle(&hold, done()).await;
    one.store.delivered(&hold).await.expect("up");
    for replica in [&one, &other] {
        assert!(matches!(replica.claim(&replica.ask(2, "a", "lane")).await, Claimed::Replay(_)));
        replica.store.delivered(&hold).await.expect("up");
        let before = replica.wire.calls();
        sleep(Duration::from_secs(4)).await;
        for owner in 10..20 {
            let Claimed::Replay(record) = replica.claim(&replica.ask(owner, "a", "lane")).await else {
                panic!("it is kept")
            };
            assert!(record.remaining <= SEEN && record.remaining >= SEEN - Duration::from_secs(10));
            replica.store.delivered(&hold).await.expect("up");
        }
        assert_eq!(replica.wire.calls(), before);
    }
    assert_eq!(one.store.forget(key("lane")).await, Ok(1));
    one.lead(&one.ask(30, "a", "lane")).await;
    // The other replica learns of it when its copy is no longer fresh.
    sleep(Duration::from_secs(7)).await;
    assert!(matches!(other.claim(&other.ask(31, "a", "lane")).await, Claimed::Follow { .. }));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_copy_is_no_answer_to_another_body_or_a_new_generation() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let with_body = |ask: Ask, body: &str| Ask { body: Some(key(body)), ..ask };
    let hold = one.lead(&with_body(one.ask(1, "event", "lane"), "paid")).await;
    one.settle(&hold, done()).await;
    let other_body = one.claim(&with_body(one.ask(2, "event", "lane"), "refunded")).await;
    assert!(matches!(other_body, Claimed::Mismatch), "{other_body:?}");

    let of_session = |ask: Ask| Ask { generations: smallvec![key("session")], ..ask };
    let hold = one.lead(&of_session(one.ask(3, "cart", "cart lane"))).await;
    one.settle(&hold, done()).await;
    assert!(matches!(one.claim(&of_session(one.ask(4, "cart", "cart lane"))).await, Claimed::Replay(_)));
    other.store.begin_generation(key("session")).await.expect("up");
    one.lead(&of_session(one.ask(5, "cart", "cart lane"))).await;
}

// A new purchase begins while the store is away; the record of the older one is not brought back over it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_generation_that_began_alone_holds_for_all_on_the_way_back() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let of_session = |ask: Ask| Ask { generations: smallvec![key("session")], ..ask };
    let first = one.lead(&of_session(one.ask(1, "cart", "lane"))).await;
    one.settle(&first, done()).await;
    one.goes_down(Cut::Refused).await;
    one.store.begin_generation(key("session")).await.expect("it is remembered");
    let second = one.lead(&of_session(one.ask(2, "cart", "lane"))).await;
    one.settle(&second, Ending::Done { record: record("order 1002"), unseen: UNSEEN, seen: SEEN }).await;
    // Meanwhile the store gives out fences to others, later ones.
    other.lead(&other.ask(1, "b", "elsewhere")).await;
    one.comes_back().await;
    let Claimed::Replay(given) = other.claim(&of_session(other.ask(2, "cart", "lane"))).await else {
        panic!("the second purchase was done")
    };
    assert_eq!(given.body, record("order 1002").body);
}

// An operator speaks while the store is away.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_an_operator_resolves_alone_is_resolved_for_all_on_the_way_back() {
    for (resolution, after) in [(Resolution::Free, "lead"), (Resolution::Done(SEEN), "resolved")] {
        let remote = Remote::new();
        let (one, other) = two(&remote).await;
        let hold = one.lead(&one.ask(1, "a", "lane")).await;
        one.settle(&hold, Ending::InDoubt).await;
        one.goes_down(Cut::Refused).await;
        let nothing = one.store.resolve(key("unknown"), resolution).await;
        assert!(nothing.is_err(), "it may be in doubt there");
        assert_eq!(one.store.resolve(key("lane"), resolution).await, Ok(Resolved::Changed));
        one.comes_back().await;
        let came = match other.claim(&other.ask(1, "a", "lane")).await {
            Claimed::Lead(_) => "lead",
            Claimed::Resolved { .. } => "resolved",
            other => panic!("{other:?}"),
        };
        assert_eq!(came, after);
    }
}

// Two replicas that were both alone have sent the same order. Neither can undo it; nobody sends it a third time.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_two_replicas_did_alone_is_not_done_a_third_time() {
    let remote = Remote::new();
    let (one, other) = two(&remote).await;
    let third = Replica::on(&remote, 3).await;
    for replica in [&one, &other] {
        replica.goes_down(Cut::Refused).await;
    }
    let holds = (one.lead(&one.ask(1, "a", "lane")).await, other.lead(&other.ask(1, "a", "lane")).await);
    one.comes_back().await;
    other.wire.mend();
    eventually("the other is back too", async || other.store.standing() == Standing::Up).await;
    // The other's flight could not be placed: it blocks the order where it runs.
    assert!(matches!(other.claim(&other.ask(2, "b", "lane")).await, Claimed::Queue { .. }));
    one.settle(&holds.0, done()).await;
    assert!(matches!(third.claim(&third.ask(1, "a", "lane")).await, Claimed::Replay(_)));
    other.settle(&holds.1, done()).await;
    eventually("nothing is left over", async || other.store.kept() == 0).await;
    for replica in [&one, &other, &third] {
        assert!(matches!(replica.claim(&replica.ask(9, "a", "lane")).await, Claimed::Replay(_)));
    }
}

// A store that cannot be reached at the start is as one that went away.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_replica_that_starts_without_the_store_finds_it_later() {
    let remote = Remote::new();
    let other = Replica::on(&remote, 2).await;
    let one = {
        let wire = remote.wire();
        wire.cut(Cut::Refused);
        Replica::on_wire(wire, 1).await
    };
    assert_eq!(one.store.standing(), Standing::Down);
    let hold = one.lead(&one.ask(1, "a", "lane")).await;
    one.comes_back().await;
    assert!(
        matches!(other.claim(&other.ask(1, "a", "lane")).await, Claimed::Follow { fence, .. } if fence == hold.fence)
    );
}
