//! What is kept, for whom and how long; what is in doubt, and how that ends; what answers of the gate look like.

use tokio::{io::AsyncWriteExt, join};

use crate::world::{CART, Ended, Gate, Setup, Shop, eventually, get, ok, post, secs};

const RUN: &str = "run {n}";

// Every click makes new payment tokens, so no two bodies are equal. One cart is one order all the same.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_record_of_the_order_answers_other_bodies_of_it() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("replay_scope = \"order\"")).await;
    let (first, second) =
        join!(gate.post("/checkout", "order=1001&token=a"), gate.post("/checkout", "order=1001&token=b"));
    let third = gate.post("/checkout", "order=1001&token=c").await;
    assert_eq!([&first, &second, &third].map(|answer| answer.verdict()), ["lead", "replay", "replay"]);
    assert_eq!([&second, &third].map(|answer| answer.text()), ["run 1", "run 1"]);
    let bob = gate.send(post("/checkout", "order=1001&token=d").by("bob")).await;
    assert_eq!(bob.verdict(), "lead", "for the same identity only");
    assert_eq!(
        gate.post("/checkout", "order=1002&token=a").await.verdict(),
        "lead",
        "of the same order only"
    );
    assert_eq!((shop.orders(), shop.overlaps()), (3, 0));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_failed_try_of_an_order_answers_no_other_body() {
    let shop = Shop::fails_then_succeeds(secs(3), ok("no").status(400), ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("replay_scope = \"order\"")).await;
    let (first, second) =
        join!(gate.post("/checkout", "order=1001&token=a"), gate.post("/checkout", "order=1001&token=b"));
    assert_eq!((first.status.as_u16(), second.text(), second.verdict()), (400, "run 2", "lead"));
}

// A record ends when its time is over, not before.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_record_lives_as_long_as_the_route_says() {
    let shop = Shop::answers(ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("replay_for = \"10m\"")).await;
    gate.post("/checkout", CART).await;
    tokio::time::sleep(secs(590)).await;
    let replayed = gate.post("/checkout", CART).await;
    assert_eq!(replayed.header("cache-status"), "oncegate; hit; ttl=10");
    tokio::time::sleep(secs(11)).await;
    assert_eq!(gate.post("/checkout", CART).await.text(), "run 2");
}

// An answer that was delivered is kept for a short while, so that a merchant can press "resend"; one that reached
// nobody is kept until its sender asks again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_that_nobody_got_is_kept_longer() {
    let lines = "replay_for = \"1m\"\nreplay_unseen_for = \"10m\"";
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout(lines)).await;
    gate.post("/checkout", CART).await;
    tokio::time::sleep(secs(50)).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
    tokio::time::sleep(secs(11)).await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead", "it was delivered a minute ago");

    let unseen = gate.begin(post("/checkout", "order=1002"));
    shop.reached(3).await;
    unseen.leave().await;
    tokio::time::sleep(secs(590)).await;
    let first_seen = gate.post("/checkout", "order=1002").await;
    assert_eq!((first_seen.verdict(), first_seen.text()), ("replay", "run 3"));
}

// A retry gets the answer at the last moment, and its shopper clicks twice: the second click is no order of its own.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_double_click_on_a_late_retry_is_given_the_same_answer() {
    for lines in ["replay_for = \"1m\"\nreplay_unseen_for = \"10m\"", "replay_for = \"10m\""] {
        let shop = Shop::answers_after(secs(3), ok(RUN));
        let gate = Gate::with(&shop, Setup::default().checkout(lines)).await;
        let unseen = gate.begin(post("/checkout", CART));
        shop.reached(1).await;
        unseen.leave().await;
        tokio::time::sleep(secs(600)).await;
        assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay", "it was settled 597 s ago");
        tokio::time::sleep(secs(59)).await;
        let again = gate.post("/checkout", CART).await;
        assert_eq!((again.verdict(), again.text(), shop.orders()), ("replay", "run 1", 1), "{lines}");
        tokio::time::sleep(secs(542)).await;
        assert_eq!(
            gate.post("/checkout", CART).await.verdict(),
            "lead",
            "nobody keeps a record alive by asking"
        );
    }
}

// An honest second purchase, cookies and all, is byte for byte the first. What lies between tells them apart: on a
// route that nobody guards, a request to the cart.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_request_that_begins_a_new_cart_ends_the_old_records() {
    let shop = Shop::answers(ok(RUN));
    let renew = "request = { path = \"/cart/add\" }";
    let gate = Gate::with(&shop, Setup::default().renew(renew)).await;
    assert_eq!(gate.post("/checkout", CART).await.text(), "run 1");
    gate.send(post("/cart/add", "item=cup").by("bob")).await;
    gate.post("/cart/show", "").await;
    assert_eq!(
        gate.post("/checkout", CART).await.verdict(),
        "replay",
        "somebody else's cart, and no new cart"
    );
    gate.post("/cart/add", "item=cup").await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "replay");
}

// The same by an answer: the shop sets the cookie that says that there is something in the cart.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_answer_that_shows_a_new_cart_ends_the_old_records() {
    let renew = "answer = { set_cookie = \"items_in_cart=[1-9]\" }";
    let plain = ok(RUN).with("set-cookie", "items_in_cart=0");
    let shop = Shop::fails_then_succeeds(secs(0), plain.clone(), plain.with("set-cookie", "items_in_cart=1"));
    let gate = Gate::with(&shop, Setup::default().renew(renew)).await;
    let there = gate.replica(&shop, Setup::default().renew(renew)).await;
    assert_eq!(gate.post("/checkout", CART).await.text(), "run 1");
    assert_eq!(there.post("/checkout", CART).await.verdict(), "replay");
    gate.send(get("/page")).await;
    assert_eq!(there.post("/checkout", CART).await.verdict(), "lead", "all replicas agree on it");
    assert_eq!(shop.orders(), 3);
}

// The new cart is begun while the order is at the shop: its duplicates still get its answer.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_new_cart_does_not_disturb_a_running_flight() {
    let shop = Shop::answers_after(secs(5), ok(RUN));
    let renew = "request = { path = \"/cart/add\" }";
    let gate = Gate::with(&shop, Setup::default().renew(renew)).await;
    let there = gate.replica(&shop, Setup::default().renew(renew)).await;
    let first = gate.begin(post("/checkout", CART));
    shop.reached(1).await;
    let added = gate.begin(post("/cart/add", "item=cup"));
    shop.reached(2).await;
    let (second, third) = join!(gate.post("/checkout", CART), there.post("/checkout", CART));
    assert_eq!([&second, &third].map(|answer| answer.verdict()), ["follow", "follow"]);
    assert_eq!([&first.answer().await, &second, &third].map(|answer| answer.text()), ["run 1"; 3]);
    assert_eq!(added.answer().await.status, 200);
    assert_eq!(shop.visits().iter().filter(|visit| visit.target == "/checkout").count(), 1);
}

// The shop answers after everybody was told that nobody knows: the doubt is over, the retry gets that answer.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_late_answer_resolves_the_doubt() {
    let shop = Shop::answers_after(secs(40), ok(RUN));
    let setup = Setup::default().upstream("answer_timeout = \"20s\"");
    let gate = Gate::with(&shop, setup.checkout("wait_max = \"30s\"")).await;
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (504, "upstream-timeout".to_owned()));
    tokio::time::sleep(secs(10)).await;
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
    tokio::time::sleep(secs(11)).await;
    let retried = gate.post("/checkout", CART).await;
    assert_eq!((retried.verdict(), retried.text(), shop.orders()), ("replay", "run 1", 1));
    assert_eq!(shop.visit(0).ended.map(|(_, how)| how), Some(Ended::Answered), "its script was not cut");
    assert_eq!(gate.metric("oncegate_late_answers_total", &[]), 1);
}

// `hold` ends: then the next one leads, and only that one.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_hold_ends_after_its_time_and_one_leads() {
    let shop = Shop::resets_before_answer(secs(3), ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("hold_for = \"5m\"")).await;
    gate.post("/checkout", CART).await;
    tokio::time::sleep(secs(295)).await;
    assert_eq!(gate.post("/checkout", CART).await.refusal().1, "outcome-unknown");
    assert_eq!(shop.orders(), 1);
    tokio::time::sleep(secs(6)).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!((first.verdict(), second.verdict(), shop.orders()), ("lead", "follow", 2));
}

// `retry`: a provider that was told nothing sends again, and the next one leads. Those who waited do not.
#[tokio::test(flavor = "local", start_paused = true)]
async fn with_retry_the_next_duplicate_leads_and_no_waiter_does() {
    let shop = Shop::resets_before_answer(secs(3), ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("on_in_doubt = \"retry\"")).await;
    let there = gate.replica(&shop, Setup::default().checkout("on_in_doubt = \"retry\"")).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!([first.refusal().0, second.refusal().0], [502, 502]);
    assert_eq!(shop.orders(), 1);
    let again = there.post("/checkout", CART).await;
    assert_eq!((again.verdict(), shop.orders()), ("lead", 2));
}

// What a kept answer says of itself.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_replay_says_what_it_is_and_leaves_out_what_was_of_its_moment() {
    let reply = ok(RUN)
        .with("date", "Sat, 21 Nov 2026 00:00:00 GMT")
        .with("server-timing", "db;dur=3")
        .with("alt-svc", "h3=\":443\"")
        .with("strict-transport-security", "max-age=1")
        .with("x-request-id", "the shop's own")
        .with("connection", "x-hop")
        .with("x-hop", "1")
        .with("etag", "\"1\"")
        .with("vary", "cookie");
    let shop = Shop::answers_after(secs(1), reply);
    let gate = Gate::start(&shop).await;
    let first = gate.post("/checkout", CART).await;
    assert_eq!(first.header("cache-status"), "oncegate; fwd=miss; stored");
    assert_eq!((first.header("idempotent-replayed"), first.header("age")), ("", ""));
    assert_eq!(first.header("strict-transport-security"), "max-age=1", "the leader's client gets all of it");
    tokio::time::sleep(secs(60)).await;
    let replay = gate.post("/checkout", CART).await;
    assert_eq!(replay.header("cache-status"), "oncegate; hit; ttl=86340");
    assert_eq!((replay.verdict(), replay.header("idempotent-replayed")), ("replay", "true"));
    assert!(replay.headers.contains_key("age"));
    for gone in ["server-timing", "alt-svc", "strict-transport-security", "x-hop"] {
        assert_eq!(replay.header(gone), "", "{gone}");
    }
    assert_ne!(replay.header("date"), "Sat, 21 Nov 2026 00:00:00 GMT");
    assert_eq!((replay.header("etag"), replay.header("vary")), ("\"1\"", "cookie"));
    assert_eq!(replay.header("content-length"), "5");
    let ids = [&first, &replay].map(|answer| answer.header("x-request-id").to_owned());
    assert!(ids.iter().all(|id| id.len() == 32) && ids[0] != ids[1], "{ids:?}");
    assert_eq!(shop.visit(0).header("x-request-id"), ids[0], "the shop's log names the same exchange");
}

// A follower says that it followed.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_follower_says_what_it_is() {
    let shop = Shop::answers_after(secs(1), ok(RUN));
    let gate = Gate::start(&shop).await;
    let (_, follower) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!(follower.header("cache-status"), "oncegate; fwd=miss; collapsed");
    assert_eq!((follower.verdict(), follower.header("idempotent-replayed")), ("follow", "true"));
    let duplicates = ["route=\"checkout\"", "kind=\"follow\""];
    assert_eq!(gate.metric("oncegate_duplicates_total", &duplicates), 1);
}

// A program gets RFC 9457, a browser a page; both are told the same.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_refusal_speaks_to_programs_and_to_people() {
    let shop = Shop::resets_before_answer(secs(1), ok(RUN));
    let gate = Gate::start(&shop).await;
    gate.post("/checkout", CART).await;
    let program = gate.post("/checkout", CART).await;
    let problem: serde_json::Value = serde_json::from_slice(&program.body).unwrap();
    assert_eq!(problem["type"], "urn:oncegate:refusal:outcome-unknown");
    assert_eq!(problem["status"], 503);
    assert!(problem["detail"].as_str().unwrap().contains("Do not pay again"));
    let browser = gate.send(post("/checkout", CART).with("accept", "text/html,*/*;q=0.8")).await;
    assert_eq!((browser.status.as_u16(), browser.header("content-type")), (503, "text/html; charset=utf-8"));
    assert!(browser.text().contains("<html"));
    for answer in [program, browser] {
        assert_eq!((answer.verdict(), answer.header("cache-control")), ("refuse", "no-store"));
        assert_eq!(answer.header("cache-status"), "oncegate; detail=outcome-unknown");
        assert_eq!(answer.header("x-request-id").len(), 32);
        assert!(
            answer.retry_after() > 0 && !answer.text().contains("1001"),
            "no value of a request is shown"
        );
    }
}

// A plugin of the shop can refuse what is older than what it has seen.
#[tokio::test(flavor = "local", start_paused = true)]
async fn the_shop_is_told_the_fence_and_the_fence_only_rises() {
    let shop = Shop::answers(ok(RUN).status(500));
    let gate = Gate::with(&shop, Setup::default().checkout("send_idempotency_key = true")).await;
    let there = gate.replica(&shop, Setup::default().checkout("send_idempotency_key = true")).await;
    for gate in [&gate, &there, &gate] {
        gate.send(post("/checkout", CART).with("oncegate-fence", "999999")).await;
    }
    gate.send(get("/return?order=1001")).await;
    let visits = shop.visits();
    let fences: Vec<u64> =
        visits.iter().map(|visit| visit.header("oncegate-fence").parse().unwrap()).collect();
    assert!(fences.is_sorted_by(|one, next| one < next) && fences[3] < 999_999, "{fences:?}");
    let keys: Vec<_> = visits[..3].iter().map(|visit| visit.header("idempotency-key")).collect();
    assert!(
        keys[0].len() > 16 && keys.iter().all(|key| *key == keys[0]),
        "the same request, the same key: {keys:?}"
    );
    assert_eq!(visits[3].header("idempotency-key"), "");
    assert_eq!(visits[0].header("accept-encoding"), "identity");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_clients_own_idempotency_key_is_left_to_it() {
    let shop = Shop::answers(ok(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("send_idempotency_key = true")).await;
    gate.send(post("/checkout", CART).with("idempotency-key", "mine")).await;
    assert_eq!(shop.visit(0).header("idempotency-key"), "mine");
}

// Half of an answer that is too large to keep, and the shop dies: the leader's client must not take it for whole.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_large_answer_that_breaks_off_is_a_doubt() {
    let shop = Shop::resets_mid_body(secs(1), ok(&"0123456789".repeat(1000)));
    let gate = Gate::with(&shop, Setup::default().checkout("record_max = \"100B\"")).await;
    let (first, second) = join!(gate.try_send(post("/checkout", CART)), gate.post("/checkout", CART));
    assert!(first.is_err(), "{first:?}");
    assert_eq!(second.refusal(), (502, "upstream-reset".to_owned()));
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (503, "outcome-unknown".to_owned()));
    assert_eq!(gate.metric("oncegate_in_doubt_total", &["cause=\"truncated\""]), 1);
    assert_eq!(shop.orders(), 1);
}

// A client that asks and never reads holds up neither the shop nor the order.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let shop = Shop::answers_large(3 << 20);
    let setup = Setup::default().limits("send_timeout = \"5s\"");
    let gate = Gate::with(&shop, setup).await;
    let mut wire = gate.connect();
    let request = format!(
        "POST /checkout HTTP/1.1\r\nhost: shop.example\r\ncookie: session=alice\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{CART}",
        CART.len()
    );
    wire.write_all(request.as_bytes()).await.unwrap();
    shop.reached(1).await;
    eventually("the shop has been read to its end", || shop.visit(0).ended.is_some()).await;
    assert_eq!(shop.visit(0).ended.map(|(_, how)| how), Some(Ended::Answered));
    gate.until("the flight has landed", |gate| gate.shared().claims.flights.running() == 0).await;
    assert_eq!(gate.post("/checkout", CART).await.refusal(), (409, "answer-too-large".to_owned()));
    assert_eq!(shop.orders(), 1);
}

// The body is packed: it is unpacked to be read, and the shop gets it as it came.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_packed_body_is_read_and_passed_on_as_it_came() {
    let pack = |level| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        std::io::Write::write_all(&mut packer, CART.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let ask = |level| {
        let mut ask = post("/checkout", "").with("content-encoding", "gzip");
        ask.body = pack(level).into();
        ask
    };
    let shop = Shop::answers(ok(RUN));
    let gate = Gate::start(&shop).await;
    assert_eq!(gate.send(ask(0)).await.verdict(), "lead");
    assert_eq!(gate.send(ask(9)).await.verdict(), "replay", "packed in another way, the same request");
    assert_ne!(pack(0), pack(9));
    assert_eq!((&shop.visit(0).body[..], shop.visit(0).header("content-encoding")), (&pack(0)[..], "gzip"));
}

// One connection after the other request: a browser that sends the form again on the connection it has.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_connection_carries_one_exchange_after_the_other() {
    let shop = Shop::answers_after(secs(1), ok(RUN));
    let gate = Gate::start(&shop).await;
    let asks =
        [post("/checkout", CART), get("/page"), post("/checkout", CART), post("/checkout", "item=cup")];
    let answers = gate.send_all(asks.to_vec()).await;
    let verdicts: Vec<_> = answers.iter().map(|answer| answer.verdict()).collect();
    assert_eq!(verdicts, ["lead", "", "replay", "bypass"]);
    assert_eq!(
        answers.iter().map(|answer| answer.text()).collect::<Vec<_>>(),
        ["run 1", "run 2", "run 1", "run 3"]
    );
}
