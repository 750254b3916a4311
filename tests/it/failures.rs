//! What breaks around the gate: the store, the shop's servers, the process itself. And what the log says of it all.

use oncegate::ops::words::StoreOp;
use tokio::{join, time::Instant};

use crate::world::{CART, Flaky, Gate, Setup, Shop, created, get, ok, post, post_json, secs};

const RUN: &str = "run {n}";

// The store takes no settle. The client has its answer all the same, and so has the next.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_is_given_and_kept_though_the_store_fails_to_take_it() {
    let shop = Shop::answers_after(secs(1), created(RUN));
    let store = Flaky::new(&Setup::default().parse());
    let gate = Gate::on_store(&shop, Setup::default(), std::sync::Arc::clone(&store) as _).await;
    store.fail(StoreOp::Settle);
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "follow");
    tokio::time::sleep(secs(2)).await;
    store.mend();
    tokio::time::sleep(secs(2)).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
    assert_eq!(shop.orders(), 1);
}

// A store that cannot be asked is neither "free" nor "go ahead".
#[tokio::test(flavor = "local", start_paused = true)]
async fn nothing_is_sent_while_the_store_cannot_be_asked() {
    let shop = Shop::answers(created(RUN));
    let store = Flaky::new(&Setup::default().parse());
    let gate = Gate::on_store(&shop, Setup::default(), std::sync::Arc::clone(&store) as _).await;
    store.fail(StoreOp::Claim);
    let refused = gate.post("/checkout", CART).await;
    assert_eq!(refused.refusal(), (503, "store-down".to_owned()));
    assert!(refused.retry_after() > 0);
    let began = Instant::now();
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "store-down".to_owned()));
    assert!(began.elapsed() < secs(1), "nobody queues for a store that is down");
    assert_eq!(shop.attempts(), 0);
    store.mend();
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
}

// The store carries the claim out and its answer is lost: nothing was sent, so nobody has to wait for the end of a
// lease, and nobody is told that the order is in doubt.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_given_back() {
    let shop = Shop::answers(created(RUN));
    let store = Flaky::new(&Setup::default().parse());
    let gate = Gate::on_store(&shop, Setup::default(), std::sync::Arc::clone(&store) as _).await;
    store.lose_answers(StoreOp::Claim);
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "store-down".to_owned()));
    store.mend();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    tokio::time::sleep(secs(60)).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
    assert_eq!(shop.orders(), 1);
}

// The shop is not there. Nothing was sent, so another server may be asked.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_server_that_refuses_the_connection_costs_nothing_but_the_next_one() {
    let shop = Shop::refuses_connections(1, ok(RUN));
    let gate = Gate::start(&shop).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!((shop.orders(), shop.attempts()), (1, 2));
    assert_eq!(shop.visit(0).server, "shop-2:80");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn the_numbers_of_an_event_are_numbers() {
    let shop = Shop::resets_before_answer(secs(0), ok(RUN));
    let gate = Gate::start(&shop).await;
    assert_eq!(gate.post("/checkout", CART).await.status, 502);
    assert_eq!(gate.events("in-doubt")[0]["fence"], 1);
}

// All servers refuse for a moment, and several clients wait: one of them leads next.
#[tokio::test(flavor = "local", start_paused = true)]
async fn when_nothing_was_sent_exactly_one_waiter_leads_next() {
    let shop = Shop::refuses_connections(2, ok(RUN));
    let gate = Gate::start(&shop).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!([first.text(), second.text()], ["run 1", "run 1"]);
    assert_eq!((shop.orders(), shop.overlaps()), (1, 0));
}

// The shop stays away: a bounded number of attempts, a refusal for all, and no trace of a doubt.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_shop_that_stays_away_is_tried_a_bounded_number_of_times() {
    let shop = Shop::refuses_connections(usize::MAX, ok(RUN));
    let gate = Gate::start(&shop).await;
    let sent: Vec<_> = (0..20).map(|_| gate.begin(post("/checkout", CART))).collect();
    for sending in sent {
        let answer = sending.answer().await;
        assert_eq!(answer.refusal(), (502, "upstream-unreachable".to_owned()));
        assert!(answer.retry_after() > 0);
    }
    assert!((2..=6).contains(&shop.attempts()), "{}", shop.attempts());
    assert_eq!(gate.metric("oncegate_in_doubt_total", &[]), 0);
    assert_eq!(gate.metric("oncegate_upstream_sends_total", &[]), 0, "nothing was sent");
    shop.comes_back();
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!(gate.metric("oncegate_upstream_sends_total", &[]), 1);
}

// SIGTERM: what runs ends, who waits for it is answered, what comes now is told to come again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn draining_ends_what_runs_and_refuses_what_comes() {
    let shop = Shop::answers_after(secs(10), ok(RUN));
    let gate = Gate::start(&shop).await;
    let (first, second) = (gate.begin(post("/checkout", CART)), gate.begin(post("/checkout", CART)));
    shop.reached(1).await;
    gate.drain();
    let refused = gate.post("/checkout", "order=1002").await;
    assert_eq!(refused.refusal(), (503, "draining".to_owned()));
    assert!(refused.retry_after() > 0);
    assert_eq!(refused.header("connection"), "close");
    let (first, second) = join!(first.answer(), second.answer());
    assert_eq!([first.text(), second.text()], ["run 1", "run 1"]);
    gate.landed().await;
    assert_eq!(shop.orders(), 1);
}

// The drain waits for a flight whose client has left: its answer is recorded before the process ends.
#[tokio::test(flavor = "local", start_paused = true)]
async fn draining_waits_for_flights_that_nobody_waits_for() {
    let shop = Shop::answers_after(secs(10), ok(RUN));
    let gate = Gate::start(&shop).await;
    let there = gate.replica(&shop, Setup::default()).await;
    let leaver = gate.begin(post("/checkout", CART));
    shop.reached(1).await;
    leaver.leave().await;
    let began = Instant::now();
    gate.drain();
    gate.landed().await;
    assert!(began.elapsed() >= secs(9));
    assert_eq!(there.post("/checkout", CART).await.verdict(), "replay");
}

// The log has a line for every guarded exchange, and nothing that is nobody's business.
#[tokio::test(flavor = "local", start_paused = true)]
async fn every_guarded_exchange_has_one_line_without_secrets() {
    let shop = Shop::answers_after(secs(3), ok(RUN).with("set-cookie", "session=new-secret"));
    let gate = Gate::start(&shop).await;
    let body = "order=1001&card=4111111111111111";
    let ask = || post("/checkout", body).with("authorization", "Bearer hunter2");
    let leaver = gate.begin(ask());
    shop.reached(1).await;
    leaver.leave().await;
    gate.send(ask()).await;
    gate.send(ask()).await;
    gate.send(post_json("/callback", r#"{"id":"evt_1","order":"1001"}"#)).await;
    gate.send(get("/page")).await;
    let log = gate.log();
    let told = log.iter().map(|line| (line["verdict"].as_str().unwrap(), line["reason"].as_str().unwrap()));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [("lead", "client-gone"), ("follow", "done"), ("replay", "done"), ("lead", "done")]);
    assert!(log[1]["fence"] == log[2]["fence"] && log[1]["fingerprint"] == log[2]["fingerprint"]);
    assert_eq!(log[1]["fingerprint"].as_str().map(str::len), Some(8));
    assert_eq!(log[1]["client"], "192.0.2.7");
    let text = String::from_utf8(gate.log_bytes()).unwrap();
    for secret in ["4111", "hunter2", "alice", "new-secret", "teapot"] {
        assert!(!text.contains(secret), "{secret} is in the log: {text}");
    }
    assert_eq!(gate.metric("oncegate_exchanges_total", &[]), 4, "the sum is that of all guarded requests");
    assert_eq!(
        gate.metric("oncegate_duplicates_total", &[]),
        2,
        "a leader whose client left is no duplicate"
    );
}
