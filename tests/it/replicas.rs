//! Three replicas of the program, one Redis, and a shop that counts, while things break: replicas are killed, stopped
//! and cut off, and so is Redis. What the shop's own log says is held against the promise.
//!
//! `ONCEGATE_SEED` runs the faults and orders of a run again, as far as processes can be made to do the same twice;
//! `ONCEGATE_CHAOS_SECONDS` makes it longer (`cargo nextest run --profile long` bears half an hour).

mod check;
mod clients;
mod dice;
mod faults;
mod figures;
mod relay;
mod replica;
mod shop;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use self::{
    check::{Book, Found},
    clients::{Asked, exchange, post, storm},
    dice::Dice,
    faults::{Kind, Place, drive},
    relay::Relay,
    replica::Replicas,
    shop::{Manner, Shop},
};
use crate::world::redis::RedisServer;

const REPLICAS: usize = 3;
const LEASE: Duration = Duration::from_secs(2);
const HOLD: Duration = Duration::from_secs(3);
/// Once nothing is broken any more, everybody is back within this.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// `on_store_down`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    Refuse,
    Local,
}

struct World {
    replicas: Arc<Replicas>,
    relays: Arc<Vec<Relay>>,
    redis: Arc<Mutex<RedisServer>>,
    shop: Shop,
}

impl World {
    async fn start(policy: Policy, manner: Manner, settings: &'static [&'static str]) -> Self {
        let redis = spawn_blocking(move || RedisServer::start(settings)).await.expect("Redis starts");
        let mut relays = Vec::new();
        for _ in 0..REPLICAS {
            relays.push(Relay::start(SocketAddr::from(([127, 0, 0, 1], redis.port))).await);
        }
        let lives = Arc::new(Mutex::new(vec![0; REPLICAS]));
        let shop = Shop::open(REPLICAS, manner, Arc::clone(&lives)).await;
        let to: Vec<_> =
            shop.addresses.iter().copied().zip(relays.iter().map(|relay| relay.address)).collect();
        let replicas =
            spawn_blocking(move || Replicas::new(policy, lives, &to)).await.expect("the replicas start");
        Self { replicas, relays: Arc::new(relays), redis: Arc::new(Mutex::new(redis)), shop }
    }

    /// Waits until the shop rests and each replica is with the store again.
    async fn comes_to_rest(&self) {
        let until = Instant::now() + BACK_WITHIN;
        for replica in 0..REPLICAS {
            while !self.is_ready(replica).await {
                assert!(Instant::now() < until, "replica {replica} does not come back");
                sleep(Duration::from_millis(50)).await;
            }
        }
        while !self.shop.is_idle() {
            assert!(Instant::now() < until, "the shop does not come to rest");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_ready(&self, replica: usize) -> bool {
        let Some(admin) = self.replicas.admin(replica) else { return false };
        let look = exchange(admin, "GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        look.is_some_and(|look| look.status() == 200 && look.body == "ready\n")
    }

    /// New orders at every replica: each is one run, whose answer all get, as if nothing had ever been broken.
    async fn agrees(&self) -> Vec<Asked> {
        let mut all = Vec::new();
        for order in 0..10 {
            let request = format!("order=after-{order}&token=0");
            let ask = |replica| post(&self.replicas, replica, request.clone());
            let (one, two, three) = tokio::join!(ask(0), ask(1), ask(2));
            all.extend([one, two, three]);
        }
        all
    }
}

async fn chaos(policy: Policy) {
    let (seed, length) = (dice::seed(), dice::length());
    println!("ONCEGATE_SEED={seed} ONCEGATE_CHAOS_SECONDS={}, {policy:?}", length.as_secs());
    // Every write is on disk before it is answered: a Redis that is killed loses nothing that it has acknowledged.
    let settings = &["--appendonly", "yes", "--appendfsync", "always"];
    let world = World::start(policy, Manner::Moody(Dice::new(seed, 100)), settings).await;
    let began = Instant::now();
    let (mut asked, faults) = tokio::join!(
        storm(&world.replicas, seed, length),
        drive(&world.replicas, &world.relays, &world.redis, (seed, length))
    );
    world.comes_to_rest().await;
    let after = world.agrees().await;
    assert!(after.iter().all(|asked| asked.answer.is_some()), "somebody is not answered: {after:?}");
    asked.extend(after);
    let book = Book { policy, began, runs: world.shop.runs(), asked, faults, turns: world.replicas.turns() };
    let found = book.check();
    tell(&book, &found);
    assert!(world.replicas.complaints().is_empty(), "{:?}", world.replicas.complaints());
    assert!(
        found.violations.is_empty(),
        "ONCEGATE_SEED={seed}: {} violations\n{}\n{}",
        found.violations.len(),
        found.violations.join("\n"),
        book.history()
    );
    something_happened(&book);
}

fn tell(book: &Book, found: &Found) {
    let verdict = |verdict: &str| {
        let is = |asked: &&Asked| {
            asked.answer.as_ref().is_some_and(|answer| answer.field("oncegate-verdict") == verdict)
        };
        book.asked.iter().filter(is).count()
    };
    let orders: std::collections::BTreeSet<&str> =
        book.asked.iter().map(|asked| shop::order_of(&asked.request)).collect();
    println!(
        "{} orders, {} requests: {} led, {} followed, {} replayed, {} refused, {} lost their replica; {} sends",
        orders.len(),
        book.asked.len(),
        verdict("lead"),
        verdict("follow"),
        verdict("replay"),
        verdict("refuse"),
        book.asked.iter().filter(|asked| asked.answer.is_none()).count(),
        book.runs.len()
    );
    let faults = |of: &dyn Fn(Kind, Place) -> bool| {
        book.faults.iter().filter(|fault| of(fault.kind, fault.place)).count()
    };
    println!(
        "faults: {} kills, {} stops, {} cuts of replicas; {} kills, {} stops of Redis",
        faults(&|kind, place| kind == Kind::Killed && place != Place::Store),
        faults(&|kind, place| kind == Kind::Stopped && place != Place::Store),
        faults(&|kind, _| matches!(kind, Kind::Cut(_))),
        faults(&|kind, place| kind == Kind::Killed && place == Place::Store),
        faults(&|kind, place| kind == Kind::Stopped && place == Place::Store),
    );
    let Found { violations, overlaps_excused, after_failure, after_doubt, alone } = found;
    println!(
        "sent again: {after_failure} after a failure, {after_doubt} after the doubt was over, {alone} alone; \
         {overlaps_excused} overlaps excused; violations: {}",
        violations.len()
    );
}

/// A run in which nothing was at stake proves nothing.
fn something_happened(book: &Book) {
    assert!(book.runs.len() >= 50, "{} sends", book.runs.len());
    assert!(book.asked.len() >= 3 * book.runs.len() / 2, "{} requests", book.asked.len());
    assert!(book.faults.len() >= 5, "{} faults", book.faults.len());
}

// `on_store_down = "refuse"`: whatever breaks, no order is twice at the shop at one time, but for a leader that was
// away for longer than its lease and the hold together.
#[tokio::test]
async fn replicas_that_do_nothing_without_the_store_never_send_twice() {
    chaos(Policy::Refuse).await;
}

// `on_store_down = "local"`: replicas that are alone may differ, and nobody else.
#[tokio::test]
async fn replicas_that_go_on_alone_differ_only_while_they_are_alone() {
    chaos(Policy::Local).await;
}
