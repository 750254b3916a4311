//! Whether the shop did the work: an answer is judged by what the route's `done_when` says.
//!
//! Pure: no I/O, no clock. A status is not trusted on its own word: WooCommerce answers a declined card with
//! 200 and `{"result":"failure"}`. It never decides what follows from the judgement.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName, StatusCode};
use regex::bytes::{Regex, RegexBuilder};

use crate::store::Judged;

mod coding;
mod json;

/// The bound on a compiled pattern, and on what its lazy automaton may cache, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// The bound on an excerpt of a body in an explanation, in characters.
const EXCERPT_CHARS_MAX: usize = 80;

/// One alternative of `done_when` as it was typed. All of its conditions must hold. Patterns are exact text,
/// `~regex`, or `*` for present.
#[derive(Clone, Debug, Default)]
pub struct DoneSpec {
    /// `200`, `2xx`, `200-299`. Empty: 2xx and 3xx except 304.
    pub status: Vec<String>,
    /// A regular expression that is searched for in the bytes of the body.
    pub body: Option<String>,
    /// JSON pointers (RFC 6901) and patterns. Numbers are compared by their text, strings by their content, objects
    /// and arrays by their raw text; `null` counts as absent.
    pub json: Vec<(String, String)>,
    /// Field names and patterns; one line of the name has to match.
    pub header: Vec<(String, String)>,
}

/// What is wrong with a [`DoneSpec`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// `status`, `body`, `json` or `header`, or empty for the whole; with `[1].` before it in the second of several
    /// alternatives, and so on.
    pub field: String,
    pub message: String,
}

/// A compiled `done_when`: done as soon as one alternative holds. The default is decision D29: 2xx and 3xx except
/// 304, since a 304 answers a condition of the request and says nothing about work done.
#[derive(Clone, Debug)]
pub struct DoneWhen {
    alternatives: Vec<Alternative>,
}

/// A judgement with its reason. The reason may quote the body, so it is for a terminal and never for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    pub judged: Judged,
    pub why: String,
}

/// What was seen of an answer's body, as it came.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    Whole(&'a [u8]),
    /// It is too large to be looked at.
    Begun,
}

/// How much larger than it came a body may be once its content coding is undone.
const UNFOLDED_TIMES_MAX: usize = 4;

#[derive(Clone, Debug)]
struct Alternative {
    /// Empty: the default.
    status: Vec<RangeInclusive<u16>>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
enum Condition {
    Body(Regex),
    Json { pointer: json::Pointer, pattern: Pattern },
    Header { name: HeaderName, pattern: Pattern },
}

#[derive(Clone, Debug)]
enum Pattern {
    Present,
    Text(String),
    Regex(Regex),
}

/// An answer's body; its JSON is looked for once, when the first condition asks for it.
struct Body<'a> {
    bytes: &'a [u8],
    root: std::cell::OnceCell<Option<json::Raw<'a>>>,
}

impl Default for DoneWhen {
    fn default() -> Self {
        Self { alternatives: vec![Alternative { status: Vec::new(), conditions: Vec::new() }] }
    }
}

impl DoneWhen {
    /// Compiles the alternatives. None at all is the default.
    ///
    /// # Errors
    /// Every problem of every alternative.
    pub fn new(specs: &[DoneSpec]) -> Result<Self, Vec<Problem>> {
        if specs.is_empty() {
            return Ok(Self::default());
        }
        let mut problems = Vec::new();
        let alternatives = specs
            .iter()
            .enumerate()
            .map(|(index, spec)| {
                let before = if specs.len() == 1 { String::new() } else { format!("[{index}].") };
                compile(spec, &mut |field, message| {
                    problems.push(Problem { field: format!("{before}{field}"), message });
                })
            })
            .collect();
        if problems.is_empty() { Ok(Self { alternatives }) } else { Err(problems) }
    }

    /// Judges an answer as it came: the one way in which answers of the shop are judged. `bytes_max` is what a whole
    /// body may have.
    ///
    /// Where the body cannot be read, status and headers speak, as if every condition on it held: a second order is
    /// worse than a refused retry.
    #[must_use]
    pub fn judge_seen(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        seen: Seen<'_>,
        bytes_max: usize,
    ) -> Judged {
        match seen.plain(headers, bytes_max) {
            Some(body) => self.judge(status, headers, &body),
            None => self.judge_head(status, headers),
        }
    }

    /// The same judgement, with what decided it.
    #[must_use]
    pub fn explain_seen(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        seen: Seen<'_>,
        bytes_max: usize,
    ) -> Judgement {
        match seen.plain(headers, bytes_max) {
            Some(body) => self.explain(status, headers, &body),
            None => {
                let judged = self.judge_head(status, headers);
                let why = format!(
                    "by status {} and headers alone, since the body cannot be read whole",
                    status.as_u16()
                );
                Judgement { judged, why }
            }
        }
    }

    /// Judges a whole answer. `body` must be complete and without a content coding: a coded body matches no
    /// condition on it, and the work counts as not done.
    #[must_use]
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Judged {
        let body = Body::of(body);
        let holds = |one: &Alternative| {
            one.takes(status) && one.conditions.iter().all(|condition| condition.holds(headers, &body))
        };
        if self.alternatives.iter().any(holds) { Judged::Done } else { Judged::Failed }
    }

    /// Judges by status and headers alone, as if every condition on the body held.
    #[must_use]
    pub fn judge_head(&self, status: StatusCode, headers: &HeaderMap) -> Judged {
        let holds = |condition: &Condition| match condition {
            Condition::Header { .. } => condition.holds(headers, &Body::of(b"")),
            Condition::Body(_) | Condition::Json { .. } => true,
        };
        match self.alternatives.iter().any(|one| one.takes(status) && one.conditions.iter().all(holds)) {
            true => Judged::Done,
            false => Judged::Failed,
        }
    }

    /// The same judgement, with what decided it.
    #[must_use]
    pub fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Judgement {
        let judged = self.judge(status, headers, body);
        let body = Body::of(body);
        let mut why = Vec::new();
        for (index, one) in self.alternatives.iter().enumerate() {
            let before = if self.alternatives.len() == 1 { String::new() } else { format!("[{index}] ") };
            let failing = if one.takes(status) {
                one.conditions.iter().find(|condition| !condition.holds(headers, &body))
            } else {
                why.push(format!("{before}status {} is not {}", status.as_u16(), one.statuses()));
                continue;
            };
            match failing {
                None => {
                    let conditions =
                        one.conditions.iter().map(|condition| format!(", {}", condition.written()));
                    let status = format!("status {} is {}", status.as_u16(), one.statuses());
                    return Judgement {
                        judged,
                        why: format!("{before}{status}{}", conditions.collect::<String>()),
                    };
                }
                Some(condition) => {
                    let (wanted, found) = (condition.written(), condition.found(headers, &body));
                    why.push(format!("{before}wanted {wanted}, found {found}"));
                }
            }
        }
        Judgement { judged, why: why.join("; ") }
    }
}

impl<'a> Seen<'a> {
    fn plain(self, headers: &HeaderMap, bytes_max: usize) -> Option<std::borrow::Cow<'a, [u8]>> {
        match self {
            Self::Begun => None,
            Self::Whole(body) => coding::undo(headers, body, bytes_max.saturating_mul(UNFOLDED_TIMES_MAX)),
        }
    }
}

impl<'a> Body<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, root: std::cell::OnceCell::new() }
    }

    fn root(&self) -> Option<json::Raw<'a>> {
        *self.root.get_or_init(|| json::root(self.bytes))
    }
}

impl Alternative {
    fn takes(&self, status: StatusCode) -> bool {
        if self.status.is_empty() {
            return (status.is_success() || status.is_redirection()) && status != StatusCode::NOT_MODIFIED;
        }
        self.status.iter().any(|range| range.contains(&status.as_u16()))
    }

    fn statuses(&self) -> String {
        let written = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
            (start, end) if start == end => start.to_string(),
            (start, end) => format!("{start}-{end}"),
        };
        match self.status.as_slice() {
            [] => "2xx or 3xx except 304".to_owned(),
            ranges => ranges.iter().map(written).collect::<Vec<_>>().join(" or "),
        }
    }
}

impl Condition {
    fn holds(&self, headers: &HeaderMap, body: &Body<'_>) -> bool {
        match self {
            Self::Body(regex) => regex.is_match(body.bytes),
            Self::Json { pointer, pattern } => {
                let found = body.root().and_then(|root| pointer.find(root));
                found.and_then(json::text).is_some_and(|text| pattern.takes(text.as_bytes()))
            }
            Self::Header { name, pattern } => {
                headers.get_all(name).iter().any(|line| pattern.takes(line.as_bytes().trim_ascii()))
            }
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Body(regex) => format!("body ~{}", regex.as_str()),
            Self::Json { pointer, pattern } => format!("json {} {}", pointer.written(), pattern.written()),
            Self::Header { name, pattern } => format!("header {name} {}", pattern.written()),
        }
    }

    fn found(&self, headers: &HeaderMap, body: &Body<'_>) -> String {
        match self {
            Self::Body(_) => {
                format!("a body of {} bytes that starts {}", body.bytes.len(), excerpt(body.bytes))
            }
            Self::Json { pointer, .. } => match body.root() {
                None => "no JSON".to_owned(),
                Some(root) => match pointer.find(root).and_then(json::text) {
                    None => "nothing there".to_owned(),
                    Some(text) => excerpt(text.as_bytes()),
                },
            },
            Self::Header { name, .. } => match headers.get(name) {
                None => "no such field".to_owned(),
                Some(line) => excerpt(line.as_bytes()),
            },
        }
    }
}

impl Pattern {
    fn takes(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Text(wanted) => wanted.as_bytes() == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Present => "present".to_owned(),
            Self::Text(text) => format!("= {text:?}"),
            Self::Regex(regex) => format!("~{}", regex.as_str()),
        }
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(4 * EXCERPT_CHARS_MAX)];
    let text: String = String::from_utf8_lossy(short).chars().take(EXCERPT_CHARS_MAX).collect();
    format!("{text:?}")
}

fn compile(spec: &DoneSpec, problem: &mut dyn FnMut(&str, String)) -> Alternative {
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
        match regex(written) {
            Ok(regex) => conditions.push(Condition::Body(regex)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn when(specs: &[DoneSpec]) -> DoneWhen {
        DoneWhen::new(specs).unwrap()
    }

    fn json(pointer: &str, pattern: &str) -> DoneSpec {
        DoneSpec { json: vec![(pointer.into(), pattern.into())], ..DoneSpec::default() }
    }

    fn status(written: &str) -> DoneSpec {
        DoneSpec { status: vec![written.into()], ..DoneSpec::default() }
    }

    fn judged(when: &DoneWhen, status: u16, body: &str) -> Judged {
        when.judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn by_default_2xx_and_3xx_but_304_are_done() {
        let when = DoneWhen::default();
        for done in [200, 201, 204, 301, 302, 303, 307] {
            assert_eq!(judged(&when, done, ""), Judged::Done, "{done}");
        }
        for failed in [304, 400, 401, 403, 407, 408, 409, 421, 425, 429, 500, 502, 503] {
            assert_eq!(judged(&when, failed, ""), Judged::Failed, "{failed}");
        }
    }

    #[test]
    fn statuses_are_single_ones_classes_and_ranges() {
        for (written, inside, outside) in [("200", 200, 201), ("2xx", 299, 300), ("400-404", 404, 405)] {
            let when = when(&[status(written)]);
            assert_eq!(judged(&when, inside, ""), Judged::Done, "{written}");
            assert_eq!(judged(&when, outside, ""), Judged::Failed, "{written}");
        }
        for wrong in ["", "2", "xx", "99", "600", "2xxx", "299-200", "+20", "0xx", "200-", "éxx"] {
            let problems = DoneWhen::new(&[status(wrong)]).unwrap_err();
            assert_eq!(problems[0].field, "status", "{wrong}");
        }
    }

    #[test]
    fn a_woocommerce_decline_with_200_is_a_failure() {
        let when = when(&[json("/result", "success")]);
        assert_eq!(judged(&when, 200, r#"{"result":"success","order_id":4711}"#), Judged::Done);
        assert_eq!(judged(&when, 200, r#"{"result":"failure","messages":"Card declined."}"#), Judged::Failed);
        assert_eq!(judged(&when, 200, ""), Judged::Failed);
        assert_eq!(judged(&when, 200, "<html>"), Judged::Failed);
    }

    #[test]
    fn a_php_notice_before_or_after_the_json_is_forgiven() {
        let when = when(&[json("/result", "success")]);
        let noisy = "<br />\n<b>Notice</b>: Undefined index {x} in a.php\n{\"result\":\"success\"}";
        assert_eq!(judged(&when, 200, noisy), Judged::Done);
        assert_eq!(judged(&when, 200, "{\"result\":\"success\"}<!-- cache -->"), Judged::Done);
        assert_eq!(judged(&when, 200, "\u{feff}{\"result\":\"success\"}"), Judged::Done);
        assert_eq!(judged(&when, 200, "Notice {\"result\":\"success\""), Judged::Failed);
    }

    #[test]
    fn without_a_status_the_usual_ones_are_meant() {
        assert_eq!(
            judged(&when(&[json("/result", "success")]), 500, r#"{"result":"success"}"#),
            Judged::Failed
        );
    }

    #[test]
    fn numbers_are_compared_by_their_text_and_strings_by_their_content() {
        let long = "12345678901234567890123";
        let when_long = when(&[json("/id", long)]);
        assert_eq!(judged(&when_long, 200, &format!("{{\"id\":{long}}}")), Judged::Done);
        assert_eq!(judged(&when_long, 200, "{\"id\":12345678901234567890124}"), Judged::Failed);
        assert_eq!(judged(&when(&[json("/id", "1")]), 200, "{\"id\":1.0}"), Judged::Failed);
        assert_eq!(judged(&when(&[json("/a", "é/")]), 200, r#"{"a":"\u00e9\/"}"#), Judged::Done);
        assert_eq!(
            judged(&when(&[json("/a", "~order-received")]), 200, r#"{"a":"x\/order-received\/1"}"#),
            Judged::Done
        );
    }

    #[test]
    fn null_is_not_present() {
        let when = when(&[json("/data/placeOrder", "*")]);
        assert_eq!(judged(&when, 200, r#"{"data":{"placeOrder":null},"errors":[{}]}"#), Judged::Failed);
        assert_eq!(judged(&when, 200, r#"{"data":{"placeOrder":{"number":"47"}}}"#), Judged::Done);
    }

    #[test]
    fn the_body_is_matched_as_bytes() {
        let magento = when(&[DoneSpec { body: Some(r#"^"?\d+"?$"#.into()), ..status("200") }]);
        assert_eq!(judged(&magento, 200, "\"42\""), Judged::Done);
        assert_eq!(judged(&magento, 200, "42"), Judged::Done);
        assert_eq!(judged(&magento, 200, r#"{"message":"declined"}"#), Judged::Failed);
        let any = when(&[DoneSpec { body: Some("(?i)^ok.*END$".into()), ..DoneSpec::default() }]);
        assert_eq!(any.judge(StatusCode::OK, &HeaderMap::new(), b"OK \xff\xfe end"), Judged::Done);
    }

    #[test]
    fn one_line_of_a_header_has_to_match() {
        let spec =
            DoneSpec { header: vec![("Location".into(), "~/order-received/".into())], ..status("302") };
        let when = when(&[spec]);
        let mut headers = HeaderMap::new();
        assert_eq!(when.judge(StatusCode::FOUND, &headers, b""), Judged::Failed);
        headers.append("location", "https://shop.example/cart/".parse().unwrap());
        assert_eq!(when.judge(StatusCode::FOUND, &headers, b""), Judged::Failed);
        headers.append("location", "https://shop.example/order-received/1/".parse().unwrap());
        assert_eq!(when.judge(StatusCode::FOUND, &headers, b""), Judged::Done);
    }

    #[test]
    fn all_conditions_of_one_alternative_or_all_of_another() {
        let both = DoneSpec {
            json: vec![("/result".into(), "success".into()), ("/redirect".into(), "*".into())],
            ..DoneSpec::default()
        };
        let when = when(&[both, status("201")]);
        assert_eq!(judged(&when, 200, r#"{"result":"success"}"#), Judged::Failed);
        assert_eq!(judged(&when, 200, r#"{"result":"success","redirect":"/"}"#), Judged::Done);
        assert_eq!(judged(&when, 201, ""), Judged::Done);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let wrong = DoneSpec {
            status: vec!["ok".into()],
            body: Some("(".into()),
            json: vec![("result".into(), "~[".into())],
            header: vec![("a b".into(), "*".into())],
        };
        let problems = DoneWhen::new(&[status("200"), wrong, DoneSpec::default()]).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["[1].status", "[1].body", "[1].json", "[1].json", "[1].header", "[2]."]);
        let huge = DoneSpec { body: Some("(a{500}){500}".into()), ..DoneSpec::default() };
        assert!(DoneWhen::new(&[huge]).unwrap_err()[0].message.contains("too large"));
    }

    #[test]
    fn an_explanation_says_what_was_wanted_and_what_was_found() {
        let when = when(&[json("/result", "success"), status("201")]);
        let body = br#"{"result":"failure"}"#;
        let explained = when.explain(StatusCode::OK, &HeaderMap::new(), body);
        assert_eq!(explained.judged, Judged::Failed);
        assert_eq!(
            explained.why,
            r#"[0] wanted json /result = "success", found "failure"; [1] status 200 is not 201"#
        );
        let explained = DoneWhen::default().explain(StatusCode::OK, &HeaderMap::new(), b"");
        assert_eq!(explained.why, "status 200 is 2xx or 3xx except 304");
    }

    fn coded(coding: &str) -> HeaderMap {
        [(http::header::CONTENT_ENCODING, coding.parse().unwrap())].into_iter().collect()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_coded_answer_is_judged_by_what_it_says() {
        let when = when(&[json("/result", "success")]);
        let seen = |headers: &HeaderMap, body: &[u8]| {
            when.judge_seen(StatusCode::OK, headers, Seen::Whole(body), 1000)
        };
        let (yes, no) = (gzip(br#"{"result":"success"}"#), gzip(br#"{"result":"failure"}"#));
        assert_eq!(seen(&coded("GZIP"), &yes), Judged::Done);
        assert_eq!(seen(&coded("x-gzip"), &no), Judged::Failed);
        assert_eq!(seen(&coded("identity"), br#"{"result":"failure"}"#), Judged::Failed);
        assert_eq!(seen(&coded("gzip"), b""), Judged::Failed);
    }

    #[test]
    fn what_cannot_be_decoded_is_judged_by_its_head() {
        let when = when(&[json("/result", "success")]);
        let seen = |status, headers: &HeaderMap, body: &[u8]| {
            when.judge_seen(status, headers, Seen::Whole(body), 1000)
        };
        let no = gzip(br#"{"result":"failure"}"#);
        assert_eq!(seen(StatusCode::OK, &coded("br"), &no), Judged::Done);
        assert_eq!(seen(StatusCode::OK, &coded("gzip"), &no[..no.len() - 3]), Judged::Done);
        assert_eq!(seen(StatusCode::OK, &coded("gzip"), &gzip(&[b' '; 4001])), Judged::Done);
        assert_eq!(seen(StatusCode::OK, &coded("gzip"), &gzip(&[b' '; 4000])), Judged::Failed);
        assert_eq!(seen(StatusCode::BAD_REQUEST, &coded("br"), &no), Judged::Failed);
        assert_eq!(when.judge_seen(StatusCode::OK, &HeaderMap::new(), Seen::Begun, 1000), Judged::Done);
    }

    #[test]
    fn hostile_bodies_are_judged_without_a_panic() {
        let when = when(&[json("/a/0/b", "*")]);
        let deep = "[".repeat(2_000_000);
        assert_eq!(judged(&when, 200, &deep), Judged::Failed);
        let nested = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(judged(&when, 200, &nested), Judged::Failed);
        assert_eq!(judged(&when, 200, r#"{"a":[{"b":"\ud800"}]}"#), Judged::Failed);
        assert_eq!(
            when.judge(StatusCode::OK, &HeaderMap::new(), b"\xff\xfe{\"a\":[{\"b\":\xff}]}"),
            Judged::Failed
        );
    }
}
