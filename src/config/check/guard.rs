//! `[route.guard]`: what is promised for a route, and whether its settings keep that promise.

use std::time::Duration;

use super::{DAY, GIB, Shared, keys, millis, route::Match, route::locate, secs, store::ON_STORE_DOWN};
use crate::{
    answer::{
        judge::{DoneSpec, DoneWhen},
        refusal::Busy,
    },
    config::{
        Enforce, Guard, Mode, OnNoKey, Order, SendKey, Store, StoreKind,
        file::{Kind, Value, one_line},
        problem::At,
        reader::Reader,
        units::{show_duration, show_size},
    },
    request::{Identity, OnMismatch, Rules, Scope, Sharing, body::BodyAs},
    store::{InDoubtPolicy, OnStoreDown},
};

/// The route that a guard belongs to.
pub(super) struct Place<'a> {
    pub route: &'a str,
    pub upstream: Option<usize>,
    pub matched: &'a Match,
}

/// Settings that do nothing in a mode, and why.
const USELESS: [(Mode, &[&str], &str); 2] = [
    (
        Mode::Serial,
        &[
            "event",
            "ignore",
            "on_mismatch",
            "replay_scope",
            "replay_for",
            "replay_unseen_for",
            "pending_for",
            "record_max",
            "followers_max",
            "send_idempotency_key",
        ],
        "mode \"serial\" keeps requests of one order apart and shares no answers",
    ),
    (
        Mode::Signal,
        &["replay_scope", "replay_for", "replay_unseen_for", "pending_for"],
        "mode \"signal\" shares an answer between those that wait for it and keeps no records",
    ),
];

/// A guard. Where something is missing the report says so and a default stands in its place.
pub(super) fn guard(reader: &Reader<'_>, shared: &Shared<'_>, place: &Place<'_>) -> Guard {
    let mode = mode(reader);
    let rules = rules(reader, shared, place, mode);
    let done_when = judging(reader);
    let replay_for = reader.duration("replay_for", DAY, secs(1)..=DAY * 90);
    let replay_unseen_for = reader.duration("replay_unseen_for", replay_for, secs(1)..=DAY * 90);
    let wait_max = reader.duration("wait_max", secs(60), millis(100)..=secs(3600));
    let body_max = reader.size("body_max", 1 << 20, 1..=GIB);
    let guard = Guard {
        mode: mode.unwrap_or(Mode::Once),
        verify: None,
        enforce: if reader.flag("enforce", true) { Enforce::Yes } else { Enforce::Observe },
        rules,
        done_when: done_when.unwrap_or_default(),
        replay_for,
        replay_unseen_for,
        pending_for: pending_for(reader, replay_for),
        wait_max,
        followers_max: reader.count("followers_max", 1000, 1..=1_000_000),
        lane_depth_max: reader.count("lane_depth_max", 64, 1..=100_000),
        on_no_key: reader
            .choice("on_no_key", &[("bypass", OnNoKey::Bypass), ("refuse", OnNoKey::Refuse)])
            .unwrap_or(OnNoKey::Bypass),
        in_doubt: in_doubt(reader, mode, wait_max),
        on_store_down: on_store_down(reader, shared.store),
        send_idempotency_key: match reader.flag("send_idempotency_key", false) {
            true => SendKey::Yes,
            false => SendKey::No,
        },
        busy: reader.choice("busy", &Busy::ALL).unwrap_or_default(),
        body_as: reader
            .choice("body_as", &[("json", BodyAs::Json), ("form", BodyAs::Form), ("xml", BodyAs::Xml)])
            .unwrap_or(BodyAs::Declared),
        body_max,
        body_timeout: reader.duration("body_timeout", secs(30), millis(100)..=secs(3600)),
        record_max: reader.size("record_max", 1 << 20, 1..=GIB),
        decoded_max: reader.size("decoded_max", body_max.saturating_mul(4), 1..=4 * GIB),
    };
    if let Some(mode) = mode {
        useless(reader, mode);
        success(reader, mode);
    }
    bounds(reader, shared, place, &guard);
    methods(reader, place);
    reader.finish();
    guard
}

fn mode(reader: &Reader<'_>) -> Option<Mode> {
    if reader.value("mode").is_none() {
        let mend = "write \"once\" for what places orders, \"signal\" for thin notifications, \"serial\" for return pages";
        reader.report().error(
            &reader.at,
            "the guard has no `mode`",
            "it is not known what it promises",
            mend,
        );
    }
    reader.choice("mode", &[("once", Mode::Once), ("signal", Mode::Signal), ("serial", Mode::Serial)])
}

fn rules(reader: &Reader<'_>, shared: &Shared<'_>, place: &Place<'_>, mode: Option<Mode>) -> Rules {
    let params = place.matched.params.as_deref();
    if reader.value("order").is_none() {
        let follows = "it is not known which requests are about the same order";
        let mend = "write where it stands, for example order = [\"form:order_id\", \"json:/order_id\"]";
        reader.report().missing(&reader.at, "the guard has no `order`", follows, mend);
    }
    let order = keys::alternatives(reader, "order", params);
    if order.is_empty()
        && reader.value("order").is_some_and(|value| matches!(&value.kind, Kind::Array(a) if a.is_empty()))
    {
        let follows = "no request would ever be guarded";
        reader.report().error(
            &reader.at_value("order"),
            "`order` is empty",
            follows,
            "name at least one source",
        );
    }
    let event = keys::alternatives(reader, "event", params);
    let on_mismatch =
        reader.choice("on_mismatch", &[("refuse", OnMismatch::Refuse), ("lead", OnMismatch::Lead)]);
    if reader.value("on_mismatch").is_some() && event.is_empty() && mode != Some(Mode::Serial) {
        let follows = "without an event id there is nothing that a body could disagree with";
        let mend = "name the id in `event`, or take it out";
        reader.report().error(&reader.at_key("on_mismatch"), "`on_mismatch` without `event`", follows, mend);
    }
    let scope = reader
        .choice("replay_scope", &[("request", Scope::Request), ("order", Scope::Order)])
        .unwrap_or(Scope::Request);
    Rules {
        route: place.route.to_owned(),
        upstream: place
            .upstream
            .and_then(|index| shared.upstreams.get(index))
            .map_or_else(String::new, |upstream| upstream.name.clone()),
        order,
        event,
        identity: identity(reader, params, mode, scope),
        ignore: keys::ignore(reader),
        sharing: if mode == Some(Mode::Serial) { Sharing::Nothing } else { Sharing::Same },
        scope,
        on_mismatch: on_mismatch.unwrap_or(OnMismatch::Refuse),
        order_hash: shared.log.order == Order::Hash,
    }
}

fn identity(reader: &Reader<'_>, params: Option<&[String]>, mode: Option<Mode>, scope: Scope) -> Identity {
    let declared = keys::identity(reader, params);
    let report = reader.report();
    match (&declared, mode) {
        (None, Some(mode @ (Mode::Once | Mode::Signal))) => {
            let what = format!("the guard has mode \"{}\" and no `identity`", mode.name());
            let follows = "the answer to one customer could be given to another";
            let mend = "name the session, for example identity = [\"cookie:PHPSESSID\", \"header:authorization\"], or write identity = \"none\" if the sender has none, as with callbacks";
            report.error(&reader.at, what, follows, mend);
        }
        (Some(declared), Some(Mode::Serial)) if !declared.is_none => {
            let what = "`identity` has no effect in mode \"serial\"";
            let follows = "no answer is shared, so nobody has to be told apart";
            report.warning(&reader.at_key("identity"), what, follows, "take it out");
        }
        (Some(declared), _) if declared.is_none && scope == Scope::Order => {
            let what = "identity = \"none\" together with replay_scope = \"order\"";
            let follows = "whoever names an order gets its answer, without cookies";
            let mend = "name an identity, or leave `replay_scope` at \"request\"";
            report.warning(&reader.at_value("replay_scope"), what, follows, mend);
        }
        _ => {}
    }
    declared.map_or(Identity::None, |declared| declared.identity)
}

fn on_store_down(reader: &Reader<'_>, store: &Store) -> OnStoreDown {
    let choice = reader.choice("on_store_down", &ON_STORE_DOWN);
    if choice.is_some() && !matches!(store.kind, StoreKind::Redis(_)) {
        let what = "`on_store_down` has no effect: the store is in this process and goes down with it";
        let mend = "take it out, or share a store: kind = \"redis\"";
        reader.report().error(&reader.at_key("on_store_down"), what, "nothing would read it", mend);
    }
    choice.unwrap_or(store.on_store_down)
}

fn in_doubt(reader: &Reader<'_>, mode: Option<Mode>, wait_max: Duration) -> InDoubtPolicy {
    #[derive(Clone, Copy, PartialEq)]
    enum Choice {
        Hold,
        Retry,
    }
    let hold_for = reader.duration("hold_for", secs(600), secs(1)..=DAY * 90);
    let default = if mode == Some(Mode::Once) { Choice::Hold } else { Choice::Retry };
    let choice =
        reader.choice("on_in_doubt", &[("hold", Choice::Hold), ("retry", Choice::Retry)]).unwrap_or(default);
    let report = reader.report();
    if choice == Choice::Retry {
        // Without a mode nobody knows the default, and the missing mode has been told.
        if reader.value("hold_for").is_some() && mode.is_some() {
            let what = "`hold_for` has no effect: this guard does not hold what is in doubt";
            let mend = "write on_in_doubt = \"hold\", or take it out";
            report.error(&reader.at_key("hold_for"), what, "the next duplicate is sent at once", mend);
        }
        return InDoubtPolicy::Retry;
    }
    if hold_for < wait_max {
        let what = format!(
            "`hold_for` ({}) is shorter than `wait_max` ({})",
            show_duration(hold_for),
            show_duration(wait_max)
        );
        let follows = "a client that is still waiting can be sent as a second order when the hold ends";
        let mend = "make `hold_for` longer than senders go on retrying";
        report.warning(&reader.at_value("hold_for"), what, follows, mend);
    }
    InDoubtPolicy::Hold(hold_for)
}

fn useless(reader: &Reader<'_>, mode: Mode) {
    for (_, keys, why) in USELESS.iter().filter(|(of, _, _)| *of == mode) {
        for key in *keys {
            if reader.entries().iter().any(|entry| entry.key == *key) {
                let what = format!("`{key}` has no effect in mode \"{}\"", mode.name());
                reader.report().error(
                    &reader.at_key(key),
                    what,
                    *why,
                    "take it out, or choose mode \"once\"",
                );
            }
        }
    }
}

/// What the settings of a guard mean for each other and for the rest of the file.
fn bounds(reader: &Reader<'_>, shared: &Shared<'_>, place: &Place<'_>, guard: &Guard) {
    let report = reader.report();
    let answer_timeout =
        place.upstream.and_then(|index| shared.upstreams.get(index)).map(|u| u.answer_timeout);
    if let Some(answer_timeout) = answer_timeout
        && guard.wait_max > answer_timeout
    {
        let what = format!(
            "`wait_max` ({}) is longer than the upstream's `answer_timeout` ({})",
            show_duration(guard.wait_max),
            show_duration(answer_timeout)
        );
        let follows = "clients go on waiting for an answer that is no longer listened for";
        report.warning(&reader.at_value("wait_max"), what, follows, "shorten `wait_max`, or listen longer");
    }
    if guard.body_max > shared.limits.buffers_max {
        let what = format!(
            "`body_max` ({}) is larger than limits.buffers_max ({})",
            show_size(guard.body_max),
            show_size(shared.limits.buffers_max)
        );
        let follows = "such a body could never be read";
        report.error(&reader.at_value("body_max"), what, follows, "lower it, or raise `buffers_max`");
    }
    if guard.decoded_max < guard.body_max {
        let what = format!("`decoded_max` is smaller than `body_max` ({})", show_size(guard.body_max));
        let follows = "a body that is not compressed at all would be too large";
        report.error(&reader.at_value("decoded_max"), what, follows, "make it at least as large");
    }
    if guard.mode == Mode::Once && guard.record_max > shared.store.records_bytes_max {
        let what = format!(
            "`record_max` ({}) is larger than store.records_bytes_max ({})",
            show_size(guard.record_max),
            show_size(shared.store.records_bytes_max)
        );
        let follows = "such a record would be dropped as soon as it is kept";
        report.error(&reader.at_value("record_max"), what, follows, "lower it, or raise `records_bytes_max`");
    }
    if guard.mode == Mode::Once && guard.replay_unseen_for < guard.replay_for {
        let what = "`replay_unseen_for` is shorter than `replay_for`";
        let follows = "a sender that never got its answer loses it sooner than one that did";
        report.warning(&reader.at_value("replay_unseen_for"), what, follows, "make it at least as long");
    }
}

/// Page views are safe to repeat, and slow when they queue behind each other.
fn methods(reader: &Reader<'_>, place: &Place<'_>) {
    let methods = &place.matched.spec.methods;
    let safe = ["GET", "HEAD", "OPTIONS"];
    let follows =
        "page views of an order queue behind each other, and a page may be shown as it was hours ago";
    if methods.is_empty() {
        let mend = "write methods = [\"POST\"] in [route.match]";
        reader.report().warning(&place.matched.at, "a guarded route without `methods`", follows, mend);
    } else if reader.entries().iter().any(|entry| {
        entry.key == "mode" && !matches!(&entry.value.kind, Kind::Text(mode) if mode == "serial")
    }) && let Some(method) =
        methods.iter().find(|method| safe.iter().any(|s| s.eq_ignore_ascii_case(method)))
    {
        let what = format!("a guarded route takes {} requests", method.to_ascii_uppercase());
        let mend = "take it out, or choose mode \"serial\" for a return page";
        reader.report().warning(&place.matched.at, what, follows, mend);
    }
}

/// Whether it is said what success is, where an answer is kept.
fn success(reader: &Reader<'_>, mode: Mode) {
    if mode == Mode::Once && reader.value("done_when").is_none() {
        let follows = "every 2xx and 3xx answer is kept as done; most shops answer a declined card with 200, and whoever tries again would be told \"declined\" until `replay_for` is over";
        let mend = "say what success looks like, for example done_when = { json = { \"/result\" = \"success\" } } or done_when = { status = [303] }";
        reader.report().warning(&reader.at, "mode \"once\" without `done_when`", follows, mend);
    }
}

/// `done_when` and what is said beside it by `pending_when`.
fn judging(reader: &Reader<'_>) -> Option<DoneWhen> {
    let done = specs(reader, "done_when");
    let pending = specs(reader, "pending_when");
    if pending.is_some() && reader.value("done_when").is_none() {
        let follows = "every 2xx and 3xx counts as done then, and what is done is never pending";
        let mend =
            "say what done is, for example done_when = { header = { location = \"~/order-received/\" } }";
        reader.report().error(
            &reader.at_key("pending_when"),
            "`pending_when` without `done_when`",
            follows,
            mend,
        );
    }
    let done = DoneWhen::new(&done?).ok()?;
    match pending {
        Some(pending) => done.or_pending(&pending).ok(),
        None => Some(done),
    }
}

fn pending_for(reader: &Reader<'_>, replay_for: Duration) -> Duration {
    let report = reader.report();
    let pending_for = reader.duration("pending_for", secs(5).min(replay_for), millis(100)..=secs(600));
    if reader.value("pending_for").is_some() && reader.value("pending_when").is_none() {
        let follows = "without `pending_when` no answer is pending";
        report.error(&reader.at_key("pending_for"), "`pending_for` has no effect", follows, "take it out");
    }
    if pending_for > replay_for {
        let what = "`pending_for` is longer than `replay_for`";
        let follows = "what is not finished would be repeated for longer than what is";
        report.warning(&reader.at_value("pending_for"), what, follows, "write seconds");
    }
    pending_for
}

/// A condition on answers: one table, or a list of which any may hold. `None` where it is not there or not sound.
fn specs(reader: &Reader<'_>, key: &'static str) -> Option<Vec<DoneSpec>> {
    reader.value(key)?;
    let mut specs = Vec::new();
    let mut sound = true;
    for table in reader.tables(key) {
        let (spec, complete) = done_spec(&table, key);
        table.finish();
        // Each is built alone first, so that a problem is known to be in this one.
        if let Err(problems) = DoneWhen::new(std::slice::from_ref(&spec)) {
            sound = false;
            // What is left of a table of which a part could not be read may be nothing, and that is no problem of its own.
            for problem in problems.into_iter().filter(|problem| complete || !problem.field.is_empty()) {
                let what = format!("`{key}`: `{}`: {}", problem.field, one_line(&problem.message));
                let mend = "mend it; single quotes keep backslashes as they are";
                let follows = "no answer could be judged by it";
                reader.report().error(&locate(&table, &problem.field), what, follows, mend);
            }
        }
        sound &= complete;
        specs.push(spec);
    }
    (sound && !specs.is_empty()).then_some(specs)
}

fn done_spec(table: &Reader<'_>, key: &str) -> (DoneSpec, bool) {
    let mut spec = DoneSpec { body: table.text("body").map(|text| text.value), ..DoneSpec::default() };
    let mut complete = true;
    let status = table.value("status");
    let items = match status.map(|value| &value.kind) {
        Some(Kind::Array(items)) => items.as_slice(),
        Some(_) => status.map_or(&[][..], std::slice::from_ref),
        None => &[],
    };
    for item in items {
        match &item.kind {
            Kind::Integer(code) if (100..=599).contains(code) => spec.status.push(code.to_string()),
            Kind::Text(range) => spec.status.push(range.clone()),
            other => {
                let what = format!("`status` holds {}", shown(item, other));
                table.report().error(&item.at, what, "", "write codes like 200, or \"2xx\"");
                complete = false;
            }
        }
    }
    for (key, list) in [("json", &mut spec.json), ("header", &mut spec.header)] {
        let Some(inner) = table.table(key) else { continue };
        for entry in inner.entries() {
            match &entry.value.kind {
                Kind::Text(text) => list.push((entry.key.clone(), text.clone())),
                other => {
                    let what = format!("`{}` is {}", entry.key, other.name());
                    let mend = "write a text: \"*\", the exact value, or \"~\" and an expression";
                    table.report().error(&entry.value.at, what, "", mend);
                    complete = false;
                }
            }
        }
    }
    if table.entries().is_empty() {
        let at: At = table.at.clone();
        let mend = format!("write for example {key} = {{ status = [200] }}");
        let follows = format!("any answer would count as {}", key.trim_end_matches("_when"));
        table.report().error(&at, format!("`{key}` has no condition"), follows, mend);
        complete = false;
    }
    (spec, complete)
}

fn shown(item: &Value, kind: &Kind) -> String {
    match &item.kind {
        Kind::Integer(number) => number.to_string(),
        _ => kind.name().to_owned(),
    }
}
