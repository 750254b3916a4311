//! What takes a quiet machine and an optimised program to measure: `benches/replicas/run`, which says so by
//! `ONCEGATE_FIGURES`. Elsewhere it is run for a moment, and its figures mean nothing.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{ANSWER_BYTES, World, verdict};
use crate::replicas::{
    ALONE, Plan,
    clients::{post, read_message},
    shop::{Manner, order_of},
};

const CONNECTIONS: u32 = 32;

/// How much of it is measured.
struct Extent {
    /// Requests a second.
    rate: u32,
    window: Duration,
    rounds: usize,
    storms: usize,
    /// Until all storms have come.
    gathering: Duration,
}

fn extent() -> Extent {
    let seconds = Duration::from_secs;
    match env::var_os("ONCEGATE_FIGURES") {
        Some(_) => Extent { rate: 500, window: seconds(4), rounds: 5, storms: 200, gathering: seconds(8) },
        None => Extent { rate: 100, window: seconds(1), rounds: 1, storms: 5, gathering: seconds(1) },
    }
}

/// Where a request goes.
#[derive(Clone, Copy)]
enum Way {
    Http { address: SocketAddr, path: &'static str },
    Store,
}

// The same requests at the same moments, straight to the shop, through a route without a guard, and through one with it;
// and a script that does nothing over one connection to the same Redis.
#[tokio::test]
async fn requests_at_a_fixed_rate_are_all_answered_whichever_way_they_go() {
    let Extent { rate, window: length, rounds, .. } = extent();
    let world = World::steady(Duration::ZERO).await;
    let port = world.servers.lock().expect("nobody panics with it").nodes[0].port;
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut store = client.get_multiplexed_async_connection().await.expect("it is there");
    let load = redis::cmd("SCRIPT").arg("LOAD").arg("return 1").to_owned();
    store.req_packed_command(&load).await.expect("it is told");
    let (gate, shop) = (world.replicas.address(0).expect("it lives"), world.shop.addresses[0]);
    let ways = [
        ("the shop itself", Way::Http { address: shop, path: "/direct" }),
        ("through oncegate, no guard", Way::Http { address: gate, path: "/plain" }),
        ("through oncegate, guarded", Way::Http { address: gate, path: "/checkout" }),
        ("one bare EVALSHA", Way::Store),
    ];
    let mut found: BTreeMap<usize, Vec<(Duration, Duration)>> = BTreeMap::new();
    for round in 0..rounds {
        for (number, (_, way)) in ways.iter().enumerate() {
            found.entry(number).or_default().push(window(*way, &store, round, (rate, length)).await);
        }
    }
    println!("{rate} a second on {CONNECTIONS} connections, medians of {rounds} windows of {length:?}");
    for (number, (name, _)) in ways.iter().enumerate() {
        let median = |of: fn(&(Duration, Duration)) -> Duration| {
            let mut all: Vec<Duration> = found[&number].iter().map(of).collect();
            all.sort_unstable();
            all[all.len() / 2]
        };
        println!("{name:<30} p50 {:>9.3?}   p99 {:>9.3?}", median(|pair| pair.0), median(|pair| pair.1));
    }
}

/// p50 and p99.
async fn window(
    way: Way,
    store: &MultiplexedConnection,
    round: usize,
    (rate, length): (u32, Duration),
) -> (Duration, Duration) {
    let (began, mut all) = (tokio::time::Instant::now(), JoinSet::new());
    let gap = Duration::from_secs(1) / rate;
    for connection in 0..CONNECTIONS {
        let mut store = store.clone();
        all.spawn(async move {
            let mut http = match way {
                Way::Http { address, .. } => {
                    let stream = TcpStream::connect(address).await.expect("it listens");
                    stream.set_nodelay(true).expect("it is a socket");
                    Some(BufReader::new(stream))
                }
                Way::Store => None,
            };
            let (mut times, mut number) = (Vec::new(), connection);
            while gap * number < length {
                sleep_until(began + gap * number).await;
                let sent = Instant::now();
                match (&mut http, way) {
                    (Some(stream), Way::Http { path, .. }) => {
                        let body = format!("order=rate-{round}-{number}&token=0");
                        order(stream, path, &body).await;
                    }
                    _ => bare(&mut store).await,
                }
                times.push(sent.elapsed());
                number += CONNECTIONS;
            }
            times
        });
    }
    let mut times = all.join_all().await.concat();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

async fn order(stream: &mut BufReader<TcpStream>, path: &str, body: &str) {
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(text.as_bytes()).await.expect("it takes it");
    let answer = read_message(stream).await.expect("it answers");
    assert_eq!(answer.status(), 200);
}

async fn bare(store: &mut MultiplexedConnection) {
    /// Of `return 1`.
    const DIGEST: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let call = redis::cmd("EVALSHA").arg(DIGEST).arg(0).to_owned();
    assert_eq!(store.req_packed_command(&call).await, Ok(redis::Value::Int(1)));
}

// Many orders that a hundred ask for each, over three replicas, all answered by the shop at one moment.
#[tokio::test]
async fn each_of_many_storms_at_once_is_one_run() {
    let Extent { storms, gathering, .. } = extent();
    let each: usize = env::var("ONCEGATE_STORM").map_or(100, |text| text.parse().expect("a number"));
    let world = World::steady_in(Plan { wait_max: 60, ..ALONE }, Duration::ZERO).await;
    let moment = Instant::now() + gathering;
    world.shop.works(Manner::Until { moment, bytes: ANSWER_BYTES });
    let mut all = JoinSet::new();
    for storm in 0..storms {
        for duplicate in 0..each {
            let replicas = Arc::clone(&world.replicas);
            all.spawn(async move { post(&replicas, duplicate % 3, format!("order={storm}&token=0")).await });
        }
        // Or the kernel would have most of them try again a second later.
        sleep(Duration::from_millis(10)).await;
    }
    assert!(Instant::now() < moment, "they have not come in time");
    let asked = all.join_all().await;
    let runs = world.shop.runs();
    let mut lags = Vec::new();
    for storm in 0..storms {
        let order = format!("order={storm}");
        let sent: Vec<_> = runs.iter().filter(|run| run.order() == order).collect();
        assert_eq!(sent.len(), 1, "{order}");
        let (said, _) = sent[0].ended.expect("it has answered");
        let of_order = asked.iter().filter(|asked| order_of(&asked.request) == order);
        let last = of_order.map(|asked| asked.ended).max().expect("there are some");
        lags.push(last.duration_since(said));
    }
    let told = asked.iter().filter(|asked| ["lead", "follow", "replay"].contains(&verdict(asked))).count();
    lags.sort_unstable();
    println!(
        "{storms} storms of {each} at once: {told} of {} have the answer; from the shop's answer to a storm's last: median \
         {:?}, worst {:?}",
        asked.len(),
        lags[storms / 2],
        lags[storms - 1]
    );
    assert_eq!(told, asked.len());
}
