//! `[store]`: where claims and records live, and how they are called upon.

use std::path::PathBuf;

use super::{GIB, millis, secs, section};
use crate::{
    config::{
        RedisStore, Store, StoreKind,
        file::read_text,
        reader::{Located, Reader},
        suggest, units,
    },
    store::OnStoreDown,
    store::redis::{Address, AddressError, RootsError, is_namespace},
};

/// As they are typed, for the store and for a route.
pub(super) const ON_STORE_DOWN: [(&str, OnStoreDown); 2] =
    [("local", OnStoreDown::Local), ("refuse", OnStoreDown::Refuse)];

const SCHEMES: [&str; 6] =
    ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];

const ANYWHERE: &str = "redis://127.0.0.1:6379/0";

/// More replicas than any Redis is given.
const REPLICAS_MAX: usize = 100;

/// All authorities that a machine knows together are smaller.
const CA_BYTES_MAX: u64 = 1 << 20;

pub(super) fn store(root: &Reader<'_>) -> Store {
    let defaults = Store {
        kind: StoreKind::Memory,
        lease: secs(10),
        deadline: millis(250),
        on_store_down: OnStoreDown::Local,
        secret: None,
        records_bytes_max: 256 << 20,
        states_max: 1_000_000,
    };
    let Some(reader) = section(root, "store") else { return defaults };
    let kind = kind(&reader);
    let store = Store {
        kind,
        lease: reader.duration("lease", defaults.lease, secs(1)..=secs(300)),
        deadline: reader.duration("deadline", defaults.deadline, millis(10)..=secs(10)),
        on_store_down: reader.choice("on_store_down", &ON_STORE_DOWN).unwrap_or(defaults.on_store_down),
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

fn kind(reader: &Reader<'_>) -> StoreKind {
    let path = reader.text("path");
    let Some(kind) = reader.text("kind") else {
        useless(reader, "memory", &["path", "url", "ca", "namespace", "wait_replicas", "on_store_down"]);
        return StoreKind::Memory;
    };
    match kind.value.as_str() {
        "file" => {
            useless(reader, "file", &["url", "ca", "namespace", "wait_replicas", "on_store_down"]);
            return StoreKind::File { path: folder(reader, &kind, path) };
        }
        "memory" => {
            useless(reader, "memory", &["path", "url", "ca", "namespace", "wait_replicas", "on_store_down"])
        }
        "redis" => {
            useless(reader, "redis", &["path"]);
            return redis(reader, &kind);
        }
        other => {
            // What belongs to the kind that was meant is no further problem.
            for key in ["url", "ca", "namespace", "wait_replicas"] {
                reader.value(key);
            }
            let mend = match suggest::closest(other, ["memory", "file", "redis"]) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write kind = \"memory\", \"file\" or \"redis\"".to_owned(),
            };
            reader.report().error(&kind.at, format!("there is no store \"{other}\""), "", mend);
        }
    }
    StoreKind::Memory
}

/// The URL may stand in a file of its own, for its password.
fn redis(reader: &Reader<'_>, kind: &Located<String>) -> StoreKind {
    let namespace = namespace(reader);
    let wait_replicas = reader.count("wait_replicas", 0, 0..=REPLICAS_MAX);
    // It is within its bounds, which are small.
    let wait_replicas = u32::try_from(wait_replicas).unwrap_or(0);
    match address(reader, kind).map(|address| trusting(reader, address)) {
        Some(address) => StoreKind::Redis(RedisStore { address, namespace, wait_replicas }),
        None => StoreKind::Memory,
    }
}

fn address(reader: &Reader<'_>, kind: &Located<String>) -> Option<Address> {
    if reader.value("url").is_none() {
        let follows = "it is not known where the store is";
        let mend = "write for example url = \"redis://127.0.0.1:6379/0\"";
        reader.report().error(&kind.at, "kind = \"redis\" without `url`", follows, mend);
        // What depends on the kind is no further problem.
        return Address::parse(ANYWHERE).ok();
    }
    let url = reader.secret("url")?;
    let error = match Address::parse(&url.value) {
        Ok(address) => return Some(address),
        Err(error) => error,
    };
    let meant = match (error, url.value.split_once("://")) {
        (AddressError::Scheme, Some((scheme, _))) => suggest::closest(scheme, SCHEMES),
        _ => None,
    };
    let mend = match meant {
        Some(meant) => format!("did you mean {meant}://?"),
        None => format!("write for example url = \"{ANYWHERE}\""),
    };
    reader.report().error(&url.at, format!("`url` {error}"), "", mend);
    Address::parse(ANYWHERE).ok()
}

/// With the authority that the store's certificates are signed by.
fn trusting(reader: &Reader<'_>, address: Address) -> Address {
    let Some(path) = reader.text("ca") else { return address };
    let full = reader.context.sources.folder(path.at.file).join(&path.value);
    let roots = match read_text(&full, CA_BYTES_MAX) {
        Ok(roots) => roots,
        Err(error) => {
            let what = format!("{} cannot be read: {error}", full.display());
            let mend = "check the path, which starts at this file, and who may read it";
            reader.report().error(&path.at, what, "no server would be believed", mend);
            return address;
        }
    };
    let error = match address.clone().trusting(&roots) {
        Ok(trusting) => return trusting,
        Err(error) => error,
    };
    let (follows, mend) = match error {
        RootsError::NoTls => {
            ("the connection would be open to read", "write rediss instead of redis, or take `ca` out")
        }
        RootsError::None | RootsError::Unreadable => (
            "no server would be believed",
            "take the PEM file of the authority that signed the server's certificate",
        ),
    };
    reader.report().error(&path.at, format!("`ca` {error}"), follows, mend);
    // What depends on the kind is no further problem.
    address
}

fn namespace(reader: &Reader<'_>) -> String {
    let default = || "oncegate".to_owned();
    let Some(namespace) = reader.text("namespace") else { return default() };
    if is_namespace(&namespace.value) {
        return namespace.value;
    }
    let what = format!("`namespace` cannot be \"{}\"", namespace.value);
    let follows = "all keys of this installation begin with it";
    let mend = "take 1 to 64 letters, digits, dots, dashes and underscores";
    reader.report().error(&namespace.at, what, follows, mend);
    default()
}

/// A path begins at the file that it stands in, as all paths do.
fn folder(reader: &Reader<'_>, kind: &Located<String>, path: Option<Located<String>>) -> PathBuf {
    let Some(path) = path.filter(|path| !path.value.is_empty()) else {
        let follows = "there is no place to keep anything";
        let mend = "write for example path = \"/var/lib/oncegate\", a folder that nobody else uses";
        reader.report().error(&kind.at, "kind = \"file\" without `path`", follows, mend);
        return PathBuf::new();
    };
    reader.context.sources.folder(path.at.file).join(&path.value)
}

/// Keys that do nothing for a kind of store.
fn useless(reader: &Reader<'_>, kind: &str, keys: &[&'static str]) {
    for key in keys.iter().copied().filter(|key| reader.value(key).is_some()) {
        let (follows, of) = match key {
            "path" => ("nothing would be kept there, and a restart would forget", "file"),
            "url" => ("other replicas would know nothing of this one", "redis"),
            "on_store_down" => ("this store is in this process and goes down with it", "redis"),
            _ => ("nothing would read it", "redis"),
        };
        let what = format!("`{key}` is not for the store \"{kind}\"");
        let mend = format!("write kind = \"{of}\", or take `{key}` out");
        reader.report().error(&reader.at_value(key), what, follows, mend);
    }
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
