//! The store of a run: one Redis, a primary that Sentinels watch, or a Cluster; whole again after each fault.
//!
//! Nothing is lost by a restart here: every write is on the disk before it is answered. What is lost is lost by a
//! failover.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use super::network::{Net, Party, Relay};
use crate::world::redis::RedisServer;

const SENTINELS: usize = 3;
const PRIMARIES: usize = 3;
pub(super) const MASTER: &str = "shop";
const META: &str = "{oncegate}:meta";

/// A server that answers at all answers within this.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Whatever was broken is whole again within this.
const HEAL_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Alone,
    /// One primary and so many replicas of it.
    Sentinels {
        replicas: usize,
    },
    /// Three primaries with a replica each.
    Cluster,
}

pub(super) struct Servers {
    pub(super) shape: Shape,
    pub(super) net: Arc<Net>,
    pub(super) nodes: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    relays: Vec<Relay>,
    /// As replicas are told it.
    pub(super) url: String,
}

/// The relays of one run, before anything is behind them.
pub(super) struct Relays {
    nodes: Vec<Relay>,
    sentinels: Vec<Relay>,
}

impl Relays {
    pub(super) async fn open(net: &Arc<Net>, shape: Shape) -> Self {
        let (nodes, sentinels) = match shape {
            Shape::Alone => (1, 0),
            Shape::Sentinels { replicas } => (1 + replicas, SENTINELS),
            Shape::Cluster => (2 * PRIMARIES, 0),
        };
        let mut relays = Self { nodes: Vec::new(), sentinels: Vec::new() };
        for node in 0..nodes {
            relays.nodes.push(net.relay(Party::Server(node)).await);
        }
        for _ in 0..sentinels {
            relays.sentinels.push(net.relay(Party::Sentinel).await);
        }
        relays
    }
}

impl Servers {
    /// Blocks until all of it is up.
    pub(super) fn start(shape: Shape, net: Arc<Net>, relays: Relays, settings: &[&str]) -> Self {
        let (scheme, entries) = match shape {
            Shape::Alone => ("redis", &relays.nodes),
            Shape::Sentinels { .. } => ("redis+sentinel", &relays.sentinels),
            Shape::Cluster => ("redis+cluster", &relays.nodes),
        };
        let hosts: Vec<String> = entries.iter().map(|relay| relay.address.to_string()).collect();
        let path = match shape {
            Shape::Alone => "/0".to_owned(),
            Shape::Sentinels { .. } => format!("/{MASTER}"),
            Shape::Cluster => String::new(),
        };
        let url = format!("{scheme}://{}{path}", hosts.join(","));
        let nodes = relays.nodes.iter().map(|relay| start_node(shape, relay, settings)).collect();
        let mut servers = Self { shape, net, nodes, sentinels: Vec::new(), relays: relays.nodes, url };
        (0..servers.nodes.len()).for_each(|node| servers.enlist(node));
        match shape {
            Shape::Alone => {}
            Shape::Sentinels { .. } => servers.appoint_sentinels(&relays.sentinels),
            Shape::Cluster => servers.meet(),
        }
        servers.heal();
        servers
    }

    fn appoint_sentinels(&mut self, relays: &[Relay]) {
        let primary = self.relays[0].address.port();
        for node in &self.nodes[1..] {
            node.command(&format!("REPLICAOF 127.0.0.1 {primary}"));
        }
        wait("the replicas are there", || self.nodes[1..].iter().all(is_linked));
        for relay in relays {
            let sentinel = RedisServer::start_with(|folder, port, _| sentinel(folder, port, primary));
            // It looks and tells others of itself every 10 and 2 seconds, and believes a primary that came back for 8.
            sentinel
                .command("SENTINEL DEBUG INFO-PERIOD 200 PUBLISH-PERIOD 250 ASK-PERIOD 100 PING-PERIOD 100");
            self.net.enlist(sentinel.process(), Party::Sentinel);
            relay.lead_to(sentinel.port);
            self.sentinels.push(sentinel);
        }
    }

    /// Makes a Cluster of nodes that know nobody.
    fn meet(&mut self) {
        for node in &self.nodes[1..] {
            self.nodes[0].command(&format!("CLUSTER MEET 127.0.0.1 {} {}", node.port, node.bus_port));
        }
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        wait("all nodes know all", || self.nodes.iter().all(|node| says(node, "CLUSTER INFO", &all)));
        let share = 16384 / PRIMARIES;
        for (number, node) in self.nodes[..PRIMARIES].iter().enumerate() {
            let last = if number + 1 == PRIMARIES { 16383 } else { (number + 1) * share - 1 };
            node.command(&format!("CLUSTER ADDSLOTSRANGE {} {last}", number * share));
        }
        for (number, node) in self.nodes[PRIMARIES..].iter().enumerate() {
            let primary = bulk(&self.nodes[number].command("CLUSTER MYID"));
            wait("a replica is taken", || says(node, &format!("CLUSTER REPLICATE {primary}"), "+OK"));
        }
    }

    fn enlist(&self, node: usize) {
        self.net.enlist(self.nodes[node].process(), Party::Server(node));
    }

    pub(super) fn start_again(&mut self, node: usize) {
        self.nodes[node].start_again();
        self.enlist(node);
    }

    /// The node that calls go to, while nothing is broken.
    pub(super) fn primary(&self) -> usize {
        match self.shape {
            Shape::Alone => 0,
            Shape::Sentinels { .. } => self.chosen().expect("the Sentinels agree"),
            Shape::Cluster => self.owner().expect("somebody has the slot"),
        }
    }

    /// Who could take its place.
    pub(super) fn replicas_of(&self, primary: usize) -> Vec<usize> {
        let of = format!("master_port:{}\r\n", self.relays[primary].address.port());
        let follows = |&node: &usize| says(&self.nodes[node], "INFO replication", &of);
        (0..self.nodes.len()).filter(follows).collect()
    }

    /// When one of them has become a primary. None: nobody does.
    pub(super) fn taken_by(&self, replicas: &[usize], patience: Duration) -> Option<Instant> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let before = Instant::now();
            if replicas.iter().any(|&node| says(&self.nodes[node], "INFO replication", "role:master")) {
                return Some(before);
            }
            sleep(PAUSE);
        }
        None
    }

    /// Waits until nothing of it is broken any more.
    pub(super) fn heal(&self) {
        wait("the store is whole", || match self.shape {
            Shape::Alone => says(&self.nodes[0], "PING", "+PONG"),
            Shape::Sentinels { replicas } => self.sentinels_are_content(replicas),
            Shape::Cluster => self.cluster_is_whole(),
        });
    }

    /// The node that all Sentinels name.
    fn chosen(&self) -> Option<usize> {
        let question = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {MASTER}");
        let mut named = self.sentinels.iter().map(|sentinel| {
            let answer = sentinel.ask(&question, LOOK_MAX)?;
            let port = answer.lines().last()?.trim().parse::<u16>().ok()?;
            self.relays.iter().position(|relay| relay.address.port() == port)
        });
        let first = named.next()??;
        named.all(|other| other == Some(first)).then_some(first)
    }

    fn sentinels_are_content(&self, replicas: usize) -> bool {
        let Some(primary) = self.chosen() else { return false };
        let knows = |sentinel: &RedisServer| {
            let Some(told) = sentinel.ask(&format!("SENTINEL MASTER {MASTER}"), LOOK_MAX) else {
                return false;
            };
            field(&told, "flags") == Some("master")
                && field(&told, "num-other-sentinels").and_then(|count| count.parse().ok())
                    == Some(SENTINELS - 1)
                && field(&told, "num-slaves").and_then(|count| count.parse().ok()) == Some(replicas)
        };
        let port = self.relays[primary].address.port();
        let followed = self.nodes.iter().enumerate().all(|(node, server)| match node == primary {
            true => says(server, "INFO replication", "role:master"),
            false => {
                says(server, "INFO replication", &format!("master_port:{port}\r\n")) && is_linked(server)
            }
        });
        followed && self.sentinels.iter().all(knows)
    }

    /// The node that has the slot of the namespace, as far as exactly one believes so.
    fn owner(&self) -> Option<usize> {
        let question = format!("STRLEN {META}-of-nobody");
        let mut owners = (0..self.nodes.len()).filter(|&node| says(&self.nodes[node], &question, ":0"));
        let first = owners.next()?;
        owners.next().is_none().then_some(first)
    }

    fn cluster_is_whole(&self) -> bool {
        let is_whole = |node: &RedisServer| {
            let Some(map) = node.ask("CLUSTER NODES", LOOK_MAX) else { return false };
            let broken = ["fail", "handshake", "noaddr", "disconnected", "->-", "-<-"];
            says(node, "CLUSTER INFO", "cluster_state:ok")
                && !broken.iter().any(|word| map.contains(word))
                && map.matches("slave").count() == PRIMARIES
        };
        let has_company = |node: &RedisServer| {
            let told = node.ask("INFO replication", LOOK_MAX).unwrap_or_default();
            told.contains("connected_slaves:1\r\n") || told.contains("master_link_status:up")
        };
        self.owner().is_some() && self.nodes.iter().all(|node| is_whole(node) && has_company(node))
    }

    /// Asks for a failover in good order.
    pub(super) fn order_failover(&self, primary: usize) {
        match self.shape {
            Shape::Alone => {}
            Shape::Sentinels { .. } => {
                drop(self.sentinels[0].command(&format!("SENTINEL FAILOVER {MASTER}")))
            }
            Shape::Cluster => {
                let replicas = self.replicas_of(primary);
                self.nodes[replicas[0]].command("CLUSTER FAILOVER");
            }
        }
    }

    /// Moves the slot of the namespace to another primary, key by key, as an operator does.
    pub(super) fn migrate(&self, pause: Duration) {
        let from = self.primary();
        let holds_slots =
            |&node: &usize| node != from && says(&self.nodes[node], "INFO replication", "role:master");
        let to = (0..self.nodes.len()).find(holds_slots).expect("there are three primaries");
        let slot: u16 = bulk(&self.nodes[from].command(&format!("CLUSTER KEYSLOT {META}")))
            .parse()
            .expect("it is a number");
        let id = |node: usize| bulk(&self.nodes[node].command("CLUSTER MYID"));
        let (source, target) = (id(from), id(to));
        self.nodes[to].command(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.nodes[from].command(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
        let mut link = redis::Client::open(self.nodes[from].url())
            .and_then(|client| client.get_connection())
            .expect("it is there");
        loop {
            // Keys are bytes, which nobody can type.
            let keys: Vec<Vec<u8>> = redis::cmd("CLUSTER")
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(50)
                .query(&mut link)
                .expect("it tells its keys");
            if keys.is_empty() {
                break;
            }
            redis::cmd("MIGRATE")
                .arg(&["127.0.0.1", &self.nodes[to].port.to_string(), "", "0", "5000", "KEYS"])
                .arg(keys)
                .exec(&mut link)
                .expect("it can be moved");
            sleep(pause);
        }
        for node in [to, from] {
            self.nodes[node].command(&format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
    }
}

fn start_node(shape: Shape, relay: &Relay, settings: &[&str]) -> RedisServer {
    let announced = relay.address.port();
    let server = RedisServer::start_with(|folder, port, bus| {
        let more = match shape {
            Shape::Alone => String::new(),
            // Sentinels have it written down whose replica it is.
            Shape::Sentinels { .. } => {
                format!("replica-announce-ip 127.0.0.1\nreplica-announce-port {announced}\n")
            }
            Shape::Cluster => format!(
                "cluster-enabled yes\ncluster-port {bus}\ncluster-announce-ip 127.0.0.1\n\
                 cluster-announce-port {announced}\ncluster-announce-bus-port {bus}\ncluster-node-timeout 1000\n\
                 cluster-allow-replica-migration no\n"
            ),
        };
        let settings: String = settings.iter().map(|setting| format!("{setting}\n")).collect();
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsave \"\"\nrepl-diskless-sync-delay 0\nrepl-timeout 5\n\
             repl-ping-replica-period 1\n{settings}{more}"
        );
        let file = folder.join("redis.conf");
        fs::write(&file, text).expect("its settings");
        vec![file.to_string_lossy().into_owned()]
    });
    relay.lead_to(server.port);
    server
}

fn sentinel(folder: &Path, port: u16, primary: u16) -> Vec<String> {
    let file = folder.join("sentinel.conf");
    let text = format!(
        "bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {MASTER} 700\nsentinel failover-timeout {MASTER} 3000\n"
    );
    fs::write(&file, text).expect("its settings");
    vec![file.to_string_lossy().into_owned(), "--sentinel".to_owned()]
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + HEAL_MAX;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        sleep(PAUSE);
    }
}

fn says(server: &RedisServer, question: &str, answer: &str) -> bool {
    server.ask(question, LOOK_MAX).is_some_and(|said| said.contains(answer))
}

fn is_linked(server: &RedisServer) -> bool {
    says(server, "INFO replication", "master_link_status:up")
}

/// The text of an answer that is one text, or a number.
fn bulk(answer: &str) -> String {
    answer.lines().last().unwrap_or_default().trim_start_matches(':').trim().to_owned()
}

/// The value after this name in an answer of names and values.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines();
    lines.find(|line| *line == name)?;
    lines.nth(1)
}
