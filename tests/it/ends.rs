//! How exchanges end at the edges of the bounds: coded answers, spent buffers, patience, the end of the process.

use std::io::Write;

use http::Method;
use oncegate::gate::core::Lent;
use tokio::time::Instant;

use crate::world::{Ask, CART, Gate, Setup, Shop, created, declined, get, ok, post, secs};

const BY_RESULT: &str = "done_when = { json = { \"/result\" = \"success\" } }";

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

// A shop compresses though it was asked not to: its no is still a no, and its yes is kept.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_decline_that_is_compressed_is_not_done() {
    for lines in [BY_RESULT, &format!("{BY_RESULT}\nenforce = false")] {
        let no = declined().body(&gzip(r#"{"result":"failure"}"#)).with("content-encoding", "gzip");
        let yes = declined().body(&gzip(r#"{"result":"success"}"#)).with("content-encoding", "gzip");
        let shop = Shop::fails_then_succeeds(secs(1), no, yes);
        let gate = Gate::with(&shop, Setup::default().checkout(lines)).await;
        for _ in 0..3 {
            assert_eq!(gate.post("/checkout", CART).await.header("content-encoding"), "gzip");
        }
        let log = gate.log();
        let reasons: Vec<_> = log.iter().map(|line| line["reason"].as_str().unwrap()).collect();
        match lines.contains("enforce") {
            false => assert_eq!((shop.orders(), reasons), (2, vec!["failed", "done", "done"])),
            true => assert_eq!((shop.orders(), reasons), (3, vec!["observe", "observe", "would-replay"])),
        }
    }
}

// Others hold all buffers: a decline of a few bytes is read all the same.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_decline_is_no_order_because_buffers_are_full() {
    let shop = Shop::fails_then_succeeds(secs(1), declined(), ok(r#"{"result":"success"}"#));
    let gate = Gate::with(&shop, Setup::default().checkout(BY_RESULT)).await;
    let buffers = &gate.shared().buffers;
    let mut others = Lent::none(buffers);
    assert!(others.grow(gate.shared().config.limits.buffers_max - CART.len()));
    assert_eq!(gate.post("/checkout", CART).await.text(), declined_text());
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
    drop(others);
    assert_eq!((shop.orders(), buffers.used()), (2, 0));
}

fn declined_text() -> &'static str {
    r#"{"result":"failure","messages":"Your card was declined."}"#
}

// A large answer stops half way: its client learns it when the patience is over, not when the order is given up.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_relayed_answer_breaks_off_when_the_patience_with_it_is_over() {
    let large = "x".repeat(10_000);
    let shop = Shop::stalls_after_headers(created(&large));
    let setup = Setup::default().checkout("record_max = \"100B\"").upstream("answer_timeout = \"10s\"");
    let gate = Gate::with(&shop, setup).await;
    let began = Instant::now();
    let broken = gate.try_send(post("/checkout", CART)).await;
    assert!(broken.is_err(), "{broken:?}");
    assert!(began.elapsed() <= secs(11), "{:?}", began.elapsed());
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
}

// The drain's deadline has come: who waits is told whether the order may have been placed.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_drain_that_is_cut_short_tells_those_who_wait() {
    let shop = Shop::stalls_before_headers();
    let gate = Gate::start(&shop).await;
    let (first, second) = (gate.begin(post("/checkout", CART)), gate.begin(post("/checkout", CART)));
    shop.reached(1).await;
    let queued = gate.begin(post("/checkout", "order=1001&item=cup"));
    gate.until("one queues", |gate| gate.shared().claims.lanes.waiting() == 1).await;
    gate.drain();
    gate.cut();
    for sent in [first, second] {
        let answer = sent.answer().await;
        assert_eq!(answer.refusal(), (503, "outcome-unknown".to_owned()));
        assert!(answer.retry_after() > 0);
    }
    assert_eq!(queued.answer().await.refusal(), (503, "draining".to_owned()));
    assert_eq!(shop.orders(), 1);
}

// Nothing has reached the shop: what is only observed is in no doubt about it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_observed_order_that_no_shop_saw_is_not_in_doubt() {
    let shop = Shop::refuses_connections(2, created("order"));
    let gate = Gate::with(&shop, Setup::default().checkout("enforce = false")).await;
    assert_eq!(gate.post("/checkout", CART).await.status, 502);
    assert_eq!(gate.post("/checkout", CART).await.status, 201);
    let log = gate.log();
    let reasons: Vec<_> = log.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["upstream-unreachable", "observe"]);
}

// A shop that is too slow shows in the metrics, once for each request, also when it answers after all.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_timeout_counts_once() {
    let shop = Shop::answers_after(secs(30), created("order"));
    let gate = Gate::with(&shop, Setup::default().upstream("answer_timeout = \"10s\"")).await;
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (504, "upstream-timeout".to_owned()));
    assert_eq!(gate.send(get("/page")).await.refusal(), (504, "upstream-timeout".to_owned()));
    tokio::time::sleep(secs(60)).await;
    let count = |class: &str| {
        let class = format!("code_class=\"{class}\"");
        gate.metric("oncegate_upstream_seconds_count", &[&class])
    };
    assert_eq!((count("none"), count("2xx")), (2, 0));
}

// A body that is read to find the route, and is none: the exchange is the route's that asked for it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn refusals_before_the_route_is_known_are_counted_for_the_route_that_asked() {
    let shop = Shop::answers(created("order"));
    let guard = "mode = \"once\"\norder = [\"form:order\"]\nidentity = \"none\"\nbody_max = \"2MiB\"";
    let gate = Gate::with(&shop, Setup::default().route_by_form("pay", "/index", guard)).await;
    let large = format!("pay=1&{CART}&note={}", "x".repeat(3 << 20));
    assert_eq!(gate.post("/index", &large).await.refusal(), (413, "body-too-large".to_owned()));
    let unreadable = post("/index", "{}");
    assert_eq!(gate.send(unreadable).await.refusal(), (400, "body-unreadable".to_owned()));
    let labels = ["route=\"pay\"", "verdict=\"refuse\""];
    assert_eq!(gate.metric("oncegate_exchanges_total", &labels), 2);
    assert_eq!(gate.metric("oncegate_refusals_total", &["route=\"pay\""]), 2);
    assert_eq!(gate.log().len(), 2);
}

// What HEAD asks for is the length that GET would have (RFC 9110 section 9.3.2).
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_guarded_head_learns_the_length() {
    let shop = Shop::answers(ok("seventeen letters"));
    let guard = "mode = \"once\"\norder = [\"query:order\"]\nidentity = \"none\"";
    let gate = Gate::with(&shop, Setup::default().route("look", "/look", guard).method("HEAD")).await;
    let answer = gate.send(Ask { method: Method::HEAD, ..get("/look?order=1001") }).await;
    assert_eq!((answer.verdict(), answer.header("content-length")), ("lead", "17"));
    assert_eq!(gate.post("/checkout", CART).await.header("content-length"), "17");
}
