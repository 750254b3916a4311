//! The same shop and the same storms, with oncegate between them: every purchase is paid once.
//!
//! Fifty purchases at the same time, ten requests for each. What counts is what stands in the shop's database, and
//! that all who asked the same got the same bytes. The receipt in the answers is random and made anew by each run of
//! the shop, so equal answers cannot come about by two runs that happen to say the same.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::client::Answer;
use super::daemon::{Daemon, Rights, pick_port};
use super::stack::{Effects, Shop};
use super::{DUPLICATES, Doors, HALF, Outcome, Pattern, storm};
use crate::world::redis::RedisServer;

const PURCHASES: u32 = 50;
const CONFIG: &str = include_str!("../../shop/oncegate.toml.template");

/// The oncegate of this build, in front of one shop.
struct Gate {
    address: SocketAddr,
    _process: Daemon,
}

impl Gate {
    /// `number` tells the files of two gates in one folder apart; `store` is what stands in `[store]`.
    fn start(shop: &Shop, number: usize, store: &str) -> Self {
        let [address, admin] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], pick_port())));
        let config = CONFIG
            .replace("@PORT@", &address.port().to_string())
            .replace("@ADMIN_PORT@", &admin.port().to_string())
            .replace("@SHOP@", &shop.address().to_string())
            .replace("@STORE@", store);
        let file = shop.directory().join(format!("oncegate-{number}.toml"));
        fs::write(&file, config).expect("the directory is ours");
        let program = Path::new(env!("CARGO_BIN_EXE_oncegate"));
        let arguments = ["run".as_ref(), "--config".as_ref(), file.as_os_str()];
        let mut process = Daemon::start("oncegate", program, &arguments, Rights::Own, shop.directory());
        process.wait_until(|| is_ready(admin)).expect("oncegate runs");
        Self { address, _process: process }
    }
}

/// A replica that meets a store whose memory is new listens, but waits with its first word, see `MEMORY_AGE_MIN`.
fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ready\n"))
}

/// Storms a shop through the gate and, once every purchase was paid once, returns what the clients got.
async fn storm_that_pays_once(pattern: Pattern) -> Vec<Outcome> {
    let shop = Shop::open(PURCHASES, pattern.start());
    let gate = Gate::start(&shop, 0, r#"kind = "memory""#);
    let doors = Doors::one(gate.address);
    paid_once(shop, doors, vec![gate], pattern).await
}

/// The same through two replicas with one Redis: of ten duplicates each gets five.
async fn storm_on_two_that_pays_once(pattern: Pattern) -> Vec<Outcome> {
    let redis = RedisServer::start(&[]);
    let shop = Shop::open(PURCHASES, pattern.start());
    let store =
        format!("kind = \"redis\"\nurl = \"{}\"\non_store_down = \"refuse\"\ndeadline = \"3s\"", redis.url());
    let gates: Vec<Gate> = (0..2).map(|number| Gate::start(&shop, number, &store)).collect();
    let doors = Doors([gates[0].address, gates[1].address]);
    paid_once(shop, doors, gates, pattern).await
}

async fn paid_once(shop: Shop, doors: Doors, gates: Vec<Gate>, pattern: Pattern) -> Vec<Outcome> {
    let outcomes = storm(doors, pattern, PURCHASES, PURCHASES as usize).await;
    // The gates go first: while one lives it could still send something that should never have been sent.
    drop(gates);
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

fn assert_one_answer_to_all(outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert_equal_answers(&outcome.first, r#"{"result":"success","#);
        assert_eq!(led_and_shared(&outcome.first), (1, DUPLICATES - 1));
    }
}

#[tokio::test]
async fn behind_the_gate_clicks_at_once_pay_once() {
    assert_one_answer_to_all(&storm_that_pays_once(Pattern::AtOnce).await);
}

#[tokio::test]
async fn behind_two_replicas_clicks_at_once_pay_once() {
    assert_one_answer_to_all(&storm_on_two_that_pays_once(Pattern::AtOnce).await);
}

/// The leader is one of those that gave up, as a rule. On a busy machine all of them may be gone before the gate has
/// read their requests; then one of those that wait leads.
fn assert_one_answer_to_the_patient(outcomes: &[Outcome]) {
    let mut led_by_the_patient = 0;
    for outcome in outcomes {
        assert_equal_answers(&outcome.first, r#"{"result":"success","#);
        let (led, shared) = led_and_shared(&outcome.first);
        assert!(led <= 1 && led + shared == DUPLICATES - HALF, "{led} led, {shared} shared");
        led_by_the_patient += led;
    }
    assert!(led_by_the_patient < PURCHASES, "no request of a client that gave up has reached the shop");
}

#[tokio::test]
async fn behind_the_gate_giving_up_and_clicking_again_pays_once() {
    assert_one_answer_to_the_patient(&storm_that_pays_once(Pattern::AbortAndAgain).await);
}

#[tokio::test]
async fn behind_two_replicas_giving_up_and_clicking_again_pays_once() {
    assert_one_answer_to_the_patient(&storm_on_two_that_pays_once(Pattern::AbortAndAgain).await);
}

/// The callback is answered once and shared; the return pages queue behind it or before it, and each is the shop's
/// own, because it finds the order paid. Whoever comes first pays, so the callback may be told "already paid".
fn assert_that_only_callbacks_share(outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert_equal_answers(&outcome.first, "a");
        assert_eq!(led_and_shared(&outcome.first), (1, HALF - 1));
        assert_equal_answers(&outcome.returned, "<!doctype html><title>Thank you</title>");
        assert_eq!(led_and_shared(&outcome.returned), (DUPLICATES - HALF, 0));
    }
}

#[tokio::test]
async fn behind_the_gate_callback_and_return_pay_once() {
    assert_that_only_callbacks_share(&storm_that_pays_once(Pattern::CallbackAgainstReturn).await);
}

#[tokio::test]
async fn behind_two_replicas_callback_and_return_pay_once() {
    assert_that_only_callbacks_share(&storm_on_two_that_pays_once(Pattern::CallbackAgainstReturn).await);
}
