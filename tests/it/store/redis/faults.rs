//! A Redis that is gone, stopped, full, empty, read-only or written by others is down, or has forgotten; it is never
//! taken for one that has nothing.

use super::*;
use crate::store::conformance::{ask, done, key, lead, record, replay, settle};
use oncegate::store::{Fence, Kept, LaneView, Past, Renewed, Restored, RestoredState};

fn is_down<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Down(_)))
}

fn restored(ask: &Ask, hold: &Hold) -> Restored {
    Restored {
        hold: hold.clone(),
        body: None,
        generations: ask.generations.clone(),
        in_doubt: ask.in_doubt,
        state: RestoredState::Flight,
    }
}

#[tokio::test]
async fn what_was_claimed_before_a_restart_that_keeps_everything_is_held_after_it() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connected(&server.url()).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    server.kill();
    until("down", async || is_down(&store.claim(&ask(2, "b", "order")).await).then_some(())).await;
    server.start_again();
    let claimed = until("back", async || store.claim(&ask(2, "b", "order")).await.ok()).await;
    assert!(matches!(claimed, Claimed::Queue { running, .. } if running == Some(hold.fence)), "{claimed:?}");
    assert_eq!(store.renew(&hold).await, Ok(Renewed::Held));
}

#[tokio::test]
async fn a_server_that_was_restarted_empty_has_forgotten_until_its_new_memory_is_adopted() {
    let mut server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    let before = store.epoch().await.expect("it is there").epoch;
    let request = ask(1, "a", "order");
    let hold = lead(&*store, &request).await;
    server.kill();
    server.start_again();
    let answer = until("an answer", async || match store.claim(&ask(2, "a", "order")).await {
        Err(StoreError::Down(_)) => None,
        answer => Some(answer),
    })
    .await;
    assert!(matches!(answer, Err(StoreError::Forgot)), "{answer:?}");
    assert_eq!(store.renew(&hold).await, Err(StoreError::Forgot));
    assert!(matches!(store.settle(&hold, done(&hold, "paid")).await, Err(StoreError::Forgot)));
    assert_eq!(store.inspect(key("order")).await, Err(StoreError::Forgot));
    assert_eq!(store.restore(&restored(&request, &hold)).await, Ok(Settled::InTime));
    let now = store.epoch().await.expect("it is there").epoch;
    assert_ne!(before, now);
    store.adopt_epoch(now);
    let claimed = claim(&*store, &ask(2, "a", "order")).await;
    assert!(matches!(claimed, Claimed::Follow { fence, .. } if fence == hold.fence), "{claimed:?}");
    let later = lead(&*store, &ask(3, "b", "another order")).await;
    assert!(later.fence > hold.fence, "fences rise across a store that forgot");
}

#[tokio::test]
async fn a_flushed_server_has_forgotten_for_every_replica() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    lead(&*one, &ask(1, "a", "order")).await;
    server.command("FLUSHALL");
    for store in [&one, &two] {
        let answer = store.claim(&ask(2, "b", "order")).await;
        assert!(matches!(answer, Err(StoreError::Forgot)), "{answer:?}");
    }
    let epoch = one.epoch().await.expect("it is there").epoch;
    assert_eq!(two.epoch().await.expect("it is there").epoch, epoch, "all replicas see one memory");
}

#[tokio::test]
async fn whoever_remembers_another_memory_says_so_to_those_who_come_new() {
    let server = RedisServer::start(&[]);
    let one = connected(&server.url()).await;
    let before = one.epoch().await.expect("it is there");
    assert_eq!(before.past, Past::Unknown);
    server.command("FLUSHALL");
    let new = connected(&server.url()).await;
    let found = new.epoch().await.expect("it is there");
    assert_eq!((found.past, found.epoch == before.epoch), (Past::Unknown, false));
    assert_eq!(one.epoch().await.expect("it is there").past, Past::Forgotten);
    let told = new.epoch().await.expect("it is there");
    assert_eq!((told.past, told.epoch), (Past::Forgotten, found.epoch));
    assert!(told.age < Duration::from_secs(60), "{:?}", told.age);
    let left = told.untrusted_for(Duration::from_secs(600));
    assert!(left > Duration::from_secs(500) && left <= Duration::from_secs(600), "{left:?}");
}

#[tokio::test]
async fn an_old_copy_is_known_by_its_fences() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    let before = one.epoch().await.expect("it is there").epoch;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    // As a copy from two minutes ago would have it.
    server.command(&format!("HSET {{shop}}:meta l {}", hold.fence.0 - 120_000_000));
    let answer = one.claim(&ask(2, "b", "order")).await;
    assert!(matches!(answer, Err(StoreError::Forgot)), "{answer:?}");
    let answer = two.claim(&ask(2, "b", "order")).await;
    assert!(matches!(answer, Err(StoreError::Forgot)), "who has claimed nothing learns it too: {answer:?}");
    let now = one.epoch().await.expect("it is there").epoch;
    assert_ne!(before, now);
    one.adopt_epoch(now);
    lead(&*one, &ask(3, "c", "another order")).await;
}

#[tokio::test]
async fn a_server_that_swallows_everything_costs_a_deadline_and_then_nothing_until_it_answers() {
    let server = RedisServer::start(&[]);
    let deadline = Duration::from_millis(250);
    let store = connected_as(Settings { deadline, ..settings(&server.url()) }).await;
    server.signal("-STOP");
    let answer = store.claim(&ask(1, "a", "order")).await;
    assert_eq!(answer.err(), Some(StoreError::Deadline));
    until("given up", async || is_down(&store.claim(&ask(1, "a", "order")).await).then_some(())).await;
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert!(is_down(&store.claim(&ask(1, "a", "order")).await));
    }
    assert!(began.elapsed() < deadline, "nobody waits for what is not there");
    server.signal("-CONT");
    // What was carried out unheard is found again by its owner.
    let claimed = until("back", async || store.claim(&ask(1, "a", "order")).await.ok()).await;
    assert!(matches!(claimed, Claimed::Lead(_)), "{claimed:?}");
}

#[tokio::test]
async fn a_caller_that_loses_patience_first_counts_as_unanswered_too() {
    let server = RedisServer::start(&[]);
    let deadline = Duration::from_millis(500);
    let store = connected_as(Settings { deadline, ..settings(&server.url()) }).await;
    server.signal("-STOP");
    for _ in 0..3 {
        let request = ask(1, "a", "order");
        assert!(tokio::time::timeout(Duration::from_millis(300), store.claim(&request)).await.is_err());
    }
    assert!(is_down(&store.claim(&ask(1, "a", "order")).await));
    server.signal("-CONT");
}

#[tokio::test]
async fn a_full_server_is_down_for_claims_and_keeps_what_was_done_without_its_answer() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let store = connected(&server.url()).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    server.command("CONFIG SET maxmemory 1");
    let answer = store.claim(&ask(2, "b", "another order")).await;
    assert!(matches!(&answer, Err(StoreError::Down(why)) if why.contains("OOM")), "{answer:?}");
    assert_eq!(store.renew(&hold).await, Ok(Renewed::Held), "no lease is lost for want of memory");
    assert_eq!(settle(&*store, &hold, done(&hold, "paid")).await, Settled::InTime);
    let kept = replay(&*store, &ask(2, "a", "order")).await;
    assert_eq!(kept.body, Kept::Dropped);
    assert_eq!(kept.headers.get("location"), record(Fence(1), "paid").headers.get("location"));
    server.command("CONFIG SET maxmemory 0");
    lead(&*store, &ask(2, "b", "order")).await;
}

#[tokio::test]
async fn a_server_that_is_no_primary_any_more_is_down_even_where_it_knows_the_answer() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    settle(&*store, &hold, done(&hold, "paid")).await;
    let view = store.inspect(key("order")).await;
    assert_eq!(view, Ok(LaneView::Free));
    server.command("REPLICAOF 127.0.0.1 1");
    // Read-only would be enough for these; but who knows what the new primary has.
    assert!(is_down(&store.claim(&ask(2, "a", "order")).await), "a replay");
    assert!(is_down(&store.inspect(key("order")).await), "a look");
    server.command("REPLICAOF NO ONE");
    until("back", async || store.claim(&ask(2, "a", "order")).await.ok()).await;
}

#[tokio::test]
async fn a_server_that_lost_the_scripts_gets_them_again() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    for owner in 1..4 {
        server.command("SCRIPT FLUSH");
        let hold = lead(&*store, &ask(owner, "a", "order")).await;
        server.command("SCRIPT FLUSH");
        store.abandon(&hold).await.expect("it is there");
    }
}

#[tokio::test]
async fn what_another_version_wrote_is_busy_or_down_and_never_free() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    let run = format!("{{shop}}:r:{}", hold.fence.0);
    server.command(&format!("HSET {run} v 2"));
    assert!(matches!(claim(&*store, &ask(2, "b", "order")).await, Claimed::Busy));
    server.command(&format!("DEL {run}"));
    server.command(&format!("SET {run} gibberish"));
    assert!(matches!(claim(&*store, &ask(2, "a", "order")).await, Claimed::Busy));
    server.command(&format!("DEL {run}"));
    assert!(matches!(claim(&*store, &ask(2, "a", "order")).await, Claimed::Busy), "a run that is missing");
    server.command("HSET {shop}:meta v 2");
    assert!(is_down(&store.claim(&ask(2, "c", "another order")).await));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_busy() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    settle(&*store, &hold, done(&hold, "paid")).await;
    server.command(&format!("SET {{shop}}:b:{} gibberish", hold.fence.0));
    assert!(matches!(claim(&*store, &ask(2, "a", "order")).await, Claimed::Busy));
    server.command(&format!("DEL {{shop}}:b:{}", hold.fence.0));
    assert!(matches!(claim(&*store, &ask(2, "a", "order")).await, Claimed::Busy));
}

#[tokio::test]
async fn every_key_ends_but_what_the_namespace_is() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    store.shared_secret([7; 32]).await.expect("it is there");
    let scoped = |owner, name| Ask { scope: Some(key("cart")), ..ask(owner, name, name) };
    let answered = lead(&*store, &scoped(1, "a")).await;
    lead(&*store, &scoped(2, "b")).await;
    let waiting = claim(&*store, &scoped(3, "b")).await;
    settle(&*store, &answered, done(&answered, "paid")).await;
    store.delivered(&[answered.fence]).await.expect("it is there");
    store.begin_generation(key("session")).await.expect("it is there");
    let endless = "EVAL \"local k = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
                   if redis.call('PTTL', key) < 0 then k[#k + 1] = key end end \
                   table.sort(k) return table.concat(k, ' ')\" 0";
    let answer = server.command(endless);
    assert!(answer.contains("\r\n{shop}:meta {shop}:secret\r\n"), "{answer}");
    drop(waiting);
}

#[tokio::test]
async fn the_first_secret_is_everybodys_and_a_server_that_forgot_is_told_it_again() {
    let mut server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    assert_eq!(one.shared_secret([1; 32]).await, Ok([1; 32]));
    assert_eq!(two.shared_secret([2; 32]).await, Ok([1; 32]));
    server.kill();
    until("down", async || (!*one.is_up().borrow() && !*two.is_up().borrow()).then_some(())).await;
    server.start_again();
    for store in [&one, &two] {
        store.ready(PATIENCE).await.expect("back");
    }
    let three = connected(&server.url()).await;
    assert_eq!(three.shared_secret([3; 32]).await, Ok([1; 32]));
}

#[tokio::test]
async fn two_replicas_with_two_secrets_do_not_share_a_store() {
    let mut server = RedisServer::start(&[]);
    let one = connected(&server.url()).await;
    assert_eq!(one.shared_secret([1; 32]).await, Ok([1; 32]));
    server.kill();
    until("down", async || (!*one.is_up().borrow()).then_some(())).await;
    server.start_again();
    // Somebody was faster than the one who knew.
    let answer = until("an answer", async || {
        server.command("SET {shop}:secret another-secret-that-is-32-bytes!");
        match one.ready(Duration::from_millis(100)).await {
            Err(StoreError::Down(why)) if why.contains("secret") => Some(why),
            _ => {
                server.command("CLIENT KILL TYPE normal SKIPME yes");
                None
            }
        }
    })
    .await;
    assert!(answer.contains("restart the replica"), "{answer}");
}

#[tokio::test]
async fn a_claim_that_too_few_replicas_have_is_no_claim() {
    let server = RedisServer::start(&[]);
    let deadline = Duration::from_millis(400);
    let store = connected_as(Settings { wait_replicas: 1, deadline, ..settings(&server.url()) }).await;
    let answer = store.claim(&ask(1, "a", "order")).await;
    assert!(matches!(&answer, Err(StoreError::Down(why)) if why.contains("0 of 1")), "{answer:?}");
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    let claimed = until("replicated", async || store.claim(&ask(1, "a", "order")).await.ok()).await;
    assert!(matches!(claimed, Claimed::Lead(_)), "its owner asks again: {claimed:?}");
    drop(replica);
}
