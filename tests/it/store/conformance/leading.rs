//! Who may send: claims, lanes, fences, leases, and what becomes of a flight whose leader is not heard of again.

use std::collections::BTreeSet;

use oncegate::store::{Renewed, Store};

use super::*;

pub(crate) async fn the_first_leads_and_the_same_request_follows(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    assert_eq!(hold.owner, Owner(1));
    assert_eq!((&hold.lanes, hold.fingerprint), (&sorted(&["order"]), Some(key("a"))));
    for store in [stand.store(), stand.other()] {
        let (fence, _wake) = follow(store, &ask(2, "a", "order")).await;
        assert_eq!(fence, hold.fence);
    }
}

pub(crate) async fn another_request_of_the_same_order_queues(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    for store in [stand.store(), stand.other()] {
        match claim(store, &ask(2, "b", "order")).await {
            Claimed::Queue { running, .. } => assert_eq!(running, Some(hold.fence)),
            other => panic!("expected to queue, got {other:?}"),
        }
    }
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    lead(stand.other(), &ask(2, "b", "order")).await;
}

pub(crate) async fn orders_do_not_wait_for_each_other(stand: &impl Stand) {
    lead(stand.store(), &ask(1, "a", "order 1")).await;
    lead(stand.store(), &ask(2, "b", "order 2")).await;
    lead(stand.other(), &ask(3, "c", "order 3")).await;
}

pub(crate) async fn a_claim_asked_again_by_its_owner_gives_the_same_fence(stand: &impl Stand) {
    let first = lead(stand.store(), &ask(1, "a", "order")).await;
    for store in [stand.store(), stand.other()] {
        let again = lead(store, &ask(1, "a", "order")).await;
        assert_eq!((again.owner, again.fence), (first.owner, first.fence));
    }
    assert_eq!(settle(stand.store(), &first, done(&first, "1001")).await, Settled::InTime);
    // What it led is over: the owner is one who asks like any other.
    replay(stand.store(), &ask(1, "a", "order")).await;
}

pub(crate) async fn of_many_that_claim_at_once_one_leads(stand: &impl Stand) {
    let asks: Vec<Ask> = (1..=64).map(|owner| ask(owner, "a", "order")).collect();
    let claims = asks.iter().zip([stand.store(), stand.other()].into_iter().cycle());
    let claims: Vec<_> = claims.map(|(ask, store)| store.claim(ask)).collect();
    let (mut leads, mut follows) = (Vec::new(), Vec::new());
    for claimed in together(claims).await {
        match claimed.expect("the store is up") {
            Claimed::Lead(hold) => leads.push(hold),
            Claimed::Follow { fence, wake } => follows.push((fence, wake)),
            other => panic!("expected to lead or to follow, got {other:?}"),
        }
    }
    assert_eq!((leads.len(), follows.len()), (1, 63));
    assert!(follows.iter().all(|(fence, _)| *fence == leads[0].fence));
}

pub(crate) async fn a_request_without_a_fingerprint_shares_with_nobody(stand: &impl Stand) {
    let nameless = |owner| Ask { fingerprint: None, ..ask(owner, "", "order") };
    let hold = lead(stand.store(), &nameless(1)).await;
    queue(stand.other(), &nameless(2)).await;
    queue(stand.store(), &ask(3, "a", "order")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    let hold = lead(stand.other(), &nameless(2)).await;
    settle(stand.other(), &hold, Ending::InDoubt).await;
    doubt(stand.store(), &nameless(3)).await;
}

pub(crate) async fn fences_only_ever_rise(stand: &impl Stand) {
    let mut last = Fence(0);
    for round in 0..12 {
        let store: &dyn Store = if round % 2 == 0 { stand.store() } else { stand.other() };
        let hold = lead(store, &ask(round + 1, "a", if round % 3 == 0 { "x" } else { "y" })).await;
        assert!(hold.fence > last, "{:?} after {last:?}", hold.fence);
        last = hold.fence;
        match round % 3 {
            0 => store.abandon(&hold).await.expect("the store is up"),
            _ => assert_eq!(settle(store, &hold, failed(&hold)).await, Settled::InTime),
        }
    }
}

pub(crate) async fn lanes_are_claimed_together_or_not_at_all(stand: &impl Stand) {
    let both = |owner| Ask { lanes: sorted(&["x", "y"]), ..ask(owner, "both", "") };
    let hold = lead(stand.store(), &ask(1, "a", "y")).await;
    queue(stand.other(), &both(2)).await;
    // The one that waits for y holds no x.
    let other = lead(stand.store(), &ask(3, "c", "x")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    queue(stand.other(), &both(2)).await;
    settle(stand.store(), &other, done(&other, "1002")).await;
    lead(stand.other(), &both(2)).await;
}

pub(crate) async fn a_batch_holds_all_its_lanes(stand: &impl Stand) {
    let batch = Ask { lanes: sorted(&["x", "y", "z"]), ..ask(1, "batch", "") };
    let hold = lead(stand.store(), &batch).await;
    for lane in ["x", "y", "z"] {
        queue(stand.other(), &ask(2, lane, lane)).await;
    }
    settle(stand.store(), &hold, failed(&hold)).await;
    for (owner, lane) in (2..).zip(["x", "y", "z"]) {
        lead(stand.other(), &ask(owner, lane, lane)).await;
    }
}

/// Nothing that is done with a hold that is not `hold` may change what it stands for.
async fn changes_nothing(stand: &impl Stand, hold: &Hold, false_one: &Hold) {
    for store in [stand.store(), stand.other()] {
        assert_eq!(store.renew(false_one).await, Ok(Renewed::Lost));
        store.abandon(false_one).await.expect("the store is up");
        store.delivered(&[false_one.fence]).await.expect("the store is up");
        assert_eq!(settle(store, false_one, done(hold, "stolen")).await, Settled::Superseded);
        assert_eq!(settle(store, false_one, failed(hold)).await, Settled::Superseded);
        assert_eq!(settle(store, false_one, Ending::InDoubt).await, Settled::Superseded);
    }
    let (fence, _wake) = follow(stand.other(), &ask(9, "a", "order")).await;
    assert_eq!(fence, hold.fence);
    assert_eq!(stand.store().renew(hold).await, Ok(Renewed::Held));
    assert_eq!(settle(stand.store(), hold, done(hold, "1001")).await, Settled::InTime);
    let kept = replay(stand.other(), &ask(9, "a", "order")).await;
    assert_eq!(kept.body, record(hold.fence, "1001").body);
}

pub(crate) async fn a_stranger_with_the_fence_changes_nothing(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let thief = Hold { owner: Owner(2), ..hold.clone() };
    changes_nothing(stand, &hold, &thief).await;
}

pub(crate) async fn an_owner_with_another_fence_changes_nothing(stand: &impl Stand) {
    let earlier = lead(stand.store(), &ask(1, "a", "order")).await;
    settle(stand.store(), &earlier, failed(&earlier)).await;
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    changes_nothing(stand, &hold, &earlier).await;
}

pub(crate) async fn an_event_with_another_body_is_a_mismatch(stand: &impl Stand) {
    let event = |owner, body| Ask { body: Some(key(body)), ..ask(owner, "evt_1", "order") };
    let hold = lead(stand.store(), &event(1, "paid")).await;
    assert!(matches!(claim(stand.other(), &event(2, "refunded")).await, Claimed::Mismatch));
    follow(stand.other(), &event(3, "paid")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    assert!(matches!(claim(stand.other(), &event(2, "refunded")).await, Claimed::Mismatch));
    replay(stand.other(), &event(3, "paid")).await;
}

pub(crate) async fn a_lease_that_is_renewed_lasts(stand: &impl Stand) {
    let lease = Duration::from_millis(900);
    let hold = lead(stand.store(), &Ask { lease, ..ask(1, "a", "order") }).await;
    for _ in 0..3 {
        stand.pass(lease / 2).await;
        assert_eq!(stand.store().renew(&hold).await, Ok(Renewed::Held));
    }
    follow(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn a_lease_that_ran_out_is_in_doubt_and_stays_lost(stand: &impl Stand) {
    let hold = lead(stand.store(), &brief(1, "a", "order")).await;
    stand.pass(OVER).await;
    assert_eq!(stand.store().renew(&hold).await, Ok(Renewed::Lost));
    for request in ["a", "b"] {
        let (age, remaining) = doubt(stand.other(), &ask(2, request, "order")).await;
        assert!(remaining > LONG / 2 && remaining <= LONG, "{remaining:?}");
        assert!(age >= Duration::from_millis(100) && age < LONG / 2, "{age:?}");
    }
    // Its own leader may not go on either: somebody may have been told already that nothing is known.
    doubt(stand.store(), &brief(1, "a", "order")).await;
    assert_eq!(stand.store().renew(&hold).await, Ok(Renewed::Lost));
}

pub(crate) async fn a_doubt_ends_with_its_hold(stand: &impl Stand) {
    let hold = Ask { in_doubt: InDoubtPolicy::Hold(SHORT), ..ask(1, "a", "order") };
    let hold = lead(stand.store(), &hold).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    stand.pass(OVER).await;
    let next = lead(stand.other(), &ask(2, "b", "order")).await;
    assert!(next.fence > hold.fence);
    lead(stand.other(), &ask(3, "a", "elsewhere")).await;
}

pub(crate) async fn where_the_rule_says_retry_the_next_one_leads(stand: &impl Stand) {
    let first = lead(stand.store(), &Ask { in_doubt: InDoubtPolicy::Retry, ..brief(1, "a", "order") }).await;
    stand.pass(OVER).await;
    let retry = Ask { in_doubt: InDoubtPolicy::Retry, ..ask(2, "a", "order") };
    let second = lead(stand.other(), &retry).await;
    assert!(second.fence > first.fence);
    assert_eq!(settle(stand.other(), &second, Ending::InDoubt).await, Settled::InTime);
    lead(stand.store(), &ask(3, "a", "order")).await;
}

pub(crate) async fn an_abandoned_claim_is_free_at_once(stand: &impl Stand) {
    let first = lead(stand.store(), &ask(1, "a", "order")).await;
    stand.store().abandon(&first).await.expect("the store is up");
    let second = lead(stand.other(), &ask(2, "b", "order")).await;
    assert!(second.fence > first.fence);
    // Given back a second time, it is somebody else's.
    stand.store().abandon(&first).await.expect("the store is up");
    queue(stand.store(), &ask(3, "c", "order")).await;
}

// A process that was stopped between its claim and the first byte comes to itself after its lease.
pub(crate) async fn a_doubt_is_freed_by_its_owner_who_knows_that_nothing_was_sent(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    let stranger = Hold { owner: Owner(2), ..hold.clone() };
    stand.other().abandon(&stranger).await.expect("the store is up");
    doubt(stand.other(), &ask(2, "a", "order")).await;
    stand.store().abandon(&hold).await.expect("the store is up");
    lead(stand.other(), &ask(3, "a", "order")).await;
}

pub(crate) async fn a_signal_follows_only_a_run_that_began_after_it(stand: &impl Stand) {
    let signal = |owner, after| Ask { may: May::FollowAfter(after), ..ask(owner, "tr_1", "order") };
    let first = lead(stand.store(), &signal(1, None)).await;
    for after in [None, Some(first.fence)] {
        match claim(stand.other(), &signal(2, after)).await {
            Claimed::Queue { running, .. } => assert_eq!(running, Some(first.fence)),
            other => panic!("expected to queue behind the run before, got {other:?}"),
        }
    }
    let unkept = Ending::DoneUnkept { answer: record(first.fence, "ok") };
    settle(stand.store(), &first, unkept).await;
    let second = lead(stand.store(), &signal(3, None)).await;
    let fences: BTreeSet<Fence> = [first.fence, second.fence].into();
    assert_eq!(fences.last(), Some(&second.fence));
    let (fence, _wake) = follow(stand.other(), &signal(2, Some(first.fence))).await;
    assert_eq!(fence, second.fence);
}
