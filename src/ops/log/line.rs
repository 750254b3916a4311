//! How a line is written, in JSON or as text.
//!
//! Whatever came from outside is escaped so that it can neither end the line, nor colour a terminal, nor turn the
//! direction of the text around it; and it is cut, so that no line grows with a request.

use std::{
    fmt::{Display, Write as _},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{Format, Level};
use crate::ops::words::{Fault, Phase, Reason, Verdict};

/// How much of one value a line shows.
const VALUE_CHARS_MAX: usize = 256;

/// What is said of a guarded exchange. Empty texts are absent values.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub time: SystemTime,
    pub request_id: &'a str,
    pub route: &'a str,
    pub verdict: Verdict,
    pub reason: Reason,
    pub fault: Option<Fault>,
    pub phase: Phase,
    /// In clear or hashed, as `log.order` says; the caller knows.
    pub order: &'a str,
    /// The first 8 hex digits.
    pub fingerprint: &'a str,
    pub fence: Option<u64>,
    pub replica: &'a str,
    pub status: u16,
    pub upstream: &'a str,
    pub server: &'a str,
    /// Bytes of the body that was given to the client.
    pub bytes: u64,
    pub read: Duration,
    pub queue: Duration,
    pub claim: Duration,
    pub upstream_time: Duration,
    pub total: Duration,
    pub client: Option<IpAddr>,
}

impl Line<'_> {
    pub(super) fn format(&self, format: Format) -> String {
        let mut out = Fields::new(format, self.time);
        out.text("request_id", self.request_id);
        out.text("route", self.route);
        out.text("verdict", self.verdict.as_str());
        out.text("reason", self.reason.as_str());
        out.text("fault", self.fault.map_or("", Fault::as_str));
        out.text("phase", self.phase.as_str());
        out.text("order", self.order);
        out.text("fingerprint", self.fingerprint);
        match self.fence {
            Some(fence) => out.number("fence", fence),
            None => out.text("fence", ""),
        }
        out.text("replica", self.replica);
        out.number("status", self.status);
        out.text("upstream", self.upstream);
        out.text("server", self.server);
        out.number("bytes", self.bytes);
        out.number("ms_read", self.read.as_millis());
        out.number("ms_queue", self.queue.as_millis());
        out.number("ms_claim", self.claim.as_millis());
        out.number("ms_upstream", self.upstream_time.as_millis());
        out.number("ms_total", self.total.as_millis());
        match self.client {
            Some(client) => out.text("client", &client.to_string()),
            None => out.text("client", ""),
        }
        out.end()
    }
}

pub(super) fn event(
    format: Format,
    time: SystemTime,
    level: Level,
    what: &str,
    fields: &[(&str, &str)],
    numbers: &[(&str, u64)],
) -> String {
    let mut out = Fields::new(format, time);
    out.text("level", level.as_str());
    out.text("event", what);
    for (name, value) in fields {
        out.text(name, value);
    }
    for (name, value) in numbers {
        out.number(name, value);
    }
    out.end()
}

/// Appends a JSON string with its quotes. Besides what JSON asks for, everything is escaped that a terminal or an
/// editor would act on.
pub fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        json_character(out, character);
    }
    out.push('"');
}

struct Fields {
    format: Format,
    out: String,
}

impl Fields {
    fn new(format: Format, time: SystemTime) -> Self {
        let mut out = String::with_capacity(512);
        // A clock before 1970 or after 9999 cannot be written; such a line shows the epoch.
        let mut written = String::with_capacity(24);
        let after = time.max(SystemTime::UNIX_EPOCH);
        if write!(written, "{}", humantime::format_rfc3339_millis(after)).is_err() {
            "1970-01-01T00:00:00.000Z".clone_into(&mut written);
        }
        match format {
            Format::Json => {
                out.push_str("{\"time\":\"");
                out.push_str(&written);
                out.push('"');
            }
            Format::Text => out.push_str(&written),
        }
        Self { format, out }
    }

    fn text(&mut self, name: &str, value: &str) {
        match self.format {
            Format::Json => {
                self.name(name);
                if value.is_empty() {
                    self.out.push_str("null");
                    return;
                }
                self.out.push('"');
                value
                    .chars()
                    .take(VALUE_CHARS_MAX)
                    .for_each(|character| json_character(&mut self.out, character));
                self.out.push('"');
            }
            Format::Text if value.is_empty() => {}
            Format::Text => {
                self.name(name);
                let quoted = value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\\'));
                let quote = if quoted { "\"" } else { "" };
                self.out.push_str(quote);
                value
                    .chars()
                    .take(VALUE_CHARS_MAX)
                    .for_each(|character| json_character(&mut self.out, character));
                self.out.push_str(quote);
            }
        }
    }

    fn number(&mut self, name: &str, value: impl Display) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
    }

    /// Names are ours, never a request's.
    fn name(&mut self, name: &str) {
        match self.format {
            Format::Json => {
                self.out.push_str(",\"");
                self.out.push_str(name);
                self.out.push_str("\":");
            }
            Format::Text => {
                self.out.push(' ');
                self.out.push_str(name);
                self.out.push('=');
            }
        }
    }

    fn end(mut self) -> String {
        self.out.push_str(match self.format {
            Format::Json => "}\n",
            Format::Text => "\n",
        });
        self.out
    }
}

fn json_character(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other if is_treacherous(other) => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        other => out.push(other),
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, what has no width, what turns the direction of
/// text, and tag characters.
pub(crate) const fn is_treacherous(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(order: &str) -> Line<'_> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_222_032_417),
            request_id: "0190-ab",
            route: "guest-checkout",
            verdict: Verdict::Follow,
            reason: Reason::Done,
            fault: None,
            phase: Phase::Reply,
            order,
            fingerprint: "9f86d081",
            fence: Some(17),
            replica: "gate-1",
            status: 200,
            upstream: "shop",
            server: "10.0.0.10:8080",
            bytes: 127,
            read: Duration::from_micros(900),
            queue: Duration::ZERO,
            claim: Duration::from_millis(1),
            upstream_time: Duration::from_millis(312),
            total: Duration::from_millis(314),
            client: Some(IpAddr::from([192, 0, 2, 7])),
        }
    }

    #[test]
    fn a_json_line_is_golden() {
        assert_eq!(
            line("1001").format(Format::Json),
            "{\"time\":\"2026-11-21T00:47:12.417Z\",\"request_id\":\"0190-ab\",\"route\":\"guest-checkout\",\
             \"verdict\":\"follow\",\"reason\":\"done\",\"fault\":null,\"phase\":\"reply\",\"order\":\"1001\",\
             \"fingerprint\":\"9f86d081\",\"fence\":17,\"replica\":\"gate-1\",\"status\":200,\"upstream\":\"shop\",\
             \"server\":\"10.0.0.10:8080\",\"bytes\":127,\"ms_read\":0,\"ms_queue\":0,\"ms_claim\":1,\
             \"ms_upstream\":312,\"ms_total\":314,\"client\":\"192.0.2.7\"}\n"
        );
    }

    #[test]
    fn a_text_line_is_golden() {
        assert_eq!(
            line("a b").format(Format::Text),
            "2026-11-21T00:47:12.417Z request_id=0190-ab route=guest-checkout verdict=follow reason=done phase=reply \
             order=\"a b\" fingerprint=9f86d081 fence=17 replica=gate-1 status=200 upstream=shop \
             server=10.0.0.10:8080 bytes=127 ms_read=0 ms_queue=0 ms_claim=1 ms_upstream=312 ms_total=314 \
             client=192.0.2.7\n"
        );
    }

    #[test]
    fn an_order_cannot_forge_a_line_or_turn_it_around() {
        let hostile = "1\"}\n{\"event\":\"x\r\u{1b}[31m\u{202e}\u{85}\u{2028}\u{e0041}\0é";
        for format in [Format::Json, Format::Text] {
            let written = line(hostile).format(format);
            assert_eq!(written.lines().count(), 1);
            let treacherous = written.trim_end_matches('\n').chars().any(is_treacherous);
            assert!(!treacherous, "{written:?}");
        }
        let parsed: serde_json::Value = serde_json::from_str(&line(hostile).format(Format::Json)).unwrap();
        assert_eq!(parsed["order"], hostile);
    }

    #[test]
    fn a_value_is_cut() {
        let long = "é".repeat(100_000);
        assert!(line(&long).format(Format::Json).len() < 2_000);
    }

    #[test]
    fn an_event_is_one_json_object() {
        let fields = [("upstream", "shop"), ("error", "connect: refused\n")];
        let numbers = [("tries", 3)];
        let written =
            event(Format::Json, SystemTime::UNIX_EPOCH, Level::Warn, "server-down", &fields, &numbers);
        assert_eq!(
            written,
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"warn\",\"event\":\"server-down\",\
             \"upstream\":\"shop\",\"error\":\"connect: refused\\n\",\"tries\":3}\n"
        );
    }

    #[test]
    fn a_clock_that_is_out_of_its_mind_stops_no_line() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000);
        for time in [before, after] {
            assert!(
                event(Format::Text, time, Level::Info, "x", &[], &[])
                    .starts_with("1970-01-01T00:00:00.000Z ")
            );
        }
    }
}
