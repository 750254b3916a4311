//! Who waits on another replica is told by push, and a small answer comes with it.

use super::*;
use crate::store::conformance::{ask, done, lead, replay, settle};
use http::StatusCode;
use oncegate::store::{Fence, Headers, Judged, Kept, Record, Wake, Woken};

/// Sooner than any poll would come.
const PUSHED_WITHIN: Duration = Duration::from_secs(10);

fn answer(bytes: usize) -> Arc<Record> {
    Arc::new(Record {
        status: StatusCode::OK,
        headers: Headers::default(),
        body: Kept::Whole(vec![b'x'; bytes].into()),
        fence: Fence(1),
        answered_at: 0,
        remaining: Duration::ZERO,
    })
}

fn calls(server: &RedisServer, command: &str) -> u64 {
    let statistics = server.command("INFO commandstats");
    let line = statistics.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| {
        let count = line.split(['=', ',']).nth(1).expect("a number");
        count.parse().expect("a number")
    })
}

async fn follow(store: &Redis, ask: &Ask) -> Wake {
    match claim(store, ask).await {
        Claimed::Follow { wake, .. } => wake,
        other => panic!("expected to follow, got {other:?}"),
    }
}

async fn woken(wake: Wake) -> Woken {
    let woken = tokio::time::timeout(PUSHED_WITHIN, wake).await.expect("it is woken");
    woken.unwrap_or(Woken::Again)
}

#[tokio::test]
async fn a_follower_on_another_replica_gets_the_answer_without_another_read() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    listening(&server, 2).await;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    let wake = follow(&two, &ask(2, "a", "order")).await;
    let before = calls(&server, "evalsha");
    let ending =
        Ending::Done { record: answer(2000), unseen: Duration::from_secs(7), seen: Duration::from_secs(5) };
    assert_eq!(settle(&*one, &hold, ending).await, Settled::InTime);
    let Woken::Answered { fence, answer: given, outcome } = woken(wake).await else { panic!("answered") };
    assert_eq!((fence, outcome), (hold.fence, Judged::Done));
    assert_eq!((&given.body, given.remaining), (&answer(2000).body, Duration::from_secs(7)));
    assert_eq!(calls(&server, "evalsha") - before, 1, "the settle, and nothing else");
    assert_eq!(calls(&server, "publish"), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_for_a_message_is_read_again() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    listening(&server, 2).await;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    let wake = follow(&two, &ask(2, "a", "order")).await;
    let large = answer(100_000);
    let life = Duration::from_secs(7);
    settle(&*one, &hold, Ending::Done { record: Arc::clone(&large), unseen: life, seen: life }).await;
    assert!(matches!(woken(wake).await, Woken::Again));
    assert_eq!(replay(&*two, &ask(2, "a", "order")).await.body, large.body);
}

#[tokio::test]
async fn replicas_that_do_not_wait_are_told_nothing() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    listening(&server, 2).await;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    settle(&*one, &hold, done(&hold, "paid")).await;
    replay(&*two, &ask(2, "a", "order")).await;
    assert_eq!(calls(&server, "publish"), 0);
}

#[tokio::test]
async fn a_first_request_costs_two_calls_and_a_replay_one() {
    let server = RedisServer::start(&[]);
    let store = connected(&server.url()).await;
    let before = calls(&server, "evalsha");
    let hold = lead(&*store, &ask(1, "a", "order")).await;
    settle(&*store, &hold, done(&hold, "paid")).await;
    assert_eq!(calls(&server, "evalsha") - before, 2);
    replay(&*store, &ask(2, "a", "order")).await;
    assert_eq!(calls(&server, "evalsha") - before, 3);
}

#[tokio::test]
async fn whoever_waits_is_woken_again_after_the_wake_ups_were_cut_off() {
    let server = RedisServer::start(&[]);
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    listening(&server, 2).await;
    let channels = server.command("PUBSUB CHANNELS");
    server.command("CLIENT KILL TYPE pubsub");
    until("all listen again", async || {
        (server.command("PUBSUB CHANNELS").len() == channels.len()).then_some(())
    })
    .await;
    let hold = lead(&*one, &ask(1, "a", "order")).await;
    let wake = follow(&two, &ask(2, "a", "order")).await;
    settle(&*one, &hold, done(&hold, "paid")).await;
    assert!(matches!(woken(wake).await, Woken::Answered { .. }));
}
