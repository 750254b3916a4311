//! The Redis store keeps what every store promises, on a real redis-server and in real time; and what happens when the
//! server is gone, full, empty, somebody else's, or another one.

mod faults;
mod finding;
mod tls;
mod waking;

use std::{sync::Arc, time::Duration};

use oncegate::store::{
    Ask, Claimed, Ending, Hold, Settled, Store, StoreError,
    redis::{Address, Redis, Settings},
};

use super::conformance::{Stand, claim, conforms};
use crate::world::redis::RedisServer;

/// Longer than a slow machine takes; a test of deadlines takes a short one.
const PATIENCE: Duration = Duration::from_secs(20);

struct InRedis {
    store: Arc<Redis>,
    other: Arc<Redis>,
    _server: RedisServer,
}

impl Stand for InRedis {
    async fn start() -> Self {
        let server = RedisServer::start(&[]);
        let (store, other) = (connected(&server.url()).await, connected(&server.url()).await);
        listening(&server, 2).await;
        Self { store, other, _server: server }
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn other(&self) -> &dyn Store {
        &*self.other
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

conforms!(super::InRedis, tokio::test);

fn settings(url: &str) -> Settings {
    Settings {
        address: Address::parse(url).expect("an address"),
        namespace: "shop".to_owned(),
        deadline: PATIENCE,
        wait_replicas: 0,
    }
}

async fn connected(url: &str) -> Arc<Redis> {
    connected_as(settings(url)).await
}

async fn connected_as(settings: Settings) -> Arc<Redis> {
    let store = Redis::connect(settings).expect("it starts");
    store.ready(PATIENCE).await.expect("the server is there");
    store
}

/// Asks until the answer is this, for what happens by itself a little later.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Until a replica has subscribed, what it is told is lost; the one who waits would poll.
async fn listening(server: &RedisServer, replicas: usize) {
    until("all listen", async || {
        let channels = server.command("PUBSUB CHANNELS");
        (channels.matches("{shop}:wake:").count() == replicas).then_some(())
    })
    .await;
}
