//! What the agreement costs, counted at Redis and measured at the clients; `--nocapture` shows it.

mod loads;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep};

use super::{
    ALONE, Plan, World,
    clients::{Asked, post},
    shop::Manner,
};

const ANSWER_BYTES: usize = 2000;

impl World {
    async fn steady(work: Duration) -> Self {
        Self::steady_in(ALONE, work).await
    }

    async fn steady_in(plan: Plan, work: Duration) -> Self {
        let manner = Manner::Steady { work, bytes: ANSWER_BYTES };
        let world = Self::start(plan, manner, &[]).await;
        world.comes_to_rest().await;
        // The scripts are known, and each replica has a connection to the shop.
        for replica in 0..3 {
            post(&world.replicas, replica, format!("order=warm-{replica}&token=0")).await;
        }
        world
    }

    fn ask_redis(&self, command: &str) -> String {
        self.servers.lock().expect("nobody panics with it").nodes[0].command(command)
    }

    /// How often each command was called, by whoever.
    fn calls(&self) -> BTreeMap<String, u64> {
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        self.ask_redis("INFO commandstats").lines().filter_map(read).collect()
    }

    fn memory(&self) -> u64 {
        let info = self.ask_redis("INFO memory");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).expect("Redis says so")
    }

    /// Scripts are all that is sent to the store for a request.
    fn scripts(&self) -> u64 {
        let calls = self.calls();
        ["evalsha", "eval", "wait"].iter().filter_map(|name| calls.get(*name)).sum()
    }

    /// The round trips of these orders, one after the other, with those that were made after the answer.
    async fn cost(&self, replica: usize, orders: u64, expected: &str) -> u64 {
        let before = self.scripts();
        for order in 0..orders {
            let asked = post(&self.replicas, replica, format!("order={order}&token=0")).await;
            assert_eq!(verdict(&asked), expected);
        }
        let mut last = self.scripts();
        loop {
            sleep(Duration::from_millis(100)).await;
            let now = self.scripts();
            if now == last {
                return now - before;
            }
            last = now;
        }
    }
}

fn verdict(asked: &Asked) -> &str {
    asked.answer.as_ref().map_or("", |answer| answer.field("oncegate-verdict"))
}

// One round trip before the shop and one after it. None for what the replica has seen; for what another replica has seen
// one. That clients have the answers is told of some hundred at a time.
#[tokio::test]
async fn a_first_request_costs_two_round_trips_and_a_replay_none() {
    const ORDERS: u64 = 100;
    let world = World::steady(Duration::ZERO).await;
    let first = world.cost(0, ORDERS, "lead").await;
    let again = world.cost(0, ORDERS, "replay").await;
    let elsewhere = world.cost(1, ORDERS, "replay").await;
    let again_there = world.cost(1, ORDERS, "replay").await;
    println!(
        "round trips of {ORDERS} orders: first {first}, replay where it was led {again}, first replay on another \
         replica {elsewhere}, the next there {again_there}"
    );
    // Each replica looks at the store now and then by itself, and tells it now and then of what was delivered.
    let looks = ORDERS / 4;
    assert!((2 * ORDERS..=2 * ORDERS + looks).contains(&first), "{first}");
    assert!(again <= looks, "{again}");
    assert!((ORDERS..=ORDERS + looks).contains(&elsewhere), "{elsewhere}");
    assert!(again_there <= looks, "{again_there}");
}

// A duplicate that comes while its leader is at the shop joins it there: two round trips for the leader, none for fifty.
#[tokio::test]
async fn a_duplicate_on_the_leaders_replica_pays_no_round_trip() {
    const DUPLICATES: usize = 50;
    let world = World::steady(Duration::from_millis(1500)).await;
    let (before, mut all) = (world.scripts(), JoinSet::new());
    for _ in 0..=DUPLICATES {
        let replicas = std::sync::Arc::clone(&world.replicas);
        all.spawn(async move { post(&replicas, 0, "order=one&token=0".to_owned()).await });
    }
    let asked = all.join_all().await;
    let paid = world.scripts() - before;
    let followed = asked.iter().filter(|asked| verdict(asked) == "follow").count();
    assert_eq!((followed, asked.len()), (DUPLICATES, DUPLICATES + 1));
    println!("round trips of a leader and {DUPLICATES} that joined it: {paid}");
    // A claim, a settle, a renewal or two; what was delivered, and a look of each replica now and then.
    assert!((2..=12).contains(&paid), "{paid}");
}

// Of a hundred at once over three replicas one is sent; the others are told by push.
#[tokio::test]
async fn a_hundred_over_three_replicas_are_one_run() {
    let world = World::steady(Duration::from_millis(400)).await;
    let (mut lags, mut trips) = (Vec::new(), Vec::new());
    for storm in 0..10 {
        let (before, mut all) = (world.calls(), JoinSet::new());
        for duplicate in 0..100 {
            let replicas = std::sync::Arc::clone(&world.replicas);
            all.spawn(async move { post(&replicas, duplicate % 3, format!("order={storm}&token=0")).await });
        }
        let asked = all.join_all().await;
        let after = world.calls();
        let runs = world.shop.runs();
        let runs: Vec<_> = runs.iter().filter(|run| run.order() == format!("order={storm}")).collect();
        assert_eq!(runs.len(), 1, "{runs:?}; {:?}", asked.first());
        let bodies: std::collections::BTreeSet<_> =
            asked.iter().map(|asked| asked.answer.as_ref().map(|answer| &answer.body)).collect();
        assert_eq!(bodies.len(), 1, "one answer");
        let (said, _) = runs[0].ended.expect("it has answered");
        let last: Option<Instant> = asked.iter().map(|asked| asked.ended).max();
        lags.push(last.expect("a hundred").duration_since(said));
        let scripts = |calls: &BTreeMap<String, u64>| calls.get("evalsha").copied().unwrap_or(0);
        trips.push(scripts(&after) - scripts(&before));
    }
    lags.sort_unstable();
    trips.sort_unstable();
    println!("from the shop's answer to the last of 100: median {:?}, worst {:?}", lags[5], lags[9]);
    println!("round trips of 100 over three replicas: median {}, most {}", trips[5], trips[9]);
    assert!(lags[5] < Duration::from_secs(1), "{lags:?}");
    // Three claims, a settle and three deliveries; the polls and looks of a slow machine come on top.
    assert!(trips[5] <= 20, "{trips:?}");
}

// What an order weighs in Redis: its lane, its record and what belongs to them.
#[tokio::test]
async fn a_record_weighs_little_more_than_its_answer() {
    const ORDERS: u64 = 1000;
    let world = World::steady(Duration::ZERO).await;
    let (keys, memory) = (world.ask_redis("DBSIZE"), world.memory());
    for order in 0..ORDERS {
        let replica = usize::try_from(order % 3).expect("it is small");
        assert_eq!(verdict(&post(&world.replicas, replica, format!("order={order}&token=0")).await), "lead");
    }
    let each = (world.memory() - memory) / ORDERS;
    println!(
        "{each} bytes in Redis for an answer of {ANSWER_BYTES} bytes; keys {keys:?} → {:?}",
        world.ask_redis("DBSIZE")
    );
    assert!(each < 2 * u64::try_from(ANSWER_BYTES).expect("it is small"), "{each} bytes");
}
