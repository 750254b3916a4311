//! The ninth guarantee: everything has a bound, and a bound reached is a refusal, never a send.

use tokio::{io::AsyncWriteExt, join, time::Instant};

use super::ORDER;
use crate::world::{CART, Gate, Setup, Shop, created, eventually, post, secs};

// A body that is too large, said at once or found on the way.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_bodies_are_bounded() {
    let shop = Shop::answers(created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("body_max = \"1KiB\"")).await;
    let large = format!("{CART}&note={}", "x".repeat(2000));
    assert_eq!(gate.post("/checkout", &large).await.refusal(), (413, "body-too-large".to_owned()));
    assert_eq!((shop.orders(), shop.attempts()), (0, 0));
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
}

// A body that dribbles in holds nothing but its own connection, and not for ever.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_the_time_of_a_body_is_bounded() {
    let shop = Shop::answers(created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("body_timeout = \"5s\"")).await;
    let mut wire = gate.connect();
    let head = "POST /checkout HTTP/1.1\r\nhost: shop.example\r\ncookie: session=alice\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 34\r\n\r\n";
    wire.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut wire, &mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request-timeout"), "{answer}");
    assert_eq!(shop.attempts(), 0);
}

// More queue for one order than the route allows; the queue is of that order only.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_lanes_are_bounded() {
    let shop = Shop::answers_after(secs(5), created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("lane_depth_max = 2")).await;
    let sent: Vec<_> =
        (0..3).map(|n| gate.begin(post("/checkout", &format!("order=1001&item={n}")))).collect();
    gate.until("two queue", |gate| gate.shared().claims.lanes.waiting() == 2).await;
    let refused = gate.post("/checkout", "order=1001&item=3").await;
    assert_eq!(refused.refusal(), (503, "lane-full".to_owned()));
    assert!(refused.retry_after() > 0);
    assert_eq!(gate.post("/checkout", "order=1002").await.verdict(), "lead");
    for sending in sent {
        assert_eq!(sending.answer().await.verdict(), "lead");
    }
    assert_eq!((shop.orders(), shop.overlaps()), (4, 0));
}

// Who waits in a lane waits as long as its route's clients do; it never goes to the shop.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_the_wait_in_a_lane_is_bounded() {
    let shop = Shop::answers_after(secs(60), created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("wait_max = \"10s\"")).await;
    let leading = gate.begin(post("/checkout", CART));
    shop.reached(1).await;
    let began = Instant::now();
    let queued = gate.post("/checkout", "order=1001&item=cup").await;
    assert_eq!(queued.refusal(), (503, "wait-exhausted".to_owned()));
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(leading);
    tokio::time::sleep(secs(120)).await;
    assert_eq!(shop.orders(), 1, "nobody waited for it any more");
}

// All bodies together: what does not fit is refused before anything is claimed.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_buffers_are_bounded_and_given_back() {
    let shop = Shop::answers_after(secs(5), created(ORDER));
    let setup = Setup::default().limits("buffers_max = \"1MiB\"").checkout("body_max = \"1MiB\"");
    let gate = Gate::with(&shop, setup).await;
    let large = |order: u32| format!("order={order}&note={}", "x".repeat(600 << 10));
    let first = gate.begin(post("/checkout", &large(1)));
    shop.reached(1).await;
    let refused = gate.post("/checkout", &large(2)).await;
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
    assert!(refused.retry_after() > 0);
    assert_eq!(first.answer().await.status, 201);
    gate.until("it is given back", |gate| gate.shared().buffers.used() == 0).await;
    assert_eq!(gate.post("/checkout", &large(2)).await.verdict(), "lead");
    assert_eq!(shop.orders(), 2);
}

// An answer larger than what is kept: the leader's client gets all of it, everybody else a refusal, the shop nothing.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_a_record_too_large_is_a_tombstone_and_never_a_second_send() {
    let shop = Shop::answers_large(3 << 20);
    let gate = Gate::start(&shop).await;
    let there = gate.replica(&shop, Setup::default()).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!((first.verdict(), first.body.len()), ("lead", 3 << 20));
    assert_eq!(first.body, Shop::large(3 << 20), "every byte in its place");
    assert_eq!(second.refusal(), (409, "answer-too-large".to_owned()));
    for gate in [gate, there] {
        assert_eq!(gate.post("/checkout", CART).await.refusal(), (409, "answer-too-large".to_owned()));
    }
    assert_eq!(shop.orders(), 1);
}

// A failure that is larger than what is kept: its followers are told that it failed, and the next try leads.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_a_failure_too_large_to_share_is_told_as_a_failure() {
    let large = created(&"0123456789".repeat(100)).status(500).with("location", "/order/1001");
    let shop = Shop::fails_then_succeeds(secs(3), large, created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("record_max = \"100B\"")).await;
    let there = gate.replica(&shop, Setup::default().checkout("record_max = \"100B\"")).await;
    let (first, second, third) =
        join!(gate.post("/checkout", CART), gate.post("/checkout", CART), there.post("/checkout", CART));
    assert_eq!((first.status.as_u16(), first.body.len()), (500, 1000));
    for refused in [second, third] {
        assert_eq!(refused.refusal(), (409, "answer-too-large".to_owned()));
        let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(problem["retry"], "safe", "{problem}");
        assert!(!refused.text().contains("carried out"), "{problem}");
    }
    let next = gate.post("/checkout", CART).await;
    assert_eq!(
        (next.verdict(), next.text(), shop.orders()),
        ("lead", "order 1001, run 2", 2),
        "the failed try and this one"
    );
}

// Flights outlive their clients: patience that ends early must not pile them up.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_flights_are_bounded() {
    let shop = Shop::answers_after(secs(30), created(ORDER));
    let setup = Setup::default().limits("flights_max = 3").checkout("wait_max = \"1s\"");
    let gate = Gate::with(&shop, setup).await;
    for order in 0..3 {
        let left = gate.post("/checkout", &format!("order={order}")).await;
        assert_eq!(left.refusal(), (503, "wait-exhausted".to_owned()));
    }
    let refused = gate.post("/checkout", "order=3").await;
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
    assert!(refused.retry_after() > 0);
    let follower = gate.post("/checkout", "order=2").await;
    assert_eq!(follower.refusal(), (503, "wait-exhausted".to_owned()), "a running flight may be followed");
    eventually("the flights land", || shop.visits().iter().all(|visit| visit.ended.is_some())).await;
    gate.until("they are counted out", |gate| gate.shared().claims.flights.running() == 0).await;
    assert_eq!(gate.begin(post("/checkout", "order=3")).answer().await.status, 503);
    assert_eq!(shop.orders(), 4);
}

// Orders that the store knows of at a time.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_9_the_states_of_the_store_are_bounded() {
    let shop = Shop::stalls_before_headers();
    let gate =
        Gate::with(&shop, Setup::default().store("states_max = 1000").checkout("wait_max = \"10s\"")).await;
    let sent: Vec<_> = (0..1000).map(|n| gate.begin(post("/checkout", &format!("order={n}")))).collect();
    shop.reached(1000).await;
    let refused = gate.post("/checkout", "order=1000").await;
    assert_eq!(refused.refusal(), (503, "overloaded".to_owned()));
    assert!(refused.retry_after() > 0);
    assert_eq!(shop.orders(), 1000);
    drop(sent);
}
