//! What goes wrong, and when: each replica and Redis has its own sequence of faults, all from one seed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use super::{
    dice::Dice,
    relay::{Network, Relay},
    replica::Replicas,
};
use crate::world::redis::RedisServer;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Replica(usize),
    Store,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// SIGKILL, and started again.
    Killed,
    /// SIGSTOP, and SIGCONT.
    Stopped,
    /// The network between a replica and the store.
    Cut(Network),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

type Log = Arc<Mutex<Vec<Fault>>>;

/// Breaks things until the time is over, and leaves everything whole.
pub(super) async fn drive(
    replicas: &Arc<Replicas>,
    relays: &Arc<Vec<Relay>>,
    redis: &Arc<Mutex<RedisServer>>,
    (seed, length): (u64, Duration),
) -> Vec<Fault> {
    let (log, until) = (Log::default(), Instant::now() + length);
    let mut all = JoinSet::new();
    for replica in 0..replicas.count() {
        let dice = Dice::new(seed, 1 + u64::try_from(replica).expect("it is small"));
        let (replicas, relays) = (Arc::clone(replicas), Arc::clone(relays));
        all.spawn(break_replica(replica, replicas, relays, Arc::clone(&log), dice, until));
    }
    all.spawn(break_store(Arc::clone(redis), Arc::clone(&log), Dice::new(seed, 50), until));
    while let Some(joined) = all.join_next().await {
        joined.expect("a fault does not panic");
    }
    let mut log = log.lock().expect("nobody panics with it");
    std::mem::take(&mut *log)
}

async fn break_replica(
    replica: usize,
    replicas: Arc<Replicas>,
    relays: Arc<Vec<Relay>>,
    log: Log,
    mut dice: Dice,
    until: Instant,
) {
    while Instant::now() < until {
        sleep(dice.millis(1000..4000)).await;
        // Shorter than the lease, longer than it, and longer than lease and hold together.
        let length = match dice.below(10) {
            0..6 => dice.millis(200..1500),
            6..9 => dice.millis(2200..4000),
            _ => dice.millis(5500..7000),
        };
        let kind = match dice.below(8) {
            0..3 => Kind::Killed,
            3..6 => Kind::Stopped,
            6 => Kind::Cut(Network::Stalled),
            _ => Kind::Cut(Network::Closed),
        };
        let from = Instant::now();
        match kind {
            Kind::Killed => {
                let again = Arc::clone(&replicas);
                replicas.kill(replica);
                sleep(length.min(Duration::from_secs(1))).await;
                spawn_blocking(move || again.start(replica)).await.expect("it starts");
            }
            Kind::Stopped => {
                replicas.signal(replica, "-STOP");
                sleep(length).await;
                replicas.signal(replica, "-CONT");
            }
            Kind::Cut(network) => {
                relays[replica].set(network);
                sleep(length).await;
                relays[replica].set(Network::Whole);
            }
        }
        let fault = Fault { place: Place::Replica(replica), kind, from, to: Instant::now() };
        log.lock().expect("nobody panics with it").push(fault);
    }
}

async fn break_store(redis: Arc<Mutex<RedisServer>>, log: Log, mut dice: Dice, until: Instant) {
    let lock = |redis: &Mutex<RedisServer>, deed: &dyn Fn(&mut RedisServer)| {
        deed(&mut redis.lock().expect("nobody panics with it"));
    };
    while Instant::now() < until {
        sleep(dice.millis(2000..7000)).await;
        let length = match dice.below(4) {
            0..3 => dice.millis(100..1500),
            _ => dice.millis(2500..4500),
        };
        let kind = if dice.below(2) == 0 { Kind::Killed } else { Kind::Stopped };
        let from = Instant::now();
        match kind {
            Kind::Killed => {
                lock(&redis, &RedisServer::kill);
                sleep(length).await;
                let again = Arc::clone(&redis);
                let start = move || again.lock().expect("nobody panics with it").start_again();
                spawn_blocking(start).await.expect("it starts again");
            }
            Kind::Stopped | Kind::Cut(_) => {
                lock(&redis, &|redis| redis.signal("-STOP"));
                sleep(length).await;
                lock(&redis, &|redis| redis.signal("-CONT"));
            }
        }
        let fault = Fault { place: Place::Store, kind, from, to: Instant::now() };
        log.lock().expect("nobody panics with it").push(fault);
    }
}
