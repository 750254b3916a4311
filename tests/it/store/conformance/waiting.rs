//! Who is woken, by what, and with what.

use oncegate::store::Judged;

use super::*;

pub(crate) async fn followers_get_the_answer_with_its_fence(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let near = follow(stand.store(), &ask(2, "a", "order")).await.1;
    let far = follow(stand.other(), &ask(3, "a", "order")).await.1;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    for wake in [near, far] {
        let (fence, answer, outcome) = answered(wake).await;
        assert_eq!((fence, outcome), (hold.fence, Judged::Done));
        let expected = Record { remaining: answer.remaining, ..(*record(hold.fence, "1001")).clone() };
        assert_eq!(*answer, expected);
        assert!(answer.remaining > LONG / 2, "followers are told how long it lives: {:?}", answer.remaining);
    }
}

pub(crate) async fn followers_get_a_failure_as_one(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let near = follow(stand.store(), &ask(2, "a", "order")).await.1;
    let far = follow(stand.other(), &ask(3, "a", "order")).await.1;
    settle(stand.store(), &hold, failed(&hold)).await;
    for wake in [near, far] {
        let (fence, answer, outcome) = answered(wake).await;
        assert_eq!((fence, outcome), (hold.fence, Judged::Failed));
        assert_eq!(answer.body, record(hold.fence, "declined").body);
    }
}

pub(crate) async fn followers_of_a_doubt_look_again(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let wakes = [
        follow(stand.store(), &ask(2, "a", "order")).await.1,
        follow(stand.other(), &ask(3, "a", "order")).await.1,
    ];
    settle(stand.store(), &hold, Ending::InDoubt).await;
    for wake in wakes {
        assert!(matches!(woken(wake).await, Woken::Again));
    }
    doubt(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn followers_of_a_lease_that_ran_out_look_again(stand: &impl Stand) {
    lead(stand.store(), &brief(1, "a", "order")).await;
    let (_, wake) = follow(stand.store(), &ask(2, "a", "order")).await;
    let queued = queue(stand.store(), &ask(3, "b", "order")).await;
    stand.pass(OVER).await;
    // Stores without a timer of their own notice when somebody comes by.
    doubt(stand.other(), &ask(4, "a", "order")).await;
    assert!(matches!(woken(wake).await, Woken::Again));
    assert!(matches!(woken(queued).await, Woken::Again));
}

pub(crate) async fn of_the_followers_of_an_abandoned_claim_one_leads(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let mut wakes = Vec::new();
    for owner in 2..6 {
        let store = if owner % 2 == 0 { stand.store() } else { stand.other() };
        wakes.push(follow(store, &ask(owner, "a", "order")).await.1);
    }
    stand.store().abandon(&hold).await.expect("the store is up");
    let (mut leads, mut follows) = (0, 0);
    for (owner, wake) in (2..6).zip(wakes) {
        assert!(matches!(woken(wake).await, Woken::Again), "there is no answer");
        match claim(stand.store(), &ask(owner, "a", "order")).await {
            Claimed::Lead(_) => leads += 1,
            Claimed::Follow { .. } => follows += 1,
            other => panic!("expected to lead or to follow, got {other:?}"),
        }
    }
    assert_eq!((leads, follows), (1, 3));
}

pub(crate) async fn a_lane_that_is_free_wakes_one(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let mut waiting = Vec::new();
    for owner in 2..6 {
        let request = format!("request {owner}");
        waiting.push((owner, queue(stand.store(), &ask(owner, &request, "order")).await));
    }
    stand.store().abandon(&hold).await.expect("the store is up");
    let next = first_woken(&mut waiting).await;
    lead(stand.store(), &ask(next, &format!("request {next}"), "order")).await;
    stand.pass(WATCHED).await;
    assert_eq!(waiting.iter_mut().filter_map(|(owner, wake)| is_woken(wake).then_some(owner)).count(), 0);
}

pub(crate) async fn everybody_in_a_lane_gets_a_turn(stand: &impl Stand) {
    let mut hold = lead(stand.store(), &ask(1, "request 1", "order")).await;
    let mut waiting = Vec::new();
    for owner in 2..10 {
        let store = if owner % 2 == 0 { stand.store() } else { stand.other() };
        waiting.push((owner, queue(store, &ask(owner, &format!("request {owner}"), "order")).await));
    }
    while !waiting.is_empty() {
        settle(stand.store(), &hold, failed(&hold)).await;
        let owner = first_woken(&mut waiting).await;
        hold = lead(stand.store(), &ask(owner, &format!("request {owner}"), "order")).await;
        // On another replica one more may have been woken: it looks again, and waits again.
        let mut again = Vec::new();
        for (owner, mut wake) in waiting {
            if is_woken(&mut wake) {
                wake = queue(stand.other(), &ask(owner, &format!("request {owner}"), "order")).await;
            }
            again.push((owner, wake));
        }
        waiting = again;
    }
}

pub(crate) async fn whoever_left_takes_nobody_s_turn(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    drop(queue(stand.store(), &ask(2, "b", "order")).await);
    drop(follow(stand.store(), &ask(3, "a", "order")).await);
    let stays = queue(stand.store(), &ask(4, "c", "order")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    woken(stays).await;
    lead(stand.store(), &ask(4, "c", "order")).await;
}

pub(crate) async fn a_lane_in_doubt_wakes_all(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let mut wakes = Vec::new();
    for owner in 2..6 {
        let store = if owner % 2 == 0 { stand.store() } else { stand.other() };
        wakes.push(queue(store, &ask(owner, &format!("request {owner}"), "order")).await);
    }
    settle(stand.store(), &hold, Ending::InDoubt).await;
    for wake in wakes {
        assert!(matches!(woken(wake).await, Woken::Again));
    }
}

pub(crate) async fn the_same_request_in_a_lane_is_woken_to_follow(stand: &impl Stand) {
    let first = lead(stand.store(), &ask(1, "a", "order")).await;
    let mut waiting = Vec::new();
    for owner in 2..5 {
        waiting.push((owner, queue(stand.store(), &ask(owner, "b", "order")).await));
    }
    settle(stand.store(), &first, done(&first, "1001")).await;
    let next = first_woken(&mut waiting).await;
    let second = lead(stand.store(), &ask(next, "b", "order")).await;
    for (owner, wake) in waiting {
        assert!(matches!(woken(wake).await, Woken::Again));
        let (fence, _wake) = follow(stand.store(), &ask(owner, "b", "order")).await;
        assert_eq!(fence, second.fence);
    }
}

pub(crate) async fn a_wake_up_is_of_the_flight_that_was_followed(stand: &impl Stand) {
    let first = lead(stand.store(), &ask(1, "a", "order")).await;
    let of_first = follow(stand.other(), &ask(2, "a", "order")).await.1;
    settle(stand.store(), &first, failed(&first)).await;
    let second = lead(stand.store(), &ask(3, "a", "order")).await;
    let of_second = follow(stand.other(), &ask(4, "a", "order")).await.1;
    // A word of the first flight that is late, or said twice, is not the second one's.
    settle(stand.store(), &first, done(&first, "first")).await;
    settle(stand.store(), &second, done(&second, "second")).await;
    let (fence, answer, _) = answered(of_second).await;
    assert_eq!((fence, &answer.body), (second.fence, &record(second.fence, "second").body));
    let (fence, _, outcome) = answered(of_first).await;
    assert_eq!((fence, outcome), (first.fence, Judged::Failed));
}

pub(crate) async fn many_followers_are_all_answered(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let mut wakes = Vec::new();
    for owner in 2..302 {
        let store = if owner % 2 == 0 { stand.store() } else { stand.other() };
        wakes.push(follow(store, &ask(owner, "a", "order")).await.1);
    }
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    for wake in wakes {
        assert_eq!(answered(wake).await.0, hold.fence);
    }
}
