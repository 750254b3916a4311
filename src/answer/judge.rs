//! Whether the shop did the work: an answer is judged by what the route's `done_when` and `pending_when` say.
//!
//! Pure: no I/O, no clock. A status is not trusted on its own word: WooCommerce answers a declined card with
//! 200 and `{"result":"failure"}`. It never decides what follows from the judgement.

use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName, StatusCode};
use regex::bytes::Regex;

use crate::store::Judged;

mod coding;
mod compile;
mod json;

/// The bound on an excerpt of a body in an explanation, in characters.
const EXCERPT_CHARS_MAX: usize = 80;

/// One alternative of `done_when` or `pending_when` as it was typed. All of its conditions must hold. Patterns are exact
/// text, `~regex`, `*` for present, or `!` and one of these for what must not be so.
#[derive(Clone, Debug, Default)]
pub struct DoneSpec {
    /// `200`, `2xx`, `200-299`. Empty: 2xx and 3xx except 304.
    pub status: Vec<String>,
    /// A regular expression that is searched for in the bytes of the body; with `!` before it, one that is not to be found.
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
///
/// With it the `pending_when` of the route, which is asked of what is not done: what both describe is done, because to
/// forget an order that was placed is worse than to repeat where it led.
#[derive(Clone, Debug)]
pub struct DoneWhen {
    done: Vec<Alternative>,
    /// Empty: nothing is ever pending.
    pending: Vec<Alternative>,
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
    Body(Pattern),
    Json { pointer: json::Pointer, pattern: Pattern },
    Header { name: HeaderName, pattern: Pattern },
}

#[derive(Clone, Debug)]
enum Pattern {
    Present,
    Text(String),
    Regex(Regex),
    /// What is not there is not so either.
    Not(Box<Pattern>),
}

/// An answer's body; its JSON is looked for once, when the first condition asks for it.
struct Body<'a> {
    bytes: &'a [u8],
    root: std::cell::OnceCell<Option<json::Raw<'a>>>,
}

impl Default for DoneWhen {
    fn default() -> Self {
        let any = Alternative { status: Vec::new(), conditions: Vec::new() };
        Self { done: vec![any], pending: Vec::new() }
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
        alternatives(specs).map(|done| Self { done, pending: Vec::new() })
    }

    /// The same with a `pending_when`.
    ///
    /// # Errors
    /// Every problem of every alternative.
    pub fn or_pending(self, specs: &[DoneSpec]) -> Result<Self, Vec<Problem>> {
        alternatives(specs).map(|pending| Self { pending, ..self })
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
        self.judged(|one| one.takes(status) && one.conditions.iter().all(|each| each.holds(headers, &body)))
    }

    /// Judges by status and headers alone, as if every condition on the body held.
    #[must_use]
    pub fn judge_head(&self, status: StatusCode, headers: &HeaderMap) -> Judged {
        let holds = |condition: &Condition| match condition {
            Condition::Header { .. } => condition.holds(headers, &Body::of(b"")),
            Condition::Body(_) | Condition::Json { .. } => true,
        };
        self.judged(|one| one.takes(status) && one.conditions.iter().all(holds))
    }

    fn judged(&self, holds: impl Fn(&Alternative) -> bool) -> Judged {
        match (self.done.iter().any(&holds), self.pending.iter().any(&holds)) {
            (true, _) => Judged::Done,
            (false, true) => Judged::Pending,
            (false, false) => Judged::Failed,
        }
    }

    /// The same judgement, with what decided it.
    #[must_use]
    pub fn explain(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Judgement {
        let judged = self.judge(status, headers, body);
        let body = Body::of(body);
        let why = match (said(&self.done, status, headers, &body), judged) {
            (Ok(why), _) => why,
            (Err(why), Judged::Done | Judged::Failed) if self.pending.is_empty() => why,
            (Err(why_not), _) => match said(&self.pending, status, headers, &body) {
                Ok(why) => format!("{why}; not done: {why_not}"),
                Err(nor) => format!("not done: {why_not}; not pending: {nor}"),
            },
        };
        Judgement { judged, why }
    }
}

fn alternatives(specs: &[DoneSpec]) -> Result<Vec<Alternative>, Vec<Problem>> {
    let mut problems = Vec::new();
    let alternatives = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let before = if specs.len() == 1 { String::new() } else { format!("[{index}].") };
            compile::compile(spec, &mut |field, message| {
                problems.push(Problem { field: format!("{before}{field}"), message });
            })
        })
        .collect();
    if problems.is_empty() { Ok(alternatives) } else { Err(problems) }
}

/// Why one of the alternatives holds, or why none does.
fn said(
    alternatives: &[Alternative],
    status: StatusCode,
    headers: &HeaderMap,
    body: &Body<'_>,
) -> Result<String, String> {
    let mut why = Vec::new();
    for (index, one) in alternatives.iter().enumerate() {
        let before = if alternatives.len() == 1 { String::new() } else { format!("[{index}] ") };
        if !one.takes(status) {
            why.push(format!("{before}status {} is not {}", status.as_u16(), one.statuses()));
            continue;
        }
        match one.conditions.iter().find(|condition| !condition.holds(headers, body)) {
            None => {
                let conditions = one.conditions.iter().map(|condition| format!(", {}", condition.written()));
                let status = format!("status {} is {}", status.as_u16(), one.statuses());
                return Ok(format!("{before}{status}{}", conditions.collect::<String>()));
            }
            Some(condition) => {
                let (wanted, found) = (condition.written(), condition.found(headers, body));
                why.push(format!("{before}wanted {wanted}, found {found}"));
            }
        }
    }
    Err(why.join("; "))
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
            Self::Body(pattern) => pattern.takes_one([body.bytes].into_iter()),
            Self::Json { pointer, pattern } => {
                // Of a page of errors nothing can be said that must not stand in JSON.
                let Some(found) = body.root().map(|root| pointer.find(root)) else { return false };
                let texts: Vec<_> = found.into_iter().filter_map(json::text).collect();
                pattern.takes_one(texts.iter().map(|text| text.as_bytes()))
            }
            Self::Header { name, pattern } => {
                pattern.takes_one(headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()))
            }
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Body(pattern) => format!("body {}", pattern.written()),
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
                Some(root) => match pointer.find(root).into_iter().find_map(json::text) {
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
    /// Whether one of the values is what is wanted, or none is what is not.
    fn takes_one<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Not(pattern) => !values.any(|value| pattern.takes(value)),
            wanted => values.any(|value| wanted.takes(value)),
        }
    }

    fn takes(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Text(wanted) => wanted.as_bytes() == text,
            Self::Regex(regex) => regex.is_match(text),
            Self::Not(pattern) => !pattern.takes(text),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Present => "present".to_owned(),
            Self::Text(text) => format!("= {text:?}"),
            Self::Regex(regex) => format!("~{}", regex.as_str()),
            Self::Not(pattern) => format!("not {}", pattern.written()),
        }
    }
}

fn excerpt(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(4 * EXCERPT_CHARS_MAX)];
    let text: String = String::from_utf8_lossy(short).chars().take(EXCERPT_CHARS_MAX).collect();
    format!("{text:?}")
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
    fn a_notice_that_holds_braces_of_its_own_is_forgiven_too() {
        let when = when(&[json("/result", "success")]);
        let noisy = r#"Warning: undefined {"key in a.php, {"other {"result":"success"}"#;
        assert_eq!(judged(&when, 200, noisy), Judged::Done);
        let shouting = r#"{""#.repeat(100_000);
        assert_eq!(judged(&when, 200, &format!(r#"{shouting}{{"result":"success"}}"#)), Judged::Failed);
    }

    /// WooCommerce's classic checkout: an order that is placed, one that a provider is to be paid for first, and none.
    fn checkout() -> DoneWhen {
        let done = DoneSpec {
            json: vec![
                ("/result".into(), "success".into()),
                ("/redirect".into(), "~/order-received/".into()),
            ],
            ..DoneSpec::default()
        };
        when(&[done]).or_pending(&[json("/result", "success")]).unwrap()
    }

    #[test]
    fn a_redirect_to_a_provider_is_pending_and_neither_done_nor_failed() {
        let checkout = checkout();
        let redirect = |to: &str| format!(r#"{{"result":"success","redirect":"{to}"}}"#);
        let received = redirect(r"https:\/\/shop.example\/checkout\/order-received\/16\/?key=wc");
        assert_eq!(judged(&checkout, 200, &received), Judged::Done);
        for elsewhere in ["https://pay.example/checkout?token=1", "#wc-stripe-confirm-pi:16:pi_1_secret:ab"] {
            assert_eq!(judged(&checkout, 200, &redirect(elsewhere)), Judged::Pending, "{elsewhere}");
        }
        assert_eq!(judged(&checkout, 200, r#"{"result":"failure"}"#), Judged::Failed);
        assert_eq!(judged(&checkout, 500, &received), Judged::Failed);
    }

    #[test]
    fn what_cannot_be_read_is_done_rather_than_pending() {
        let seen = |status| checkout().judge_seen(status, &HeaderMap::new(), Seen::Begun, 1000);
        assert_eq!((seen(StatusCode::OK), seen(StatusCode::BAD_GATEWAY)), (Judged::Done, Judged::Failed));
        let by_status = when(&[status("200")]).or_pending(&[status("202")]).unwrap();
        assert_eq!(judged(&by_status, 202, ""), Judged::Pending);
        assert_eq!(
            by_status.judge_seen(StatusCode::ACCEPTED, &coded("br"), Seen::Whole(b"x"), 1000),
            Judged::Pending
        );
    }

    #[test]
    fn an_explanation_says_why_it_is_pending_and_why_not_done() {
        let body = br##"{"result":"success","redirect":"#wc-stripe-confirm-pi:1"}"##;
        let explained = checkout().explain(StatusCode::OK, &HeaderMap::new(), body);
        assert_eq!(explained.judged, Judged::Pending);
        assert_eq!(
            explained.why,
            "status 200 is 2xx or 3xx except 304, json /result = \"success\"; not done: wanted json /redirect \
             ~/order-received/, found \"#wc-stripe-confirm-pi:1\""
        );
        let explained = checkout().explain(StatusCode::FOUND, &HeaderMap::new(), b"");
        assert!(explained.why.contains("not pending: wanted json /result"), "{}", explained.why);
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
    fn an_order_of_graphql_is_told_by_what_is_there_and_what_is_not() {
        // Magento answers 200 to everything, with the member called as the client liked.
        let done = DoneSpec {
            status: vec!["200".into()],
            json: vec![
                ("/errors".into(), "!*".into()),
                ("/data/*/errors".into(), "!~[{]".into()),
                ("/data/*/orderV2/number".into(), "*".into()),
            ],
            ..DoneSpec::default()
        };
        let when = when(&[done]);
        let placed = r#"{"data":{"mine":{"orderV2":{"number":"000000044"},"errors":[]}}}"#;
        assert_eq!(judged(&when, 200, placed), Judged::Done);
        for failed in [
            r#"{"errors":[{"message":"x"}],"data":{"mine":null}}"#,
            r#"{"errors":[],"data":{"mine":{"orderV2":{"number":"1"}}}}"#,
            r#"{"data":{"mine":{"orderV2":null,"errors":[{"code":"UNABLE_TO_PLACE_ORDER"}]}}}"#,
            r#"{"data":{"mine":{"orderV2":{"number":"1"},"errors":[{"code":"UNDEFINED"}]}}}"#,
            r#"{"data":{"mine":{"orderV2":{"number":null}}}}"#,
            "",
        ] {
            assert_eq!(judged(&when, 200, failed), Judged::Failed, "{failed}");
        }
        let explained = when.explain(StatusCode::OK, &HeaderMap::new(), br#"{"errors":[1]}"#);
        assert_eq!(explained.why, r#"wanted json /errors not present, found "[1]""#);
    }

    #[test]
    fn what_must_not_be_there_may_be_missing() {
        let not = |body: Option<&str>, header: Option<&str>| {
            let header = header.map(|pattern| ("Location".into(), pattern.into()));
            when(&[DoneSpec {
                body: body.map(Into::into),
                header: header.into_iter().collect(),
                ..DoneSpec::default()
            }])
        };
        assert_eq!(judged(&not(Some("!^-1$"), None), 200, "-1"), Judged::Failed);
        assert_eq!(judged(&not(Some("!^-1$"), None), 200, ""), Judged::Done);
        let alone = when(&[json("/errors", "!*")]);
        assert_eq!(judged(&alone, 200, r#"{"data":1}"#), Judged::Done);
        assert_eq!(judged(&alone, 200, "<html>"), Judged::Failed, "it is no JSON at all");
        let mut headers = HeaderMap::new();
        let elsewhere = not(None, Some("!~/cart"));
        assert_eq!(elsewhere.judge(StatusCode::FOUND, &headers, b""), Judged::Done);
        headers.append("location", "/x".parse().unwrap());
        headers.append("location", "/cart".parse().unwrap());
        assert_eq!(elsewhere.judge(StatusCode::FOUND, &headers, b""), Judged::Failed);
        assert!(DoneWhen::new(&[DoneSpec { body: Some("!(".into()), ..DoneSpec::default() }]).is_err());
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
