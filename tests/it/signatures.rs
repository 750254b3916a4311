//! Signatures of senders, through the whole proxy: a forged callback holds no lane, is given nobody's answer, leaves
//! none, and costs the real one no time.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::{join, time::Instant};

use crate::world::{Ask, Gate, Setup, Shop, ok, post_json, secs};

const SECRET: &str = "rzp_the_secret_of_this_test";
const PAID: &str = r#"{"id":"evt_1","order":"1001","status":"paid"}"#;
const GUARD: &str = "mode = \"once\"\norder = [\"json:/order\"]\nevent = [\"json:/id\"]\nidentity = \"none\"";

fn signature(secret: &str, parts: &[&str]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    for part in parts {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A callback of Razorpay's, signed with a secret.
fn callback(body: &str, secret: &str) -> Ask {
    post_json("/paid", body).with("x-razorpay-signature", &signature(secret, &[body]))
}

fn setup(guard: &str, verify: &str) -> Setup {
    let verify = format!("[route.verify]\nscheme = \"razorpay\"\nsecret = \"{SECRET}\"\n{verify}");
    Setup::default().route("paid", "/paid", &format!("{GUARD}\n{guard}\n{verify}"))
}

// Somebody who knows the shop's address and an order's number sends callbacks for it. The shop takes its time to find
// out that they are worth nothing; the provider's own comes meanwhile.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_forged_callback_holds_no_lane_and_does_not_delay_the_real_one() {
    let shop = Shop::answers_after(secs(3), ok("run {n}"));
    let gate = Gate::with(&shop, setup("", "")).await;
    let forged: Vec<_> = (0..4).map(|_| gate.begin(callback(PAID, "a guess"))).collect();
    shop.reached(4).await;
    let began = Instant::now();
    let real = gate.send(callback(PAID, SECRET)).await;
    assert_eq!((real.verdict(), real.text(), began.elapsed()), ("lead", "run 5", secs(3)));
    for forged in forged {
        let answer = forged.answer().await;
        assert_eq!(answer.verdict(), "bypass");
        assert_eq!(answer.header("cache-status"), "oncegate; fwd=bypass; detail=bad-signature");
        assert_ne!(answer.text(), "run 5");
    }
    let again = gate.send(callback(PAID, SECRET)).await;
    assert_eq!((again.verdict(), again.text()), ("replay", "run 5"), "and not a forged one's answer");
    assert_eq!(gate.send(callback(PAID, "a guess")).await.text(), "run 6", "nobody is given the real one's");
    assert_eq!(gate.metric("oncegate_signatures_total", &["route=\"paid\"", "outcome=\"mismatch\""]), 5);
    assert_eq!(gate.metric("oncegate_signatures_total", &["route=\"paid\"", "outcome=\"verified\""]), 2);
    assert_eq!(
        gate.metric("oncegate_exchanges_total", &["verdict=\"bypass\"", "reason=\"bad-signature\""]),
        5
    );
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn what_is_to_be_refused_never_reaches_the_shop() {
    let shop = Shop::answers_after(secs(1), ok("run {n}"));
    let gate = Gate::with(&shop, setup("", "on_bad_signature = \"refuse\"")).await;
    for forged in [callback(PAID, "a guess"), callback(PAID, SECRET).without("x-razorpay-signature")] {
        let answer = gate.send(forged).await;
        assert_eq!(answer.refusal(), (401, "bad-signature".to_owned()));
        assert_eq!(answer.header("www-authenticate"), "Signature");
    }
    assert_eq!(shop.orders(), 0);
    assert_eq!(gate.send(callback(PAID, SECRET)).await.text(), "run 1");
    let why: Vec<_> = gate.events("bad-signature").iter().map(|event| event["why"].to_string()).collect();
    assert_eq!(why.len(), 2);
    assert!(why[0].contains("another secret") && why[1].contains("no signature"), "{why:?}");
    let refused = gate.log().iter().filter(|line| line["reason"] == "bad-signature").count();
    assert_eq!((refused, gate.metric("oncegate_refusals_total", &["name=\"bad-signature\""])), (2, 2));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn no_secret_is_ever_told() {
    let shop = Shop::answers_after(secs(1), ok("fine"));
    let gate = Gate::with(&shop, setup("", "")).await;
    let good = callback(PAID, SECRET);
    let told = good.headers["x-razorpay-signature"].to_str().unwrap().to_owned();
    join!(gate.send(good), gate.send(callback(PAID, "a guess")));
    let log = String::from_utf8(gate.log_bytes()).unwrap();
    let config = &gate.shared().config;
    let debug = format!("{:?}", config.route("paid").unwrap().guard.as_ref().unwrap().verify);
    let metrics = gate.shared().metrics.encode();
    for text in [log, debug, metrics] {
        assert!(!text.is_empty() && !text.contains(SECRET) && !text.contains(&told), "{text}");
    }
}

// While one secret takes the place of another, callbacks that were signed before come beside those signed after.
#[tokio::test(flavor = "local", start_paused = true)]
async fn two_secrets_are_good_at_a_time() {
    let shop = Shop::answers_after(secs(1), ok("run {n}"));
    let verify = "[route.verify]\nscheme = \"razorpay\"\nsecret = [\"the new one\", \"the old one\"]";
    let gate =
        Gate::with(&shop, Setup::default().route("paid", "/paid", &format!("{GUARD}\n{verify}"))).await;
    let (new, old) =
        join!(gate.send(callback(PAID, "the new one")), gate.send(callback(PAID, "the old one")),);
    assert_eq!((new.verdict(), old.verdict(), shop.orders()), ("lead", "follow", 1));
    assert_eq!(gate.send(callback(PAID, "another one")).await.verdict(), "bypass");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn an_old_signature_of_stripes_is_no_good_one() {
    let shop = Shop::answers_after(secs(1), ok("run {n}"));
    let verify = "[route.verify]\nscheme = \"stripe\"\nsecret = \"whsec_1\"";
    let gate =
        Gate::with(&shop, Setup::default().route("paid", "/paid", &format!("{GUARD}\n{verify}"))).await;
    let signed = |ago: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = (now - Duration::from_secs(ago)).as_secs().to_string();
        let signature = signature("whsec_1", &[&at, ".", PAID]);
        post_json("/paid", PAID).with("stripe-signature", &format!("t={at},v1={signature}"))
    };
    assert_eq!(gate.send(signed(600)).await.verdict(), "bypass");
    assert_eq!(gate.metric("oncegate_signatures_total", &["outcome=\"stale\""]), 1);
    assert_eq!(gate.send(signed(0)).await.verdict(), "lead");
    assert_eq!(gate.send(signed(60)).await.verdict(), "replay", "signed anew, it is the same event");
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_guard_that_observes_counts_a_bad_signature_and_touches_nothing() {
    let shop = Shop::answers_after(secs(1), ok("run {n}"));
    let gate = Gate::with(&shop, setup("enforce = false", "on_bad_signature = \"refuse\"")).await;
    assert_eq!(gate.send(callback(PAID, "a guess")).await.text(), "run 1");
    assert_eq!(gate.send(callback(PAID, SECRET)).await.text(), "run 2");
    assert_eq!(gate.send(callback(PAID, SECRET)).await.text(), "run 3");
    let reasons: Vec<_> = gate.log().iter().map(|line| line["reason"].to_string()).collect();
    assert_eq!(reasons, ["\"bad-signature\"", "\"observe\"", "\"would-replay\""], "it is no duplicate of it");
}
