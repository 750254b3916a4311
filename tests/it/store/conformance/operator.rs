//! What an operator sees and may do.

use oncegate::store::{LaneView, Resolution, Resolved};

use super::*;

async fn inspect(store: &dyn Store, order: &str) -> LaneView {
    store.inspect(key(order)).await.expect("the store is up")
}

async fn resolve(store: &dyn Store, order: &str, resolution: Resolution) -> Resolved {
    store.resolve(key(order), resolution).await.expect("the store is up")
}

pub(crate) async fn an_operator_sees_what_a_lane_does(stand: &impl Stand) {
    assert_eq!(inspect(stand.store(), "order").await, LaneView::Free);
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    match inspect(stand.other(), "order").await {
        LaneView::Flight { fence, lease_left } => {
            assert_eq!(fence, hold.fence);
            assert!(lease_left > LONG / 2 && lease_left <= LONG, "{lease_left:?}");
        }
        other => panic!("expected a flight, got {other:?}"),
    }
    settle(stand.store(), &hold, Ending::InDoubt).await;
    match inspect(stand.other(), "order").await {
        LaneView::InDoubt { fence, age, remaining } => {
            assert_eq!(fence, hold.fence);
            assert!(age < LONG / 2 && remaining > LONG / 2 && remaining <= LONG, "{age:?} {remaining:?}");
        }
        other => panic!("expected a doubt, got {other:?}"),
    }
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    assert_eq!(inspect(stand.other(), "order").await, LaneView::Free);
}

pub(crate) async fn an_order_resolved_as_done_refuses_until_its_life_is_over(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    let life = Duration::from_millis(900);
    assert_eq!(resolve(stand.other(), "order", Resolution::Done(life)).await, Resolved::Changed);
    match claim(stand.store(), &ask(2, "a", "order")).await {
        Claimed::Resolved { remaining, .. } => assert!(remaining <= life, "{remaining:?}"),
        other => panic!("expected what the operator said, got {other:?}"),
    }
    // The lane is free for other requests, and an answer that comes now changes nothing.
    let other = lead(stand.store(), &ask(3, "b", "order")).await;
    settle(stand.store(), &other, failed(&other)).await;
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::Superseded);
    stand.pass(life + SHORT).await;
    lead(stand.store(), &ask(4, "a", "order")).await;
}

pub(crate) async fn an_order_resolved_as_free_is_led_anew(stand: &impl Stand) {
    let batch = Ask { lanes: sorted(&["x", "y"]), ..ask(1, "batch", "") };
    let hold = lead(stand.store(), &batch).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    assert_eq!(resolve(stand.other(), "y", Resolution::Free).await, Resolved::Changed);
    let again = lead(stand.store(), &Ask { owner: Owner(2), ..batch }).await;
    assert!(again.fence > hold.fence);
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::Superseded);
}

pub(crate) async fn only_a_doubt_can_be_resolved(stand: &impl Stand) {
    assert_eq!(resolve(stand.store(), "order", Resolution::Free).await, Resolved::Nothing);
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    for resolution in [Resolution::Free, Resolution::Done(LONG)] {
        assert_eq!(resolve(stand.other(), "order", resolution).await, Resolved::Running);
    }
    follow(stand.other(), &ask(2, "a", "order")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    assert_eq!(resolve(stand.other(), "order", Resolution::Free).await, Resolved::Nothing);
    replay(stand.store(), &ask(2, "a", "order")).await;
}

pub(crate) async fn whoever_waits_for_a_resolved_order_is_woken(stand: &impl Stand) {
    let batch = Ask { lanes: sorted(&["x", "y"]), ..ask(1, "batch", "") };
    let hold = lead(stand.store(), &batch).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    // A flight comes before a doubt, so whoever needs both lanes waits for the flight.
    let running = lead(stand.store(), &ask(2, "b", "z")).await;
    let all = |owner| Ask { lanes: sorted(&["x", "y", "z"]), ..ask(owner, "all", "") };
    let wake = queue(stand.store(), &all(3)).await;
    assert_eq!(resolve(stand.other(), "x", Resolution::Free).await, Resolved::Changed);
    settle(stand.store(), &running, failed(&running)).await;
    assert!(matches!(woken(wake).await, Woken::Again));
    lead(stand.store(), &all(3)).await;
}

pub(crate) async fn records_are_forgotten_by_their_lane_and_flights_are_not(stand: &impl Stand) {
    for (owner, request) in (1..).zip(["a", "b"]) {
        let hold = lead(stand.store(), &ask(owner, request, "order")).await;
        settle(stand.store(), &hold, done(&hold, request)).await;
    }
    let elsewhere = lead(stand.store(), &ask(3, "c", "another order")).await;
    settle(stand.store(), &elsewhere, done(&elsewhere, "c")).await;
    let running = lead(stand.store(), &ask(4, "d", "order")).await;
    assert_eq!(stand.other().forget(key("order")).await, Ok(2));
    assert_eq!(stand.other().forget(key("order")).await, Ok(0));
    replay(stand.store(), &ask(5, "c", "another order")).await;
    follow(stand.other(), &ask(6, "d", "order")).await;
    assert_eq!(settle(stand.store(), &running, failed(&running)).await, Settled::InTime);
    lead(stand.store(), &ask(7, "a", "order")).await;
}
