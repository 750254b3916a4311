//! The nine guarantees of the promise, each under its own name, against the real gate and a naive shop.

mod bounds;

use oncegate::{
    ops::words::StoreOp,
    store::{LaneView, Resolution, Resolved},
};
use tokio::{io::AsyncWriteExt, join, time::Instant};

use crate::world::{
    CART, Ended, Flaky, Gate, Setup, Shop, created, declined, eventually, get, millis, ok, post, post_json,
    secs,
};

/// What comes from the shop of an order that worked.
const ORDER: &str = "order 1001, run {n}";

// A shopper double-clicks: two equal requests while the shop is at work.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_1_two_identical_orders_reach_the_shop_once() {
    let shop = Shop::answers_after(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!(shop.orders(), 1);
    assert_eq!((first.verdict(), second.verdict()), ("lead", "follow"));
    assert_eq!(first.body, second.body);
}

// A hundred equal requests come over two cores of one replica and over another replica on the same store.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_1_one_flight_over_cores_and_replicas() {
    let shop = Shop::answers_after(secs(3), created(ORDER));
    let here = Gate::start(&shop).await;
    let gates = [here.another_core(&shop).await, here.replica(&shop, Setup::default()).await, here];
    let sent: Vec<_> = (0..99).map(|n| gates[n % 3].begin(post("/checkout", CART))).collect();
    let mut leaders = 0;
    for sending in sent {
        let answer = sending.answer().await;
        assert_eq!(answer.text(), "order 1001, run 1");
        leaders += usize::from(answer.verdict() == "lead");
    }
    assert_eq!((shop.orders(), leaders), (1, 1));
    assert_eq!(gates[0].metric("oncegate_upstream_sends_total", &["route=\"checkout\""]), 1);
}

// The order's lane is busy with another request; equal ones that queue behind it are one flight all the same.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_1_duplicates_that_queue_become_one_flight() {
    let shop = Shop::answers_after(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let other = gate.begin(post("/checkout", "order=1001&item=cup"));
    shop.reached(1).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!((first.text(), second.text()), ("order 1001, run 2", "order 1001, run 2"));
    assert_eq!(other.answer().await.text(), "order 1001, run 1");
    assert_eq!((shop.orders(), shop.overlaps()), (2, 0));
}

// Checkout, the provider's callback and the browser's return of one order come at the same moment.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_2_one_lane_whichever_route_an_order_comes_by() {
    let shop = Shop::answers_after(secs(3), ok(ORDER));
    let gate = Gate::start(&shop).await;
    let began = Instant::now();
    join!(
        gate.post("/checkout", CART),
        gate.send(post_json("/callback", r#"{"id":"evt_1","order":"1001"}"#)),
        gate.send(get("/return?order=1001")),
        gate.post("/notify", "order=1001"),
    );
    assert_eq!((shop.orders(), shop.overlaps()), (4, 0));
    assert!(began.elapsed() >= secs(12), "one after the other");
}

// As above, over two replicas: the store keeps them apart.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_2_one_lane_over_replicas() {
    let shop = Shop::answers_after(secs(3), ok(ORDER));
    let here = Gate::start(&shop).await;
    let there = here.replica(&shop, Setup::default()).await;
    join!(
        here.post("/checkout", CART),
        there.send(post_json("/callback", r#"{"id":"evt_1","order":"1001"}"#)),
        there.send(get("/return?order=1001")),
        here.send(get("/return?order=1001")),
    );
    assert_eq!((shop.orders(), shop.overlaps()), (4, 0));
}

// A JSON number and a form's text name the same order; other orders do not wait for it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_2_lanes_are_told_apart_by_the_order_and_by_nothing_else() {
    let shop = Shop::answers_after(secs(3), ok(ORDER));
    let gate = Gate::start(&shop).await;
    let began = Instant::now();
    join!(gate.post("/checkout", CART), gate.post("/checkout", "order=1002&item=teapot"));
    assert_eq!(began.elapsed().as_secs(), 3, "side by side");
    let began = Instant::now();
    let number = post_json("/callback", r#"{"id":"evt_1","order":1003}"#);
    join!(gate.post("/checkout", "order=1003"), gate.send(number));
    assert_eq!(began.elapsed().as_secs(), 6, "one after the other");
}

// The leader, a follower, a follower on another replica, and some who come ten minutes later.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_3_one_answer_for_all_who_ask() {
    let reply = created(ORDER)
        .status(303)
        .with("location", "/thanks?run={n}")
        .with("set-cookie", "cart=; Max-Age=0")
        .with("set-cookie", "last=1001")
        .with("x-shop", "naive");
    let shop = Shop::answers_after(secs(3), reply);
    let here = Gate::start(&shop).await;
    let there = here.replica(&shop, Setup::default()).await;
    let (first, second, far) =
        join!(here.post("/checkout", CART), here.post("/checkout", CART), there.post("/checkout", CART));
    tokio::time::sleep(secs(600)).await;
    let (late, late_there) = join!(here.post("/checkout", CART), there.post("/checkout", CART));
    let verdicts = [&first, &second, &far, &late, &late_there].map(|answer| answer.verdict());
    assert_eq!(verdicts, ["lead", "follow", "follow", "replay", "replay"]);
    for other in [second, far, late, late_there] {
        assert_eq!(other.of_the_shop(), first.of_the_shop());
        assert_eq!(other.headers.get_all("set-cookie").iter().count(), 2);
    }
    assert_eq!(shop.orders(), 1);
}

// WooCommerce answers a declined card with 200. Those who waited get it; the next try is a try.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_4_failure_stays_retryable() {
    let success = ok(r#"{"result":"success","redirect":"/thanks"}"#).with("content-type", "application/json");
    let shop = Shop::fails_then_succeeds(secs(3), declined(), success);
    let setup = Setup::default().checkout("done_when = { json = { \"/result\" = \"success\" } }");
    let gate = Gate::with(&shop, setup.clone()).await;
    let there = gate.replica(&shop, setup).await;
    let (first, second, far) =
        join!(gate.post("/checkout", CART), gate.post("/checkout", CART), there.post("/checkout", CART));
    for answer in [&first, &second, &far] {
        assert!(answer.text().contains("declined"), "{answer:?}");
    }
    assert_eq!((shop.orders(), first.header("cache-status")), (1, "oncegate; fwd=miss"));
    let again = gate.post("/checkout", CART).await;
    assert_eq!((again.verdict(), shop.orders()), ("lead", 2));
    let replayed = gate.post("/checkout", CART).await;
    assert_eq!((replayed.verdict(), &replayed.body), ("replay", &again.body));
    assert_eq!(shop.orders(), 2);
}

// A plain 500 is a failure without any `done_when`.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_4_an_error_page_is_kept_for_nobody() {
    let shop = Shop::answers_after(secs(1), ok("database is down").status(500));
    let gate = Gate::start(&shop).await;
    for run in 1..=3 {
        assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
        assert_eq!(shop.orders(), run);
    }
}

// The shop takes the order, charges the card, and its connection breaks before a word is said.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_after_a_reset() {
    let shop = Shop::resets_before_answer(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!(first.refusal(), (502, "upstream-reset".to_owned()));
    assert_eq!(second.refusal(), (502, "upstream-reset".to_owned()));
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
    assert_eq!((shop.orders(), shop.attempts()), (1, 1), "the other server was not tried either");
}

// The answer begins and breaks off: whether the work was done is as unknown as before.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_after_half_an_answer() {
    let shop = Shop::resets_mid_body(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!(first.refusal(), (502, "upstream-reset".to_owned()));
    assert_eq!(second.refusal(), (502, "upstream-reset".to_owned()));
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
    assert_eq!(gate.metric("oncegate_in_doubt_total", &["cause=\"truncated\""]), 1);
    assert_eq!(shop.orders(), 1);
}

// The shop says nothing, or headers and then nothing.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_after_a_timeout() {
    for shop in [Shop::stalls_before_headers(), Shop::stalls_after_headers(created(ORDER))] {
        let setup = Setup::default().upstream("answer_timeout = \"20s\"");
        let gate = Gate::with(&shop, setup.checkout("wait_max = \"30s\"")).await;
        let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
        assert_eq!(first.refusal(), (504, "upstream-timeout".to_owned()));
        assert_eq!(second.refusal(), (504, "upstream-timeout".to_owned()));
        assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
        assert_eq!((shop.orders(), shop.attempts()), (1, 1));
    }
}

// More wait for one answer than the route allows.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_when_too_many_wait() {
    let shop = Shop::answers_after(secs(3), created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("followers_max = 2")).await;
    let waiting: Vec<_> = (0..3).map(|_| gate.begin(post("/checkout", CART))).collect();
    shop.reached(1).await;
    let refused = gate.post("/checkout", CART).await;
    assert_eq!(refused.refusal(), (503, "followers-full".to_owned()));
    assert!(refused.retry_after() > 0);
    for sending in waiting {
        assert_eq!(sending.answer().await.status, 201);
    }
    assert_eq!(shop.orders(), 1);
}

// A client that waits in vain does not end the flight; its retry joins the flight again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_when_patience_ends() {
    let shop = Shop::answers_after(secs(55), created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("wait_max = \"10s\"")).await;
    for _ in 0..5 {
        let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
        assert_eq!(first.refusal(), (503, "wait-exhausted".to_owned()));
        assert_eq!(second.refusal(), (503, "wait-exhausted".to_owned()));
        assert!(first.retry_after() > 0);
    }
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "follow");
    assert_eq!((shop.orders(), shop.visit(0).ended.map(|(_, how)| how)), (1, Some(Ended::Answered)));
}

// The store cannot be told that the leader is alive. Its lease runs out; the duplicate on another replica is held,
// and the answer that comes in the end resolves the doubt.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_never_a_blind_second_send_when_a_lease_is_lost() {
    let shop = Shop::answers_after(secs(30), created(ORDER));
    let setup = Setup::default();
    let store = Flaky::new(&setup.parse());
    let here = Gate::on_store(&shop, setup.clone(), std::sync::Arc::clone(&store) as _).await;
    let there = here.replica(&shop, setup).await;
    let leading = here.begin(post("/checkout", CART));
    shop.reached(1).await;
    store.fail(StoreOp::Renew);
    tokio::time::sleep(secs(15)).await;
    assert_eq!(there.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
    store.mend();
    assert_eq!(leading.answer().await.status, 201);
    assert_eq!(there.post("/checkout", CART).await.verdict(), "replay");
    assert_eq!(shop.orders(), 1);
    assert_eq!(here.metric("oncegate_late_answers_total", &[]), 1);
    assert_eq!(here.metric("oncegate_leases_lost_total", &[]), 1);
}

// A connection takes so long that the lease runs out before the first byte, and the store cannot be told. The order is
// not held, so the other replica sends; the first one asks anew, and gets that answer.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_what_was_not_sent_within_its_lease_is_not_sent_by_it() {
    let shop = Shop::connects_after(secs(20), created(ORDER));
    let setup = Setup::default().checkout("on_in_doubt = \"retry\"").upstream("connect_timeout = \"30s\"");
    let store = Flaky::new(&setup.parse());
    let here = Gate::on_store(&shop, setup.clone(), std::sync::Arc::clone(&store) as _).await;
    let there = here.replica(&shop, setup).await;
    store.fail(StoreOp::Renew);
    let first = here.begin(post("/checkout", CART));
    eventually("it connects", || shop.attempts() == 1).await;
    tokio::time::sleep(secs(11)).await;
    assert_eq!(there.post("/checkout", CART).await.verdict(), "lead");
    let answer = first.answer().await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (201, "replay"));
    assert_eq!(shop.orders(), 1);
}

// The same, and nobody else came meanwhile: nothing was sent, so nothing is in doubt.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_8_a_lease_that_ran_out_before_anything_was_sent_is_no_doubt() {
    let shop = Shop::connects_after(secs(20), created(ORDER));
    let setup = Setup::default().upstream("connect_timeout = \"30s\"");
    let store = Flaky::new(&setup.parse());
    let gate = Gate::on_store(&shop, setup, std::sync::Arc::clone(&store) as _).await;
    store.fail(StoreOp::Renew);
    let first = gate.begin(post("/checkout", CART));
    eventually("it connects", || shop.attempts() == 1).await;
    tokio::time::sleep(secs(15)).await;
    store.mend();
    let answer = first.answer().await;
    assert_eq!((answer.status.as_u16(), answer.verdict()), (201, "lead"));
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
    assert_eq!(shop.orders(), 1);
}

// A pooled connection is closed by the shop in the moment in which an order is sent on it. Measured elsewhere: a
// third of such orders is lost. Here it goes out on a fresh one; a page view may be repeated instead.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_5_an_order_does_not_go_out_on_a_connection_that_may_be_closing() {
    let shop = Shop::closes_idle(millis(900), ok(ORDER));
    let gate = Gate::with(&shop, Setup::default().upstream("idle_timeout = \"60s\"")).await;
    for order in 0..6 {
        let answer = gate.post("/checkout", &format!("order={order}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(gate.send(get("/page")).await.status, 200);
    assert_eq!(shop.orders(), 7);
}

// Bob sends the bytes that Alice sent, with his own cookie, while hers are in flight and afterwards.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_6_no_answer_goes_to_another_identity() {
    let shop = Shop::answers_after(secs(3), created(ORDER).with("set-cookie", "session=new-{n}"));
    let gate = Gate::start(&shop).await;
    let (alice, bob) = join!(gate.post("/checkout", CART), gate.send(post("/checkout", CART).by("bob")));
    assert_eq!((alice.verdict(), bob.verdict()), ("lead", "lead"));
    assert_ne!(alice.header("set-cookie"), bob.header("set-cookie"));
    let again = gate.send(post("/checkout", CART).by("bob")).await;
    assert_eq!((again.verdict(), again.header("set-cookie")), ("replay", bob.header("set-cookie")));
    assert_eq!((shop.orders(), shop.overlaps()), (2, 0), "they are about the same order");
}

// A callback has no identity: what is personal in the answer goes to the one whose request was sent, only.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_6_without_an_identity_nothing_personal_is_shared() {
    let reply =
        ok(ORDER).with("set-cookie", "session=secret").with("cart-token", "secret").with("x-shop", "naive");
    let shop = Shop::answers_after(secs(3), reply);
    let gate = Gate::start(&shop).await;
    let event = post_json("/callback", r#"{"id":"evt_1","order":"1001"}"#);
    let (first, second) = join!(gate.send(event.clone()), gate.send(event.clone()));
    let late = gate.send(event).await;
    assert_eq!([&first, &second, &late].map(|answer| answer.verdict()), ["lead", "follow", "replay"]);
    assert_eq!((first.header("set-cookie"), first.header("cart-token")), ("session=secret", "secret"));
    for shared in [second, late] {
        assert_eq!((shared.header("set-cookie"), shared.header("cart-token")), ("", ""));
        assert_eq!((shared.header("x-shop"), shared.text()), ("naive", first.text()));
    }
}

// The identity is declared, and the request has none: it shares with nobody and keeps its lane.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_6_whoever_has_no_identity_shares_with_nobody() {
    let shop = Shop::answers_after(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let nobody = || post("/checkout", CART).without("cookie");
    let (first, second) = join!(gate.send(nobody()), gate.send(nobody()));
    assert_eq!((first.verdict(), second.verdict()), ("lead", "lead"));
    assert_eq!(gate.send(nobody()).await.verdict(), "lead");
    assert_eq!((shop.orders(), shop.overlaps()), (3, 0));
}

// The shopper closes the tab while the shop is at work.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_7_the_answer_is_not_lost_with_the_leaders_client() {
    let shop = Shop::answers_after(secs(10), created(ORDER));
    let gate = Gate::start(&shop).await;
    let leaver = gate.begin(post("/checkout", CART));
    shop.reached(1).await;
    leaver.leave().await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(shop.visit(0).ended.map(|(_, how)| how), Some(Ended::Answered), "the shop's work was not cut");
    let again = gate.post("/checkout", CART).await;
    assert_eq!((again.verdict(), again.text(), shop.orders()), ("replay", "order 1001, run 1", 1));
}

// Both the leader's client and the followers' leave, and one more comes while the shop is still at work.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_7_a_retry_joins_the_flight_that_everybody_left() {
    let shop = Shop::answers_after(secs(10), created(ORDER));
    let gate = Gate::start(&shop).await;
    let (first, second) = (gate.begin(post("/checkout", CART)), gate.begin(post("/checkout", CART)));
    shop.reached(1).await;
    join!(first.leave(), second.leave());
    tokio::time::sleep(secs(1)).await;
    let again = gate.post("/checkout", CART).await;
    assert_eq!((again.verdict(), shop.orders()), ("follow", 1));
}

// The client goes away when the answer has begun, one that is kept and one that is too large to keep.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_7_the_answer_is_read_to_its_end_whoever_leaves_meanwhile() {
    for (lines, came) in [("", "replay"), ("record_max = \"100B\"", "refuse")] {
        let shop = Shop::dawdles_mid_body(secs(10), created(&"0123456789".repeat(1000)));
        let gate = Gate::with(&shop, Setup::default().checkout(lines)).await;
        let leaver = gate.begin(post("/checkout", CART));
        shop.reached(1).await;
        tokio::time::sleep(secs(1)).await;
        leaver.leave().await;
        tokio::time::sleep(secs(60)).await;
        assert_eq!(shop.visit(0).ended.map(|(_, how)| how), Some(Ended::Answered));
        assert_eq!(gate.post("/checkout", CART).await.verdict(), came);
        assert_eq!(shop.orders(), 1);
    }
}

// Before anything was sent nobody's work is lost: who leaves the queue is not sent for.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_7_a_request_that_nobody_waits_for_is_not_begun() {
    let shop = Shop::answers_after(secs(10), created(ORDER));
    let gate = Gate::start(&shop).await;
    let other = gate.begin(post("/checkout", "order=1001&item=cup"));
    shop.reached(1).await;
    let queued = gate.begin(post("/checkout", CART));
    gate.until("it queues", |gate| gate.shared().claims.lanes.waiting() == 1).await;
    queued.leave().await;
    gate.until("its place is free", |gate| gate.shared().claims.lanes.waiting() == 0).await;
    assert_eq!(other.answer().await.status, 201);
    tokio::time::sleep(secs(60)).await;
    assert_eq!(shop.orders(), 1);
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
}

// The client goes away in the middle of its request: there is nothing to send, and nothing was claimed.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_7_half_a_request_reaches_nobody() {
    let shop = Shop::answers(created(ORDER));
    let gate = Gate::start(&shop).await;
    let mut wire = gate.connect();
    let head = "POST /checkout HTTP/1.1\r\nhost: shop.example\r\ncookie: session=alice\r\n\
        content-type: application/x-www-form-urlencoded\r\ncontent-length: 34\r\n\r\norder=1001";
    wire.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    drop(wire);
    tokio::time::sleep(secs(5)).await;
    assert_eq!((shop.orders(), shop.attempts()), (0, 0));
    assert_eq!(gate.metric("oncegate_claim_seconds_count", &[]), 0);
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
}

// One state, and everybody is told: the clients, the metrics, the log, the operator.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_8_a_doubt_is_said_to_everybody() {
    let shop = Shop::resets_before_answer(secs(3), created(ORDER));
    let gate = Gate::with(&shop, Setup::default().checkout("hold_for = \"10m\"")).await;
    let first = gate.post("/checkout", CART).await;
    assert_eq!(first.refusal(), (502, "upstream-reset".to_owned()));
    assert!(first.text().contains("Do not pay again"), "{}", first.text());
    tokio::time::sleep(secs(60)).await;
    let again = gate.post("/checkout", CART).await;
    assert_eq!(again.refusal(), (503, "outcome-unknown".to_owned()));
    assert_eq!(again.retry_after(), 540, "what is left of the hold");
    let changed = gate.post("/checkout", "order=1001&item=cup").await;
    assert_eq!(
        changed.refusal(),
        (503, "outcome-unknown".to_owned()),
        "the order is in doubt, not the bytes"
    );
    assert_eq!(gate.metric("oncegate_in_doubt_total", &["route=\"checkout\"", "cause=\"reset\""]), 1);
    assert_eq!(gate.metric("oncegate_refusals_total", &["name=\"outcome-unknown\""]), 2);
    let log = gate.log();
    let told: Vec<_> = log.iter().map(|line| (line["reason"].as_str(), line["fault"].as_str())).collect();
    assert_eq!(
        told[..2],
        [(Some("upstream-reset"), Some("upstream")), (Some("outcome-unknown"), Some("upstream"))]
    );
    assert_eq!((log[1]["order"].as_str(), log[1]["status"].as_u64()), (Some("1001"), Some(503)));
    assert_eq!(gate.events("in-doubt").len(), 1);
    let lane = gate.lane("checkout", &post("/checkout", CART));
    let view = gate.store().inspect(lane).await.unwrap();
    assert!(matches!(view, LaneView::InDoubt { age, .. } if age >= secs(60)), "{view:?}");
    assert_eq!(shop.orders(), 1);
}

// The operator has looked: the shop did the work.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_8_an_operator_can_say_that_it_was_done() {
    let shop = Shop::resets_before_answer(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    gate.post("/checkout", CART).await;
    let lane = gate.lane("checkout", &post("/checkout", CART));
    assert_eq!(gate.store().resolve(lane, Resolution::Done(secs(3600))).await, Ok(Resolved::Changed));
    let again = gate.post("/checkout", CART).await;
    assert_eq!(again.refusal(), (409, "resolved-done".to_owned()));
    assert_eq!(
        gate.post("/checkout", "order=1001&item=cup").await.verdict(),
        "lead",
        "the order is free again"
    );
}

// The operator has looked: the shop did nothing. While a flight runs there is nothing to resolve.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_8_an_operator_can_free_an_order_but_not_one_in_flight() {
    let shop = Shop::resets_before_answer(secs(3), created(ORDER));
    let gate = Gate::start(&shop).await;
    let lane = gate.lane("checkout", &post("/checkout", CART));
    let leading = gate.begin(post("/checkout", CART));
    shop.reached(1).await;
    assert_eq!(gate.store().resolve(lane, Resolution::Free).await, Ok(Resolved::Running));
    assert_eq!(leading.answer().await.status, 502);
    assert_eq!(gate.store().resolve(lane, Resolution::Free).await, Ok(Resolved::Changed));
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!(shop.orders(), 2);
}
