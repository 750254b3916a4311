//! What became of it: answers in time, late and superseded; records, their lives, generations and scopes.

use oncegate::store::Renewed;

use super::*;

pub(crate) async fn a_done_answer_is_replayed_as_it_was(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::InTime);
    let settled = record(hold.fence, "1001");
    for store in [stand.store(), stand.other()] {
        let kept = replay(store, &ask(2, "a", "order")).await;
        assert!(kept.remaining > LONG / 2 && kept.remaining <= LONG, "{:?}", kept.remaining);
        assert_eq!(*kept, Record { remaining: kept.remaining, ..(*settled).clone() });
        let headers = kept.headers.to_map();
        let cookies: Vec<&[u8]> = headers.get_all(SET_COOKIE).iter().map(|line| line.as_bytes()).collect();
        assert_eq!(cookies, [&b"b=2; Path=/"[..], b"a=\xe9; Path=/"]);
    }
}

pub(crate) async fn a_tombstone_is_replayed_as_one(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let stone = Arc::new(Record { body: Kept::Dropped, ..(*record(hold.fence, "")).clone() });
    settle(stand.store(), &hold, Ending::Done { record: stone, unseen: LONG, seen: LONG }).await;
    let kept = replay(stand.other(), &ask(2, "a", "order")).await;
    assert_eq!((kept.status, &kept.body), (StatusCode::CREATED, &Kept::Dropped));
    assert_eq!(kept.headers.get(LOCATION).expect("where it led"), "/order/1001");
}

pub(crate) async fn a_failed_answer_is_kept_for_nobody(stand: &impl Stand) {
    let first = lead(stand.store(), &ask(1, "a", "order")).await;
    assert_eq!(settle(stand.store(), &first, failed(&first)).await, Settled::InTime);
    let second = lead(stand.other(), &ask(2, "a", "order")).await;
    assert!(second.fence > first.fence);
}

pub(crate) async fn an_answer_that_is_not_to_be_kept_is_not(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let unkept = Ending::DoneUnkept { answer: record(hold.fence, "ok") };
    assert_eq!(settle(stand.store(), &hold, unkept).await, Settled::InTime);
    lead(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn an_exchange_without_an_answer_is_in_doubt_in_all_its_lanes(stand: &impl Stand) {
    let batch = Ask { lanes: sorted(&["x", "y"]), ..ask(1, "batch", "") };
    let hold = lead(stand.store(), &batch).await;
    assert_eq!(settle(stand.store(), &hold, Ending::InDoubt).await, Settled::InTime);
    doubt(stand.other(), &Ask { owner: Owner(2), ..batch.clone() }).await;
    for lane in ["x", "y"] {
        let (_, remaining) = doubt(stand.other(), &ask(3, lane, lane)).await;
        assert!(remaining > LONG / 2 && remaining <= LONG, "{remaining:?}");
    }
    // Whose answer came is in doubt no more, in none of them.
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::Late);
    for (owner, lane) in (3..).zip(["x", "y"]) {
        lead(stand.other(), &ask(owner, lane, lane)).await;
    }
}

pub(crate) async fn a_doubt_that_is_told_again_does_not_begin_anew(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    let (_, before) = doubt(stand.other(), &ask(2, "a", "order")).await;
    stand.pass(OVER).await;
    assert_eq!(settle(stand.store(), &hold, Ending::InDoubt).await, Settled::Late);
    let (age, after) = doubt(stand.other(), &ask(2, "a", "order")).await;
    assert!(age >= SHORT && after < before, "{age:?}, {after:?} after {before:?}");
}

pub(crate) async fn a_late_answer_resolves_the_doubt(stand: &impl Stand) {
    let hold = lead(stand.store(), &brief(1, "a", "order")).await;
    stand.pass(OVER).await;
    doubt(stand.other(), &ask(2, "a", "order")).await;
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::Late);
    let kept = replay(stand.other(), &ask(2, "a", "order")).await;
    assert_eq!(kept.body, record(hold.fence, "1001").body);
    lead(stand.other(), &ask(3, "b", "order")).await;
}

pub(crate) async fn a_late_failure_frees_the_order(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    settle(stand.store(), &hold, Ending::InDoubt).await;
    assert_eq!(settle(stand.store(), &hold, failed(&hold)).await, Settled::Late);
    lead(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn a_late_answer_never_overwrites_anything_newer(stand: &impl Stand) {
    let retry = |ask: Ask| Ask { in_doubt: InDoubtPolicy::Retry, ..ask };
    let old = lead(stand.store(), &retry(brief(1, "a", "order"))).await;
    stand.pass(OVER).await;
    let new = lead(stand.other(), &retry(ask(2, "a", "order"))).await;
    for ending in [done(&old, "old"), failed(&old), Ending::InDoubt] {
        assert_eq!(settle(stand.store(), &old, ending).await, Settled::Superseded);
        let (fence, _wake) = follow(stand.store(), &ask(3, "a", "order")).await;
        assert_eq!(fence, new.fence);
    }
    assert_eq!(settle(stand.other(), &new, done(&new, "new")).await, Settled::InTime);
    assert_eq!(settle(stand.store(), &old, done(&old, "old")).await, Settled::Superseded);
    let kept = replay(stand.store(), &ask(3, "a", "order")).await;
    assert_eq!((kept.fence, &kept.body), (new.fence, &record(new.fence, "new").body));
}

pub(crate) async fn an_answer_is_settled_once(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    assert_eq!(settle(stand.store(), &hold, done(&hold, "first")).await, Settled::InTime);
    assert_eq!(settle(stand.other(), &hold, done(&hold, "second")).await, Settled::Superseded);
    assert_eq!(settle(stand.other(), &hold, failed(&hold)).await, Settled::Superseded);
    let kept = replay(stand.other(), &ask(2, "a", "order")).await;
    assert_eq!(kept.body, record(hold.fence, "first").body);
}

pub(crate) async fn a_record_ends_with_its_life(stand: &impl Stand) {
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let ending = Ending::Done { record: record(hold.fence, "1001"), unseen: SHORT, seen: LONG };
    settle(stand.store(), &hold, ending).await;
    stand.pass(OVER).await;
    let next = lead(stand.other(), &ask(2, "a", "order")).await;
    assert!(next.fence > hold.fence);
}

pub(crate) async fn the_first_delivery_shortens_a_record_s_life_and_later_ones_change_nothing(
    stand: &impl Stand,
) {
    let seen = Duration::from_millis(800);
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let ending = Ending::Done { record: record(hold.fence, "1001"), unseen: LONG, seen };
    settle(stand.store(), &hold, ending).await;
    stand.store().delivered(&hold).await.expect("the store is up");
    if let Claimed::Replay(kept) = claim(stand.other(), &ask(2, "a", "order")).await {
        assert!(kept.remaining <= seen, "{:?}", kept.remaining);
    }
    stand.pass(seen / 2).await;
    stand.other().delivered(&hold).await.expect("the store is up");
    stand.pass(seen * 3 / 4).await;
    lead(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn a_delivery_can_lengthen_what_is_left_of_a_life(stand: &impl Stand) {
    let unseen = Duration::from_millis(900);
    let hold = lead(stand.store(), &ask(1, "a", "order")).await;
    let ending = Ending::Done { record: record(hold.fence, "1001"), unseen, seen: LONG };
    settle(stand.store(), &hold, ending).await;
    // A retry that gets the answer late may be followed by a double click of its own.
    stand.other().delivered(&hold).await.expect("the store is up");
    stand.pass(unseen + SHORT).await;
    replay(stand.other(), &ask(2, "a", "order")).await;
}

pub(crate) async fn a_new_generation_ends_older_records(stand: &impl Stand) {
    let bought = |owner| Ask { generations: smallvec![key("session")], ..ask(owner, "a", "order") };
    let first = lead(stand.store(), &bought(1)).await;
    settle(stand.store(), &first, done(&first, "first")).await;
    stand.other().begin_generation(key("another session")).await.expect("the store is up");
    replay(stand.other(), &bought(2)).await;
    stand.other().begin_generation(key("session")).await.expect("the store is up");
    let second = lead(stand.store(), &bought(2)).await;
    settle(stand.store(), &second, done(&second, "second")).await;
    let kept = replay(stand.other(), &bought(3)).await;
    assert_eq!((kept.fence, &kept.body), (second.fence, &record(second.fence, "second").body));
}

pub(crate) async fn a_new_generation_does_not_disturb_a_flight(stand: &impl Stand) {
    let bought = |owner| Ask { generations: smallvec![key("session")], ..ask(owner, "a", "order") };
    let hold = lead(stand.store(), &bought(1)).await;
    let (_, wake) = follow(stand.other(), &bought(2)).await;
    stand.other().begin_generation(key("session")).await.expect("the store is up");
    assert_eq!(stand.store().renew(&hold).await, Ok(Renewed::Held));
    follow(stand.other(), &bought(3)).await;
    assert_eq!(settle(stand.store(), &hold, done(&hold, "1001")).await, Settled::InTime);
    let (fence, answer, _) = answered(wake).await;
    assert_eq!((fence, &answer.body), (hold.fence, &record(hold.fence, "1001").body));
}

pub(crate) async fn the_answer_of_a_flight_that_is_older_than_the_generation_is_kept_for_nobody(
    stand: &impl Stand,
) {
    let bought = |owner| Ask { generations: smallvec![key("session")], ..ask(owner, "a", "order") };
    let hold = lead(stand.store(), &bought(1)).await;
    stand.other().begin_generation(key("session")).await.expect("the store is up");
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    lead(stand.other(), &bought(2)).await;
}

pub(crate) async fn a_scope_answers_other_bodies_of_the_order(stand: &impl Stand) {
    let of = |owner, request| Ask { scope: Some(key("scope")), ..ask(owner, request, "order") };
    let hold = lead(stand.store(), &of(1, "token 1")).await;
    queue(stand.other(), &of(2, "token 2")).await;
    settle(stand.store(), &hold, done(&hold, "1001")).await;
    let kept = replay(stand.other(), &of(2, "token 2")).await;
    assert_eq!((kept.fence, &kept.body), (hold.fence, &record(hold.fence, "1001").body));
    // Not those who do not ask for it.
    let other = lead(stand.other(), &ask(3, "token 3", "order")).await;
    settle(stand.other(), &other, failed(&other)).await;
    stand.store().forget(key("order")).await.expect("the store is up");
    lead(stand.store(), &of(4, "token 4")).await;
}
