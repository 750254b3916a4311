//! The whole gate over a store that goes away: what clients, the shop, and whoever looks see of it.

use std::sync::Arc;

use oncegate::ops::words::StoreOp;
use oncegate::store::{Standing, Store as _};
use tokio::{
    join,
    time::{Instant, sleep},
};

use super::{
    DEADLINE, Replica,
    wire::{Cut, Remote, eventually},
};
use crate::world::{CART, Gate, Setup, Shop, millis, ok, post, secs};

const RUN: &str = "run {n}";

/// The guard of the checkout with more lines, on a store that is shared.
fn setup(guard: &str) -> Setup {
    Setup::default().store("kind = \"redis\"\nurl = \"redis://127.0.0.1\"").checkout(guard)
}

async fn replica(remote: &Arc<Remote>, number: u128, shop: &Shop, guard: &str) -> (Gate, Replica) {
    let replica = Replica::on(remote, number).await;
    let gate = Gate::on_store(shop, setup(guard), Arc::clone(&replica.store) as _).await;
    (gate, replica)
}

// The store dies while nobody knows: clicks go on, twice at once, and the answers say that this replica is alone.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_shop_goes_on_selling_while_the_store_is_down() {
    let shop = Shop::answers_after(secs(1), ok(RUN));
    let (gate, one) = replica(&Remote::new(), 1, &shop, "").await;
    one.wire.cut(Cut::Silent);
    let began = Instant::now();
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert!(began.elapsed() < secs(1) + 2 * DEADLINE, "{:?}", began.elapsed());
    assert_eq!((first.text(), second.text(), shop.orders()), ("run 1", "run 1", 1));
    for order in 2..6 {
        gate.post("/checkout", &format!("order={order}")).await;
    }
    assert_eq!(one.store.standing(), Standing::Down);
    let began = Instant::now();
    let replayed = gate.post("/checkout", CART).await;
    assert!(began.elapsed() < millis(5), "nobody waits for a store that is down");
    assert_eq!(replayed.verdict(), "replay");
    assert!(replayed.header("cache-status").ends_with("; detail=store-down-local"), "{:?}", replayed);
    one.comes_back().await;
    let replayed = gate.post("/checkout", CART).await;
    assert_eq!(replayed.verdict(), "replay");
    assert!(!replayed.header("cache-status").contains("detail"), "{:?}", replayed);
    assert_eq!((shop.orders(), shop.overlaps()), (5, 0));
}

#[tokio::test(flavor = "local", start_paused = true)]
async fn a_route_that_refuses_gives_503_and_a_time_to_come_again() {
    let shop = Shop::answers(ok(RUN));
    let (gate, one) = replica(&Remote::new(), 1, &shop, "on_store_down = \"refuse\"").await;
    one.wire.cut(Cut::Silent);
    for _ in 0..5 {
        let began = Instant::now();
        let refused = gate.post("/checkout", CART).await;
        assert_eq!(refused.refusal(), (503, "store-down".to_owned()));
        assert!(refused.retry_after() > 0);
        assert!(began.elapsed() <= DEADLINE + millis(1), "{:?}", began.elapsed());
    }
    assert_eq!(shop.attempts(), 0);
    assert_eq!(
        gate.post("/callback-elsewhere", "").await.status.as_u16(),
        200,
        "what is not guarded goes on"
    );
    one.comes_back().await;
    assert_eq!(gate.post("/checkout", CART).await.verdict(), "lead");
}

// The exchange is at the shop when the store goes away, for good. Nobody is sent twice, before or after.
#[tokio::test(flavor = "local", start_paused = true)]
async fn an_exchange_that_runs_while_the_store_goes_away_and_comes_back_is_sent_once() {
    for (away, back) in [(1, 2), (1, 40), (9, 11), (2, 25)] {
        let remote = Remote::new();
        let shop = Shop::answers_after(secs(30), ok(RUN));
        let (here, one) = replica(&remote, 1, &shop, "").await;
        let (there, _other) = replica(&remote, 2, &shop, "").await;
        let leader = here.begin(post("/checkout", CART));
        shop.reached(1).await;
        sleep(secs(away)).await;
        one.wire.cut(Cut::Refused);
        sleep(secs(back - away)).await;
        let duplicate = here.begin(post("/checkout", CART));
        one.wire.mend();
        let elsewhere = there.post("/checkout", CART).await;
        assert!(["follow", "refuse", "replay"].contains(&elsewhere.verdict()), "{elsewhere:?}");
        assert_eq!(leader.answer().await.text(), "run 1");
        assert_eq!(duplicate.answer().await.text(), "run 1");
        eventually("it is written back", async || one.store.kept() == 0).await;
        let after = there.post("/checkout", CART).await;
        assert_eq!((after.verdict(), after.text()), ("replay", "run 1"), "{away}..{back}");
        assert_eq!((shop.orders(), shop.overlaps()), (1, 0));
    }
}

// The shop gives no answer while the store is away: the order is in doubt, here at once and for all afterwards.
#[tokio::test(flavor = "local", start_paused = true)]
async fn what_came_in_doubt_alone_is_in_doubt_for_all() {
    let remote = Remote::new();
    let shop = Shop::resets_mid_body(secs(1), ok(RUN));
    let (here, one) = replica(&remote, 1, &shop, "").await;
    let (there, _other) = replica(&remote, 2, &shop, "").await;
    one.goes_down(Cut::Refused).await;
    assert_eq!(here.post("/checkout", CART).await.status.as_u16(), 502);
    assert_eq!(here.post("/checkout", CART).await.refusal().1, "outcome-unknown");
    one.comes_back().await;
    assert_eq!(there.post("/checkout", CART).await.refusal().1, "outcome-unknown");
    assert_eq!(shop.attempts(), 1);
}

// The store takes the settle and its answer is lost; it is restarted empty before it can be asked again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_record_outlives_a_store_that_forgets_it() {
    let remote = Remote::new();
    let shop = Shop::answers(ok(RUN));
    let (here, one) = replica(&remote, 1, &shop, "").await;
    let (there, _other) = replica(&remote, 2, &shop, "").await;
    one.wire.lose_answers(StoreOp::Settle);
    assert_eq!(here.post("/checkout", CART).await.verdict(), "lead");
    one.wire.mend();
    remote.forgets();
    assert_eq!(here.post("/checkout", CART).await.verdict(), "replay");
    here.post("/checkout", "order=1002").await;
    eventually("the record is written back", async || remote.memory().stats().records >= 1).await;
    // The other replica does not trust the store yet, and goes on alone: that much is excused. Afterwards it knows.
    sleep(secs(1300)).await;
    let replayed = there.post("/checkout", CART).await;
    assert_eq!((replayed.verdict(), replayed.text()), ("replay", "run 1"));
}
