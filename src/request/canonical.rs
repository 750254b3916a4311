//! Canonical bodies and queries: equal for two copies of one request, different for any two that a shop could tell
//! apart.
//!
//! JSON is written anew with its members sorted by name, form fields are sorted by the variable that PHP stores them
//! in, multipart loses its boundary. Everything that is fed to a digest carries a type tag and its length, so no two
//! different bodies run into the same bytes. What cannot be read is fed as it came; nothing is ever repaired.

use std::{borrow::Cow, fmt::Write};

pub use super::ignore::Ignore;
use super::{
    body::Content,
    fingerprint::Digest,
    ignore::{self, Field, Of},
    json::Document,
    multipart::{Multipart, Part, Transfer},
    query::{self, Pair},
};

/// Feeds a body to a digest.
pub(super) fn feed(content: &Content, ignore: &[Ignore], digest: &mut Digest<'_>) {
    match content {
        Content::Empty => digest.tag(b'-'),
        Content::Json(document) => {
            digest.tag(b'J');
            digest.part(&json(document, ignore));
        }
        Content::Form(raw) => {
            digest.tag(b'F');
            feed_pairs(sorted(query::pairs(raw), ignore, Of::Form), digest);
        }
        Content::Multipart(multipart) => {
            digest.tag(b'M');
            feed_multipart(multipart, ignore, digest);
        }
        Content::Xml(body) => {
            digest.tag(b'X');
            digest.part(body);
        }
        Content::Raw(raw) | Content::Unreadable { raw, .. } => {
            digest.tag(b'R');
            digest.part(raw);
        }
    }
}

/// Feeds a query to a digest.
pub(super) fn feed_query(raw: &str, ignore: &[Ignore], digest: &mut Digest<'_>) {
    if query::is_overlong(raw.as_bytes()) {
        digest.tag(b'R');
        digest.part(raw.as_bytes());
        return;
    }
    digest.tag(b'F');
    feed_pairs(query_pairs(raw, ignore), digest);
}

/// The canonical body as text, for people: of JSON what a digest is fed, of the rest something shorter.
#[must_use]
pub fn print(content: &Content, ignore: &[Ignore]) -> String {
    let mut out = String::new();
    match content {
        Content::Empty => {}
        Content::Json(document) => {
            push_shown(&json(document, ignore), &mut out);
        }
        Content::Form(raw) => {
            print_pairs(sorted(query::pairs(raw), ignore, Of::Form), &mut out);
        }
        Content::Multipart(multipart) => {
            for (part, content) in sorted_parts(multipart, ignore) {
                push_line(&part.name, &content, &mut out);
            }
        }
        Content::Xml(raw) | Content::Raw(raw) | Content::Unreadable { raw, .. } => {
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

fn query_pairs<'a>(raw: &'a str, ignore: &[Ignore]) -> impl Iterator<Item = Pair<'a>> {
    sorted(query::pairs(raw.as_bytes()), ignore, Of::Query)
}

/// Sorts by the variable that PHP stores a field in and keeps the order within one variable: there the last one
/// wins, and the order of an array's items can matter. The names stay as they were sent, for readers other than PHP.
fn sorted<'a>(
    pairs: impl Iterator<Item = Pair<'a>>,
    ignore: &[Ignore],
    of: Of,
) -> impl Iterator<Item = Pair<'a>> {
    let mut keyed: Vec<(Cow<'a, [u8]>, Pair<'a>)> = Vec::new();
    for (name, value) in pairs {
        let php_name = php_name_of(&name);
        match ignore::field(ignore.iter().map(Ignore::rule), of, &php_name, &value) {
            Field::Ignored => {}
            Field::AsItIs => keyed.push((php_name, (name, value))),
            Field::Inside(text) => keyed.push((php_name, (name, text))),
        }
    }
    keyed.sort_by(|one, other| query::base(&one.0).cmp(query::base(&other.0)));
    keyed.into_iter().map(|(_, pair)| pair)
}

fn php_name_of<'a>(name: &Cow<'a, [u8]>) -> Cow<'a, [u8]> {
    match name {
        Cow::Borrowed(name) => query::php_name(name),
        Cow::Owned(name) => Cow::Owned(query::php_name(name).into_owned()),
    }
}

/// A part and its content, as it is fed.
type PartAnd<'a> = (&'a Part, Cow<'a, [u8]>);

/// The parts with their contents, some of them put in another form.
fn sorted_parts<'a>(multipart: &'a Multipart, ignore: &[Ignore]) -> impl Iterator<Item = PartAnd<'a>> {
    let mut keyed: Vec<(Cow<'a, [u8]>, PartAnd<'a>)> = Vec::new();
    for part in multipart.parts() {
        let php_name = query::php_name(&part.name);
        let content = match ignore::field(ignore.iter().map(Ignore::rule), Of::Form, &php_name, &part.content)
        {
            Field::Ignored => continue,
            Field::AsItIs => Cow::Borrowed(&*part.content),
            Field::Inside(text) => text,
        };
        keyed.push((php_name, (part, content)));
    }
    keyed.sort_by(|one, other| query::base(&one.0).cmp(query::base(&other.0)));
    keyed.into_iter().map(|(_, part)| part)
}

fn feed_pairs<'a>(pairs: impl Iterator<Item = Pair<'a>>, digest: &mut Digest<'_>) {
    for (name, value) in pairs {
        digest.tag(b'p');
        digest.part(&name);
        digest.part(&value);
    }
    digest.tag(b'.');
}

fn feed_multipart(multipart: &Multipart, ignore: &[Ignore], digest: &mut Digest<'_>) {
    for (part, content) in sorted_parts(multipart, ignore) {
        digest.tag(b'p');
        digest.part(&part.name);
        digest.option(part.filename.as_deref());
        digest.option(part.media_type.as_deref());
        digest.tag(match part.transfer {
            Transfer::AsItIs => b'a',
            Transfer::Encoded => b'e',
        });
        digest.part(&content);
    }
    digest.tag(b'.');
}

/// See [`Document::canonical`].
fn json<'a>(document: &'a Document, ignore: &[Ignore]) -> Cow<'a, [u8]> {
    ignore::json(document, &ignore.iter().map(Ignore::rule).collect::<Vec<_>>())
}

fn print_pairs<'a>(pairs: impl Iterator<Item = Pair<'a>>, out: &mut String) {
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

/// JSON whose only characters that could move a cursor stand in strings: there JSON's own escapes are at hand.
fn push_shown(text: &[u8], out: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        if char.is_control() {
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        } else {
            out.push(char);
        }
    }
}

fn push_escaped(text: &[u8], out: &mut String) {
    for char in String::from_utf8_lossy(text).chars() {
        if char.is_control() { out.extend(char.escape_default()) } else { out.push(char) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::sample::{Sample, ignore, secret},
        *,
    };
    use crate::store::Key;

    fn digest_of(sample: &Sample, rules: &[&str]) -> Key {
        let secret = secret();
        let mut digest = Digest::new(&secret, "test");
        feed(&sample.content(), &ignore(rules), &mut digest);
        digest.finish()
    }

    fn json(text: &str, rules: &[&str]) -> Key {
        digest_of(&Sample::json(text.to_owned()), rules)
    }

    fn form(text: &str, rules: &[&str]) -> Key {
        digest_of(&Sample::form(text.to_owned()), rules)
    }

    fn multipart(boundary: &str, parts: &[(&str, &str)]) -> Sample {
        let body: String = parts
            .iter()
            .map(|(name, value)| {
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            })
            .collect();
        Sample::post(
            &format!("multipart/form-data; boundary={boundary}"),
            format!("{body}--{boundary}--\r\n"),
        )
    }

    #[test]
    fn spelling_and_order_of_json_do_not_matter_but_values_do() {
        let first = json(r#"{"a":1,"b":["x",{"c":null,"d":true}]}"#, &[]);
        assert_eq!(first, json(" {\"b\" : [\"\\u0078\" ,{\"d\":true,\"\\u0063\":null}],\n\"a\":1 } ", &[]));
        for other in [
            r#"{"a":"1","b":["x",{"c":null,"d":true}]}"#,
            r#"{"a":1.0,"b":["x",{"c":null,"d":true}]}"#,
            r#"{"a":1,"b":[{"c":null,"d":true},"x"]}"#,
            r#"{"a":1,"b":["x",{"c":null,"d":false}]}"#,
            r#"{"a":1,"b":["x",{"d":true}]}"#,
            r#"{"a":1,"a":1,"b":["x",{"c":null,"d":true}]}"#,
        ] {
            assert_ne!(first, json(other, &[]), "{other}");
        }
        assert_ne!(json(r#"{"a":1,"a":2}"#, &[]), json(r#"{"a":2,"a":1}"#, &[]));
        assert_ne!(json(r#""\ud800""#, &[]), json(r#""\ud801""#, &[]));
        assert_ne!(json("12345678901234567890123", &[]), json("12345678901234567890124", &[]));
    }

    #[test]
    fn ignored_members_do_not_matter_wherever_they_stand() {
        let rules = ["json:/pending_webhooks", "json:/items/*/at", "json:/list/0"];
        let first = json(r#"{"id":1,"pending_webhooks":1,"items":[{"at":1,"n":2}],"list":[1,2]}"#, &rules);
        assert_eq!(first, json(r#"{"list":[9,2],"id":1,"items":[{"n":2}]}"#, &rules));
        assert_ne!(first, json(r#"{"list":[2],"id":1,"items":[{"n":2}]}"#, &rules));
        assert_ne!(first, json(r#"{"id":2,"items":[{"n":2}],"list":[1,2]}"#, &rules));
    }

    #[test]
    fn form_fields_are_sorted_but_equal_names_keep_their_order() {
        assert_eq!(form("a=1&b=2", &[]), form("b=2&a=1", &[]));
        assert_eq!(form("a=%31+", &[]), form("%61=1%20&", &[]));
        assert_ne!(form("a=1&a=2", &[]), form("a=2&a=1", &[]));
        // PHP stores these in one variable, of which the last wins.
        assert_ne!(form("a.b=1&a_b=2", &[]), form("a_b=2&a.b=1", &[]));
        assert_ne!(form("a[]=1&a=2", &[]), form("a=2&a[]=1", &[]));
        assert_ne!(form("a=1", &[]), form("a=1&b=", &[]));
        assert_ne!(form("ab=c", &[]), form("a=bc", &[]));
    }

    #[test]
    fn the_volatile_fields_of_a_checkout_can_be_ignored() {
        let rules = [
            "form:wc_order_attribution_*",
            "form:_wpnonce",
            "form:_wp_http_referer",
            "form:meta[time]",
            "form:x[*",
        ];
        let first = form(
            "wc_order_attribution_session_pages=4&billing_city=Paris&_wpnonce=a1&meta[time]=1&x[1]=1",
            &rules,
        );
        assert_eq!(
            first,
            form("_wpnonce=ff&billing_city=Paris&wc.order_attribution_session_count=1", &rules)
        );
        assert_ne!(first, form("billing_city=Lyon", &rules));
        assert_ne!(first, form("billing_city=Paris&meta[total]=1", &rules));
    }

    #[test]
    fn two_copies_of_a_multipart_form_differ_in_their_boundary_only() {
        let parts = [("billing_city", "Paris"), ("total", "42")];
        let first = digest_of(&multipart("AaB03x", &parts), &[]);
        assert_eq!(first, digest_of(&multipart("zzz", &[parts[1], parts[0]]), &[]));
        assert_ne!(first, digest_of(&multipart("zzz", &[parts[0], ("total", "43")]), &[]));
        assert_eq!(
            first,
            digest_of(&multipart("zzz", &[parts[0], parts[1], ("nonce", "1")]), &["form:nonce"])
        );
    }

    #[test]
    fn an_unreadable_body_counts_byte_for_byte() {
        assert_eq!(json("{", &[]), json("{", &[]));
        assert_ne!(json("{", &[]), json("{ ", &[]));
        assert_eq!(print(&Sample::json("{").content(), &[]), "1 bytes as they came");
    }

    #[test]
    fn rules_that_do_nothing_say_so_and_those_that_do_too_much_are_refused() {
        assert!(Ignore::parse("header:*").unwrap().note().is_some());
        assert!(Ignore::parse("cookie:sbjs_session").unwrap().note().is_some());
        assert!(Ignore::parse("form:_wpnonce").unwrap().note().is_none());
        for wrong in ["json:", "form:*", "path:cart", "xml:/a", "form:", "nonce", "json:a"] {
            assert!(Ignore::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_print_is_sorted_and_leaves_out_what_is_ignored() {
        let body = Sample::json(r#"{"b":[1,"\u000a\""],"a":{"z":null,"y":true},"nonce":"x"}"#);
        assert_eq!(
            print(&body.content(), &ignore(&["json:/nonce"])),
            r#"{"a":{"y":true,"z":null},"b":[1,"\u000a\""]}"#
        );
        assert_eq!(print(&Sample::form("b=2%0A&a=1").content(), &[]), "a=1\nb=2\\n");
        assert_eq!(print_query("b=2&a=1&t=3", &ignore(&["query:t"])), "a=1\nb=2");
    }

    type Amounts = Vec<(String, i64)>;

    fn shuffled_object() -> impl Strategy<Value = (Amounts, Amounts)> {
        proptest::collection::btree_map("[a-z\"\\\\é]{1,4}", any::<i64>(), 1..12).prop_flat_map(|members| {
            let members: Vec<_> = members.into_iter().collect();
            (Just(members.clone()), Just(members).prop_shuffle())
        })
    }

    fn object(members: &[(String, i64)]) -> String {
        let inner: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name.as_str())))
            .collect();
        format!("{{{}}}", inner.join(","))
    }

    proptest! {
        #[test]
        fn the_order_of_members_never_changes_a_digest((one, other) in shuffled_object()) {
            prop_assert_eq!(json(&object(&one), &[]), json(&object(&other), &[]));
        }

        #[test]
        fn a_changed_amount_always_changes_a_digest((mut one, other) in shuffled_object(), at in any::<prop::sample::Index>()) {
            let at = at.index(one.len());
            one[at].1 = one[at].1.wrapping_add(1);
            prop_assert_ne!(json(&object(&one), &[]), json(&object(&other), &[]));
        }

        #[test]
        fn different_forms_never_collide(
            one in proptest::collection::vec(("[ab\0]{0,2}", "[ab&=\0]{0,3}"), 0..4),
            other in proptest::collection::vec(("[ab\0]{0,2}", "[ab&=\0]{0,3}"), 0..4),
        ) {
            let encode = |pairs: &[(String, String)]| -> String {
                let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
                pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect::<Vec<_>>().join("&")
            };
            let sort = |pairs: &[(String, String)]| {
                let mut pairs = pairs.to_vec();
                pairs.sort_by_key(|(name, _)| query::php_name(name.as_bytes()).into_owned());
                pairs
            };
            let is_same = sort(&one) == sort(&other);
            if one.is_empty() == other.is_empty() {
                prop_assert_eq!(is_same, form(&encode(&one), &[]) == form(&encode(&other), &[]));
            }
        }

        #[test]
        fn different_parts_never_collide(
            one in proptest::collection::vec(("[ab]{1,2}", "[ab\r\n-]{0,4}"), 1..4),
            other in proptest::collection::vec(("[ab]{1,2}", "[ab\r\n-]{0,4}"), 1..4),
        ) {
            let digest = |parts: &[(String, String)], boundary: &str| {
                let parts: Vec<_> = parts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                digest_of(&multipart(boundary, &parts), &[])
            };
            let sort = |parts: &[(String, String)]| {
                let mut parts = parts.to_vec();
                parts.sort_by(|one, other| one.0.cmp(&other.0));
                parts
            };
            prop_assert_eq!(sort(&one) == sort(&other), digest(&one, "XyZ") == digest(&other, "QqQ"));
        }
    }
}
