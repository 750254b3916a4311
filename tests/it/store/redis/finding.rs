//! Where the primary is, who may ask it, and what is wrong with it.

use super::*;
use crate::store::conformance::{ask, done, lead, settle};
use oncegate::store::redis::{Finding, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_server_that_would_lose_orders_is_told_of() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let store = connected_as(Settings { wait_replicas: 2, ..settings(&server.url()) }).await;
    let findings = store.findings().await.expect("it is there");
    assert_eq!(
        findings,
        [
            Finding::Evicts { policy: "allkeys-lru".to_owned() },
            Finding::TooFewReplicas { wanted: 2, connected: 0 },
            Finding::NothingPersists,
        ]
    );
    let sound = RedisServer::start(&["--appendonly", "yes"]);
    assert_eq!(connected(&sound.url()).await.findings().await, Ok(vec![]));
    let saving = RedisServer::start(&["--save", "60 1000"]);
    assert_eq!(connected(&saving.url()).await.findings().await, Ok(vec![]));
}

#[tokio::test]
async fn a_user_who_may_touch_the_namespace_only_is_enough() {
    let server = RedisServer::start(&[]);
    server.command(
        "ACL SETUSER gate on >p@ss ~{shop}:* &{shop}:wake:* -@all +@scripting +@read +@write +@connection +@pubsub +time",
    );
    let url = format!("redis://gate:p%40ss@127.0.0.1:{}", server.port);
    let store = connected(&url).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    settle(&*store, &hold, done(&hold, "paid")).await;
    let findings = store.findings().await.expect("it is there");
    assert_eq!(
        findings,
        [Finding::Forbidden { question: "INFO" }, Finding::Forbidden { question: "CONFIG GET save" }]
    );
    let stranger = Redis::connect(settings(&format!("redis://gate:wrong@127.0.0.1:{}", server.port)));
    let stranger = stranger.expect("it starts");
    let refused = stranger.ready(Duration::from_millis(300)).await;
    assert!(matches!(&refused, Err(StoreError::Down(why)) if !why.contains("wrong")), "{refused:?}");
}

#[tokio::test]
async fn a_database_of_its_own_is_a_store_of_its_own() {
    let server = RedisServer::start(&[]);
    let first = connected(&format!("{}/0", server.url())).await;
    let second = connected(&format!("{}/1", server.url())).await;
    lead(&*first, &ask(1, "a", "order")).await;
    lead(&*second, &ask(1, "a", "order")).await;
}

#[tokio::test]
async fn a_namespace_of_its_own_is_a_store_of_its_own() {
    let server = RedisServer::start(&[]);
    let first = connected(&server.url()).await;
    let second =
        connected_as(Settings { namespace: "other-shop".to_owned(), ..settings(&server.url()) }).await;
    lead(&*first, &ask(1, "a", "order")).await;
    lead(&*second, &ask(1, "a", "order")).await;
    for namespace in ["", "{shop}", "a:b", &"x".repeat(65)] {
        let settings = Settings { namespace: namespace.to_owned(), ..settings(&server.url()) };
        assert!(matches!(Redis::connect(settings), Err(StartError::Namespace)), "{namespace}");
    }
}

#[tokio::test]
async fn the_sentinels_primary_is_used_and_after_a_failover_the_next_one() {
    let mut first = RedisServer::start(&[]);
    let second = RedisServer::start(&["--replicaof", "127.0.0.1", &first.port.to_string()]);
    let sentinel = RedisServer::start_sentinel("shop", first.port);
    until("it knows both", async || {
        sentinel.command("SENTINEL REPLICAS shop").contains(&second.port.to_string()).then_some(())
    })
    .await;
    let url = format!("redis+sentinel://127.0.0.1:{}/shop", sentinel.port);
    let store = connected(&url).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    until("it is replicated", async || {
        second.command(&format!("EXISTS {{shop}}:r:{}", hold.fence.0)).starts_with(":1").then_some(())
    })
    .await;
    first.kill();
    let claimed = until("the next one", async || store.claim(&ask(2, "b", "order")).await.ok()).await;
    assert!(matches!(claimed, Claimed::Queue { running, .. } if running == Some(hold.fence)), "{claimed:?}");
    assert_eq!(settle(&*store, &hold, done(&hold, "paid")).await, Settled::InTime);
}

#[tokio::test]
async fn in_a_cluster_the_owner_of_the_slot_is_found_and_found_again_when_it_moves() {
    let (one, two) = (RedisServer::start_node(), RedisServer::start_node());
    one.command("CLUSTER ADDSLOTSRANGE 0 16383");
    one.command(&format!("CLUSTER MEET 127.0.0.1 {} {}", two.port, two.bus_port));
    until("both are well", async || {
        [&one, &two]
            .iter()
            .all(|node| node.command("CLUSTER INFO").contains("cluster_state:ok"))
            .then_some(())
    })
    .await;
    // The node that is named is not the one that has the slot.
    let url = format!("redis+cluster://127.0.0.1:{}", two.port);
    let store = connected(&url).await;
    let other = connected(&format!("redis+cluster://127.0.0.1:{}", one.port)).await;
    listening(&one, 2).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    let waiting = claim(&*other, &ask(2, "a", "order")).await;
    let Claimed::Follow { wake, .. } = waiting else { panic!("{waiting:?}") };
    settle(&*store, &hold, done(&hold, "paid")).await;
    drop(tokio::time::timeout(PATIENCE, wake).await.expect("it is woken"));
    // An empty slot moves at once; its memory does not go with it.
    one.command("FLUSHALL");
    let slot = number(&one.command("CLUSTER KEYSLOT {shop}:meta"));
    let (from, to) = (bulk(&one.command("CLUSTER MYID")), bulk(&two.command("CLUSTER MYID")));
    two.command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
    one.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
    for server in [&two, &one] {
        server.command(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
    }
    let answer = until("the new owner", async || match store.claim(&ask(3, "c", "order")).await {
        Err(StoreError::Down(_)) => None,
        answer => Some(answer),
    })
    .await;
    assert!(matches!(answer, Err(StoreError::Forgot)), "{answer:?}");
}

fn number(answer: &str) -> u16 {
    answer.lines().next().and_then(|line| line.strip_prefix(':')).expect("a number").parse().expect("one")
}

fn bulk(answer: &str) -> String {
    answer.lines().nth(1).expect("a text").to_owned()
}

#[tokio::test]
async fn rediss_speaks_tls_and_nothing_before_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let store = Redis::connect(settings(&format!("rediss://:secret@127.0.0.1:{port}"))).expect("it starts");
    let (mut stream, _) = listener.accept().await.expect("it comes");
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.expect("it greets");
    // RFC 8446, section 5.1: a handshake record.
    assert_eq!(hello[..2], [0x16, 0x03]);
    stream.write_all(b"-ERR no TLS here\r\n").await.expect("it is told");
    let answer = store.ready(Duration::from_millis(300)).await;
    assert!(matches!(&answer, Err(StoreError::Down(why)) if !why.contains("secret")), "{answer:?}");
}
