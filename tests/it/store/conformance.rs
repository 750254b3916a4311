//! What every store promises (promise, section 5), seen only through the seam: one suite that all of them pass.
//!
//! A store joins with a [`Stand`] and one call of [`conforms!`], which makes a test of its own out of each promise.
//! Nothing here knows which store it talks to. Waiting is real for stores with a clock of their own, so it is short,
//! and a test never depends on being quick: where it needs a lease to last it takes a long one, and where it needs
//! one to end it waits longer than that.

pub(crate) mod answers;
pub(crate) mod leading;
pub(crate) mod operator;
pub(crate) mod restored;
pub(crate) mod waiting;

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION, SET_COOKIE},
};
use oncegate::store::{
    Ask, Claimed, Ending, Fence, Hold, InDoubtPolicy, Kept, Key, May, Owner, Record, Reply, Settled, Store,
    StoreError, Wake, Woken,
};
use smallvec::smallvec;
use tokio::sync::oneshot::error::TryRecvError;

/// Longer than any test takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Ends while a test waits for [`OVER`].
pub(crate) const SHORT: Duration = Duration::from_millis(150);
/// Longer than [`SHORT`], with what a timer and a slow machine may add.
pub(crate) const OVER: Duration = Duration::from_millis(400);
/// How long somebody is watched who is not to be woken.
const WATCHED: Duration = Duration::from_millis(60);
/// No wake-up takes this long.
const WOKEN_WITHIN: Duration = Duration::from_secs(10);

/// A store to be tried, new and empty, with its clock.
pub(crate) trait Stand: Sized {
    async fn start() -> Self;

    fn store(&self) -> &dyn Store;

    /// The store as another replica sees it; where there can be only one, the same again.
    fn other(&self) -> &dyn Store;

    /// Time passes for the store, and what its timer has to do is done.
    async fn pass(&self, time: Duration);
}

/// Makes a test out of each promise. `$stand` is named as seen from a module below the caller's.
macro_rules! conforms {
    ($stand:ty, $test:meta) => {
        crate::store::conformance::conforms! { @ $stand, $test,
            leading: [
                the_first_leads_and_the_same_request_follows
                another_request_of_the_same_order_queues
                orders_do_not_wait_for_each_other
                a_claim_asked_again_by_its_owner_gives_the_same_fence
                of_many_that_claim_at_once_one_leads
                a_request_without_a_fingerprint_shares_with_nobody
                fences_only_ever_rise
                lanes_are_claimed_together_or_not_at_all
                a_batch_holds_all_its_lanes
                a_stranger_with_the_fence_changes_nothing
                an_owner_with_another_fence_changes_nothing
                an_event_with_another_body_is_a_mismatch
                a_lease_that_is_renewed_lasts
                a_lease_that_ran_out_is_in_doubt_and_stays_lost
                a_doubt_ends_with_its_hold
                where_the_rule_says_retry_the_next_one_leads
                an_abandoned_claim_is_free_at_once
                a_doubt_cannot_be_abandoned
                a_signal_follows_only_a_run_that_began_after_it
            ],
            answers: [
                a_done_answer_is_replayed_as_it_was
                a_tombstone_is_replayed_as_one
                a_failed_answer_is_kept_for_nobody
                an_answer_that_is_not_to_be_kept_is_not
                an_exchange_without_an_answer_is_in_doubt_in_all_its_lanes
                a_doubt_that_is_told_again_does_not_begin_anew
                a_late_answer_resolves_the_doubt
                a_late_failure_frees_the_order
                a_late_answer_never_overwrites_anything_newer
                an_answer_is_settled_once
                a_record_ends_with_its_life
                the_first_delivery_shortens_a_record_s_life_and_later_ones_change_nothing
                a_delivery_can_lengthen_what_is_left_of_a_life
                a_new_generation_ends_older_records
                a_new_generation_does_not_disturb_a_flight
                the_answer_of_a_flight_that_is_older_than_the_generation_is_kept_for_nobody
                a_scope_answers_other_bodies_of_the_order
            ],
            waiting: [
                followers_get_the_answer_with_its_fence
                followers_get_a_failure_as_one
                followers_of_a_doubt_look_again
                followers_of_a_lease_that_ran_out_look_again
                of_the_followers_of_an_abandoned_claim_one_leads
                a_lane_that_is_free_wakes_one
                everybody_in_a_lane_gets_a_turn
                whoever_left_takes_nobody_s_turn
                a_lane_in_doubt_wakes_all
                the_same_request_in_a_lane_is_woken_to_follow
                a_wake_up_is_of_the_flight_that_was_followed
                many_followers_are_all_answered
            ],
            operator: [
                an_operator_sees_what_a_lane_does
                an_order_resolved_as_done_refuses_until_its_life_is_over
                an_order_resolved_as_free_is_led_anew
                only_a_doubt_can_be_resolved
                whoever_waits_for_a_resolved_order_is_woken
                records_are_forgotten_by_their_lane_and_flights_are_not
            ],
            restored: [
                a_flight_that_is_written_back_flies_on_under_its_fence
                a_doubt_and_a_record_that_are_written_back_are_what_they_were
                what_is_written_back_changes_nothing_where_something_else_stands
            ],
        }
    };
    (@ $stand:ty, $test:meta, $($theme:ident: [$($promise:ident)*],)*) => {
        $(mod $theme {
            $(#[$test]
            async fn $promise() {
                use crate::store::conformance::{Stand as _, $theme};
                let stand = <$stand>::start().await;
                $theme::$promise(&stand).await;
            })*
        })*
    };
}
pub(crate) use conforms;

pub(crate) fn key(name: &str) -> Key {
    Key(*blake3::hash(name.as_bytes()).as_bytes())
}

/// A request of an order, asked for by an owner, with a lease and a hold that outlast the test.
pub(crate) fn ask(owner: u128, request: &str, order: &str) -> Ask {
    Ask {
        owner: Owner(owner),
        lanes: smallvec![key(order)],
        fingerprint: Some(key(request)),
        scope: None,
        body: None,
        generations: smallvec![],
        may: May::FollowAny,
        lease: LONG,
        in_doubt: InDoubtPolicy::Hold(LONG),
    }
}

/// One whose lease ends while the test waits.
fn brief(owner: u128, request: &str, order: &str) -> Ask {
    Ask { lease: SHORT, ..ask(owner, request, order) }
}

fn sorted(names: &[&str]) -> smallvec::SmallVec<[Key; 1]> {
    let mut lanes: smallvec::SmallVec<[Key; 1]> = names.iter().map(|name| key(name)).collect();
    lanes.sort_unstable();
    lanes
}

/// An answer with a bit of everything: a repeated header whose order matters, bytes that are no text.
pub(crate) fn record(fence: Fence, text: &str) -> Arc<Record> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(LOCATION, HeaderValue::from_static("/order/1001"));
    headers.append(SET_COOKIE, HeaderValue::from_static("b=2; Path=/"));
    headers.append(SET_COOKIE, HeaderValue::from_bytes(b"a=\xe9; Path=/").expect("bytes of a header"));
    let body = [b"\0\r\n\xff\xfe", text.as_bytes()].concat();
    Arc::new(Record {
        status: StatusCode::CREATED,
        headers: headers.into(),
        body: Kept::Whole(Bytes::from(body)),
        fence,
        answered_at: 1_795_000_000,
        remaining: Duration::ZERO,
    })
}

pub(crate) fn done(hold: &Hold, text: &str) -> Ending {
    Ending::Done { record: record(hold.fence, text), unseen: LONG, seen: LONG }
}

pub(crate) fn failed(hold: &Hold) -> Ending {
    Ending::Failed { answer: record(hold.fence, "declined") }
}

pub(crate) async fn claim(store: &dyn Store, ask: &Ask) -> Claimed {
    store.claim(ask).await.expect("the store is up")
}

pub(crate) async fn lead(store: &dyn Store, ask: &Ask) -> Hold {
    match claim(store, ask).await {
        Claimed::Lead(hold) => hold,
        other => panic!("expected to lead, got {other:?}"),
    }
}

pub(crate) async fn follow(store: &dyn Store, ask: &Ask) -> (Fence, Wake) {
    match claim(store, ask).await {
        Claimed::Follow { fence, wake } => (fence, wake),
        other => panic!("expected to follow, got {other:?}"),
    }
}

pub(crate) async fn queue(store: &dyn Store, ask: &Ask) -> Wake {
    match claim(store, ask).await {
        Claimed::Queue { wake, .. } => wake,
        other => panic!("expected to queue, got {other:?}"),
    }
}

pub(crate) async fn replay(store: &dyn Store, ask: &Ask) -> Arc<Record> {
    match claim(store, ask).await {
        Claimed::Replay(record) => record,
        other => panic!("expected a replay, got {other:?}"),
    }
}

pub(crate) async fn doubt(store: &dyn Store, ask: &Ask) -> (Duration, Duration) {
    match claim(store, ask).await {
        Claimed::InDoubt { age, remaining } => (age, remaining),
        other => panic!("expected a doubt, got {other:?}"),
    }
}

pub(crate) async fn settle(store: &dyn Store, hold: &Hold, ending: Ending) -> Settled {
    store.settle(hold, ending).await.expect("the store is up")
}

/// The answers of calls that are all under way at a time.
async fn together<T>(mut calls: Vec<Reply<'_, T>>) -> Vec<Result<T, StoreError>> {
    let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (call, answer) in calls.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(given) = Pin::new(call).poll(context) {
                *answer = Some(given);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// What a wake-up says. A dropped sender says "look again".
pub(crate) async fn woken(wake: Wake) -> Woken {
    let woken = tokio::time::timeout(WOKEN_WITHIN, wake).await.expect("nobody waits for ever");
    woken.unwrap_or(Woken::Again)
}

async fn answered(wake: Wake) -> (Fence, Arc<Record>, oncegate::store::Judged) {
    match woken(wake).await {
        Woken::Answered { fence, answer, outcome } => (fence, answer, outcome),
        Woken::Again => panic!("expected the answer, got the word to look again"),
    }
}

/// Which one of those who wait is woken first; it waits no longer.
async fn first_woken<T>(waiting: &mut Vec<(T, Wake)>) -> T {
    let until = tokio::time::Instant::now() + WOKEN_WITHIN;
    while tokio::time::Instant::now() < until {
        if let Some(at) = waiting.iter_mut().position(|(_, wake)| is_woken(wake)) {
            return waiting.remove(at).0;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("nobody was woken");
}

fn is_woken(wake: &mut Wake) -> bool {
    !matches!(wake.try_recv(), Err(TryRecvError::Empty))
}
