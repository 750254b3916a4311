//! What a store costs beside what cannot be avoided: `cargo bench --bench stores`. The disk is that of the target folder,
//! Redis is one of its own on loopback. As a test (`cargo test --bench stores`) everything runs for a moment, which keeps
//! this from rotting and measures nothing.
//!
//! Latencies are of a loop that is closed: so many at once, each asks anew as soon as it is answered. CPU is this
//! process's, by operation; that of Redis is not in it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    env, fs, panic,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use oncegate::store::{
    Ask, Claimed, Ending, Hold, InDoubtPolicy, Kept, Key, May, Owner, Record, Settled, Store,
    file::File,
    memory::MemoryLimits,
    redis::{Address, Redis, Settings},
};
use redis::{
    Client, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use smallvec::smallvec;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};

#[path = "../tests/it/world/redis.rs"]
#[expect(
    dead_code,
    clippy::panic,
    reason = "it is of the integration tests, which do more with a server than this"
)]
mod server;

use server::RedisServer;

const WORKERS: usize = 2;
const ANSWER_BYTES: usize = 2000;
const LIMITS: MemoryLimits = MemoryLimits { records_bytes_max: 1 << 30, states_max: 10_000_000 };
/// In the unit of the machine's process clock, as everywhere on Linux.
const TICKS_A_SECOND: f64 = 100.0;

fn main() {
    let length = match env::args().any(|argument| argument == "--bench") {
        true => Duration::from_secs(3),
        false => Duration::from_millis(50),
    };
    println!("{:<58} {:>9} {:>9} {:>9} {:>7}", "", "a second", "p50 µs", "p99 µs", "CPU µs");
    in_a_file(length);
    round_trips(length);
    in_redis(length);
}

/// A claim and a settle each wait for the disk, and all that wait share one fsync.
fn in_a_file(length: Duration) {
    for at_once in [1, 64] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder on the disk");
        let store: Arc<dyn Store> = File::open(folder.path(), LIMITS, [7; 32]).expect("a store").store;
        orders(&format!("file, {at_once} at once"), (1, at_once), length, &store);
    }
}

/// The store of oncegate, with the one connection of its process.
fn in_redis(length: Duration) {
    for (threads, at_once) in [(1, 1), (WORKERS, 16)] {
        let server = RedisServer::start(&[]);
        let address = Address::parse(&server.url()).expect("an address");
        let deadline = Duration::from_secs(10);
        let settings = Settings { address, namespace: "shop".to_owned(), deadline, wait_replicas: 0 };
        let redis = Redis::connect(settings).expect("it starts");
        runtime().block_on(redis.ready(deadline)).expect("it is there");
        let name = format!("redis, {} at once on {threads} threads", threads * at_once);
        let store: Arc<dyn Store> = redis;
        orders(&name, (threads, at_once), length, &store);
    }
}

/// The floor of every step in Redis: one script that does nothing, over a connection that a thread of its own keeps, as
/// oncegate has it, and over one that each worker keeps itself.
fn round_trips(length: Duration) {
    let server = RedisServer::start(&[]);
    for (threads, at_once) in [(1, 1), (WORKERS, 1), (WORKERS, 16)] {
        let (own, _keeper) = kept_by_another(&server.url());
        let all = format!("{} at once on {threads} threads", threads * at_once);
        let shared =
            Case { name: format!("EVALSHA, {all}, a thread for the connection"), threads, at_once, length };
        shared.run(|| own.clone(), evalsha);
        let each = Case { name: format!("EVALSHA, {all}, a connection for each"), threads, at_once, length };
        let url = server.url();
        each.run_in(|| connect(url.clone()), evalsha);
    }
}

async fn connect(url: String) -> MultiplexedConnection {
    let client = Client::open(url).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("it is there");
    connection
        .req_packed_command(redis::cmd("SCRIPT").arg("LOAD").arg("return 1"))
        .await
        .expect("it is told");
    connection
}

/// A connection whose bytes are read and written on another thread, until what stands beside it is dropped.
fn kept_by_another(url: &str) -> (MultiplexedConnection, oneshot::Sender<()>) {
    let (done, mut until) = oneshot::channel::<()>();
    let (given, taken) = std::sync::mpsc::channel();
    let url = url.to_owned();
    thread::spawn(move || {
        runtime().block_on(async {
            given.send(connect(url).await).expect("somebody waits");
            let _ = (&mut until).await;
        });
    });
    (taken.recv().expect("it is there"), done)
}

async fn evalsha(connection: MultiplexedConnection, _: u64) -> Duration {
    /// Of `return 1`.
    const DIGEST: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let mut connection = connection;
    let began = Instant::now();
    let answer = connection.req_packed_command(redis::cmd("EVALSHA").arg(DIGEST).arg(0)).await;
    assert_eq!(answer, Ok(Value::Int(1)));
    began.elapsed()
}

/// A claim and a settle of new orders, timed apart.
fn orders(name: &str, (threads, at_once): (usize, usize), length: Duration, store: &Arc<dyn Store>) {
    let next = Arc::new(AtomicU64::new(0));
    let case = |step: &str| Case { name: format!("{name}: {step}"), threads, at_once, length };
    let shared = || (Arc::clone(store), Arc::clone(&next));
    case("claim").run(shared, async |(store, next), _| {
        let began = Instant::now();
        lead(&*store, next.fetch_add(1, Relaxed)).await;
        began.elapsed()
    });
    case("settle, and a claim before it that is not timed").run(shared, async |(store, next), _| {
        let hold = lead(&*store, next.fetch_add(1, Relaxed)).await;
        let began = Instant::now();
        assert_eq!(store.settle(&hold, done(&hold)).await, Ok(Settled::InTime));
        began.elapsed()
    });
}

struct Case {
    name: String,
    threads: usize,
    at_once: usize,
    length: Duration,
}

impl Case {
    fn run<S: Clone + Send + 'static>(
        &self,
        shared: impl Fn() -> S,
        act: impl AsyncFn(S, u64) -> Duration + Copy + Send + 'static,
    ) {
        self.run_in(|| std::future::ready(shared()), act);
    }

    /// `begin` makes what a thread's tasks share; it is polled on that thread.
    fn run_in<S: Clone + 'static, B: Future<Output = S> + Send + 'static>(
        &self,
        begin: impl Fn() -> B,
        act: impl AsyncFn(S, u64) -> Duration + Copy + Send + 'static,
    ) {
        let (before, began) = (cpu(), Instant::now());
        let (at_once, length) = (self.at_once, self.length);
        let workers: Vec<_> = (0..self.threads)
            .map(|_| {
                let begin = begin();
                thread::spawn(move || runtime().block_on(work(begin, act, at_once, length)))
            })
            .collect();
        let mut times: Vec<Duration> = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)))
            .collect();
        let (took, used) = (began.elapsed(), cpu() - before);
        times.sort_unstable();
        let of = |part: f64| {
            let at = (times.len() as f64 * part) as usize;
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let count = times.len() as f64;
        println!(
            "{:<58} {:>9.0} {:>9.1} {:>9.1} {:>7.1}",
            self.name,
            count / took.as_secs_f64(),
            of(0.5),
            of(0.99),
            used.as_secs_f64() * 1e6 / count
        );
    }
}

async fn work<S: Clone + 'static>(
    begin: impl Future<Output = S>,
    act: impl AsyncFn(S, u64) -> Duration + Copy + 'static,
    at_once: usize,
    length: Duration,
) -> Vec<Duration> {
    let shared = begin.await;
    let until = Instant::now() + length;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let mut all = JoinSet::new();
            for _ in 0..at_once {
                let shared = shared.clone();
                all.spawn_local(async move {
                    let mut times = Vec::new();
                    while Instant::now() < until {
                        times.push(act(shared.clone(), times.len() as u64).await);
                    }
                    times
                });
            }
            all.join_all().await.concat()
        })
        .await
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What this process has used, all its threads together.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("it is Linux");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0.0)).sum();
    Duration::from_secs_f64(ticks / TICKS_A_SECOND)
}

async fn lead(store: &dyn Store, number: u64) -> Hold {
    let key = |what: u8| {
        let mut bytes = [what; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Key(bytes)
    };
    let ask = Ask {
        owner: Owner(u128::from(number)),
        lanes: smallvec![key(1)],
        fingerprint: Some(key(2)),
        scope: None,
        body: None,
        generations: smallvec![],
        may: May::FollowAny,
        lease: Duration::from_secs(60),
        in_doubt: InDoubtPolicy::Hold(Duration::from_secs(600)),
    };
    match store.claim(&ask).await {
        Ok(Claimed::Lead(hold)) => hold,
        other => unreachable!("each order is a new one: {other:?}"),
    }
}

fn done(hold: &Hold) -> Ending {
    let record = Record {
        status: StatusCode::OK,
        headers: HeaderMap::new().into(),
        body: Kept::Whole(Bytes::from_static(&[b'-'; ANSWER_BYTES])),
        fence: hold.fence,
        answered_at: 1_763_683_200,
        remaining: Duration::ZERO,
    };
    let life = Duration::from_secs(3600);
    Ending::Done { record: record.into(), unseen: life, seen: life }
}
