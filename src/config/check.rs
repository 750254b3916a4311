//! What the file means: every section with its defaults and bounds, and what sections mean for each other.
//!
//! Never stops at a problem: what cannot be used is replaced by its default and reading goes on, so that everything
//! that is wrong is told in one run.

use std::time::Duration;

use super::{
    Accept, Config, Format, Level, Limits, Log, Order, Runtime, Store, Upstream,
    file::Table,
    problem::At,
    reader::{Context, Reader},
};

mod address;
mod guard;
mod keys;
mod route;
mod store;
mod upstream;
mod verify;

const GIB: usize = 1 << 30;
const DAY: Duration = Duration::from_hours(24);

/// What a checked section gives to those after it.
struct Shared<'a> {
    upstreams: &'a [Upstream],
    store: &'a Store,
    limits: &'a Limits,
    log: &'a Log,
}

/// Checks a whole file. What it returns is only of use where the report has no errors.
pub(super) fn check(root: &Table, context: Context<'_>) -> Option<Config> {
    let reader = Reader::new(context, "", At { file: 0, start: 0, end: 0 }, root);
    let limits = limits(&reader);
    let log = log(&reader);
    let runtime = runtime(&reader);
    let store = store::store(&reader);
    let listeners = address::listeners(&reader);
    let upstreams = upstream::upstreams(&reader);
    let shared = Shared { upstreams: &upstreams, store: &store, limits: &limits, log: &log };
    let routes = route::routes(&reader, &shared);
    let renewals = route::renewals(&reader, &shared);
    let admin = address::admin(&reader, &listeners);
    reader.finish();
    // A part that is missing has its problem in the report.
    Some(Config {
        listeners,
        routes: routes?,
        renewals: renewals?,
        admin,
        store,
        upstreams,
        limits,
        log,
        runtime,
    })
}

/// A section that may be left out; a missing one is an empty one.
fn section<'a>(reader: &Reader<'a>, key: &'static str) -> Option<Reader<'a>> {
    reader.table(key)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn limits(root: &Reader<'_>) -> Limits {
    let defaults = Limits {
        connections_max: 10_000,
        header_bytes_max: 64 << 10,
        headers_max: 100,
        buffers_max: 256 << 20,
        flights_max: 100_000,
        header_timeout: secs(10),
        idle_timeout: secs(75),
        body_timeout: secs(60),
        send_timeout: secs(60),
        drain_deadline: secs(60),
    };
    let Some(reader) = section(root, "limits") else { return defaults };
    let limits = Limits {
        connections_max: reader.count("connections_max", defaults.connections_max, 1..=1_000_000),
        header_bytes_max: reader.size("header_bytes_max", defaults.header_bytes_max, 8 << 10..=1 << 20),
        headers_max: reader.count("headers_max", defaults.headers_max, 10..=1000),
        buffers_max: reader.size("buffers_max", defaults.buffers_max, 1 << 20..=64 * GIB),
        flights_max: reader.count("flights_max", defaults.flights_max, 1..=10_000_000),
        header_timeout: reader.duration("header_timeout", defaults.header_timeout, secs(1)..=secs(300)),
        idle_timeout: reader.duration("idle_timeout", defaults.idle_timeout, secs(1)..=secs(3600)),
        body_timeout: reader.duration("body_timeout", defaults.body_timeout, secs(1)..=secs(3600)),
        send_timeout: reader.duration("send_timeout", defaults.send_timeout, secs(1)..=secs(3600)),
        drain_deadline: reader.duration("drain_deadline", defaults.drain_deadline, secs(1)..=secs(3600)),
    };
    reader.unavailable(
        "connections_per_client_max",
        "limit connections per client in front of oncegate, or in the firewall",
    );
    reader.finish();
    limits
}

fn log(root: &Reader<'_>) -> Log {
    let defaults = Log { format: Format::Json, level: Level::Info, access: true, order: Order::Clear };
    let Some(reader) = section(root, "log") else { return defaults };
    let levels =
        [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug)];
    let log = Log {
        format: reader
            .choice("format", &[("json", Format::Json), ("text", Format::Text)])
            .unwrap_or(defaults.format),
        level: reader.choice("level", &levels).unwrap_or(defaults.level),
        access: reader.flag("access", defaults.access),
        order: reader
            .choice("order", &[("clear", Order::Clear), ("hash", Order::Hash)])
            .unwrap_or(defaults.order),
    };
    reader.finish();
    log
}

fn runtime(root: &Reader<'_>) -> Runtime {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let defaults = Runtime { workers: cores, accept: Accept::Dispatch };
    let Some(reader) = section(root, "runtime") else { return defaults };
    let runtime = Runtime {
        workers: reader.count("workers", defaults.workers, 1..=1024),
        accept: reader
            .choice("accept", &[("dispatch", Accept::Dispatch), ("reuseport", Accept::Reuseport)])
            .unwrap_or(defaults.accept),
    };
    reader.finish();
    runtime
}
