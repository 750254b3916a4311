//! A rule's conditions, one by one.
//!
//! Each gives a [`Truth`], and leans to the side that it is told to where a request can be read in two ways.

use std::cell::OnceCell;

use http::{
    HeaderMap, HeaderName, Method,
    header::{CONTENT_TYPE, COOKIE},
};
use percent_encoding::percent_decode;

use super::{Doubt, Pattern, Readings};
use crate::{
    request::{
        View,
        body::Content,
        graphql::{self, Carries},
        query,
        source::{Lookup, Source},
    },
    route::template::Template,
};

/// What a rule may ask of a body.
pub(super) trait Fields {
    fn form(&self, name: &str) -> Lookup;
    fn json(&self, pointer: &str) -> Lookup;
    fn source(&self, source: &Source, view: &View<'_>) -> Lookup;
    fn mutation(&self, names: &[String], view: &View<'_>) -> Carries;
}

impl Fields for Content {
    fn form(&self, name: &str) -> Lookup {
        Self::form(self, name)
    }

    fn json(&self, pointer: &str) -> Lookup {
        Self::json(self, pointer)
    }

    fn source(&self, source: &Source, view: &View<'_>) -> Lookup {
        source.read(view, self)
    }

    fn mutation(&self, names: &[String], view: &View<'_>) -> Carries {
        graphql::carries(view, self, names)
    }
}

/// One request while it is judged. The query is taken apart at most once.
pub(super) struct Sight<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) readings: &'a Readings,
    pub(super) pairs: OnceCell<Vec<(Vec<u8>, Vec<u8>)>>,
    pub(super) body: Option<&'a dyn Fields>,
}

impl Sight<'_> {
    fn pairs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        if self.view.query.is_empty() {
            return &[];
        }
        self.pairs.get_or_init(|| {
            query::pairs(self.view.query.as_bytes())
                .map(|(name, value)| (query::php_name(&name).into_owned(), value.into_owned()))
                .collect()
        })
    }
}

/// Which answer a doubtful condition gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaning {
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
pub(super) enum Truth {
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
    /// No decides; then whatever is not settled.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, other) => other,
            (open, _) => open,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            open @ (Self::Open | Self::Unreadable(_)) => open,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) methods: Vec<String>,
    pub(super) hosts: Vec<Host>,
    pub(super) path: Option<Template>,
    pub(super) content_type: Vec<String>,
    pub(super) query: Vec<(Vec<u8>, Pattern)>,
    pub(super) headers: Vec<(HeaderName, Pattern)>,
    pub(super) cookies: Vec<(CookieName, Pattern)>,
    pub(super) form: Vec<(String, Pattern)>,
    pub(super) json: Vec<(String, Pattern)>,
    pub(super) sources: Vec<(Source, Pattern)>,
    pub(super) graphql_mutation: Vec<String>,
    pub(super) not: Option<Box<Rule>>,
}

#[derive(Clone, Debug)]
pub(super) enum Host {
    Exact(String),
    /// With the dot.
    Suffix(String),
}

#[derive(Clone, Debug)]
pub(super) enum CookieName {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
}

type Part = fn(&Rule, &Sight<'_>, Leaning) -> Truth;

/// In the order of what they cost: most requests are turned away by the first or the second.
const PARTS: [Part; 11] = [
    Rule::begins,
    Rule::host,
    Rule::method,
    Rule::path,
    Rule::content_type,
    Rule::header,
    Rule::query,
    Rule::cookie,
    Rule::fields,
    Rule::sources,
    Rule::mutation,
];

/// The same conditions by the names that they have in a configuration, for people. `begins` only spares work.
const NAMED: [(&str, Part); 10] = [
    ("hosts", Rule::host),
    ("methods", Rule::method),
    ("path", Rule::path),
    ("content_type", Rule::content_type),
    ("headers", Rule::header),
    ("query", Rule::query),
    ("cookies", Rule::cookie),
    ("form or json", Rule::fields),
    ("sources", Rule::sources),
    ("graphql_mutation", Rule::mutation),
];

impl Rule {
    /// Which of the conditions does not hold; `not` where the rule excludes the request.
    pub(super) fn turned_away_by(&self, sight: &Sight<'_>) -> Option<&'static str> {
        let fails = |(_, part): &&(&str, Part)| part(self, sight, Leaning::Yes) == Truth::No;
        let failing = NAMED.iter().find(fails).map(|(name, _)| *name);
        failing.or_else(|| (self.judge(sight, Leaning::Yes) == Truth::No).then_some("not"))
    }

    pub(super) fn judge(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        let mut sum = Truth::Yes;
        for part in PARTS {
            sum = sum.and(part(self, sight, leaning));
            if sum == Truth::No {
                return sum;
            }
        }
        match &self.not {
            None => sum,
            Some(not) => sum.and(not.judge(sight, leaning.other()).not()),
        }
    }

    /// Turns away an ordinary path by its first bytes, and a request without a query where one is asked for.
    fn begins(&self, sight: &Sight<'_>, _: Leaning) -> Truth {
        let readings = sight.readings;
        let elsewhere = readings.others.is_empty()
            && readings.doubt.is_none()
            && self.path.as_ref().is_some_and(|template| !template.could_begin(&readings.path));
        Truth::from(!elsewhere && (self.query.is_empty() || !sight.view.query.is_empty()))
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
        all(&self.form, |(name, pattern)| weigh_lookup(body.form(name), pattern, leaning))
            .and(all(&self.json, |(pointer, pattern)| weigh_lookup(body.json(pointer), pattern, leaning)))
    }
}

impl Rule {
    /// A source that reads no body is asked at once.
    fn sources(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        all(&self.sources, |(source, pattern)| {
            let found = match (sight.body, source.reads_body()) {
                (Some(body), _) => body.source(source, sight.view),
                (None, None) => source.read(sight.view, &Content::Empty),
                (None, Some(_)) => return Truth::Open,
            };
            weigh_lookup(found, pattern, leaning)
        })
    }

    fn mutation(&self, sight: &Sight<'_>, leaning: Leaning) -> Truth {
        if self.graphql_mutation.is_empty() {
            return Truth::Yes;
        }
        let Some(body) = sight.body else { return Truth::Open };
        match body.mutation(&self.graphql_mutation, sight.view) {
            Carries::No => Truth::No,
            Carries::Perhaps => Truth::from(leaning == Leaning::Yes),
            Carries::Certainly => Truth::Yes,
            Carries::Unreadable(why) => Truth::Unreadable(why),
        }
    }
}

/// All must hold. One that does not decides it, even where another cannot be judged.
fn all<T>(conditions: &[T], judge: impl Fn(&T) -> Truth) -> Truth {
    let mut sum = Truth::Yes;
    for condition in conditions {
        sum = sum.and(judge(condition));
        if sum == Truth::No {
            break;
        }
    }
    sum
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
