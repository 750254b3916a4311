//! What a guard's settings promise: its mode, observing only, what counts as done, what is done without a key.

use tokio::{join, time::Instant};

use crate::world::{CART, Ended, Gate, Reply, Setup, Shop, created, get, ok, post, post_json, secs};

const RUN: &str = "run {n}";

// A provider sends the same thin notification for "paid", "refunded" and "charged back". Whatever comes during a run
// may be about something newer than what the shop has just fetched.
#[tokio::test(flavor = "local", start_paused = true)]
async fn signals_that_come_during_a_run_share_one_run_after_it() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let gate = Gate::start(&shop).await;
    let signal = || post("/notify", "order=1001");
    let first = gate.begin(signal());
    shop.reached(1).await;
    let during: Vec<_> = (0..5).map(|_| gate.begin(signal())).collect();
    assert_eq!(first.answer().await.text(), "run 1");
    let mut leaders = 0;
    for sending in during {
        let answer = sending.answer().await;
        assert_eq!(answer.text(), "run 2");
        leaders += usize::from(answer.verdict() == "lead");
    }
    assert_eq!((shop.orders(), leaders, shop.overlaps()), (2, 1, 0));
    assert_eq!(gate.send(signal()).await.text(), "run 3", "nothing is kept");
}

// As above, with the later ones spread over two replicas: each gets the answer of a run that began after it came.
#[tokio::test(flavor = "local", start_paused = true)]
async fn signals_share_runs_over_replicas() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let here = Gate::start(&shop).await;
    let there = here.replica(&shop, Setup::default()).await;
    let signal = || post("/notify", "order=1001");
    let first = here.begin(signal());
    shop.reached(1).await;
    let during: Vec<_> = (0..6).map(|n| [&here, &there][n % 2].begin(signal())).collect();
    assert_eq!(first.answer().await.text(), "run 1");
    for sending in during {
        assert!(["run 2", "run 3"].contains(&sending.answer().await.text()));
    }
    // One run each at most: who was first after the run is not agreed on between replicas.
    assert!((2..=3).contains(&shop.orders()) && shop.overlaps() == 0);
}

// One replica runs, the other follows that run, and a signal comes to the one that follows: "refunded", while the
// run has fetched "paid" already. It must not be put off with that run's answer.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_signal_is_never_answered_by_a_run_that_began_before_it() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let here = Gate::start(&shop).await;
    let there = here.replica(&shop, Setup::default()).await;
    let elsewhere = here.replica(&shop, Setup::default()).await;
    let signal = || post("/notify", "order=1001");
    let first = here.begin(signal());
    shop.reached(1).await;
    let (at_there, at_elsewhere) = (there.begin(signal()), elsewhere.begin(signal()));
    shop.reached(2).await;
    // One of the two leads run 2, the other one follows it.
    tokio::time::sleep(secs(1)).await;
    let (late_there, late_elsewhere) = (there.begin(signal()), elsewhere.begin(signal()));
    assert_eq!(first.answer().await.text(), "run 1");
    for early in [at_there, at_elsewhere] {
        assert_eq!(early.answer().await.text(), "run 2");
    }
    for late in [late_there, late_elsewhere] {
        assert_ne!(late.answer().await.text(), "run 2");
    }
    assert_eq!(shop.overlaps(), 0);
}

// The browser comes back by two redirects while the provider calls back: each is run, none beside another.
#[tokio::test(flavor = "local", start_paused = true)]
async fn serial_requests_share_nothing_and_never_overlap() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let gate = Gate::start(&shop).await;
    let page = || get("/return?order=1001");
    let callback = post_json("/callback", r#"{"id":"evt_1","order":"1001"}"#);
    let (one, two, called) = join!(gate.send(page()), gate.send(page()), gate.send(callback));
    let again = gate.send(page()).await;
    let texts = [&one, &two, &called, &again].map(|answer| answer.text().to_owned());
    assert_eq!(texts, ["run 1", "run 2", "run 3", "run 4"], "first come, first served, nothing kept");
    assert!([one, two, again].iter().all(|answer| answer.verdict() == "lead"));
    assert_eq!((shop.orders(), shop.overlaps()), (4, 0));
}

// Observing, a request and its answer pass as they would on a route without any guard.
#[tokio::test(flavor = "local", start_paused = true)]
async fn observing_touches_not_one_byte_of_the_traffic() {
    let reply = created(RUN)
        .with("set-cookie", "a=1")
        .with("set-cookie", "b=2")
        .with("server-timing", "db;dur=3")
        .with("strict-transport-security", "max-age=1")
        .with("cache-status", "varnish; hit");
    let shop = Shop::answers(reply);
    let gate =
        Gate::with(&shop, Setup::default().checkout("enforce = false\nsend_idempotency_key = true")).await;
    let ask = |target| {
        post(target, CART).with("accept-encoding", "br, gzip").with("te", "trailers").with("x-custom", "kept")
    };
    let (observed, plain) = (gate.send(ask("/checkout")).await, gate.send(ask("/elsewhere")).await);
    let comparable = |mut headers: http::HeaderMap| {
        for each_its_own in ["x-request-id", "traceparent", "date"] {
            headers.remove(each_its_own);
        }
        headers
    };
    assert_eq!(comparable(shop.visit(0).headers), comparable(shop.visit(1).headers));
    assert_eq!(
        (&shop.visit(0).body[..], shop.visit(0).header("accept-encoding")),
        (CART.as_bytes(), "br, gzip")
    );
    assert_eq!(shop.visit(0).header("oncegate-fence"), "");
    assert_eq!(comparable(observed.headers.clone()), comparable(plain.headers));
    assert_eq!((observed.status.as_u16(), observed.text(), observed.verdict()), (201, "run 1", ""));
}

// Double click, and once more later: everything reaches the shop, at once, and is counted for what it is.
#[tokio::test(flavor = "local", start_paused = true)]
async fn observing_counts_what_would_have_been_done() {
    let shop = Shop::answers_after(secs(3), created(RUN));
    let gate = Gate::with(&shop, Setup::default().checkout("enforce = false")).await;
    let began = Instant::now();
    join!(
        gate.post("/checkout", CART),
        gate.post("/checkout", CART),
        gate.post("/checkout", "order=1001&item=cup")
    );
    assert_eq!((shop.orders(), began.elapsed()), (3, secs(3)), "nobody waited for anybody");
    gate.post("/checkout", CART).await;
    gate.send(post("/checkout", CART).by("bob")).await;
    let log = gate.log();
    let reasons: Vec<_> = log.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["observe", "would-coalesce", "would-queue", "would-replay", "observe"]);
    assert!(log.iter().all(|line| line["verdict"] == "bypass"));
    assert_eq!(gate.metric("oncegate_observed_duplicates_total", &["route=\"checkout\""]), 2);
    assert_eq!(gate.metric("oncegate_duplicates_total", &["route=\"checkout\""]), 0);
    assert_eq!(shop.orders(), 5);
}

// The line of what is passed on is written when its answer has passed: only then it is known how long it was.
#[tokio::test(flavor = "local", start_paused = true)]
async fn the_line_of_what_is_passed_on_says_how_much_it_was_and_how_long_it_took() {
    let answer = "run 1, and a page to it";
    let shop = Shop::dawdles_mid_body(secs(2), created(answer));
    let gate = Gate::with(&shop, Setup::default().checkout("enforce = false")).await;
    assert_eq!(gate.post("/checkout", CART).await.text(), answer);
    let nothing = Shop::answers_after(secs(1), created("").status(204));
    let bypassing = Gate::start(&nothing).await;
    assert_eq!(bypassing.post("/checkout", "item=teapot").await.verdict(), "bypass");
    let line = |gate: &Gate| {
        let log = gate.log();
        assert_eq!(log.len(), 1, "{log:?}");
        (log[0]["bytes"].as_u64(), log[0]["ms_upstream"].as_u64(), log[0]["status"].as_u64())
    };
    assert_eq!(line(&gate), (Some(answer.len() as u64), Some(2000), Some(201)));
    assert_eq!(line(&bypassing), (Some(0), Some(1000), Some(204)));
}

// An honest second purchase is not counted as a duplicate: renewal counts while observing too.
#[tokio::test(flavor = "local", start_paused = true)]
async fn observing_knows_that_a_new_purchase_has_begun() {
    let shop = Shop::answers(created(RUN));
    let renew = "request = { path = \"/cart/add\" }";
    let gate = Gate::with(&shop, Setup::default().checkout("enforce = false").renew(renew)).await;
    gate.post("/checkout", CART).await;
    gate.post("/cart/add", "item=teapot").await;
    gate.post("/checkout", CART).await;
    assert_eq!(gate.metric("oncegate_observed_duplicates_total", &["route=\"checkout\""]), 0);
    gate.post("/checkout", CART).await;
    assert_eq!(gate.metric("oncegate_observed_duplicates_total", &["route=\"checkout\""]), 1);
}

// What a guard would refuse passes: no key, ambiguous bodies, bodies too large to look at, an order in doubt.
#[tokio::test(flavor = "local", start_paused = true)]
async fn observing_refuses_nothing() {
    let shop = Shop::resets_before_answer(secs(0), ok(RUN));
    let lines = "enforce = false\nbody_max = \"1KiB\"\non_no_key = \"refuse\"";
    let gate = Gate::with(&shop, Setup::default().checkout(lines)).await;
    assert_eq!(gate.post("/checkout", CART).await.status, 502);
    let large = format!("{CART}&note={}", "x".repeat(100_000));
    for (number, body) in [CART, "item=teapot", "order=1&order=2", &large].into_iter().enumerate() {
        let answer = gate.post("/checkout", body).await;
        assert_eq!((answer.status.as_u16(), answer.verdict()), (200, ""), "{answer:?}");
        assert_eq!(shop.visit(number + 1).body, body, "whole");
    }
    gate.drain();
    assert_eq!(gate.post("/checkout", CART).await.status, 200);
    let log = gate.log();
    let reasons: Vec<_> = log.iter().filter_map(|line| line["reason"].as_str()).collect();
    let expected = [
        "upstream-reset",
        "would-refuse",
        "no-order-key",
        "body-unreadable",
        "body-too-large",
        "would-refuse",
    ];
    assert_eq!(reasons, expected);
}

// The shop's own failures come through as they are: a page of errors, half an answer, a client that hangs up.
#[tokio::test(flavor = "local", start_paused = true)]
async fn observing_leaves_failures_as_they_are() {
    let setup = || Setup::default().checkout("enforce = false");
    let failing = Shop::answers(ok("oops").status(500));
    let answer = Gate::with(&failing, setup()).await.post("/checkout", CART).await;
    assert_eq!((answer.status.as_u16(), answer.text(), answer.header("cache-status")), (500, "oops", ""));

    let breaking = Shop::resets_mid_body(secs(0), created("half of this is all that comes"));
    let gate = Gate::with(&breaking, setup()).await;
    assert!(gate.try_send(post("/checkout", CART)).await.is_err(), "half an answer must not look whole");

    let slow = Shop::answers_after(secs(30), ok(RUN));
    let gate = Gate::with(&slow, setup()).await;
    let leaver = gate.begin(post("/checkout", CART));
    slow.reached(1).await;
    leaver.leave().await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(slow.visit(0).ended.map(|(_, how)| how), Some(Ended::Cut), "as behind any proxy");
}

/// Whether an answer counts as done: then the next request is not a new run.
async fn is_done(done_when: &str, reply: Reply) -> bool {
    let shop = Shop::answers(reply);
    let gate = Gate::with(&shop, Setup::default().checkout(&format!("done_when = {done_when}"))).await;
    gate.post("/checkout", CART).await;
    let second = gate.post("/checkout", CART).await;
    match (second.verdict(), shop.orders()) {
        ("replay", 1) => true,
        ("lead", 2) => false,
        other => panic!("neither done nor failed: {other:?}"),
    }
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn done_is_what_the_route_says() {
    let json = r#"{ json = { "/result" = "success", "/redirect" = "~order-received" } }"#;
    let answer = |text: &str| ok(text).with("x-any", "1");
    assert!(is_done(json, answer(r#"{"result":"success","redirect":"/order-received/1"}"#)).await);
    assert!(!is_done(json, answer(r#"{"result":"success","redirect":"/cart"}"#)).await);
    assert!(!is_done(json, answer("<html>maintenance</html>")).await);

    let body = r#"{ status = [200], body = '^"?\d+"?$' }"#;
    assert!(is_done(body, ok("\"42\"")).await);
    assert!(!is_done(body, ok("{\"message\":\"no\"}")).await);
    assert!(!is_done(body, ok("42").status(202)).await);

    let header = r#"{ header = { location = "~/success" } }"#;
    assert!(is_done(header, ok("").status(302).with("location", "/checkout/success")).await);
    assert!(!is_done(header, ok("").status(302).with("location", "/checkout/cart")).await);

    let any = r#"[{ json = { "/ok" = "true" } }, { status = [204] }]"#;
    assert!(is_done(any, ok(r#"{"ok":true}"#)).await);
    assert!(is_done(any, ok("").status(204)).await);
    assert!(!is_done(any, ok(r#"{"ok":false}"#)).await);
}

// A request that names no order is passed on and counted, or refused: never guessed at.
#[tokio::test(flavor = "local", start_paused = true)]
async fn without_an_order_key_the_guard_stands_aside_or_refuses() {
    let shop = Shop::answers(ok(RUN));
    let gate = Gate::start(&shop).await;
    for run in 1..=2 {
        let answer = gate.post("/checkout", "item=teapot").await;
        assert_eq!((answer.verdict(), shop.orders()), ("bypass", run));
        assert_eq!(answer.header("cache-status"), "oncegate; fwd=bypass; detail=no-order-key");
    }
    let bypassed = ["route=\"checkout\"", "verdict=\"bypass\"", "reason=\"no-order-key\""];
    assert_eq!(gate.metric("oncegate_exchanges_total", &bypassed), 2);

    let gate = Gate::with(&shop, Setup::default().checkout("on_no_key = \"refuse\"")).await;
    assert_eq!(gate.post("/checkout", "item=teapot").await.refusal(), (400, "no-key".to_owned()));
    assert_eq!(shop.orders(), 2);
}

// Two order numbers in one form: PHP takes the last, others the first. Nobody picks one here.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_ambiguous_key_is_refused_and_not_picked() {
    let shop = Shop::answers(ok(RUN));
    let gate = Gate::start(&shop).await;
    let refused = gate.post("/checkout", "order=1001&order=1002").await;
    assert_eq!(refused.refusal(), (400, "body-unreadable".to_owned()));
    assert!(refused.text().contains("it stands twice. What"), "whole sentences: {}", refused.text());
    assert_eq!(shop.attempts(), 0);
}

// The same event id with another body, while the first is at the shop and afterwards.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_event_id_with_another_body_is_refused_or_leads() {
    let event = |state: &str| {
        post_json("/callback", &format!(r#"{{"id":"evt_1","order":"1001","state":"{state}"}}"#))
    };
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let gate = Gate::start(&shop).await;
    let first = gate.begin(event("paid"));
    shop.reached(1).await;
    assert_eq!(gate.send(event("refunded")).await.refusal(), (422, "event-mismatch".to_owned()));
    assert_eq!(first.answer().await.verdict(), "lead");
    assert_eq!(gate.send(event("refunded")).await.refusal(), (422, "event-mismatch".to_owned()));
    assert_eq!(gate.send(event("paid")).await.verdict(), "replay");
    assert_eq!(shop.orders(), 1);

    let shop = Shop::answers_after(secs(3), ok(RUN));
    let guard = "mode = \"once\"\norder = [\"json:/order\"]\nevent = [\"json:/id\"]\nidentity = \"none\"\n\
        on_mismatch = \"lead\"";
    let gate = Gate::with(&shop, Setup::default().route("events", "/callback", guard)).await;
    let (first, second) = join!(gate.send(event("paid")), gate.send(event("refunded")));
    assert_eq!((first.verdict(), second.verdict()), ("lead", "lead"));
    assert_eq!(gate.send(event("paid")).await.verdict(), "replay");
    assert_eq!((shop.orders(), shop.overlaps()), (2, 0));
}

// A batch is about several orders and holds the lanes of all. Batches that name them in opposite order do not block
// each other for ever.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_batch_holds_the_lanes_of_all_its_orders() {
    let shop = Shop::answers_after(secs(3), ok(RUN));
    let guard = "mode = \"once\"\norder = [\"json:/items/*/id\"]\nidentity = \"none\"";
    let gate = Gate::with(&shop, Setup::default().route("batch", "/batch", guard)).await;
    let batch = |ids: [u32; 2]| {
        post_json("/batch", &format!(r#"{{"items":[{{"id":{}}},{{"id":{}}}]}}"#, ids[0], ids[1]))
    };
    let began = Instant::now();
    let single = gate.begin(batch([1, 2]));
    shop.reached(1).await;
    join!(gate.send(batch([2, 1])), gate.post("/checkout", "order=2"), gate.post("/checkout", "order=3"));
    assert_eq!(single.answer().await.status, 200);
    let visits = shop.visits();
    let of = |text: &str| {
        let visit =
            visits.iter().find(|visit| visit.body.windows(text.len()).any(|at| at == text.as_bytes()));
        let visit = visit.expect("it came");
        let (ended, how) = visit.ended.expect("it is over");
        assert_eq!(how, Ended::Answered);
        (visit.began, ended)
    };
    let (batches, order_2, order_3) =
        ([of(r#"[{"id":1}"#), of(r#"[{"id":2}"#)], of("order=2"), of("order=3"));
    let are_apart = |one: (Instant, Instant), two: (Instant, Instant)| one.1 <= two.0 || two.1 <= one.0;
    assert!(are_apart(batches[0], batches[1]) && batches.iter().all(|batch| are_apart(*batch, order_2)));
    assert!(!are_apart(batches[0], order_3), "other orders do not wait");
    assert_eq!(began.elapsed().as_secs(), 9, "three that are about order 2, one after the other");
}
