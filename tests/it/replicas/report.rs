//! What a run came to: told on its standard output, and as a line of a table for `tests/run`.

use std::{collections::BTreeSet, env, fs::OpenOptions, io::Write as _};

use super::{
    check::{Book, Found},
    clients::Asked,
    faults::{Kind, Place},
    shop::order_of,
};

/// Names a file that each run adds a line to: its columns, of which every one is `name=value`.
const REPORT: &str = "ONCEGATE_CHAOS_REPORT";

pub(super) fn tell(book: &Book, found: &Found, seed: u64) {
    let verdict = |verdict: &str| {
        let is = |asked: &&Asked| {
            asked.answer.as_ref().is_some_and(|answer| answer.field("oncegate-verdict") == verdict)
        };
        book.asked.iter().filter(is).count()
    };
    let orders: BTreeSet<&str> = book.asked.iter().map(|asked| order_of(&asked.request)).collect();
    let (follows, replays) = (verdict("follow"), verdict("replay"));
    let unanswered = book.asked.iter().filter(|asked| asked.answer.is_none()).count();
    let mut columns = vec![
        ("kind", book.plan.name.to_owned()),
        ("orders", orders.len().to_string()),
        ("requests", book.asked.len().to_string()),
        ("sends", book.runs.len().to_string()),
        ("led", verdict("lead").to_string()),
        ("duplicates", (follows + replays).to_string()),
        ("refused", verdict("refuse").to_string()),
        ("unanswered", unanswered.to_string()),
    ];
    columns.extend(faults(book).map(|(name, count)| (name, count.to_string())));
    let Found { violations, overlaps_excused, after_failure, after_doubt, alone, lost } = found;
    columns.extend([
        ("again-after-failure", after_failure.to_string()),
        ("again-after-doubt", after_doubt.to_string()),
        ("excused-alone", alone.to_string()),
        ("excused-overlaps", overlaps_excused.to_string()),
        ("excused-lost", lost.to_string()),
        ("violations", violations.len().to_string()),
        ("seed", seed.to_string()),
    ]);
    let line: Vec<String> = columns.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{}", line.join(" "));
    let Some(file) = env::var_os(REPORT) else { return };
    let mut file =
        OpenOptions::new().create(true).append(true).open(file).expect("the report can be written");
    writeln!(file, "{}", line.join("\t")).expect("the report can be written");
}

fn faults(book: &Book) -> impl Iterator<Item = (&'static str, usize)> {
    let count = |of: &dyn Fn(Kind, Place) -> bool| {
        book.faults.iter().filter(|fault| of(fault.kind, fault.place)).count()
    };
    let is_store = |place| place == Place::Store;
    [
        ("replica-kills", count(&|kind, place| kind == Kind::Killed && !is_store(place))),
        ("replica-stops", count(&|kind, place| kind == Kind::Stopped && !is_store(place))),
        ("replica-cuts", count(&|kind, place| matches!(kind, Kind::Cut(_)) && !is_store(place))),
        ("redis-kills", count(&|kind, place| kind == Kind::Killed && is_store(place))),
        ("redis-stops", count(&|kind, place| kind == Kind::Stopped && is_store(place))),
        ("redis-isolated", count(&|kind, place| matches!(kind, Kind::Cut(_)) && is_store(place))),
        ("redis-ordered", count(&|kind, _| kind == Kind::Ordered)),
        ("redis-replica-kills", count(&|kind, _| kind == Kind::ReplicaKilled)),
        ("slot-moves", count(&|kind, _| kind == Kind::Migrated)),
        ("failovers", book.faults.iter().filter(|fault| fault.taken.is_some()).count()),
    ]
    .into_iter()
}
