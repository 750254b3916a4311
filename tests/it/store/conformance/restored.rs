//! What a replica writes back that the store has forgotten, or never heard of.

use oncegate::store::{Delivery, Renewed, Restored, RestoredState};

use super::*;

/// A run as a replica knows it that led it elsewhere.
fn known(fence: Fence, state: RestoredState) -> Restored {
    let Ask { owner, lanes, fingerprint, scope, lease, body, generations, in_doubt, .. } =
        ask(1, "a", "order");
    Restored {
        hold: Hold { owner, fence, lanes, fingerprint, scope, lease },
        body,
        generations,
        in_doubt,
        state,
    }
}

fn kept(fence: Fence) -> RestoredState {
    RestoredState::Done { record: record(fence, "1001"), remaining: LONG, delivery: Delivery::Made }
}

async fn restore(store: &dyn Store, restored: &Restored) -> Settled {
    store.restore(restored).await.expect("the store is up")
}

/// Above all fences that the store has given out so far.
async fn later_fence(stand: &impl Stand) -> Fence {
    let hold = lead(stand.store(), &ask(90, "any", "any order")).await;
    stand.store().abandon(&hold).await.expect("the store is up");
    Fence(hold.fence.0 + 1_000_000)
}

pub(crate) async fn a_flight_that_is_written_back_flies_on_under_its_fence(stand: &impl Stand) {
    let fence = later_fence(stand).await;
    let flight = known(fence, RestoredState::Flight);
    for _ in 0..2 {
        assert_eq!(restore(stand.store(), &flight).await, Settled::InTime);
    }
    assert_eq!(follow(stand.other(), &ask(2, "a", "order")).await.0, fence);
    queue(stand.other(), &ask(3, "b", "order")).await;
    assert_eq!(stand.store().renew(&flight.hold).await, Ok(Renewed::Held));
    let other = lead(stand.other(), &ask(4, "c", "another order")).await;
    assert!(other.fence > fence, "fences go on above what was written back");
    assert_eq!(settle(stand.store(), &flight.hold, done(&flight.hold, "1001")).await, Settled::InTime);
    assert_eq!(replay(stand.other(), &ask(2, "a", "order")).await.fence, fence);
}

pub(crate) async fn a_doubt_and_a_record_that_are_written_back_are_what_they_were(stand: &impl Stand) {
    let fence = later_fence(stand).await;
    // A store whose time has just begun cannot say that something is older than it is.
    stand.pass(OVER).await;
    let state = RestoredState::InDoubt { age: SHORT, remaining: LONG };
    assert_eq!(restore(stand.store(), &known(fence, state)).await, Settled::InTime);
    let (age, remaining) = doubt(stand.other(), &ask(2, "a", "order")).await;
    assert!(age >= SHORT && remaining > LONG / 2 && remaining <= LONG, "{age:?} {remaining:?}");
    assert_eq!(restore(stand.store(), &known(fence, kept(fence))).await, Settled::Late);
    let given = replay(stand.other(), &ask(2, "a", "order")).await;
    assert_eq!((given.fence, &given.body), (fence, &record(fence, "1001").body));
    assert!(given.remaining > LONG / 2 && given.remaining <= LONG, "{:?}", given.remaining);
}

pub(crate) async fn what_is_written_back_changes_nothing_where_something_else_stands(stand: &impl Stand) {
    let fence = later_fence(stand).await;
    let running = lead(stand.store(), &ask(2, "b", "order")).await;
    assert_eq!(restore(stand.other(), &known(fence, RestoredState::Flight)).await, Settled::Superseded);
    match claim(stand.store(), &ask(3, "c", "order")).await {
        Claimed::Queue { running: at, .. } => assert_eq!(at, Some(running.fence)),
        other => panic!("expected to queue, got {other:?}"),
    }
    settle(stand.store(), &running, failed(&running)).await;
    let newer = lead(stand.store(), &ask(4, "a", "order")).await;
    settle(stand.store(), &newer, done(&newer, "newer")).await;
    assert_eq!(restore(stand.other(), &known(fence, kept(fence))).await, Settled::Superseded);
    assert_eq!(replay(stand.store(), &ask(5, "a", "order")).await.body, record(newer.fence, "newer").body);
}
