//! Which requests a rule is about.
//!
//! A guarded rule has to take in every request that some shop could take for what the rule names. So a rule *leans*
//! to yes: a parameter that stands twice matches with either value, a path matches under any reading, a method is also
//! what an override says. Inside `not` it is the other way round: a condition excludes only what it certainly is
//! about. Nothing here reads a body, refuses a request, or changes one.

use std::cell::OnceCell;

use http::{
    HeaderMap, HeaderName, Method,
    header::{CONTENT_TYPE, COOKIE},
};
use percent_encoding::percent_decode;

pub use super::pattern::{Pattern, PatternError};
use super::{
    path::{Doubt, Readings},
    template::{Template, TemplateError},
};
use crate::request::{View, body::Content, query, source::Lookup};

/// How deep `not` may stand in `not`.
const NOT_DEPTH_MAX: usize = 4;

/// What a rule says, as it was typed. All conditions must hold; an empty one always does.
#[derive(Default, Clone, Debug)]
pub struct Spec {
    /// In any case. `GET` takes in `HEAD`, which a shop answers by running the same code.
    pub methods: Vec<String>,
    /// `shop.example`, or `*.shop.example` for one or more labels before it.
    pub hosts: Vec<String>,
    pub path: Option<PathSpec>,
    pub query: Vec<(String, Pattern)>,
    pub headers: Vec<(String, Pattern)>,
    /// A `*` at the end of a name takes every name that begins so.
    pub cookies: Vec<(String, Pattern)>,
    pub form: Vec<(String, Pattern)>,
    pub json: Vec<(String, Pattern)>,
    /// `application/json`, or `multipart/*`.
    pub content_type: Vec<String>,
    pub not: Option<Box<Spec>>,
}

#[derive(Clone, Debug)]
pub enum PathSpec {
    /// `/rest/{store?}/V1/guest-carts/{cart}`; see the README.
    Template(String),
    /// Found anywhere in the path unless it is anchored; ASCII case does not count.
    Regex(String),
}

/// What is wrong with a rule, and where: `path`, `query.wc-ajax`, `not.headers.x-y`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
}

/// What can be said before the body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    No,
    Yes(Hit),
    /// All that can be judged holds; [`Matcher::body`] says the rest.
    AfterBody(Hit),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What the path captured, by name.
    pub params: Vec<(String, String)>,
    /// The path has no safe reading: a guarded route refuses the request.
    pub doubt: Option<Doubt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyMatch {
    No,
    Yes,
    /// A condition is about a body that could not be read, and why.
    Unreadable(String),
}

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub struct Matcher {
    rule: Rule,
}

impl Matcher {
    /// # Errors
    /// All problems of the rule at once.
    pub fn new(spec: &Spec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let rule = Rule::compile(spec, "", 0, &mut problems);
        if problems.is_empty() { Ok(Self { rule }) } else { Err(problems) }
    }

    /// Judges all that stands in the head. `view.path` is the primary reading in `readings`.
    #[must_use]
    pub fn head(&self, view: &View<'_>, readings: &Readings) -> Head {
        let sight = Sight { view, readings, pairs: OnceCell::new(), body: None };
        match self.rule.judge(&sight, Leaning::Yes) {
            Truth::No => Head::No,
            Truth::Yes => Head::Yes(self.hit(readings)),
            Truth::Open | Truth::Unreadable(_) => Head::AfterBody(self.hit(readings)),
        }
    }

    /// Judges the whole rule again, now with the body.
    #[must_use]
    pub fn body(&self, view: &View<'_>, readings: &Readings, content: &Content) -> BodyMatch {
        self.with_fields(view, readings, content)
    }

    fn with_fields(&self, view: &View<'_>, readings: &Readings, body: &dyn Fields) -> BodyMatch {
        let sight = Sight { view, readings, pairs: OnceCell::new(), body: Some(body) };
        match self.rule.judge(&sight, Leaning::Yes) {
            Truth::Yes => BodyMatch::Yes,
            // With a body at hand nothing stays open.
            Truth::No | Truth::Open => BodyMatch::No,
            Truth::Unreadable(why) => BodyMatch::Unreadable(why),
        }
    }

    /// The captures come from the first reading that matches. An alias goes before them, since `/orders/7.json` is
    /// order 7 to a shop that knows the suffix, and one lane too few is the safe mistake. If spellings match
    /// with different captures, nobody can say which order is meant.
    fn hit(&self, readings: &Readings) -> Hit {
        let Some(template) = &self.rule.path else {
            return Hit { params: Vec::new(), doubt: readings.doubt };
        };
        let mut spelled = std::iter::once(&readings.path)
            .chain(readings.spellings())
            .filter_map(|path| template.captures(path))
            .peekable();
        let alias = readings.aliases().iter().find_map(|path| template.captures(path));
        let first = spelled.next();
        let divided = first.is_some() && spelled.any(|params| Some(&params) != first.as_ref());
        let doubt = readings.doubt.or(divided.then_some(Doubt::Divided));
        Hit { params: alias.or(first).unwrap_or_default(), doubt }
    }
}

/// What a rule may ask of a body.
trait Fields {
    fn form(&self, name: &str) -> Lookup;
    fn json(&self, pointer: &str) -> Lookup;
}

impl Fields for Content {
    fn form(&self, name: &str) -> Lookup {
        Self::form(self, name)
    }

    fn json(&self, pointer: &str) -> Lookup {
        Self::json(self, pointer)
    }
}

/// One request while it is judged. The query is taken apart at most once.
struct Sight<'a> {
    view: &'a View<'a>,
    readings: &'a Readings,
    pairs: OnceCell<Vec<(Vec<u8>, Vec<u8>)>>,
    body: Option<&'a dyn Fields>,
}

impl Sight<'_> {
    fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        if self.view.query.is_empty() {
            return &[];
        }
        self.pairs.get_or_init(|| query::pairs(self.view.query))
    }
}

/// Which answer a doubtful condition gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaning {
    Yes,
    No,
}

impl Leaning {
    fn other(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
        }
    }

    /// Any of the values when leaning to yes; when leaning to no all of them, and there must be one.
    fn weigh<T>(self, values: impl IntoIterator<Item = T>, holds: impl Fn(T) -> bool) -> Truth {
        let mut values = values.into_iter();
        Truth::from(match self {
            Self::Yes => values.any(holds),
            Self::No => {
                let mut some = false;
                values.all(|value| {
                    some = true;
                    holds(value)
                }) && some
            }
        })
    }

    fn takes(self, pattern: &Pattern, value: &[u8]) -> bool {
        match self {
            Self::Yes => pattern.could_match(value),
            Self::No => pattern.matches(value),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Truth {
    No,
    Yes,
    /// Only the body can say.
    Open,
    Unreadable(String),
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            open @ (Self::Open | Self::Unreadable(_)) => open,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Rule {
    methods: Vec<String>,
    hosts: Vec<Host>,
    path: Option<Template>,
    content_type: Vec<String>,
    query: Vec<(Vec<u8>, Pattern)>,
    headers: Vec<(HeaderName, Pattern)>,
    cookies: Vec<(CookieName, Pattern)>,
    form: Vec<(String, Pattern)>,
    json: Vec<(String, Pattern)>,
    not: Option<Box<Rule>>,
}

#[derive(Clone, Debug)]
enum Host {
    Exact(String),
    /// With the dot.
    Suffix(String),
}

#[derive(Clone, Debug)]
enum CookieName {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
}

type Part = fn(&Rule, &Sight<'_>, Leaning) -> Truth;

/// In the order of what they cost: most requests are turned away by the first or the second.
const PARTS: [Part; 9] = [
    Rule::begins,
    Rule::method,
    Rule::host,
    Rule::path,
    Rule::content_type,
    Rule::header,
    Rule::query,
    Rule::cookie,
    Rule::fields,
];

impl Rule {
    fn judge(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        let mut sum = Truth::Yes;
        for part in PARTS {
            match part(self, sight, leaning) {
                Truth::No => return Truth::No,
                Truth::Yes => {}
                open => sum = open,
            }
        }
        match self.not.as_ref().map(|not| not.judge(sight, leaning.other()).not()) {
            None | Some(Truth::Yes) => sum,
            Some(Truth::No) => Truth::No,
            Some(open) => open,
        }
    }

    /// Turns away an ordinary path by its first bytes, before anything else is looked at.
    fn begins(&self, sight: &Sight<'_>, _: Leaning) -> Truth {
        let hopeless = sight.readings.others.is_empty()
            && sight.readings.doubt.is_none()
            && self.path.as_ref().is_some_and(|template| !template.could_begin(&sight.readings.path));
        Truth::from(!hopeless)
    }

    fn path(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        let Some(template) = &self.path else { return Truth::Yes };
        let readings = sight.readings;
        let doubt = readings.doubt;
        let primary = template.is_match(&readings.path);
        Truth::from(match leaning {
            // Not all readings are known then, so any of them may be the one.
            Leaning::Yes if doubt == Some(Doubt::TooManyReadings) => true,
            Leaning::Yes => primary || readings.others.iter().any(|path| template.is_match(path)),
            // An alias is the same place under another name, so it does not stand against an exclusion.
            Leaning::No => {
                primary && doubt.is_none() && readings.spellings().iter().all(|path| template.is_match(path))
            }
        })
    }

    /// The methods of a request are its own and those that it says to take instead: shops follow such a wish from a
    /// header, the query or a form.
    fn method(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        if self.methods.is_empty() {
            return Truth::Yes;
        }
        let view = sight.view;
        let literal = self.names_method(view.method.as_str().as_bytes(), leaning);
        match leaning {
            Leaning::Yes if literal || self.any_override(sight, leaning) => Truth::Yes,
            Leaning::Yes if self.may_be_overridden_by_a_form() => self.form_method(sight, leaning),
            Leaning::Yes => Truth::No,
            Leaning::No if !literal || !self.all_overrides(sight, leaning) => Truth::No,
            Leaning::No => self.form_method(sight, leaning),
        }
    }

    fn names_method(&self, method: &[u8], leaning: Leaning) -> bool {
        let method = method.trim_ascii();
        let named = |name: &[u8]| self.methods.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name));
        named(method) || (leaning == Leaning::Yes && method.eq_ignore_ascii_case(b"HEAD") && named(b"GET"))
    }

    fn any_override(&self, sight: &Sight<'_>, leaning: Leaning) -> bool {
        overrides(sight).any(|method| self.names_method(method, leaning))
    }

    fn all_overrides(&self, sight: &Sight<'_>, leaning: Leaning) -> bool {
        overrides(sight).all(|method| self.names_method(method, leaning))
    }

    /// Frameworks let a form say PUT, PATCH or DELETE, which HTML cannot.
    fn may_be_overridden_by_a_form(&self) -> bool {
        let named = |name: &str| self.methods.iter().any(|own| own.eq_ignore_ascii_case(name));
        ["PUT", "PATCH", "DELETE"].into_iter().any(named)
    }

    fn form_method(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        let posted = sight.view.method.as_str().eq_ignore_ascii_case(Method::POST.as_str());
        if !posted || !is_form(sight.view.headers) {
            return Truth::from(leaning == Leaning::No);
        }
        let Some(body) = sight.body else { return Truth::Open };
        match (body.form("_method"), leaning) {
            (Lookup::Absent, _) => Truth::from(leaning == Leaning::No),
            (Lookup::Ambiguous(_), _) => Truth::from(leaning == Leaning::Yes),
            (Lookup::Unreadable(why), _) => Truth::Unreadable(why),
            (Lookup::Found(values), _) => {
                leaning.weigh(&values, |value| self.names_method(&value.bytes, leaning))
            }
        }
    }

    fn host(&self, sight: &Sight<'_>, _: Leaning) -> Truth {
        // `shop.example.` is the same host with its root label written out (RFC 1034 section 3.1).
        let host = sight.view.host.strip_suffix('.').unwrap_or(sight.view.host);
        let holds = |own: &Host| match own {
            Host::Exact(own) => own.eq_ignore_ascii_case(host),
            Host::Suffix(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            }
        };
        Truth::from(self.hosts.is_empty() || self.hosts.iter().any(holds))
    }

    fn content_type(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        if self.content_type.is_empty() {
            return Truth::Yes;
        }
        leaning.weigh(media_types(sight.view.headers), |found| {
            self.content_type.iter().any(|own| match own.strip_suffix('*') {
                Some(kind) => {
                    found.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind.as_bytes()))
                }
                None => found.eq_ignore_ascii_case(own.as_bytes()),
            })
        })
    }

    fn header(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        all(&self.headers, |(name, pattern)| {
            leaning.weigh(sight.view.headers.get_all(name), |value| leaning.takes(pattern, value.as_bytes()))
        })
    }

    fn query(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        all(&self.query, |(name, pattern)| {
            let values = sight.pairs().iter().filter(|(found, _)| found == name);
            leaning.weigh(values, |(_, value)| leaning.takes(pattern, value))
        })
    }

    fn cookie(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        all(&self.cookies, |(name, pattern)| {
            let values = cookies(sight.view.headers).filter(|(found, _)| name.takes(found));
            leaning.weigh(values, |(_, value)| {
                // PHP decodes a cookie's value, most others do not (RFC 6265 section 4.1.1 knows no encoding).
                let decoded: Vec<u8> = percent_decode(value).collect();
                match leaning {
                    Leaning::Yes => pattern.could_match(value) || pattern.could_match(&decoded),
                    Leaning::No => pattern.matches(value) && pattern.matches(&decoded),
                }
            })
        })
    }

    fn fields(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        if self.form.is_empty() && self.json.is_empty() {
            return Truth::Yes;
        }
        let Some(body) = sight.body else { return Truth::Open };
        match all(&self.form, |(name, pattern)| weigh_lookup(body.form(name), pattern, leaning)) {
            Truth::Yes => {
                all(&self.json, |(pointer, pattern)| weigh_lookup(body.json(pointer), pattern, leaning))
            }
            other => other,
        }
    }
}

fn all<T>(conditions: &[T], judge: impl Fn(&T) -> Truth) -> Truth {
    conditions.iter().map(judge).find(|truth| *truth != Truth::Yes).unwrap_or(Truth::Yes)
}

fn weigh_lookup(lookup: Lookup, pattern: &Pattern, leaning: Leaning) -> Truth {
    match lookup {
        Lookup::Absent => Truth::No,
        Lookup::Found(values) => leaning.weigh(&values, |value| leaning.takes(pattern, &value.bytes)),
        Lookup::Ambiguous(_) => Truth::from(leaning == Leaning::Yes),
        Lookup::Unreadable(why) => Truth::Unreadable(why),
    }
}

const OVERRIDE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// The methods that the head asks to be taken instead of its own.
fn overrides<'a>(sight: &'a Sight<'_>) -> impl Iterator<Item = &'a [u8]> {
    let headers = OVERRIDE_HEADERS
        .into_iter()
        .flat_map(|name| sight.view.headers.get_all(name))
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let pairs = if may_name_a_method(sight.view.query) { sight.pairs() } else { &[] };
    let parameters = pairs
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"_method"))
        .map(|(_, value)| value.as_slice());
    headers.chain(parameters).filter(|method| !method.trim_ascii().is_empty())
}

/// Spares most queries from being taken apart: where nothing is encoded, the name stands there in letters.
fn may_name_a_method(query: &str) -> bool {
    query.bytes().any(|byte| byte == b'%')
        || query.as_bytes().windows(6).any(|window| window.eq_ignore_ascii_case(b"method"))
}

/// The media types without parameters. PHP ends one at a comma or a space as well.
fn media_types(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(CONTENT_TYPE).into_iter().map(|value| {
        let value = value.as_bytes().trim_ascii();
        let end = value.iter().position(|byte| matches!(byte, b';' | b',' | b' ' | b'\t'));
        &value[..end.unwrap_or(value.len())]
    })
}

fn is_form(headers: &HeaderMap) -> bool {
    let forms = [&b"application/x-www-form-urlencoded"[..], b"multipart/form-data"];
    media_types(headers).any(|found| forms.iter().any(|form| found.eq_ignore_ascii_case(form)))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(
        |crumb| {
            let crumb = crumb.trim_ascii();
            match crumb.iter().position(|byte| *byte == b'=') {
                Some(at) => (crumb[..at].trim_ascii_end(), crumb[at + 1..].trim_ascii_start()),
                None => (crumb, &[][..]),
            }
        },
    )
}

impl CookieName {
    /// PHP decodes a cookie's name and reads it like that of a parameter; other shops take it as it is.
    fn takes(&self, found: &[u8]) -> bool {
        let same = |found: &[u8]| match self {
            Self::Exact(name) => name == found,
            Self::Prefix(prefix) => found.starts_with(prefix),
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if found.iter().all(plain) {
            return same(found);
        }
        same(&query::php_name(&percent_decode(found).collect::<Vec<u8>>()))
    }
}

impl Rule {
    fn compile(spec: &Spec, at: &str, depth: usize, problems: &mut Vec<Problem>) -> Self {
        let mut report = |field: &str, message: String| {
            problems.push(Problem { field: format!("{at}{field}"), message });
        };
        let mut rule = Self {
            query: spec
                .query
                .iter()
                .map(|(name, one)| (query::php_name(name.as_bytes()), one.clone()))
                .collect(),
            form: spec.form.clone(),
            json: spec.json.clone(),
            ..Self::default()
        };
        for method in &spec.methods {
            match Method::from_bytes(method.as_bytes()) {
                Ok(_) => rule.methods.push(method.clone()),
                Err(_) => report("methods", format!("`{method}` is not a method (RFC 9110 section 9.1)")),
            }
        }
        for host in &spec.hosts {
            match Host::parse(host) {
                Some(host) => rule.hosts.push(host),
                None => report(
                    "hosts",
                    format!("`{host}` is not a host: `shop.example` or `*.shop.example`, no port"),
                ),
            }
        }
        match spec.path.as_ref().map(compile_path) {
            None => {}
            Some(Ok(template)) => rule.path = Some(template),
            Some(Err(error)) => report("path", chain(&error)),
        }
        for kind in &spec.content_type {
            match is_media_type(kind) {
                true => rule.content_type.push(kind.clone()),
                false => report(
                    "content_type",
                    format!(
                        "`{kind}` is not a media type: `application/json` or `multipart/*`, without parameters"
                    ),
                ),
            }
        }
        for (name, pattern) in &spec.headers {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => rule.headers.push((name, pattern.clone())),
                Err(_) => report(&format!("headers.{name}"), "this is not a header name".to_owned()),
            }
        }
        for (name, pattern) in &spec.cookies {
            rule.cookies.push((CookieName::parse(name), pattern.clone()));
        }
        let unnamed = [("query", &spec.query), ("form", &spec.form), ("cookies", &spec.cookies)];
        for (field, _) in
            unnamed.iter().filter(|(_, conditions)| conditions.iter().any(|(name, _)| name.is_empty()))
        {
            report(field, "a condition needs a name".to_owned());
        }
        for (pointer, _) in &spec.json {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                let message = "a JSON pointer begins with a slash (RFC 6901 section 3)".to_owned();
                report(&format!("json.{pointer}"), message);
            }
        }
        match &spec.not {
            None => {}
            Some(_) if depth == NOT_DEPTH_MAX => report("not", "`not` stands too deep in itself".to_owned()),
            Some(not) => {
                rule.not = Some(Box::new(Self::compile(not, &format!("{at}not."), depth + 1, problems)));
            }
        }
        rule
    }
}

fn compile_path(path: &PathSpec) -> Result<Template, TemplateError> {
    match path {
        PathSpec::Template(text) => Template::parse(text),
        PathSpec::Regex(text) => Template::regex(text),
    }
}

fn chain(error: &TemplateError) -> String {
    match std::error::Error::source(error) {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}

fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && (subtype == "*" || token(subtype)))
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let name = name.strip_suffix('.').unwrap_or(name);
        // An IPv6 address stands in brackets (RFC 3986 section 3.2.2).
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let address = name.starts_with('[')
            && name.ends_with(']')
            && name.bytes().all(|byte| byte.is_ascii_hexdigit() || b"[]:.".contains(&byte));
        let valid =
            address || (!name.is_empty() && name.bytes().all(plain) && !name.split('.').any(str::is_empty));
        valid.then(|| match text.starts_with("*.") {
            true => Self::Suffix(format!(".{}", name.to_ascii_lowercase())),
            false => Self::Exact(name.to_ascii_lowercase()),
        })
    }
}

impl CookieName {
    fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(query::php_name(prefix.as_bytes())),
            None => Self::Exact(query::php_name(text.as_bytes())),
        }
    }
}
