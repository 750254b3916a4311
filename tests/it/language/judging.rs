//! Answers that leave something to do, and refusals in the words of the shop whose script reads them.

use tokio::{
    join,
    time::{sleep, timeout},
};

use crate::world::{CART, Gate, Setup, Shop, millis, ok, post, post_json, secs};

/// WooCommerce's classic checkout, as far as it is judged.
const CLASSIC: &str = r#"
done_when = { json = { "/result" = "success", "/redirect" = "~/order-received/" } }
pending_when = { json = { "/result" = "success" } }
busy = "woocommerce"
"#;

fn pending() -> crate::world::Reply {
    ok(r##"{"result":"success","redirect":"#confirm-pi-{n}:secret"}"##).with("set-cookie", "step={n}")
}

fn placed() -> crate::world::Reply {
    ok(r#"Notice: x {"result":"success","redirect":"https:\/\/shop.example\/order-received\/{n}\/"}"#)
}

// A double click on a card that wants to be confirmed: both clicks get the same confirmation, and so does a third one
// within seconds. A minute later the provider's session may be dead, so the shop is asked for a new one.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_pending_answer_is_for_those_who_wait_and_for_seconds() {
    let shop = Shop::answers_after(secs(2), pending());
    let gate = Gate::with(&shop, Setup::default().checkout(CLASSIC)).await;
    let (one, two) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!((one.verdict(), two.verdict(), shop.orders()), ("lead", "follow", 1));
    assert_eq!((one.text(), one.header("set-cookie")), (two.text(), two.header("set-cookie")));
    sleep(secs(3)).await;
    let third = gate.post("/checkout", CART).await;
    assert_eq!((third.verdict(), third.text(), shop.orders()), ("replay", one.text(), 1));
    sleep(secs(6)).await;
    let later = gate.post("/checkout", CART).await;
    assert_eq!((later.verdict(), shop.orders()), ("lead", 2));
    assert_ne!(later.text(), one.text());
    let reasons: Vec<_> = gate.log().iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["pending", "pending", "done", "pending"]);
}

// The second provider's session leads to a paid order: that one is kept as long as any.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_placed_order_is_kept_though_a_notice_stands_before_its_json() {
    let shop = Shop::answers(placed());
    let gate = Gate::with(&shop, Setup::default().checkout(CLASSIC)).await;
    let first = gate.post("/checkout", CART).await;
    sleep(secs(3600)).await;
    let again = gate.post("/checkout", CART).await;
    assert_eq!((again.verdict(), again.text(), shop.orders()), ("replay", first.text(), 1));
}

// Another replica gets it too, and it ends there as soon.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_pending_answer_ends_on_all_replicas() {
    let shop = Shop::answers(pending());
    let here = Gate::with(&shop, Setup::default().checkout(CLASSIC)).await;
    let there = here.replica(&shop, Setup::default().checkout(CLASSIC)).await;
    here.post("/checkout", CART).await;
    assert_eq!(there.post("/checkout", CART).await.verdict(), "replay");
    sleep(secs(6)).await;
    assert_eq!((there.post("/checkout", CART).await.verdict(), shop.orders()), ("lead", 2));
}

// Where one record answers for the whole order, a shopper who comes back from the provider and pays by other means
// must not be sent to the provider again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_pending_answer_never_answers_for_another_body_of_its_order() {
    let shop = Shop::answers(pending());
    let scope = format!("{CLASSIC}replay_scope = \"order\"");
    let gate = Gate::with(&shop, Setup::default().checkout(&scope)).await;
    let first = gate.post("/checkout", CART).await;
    assert_eq!(first.header("cache-status"), "oncegate; fwd=miss");
    let other = gate.post("/checkout", &format!("{CART}&payment=cash")).await;
    assert_eq!((other.verdict(), shop.orders()), ("lead", 2));
    let done = Shop::answers(placed());
    let gate = Gate::with(&done, Setup::default().checkout(&scope)).await;
    gate.post("/checkout", CART).await;
    let other = gate.post("/checkout", &format!("{CART}&payment=cash")).await;
    assert_eq!((other.verdict(), done.orders()), ("replay", 1), "a placed order does");
}

// A shopper clicks again and again, and the shop is slow: its own script shows what it is told, and forgets nothing.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_checkout_that_waits_in_vain_is_told_in_its_shops_words() {
    let shop = Shop::answers_after(secs(30), placed());
    let setup = || Setup::default().checkout(&format!("{CLASSIC}wait_max = \"5s\""));
    let gate = Gate::with(&shop, setup()).await;
    let refused = gate.post("/checkout", CART).await;
    assert_eq!((refused.status.as_u16(), refused.verdict(), refused.retry_after()), (200, "refuse", 2));
    let told: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(told["result"], "failure");
    assert!(told["messages"].as_str().unwrap().contains("do not pay again"), "{told}");
    let page = gate.send(post("/checkout", CART).with("accept", "text/html")).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (503, "text/html; charset=utf-8"));
    let elsewhere = gate.send(post_json("/callback", r#"{"id":"e","order":1,"order":2}"#)).await;
    assert_eq!(elsewhere.refusal(), (400, "body-unreadable".to_owned()), "other routes speak as they did");
    sleep(secs(30)).await;
    let again = gate.post("/checkout", CART).await;
    assert_eq!((again.verdict(), shop.orders()), ("replay", 1), "the answer was waiting all the same");
    assert_eq!(gate.metric("oncegate_refusals_total", &["route=\"checkout\"", "wait-exhausted"]), 2);
}

// The leader's own answer is not in the shop's words: nothing that the shop says is touched.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_shops_own_failure_is_never_put_in_other_words() {
    let shop = Shop::answers(ok("-1").status(500));
    let gate = Gate::with(&shop, Setup::default().checkout(CLASSIC)).await;
    let answer = timeout(millis(100), gate.post("/checkout", CART)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text(), answer.verdict()), (500, "-1", "lead"));
}
