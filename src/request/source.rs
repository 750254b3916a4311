//! Sources: where in a request a value is read from, as the configuration names it (`form:custom|json:/order_id`).
//!
//! A source never guesses: what stands twice is [`Lookup::Ambiguous`], what has no safe reading is
//! [`Lookup::Unreadable`], and an empty value is no value. It never decides what its values are used for.
//!
//! Grammar: `kind:name`, then any number of steps, each after a `|`. A name can therefore not hold a `|`.

use std::{borrow::Cow, fmt};

use http::HeaderName;

pub use super::lookup::{Kind, Lookup, VALUE_BYTES_MAX, VALUES_MAX, Value, Values};
use super::{
    View,
    body::{Content, Reads},
    graphql::{self, Pick},
    json::Pointer,
    query::{self, Plus},
    step::Step,
    xml,
};

const KINDS: &str = "path, query, header, cookie, form, json, xml, graphql";
const STEPS: &str = "json:/pointer, form:NAME, jwt:CLAIM, segment:N";
/// How many steps a source may have.
const STEPS_MAX: usize = 4;

/// A source, ready to be read. Its `Display` is the text that it was parsed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    text: String,
    place: Place,
    steps: Vec<Step>,
}

/// Several sources that make one key only together.
pub type AllOf = Vec<Source>;

/// Why a text is no source.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceProblem {
    #[error("`{0}` is no source: write kind:name, where kind is one of {KINDS}")]
    NoKind(String),
    #[error("there is no source of the kind `{0}`; there are {KINDS}")]
    UnknownKind(String),
    #[error("`{0}:` names nothing")]
    NoName(String),
    #[error("`{0}` is no header name")]
    HeaderName(String),
    #[error("`{0}` is no JSON pointer: it is empty (the whole document) or begins with `/` (RFC 6901)")]
    Pointer(String),
    #[error(
        "`{0}` is no way to an XML element: write /order/id, /order/*/id for each, or /order/@id for an attribute"
    )]
    XmlPath(String),
    #[error("`{0}` names no argument: write cart_id, or the whole way, input/items/*/id")]
    GraphqlName(String),
    #[error("`{0}` is no step; there are {STEPS}")]
    UnknownStep(String),
    #[error("`segment:{0}` needs a number from 0 to 99")]
    Segment(String),
    #[error("`{0}` goes into texts in texts more than {STEPS_MAX} times")]
    TooManySteps(String),
    #[error("`{0}` would ignore the whole body")]
    IgnoresAll(String),
    #[error("`{0}` cannot be ignored; form, json, query, header and cookie can")]
    NotIgnorable(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Path(String),
    Query(String),
    Header(HeaderName),
    Cookie(String),
    CookiePrefix(String),
    Form(String),
    Json(Pointer),
    Xml(xml::Path),
    Graphql(Pick),
}

impl Source {
    /// Reads a source as the configuration writes it.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what there is instead.
    pub fn parse(text: &str) -> Result<Self, SourceProblem> {
        let mut pieces = text.split('|');
        let first = pieces.next().unwrap_or_default();
        let (kind, name) = first.split_once(':').ok_or_else(|| SourceProblem::NoKind(first.to_owned()))?;
        let place = Place::parse(kind, name)?;
        let steps = pieces.map(Step::parse).collect::<Result<Vec<_>, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err(SourceProblem::TooManySteps(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), place, steps })
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether its values must never be logged in the clear: cookies and headers are credentials more often than not.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self.place, Place::Header(_) | Place::Cookie(_) | Place::CookiePrefix(_))
    }

    /// What kind of body it needs; `None` where it does not read the body.
    #[must_use]
    pub fn reads_body(&self) -> Option<Reads> {
        match self.place {
            Place::Form(_) => Some(Reads::Form),
            Place::Json(_) => Some(Reads::Json),
            Place::Xml(_) => Some(Reads::Xml),
            Place::Graphql(_) => Some(Reads::Graphql),
            Place::Path(_)
            | Place::Query(_)
            | Place::Header(_)
            | Place::Cookie(_)
            | Place::CookiePrefix(_) => None,
        }
    }

    /// Looks its values up in a request.
    #[must_use]
    pub fn read(&self, view: &View<'_>, content: &Content) -> Lookup {
        let found = match &self.place {
            Place::Path(name) => read_path(view, name),
            Place::Query(name) => query::lookup(view.query.as_bytes(), name.as_bytes()),
            Place::Header(name) => read_header(view, name),
            Place::Cookie(name) => read_cookie(view, name),
            Place::CookiePrefix(prefix) => return self.read_cookie_prefix(view, prefix),
            Place::Form(name) => content.form(name),
            Place::Json(pointer) => content.json_at(pointer),
            Place::Xml(path) => content.xml_at(path),
            Place::Graphql(pick) => graphql::lookup(view, content, pick),
        };
        self.walk_on(found)
    }

    fn walk_on(&self, found: Lookup) -> Lookup {
        let out = match found {
            Lookup::Found(values) if self.steps.is_empty() => values,
            Lookup::Found(values) => match self.step_on(values) {
                Lookup::Found(values) => values,
                other => return other,
            },
            other => return other,
        };
        if out.iter().any(|value| value.bytes.iter().any(u8::is_ascii_control)) {
            return Lookup::Unreadable("it holds a control byte".into());
        }
        if out.iter().any(|value| value.bytes.len() > VALUE_BYTES_MAX) {
            return too_long();
        }
        if out.is_empty() { Lookup::Absent } else { Lookup::Found(out) }
    }

    fn step_on(&self, values: Values) -> Lookup {
        let mut out = Values::new();
        for value in values {
            match self.steps.iter().fold(Lookup::Found(Values::from_iter([value])), through) {
                Lookup::Absent => {}
                Lookup::Found(more) => out.extend(more),
                other => return other,
            }
            if out.len() > VALUES_MAX {
                return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
            }
        }
        Lookup::Found(out)
    }

    /// All cookies whose name begins so, sorted. A value is `name=value`, so that two shops on one host, whose
    /// cookies have different names, are not taken for one; steps walk into the value only.
    fn read_cookie_prefix(&self, view: &View<'_>, prefix: &str) -> Lookup {
        let mut seen: Vec<query::Pair<'_>> =
            distinct_cookies(view, |name| name.starts_with(prefix.as_bytes())).collect();
        if seen.len() > VALUES_MAX {
            return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
        }
        seen.sort();
        if seen.windows(2).any(|two| two[0].0 == two[1].0) {
            return Lookup::Ambiguous("a cookie stands twice with different values".into());
        }
        let mut out = Values::new();
        for (name, value) in seen {
            match self.walk_on(Lookup::text(value)) {
                Lookup::Absent => {}
                Lookup::Found(values) => out.extend(values.into_iter().map(|value| {
                    let mut bytes = name.to_vec();
                    bytes.push(b'=');
                    bytes.extend_from_slice(&value.bytes);
                    Value { bytes, kind: value.kind }
                })),
                other => return other,
            }
        }
        if out.len() > VALUES_MAX {
            return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
        }
        if out.is_empty() { Lookup::Absent } else { Lookup::Found(out) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Place {
    fn parse(kind: &str, name: &str) -> Result<Self, SourceProblem> {
        let named = || match name {
            "" | "*" => Err(SourceProblem::NoName(kind.to_owned())),
            name => Ok(name.to_owned()),
        };
        Ok(match kind {
            "path" => Self::Path(named()?),
            "query" => Self::Query(named()?),
            "header" => {
                let name = named()?;
                Self::Header(
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| SourceProblem::HeaderName(name))?,
                )
            }
            "cookie" => match named()?.strip_suffix('*') {
                Some(prefix) => Self::CookiePrefix(prefix.to_owned()),
                None => Self::Cookie(name.to_owned()),
            },
            "form" => Self::Form(named()?),
            "json" => Self::Json(parse_pointer(name)?),
            "xml" => {
                Self::Xml(xml::Path::parse(name).ok_or_else(|| SourceProblem::XmlPath(name.to_owned()))?)
            }
            "graphql" => {
                Self::Graphql(Pick::parse(name).ok_or_else(|| SourceProblem::GraphqlName(name.to_owned()))?)
            }
            other => return Err(SourceProblem::UnknownKind(other.to_owned())),
        })
    }
}

/// One step on from all that was found.
fn through(found: Lookup, step: &Step) -> Lookup {
    let Lookup::Found(values) = found else { return found };
    let mut out = Values::new();
    for value in values {
        match step.go(&value) {
            Lookup::Absent => {}
            Lookup::Found(more) => out.extend(more),
            other => return other,
        }
        if out.len() > VALUES_MAX {
            return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
        }
    }
    if out.is_empty() { Lookup::Absent } else { Lookup::Found(out) }
}

pub(super) fn parse_pointer(text: &str) -> Result<Pointer, SourceProblem> {
    Pointer::parse(text).ok_or_else(|| SourceProblem::Pointer(text.to_owned()))
}

fn read_path(view: &View<'_>, name: &str) -> Lookup {
    let mut found = view.params.iter().filter(|(param, _)| param == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (_, Some(_)) => Lookup::Ambiguous("it stands twice".into()),
        (Some(value), None) if value.len() > VALUE_BYTES_MAX => too_long(),
        (Some(value), None) => Lookup::text(value.as_bytes()),
        (None, None) => Lookup::Absent,
    }
}

/// One line only. A value that begins with a quote is a string of RFC 8941 section 3.3.3 and must be nothing else;
/// an `Idempotency-Key: "abc"` is the same key as `abc`.
fn read_header(view: &View<'_>, name: &HeaderName) -> Lookup {
    let mut lines = view.headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Lookup::Absent };
    if lines.next().is_some() {
        return Lookup::Ambiguous("it stands twice".into());
    }
    let value = line.as_bytes().trim_ascii();
    if value.len() > VALUE_BYTES_MAX {
        return too_long();
    }
    match value.strip_prefix(b"\"") {
        None => Lookup::text(value),
        Some(quoted) => match unquote(quoted) {
            Some(text) => Lookup::text(text),
            None => Lookup::Unreadable("it begins with a quote and is no quoted string".into()),
        },
    }
}

fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(out),
            b'\\' => out.push(*bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            &byte @ 0x20..0x7F => out.push(byte),
            _ => return None,
        }
    }
}

/// The cookies of all `Cookie` lines (RFC 9113 section 8.2.3 allows several) whose name is wanted, values
/// percent-decoded as PHP does it. A cookie that stands twice with one value has one reading, so it is given once.
fn distinct_cookies<'a>(
    view: &View<'a>,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> impl Iterator<Item = query::Pair<'a>> {
    let headers = view.headers;
    let raw = move || {
        headers
            .get_all(http::header::COOKIE)
            .iter()
            .flat_map(|line| line.as_bytes().split(|&byte| byte == b';'))
    };
    raw().enumerate().filter_map(move |(index, piece)| {
        let piece = piece.trim_ascii();
        let at = memchr::memchr(b'=', piece).filter(|&at| at > 0 && is_wanted(&piece[..at]))?;
        // A hostile header has thousands of cookies; looking back is bounded, and beyond it a repetition counts.
        let is_repeated =
            index < COOKIES_COMPARED_MAX && raw().take(index).any(|other| other.trim_ascii() == piece);
        (!is_repeated).then(|| (Cow::Borrowed(&piece[..at]), query::decode(&piece[at + 1..], Plus::IsItself)))
    })
}

fn read_cookie(view: &View<'_>, name: &str) -> Lookup {
    let wanted = query::php_name(name.as_bytes());
    let is_wanted = |other: &[u8]| query::base(&query::php_name(other)) == query::base(&wanted);
    query::lookup_in(distinct_cookies(view, is_wanted), name.as_bytes())
}

/// How many cookies are compared with those before them.
const COOKIES_COMPARED_MAX: usize = 100;

fn too_long() -> Lookup {
    Lookup::Unreadable(format!("it is longer than {VALUE_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sample::Sample, *};

    fn texts(found: Lookup) -> Vec<String> {
        match found {
            Lookup::Found(values) => {
                values.into_iter().map(|value| String::from_utf8_lossy(&value.bytes).into_owned()).collect()
            }
            Lookup::Absent => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    fn cookie(line: &str) -> Sample {
        Sample::form("").header("cookie", line)
    }

    #[test]
    fn a_source_is_printed_as_it_was_written() {
        for text in [
            "path:cart",
            "query:wc-ajax",
            "header:idempotency-key",
            "cookie:wp_woocommerce_session_*|segment:0",
            "form:custom|json:/order_id",
            "json:/items/*/id",
            "json:",
            "xml:/order/@id",
            "graphql:input/cart_id",
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_source_is_told_what_there_is() {
        let wrong = |text: &str| Source::parse(text).unwrap_err().to_string();
        assert_eq!(
            wrong("yaml:/a"),
            "there is no source of the kind `yaml`; there are path, query, header, cookie, form, json, xml, graphql"
        );
        assert!(wrong("cart").contains("kind:name"));
        assert!(wrong("json:order_id").contains("begins with `/`"));
        assert!(wrong("form:a|jwt:").contains("names nothing"));
        assert!(wrong("form:a|xml:/b").contains("segment:N"));
        assert!(wrong("form:a|json:/b|json:/b|json:/b|json:/b|json:/b").contains("more than 4 times"));
        assert!(wrong("cookie:*").contains("names nothing"));
        for text in [
            "",
            ":",
            "form:",
            "header:a b",
            "cookie:a|segment:x",
            "cookie:a|segment:100",
            "json:/a|json:b",
            "json:/a~",
            "xml:order",
            "graphql:a b",
            "graphql:",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cookies_and_headers_are_secret() {
        let secret = |text: &str| Source::parse(text).unwrap().is_secret();
        assert!(secret("cookie:a") && secret("cookie:a*|segment:0") && secret("header:authorization"));
        assert!(!secret("form:a") && !secret("json:/a") && !secret("path:a") && !secret("query:a"));
    }

    #[test]
    fn a_quoted_idempotency_key_is_the_bare_one() {
        let key =
            |value: &str| Sample::form("").header("idempotency-key", value).look("header:idempotency-key");
        assert_eq!(key("\"abc\""), Lookup::text("abc"));
        assert_eq!(key("abc"), Lookup::text("abc"));
        assert_eq!(key(r#""a\"b\\""#), Lookup::text(r#"a"b\"#));
        assert_eq!(key("\"\""), Lookup::Absent);
        assert_eq!(key(""), Lookup::Absent);
        for wrong in ["\"abc", "\"abc\"x", r#""a\b""#, "\""] {
            assert!(matches!(key(wrong), Lookup::Unreadable(_)), "{wrong}");
        }
        let twice = Sample::form("").header("idempotency-key", "a").header("idempotency-key", "a");
        assert!(matches!(twice.look("header:idempotency-key"), Lookup::Ambiguous(_)));
    }

    #[test]
    fn a_woocommerce_session_is_found_by_prefix_and_cut_after_decoding() {
        let sample = cookie("sbjs=1; wp_woocommerce_session_0a1b=t_5f0c%7C1893456000%7C1893452400%7C0d4c");
        assert_eq!(
            texts(sample.look("cookie:wp_woocommerce_session_*")),
            ["wp_woocommerce_session_0a1b=t_5f0c|1893456000|1893452400|0d4c"]
        );
        assert_eq!(
            texts(sample.look("cookie:wp_woocommerce_session_*|segment:0")),
            ["wp_woocommerce_session_0a1b=t_5f0c"]
        );
        let old = cookie("wp_woocommerce_session_0a1b=t_5f0c%7C%7C189%7C%7C1893%7C%7C0d");
        assert_eq!(texts(old.look("cookie:wp_woocommerce_session_0a1b|segment:1")), ["189"]);
        assert_eq!(texts(old.look("cookie:wp_woocommerce_session_0a1b|segment:9")), Vec::<String>::new());
        assert_eq!(texts(cookie("s_b=2; s_a=1").look("cookie:s_*")), ["s_a=1", "s_b=2"]);
    }

    #[test]
    fn a_cookie_with_two_values_is_ambiguous_and_lines_are_joined() {
        assert!(matches!(cookie("a=1; a=2").look("cookie:a"), Lookup::Ambiguous(_)));
        assert!(matches!(cookie("a=1; a=2").look("cookie:a*"), Lookup::Ambiguous(_)));
        assert!(matches!(cookie("a=1").header("cookie", "a=2").look("cookie:a"), Lookup::Ambiguous(_)));
        assert_eq!(texts(cookie("a=1; a=1").look("cookie:a")), ["1"]);
        assert_eq!(texts(cookie("b=1").header("cookie", "a=2").look("cookie:a")), ["2"]);
    }

    #[test]
    fn a_json_text_inside_a_form_is_read() {
        let sample =
            Sample::form("custom=%7B%22order_id%22%3A4725%2C%22order_key%22%3A%22wc%22%7D&invoice=WC-4725");
        assert_eq!(texts(sample.look("form:custom|json:/order_id")), ["4725"]);
        assert_eq!(Sample::form("custom=free+text").look("form:custom|json:/order_id"), Lookup::Absent);
        let broken = Sample::form("custom=%7Bx").look("form:custom|json:/order_id");
        assert!(matches!(broken, Lookup::Unreadable(_)));
        let doubled = Sample::form("custom=%7B%22a%22%3A1%2C%22a%22%3A2%7D").look("form:custom|json:/a");
        assert!(matches!(doubled, Lookup::Ambiguous(_)));
    }

    #[test]
    fn paths_and_queries_are_read() {
        let sample = Sample::json("").param("cart", "Zk7").query("key=wc_order_1&id=%37");
        assert_eq!(texts(sample.look("path:cart")), ["Zk7"]);
        assert_eq!(texts(sample.look("query:id")), ["7"]);
        assert_eq!(sample.look("path:other"), Lookup::Absent);
    }

    #[test]
    fn control_bytes_and_endless_values_are_unreadable() {
        for value in ["a%00b", "a%0Ab", "a%7F"] {
            assert!(
                matches!(Sample::form(format!("id={value}")).look("form:id"), Lookup::Unreadable(_)),
                "{value}"
            );
        }
        assert!(matches!(Sample::json(r#"{"id":"\u0000"}"#).look("json:/id"), Lookup::Unreadable(_)));
        let endless = Sample::form(format!("id={}", "x".repeat(1 << 20))).look("form:id");
        assert!(matches!(endless, Lookup::Unreadable(_)));
        let many = Sample::json(format!("[{}1]", "1,".repeat(VALUES_MAX))).look("json:/*");
        assert!(matches!(many, Lookup::Unreadable(_)));
    }

    proptest! {
        #[test]
        fn no_text_and_no_request_make_it_panic(
            text in r"(path|query|header|cookie|form|json|xml|graphql|x):[a-z/*~|:\[\]0-9]{0,12}",
            line in "[ -~]{0,40}",
            body in proptest::collection::vec(any::<u8>(), 0..40),
            content_type in prop_oneof![Just("application/json"), Just("application/x-www-form-urlencoded"), Just("multipart/form-data; boundary=B"), Just("text/xml")],
        ) {
            if let Ok(source) = Source::parse(&text) {
                prop_assert_eq!(source.to_string(), text);
                let sample = Sample::post(content_type, body).header("cookie", &line).header("a", &line).query(&line);
                let _ = source.read(&sample.view(), &sample.content());
            }
        }
    }
}
