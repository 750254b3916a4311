//! Canonical bodies and queries: equal for two copies of one request, different for any two that a shop could tell
//! apart.
//!
//! JSON members are sorted by name, form fields by the variable that PHP stores them in, multipart loses its
//! boundary. Everything that is fed to a digest carries a type tag and its length, so no two different bodies run
//! into the same bytes. What cannot be read is fed as it came; nothing is ever repaired.

use std::{borrow::Cow, fmt::Write};

use smallvec::SmallVec;

use super::{
    body::Content,
    fingerprint::Digest,
    json::{Document, Pointer, Shape},
    multipart::{Multipart, Transfer},
    query::{self, Pair},
    source::{SourceProblem, parse_pointer},
};

/// Something that is left out of the fingerprint because it differs between two copies of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignore {
    text: String,
    target: Target,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    Form(Name),
    Query(Name),
    Json(Pointer),
    /// Headers and cookies are not part of a fingerprint in the first place.
    Outside,
}

/// A field by its whole PHP name, or all whose PHP name begins so.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Name {
    Whole(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Ignore {
    /// `form:name`, `form:prefix*`, `form:a[b]`, `json:/pointer` (`*` for each item), `query:name`, `query:prefix*`,
    /// `header:…`, `cookie:…`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, SourceProblem> {
        let (kind, name) = text.split_once(':').ok_or_else(|| SourceProblem::NoKind(text.to_owned()))?;
        if name.is_empty() && kind != "json" {
            return Err(SourceProblem::NoName(kind.to_owned()));
        }
        let target = match kind {
            "form" if name == "*" => return Err(SourceProblem::IgnoresAll(text.to_owned())),
            "form" => Target::Form(Name::parse(name)),
            "query" => Target::Query(Name::parse(name)),
            "json" => match parse_pointer(name)? {
                whole if whole.is_whole() => return Err(SourceProblem::IgnoresAll(text.to_owned())),
                pointer => Target::Json(pointer),
            },
            "header" | "cookie" => Target::Outside,
            "path" => return Err(SourceProblem::NotIgnorable(text.to_owned())),
            other => return Err(SourceProblem::UnknownKind(other.to_owned())),
        };
        Ok(Self { text: text.to_owned(), target })
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the operator should know about this rule, where it does nothing.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        matches!(self.target, Target::Outside).then_some(
            "headers and cookies are not part of the fingerprint, except those that identity, order or event name; \
             this rule changes nothing",
        )
    }

    fn is_form(&self, php_name: &[u8]) -> bool {
        matches!(&self.target, Target::Form(name) if name.is(php_name))
    }

    fn is_query(&self, php_name: &[u8]) -> bool {
        matches!(&self.target, Target::Query(name) if name.is(php_name))
    }
}

impl Name {
    fn parse(text: &str) -> Self {
        let php = |text: &str| query::php_name(text.as_bytes()).into_owned();
        match text.strip_suffix('*') {
            // The letters that PHP replaces are replaced; an open bracket of a prefix stays what it is.
            Some(prefix) => match prefix.split_once('[') {
                Some((head, rest)) => Self::Prefix([&php(head), b"[".as_slice(), rest.as_bytes()].concat()),
                None => Self::Prefix(php(prefix)),
            },
            None => Self::Whole(php(text)),
        }
    }

    fn is(&self, php_name: &[u8]) -> bool {
        match self {
            Self::Whole(name) => name == php_name,
            Self::Prefix(prefix) => php_name.starts_with(prefix),
        }
    }
}

/// Feeds a body to a digest.
pub(super) fn feed(content: &Content, ignore: &[Ignore], digest: &mut Digest) {
    match content {
        Content::Empty => digest.tag(b'-'),
        Content::Json(document) => {
            digest.tag(b'J');
            let skip = skipped_nodes(document, ignore);
            feed_json(document, document.root(), &skip, digest);
        }
        Content::Form(raw) => {
            digest.tag(b'F');
            feed_pairs(
                sorted(query::pairs(raw), |name| ignore.iter().any(|rule| rule.is_form(name))),
                digest,
            );
        }
        Content::Multipart(multipart) => {
            digest.tag(b'M');
            feed_multipart(multipart, ignore, digest);
        }
        Content::Raw(raw) | Content::Unreadable { raw, .. } => {
            digest.tag(b'R');
            digest.part(raw);
        }
    }
}

/// Feeds a query to a digest.
pub(super) fn feed_query(raw: &str, ignore: &[Ignore], digest: &mut Digest) {
    if query::is_overlong(raw.as_bytes()) {
        digest.tag(b'R');
        digest.part(raw.as_bytes());
        return;
    }
    digest.tag(b'F');
    feed_pairs(query_pairs(raw, ignore), digest);
}

/// The canonical body as text, for people. Unlike what a digest is fed it is not free of collisions.
#[must_use]
pub fn print(content: &Content, ignore: &[Ignore]) -> String {
    let mut out = String::new();
    match content {
        Content::Empty => {}
        Content::Json(document) => {
            let skip = skipped_nodes(document, ignore);
            print_json(document, document.root(), &skip, &mut out);
        }
        Content::Form(raw) => {
            print_pairs(
                sorted(query::pairs(raw), |name| ignore.iter().any(|rule| rule.is_form(name))),
                &mut out,
            );
        }
        Content::Multipart(multipart) => {
            for part in sorted_parts(multipart, ignore) {
                push_line(&part.name, &part.content, &mut out);
            }
        }
        Content::Raw(raw) | Content::Unreadable { raw, .. } => {
            let _ = write!(out, "{} bytes as they came", raw.len());
        }
    }
    out
}

/// The query as it is fingerprinted, one pair a line.
#[must_use]
pub fn print_query(raw: &str, ignore: &[Ignore]) -> String {
    let mut out = String::new();
    if query::is_overlong(raw.as_bytes()) {
        let _ = write!(out, "{} bytes as they came", raw.len());
    } else {
        print_pairs(query_pairs(raw, ignore), &mut out);
    }
    out
}

fn query_pairs<'a>(raw: &'a str, ignore: &[Ignore]) -> Vec<Pair<'a>> {
    sorted(query::pairs(raw.as_bytes()), |name| ignore.iter().any(|rule| rule.is_query(name)))
}

/// Sorts by the variable that PHP stores a field in and keeps the order within one variable: there the last one
/// wins, and the order of an array's items can matter. The names stay as they were sent, for readers other than PHP.
fn sorted<'a>(pairs: impl Iterator<Item = Pair<'a>>, is_ignored: impl Fn(&[u8]) -> bool) -> Vec<Pair<'a>> {
    let mut keyed: Vec<(Cow<'a, [u8]>, Pair<'a>)> = Vec::with_capacity(32);
    for pair in pairs {
        let php_name = php_name_of(&pair.0);
        if !is_ignored(&php_name) {
            keyed.push((php_name, pair));
        }
    }
    keyed.sort_by(|one, other| query::base(&one.0).cmp(query::base(&other.0)));
    keyed.into_iter().map(|(_, pair)| pair).collect()
}

fn php_name_of<'a>(name: &Cow<'a, [u8]>) -> Cow<'a, [u8]> {
    match name {
        Cow::Borrowed(name) => query::php_name(name),
        Cow::Owned(name) => Cow::Owned(query::php_name(name).into_owned()),
    }
}

fn sorted_parts<'a>(multipart: &'a Multipart, ignore: &[Ignore]) -> Vec<&'a super::multipart::Part> {
    let mut keyed: Vec<_> = multipart
        .parts()
        .iter()
        .map(|part| (query::php_name(&part.name), part))
        .filter(|(name, _)| !ignore.iter().any(|rule| rule.is_form(name)))
        .collect();
    keyed.sort_by(|one, other| query::base(&one.0).cmp(query::base(&other.0)));
    keyed.into_iter().map(|(_, part)| part).collect()
}

fn feed_pairs(pairs: Vec<Pair<'_>>, digest: &mut Digest) {
    for (name, value) in pairs {
        digest.tag(b'p');
        digest.part(&name);
        digest.part(&value);
    }
    digest.tag(b'.');
}

fn feed_multipart(multipart: &Multipart, ignore: &[Ignore], digest: &mut Digest) {
    for part in sorted_parts(multipart, ignore) {
        digest.tag(b'p');
        digest.part(&part.name);
        digest.option(part.filename.as_deref());
        digest.option(part.media_type.as_deref());
        digest.tag(match part.transfer {
            Transfer::AsItIs => b'a',
            Transfer::Encoded => b'e',
        });
        digest.part(&part.content);
    }
    digest.tag(b'.');
}

/// The nodes that are left out, sorted.
fn skipped_nodes(document: &Document, ignore: &[Ignore]) -> SmallVec<[u32; 8]> {
    let mut skip = SmallVec::new();
    for rule in ignore {
        if let Target::Json(pointer) = &rule.target {
            skip.extend(document.matches(pointer));
        }
    }
    skip.sort_unstable();
    skip
}

type Members<'a> = SmallVec<[(Cow<'a, [u8]>, u32); 8]>;

/// Members by name. The sort is stable, so that two of one name keep their order and both count.
fn sorted_members<'a>(document: &'a Document, object: u32, skip: &[u32]) -> Members<'a> {
    let mut members: Members<'_> =
        document.members(object).filter(|(_, value)| skip.binary_search(value).is_err()).collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    members
}

/// The recursion is bounded by `json::DEPTH_MAX`. An ignored member is gone; an ignored item of an array leaves its
/// place, because the places of the others mean something.
fn feed_json(document: &Document, node: u32, skip: &[u32], digest: &mut Digest) {
    match document.shape(node) {
        Shape::Null => digest.tag(b'0'),
        Shape::Bool(true) => digest.tag(b't'),
        Shape::Bool(false) => digest.tag(b'f'),
        Shape::Number(text) => digest.tagged(b'n', text),
        Shape::Text(text) => digest.tagged(b's', &text),
        Shape::Array => {
            digest.tag(b'[');
            for item in document.items(node) {
                if skip.binary_search(&item).is_ok() {
                    digest.tag(b'i');
                } else {
                    feed_json(document, item, skip, digest);
                }
            }
            digest.tag(b']');
        }
        Shape::Object => {
            digest.tag(b'{');
            for (name, value) in sorted_members(document, node, skip) {
                digest.tagged(b'm', &name);
                feed_json(document, value, skip, digest);
            }
            digest.tag(b'}');
        }
    }
}

fn print_json(document: &Document, node: u32, skip: &[u32], out: &mut String) {
    match document.shape(node) {
        Shape::Null => out.push_str("null"),
        Shape::Bool(true) => out.push_str("true"),
        Shape::Bool(false) => out.push_str("false"),
        Shape::Number(text) => out.push_str(&String::from_utf8_lossy(text)),
        Shape::Text(text) => push_quoted(&text, out),
        Shape::Array => {
            out.push('[');
            for (index, item) in document.items(node).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                if skip.binary_search(&item).is_err() {
                    print_json(document, item, skip, out);
                }
            }
            out.push(']');
        }
        Shape::Object => {
            out.push('{');
            for (index, (name, value)) in sorted_members(document, node, skip).into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_quoted(&name, out);
                out.push(':');
                print_json(document, value, skip, out);
            }
            out.push('}');
        }
    }
}

fn print_pairs(pairs: Vec<Pair<'_>>, out: &mut String) {
    for (name, value) in pairs {
        push_line(&name, &value, out);
    }
}

fn push_line(name: &[u8], value: &[u8], out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    push_escaped(name, out);
    out.push('=');
    push_escaped(value, out);
}

fn push_quoted(text: &[u8], out: &mut String) {
    out.push('"');
    for char in String::from_utf8_lossy(text).chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn push_escaped(text: &[u8], out: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        if char.is_control() { out.extend(char.escape_default()) } else { out.push(char) }
    }
}
