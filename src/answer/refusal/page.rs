//! The two forms of a refusal: a problem document (RFC 9457) and a page that a screen reader can read.
//!
//! The page has no script, no style of others, no form and no reload: nothing in it can send anything.

use std::fmt::Write as _;

use http::HeaderValue;

use super::{Refusal, Text, text::MAY_BE_DONE};
use crate::ops::log::{is_treacherous, json_string};

pub(super) fn problem(refusal: &Refusal, text: &Text, request_id: &str) -> String {
    let mut out = String::with_capacity(512);
    out.push_str("{\"type\":\"urn:oncegate:refusal:");
    out.push_str(refusal.name());
    out.push_str("\",\"title\":");
    json_string(&mut out, text.title);
    // Writing to a String cannot fail.
    let _ = write!(out, ",\"status\":{},\"detail\":", refusal.status().as_u16());
    json_string(&mut out, &text.detail);
    out.push_str(",\"retry\":\"");
    out.push_str(text.retry.as_str());
    out.push('"');
    if let Some(seconds) = refusal.retry_seconds() {
        let _ = write!(out, ",\"retry_after\":{seconds}");
    }
    out.push_str(",\"request_id\":");
    json_string(&mut out, request_id);
    out.push('}');
    out
}

pub(super) fn html(refusal: &Refusal, text: &Text, request_id: &str) -> String {
    let mut out = String::with_capacity(1_024);
    out.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>",
    );
    escape(&mut out, text.title);
    out.push_str(
        "</title>\n<style>body{font:1.125rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;\
         padding:0 1rem;color:#1a1a1a;background:#fff}small{color:#595959}</style>\n</head>\n<body>\n<main>\n<h1>",
    );
    escape(&mut out, text.title);
    out.push_str("</h1>\n<p><strong>");
    escape(&mut out, text.shopper);
    out.push_str("</strong></p>\n");
    if let Some(seconds) = refusal.retry_seconds() {
        let _ = writeln!(out, "<p>Come back in {}.</p>", spoken(seconds));
    }
    if let Some(next) = next(refusal) {
        out.push_str("<p><a href=\"");
        escape(&mut out, next);
        out.push_str("\">Continue to the page that the shop named</a></p>\n");
    }
    out.push_str("<p>");
    // What the shopper was told above is not told again.
    escape(&mut out, text.detail.strip_prefix(MAY_BE_DONE).unwrap_or(&text.detail).trim_start());
    out.push_str("</p>\n<p><small>");
    escape(&mut out, refusal.name());
    out.push_str(" · ");
    escape(&mut out, request_id);
    out.push_str("</small></p>\n</main>\n</body>\n</html>\n");
    out
}

/// A wait as a person says it; never shorter than it is.
fn spoken(seconds: u64) -> String {
    match seconds {
        1 => "1 second".to_owned(),
        0..120 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// Where the shop had sent the client, if following it can only open a page: `http`, `https`, or a path of this host.
/// A browser takes `//host` and `/\host` for another host.
fn next(refusal: &Refusal) -> Option<&str> {
    let Refusal::AnswerTooLarge { next, .. } = refusal else { return None };
    let next = next.as_ref().map(HeaderValue::to_str)?.ok()?;
    let local = next.starts_with('/') && !next.starts_with("//") && !next.starts_with("/\\");
    (local || next.starts_with("https://") || next.starts_with("http://")).then_some(next)
}

/// For text and for quoted attributes alike; what would turn or hide text becomes a space.
pub(super) fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other if is_treacherous(other) => out.push(' '),
            other => out.push(other),
        }
    }
}
