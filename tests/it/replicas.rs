//! Three replicas of the program, their store, and a shop that counts, while things break: replicas are killed, stopped
//! and cut off, and so is Redis, alone, under Sentinels and as a Cluster. What the shop's own log says is held against the
//! promise.
//!
//! `ONCEGATE_SEED` runs the faults and orders of a run again, as far as processes can be made to do the same twice;
//! `ONCEGATE_CHAOS_SECONDS` makes it longer, and `tests/run --long` runs all of it for half an hour.

mod check;
mod clients;
mod dice;
mod faults;
mod figures;
mod network;
mod replica;
mod report;
mod servers;
mod shop;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use self::{
    check::Book,
    clients::{Asked, exchange, post, storm},
    dice::Dice,
    faults::drive,
    network::Net,
    replica::Replicas,
    servers::{Relays, Servers, Shape},
    shop::{Manner, Shop},
};

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

/// What a run is about.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// As reports name it.
    name: &'static str,
    shape: Shape,
    policy: Policy,
    wait_replicas: usize,
}

const ALONE: Plan = Plan { name: "alone", shape: Shape::Alone, policy: Policy::Refuse, wait_replicas: 0 };

struct World {
    replicas: Arc<Replicas>,
    net: Arc<Net>,
    servers: Arc<Mutex<Servers>>,
    shop: Shop,
}

impl World {
    async fn start(plan: Plan, manner: Manner, settings: &'static [&'static str]) -> Self {
        let net = Net::new();
        let relays = Relays::open(&net, plan.shape).await;
        let behind = Arc::clone(&net);
        let servers = spawn_blocking(move || Servers::start(plan.shape, behind, relays, settings));
        let servers = servers.await.expect("Redis starts");
        let lives = Arc::new(Mutex::new(vec![0; REPLICAS]));
        let shop = Shop::open(REPLICAS, manner, Arc::clone(&lives)).await;
        let (shops, url, to) = (shop.addresses.clone(), servers.url.clone(), Arc::clone(&net));
        let replicas = spawn_blocking(move || Replicas::new(plan, to, lives, (&shops, &url)));
        let replicas = replicas.await.expect("the replicas start");
        Self { replicas, net, servers: Arc::new(Mutex::new(servers)), shop }
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

async fn chaos(plan: Plan) {
    let (seed, length) = (dice::seed(), dice::length());
    println!("ONCEGATE_SEED={seed} ONCEGATE_CHAOS_SECONDS={}: {}", length.as_secs(), plan.name);
    // Every write is on disk before it is answered: a Redis that is killed loses nothing that it has acknowledged.
    let settings = &["appendonly yes", "appendfsync always"];
    let world = World::start(plan, Manner::Moody(Dice::new(seed, 100)), settings).await;
    world.comes_to_rest().await;
    let began = Instant::now();
    let (mut asked, faults) = tokio::join!(
        storm(&world.replicas, seed, length),
        drive(&world.replicas, &world.net, &world.servers, (seed, length))
    );
    world.comes_to_rest().await;
    let after = world.agrees().await;
    assert!(after.iter().all(|asked| asked.answer.is_some()), "somebody is not answered: {after:?}");
    asked.extend(after);
    let book = Book { plan, began, runs: world.shop.runs(), asked, faults, turns: world.replicas.turns() };
    let found = book.check();
    report::tell(&book, &found, seed);
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

/// A run in which nothing was at stake proves nothing.
fn something_happened(book: &Book) {
    assert!(book.runs.len() >= 50, "{} sends", book.runs.len());
    assert!(book.asked.len() >= 3 * book.runs.len() / 2, "{} requests", book.asked.len());
    assert!(book.faults.len() >= 5, "{} faults", book.faults.len());
    let others_took_over = book.faults.iter().any(|fault| fault.taken.is_some());
    assert!(others_took_over || book.plan.shape == Shape::Alone, "no failover");
}

// `on_store_down = "refuse"`: whatever breaks, no order is twice at the shop at one time, but for a leader that was
// away for longer than its lease and the hold together.
#[tokio::test]
async fn replicas_that_do_nothing_without_the_store_never_send_twice() {
    chaos(Plan { name: "refuse", ..ALONE }).await;
}

// `on_store_down = "local"`: replicas that are alone may differ, and nobody else.
#[tokio::test]
async fn replicas_that_go_on_alone_differ_only_while_they_are_alone() {
    chaos(Plan { name: "local", policy: Policy::Local, ..ALONE }).await;
}

// `wait_replicas = 1`: what one replica of Redis has is not lost when that one takes over.
#[tokio::test]
async fn a_failover_by_sentinels_loses_no_claim_that_a_replica_was_waited_for() {
    let shape = Shape::Sentinels { replicas: 1 };
    chaos(Plan { name: "sentinel-wait", shape, wait_replicas: 1, ..ALONE }).await;
}

// Without it only the claims of the old primary's last moments are lost, and those that it granted as one of two.
#[tokio::test]
async fn a_failover_by_sentinels_loses_no_more_than_the_last_moments() {
    let shape = Shape::Sentinels { replicas: 2 };
    chaos(Plan { name: "sentinel", shape, ..ALONE }).await;
}

// Failovers, and slots that move to another node with all their keys while they are asked for.
#[tokio::test]
async fn a_cluster_that_fails_over_and_moves_its_slots_keeps_the_promise() {
    chaos(Plan { name: "cluster", shape: Shape::Cluster, wait_replicas: 1, ..ALONE }).await;
}
