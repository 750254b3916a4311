//! What a guard's settings mean for money: warnings about a guard that does what it says, and not what was meant.

use std::time::Duration;

use crate::config::{
    Guard, Mode,
    file::{Kind, Table},
    reader::Reader,
    senders::{self, Sender},
    units::show_duration,
};

/// Tells of a guarded route what would surprise whoever pays.
pub(super) fn of(route: &Reader<'_>, guard: &Guard) {
    let Some(table) = route.table("guard") else { return };
    let matched = match route.value("match").map(|value| &value.kind) {
        Some(Kind::Table(matched)) => matched,
        _ => &Table::default(),
    };
    let typed = match route.value("guard").map(|value| &value.kind) {
        Some(Kind::Table(typed)) => typed,
        _ => &Table::default(),
    };
    whose(&table, guard, matched, typed);
    let scheme = guard.verify.as_ref().map(|verify| verify.scheme);
    if let Some(sender) = senders::of(scheme, &[matched, typed]) {
        patience(&table, guard, sender);
        if guard.mode == Mode::Once {
            records(&table, guard, sender);
        }
    }
}

/// Whoever goes by cookies has customers to tell apart.
fn whose(reader: &Reader<'_>, guard: &Guard, matched: &Table, typed: &Table) {
    let is_none = reader.texts("identity").iter().any(|text| text.value == "none");
    if !is_none || guard.mode == Mode::Serial {
        return;
    }
    let seen = cookie(matched, typed);
    if let Some(seen) = seen {
        let what = format!("`identity` is \"none\" on a route that goes by {seen}");
        let follows = "the answer to one customer, with what it says of an order, is given to another one whose request is equal";
        let mend = "name what tells customers apart, for example identity = [\"cookie:PHPSESSID\"]";
        reader.report().warning(&reader.at_value("identity"), what, follows, mend);
    }
}

/// What shows that a route's clients have cookies.
fn cookie(matched: &Table, typed: &Table) -> Option<String> {
    let name = |entry: &crate::config::file::Entry| match &entry.value.kind {
        Kind::Table(table) => table.entries.first().map(|entry| format!("the cookie `{}`", entry.key)),
        _ => None,
    };
    if let Some(named) = matched.entries.iter().filter(|entry| entry.key == "cookies").find_map(name) {
        return Some(named);
    }
    let mut sources = Vec::new();
    for entry in typed.entries.iter().filter(|entry| ["order", "event"].contains(&entry.key.as_str())) {
        texts(&entry.value.kind, &mut sources);
    }
    sources.into_iter().find(|source| source.starts_with("cookie:")).map(|source| format!("\"{source}\""))
}

fn texts<'a>(kind: &'a Kind, into: &mut Vec<&'a str>) {
    match kind {
        Kind::Text(text) => into.push(text),
        Kind::Array(items) => items.iter().for_each(|item| texts(&item.kind, into)),
        Kind::Integer(_) | Kind::Boolean(_) | Kind::Table(_) | Kind::Other(_) => {}
    }
}

/// Whoever hangs up first sends again, and its first delivery still waits.
fn patience(reader: &Reader<'_>, guard: &Guard, sender: &Sender) {
    let Some(patience) = sender.patience.filter(|patience| guard.wait_max >= *patience) else { return };
    let default = if reader.value("wait_max").is_none() { ", the default," } else { "" };
    let wait = show_duration(guard.wait_max);
    let what = format!(
        "`wait_max` ({wait}){default} is not below the {} that {} waits",
        show_duration(patience),
        sender.name
    );
    let follows = "it hangs up first and delivers again, while the first delivery still waits for an answer that nobody takes";
    let shorter = show_duration(patience.saturating_sub(Duration::from_secs(1)));
    let mend =
        format!("write wait_max = \"{shorter}\": it is told with 503 to come back while the flight goes on");
    reader.report().warning(&reader.at_value("wait_max"), what, follows, mend);
}

/// A record that ends before the sender's retries do is a second run; one that outlives them swallows what somebody
/// sends again on purpose, because the shop did nothing.
fn records(reader: &Reader<'_>, guard: &Guard, sender: &Sender) {
    let (name, retries) = (sender.name, show_duration(sender.retries));
    let default =
        |key| if reader.entries().iter().any(|entry| entry.key == key) { "" } else { ", the default," };
    if guard.replay_unseen_for < sender.retries {
        let key = "replay_unseen_for";
        let kept = show_duration(guard.replay_unseen_for);
        let what = format!(
            "`{key}` ({kept}){} is shorter than the {retries} for which {name} delivers again",
            default(key)
        );
        let follows = "a delivery whose answer was lost comes again when its record is gone, and the shop runs a second time";
        let mend = format!("write {key} = \"{retries}\"");
        reader.report().warning(&reader.at_value(key), what, follows, mend);
    }
    if guard.replay_for > sender.retries {
        let key = "replay_for";
        let kept = show_duration(guard.replay_for);
        let what = format!(
            "`{key}` ({kept}){} is longer than the {retries} for which {name} delivers again",
            default(key)
        );
        let follows = "what comes later was sent again by hand, because the shop did nothing, and the shop would not get it";
        let mend = format!(
            "write {key} = \"10m\", and {} = \"{retries}\" for answers that were lost",
            "replay_unseen_for"
        );
        reader.report().warning(&reader.at_value(key), what, follows, mend);
    }
}
