//! From a typed alternative of `done_when` or `pending_when` to one that can be asked, with all its problems.

use std::ops::RangeInclusive;

use http::HeaderName;
use regex::bytes::{Regex, RegexBuilder};

use super::{Alternative, Condition, DoneSpec, Pattern, json};

/// The bound on a compiled pattern, and on what its lazy automaton may cache, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn compile(spec: &DoneSpec, problem: &mut dyn FnMut(&str, String)) -> Alternative {
    if spec.status.is_empty() && spec.body.is_none() && spec.json.is_empty() && spec.header.is_empty() {
        problem(
            "",
            "names no condition, so every 2xx and 3xx would be done; leave it out to say that".to_owned(),
        );
    }
    let mut status = Vec::new();
    for written in &spec.status {
        match statuses(written) {
            Some(range) => status.push(range),
            None => problem(
                "status",
                format!("{written:?} is no status; write one (200), a class (2xx) or a range (200-299)"),
            ),
        }
    }
    let mut conditions = Vec::new();
    if let Some(written) = &spec.body {
        let (is_not, expression) = match written.strip_prefix('!') {
            Some(expression) => (true, expression),
            None => (false, written.as_str()),
        };
        match regex(expression).map(Pattern::Regex) {
            Ok(pattern) if is_not => conditions.push(Condition::Body(Pattern::Not(Box::new(pattern)))),
            Ok(pattern) => conditions.push(Condition::Body(pattern)),
            Err(error) => problem("body", not_a_pattern(written, &error)),
        }
    }
    for (written, wanted) in &spec.json {
        let pointer = json::Pointer::parse(written);
        if pointer.is_none() {
            problem(
                "json",
                format!("{written:?} is no JSON pointer; write one like /result or /data/0/id (RFC 6901)"),
            );
        }
        match (pointer, pattern(wanted)) {
            (Some(pointer), Ok(pattern)) => conditions.push(Condition::Json { pointer, pattern }),
            (_, Err(error)) => problem("json", format!("{written}: {}", not_a_pattern(wanted, &error))),
            (None, Ok(_)) => {}
        }
    }
    for (written, wanted) in &spec.header {
        let name = HeaderName::from_bytes(written.as_bytes());
        if name.is_err() {
            problem("header", format!("{written:?} is no name of a header field"));
        }
        match (name, pattern(wanted)) {
            (Ok(name), Ok(pattern)) => conditions.push(Condition::Header { name, pattern }),
            (_, Err(error)) => problem("header", format!("{written}: {}", not_a_pattern(wanted, &error))),
            (Err(_), Ok(_)) => {}
        }
    }
    Alternative { status, conditions }
}

fn statuses(written: &str) -> Option<RangeInclusive<u16>> {
    let code = |text: &str| -> Option<u16> {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let code: u16 = if digits { text.parse().ok()? } else { return None };
        (100..=599).contains(&code).then_some(code)
    };
    if let Some(class) = written.strip_suffix("xx").or_else(|| written.strip_suffix("XX")) {
        let first = code(&format!("{class}00"))?;
        return Some(first..=first + 99);
    }
    match written.split_once('-') {
        None => code(written).map(|code| code..=code),
        Some((first, last)) => {
            let (first, last) = (code(first.trim())?, code(last.trim())?);
            (first <= last).then_some(first..=last)
        }
    }
}

fn pattern(written: &str) -> Result<Pattern, regex::Error> {
    if written == "*" {
        return Ok(Pattern::Present);
    }
    if let Some(unwanted) = written.strip_prefix('!') {
        return pattern(unwanted).map(|pattern| Pattern::Not(Box::new(pattern)));
    }
    match written.strip_prefix('~') {
        None => Ok(Pattern::Text(written.to_owned())),
        Some(expression) => regex(expression).map(Pattern::Regex),
    }
}

/// Answers are bytes of whatever charset, so a pattern is about bytes first; only one that needs Unicode (a class
/// with a letter beyond ASCII) is compiled with it. The first error is the one to show.
fn regex(written: &str) -> Result<Regex, regex::Error> {
    let build = |unicode| {
        let mut builder = RegexBuilder::new(written);
        builder.unicode(unicode).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
    };
    build(false).or_else(|error| build(true).map_err(|_| error))
}

fn not_a_pattern(written: &str, error: &regex::Error) -> String {
    if matches!(error, regex::Error::CompiledTooBig(_)) {
        return format!(
            "the regular expression {written:?} is too large when compiled (over {REGEX_BYTES_MAX} bytes)"
        );
    }
    format!("not a regular expression: {error}")
}
