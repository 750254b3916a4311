//! What goes wrong, and when: each replica and the store has its own sequence of faults, all from one seed.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use super::{
    dice::Dice,
    network::{Link, Net, Network},
    replica::Replicas,
    servers::{Servers, Shape},
};

/// Another primary must have been chosen within this.
const FAILOVER_MAX: Duration = Duration::from_secs(30);

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
    /// The network between a replica and the store, or between the primary and all but the replicas.
    Cut(Network),
    /// The primary gives way in good order.
    Ordered,
    /// A replica of the primary is killed, and started again.
    ReplicaKilled,
    /// All that the store holds is moved to another primary.
    Migrated,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) from: Instant,
    pub(super) to: Instant,
    /// When another primary took over; until the end of the fault the old one may still be believed.
    pub(super) taken: Option<Instant>,
}

type Log = Arc<Mutex<Vec<Fault>>>;

/// Breaks things until the time is over, and leaves everything whole.
pub(super) async fn drive(
    replicas: &Arc<Replicas>,
    net: &Arc<Net>,
    servers: &Arc<Mutex<Servers>>,
    (seed, length): (u64, Duration),
) -> Vec<Fault> {
    let (log, until) = (Log::default(), Instant::now() + length);
    let mut all = JoinSet::new();
    for replica in 0..replicas.count() {
        let dice = Dice::new(seed, 1 + u64::try_from(replica).expect("it is small"));
        let (replicas, net) = (Arc::clone(replicas), Arc::clone(net));
        all.spawn(break_replica(replica, replicas, net, Arc::clone(&log), dice, until));
    }
    let (servers, store_log) = (Arc::clone(servers), Arc::clone(&log));
    all.spawn_blocking(move || {
        let mut servers = servers.lock().expect("nobody panics with it");
        break_store(&mut servers, &store_log, Dice::new(seed, 50), until);
    });
    while let Some(joined) = all.join_next().await {
        joined.expect("a fault does not panic");
    }
    let mut log = log.lock().expect("nobody panics with it");
    std::mem::take(&mut *log)
}

async fn break_replica(
    replica: usize,
    replicas: Arc<Replicas>,
    net: Arc<Net>,
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
            Kind::Cut(network) => {
                net.set(Link::Replica(replica), network);
                sleep(length).await;
                net.set(Link::Replica(replica), Network::Whole);
            }
            Kind::Stopped | Kind::Ordered | Kind::ReplicaKilled | Kind::Migrated => {
                replicas.signal(replica, "-STOP");
                sleep(length).await;
                replicas.signal(replica, "-CONT");
            }
        }
        let place = Place::Replica(replica);
        let fault = Fault { place, kind, from, to: Instant::now(), taken: None };
        log.lock().expect("nobody panics with it").push(fault);
    }
}

fn break_store(servers: &mut Servers, log: &Log, mut dice: Dice, until: Instant) {
    for number in 0.. {
        thread::sleep(dice.millis(2000..6000));
        if Instant::now() >= until {
            return;
        }
        let fault = match servers.shape {
            Shape::Alone => pause(servers, &mut dice),
            // Whatever the dice say, each run sees a failover, and a Cluster that its keys are moved.
            Shape::Sentinels { .. } => match (number, dice.below(10)) {
                (0, _) | (_, 0..6) => fail_over(servers, &mut dice),
                (_, 6..8) => kill_replica(servers, &mut dice),
                (_, _) => pause(servers, &mut dice),
            },
            Shape::Cluster => match (number, dice.below(10)) {
                (1, _) | (2.., 0..3) => migrate(servers, &mut dice),
                (0, _) | (_, 3..7) => fail_over(servers, &mut dice),
                (_, 7) => kill_replica(servers, &mut dice),
                (_, _) => pause(servers, &mut dice),
            },
        };
        log.lock().expect("nobody panics with it").push(fault);
    }
}

/// Gone, or silent, and back as it was. With others to take its place, for too short a time to be missed.
fn pause(servers: &mut Servers, dice: &mut Dice) -> Fault {
    let primary = servers.primary();
    let length = match (servers.shape, dice.below(4)) {
        (Shape::Alone, 0..3) => dice.millis(100..1500),
        (Shape::Alone, _) => dice.millis(2500..4500),
        (Shape::Sentinels { .. } | Shape::Cluster, _) => dice.millis(50..400),
    };
    let kind = if dice.below(2) == 0 { Kind::Killed } else { Kind::Stopped };
    let from = Instant::now();
    if kind == Kind::Killed {
        servers.nodes[primary].kill();
        thread::sleep(length);
        servers.start_again(primary);
    } else {
        servers.nodes[primary].signal("-STOP");
        thread::sleep(length);
        servers.nodes[primary].signal("-CONT");
    }
    servers.heal();
    // A busy machine may have taken longer, and somebody its place.
    let taken = (servers.primary() != primary).then_some(from);
    Fault { place: Place::Store, kind, from, to: Instant::now(), taken }
}

/// The primary goes, another one takes its place, and the old one comes back as a replica.
fn fail_over(servers: &mut Servers, dice: &mut Dice) -> Fault {
    let primary = servers.primary();
    let replicas = servers.replicas_of(primary);
    let kind = match (servers.shape, dice.below(10)) {
        (_, 0..4) => Kind::Killed,
        (_, 4..7) => Kind::Stopped,
        // Nodes of a Cluster talk past the relays.
        (Shape::Sentinels { .. }, 7..9) => Kind::Cut(Network::Closed),
        _ => Kind::Ordered,
    };
    let from = Instant::now();
    // Its replicas may be behind when it goes.
    let is_behind = kind != Kind::Ordered && dice.below(2) == 0;
    if is_behind {
        servers.net.set(Link::Replication, Network::Stalled);
        thread::sleep(dice.millis(100..600));
    }
    match kind {
        Kind::Killed => servers.nodes[primary].kill(),
        Kind::Cut(network) => servers.net.set(Link::Peers(primary), network),
        Kind::Ordered => servers.order_failover(primary),
        Kind::Stopped | Kind::ReplicaKilled | Kind::Migrated => servers.nodes[primary].signal("-STOP"),
    }
    if is_behind {
        // What was still under way never arrives.
        servers.net.set(Link::Replication, Network::Closed);
        thread::sleep(Duration::from_millis(50));
        servers.net.set(Link::Replication, Network::Whole);
    }
    let taken = servers.taken_by(&replicas, FAILOVER_MAX);
    assert!(taken.is_some(), "nobody takes the place of a primary that was {kind:?}");
    thread::sleep(dice.millis(0..1500));
    match kind {
        Kind::Killed => servers.start_again(primary),
        Kind::Cut(_) => servers.net.set(Link::Peers(primary), Network::Whole),
        Kind::Ordered => {}
        Kind::Stopped | Kind::ReplicaKilled | Kind::Migrated => servers.nodes[primary].signal("-CONT"),
    }
    servers.heal();
    Fault { place: Place::Store, kind, from, to: Instant::now(), taken }
}

fn kill_replica(servers: &mut Servers, dice: &mut Dice) -> Fault {
    let replicas = servers.replicas_of(servers.primary());
    let replica = replicas[usize::try_from(dice.below(8)).expect("it is small") % replicas.len()];
    let from = Instant::now();
    servers.nodes[replica].kill();
    thread::sleep(dice.millis(200..2000));
    servers.start_again(replica);
    servers.heal();
    Fault { place: Place::Store, kind: Kind::ReplicaKilled, from, to: Instant::now(), taken: None }
}

fn migrate(servers: &mut Servers, dice: &mut Dice) -> Fault {
    let from = Instant::now();
    servers.migrate(dice.millis(0..40));
    servers.heal();
    Fault { place: Place::Store, kind: Kind::Migrated, from, to: Instant::now(), taken: None }
}
