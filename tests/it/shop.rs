//! A real shop that charges twice, and what becomes of it behind oncegate.
//!
//! The scenario of the field: PHP reads whether an order is paid, waits for the payment provider for 200 to 500 ms,
//! and then writes. Whatever arrives in between is paid for again. The tests in this file meet the shop directly: when
//! the race does not show, they fail, for then the tests behind the gate would prove nothing.

mod behind;
mod client;
mod daemon;
mod stack;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use client::{Answer, Click, Leave, send, send_and_give_up};
use stack::{Effects, Shop, Start};

const DUPLICATES: u32 = 10;
/// How many of the duplicates give up, or are the callback's; the other half waits, or is the browser's.
const HALF: u32 = DUPLICATES / 2;

/// How the duplicates of one purchase come about.
#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// Ten clicks at the same moment.
    AtOnce,
    /// Five clicks, each given up for the next, and then five that wait.
    AbortAndAgain,
    /// Five deliveries of the callback, each with other bytes, together with five loads of the return page.
    CallbackAgainstReturn,
}

/// Where requests go: to the shop itself, to the gate before it, or by turns to two gates.
#[derive(Clone, Copy)]
struct Doors([SocketAddr; 2]);

impl Doors {
    fn one(door: SocketAddr) -> Self {
        Self([door; 2])
    }

    /// The door of one of the duplicates.
    fn of(self, duplicate: usize) -> SocketAddr {
        self.0[duplicate % 2]
    }
}

/// What came back for one purchase.
struct Outcome {
    /// The answers to the checkout, or to the callback.
    first: Vec<Answer>,
    /// The answers to the browser's return, if there was one.
    returned: Vec<Answer>,
}

impl Pattern {
    fn start(self) -> Start {
        match self {
            Self::AtOnce | Self::AbortAndAgain => Start::Carts,
            Self::CallbackAgainstReturn => Start::PendingOrders,
        }
    }
}

/// Makes `purchases` purchases, `together` of them at a time, and returns what came back for each.
async fn storm(to: Doors, pattern: Pattern, purchases: u32, together: usize) -> Vec<Outcome> {
    let ids: Vec<u32> = (1..=purchases).collect();
    let mut outcomes = Vec::new();
    for wave in ids.chunks(together) {
        outcomes.extend(
            wave.iter().map(|id| purchase(to, pattern, *id)).collect::<JoinSet<_>>().join_all().await,
        );
    }
    outcomes
}

async fn purchase(to: Doors, pattern: Pattern, id: u32) -> Outcome {
    match pattern {
        Pattern::AtOnce => Outcome {
            first: send_all(to, (0..DUPLICATES).map(|_| Click::checkout(id))).await,
            returned: Vec::new(),
        },
        Pattern::AbortAndAgain => {
            for click in 0..u64::from(HALF) {
                let leave = if click % 2 == 0 { Leave::Close } else { Leave::Reset };
                // Less than the shop works, and longer than it takes to read a request on a machine that is busy.
                let patience = Duration::from_millis(20 + 30 * click);
                let door = to.of(usize::try_from(click).expect("it is small"));
                send_and_give_up(door, &Click::checkout(id), patience, leave).await;
            }
            Outcome {
                first: send_all(to, (HALF..DUPLICATES).map(|_| Click::checkout(id))).await,
                returned: Vec::new(),
            }
        }
        Pattern::CallbackAgainstReturn => {
            let callbacks = send_all(to, (0..HALF).map(|attempt| Click::callback(id, attempt)));
            let returns = send_all(to, (HALF..DUPLICATES).map(|_| Click::browser_return(id)));
            let (first, returned) = tokio::join!(callbacks, returns);
            Outcome { first, returned }
        }
    }
}

async fn send_all(to: Doors, clicks: impl Iterator<Item = Click>) -> Vec<Answer> {
    let sent = |(duplicate, click)| async move { send(to.of(duplicate), &click).await };
    clicks.enumerate().map(sent).collect::<JoinSet<_>>().join_all().await
}

/// Ten purchases, two at a time, so that all their duplicates find a free worker of php-fpm.
async fn assert_that_the_race_shows(pattern: Pattern) {
    let purchases = 10;
    let shop = Shop::open(purchases, pattern.start());
    let outcomes = storm(Doors::one(shop.address()), pattern, purchases, 2).await;
    let effects = shop.effects().await;
    let doubled = effects.iter().filter(|effects| effects.payments > 1).count();
    let payments: u32 = effects.iter().map(|effects| effects.payments).sum();
    println!(
        "{pattern:?}: {doubled} of {purchases} purchases paid more than once, {payments} payments in all"
    );
    assert!(doubled > 0, "the race does not show, so nothing is proven: {effects:?}");
    assert!(effects.iter().all(|effects| effects.stock_taken == effects.payments), "{effects:?}");
    // Nobody is told: a shop that doubles a payment has only good news for everyone.
    for answer in outcomes.iter().flat_map(|outcome| outcome.first.iter().chain(&outcome.returned)) {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn without_the_gate_clicks_at_once_pay_more_than_once() {
    assert_that_the_race_shows(Pattern::AtOnce).await;
}

#[tokio::test]
async fn without_the_gate_giving_up_and_clicking_again_pays_more_than_once() {
    assert_that_the_race_shows(Pattern::AbortAndAgain).await;
}

#[tokio::test]
async fn without_the_gate_callback_and_return_both_pay() {
    assert_that_the_race_shows(Pattern::CallbackAgainstReturn).await;
}

/// The shop is naive, not broken: whoever comes later is told so, and nothing is paid twice.
#[tokio::test]
async fn one_after_the_other_the_shop_pays_once() {
    let shop = Shop::open(1, Start::Carts);
    let once = Effects { orders: 1, payments: 1, stock_taken: 1 };

    let bought = send(shop.address(), &Click::checkout(1)).await;
    assert!(bought.body.starts_with(br#"{"result":"success""#), "{bought:?}");
    assert_eq!(shop.effects().await, [once]);

    let again = send(shop.address(), &Click::checkout(1)).await;
    let told = send(shop.address(), &Click::callback(1, 1)).await;
    let shown = send(shop.address(), &Click::browser_return(1)).await;
    assert!(again.body.starts_with(br#"{"result":"failure""#), "{again:?}");
    assert!(told.body.starts_with(b"already paid "), "{told:?}");
    assert!(shown.body.starts_with(b"<!doctype html><title>Thank you"), "{shown:?}");
    assert_eq!(shop.effects().await, [once]);
}
