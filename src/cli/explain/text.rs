//! A report for a terminal. No letter of a request reaches it that could move a cursor.

use std::fmt::Write;

use super::report::{Report, Taken};
use crate::{
    ops::log::is_treacherous,
    request::{
        Explanation,
        explain::{Outcome, Role, Tried},
    },
};

/// Lines of a canonical body that are shown; `--json` has all.
const LINES_MAX: usize = 200;

/// One fact a line: what it is, and what was found.
pub(super) fn text(report: &Report) -> String {
    let mut out = Page::default();
    out.line("request", &format!("{} {} ({})", report.method, report.path.primary, report.host));
    for spelling in &report.path.spellings {
        out.line("", &format!("other servers may read the path as {spelling}"));
    }
    for alias in &report.path.aliases {
        out.line("", &format!("a shop may hold it to be {alias}"));
    }
    if let Some(doubt) = &report.path.doubt {
        out.line("", &format!("not safe to read: {doubt}"));
    }
    match &report.route {
        Some(taken) => out.line("route", &route(taken)),
        None => out.line("route", "none"),
    }
    for passed in &report.passed {
        out.line("", &format!("not {}: {}", passed.route, passed.because));
    }
    for (name, value) in report.route.iter().flat_map(|taken| &taken.captured) {
        out.line("", &format!("path:{name} = {value}"));
    }
    if let Some(signature) = &report.signature {
        let verified = if signature.verified { "verified" } else { "not verified" };
        out.line("signature", &format!("{verified} ({}): {}", signature.scheme, signature.why));
    }
    if let Some(reading) = &report.reading {
        read(&mut out, reading);
    }
    let told = &report.verdict;
    let verdict = match (told.refusal, told.status) {
        (Some(name), Some(status)) => format!("{} {status} {name}: {}", told.verdict, told.because),
        _ => format!("{}: {}", told.verdict, told.because),
    };
    out.line("verdict", &verdict);
    if let Some(answer) = &report.answer {
        out.line("answer", &format!("{}: {}", answer.judged, answer.because));
        out.line("", &answer.kept);
    }
    for note in &report.notes {
        out.line("note", note);
    }
    out.text
}

fn route(taken: &Taken) -> String {
    let Taken { name, upstream, mode, enforce, .. } = taken;
    let guard = match (mode, enforce) {
        (None, _) => "no guard".to_owned(),
        (Some(mode), true) => format!("mode {mode}"),
        (Some(mode), false) => format!("mode {mode}, observes only"),
    };
    format!("{name} -> {upstream} ({guard})")
}

fn read(out: &mut Page, reading: &Explanation) {
    let width = reading.tried.iter().map(|tried| tried.source.chars().count()).max().unwrap_or(0);
    let mut before = None;
    for Tried { role, source, outcome } in &reading.tried {
        let label = match role {
            _ if before == Some(*role) => "",
            Role::Order => "order",
            Role::Event => "event",
            Role::Identity => "identity",
        };
        before = Some(*role);
        let outcome = match outcome {
            Outcome::Found(values) => values.join(", "),
            Outcome::Absent(why) => format!("- ({why})"),
            Outcome::Ambiguous(why) => format!("ambiguous: {why}"),
            Outcome::Unreadable(why) => format!("unreadable: {why}"),
        };
        out.line(label, &format!("{source:width$}  {outcome}"));
    }
    if let Some(order) = &reading.order {
        out.line("lane", &format!("{} (order {order})", reading.lanes.join(" ")));
    }
    match (&reading.fingerprint, reading.by_event) {
        // Why nothing was read stands in the verdict.
        _ if reading.problem.is_some() => {}
        (Some(fingerprint), true) => out.line("fingerprint", &format!("{fingerprint} (by the event id)")),
        (Some(fingerprint), false) => out.line("fingerprint", fingerprint),
        (None, _) => out.line("fingerprint", "none: shares with nobody"),
    }
    if let Some(scope) = &reading.scope {
        out.line("", &format!("records of the order: {scope}"));
    }
    if let Some(body) = &reading.body {
        out.line("", &format!("the event id's body: {body}"));
    }
    if !reading.canonical_query.is_empty() {
        out.block("query", "", &reading.canonical_query);
    }
    out.block("body", &format!("{}, read as", reading.declared), &reading.canonical_body);
    if !reading.ignored.is_empty() {
        out.line("ignored", &reading.ignored.join(", "));
    }
    for note in &reading.notes {
        out.line("note", note);
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{}", format!("{label:11}  {}", clean(text)).trim_end());
    }

    /// Several lines below one label.
    fn block(&mut self, label: &str, first: &str, lines: &str) {
        let mut label = label;
        if !first.is_empty() {
            let nothing = lines.is_empty();
            self.line(label, if nothing { first.trim_end_matches(", read as") } else { first });
            label = "";
        }
        for line in lines.lines().take(LINES_MAX) {
            self.line(label, &format!("  {line}"));
            label = "";
        }
        let more = lines.lines().count().saturating_sub(LINES_MAX);
        if more > 0 {
            self.line("", &format!("  and {more} lines more"));
        }
    }
}

/// A text in which nothing moves a cursor or turns the direction of reading.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_treacherous(char) {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_report_moves_a_cursor() {
        assert_eq!(clean("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
    }
}
