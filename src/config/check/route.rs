//! `[[route]]` and `[[renew]]`: which requests, which shop.

use std::collections::HashMap;

use super::{Shared, guard, keys, sense, shadow, verify};
use crate::{
    config::{
        Guard, RenewOn, Renewal, Route,
        file::{Kind, Table, Value, one_line},
        problem::At,
        reader::Reader,
        suggest,
    },
    request::source::Source,
    route::matcher::{Matcher, PathSpec, Pattern, Spec},
};

/// Bytes of a compiled expression; see the `regex` crate's own limit of the same meaning.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A match as it was typed, and what it says about the keys that can be read.
pub(super) struct Match {
    pub spec: Spec,
    /// The names that the path captures; `None` where the path itself is wrong, so that nothing can be said.
    pub params: Option<Vec<String>>,
    pub at: At,
}

/// The routes in their order; `None` where one could not be made.
pub(super) fn routes(root: &Reader<'_>, shared: &Shared<'_>) -> Option<Vec<Route>> {
    let readers = root.tables("route");
    if root.value("route").is_none() {
        let follows = "every request would be answered with 404 no-route";
        let mend = "write [[route]] with name and upstream; without a match it takes everything";
        root.report().missing(&root.at, "there is no [[route]]", follows, mend);
    }
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut all_taken_by: Option<String> = None;
    let mut before: Vec<(String, &Table)> = Vec::new();
    let mut routes = Vec::new();
    let mut guards = 0;
    let count = readers.len();
    for (index, reader) in readers.into_iter().enumerate() {
        let name = name(&reader, "log and metrics could not say which route it was");
        if !name.is_empty() && names.insert(name.clone(), index).is_some() {
            let what = format!("two routes are called `{name}`");
            let follows = "log, metrics and fingerprints could not tell them apart";
            reader.report().error(&reader.at_value("name"), what, follows, "rename one of them");
        }
        if let Some(first) = &all_taken_by {
            let what = format!("the route `{name}` can never match: `{first}` before it has no match");
            let follows = format!("`{first}` takes every request");
            let mend = format!("move `{first}` to the end, or give it a [route.match]");
            reader.report().error(&reader.at, what, follows, mend);
        } else {
            shadowed(&reader, &name, &before);
        }
        if let Some(matched) = typed_match(&reader) {
            before.push((name.clone(), matched));
        }
        let (route, has_match) = route(&reader, shared, name.clone());
        if !has_match && all_taken_by.is_none() {
            all_taken_by = Some(name);
        }
        routes.push(route);
        guards += usize::from(reader.value("guard").is_some());
        reader.finish();
        if index + 1 == count && all_taken_by.is_none() {
            let follows = "what no route matches is answered with 404 no-route, pages of the shop included";
            let mend = "if that is not meant, add a last [[route]] without a match";
            reader.report().warning(&reader.at, "the last route has a match", follows, mend);
        }
    }
    if count > 0 && guards == 0 && !root.report().is_torn() {
        let follows = "everything is passed through, and what is sent twice arrives twice";
        let mend = "give the route that takes orders a [route.guard], in a file for --config";
        root.report().warning(&root.at_key("route"), "no route has a guard", follows, mend);
    }
    routes.into_iter().collect()
}

/// The `[route.match]` as it was typed, where it asks for anything.
fn typed_match<'a>(reader: &Reader<'a>) -> Option<&'a Table> {
    match &reader.value("match")?.kind {
        Kind::Table(table) if !table.entries.is_empty() => Some(table),
        _ => None,
    }
}

/// Tells of a route that one before it leaves nothing for.
fn shadowed(reader: &Reader<'_>, name: &str, before: &[(String, &Table)]) {
    let Some(matched) = typed_match(reader) else { return };
    let Some((first, typed)) = before.iter().find(|(_, before)| shadow::takes_all(before, matched)) else {
        return;
    };
    let what = match shadow::is_same_table(typed, matched) {
        true => format!("the route `{name}` can never match: `{first}` before it has the same match"),
        false => format!("the route `{name}` can never match: `{first}` before it takes all that it would"),
    };
    let follows = match reader.value("guard") {
        Some(_) => "its guard protects nothing",
        None => "nothing goes by it",
    };
    let mend = format!("move `{name}` before `{first}`, or take one of them out");
    reader.report().warning(&reader.at, what, follows, mend);
}

fn route(reader: &Reader<'_>, shared: &Shared<'_>, name: String) -> (Option<Route>, bool) {
    let upstream = upstream_index(reader, shared);
    reader.unavailable(
        "preset",
        "write [route.match] and [route.guard] out; the README has them for known shops",
    );
    let matched = reader.table("match").map(|table| read_match(&table));
    let has_match = matched.as_ref().is_some_and(|matched| !is_empty(&matched.spec));
    let matched = matched.unwrap_or_else(|| Match {
        spec: Spec::default(),
        params: Some(Vec::new()),
        at: reader.at.clone(),
    });
    let matcher = build(reader, &matched, "match");
    let verify = verify::verify(reader);
    let guard = reader.table("guard").map(|table| Guard {
        verify,
        ..guard::guard(&table, shared, &guard::Place { route: &name, upstream, matched: &matched })
    });
    if let Some(guard) = &guard {
        sense::of(reader, guard);
    }
    let route = match (upstream, matcher) {
        (Some(upstream), Some(matcher)) => Some(Route { name, upstream, matcher, has_match, guard }),
        _ => None,
    };
    (route, has_match)
}

/// The renew rules; `None` where one could not be made.
pub(super) fn renewals(root: &Reader<'_>, shared: &Shared<'_>) -> Option<Vec<Renewal>> {
    root.tables("renew").into_iter().map(|reader| renewal(&reader, shared)).collect()
}

fn renewal(reader: &Reader<'_>, shared: &Shared<'_>) -> Option<Renewal> {
    let upstream = upstream_index(reader, shared);
    let request = reader.table("request").map(|table| read_match(&table));
    let params = match &request {
        Some(matched) => matched.params.clone(),
        None => Some(Vec::new()),
    };
    let identity = keys::renew_identity(reader, params.as_deref());
    let answer = reader.table("answer").map(|table| answer(&table));
    reader.finish();
    let on = match (request, answer) {
        (Some(matched), None) => {
            if is_empty(&matched.spec) {
                let follows = "every request would begin a new purchase, so that nothing is ever replayed";
                reader.report().error(&matched.at, "`request` has no condition", follows, "name a path");
            }
            no_body(reader, &matched.spec, "request");
            RenewOn::Request(Box::new(build(reader, &matched, "request")?))
        }
        (None, Some(answer)) => RenewOn::Answer { set_cookie: answer? },
        (Some(_), Some(_)) => {
            let mend = "write two [[renew]], one for each";
            reader.report().error(&reader.at, "[[renew]] has both `request` and `answer`", "", mend);
            return None;
        }
        (None, None) => {
            let mend = "write answer = { set_cookie = \"…\" } or request = { path = \"…\" }";
            let follows = "it would never happen";
            reader.report().missing(
                &reader.at,
                "[[renew]] has neither `request` nor `answer`",
                follows,
                mend,
            );
            return None;
        }
    };
    Some(Renewal { upstream: upstream?, identity, on })
}

/// A renew rule looks at all traffic of its upstream, and what has no guard is streamed and not read.
fn no_body(reader: &Reader<'_>, spec: &Spec, field: &str) {
    let reads_body =
        |(text, _): &(String, Pattern)| Source::parse(text).is_ok_and(|source| source.reads_body().is_some());
    let reading = [
        ("form", !spec.form.is_empty()),
        ("json", !spec.json.is_empty()),
        ("sources", spec.sources.iter().any(reads_body)),
        ("graphql_mutation", !spec.graphql_mutation.is_empty()),
    ];
    for (key, is_read) in reading {
        if is_read {
            let what = format!("`{field}` of [[renew]] has a condition on `{key}`");
            let follows = "bodies of requests without a guard are not read, so it would never hold";
            let mend = "name path, query, headers or cookies instead, or what the shop answers: \
                answer = { set_cookie = \"…\" }";
            reader.report().error(&locate(reader, &format!("{field}.{key}")), what, follows, mend);
        }
    }
    if let Some(not) = &spec.not {
        no_body(reader, not, &format!("{field}.not"));
    }
}

fn answer(reader: &Reader<'_>) -> Option<regex::bytes::Regex> {
    let example = "write set_cookie = \"a regular expression\"";
    let text = reader.required_text("set_cookie", "it would never happen", example);
    reader.finish();
    let text = text?;
    match regex::bytes::RegexBuilder::new(&text.value).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let what = format!("`set_cookie` is no regular expression: {}", one_line(&error.to_string()));
            reader.report().error(&text.at, what, "", "mend it; single quotes keep backslashes as they are");
            None
        }
    }
}

/// A name that goes into logs, metrics and messages.
pub(super) fn name(reader: &Reader<'_>, follows: &str) -> String {
    const NAME_BYTES_MAX: usize = 64;
    let Some(name) = reader.required_text("name", follows, "write name = \"…\"") else {
        return String::new();
    };
    let plain = name.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    if name.value.is_empty() || name.value.len() > NAME_BYTES_MAX || !plain {
        let what = format!("`{}` cannot be a name", name.value.escape_default());
        let mend = format!("use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` and `/`");
        reader.report().error(&name.at, what, "it goes into logs and metrics", mend);
    }
    name.value
}

fn upstream_index(reader: &Reader<'_>, shared: &Shared<'_>) -> Option<usize> {
    let example = match shared.upstreams {
        [only] => format!("write upstream = \"{}\"", only.name),
        _ => "write upstream = \"…\"".to_owned(),
    };
    let wanted = reader.required_text("upstream", "it is not known where its requests go", &example)?;
    let found = shared.upstreams.iter().position(|upstream| upstream.name == wanted.value);
    if found.is_none() {
        let names = shared.upstreams.iter().map(|upstream| upstream.name.as_str());
        let mend = match suggest::closest(&wanted.value, names.clone()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
        };
        let what = format!("there is no upstream `{}`", wanted.value);
        reader.report().error(&wanted.at, what, "it is not known where its requests go", mend);
    }
    found
}

fn is_empty(spec: &Spec) -> bool {
    let Spec { methods, hosts, path, query, headers, cookies, form, json, .. } = spec;
    let Spec { sources, graphql_mutation, content_type, not, .. } = spec;
    let lists = [query, headers, cookies, form, json, sources];
    methods.is_empty()
        && graphql_mutation.is_empty()
        && hosts.is_empty()
        && path.is_none()
        && lists.iter().all(|list| list.is_empty())
        && content_type.is_empty()
        && not.is_none()
}

/// Reads the keys of `[route.match]`, of `request` in `[[renew]]`, and of `not` in both.
fn read_match(reader: &Reader<'_>) -> Match {
    let (path, params) = read_path(reader);
    let texts = |key| reader.texts(key).into_iter().map(|text| text.value).collect();
    let spec = Spec {
        methods: texts("methods"),
        hosts: texts("hosts"),
        path,
        query: patterns(reader, "query"),
        headers: patterns(reader, "headers"),
        cookies: patterns(reader, "cookies"),
        form: patterns(reader, "form"),
        json: patterns(reader, "json"),
        sources: patterns(reader, "sources"),
        graphql_mutation: texts("graphql_mutation"),
        content_type: texts("content_type"),
        not: reader.table("not").map(|table| Box::new(read_match(&table).spec)),
    };
    empty_lists(reader);
    reader.finish();
    Match { spec, params, at: reader.at.clone() }
}

/// `methods = []` reads as "none" and would work as "any".
fn empty_lists(reader: &Reader<'_>) {
    const KEYS: [&str; 11] = [
        "methods",
        "hosts",
        "content_type",
        "query",
        "headers",
        "cookies",
        "form",
        "json",
        "sources",
        "graphql_mutation",
        "not",
    ];
    for key in KEYS {
        let is_empty = match reader.value(key).map(|value| &value.kind) {
            Some(Kind::Array(items)) => items.is_empty(),
            Some(Kind::Table(table)) => table.entries.is_empty(),
            Some(Kind::Text(_) | Kind::Integer(_) | Kind::Boolean(_) | Kind::Other(_)) | None => false,
        };
        if is_empty {
            let follows = "it is not clear whether that means none or any";
            let mend = "take it out for any";
            reader.report().error(&reader.at_value(key), format!("`{key}` is empty"), follows, mend);
        }
    }
}

fn read_path(reader: &Reader<'_>) -> (Option<PathSpec>, Option<Vec<String>>) {
    let Some(value) = reader.value("path") else { return (None, Some(Vec::new())) };
    match &value.kind {
        Kind::Text(template) => (Some(PathSpec::Template(template.clone())), Some(template_names(template))),
        Kind::Table(_) => {
            let Some(table) = reader.table("path") else { return (None, None) };
            let regex = table.required_text("regex", "", "write path = \"/…\" or path = { regex = \"…\" }");
            table.finish();
            let Some(regex) = regex else { return (None, None) };
            let names = regex::RegexBuilder::new(&regex.value).size_limit(REGEX_BYTES_MAX).build().ok();
            let names = names.map(|regex| regex.capture_names().flatten().map(str::to_owned).collect());
            (Some(PathSpec::Regex(regex.value)), names)
        }
        other => {
            let what = format!("`path` is {}", other.name());
            reader.report().error(&value.at, what, "", "write path = \"/…\" or path = { regex = \"…\" }");
            (None, None)
        }
    }
}

/// The names in `/a/{x}/{y?}/{*rest}`. Whether the template is sound is the matcher's to say.
fn template_names(template: &str) -> Vec<String> {
    let names = template.split('{').skip(1).filter_map(|part| part.split_once('}'));
    names.map(|(name, _)| name.trim_start_matches('*').trim_end_matches('?').to_owned()).collect()
}

fn patterns(reader: &Reader<'_>, key: &'static str) -> Vec<(String, Pattern)> {
    let Some(table) = reader.table(key) else { return Vec::new() };
    let mut patterns = Vec::new();
    for entry in table.entries() {
        if let Some(pattern) = pattern(reader, &entry.key, &entry.value) {
            patterns.push((entry.key.clone(), pattern));
        }
    }
    patterns
}

fn pattern(reader: &Reader<'_>, name: &str, value: &Value) -> Option<Pattern> {
    match &value.kind {
        Kind::Text(text) => match Pattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let what = format!("`{name}`: {}", one_line(&error.to_string()));
                reader.report().error(
                    &value.at,
                    what,
                    "",
                    "write \"*\", the exact value, or \"~\" and an expression",
                );
                None
            }
        },
        Kind::Array(items) if !items.is_empty() => {
            let any: Vec<Pattern> = items.iter().filter_map(|item| pattern(reader, name, item)).collect();
            Some(Pattern::any(any))
        }
        other => {
            let what = format!("`{name}` is {}", other.name());
            let mend =
                "write a text: \"*\", the exact value, or \"~\" and an expression; a list means any of them";
            reader.report().error(&value.at, what, "", mend);
            None
        }
    }
}

/// One line of examples: which of the four it is stands before it, with what is wrong.
const MEND: &str = "write for example path = \"/checkout/{cart}\", hosts = [\"*.shop.example\"], \
    json = { \"/type\" = \"payment\" } or query = { id = \"~^[0-9]+$\" }";

/// Builds the matcher and points its problems at the keys they are about.
fn build(reader: &Reader<'_>, matched: &Match, key: &str) -> Option<Matcher> {
    match Matcher::new(&matched.spec) {
        Ok(matcher) => Some(matcher),
        Err(problems) => {
            for problem in problems {
                let at = locate(reader, &format!("{key}.{}", problem.field));
                let what = format!("`{}`: {}", problem.field, one_line(&problem.message));
                reader.report().error(&at, what, "the route would not match what is meant", MEND);
            }
            None
        }
    }
}

/// Where `a.b.c` stands, as far as it can be followed. Keys may have dots in them.
pub(super) fn locate(reader: &Reader<'_>, field: &str) -> At {
    let mut at = reader.at.clone();
    let mut entries = reader.entries();
    let mut rest = field;
    while let Some(entry) = entries
        .iter()
        .filter(|entry| {
            rest == entry.key || rest.strip_prefix(&entry.key).is_some_and(|r| r.starts_with('.'))
        })
        .max_by_key(|entry| entry.key.len())
    {
        at = entry.value.at.clone();
        rest = rest[entry.key.len()..].trim_start_matches('.');
        match &entry.value.kind {
            Kind::Table(table) => entries = &table.entries,
            _ => break,
        }
    }
    at
}
