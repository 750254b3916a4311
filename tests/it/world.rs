//! The world of the guarantee tests: the real gate between clients and a scripted shop, over byte streams in memory.
//!
//! A configuration text is parsed by the real parser, [`oncegate::server::assemble`] makes the gate, connections are
//! served by [`oncegate::edge::http::serve`]; only sockets, threads and the passing of time are not real. It opens no
//! port. Time is paused: a test of ten minutes takes milliseconds, and is exact.

mod client;
pub(crate) mod redis;
mod setup;
mod shop;
mod store;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use oncegate::{
    edge::{
        cores::{self, Stop},
        http,
        roster::Roster,
    },
    gate::{
        self,
        forward::{Peer, Trust},
    },
    server,
    store::Store,
    upstream::{Connect, connect::ServiceConnector},
};
use tokio::{
    io::DuplexStream,
    task::{JoinSet, spawn_local},
};

pub(crate) use client::{Answer, Ask, Sending, get, post, post_json};
pub(crate) use setup::Setup;
pub(crate) use shop::{Ended, Reply, Shop, created, declined, ok};
pub(crate) use store::Flaky;

/// Bytes that a connection holds on its way, each direction.
const PIPE_BYTES: usize = 64 << 10;
/// What an order weighs in a form, and the cart that most tests send.
pub(crate) const CART: &str = "order=1001&item=teapot&quantity=1";

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What a task came to that a test started in the background.
type Tasks = Rc<RefCell<JoinSet<()>>>;

/// One core of one replica.
#[derive(Clone)]
pub(crate) struct Gate {
    core: Rc<gate::Core>,
    roster: Rc<Roster>,
    stop: Stop,
    store: Arc<dyn Store>,
    log: Written,
    tasks: Tasks,
    _end: Rc<End>,
}

impl Gate {
    /// The gate in front of a shop, as [`Setup::default`] has it.
    pub(crate) async fn start(shop: &Shop) -> Self {
        Self::with(shop, Setup::default()).await
    }

    pub(crate) async fn with(shop: &Shop, setup: Setup) -> Self {
        let store = Flaky::new(&setup.parse());
        Self::on_store(shop, setup, store).await
    }

    /// A replica on a store that is there already, or on one that misbehaves.
    pub(crate) async fn on_store(shop: &Shop, setup: Setup, store: Arc<dyn Store>) -> Self {
        let log = Written::default();
        let shared =
            server::assemble(setup.parse(), Arc::clone(&store), log.clone()).expect("a thread for the log");
        let tasks = Tasks::default();
        let end = Rc::new(End { tasks: Rc::clone(&tasks) });
        Self::serve(shop, shared, store, log, tasks, end).await
    }

    /// Another replica on the same store.
    pub(crate) async fn replica(&self, shop: &Shop, setup: Setup) -> Self {
        Self::on_store(shop, setup, Arc::clone(&self.store)).await
    }

    /// Another core of the same replica.
    pub(crate) async fn another_core(&self, shop: &Shop) -> Self {
        let (shared, store) = (Arc::clone(&self.core.gate), Arc::clone(&self.store));
        Self::serve(shop, shared, store, self.log.clone(), Rc::clone(&self.tasks), Rc::clone(&self._end))
            .await
    }

    async fn serve(
        shop: &Shop,
        shared: Arc<gate::Gate>,
        store: Arc<dyn Store>,
        log: Written,
        tasks: Tasks,
        end: Rc<End>,
    ) -> Self {
        let shop = shop.clone();
        let connector = ServiceConnector(tower::service_fn(move |server: String| {
            let shop = shop.clone();
            async move { shop.connect(&server).await }
        }));
        let connector: Rc<dyn Connect> = Rc::new(connector);
        let core = gate::Core::new(shared, &connector);
        let (roster, stop) = (Rc::new(Roster::default()), Stop::default());
        drop(spawn_local(cores::tick(Rc::clone(&core), Rc::clone(&roster), stop.clone())));
        Self { core, roster, stop, store, log, tasks, _end: end }
    }

    /// A client's connection, as bytes.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        let peer = Peer::new("192.0.2.7".parse().ok(), Trust::Untrusted);
        let serving = http::serve(Rc::clone(&self.core), Rc::clone(&self.roster), server, peer, 0);
        let mut tasks = self.tasks.borrow_mut();
        // What has ended is taken out on the way, so that a panic in it is not lost.
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("no connection's task may panic");
        }
        tasks.spawn_local(serving);
        client
    }

    /// Sends on a connection of its own and waits for the whole answer.
    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        self.try_send(ask).await.expect("a whole answer")
    }

    /// An error is an answer that broke off, or none.
    pub(crate) async fn try_send(&self, ask: Ask) -> Result<Answer, String> {
        let mut answers = client::exchange(self.connect(), vec![ask]).await?;
        Ok(answers.remove(0))
    }

    /// Sends one after the other on one connection.
    pub(crate) async fn send_all(&self, asks: Vec<Ask>) -> Vec<Answer> {
        client::exchange(self.connect(), asks).await.expect("whole answers")
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(post(target, body)).await
    }

    /// Sends in the background.
    pub(crate) fn begin(&self, ask: Ask) -> Sending {
        let gate = self.clone();
        Sending::new(async move { gate.try_send(ask).await })
    }

    /// The value of a series whose name and labels contain all of these texts; 0 where there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.core.gate.metrics.encode();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// The lines of guarded exchanges so far.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        self.lines().into_iter().filter(|line| line.get("verdict").is_some()).collect()
    }

    /// The events of a name so far: what an operator has to know besides.
    pub(crate) fn events(&self, name: &str) -> Vec<serde_json::Value> {
        self.lines().into_iter().filter(|line| line["event"] == name).collect()
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.log_bytes()).expect("a log in UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    pub(crate) fn log_bytes(&self) -> Vec<u8> {
        let _ = self.core.gate.log.flush(secs(5));
        self.log.0.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn shared(&self) -> &gate::Gate {
        &self.core.gate
    }

    /// What SIGTERM does on a core.
    pub(crate) fn drain(&self) {
        self.core.gate.drain();
        self.stop.drain.cancel();
    }

    /// What the end of the drain does on a core.
    pub(crate) fn cut(&self) {
        self.core.gate.cut.cancel();
        self.stop.now.cancel();
    }

    /// Every flight and every connection is over.
    pub(crate) async fn landed(&self) {
        self.core.gate.claims.stopping.cancel();
        self.core.gate.claims.landed().await;
    }

    /// Waits until something holds, a minute of the world's time at most.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, || holds(self)).await;
    }

    /// The lane of an order, as the store names it, for the operator's calls.
    pub(crate) fn lane(&self, route: &str, ask: &Ask) -> oncegate::store::Key {
        let config = &self.core.gate.config;
        let guard = config.route(route).and_then(|route| route.guard.as_ref()).expect("a guarded route");
        ask.reading(&guard.rules, &self.core.gate.secret).lanes[0]
    }
}

/// Waits until something holds: looks every millisecond of the world's time, a minute at most.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(millis(1)).await;
    }
    panic!("it never happened that {what}");
}

/// The end of a gate: a panic in one of its connections fails the test that lives in it.
struct End {
    tasks: Tasks,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut tasks = self.tasks.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            if !std::thread::panicking() {
                ended.expect("no connection's task may panic");
            }
        }
    }
}

/// Where the log goes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
