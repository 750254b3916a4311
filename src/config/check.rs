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
    suggest, units,
};

mod address;
mod guard;
mod keys;
mod route;
mod upstream;

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
    let store = store(&reader);
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

fn store(root: &Reader<'_>) -> Store {
    let defaults = Store {
        lease: secs(10),
        deadline: millis(250),
        secret: None,
        records_bytes_max: 256 << 20,
        states_max: 1_000_000,
    };
    let Some(reader) = section(root, "store") else { return defaults };
    if let Some(kind) = reader.text("kind") {
        let what = format!("the store \"{}\"", kind.value);
        match kind.value.as_str() {
            "memory" => {}
            "file" | "redis" => {
                let mend = "write kind = \"memory\" and run one oncegate in front of the shop";
                super::reader::unavailable(reader.report(), &kind.at, &what, mend);
            }
            other => {
                let mend = match suggest::closest(other, ["memory", "file", "redis"]) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => "write kind = \"memory\"".to_owned(),
                };
                reader.report().error(&kind.at, format!("there is no {}", &what[4..]), "", mend);
            }
        }
    }
    for key in ["path", "url", "namespace", "wait_replicas", "on_store_down"] {
        reader.unavailable(key, "it belongs to the stores \"file\" and \"redis\"; take it out");
    }
    let store = Store {
        lease: reader.duration("lease", defaults.lease, secs(1)..=secs(300)),
        deadline: reader.duration("deadline", defaults.deadline, millis(10)..=secs(10)),
        secret: installation_secret(&reader),
        records_bytes_max: reader.size("records_bytes_max", defaults.records_bytes_max, 1 << 20..=256 * GIB),
        states_max: reader.count("states_max", defaults.states_max, 1000..=100_000_000),
    };
    // A lease is renewed every third of it; a call that may take longer than that loses leases that are in use.
    if store.deadline > store.lease / 3 {
        let what = format!(
            "`deadline` is {}, more than a third of the lease of {}",
            units::show_duration(store.deadline),
            units::show_duration(store.lease)
        );
        let follows = "one slow call of the store loses the right to send of an exchange that is running";
        reader.report().error(
            &reader.at_value("deadline"),
            what,
            follows,
            "shorten it, or make `lease` longer",
        );
    }
    reader.finish();
    store
}

/// Stretches the text to the 32 bytes that keyed BLAKE3 takes.
fn installation_secret(reader: &Reader<'_>) -> Option<crate::request::Secret> {
    const BYTES_MIN: usize = 16;
    let text = reader.secret("secret")?;
    if text.value.len() < BYTES_MIN {
        let what = format!("`secret` has {} bytes", text.value.len());
        let follows = "who sees the store could guess keys back to persons";
        let mend = format!("take at least {BYTES_MIN}, for example from `openssl rand -hex 32`");
        reader.report().error(&text.at, what, follows, mend);
        return None;
    }
    Some(crate::request::Secret::from_text(text.value.as_bytes()))
}
