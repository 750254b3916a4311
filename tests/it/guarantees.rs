//! The nine guarantees of the promise, each under its own name, against the real gate and a naive shop.

use tokio::join;

use crate::world::{CART, Gate, Shop, created, secs};

// A shopper double-clicks: two equal requests while the shop is at work.
#[tokio::test(flavor = "local", start_paused = true)]
async fn guarantee_1_two_identical_orders_reach_the_shop_once() {
    let shop = Shop::answers_after(secs(3), created("order 1001"));
    let gate = Gate::start(&shop).await;
    let (first, second) = join!(gate.post("/checkout", CART), gate.post("/checkout", CART));
    assert_eq!(shop.orders(), 1);
    assert_eq!((first.verdict(), second.verdict()), ("lead", "follow"));
    assert_eq!(first.body, second.body);
}
