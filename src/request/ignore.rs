//! What the fingerprint leaves out, in a body or in a text that stands in one of its values.
//!
//! `json:/form_encoded|form:_wpnonce` leaves a field out of an urlencoded form that is a string of a JSON body. Such a
//! string is put in a canonical form of its own first: what it was read as, and what is left of it, so that it can
//! equal no other text. One that cannot be read counts as it came.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    json::{Document, Pointer},
    query,
    source::{SourceProblem, parse_pointer},
};

/// How many texts may stand in each other.
const NESTED_MAX: usize = 4;

/// Something that is left out of the fingerprint because it differs between two copies of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignore {
    text: String,
    rule: Rule,
}

/// What is left out, or whose text it stands in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    place: Place,
    inside: Option<Box<Rule>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Form(Name),
    Query(Name),
    Json(Pointer),
    /// Headers and cookies are not part of a fingerprint in the first place.
    Outside,
}

/// A field by its whole PHP name, or all whose PHP name begins so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Whole(Vec<u8>),
    Prefix(Vec<u8>),
}

impl Ignore {
    /// `form:name`, `form:prefix*`, `form:a[b]`, `json:/pointer` (`*` for each item), `query:name`, `query:prefix*`,
    /// `header:…`, `cookie:…`; behind the first, after a `|` each, `json:/pointer` and `form:name` go into its text.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, SourceProblem> {
        let pieces: Vec<&str> = text.split('|').collect();
        if pieces.len() > NESTED_MAX {
            return Err(SourceProblem::TooManySteps(text.to_owned()));
        }
        let mut rule: Option<Box<Rule>> = None;
        for (index, piece) in pieces.iter().enumerate().rev() {
            let place = Place::parse(text, piece)?;
            let is_text = matches!(place, Place::Form(_) | Place::Json(_) | Place::Query(_));
            if (rule.is_some() && !is_text)
                || (index > 0 && !matches!(place, Place::Form(_) | Place::Json(_)))
            {
                return Err(SourceProblem::NotIgnorable(text.to_owned()));
            }
            rule = Some(Box::new(Rule { place, inside: rule }));
        }
        // A text has at least one piece.
        rule.map(|rule| Self { text: text.to_owned(), rule: *rule })
            .ok_or_else(|| SourceProblem::NoKind(text.to_owned()))
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the operator should know about this rule, where it does nothing.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        matches!(self.rule.place, Place::Outside).then_some(
            "headers and cookies are not part of the fingerprint, except those that identity, order or event name; \
             this rule changes nothing",
        )
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }
}

impl Place {
    fn parse(whole: &str, piece: &str) -> Result<Self, SourceProblem> {
        let (kind, name) = piece.split_once(':').ok_or_else(|| SourceProblem::NoKind(piece.to_owned()))?;
        if name.is_empty() && kind != "json" {
            return Err(SourceProblem::NoName(kind.to_owned()));
        }
        Ok(match kind {
            "form" if name == "*" => return Err(SourceProblem::IgnoresAll(whole.to_owned())),
            "form" => Self::Form(Name::parse(name)),
            "query" => Self::Query(Name::parse(name)),
            "json" => match parse_pointer(name)? {
                pointer if pointer.is_whole() => return Err(SourceProblem::IgnoresAll(whole.to_owned())),
                pointer => Self::Json(pointer),
            },
            "header" | "cookie" => Self::Outside,
            "path" | "xml" | "graphql" | "jwt" | "segment" => {
                return Err(SourceProblem::NotIgnorable(whole.to_owned()));
            }
            other => return Err(SourceProblem::UnknownKind(other.to_owned())),
        })
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

    pub(super) fn is(&self, php_name: &[u8]) -> bool {
        match self {
            Self::Whole(name) => name == php_name,
            Self::Prefix(prefix) => php_name.starts_with(prefix),
        }
    }
}

/// What becomes of one field of a form or a query.
pub(super) enum Field {
    Ignored,
    AsItIs,
    /// Its text in a canonical form.
    Inside(Cow<'static, [u8]>),
}

/// Which fields are meant: those of a body, or those of the query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Form,
    Query,
}

/// What the rules make of a field.
pub(super) fn field<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    of: Of,
    php_name: &[u8],
    value: &[u8],
) -> Field {
    let mut inside: Vec<&Rule> = Vec::new();
    for rule in rules {
        let name = match (&rule.place, of) {
            (Place::Form(name), Of::Form) | (Place::Query(name), Of::Query) => name,
            _ => continue,
        };
        match &rule.inside {
            _ if !name.is(php_name) => {}
            None => return Field::Ignored,
            Some(inner) => inside.push(inner),
        }
    }
    if inside.is_empty() { Field::AsItIs } else { Field::Inside(Cow::Owned(text(value, &inside))) }
}

/// The one text that all spellings of a document have, without what is ignored; see [`Document::canonical`].
pub(super) fn json<'a>(document: &'a Document, rules: &[&Rule]) -> Cow<'a, [u8]> {
    match texts_in(document, rules) {
        None => document.canonical(&skipped(document, rules)),
        Some(changed) => Cow::Owned(changed.canonical(&skipped(&changed, rules)).into_owned()),
    }
}

fn skipped(document: &Document, rules: &[&Rule]) -> Vec<u32> {
    let mut skip = Vec::new();
    for rule in rules {
        if let (Place::Json(pointer), None) = (&rule.place, &rule.inside) {
            skip.extend(document.matches(pointer));
        }
    }
    skip.sort_unstable();
    skip
}

/// The same document with a canonical text in the place of each string that a rule goes into; `None` where there is
/// no such string.
fn texts_in(document: &Document, rules: &[&Rule]) -> Option<Document> {
    let mut hosts: Vec<(u32, &Rule)> = Vec::new();
    for rule in rules {
        if let (Place::Json(pointer), Some(inner)) = (&rule.place, &rule.inside) {
            hosts.extend(document.matches(pointer).into_iter().map(|node| (node, &**inner)));
        }
    }
    hosts.sort_by_key(|(node, _)| *node);
    let mut changes: Vec<(u32, String)> = Vec::new();
    for same in hosts.chunk_by(|one, other| one.0 == other.0) {
        let inner: Vec<&Rule> = same.iter().map(|(_, rule)| *rule).collect();
        if let Some(string) = document.string_at(same[0].0) {
            changes.push((same[0].0, plain(&text(string, &inner))));
        }
    }
    if changes.is_empty() {
        return None;
    }
    // It was JSON, and strings were exchanged for strings; within the bounds, where a text has grown, or as it came.
    Document::parse(document.with_strings(&changes).into()).ok()
}

/// A text in a value: what it is read as, a colon, and what is left of it.
fn text(value: &[u8], rules: &[&Rule]) -> Vec<u8> {
    let has = |wanted: fn(&Place) -> bool| rules.iter().any(|rule| wanted(&rule.place));
    if has(|place| matches!(place, Place::Json(_)))
        && matches!(value.trim_ascii_start().first(), Some(b'{' | b'['))
        && let Ok(document) = Document::parse(Bytes::copy_from_slice(value))
    {
        return [b"json:".as_slice(), &json(&document, rules)].concat();
    }
    if has(|place| matches!(place, Place::Form(_))) && !query::is_overlong(value) {
        return [b"form:".as_slice(), &form(value, rules)].concat();
    }
    [b"text:".as_slice(), value].concat()
}

/// The fields that are left, sorted as the fields of a body are, with `&`, `=` and `%` escaped in names and values.
fn form(raw: &[u8], rules: &[&Rule]) -> Vec<u8> {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in query::pairs(raw) {
        let php_name = query::php_name(&name);
        let value = match field(rules.iter().copied(), Of::Form, &php_name, &value) {
            Field::Ignored => continue,
            Field::AsItIs => value,
            Field::Inside(text) => text,
        };
        let mut pair = escaped(&name, b"&=%");
        pair.push(b'=');
        pair.extend(escaped(&value, b"&=%"));
        fields.push((query::base(&php_name).to_vec(), pair));
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().join(&b'&')
}

/// A text that can be a string of JSON. What is no UTF-8 is escaped as in a URL, and so is the letter that does that.
fn plain(text: &[u8]) -> String {
    let mut plain = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        plain.push_str(&chunk.valid().replace('%', "%25"));
        plain.push_str(&String::from_utf8_lossy(&escaped(chunk.invalid(), chunk.invalid())));
    }
    plain
}

fn escaped(text: &[u8], letters: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if letters.contains(&byte) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{
        canonical,
        sample::{Sample, ignore},
    };
    use super::*;

    fn print(sample: &Sample, rules: &[&str]) -> String {
        canonical::print(&sample.content(), &ignore(rules))
    }

    fn host(text: &str) -> Sample {
        Sample::json(serde_json::json!({ "nonce": "a", "form_encoded": text }).to_string())
    }

    #[test]
    fn a_form_in_a_string_of_json_is_read_and_its_volatile_fields_are_left_out() {
        let rules = ["json:/nonce", "json:/form_encoded|form:_wpnonce", "json:/form_encoded|form:wc_order_*"];
        let first = print(&host("wc_order_pages=4&billing_city=Paris&_wpnonce=a1"), &rules);
        assert_eq!(first, r#"{"form_encoded":"form:billing_city=Paris"}"#);
        assert_eq!(first, print(&host("_wpnonce=ff&billing_city=%50aris&wc_order_count=2"), &rules));
        assert_ne!(first, print(&host("billing_city=Lyon"), &rules));
        assert_ne!(first, print(&host("form:billing_city=Paris"), &rules));
        assert_ne!(first, print(&host("billing_city%3DParis="), &rules));
    }

    #[test]
    fn json_in_a_field_of_a_form_is_read_and_its_members_are_left_out() {
        let rules = ["form:custom|json:/at", "query:state|json:/t"];
        let form = |custom: &str| print(&Sample::form(format!("id=7&custom={custom}")), &rules);
        let first = form("%7B%22order%22%3A1%2C%22at%22%3A5%7D");
        assert_eq!(first, "custom=json:{\"order\":1}\nid=7");
        assert_eq!(first, form("%7B%22at%22%3A6%2C%20%22order%22%3A1%7D"));
        assert_ne!(first, form("%7B%22order%22%3A2%7D"));
        assert_ne!(
            first,
            form("json:%7B%22order%22%3A1%7D"),
            "whoever writes the form of it means another text"
        );
        assert_eq!(form("free+text"), "custom=text:free text\nid=7");
        let query = canonical::print_query("state=%7B%22t%22%3A1%7D&a=1", &ignore(&rules));
        assert_eq!(query, "a=1\nstate=json:{}");
    }

    #[test]
    fn texts_stand_in_texts_up_to_a_bound() {
        let inner = serde_json::json!({ "t": 1, "id": "x" }).to_string();
        let message = serde_json::json!({ "Message": format!("data={inner}&n=1") }).to_string();
        let told = print(&Sample::json(message), &["json:/Message|form:data|json:/t"]);
        assert_eq!(told, r#"{"Message":"form:data=json:{\"id\":\"x\"}&n=1"}"#);
        assert!(Ignore::parse("json:/a|json:/a|json:/a|json:/a|json:/a").is_err());
        for wrong in
            ["header:a|json:/a", "form:a|query:b", "form:a|segment:0", "form:a|json:", "form:a|form:*"]
        {
            assert!(Ignore::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_a_string_stays_what_it_is() {
        let rules = ["json:/a|json:/t"];
        assert_eq!(print(&Sample::json(r#"{"a":{"t":1}}"#), &rules), r#"{"a":{"t":1}}"#);
        assert_eq!(print(&Sample::json(r#"{"a":7}"#), &rules), r#"{"a":7}"#);
        assert_ne!(
            print(&Sample::json(r#"{"a":"{\"t\":1}"}"#), &rules),
            print(&Sample::json(r#"{"a":{}}"#), &rules)
        );
    }

    #[test]
    fn half_a_surrogate_pair_in_a_text_equals_nothing_else() {
        let rules = ["json:/a|form:t"];
        let one = print(&Sample::json(r#"{"a":"x=\ud800"}"#), &rules);
        assert_ne!(one, print(&Sample::json(r#"{"a":"x=\ud801"}"#), &rules));
        assert_ne!(one, print(&Sample::json(r#"{"a":"x=%25ED%25A0%2580"}"#), &rules));
    }

    proptest! {
        #[test]
        fn two_texts_have_one_form_only_if_they_differ_in_what_is_ignored(
            one in "[ab%=&{}\":1]{0,8}",
            other in "[ab%=&{}\":1]{0,8}",
        ) {
            let read = |text: &str| -> Vec<(Vec<u8>, Vec<u8>)> {
                let mut pairs: Vec<_> = query::pairs(text.as_bytes())
                    .map(|(name, value)| (name.into_owned(), value.into_owned()))
                    .filter(|(name, _)| &*query::php_name(name) != b"a".as_slice())
                    .collect();
                pairs.sort_by_key(|(name, _)| query::base(&query::php_name(name)).to_vec());
                pairs
            };
            let rules = ["json:/form_encoded|form:a"];
            prop_assert_eq!(read(&one) == read(&other), print(&host(&one), &rules) == print(&host(&other), &rules));
        }

        #[test]
        fn no_rule_and_no_text_make_it_panic(
            rule in r"(json|form|query):[/ab*]{0,4}(\|(json|form|jwt):[/ab*]{0,4}){0,3}",
            text in "[ab%=&{}\\[\\]\":1\\\\]{0,16}",
        ) {
            if let Ok(rule) = Ignore::parse(&rule) {
                let rules = [rule];
                let _ = canonical::print(&host(&text).content(), &rules);
                let _ = canonical::print(&Sample::form(text.clone()).content(), &rules);
                let _ = canonical::print_query(&text, &rules);
            }
        }
    }
}
