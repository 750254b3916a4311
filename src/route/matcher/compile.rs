//! From what was typed to a rule, with all problems at once.

use http::{HeaderName, Method};

use super::{
    PathSpec, Pattern, Problem, Spec,
    rule::{CookieName, Host, Rule},
};
use crate::{
    request::{graphql, query, source::Source},
    route::template::{Template, TemplateError},
};

/// How deep `not` may stand in `not`.
const NOT_DEPTH_MAX: usize = 4;

impl Rule {
    pub(super) fn compile(spec: &Spec) -> Result<Self, Vec<Problem>> {
        let mut report = Report { at: String::new(), depth: 0, problems: Vec::new() };
        let rule = report.rule(spec);
        if report.problems.is_empty() { Ok(rule) } else { Err(report.problems) }
    }
}

struct Report {
    /// `not.` for each level.
    at: String,
    depth: usize,
    problems: Vec<Problem>,
}

impl Report {
    fn rule(&mut self, spec: &Spec) -> Rule {
        self.conditions(spec);
        Rule {
            methods: self.each("methods", &spec.methods, |method| {
                Method::from_bytes(method.as_bytes())
                    .map(|_| method.clone())
                    .map_err(|_| format!("`{method}` is not a method (RFC 9110 section 9.1)"))
            }),
            hosts: self.each("hosts", &spec.hosts, |host| {
                Host::parse(host).ok_or_else(|| {
                    format!("`{host}` is not a host: `shop.example` or `*.shop.example`, no port")
                })
            }),
            path: self
                .each("path", spec.path.as_slice(), |path| compile_path(path).map_err(|error| chain(&error)))
                .pop(),
            content_type: self.each("content_type", &spec.content_type, |kind| match is_media_type(kind) {
                true => Ok(kind.clone()),
                false => Err(format!(
                    "`{kind}` is not a media type: `application/json` or `multipart/*`, without parameters"
                )),
            }),
            query: spec
                .query
                .iter()
                .map(|(name, one)| (query::php_name(name.as_bytes()).into_owned(), one.clone()))
                .collect(),
            headers: self.headers(&spec.headers),
            cookies: spec.cookies.iter().map(|(name, one)| (CookieName::parse(name), one.clone())).collect(),
            form: spec.form.clone(),
            json: spec.json.clone(),
            sources: self.sources(&spec.sources),
            graphql_mutation: self.each("graphql_mutation", &spec.graphql_mutation, |name| {
                match name == "*" || graphql::is_name(name) {
                    true => Ok(name.clone()),
                    false => Err(format!("`{name}` is not a name of GraphQL, nor `*` for any mutation")),
                }
            }),
            not: spec.not.as_deref().and_then(|not| self.not(not)),
        }
    }

    /// What the names of conditions have to be.
    fn conditions(&mut self, spec: &Spec) {
        for (field, conditions) in [("query", &spec.query), ("form", &spec.form), ("cookies", &spec.cookies)]
        {
            if conditions.iter().any(|(name, _)| name.is_empty()) {
                self.report(field, "a condition needs a name".to_owned());
            }
        }
        for (pointer, _) in &spec.json {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                let message = "a JSON pointer begins with a slash (RFC 6901 section 3)".to_owned();
                self.report(&format!("json.{pointer}"), message);
            }
        }
    }

    fn not(&mut self, spec: &Spec) -> Option<Box<Rule>> {
        if self.depth == NOT_DEPTH_MAX {
            self.report("not", "`not` stands too deep in itself".to_owned());
            return None;
        }
        let outer = self.at.len();
        self.at.push_str("not.");
        self.depth += 1;
        let rule = self.rule(spec);
        self.depth -= 1;
        self.at.truncate(outer);
        Some(Box::new(rule))
    }

    fn headers(&mut self, typed: &[(String, Pattern)]) -> Vec<(HeaderName, Pattern)> {
        let mut compiled = Vec::with_capacity(typed.len());
        for (name, pattern) in typed {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => compiled.push((name, pattern.clone())),
                Err(_) => {
                    let message = "this is not a header name (RFC 9110 section 5.1)".to_owned();
                    self.report(&format!("headers.{name}"), message);
                }
            }
        }
        compiled
    }

    fn sources(&mut self, typed: &[(String, Pattern)]) -> Vec<(Source, Pattern)> {
        let mut compiled = Vec::with_capacity(typed.len());
        for (text, pattern) in typed {
            let field = format!("sources.{text}");
            match Source::parse(text) {
                Ok(_) if text.starts_with("path:") => {
                    let message =
                        "what the path captures is not known before the route matches: write it in `path`";
                    self.report(&field, message.to_owned());
                }
                Ok(source) => compiled.push((source, pattern.clone())),
                Err(problem) => self.report(&field, problem.to_string()),
            }
        }
        compiled
    }

    fn each<T, U>(&mut self, field: &str, typed: &[T], compile: impl Fn(&T) -> Result<U, String>) -> Vec<U> {
        let mut compiled = Vec::with_capacity(typed.len());
        for one in typed {
            match compile(one) {
                Ok(one) => compiled.push(one),
                Err(message) => self.report(field, message),
            }
        }
        compiled
    }

    fn report(&mut self, field: &str, message: String) {
        self.problems.push(Problem { field: format!("{}{field}", self.at), message });
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
            Some(prefix) => Self::Prefix(query::php_name(prefix.as_bytes()).into_owned()),
            None => Self::Exact(query::php_name(text.as_bytes()).into_owned()),
        }
    }
}
