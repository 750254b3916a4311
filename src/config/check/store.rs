//! `[store]`: where claims and records live, and how they are called upon.

use std::path::PathBuf;

use super::{GIB, millis, secs, section};
use crate::config::{
    Store, StoreKind,
    reader::{Located, Reader, unavailable},
    suggest, units,
};

pub(super) fn store(root: &Reader<'_>) -> Store {
    let defaults = Store {
        kind: StoreKind::Memory,
        lease: secs(10),
        deadline: millis(250),
        secret: None,
        records_bytes_max: 256 << 20,
        states_max: 1_000_000,
    };
    let Some(reader) = section(root, "store") else { return defaults };
    let kind = kind(&reader);
    for key in ["url", "namespace", "wait_replicas", "on_store_down"] {
        reader.unavailable(key, "it belongs to the store \"redis\"; take it out");
    }
    let store = Store {
        kind,
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

fn kind(reader: &Reader<'_>) -> StoreKind {
    let path = reader.text("path");
    let Some(kind) = reader.text("kind") else {
        useless(reader, path.as_ref());
        return StoreKind::Memory;
    };
    match kind.value.as_str() {
        "file" => return StoreKind::File { path: folder(reader, &kind, path) },
        "memory" => useless(reader, path.as_ref()),
        "redis" => {
            let mend = "write kind = \"file\" or \"memory\" and run one oncegate in front of the shop";
            unavailable(reader.report(), &kind.at, "the store \"redis\"", mend);
        }
        other => {
            let mend = match suggest::closest(other, ["memory", "file", "redis"]) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write kind = \"memory\" or \"file\"".to_owned(),
            };
            reader.report().error(&kind.at, format!("there is no store \"{other}\""), "", mend);
        }
    }
    StoreKind::Memory
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

fn useless(reader: &Reader<'_>, path: Option<&Located<String>>) {
    if path.is_some() {
        let follows = "nothing would be kept there, and a restart would forget";
        let mend = "write kind = \"file\", or take `path` out";
        reader.report().error(
            &reader.at_value("path"),
            "`path` is not for the store \"memory\"",
            follows,
            mend,
        );
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
