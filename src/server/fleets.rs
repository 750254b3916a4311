//! The shop's servers as the control runtime looks after them: health checks, names that are looked up again, and what
//! is told of it. It never stands in the way of a request; cores read what is found here from the fleet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::RngExt;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};

use crate::{
    config,
    gate::Gate,
    ops::log::Level,
    upstream::{
        Fleet,
        fleet::{Condition, Health, Target},
    },
};

/// As much of a health check's answer as is read.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long a name may take to be looked up.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within the timeout")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer's body is not as expected")]
    Body,
}

/// Starts whatever has to be done again and again. Runs inside a `LocalRuntime`, and ends with it.
pub(super) fn begin(gate: &Arc<Gate>) {
    for (number, upstream) in gate.config.upstreams.iter().enumerate() {
        let fleet = &gate.fleets[number];
        for server in 0..fleet.len() {
            if upstream.health.is_some() {
                drop(tokio::task::spawn_local(keep_checking(Arc::clone(gate), number, server)));
            }
            // An address means itself.
            if fleet.address(server).parse::<SocketAddr>().is_err() {
                drop(tokio::task::spawn_local(keep_looking_up(Arc::clone(gate), number, server)));
            }
        }
    }
}

async fn keep_checking(gate: Arc<Gate>, upstream: usize, server: usize) {
    let Some(health) = &gate.config.upstreams[upstream].health else { return };
    let fleet = &gate.fleets[upstream];
    let (mut failed, mut passed) = (0, 0);
    loop {
        match check(fleet, server, health).await {
            Ok(()) => {
                (failed, passed) = (0, passed + 1);
                fleet.set_checked(server, None);
                if passed >= health.rise {
                    fleet.set_health(server, Health::Up);
                }
            }
            Err(failure) => {
                (failed, passed) = (failed + 1, 0);
                fleet.set_checked(server, Some(failure.to_string()));
                if failed >= health.fall {
                    fleet.set_health(server, Health::Down);
                }
            }
        }
        // A tenth more or less, so that replicas and servers that began together do not stay together.
        let spread = rand::rng().random_range(0.9..1.1);
        sleep(health.interval.mul_f64(spread)).await;
    }
}

async fn check(fleet: &Fleet, server: usize, health: &config::Health) -> Result<(), Failure> {
    timeout(health.timeout, ask(fleet, server, health)).await.unwrap_or(Err(Failure::Timeout))
}

async fn ask(fleet: &Fleet, server: usize, health: &config::Health) -> Result<(), Failure> {
    let stream = match fleet.target(server) {
        Target::Named(name) => TcpStream::connect(name).await,
        Target::At(address) => TcpStream::connect(address).await,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream.map_err(Failure::Connect)?)).await?;
    let host = health.host.as_deref().unwrap_or_else(|| fleet.address(server));
    let request = Request::get(&health.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("oncegate-health/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let expected = &health.expect.statuses;
        let fits = if expected.is_empty() { matches!(status, 200..=399) } else { expected.contains(&status) };
        if !fits {
            return Err(Failure::Status(status));
        }
        let Some(pattern) = &health.expect.body else { return Ok(()) };
        let body =
            Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| Failure::Body)?;
        if pattern.is_match(&body.to_bytes()) { Ok(()) } else { Err(Failure::Body) }
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        asked = &mut asking => asked,
        // Its error reaches the request too; where it ended well, the answer is there already.
        _ = connection => asking.await,
    }
}

/// What cannot be looked up stays what it was: name servers fail more often than shops move.
async fn keep_looking_up(gate: Arc<Gate>, upstream: usize, server: usize) {
    let (fleet, settings) = (&gate.fleets[upstream], &gate.config.upstreams[upstream]);
    let mut is_failing = false;
    loop {
        let name = fleet.address(server);
        let found = timeout(LOOKUP_MAX, lookup_host(name)).await;
        let fields = |more: &str, what: &str| {
            let fields = [("upstream", settings.name.as_str()), ("server", name), (more, what)];
            gate.log.event(
                Level::Warn,
                if more == "error" { "name-not-found" } else { "name-changed" },
                &fields,
            );
        };
        match found {
            Ok(Ok(addresses)) => {
                let addresses: Vec<SocketAddr> = addresses.collect();
                let shown = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ");
                if fleet.set_addresses(server, addresses) {
                    fields("addresses", &shown);
                }
                is_failing = false;
            }
            Ok(Err(error)) if !is_failing => {
                fields("error", &error.to_string());
                is_failing = true;
            }
            Err(_) if !is_failing => {
                fields("error", "no answer of the name servers");
                is_failing = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(settings.resolve_every).await;
    }
}

/// What each server was when it was last looked at.
#[derive(Default)]
pub(super) struct Seen(Vec<Vec<Condition>>);

impl Seen {
    /// Tells of what has changed since, in the log and in the metrics.
    pub(super) fn look(&mut self, gate: &Gate) {
        self.0.resize_with(gate.fleets.len(), Vec::new);
        for (number, (fleet, seen)) in gate.fleets.iter().zip(&mut self.0).enumerate() {
            // All of them are up before the first look.
            seen.resize(fleet.len(), Condition::Up);
            for (server, before) in seen.iter_mut().enumerate() {
                let now = fleet.condition(server);
                if now == std::mem::replace(before, now) {
                    continue;
                }
                if let Some(up) =
                    gate.metrics.upstream(number).and_then(|metrics| metrics.server_up.get(server))
                {
                    up.set(i64::from(now == Condition::Up));
                }
                tell(gate, number, server, now);
            }
        }
    }
}

fn tell(gate: &Gate, upstream: usize, server: usize, now: Condition) {
    let fleet = &gate.fleets[upstream];
    let why = fleet.checked(server).unwrap_or_default();
    let mut fields = vec![
        ("upstream", gate.config.upstreams[upstream].name.as_str()),
        ("server", fleet.address(server)),
        ("condition", now.as_str()),
    ];
    if !why.is_empty() {
        fields.push(("check", &why));
    }
    let level = if now == Condition::Up { Level::Info } else { Level::Warn };
    gate.log.event(level, "server", &fields);
    let open = (0..fleet.len()).filter(|&one| fleet.is_open(one)).count();
    if open == 0 {
        let fields = [("upstream", gate.config.upstreams[upstream].name.as_str())];
        gate.log.event(Level::Error, "no-server", &fields);
    }
}
