//! The same shop and the same storms, with oncegate between them: every purchase is paid once.
//!
//! Fifty purchases at the same time, ten requests for each. What counts is what stands in the shop's database, and
//! that all who asked the same got the same bytes. The receipt in the answers is random and made anew by each run of
//! the shop, so equal answers cannot come about by two runs that happen to say the same.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use super::client::Answer;
use super::daemon::{Daemon, Rights, pick_port};
use super::stack::{Effects, Shop};
use super::{DUPLICATES, HALF, Outcome, Pattern, storm};

const PURCHASES: u32 = 50;
const CONFIG: &str = include_str!("../../shop/oncegate.toml.template");

/// The oncegate of this build, in front of one shop.
struct Gate {
    address: SocketAddr,
    _process: Daemon,
}

impl Gate {
    fn start(shop: &Shop) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], pick_port()));
        let config = CONFIG
            .replace("@PORT@", &address.port().to_string())
            .replace("@ADMIN_PORT@", &pick_port().to_string())
            .replace("@SHOP@", &shop.address().to_string());
        let file = shop.directory().join("oncegate.toml");
        fs::write(&file, config).expect("the directory is ours");
        let program = Path::new(env!("CARGO_BIN_EXE_oncegate"));
        let arguments = ["run".as_ref(), "--config".as_ref(), file.as_os_str()];
        let mut process = Daemon::start("oncegate", program, &arguments, Rights::Own, shop.directory());
        process.wait_until(|| TcpStream::connect(address).is_ok()).expect("oncegate runs");
        Self { address, _process: process }
    }
}

/// Storms a shop through the gate and, once every purchase was paid once, returns what the clients got.
async fn storm_that_pays_once(pattern: Pattern) -> Vec<Outcome> {
    let shop = Shop::open(PURCHASES, pattern.start());
    let gate = Gate::start(&shop);
    let outcomes = storm(gate.address, pattern, PURCHASES, PURCHASES as usize).await;
    // The gate goes first: while it lives it could still send something that should never have been sent.
    drop(gate);
    let effects = shop.effects().await;
    let once = Effects { orders: 1, payments: 1, stock_taken: 1 };
    let wrong: Vec<_> = (1..).zip(&effects).filter(|(_, effects)| **effects != once).collect();
    assert_eq!(effects.len(), PURCHASES as usize, "every purchase is looked at");
    assert!(wrong.is_empty(), "{pattern:?}: {} of {PURCHASES} purchases are wrong: {wrong:?}", wrong.len());
    outcomes
}

fn assert_equal_answers(answers: &[Answer], begin: &str) {
    let first = answers.first().expect("somebody was answered");
    assert!(first.status == 200 && first.body.starts_with(begin.as_bytes()), "{first:?}");
    for answer in answers {
        assert_eq!((answer.status, &answer.body), (first.status, &first.body));
    }
}

/// How many of the answers are the leader's, and how many were shared with others (`follow`, `replay`).
fn led_and_shared(answers: &[Answer]) -> (u32, u32) {
    answers.iter().fold((0, 0), |(led, shared), answer| match answer.verdict() {
        "lead" => (led + 1, shared),
        "follow" | "replay" => (led, shared + 1),
        other => panic!("neither led nor shared but {other:?}: {answer:?}"),
    })
}

#[tokio::test]
async fn behind_the_gate_clicks_at_once_pay_once() {
    for outcome in storm_that_pays_once(Pattern::AtOnce).await {
        assert_equal_answers(&outcome.first, r#"{"result":"success","#);
        assert_eq!(led_and_shared(&outcome.first), (1, DUPLICATES - 1));
    }
}

/// The leader is one of those that gave up, as a rule. On a busy machine all of them may be gone before the gate has
/// read their requests; then one of those that wait leads.
#[tokio::test]
async fn behind_the_gate_giving_up_and_clicking_again_pays_once() {
    let mut led_by_the_patient = 0;
    for outcome in storm_that_pays_once(Pattern::AbortAndAgain).await {
        assert_equal_answers(&outcome.first, r#"{"result":"success","#);
        let (led, shared) = led_and_shared(&outcome.first);
        assert!(led <= 1 && led + shared == DUPLICATES - HALF, "{led} led, {shared} shared");
        led_by_the_patient += led;
    }
    assert!(led_by_the_patient < PURCHASES, "no request of a client that gave up has reached the shop");
}

/// The callback is answered once and shared; the return pages queue behind it or before it, and each is the shop's
/// own, because it finds the order paid. Whoever comes first pays, so the callback may be told "already paid".
#[tokio::test]
async fn behind_the_gate_callback_and_return_pay_once() {
    for outcome in storm_that_pays_once(Pattern::CallbackAgainstReturn).await {
        assert_equal_answers(&outcome.first, "a");
        assert_eq!(led_and_shared(&outcome.first), (1, HALF - 1));
        assert_equal_answers(&outcome.returned, "<!doctype html><title>Thank you</title>");
        assert_eq!(led_and_shared(&outcome.returned), (DUPLICATES - HALF, 0));
    }
}
