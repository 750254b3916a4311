//! The one text that all spellings of a document have. What it is, [`Document::canonical`] says.
//!
//! Whatever stands in the document's text as it is written here is copied in one piece, however much that is.

use std::borrow::Cow;

use super::{
    Document, ROOT, escape,
    parse::{Node, NodeKind, Span},
};

pub(super) fn canonical<'a>(document: &'a Document, skip: &[u32]) -> Cow<'a, [u8]> {
    let mut writer = Writer { document, skip, out: Vec::new(), members: Vec::new() };
    let root = document.node(ROOT);
    if writer.stands(ROOT, root) {
        return Cow::Borrowed(document.text(root.span));
    }
    writer.out.reserve(document.text.len());
    writer.value(ROOT);
    Cow::Owned(writer.out)
}

struct Writer<'a> {
    document: &'a Document,
    skip: &'a [u32],
    out: Vec<u8>,
    /// The members of the objects that are being written, those of an inner object behind those of an outer one.
    members: Vec<Member>,
}

/// What its name begins with (see [`super::parse::Name`]), and its node. Nodes are numbered in the order in which they
/// stand, so members of one name keep their order.
type Member = (u64, u32);

impl Writer<'_> {
    /// The recursion is bounded by `json::DEPTH_MAX`.
    fn value(&mut self, index: u32) {
        let node = self.document.node(index);
        match node.kind {
            _ if self.stands(index, node) => self.out.extend_from_slice(self.document.text(node.span)),
            NodeKind::Array => self.array(index),
            NodeKind::Object => self.object(index),
            _ => self.string(node.span),
        }
    }

    fn array(&mut self, array: u32) {
        self.out.push(b'[');
        for (index, item) in self.document.inner(array).enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            if self.is_skipped(item) {
                self.out.push(b'_');
            } else {
                self.value(item);
            }
        }
        self.out.push(b']');
    }

    fn object(&mut self, object: u32) {
        let document = self.document;
        let first = self.members.len();
        let end = document.node(object).next;
        let mut at = object + 1;
        while at < end {
            let member = document.node(at);
            if !self.is_skipped(at) {
                self.members.push((member.name.begins, at));
            }
            at = member.next;
        }
        let members = &mut self.members[first..];
        members.sort_unstable();
        if members.windows(2).any(|two| two[0].0 == two[1].0) {
            members.sort_by_key(|&(begins, node)| (begins, document.string(document.node(node).name.span)));
        }
        self.out.push(b'{');
        for at in first..self.members.len() {
            if at > first {
                self.out.push(b',');
            }
            self.member(self.members[at].1);
        }
        self.out.push(b'}');
        self.members.truncate(first);
    }

    #[inline]
    fn member(&mut self, index: u32) {
        let node = self.document.node(index);
        let name = node.name.span;
        // Only a colon stands between them.
        if name.end + 1 == node.span.start && self.stands(index, node) {
            let whole = Span { start: name.start, end: node.span.end };
            self.out.extend_from_slice(self.document.text(whole));
        } else {
            self.string(name);
            self.out.push(b':');
            self.value(index);
        }
    }

    fn string(&mut self, span: Span) {
        if self.document.is_in_text(span) {
            self.out.extend_from_slice(self.document.text(span));
        } else {
            escape::put(self.document.string(span), &mut self.out);
        }
    }

    /// Whether the text of a value is what would be written for it.
    #[inline]
    fn stands(&self, index: u32, node: &Node) -> bool {
        let holds_skipped = || {
            let next = self.skip.partition_point(|&skipped| skipped <= index);
            self.skip.get(next).is_some_and(|&skipped| skipped < node.next)
        };
        node.stands && (self.skip.is_empty() || !holds_skipped())
    }

    #[inline]
    fn is_skipped(&self, node: u32) -> bool {
        !self.skip.is_empty() && self.skip.binary_search(&node).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::request::json::Pointer;

    /// A document as a shop understands it, told apart from all others without this file: by `Debug`.
    #[derive(Clone, PartialEq, Debug)]
    enum Value {
        /// Null, true, false and numbers, as they are sent.
        Word(&'static str),
        /// UTF-16, in which half of a surrogate pair is a unit like any other.
        Text(Vec<u16>),
        Array(Vec<Value>),
        Object(Vec<(Vec<u16>, Value)>),
    }

    impl Value {
        /// Members sorted by name, those of one name in their order.
        fn sorted(&self) -> Self {
            match self {
                Self::Object(members) => {
                    let mut members: Vec<_> =
                        members.iter().map(|(name, value)| (name.clone(), value.sorted())).collect();
                    members.sort_by(|one, other| one.0.cmp(&other.0));
                    Self::Object(members)
                }
                Self::Array(items) => Self::Array(items.iter().map(Self::sorted).collect()),
                other => other.clone(),
            }
        }

        /// With another value somewhere in it.
        fn changed(&mut self, change: Self, dice: &mut impl FnMut() -> usize) {
            let inner: Vec<&mut Self> = match self {
                Self::Array(items) => items.iter_mut().collect(),
                Self::Object(members) => members.iter_mut().map(|(_, value)| value).collect(),
                _ => Vec::new(),
            };
            let length = inner.len().max(1);
            match inner.into_iter().nth(dice() % length) {
                Some(inner) if !dice().is_multiple_of(4) => inner.changed(change, dice),
                _ => *self = change,
            }
        }

        /// In one of many spellings; `dice` decides which.
        fn spelled(&self, dice: &mut impl FnMut() -> usize) -> String {
            let mut out = ["", " ", "\n\t"][dice() % 8 % 3].to_owned();
            match self {
                Self::Word(word) => out.push_str(word),
                Self::Text(text) => out.push_str(&spelled_text(text, dice)),
                Self::Array(items) => {
                    let items: Vec<_> = items.iter().map(|item| item.spelled(dice)).collect();
                    out.push_str(&format!("[{}]", items.join(",")));
                }
                Self::Object(members) => {
                    let mut members: Vec<_> = members.clone();
                    for at in (1..members.len()).rev() {
                        let (one, other) = (at - 1, at);
                        if dice().is_multiple_of(2) && members[one].0 != members[other].0 {
                            members.swap(one, other);
                        }
                    }
                    let members: Vec<_> = members
                        .iter()
                        .map(|(name, value)| format!("{}:{}", spelled_text(name, dice), value.spelled(dice)))
                        .collect();
                    out.push_str(&format!("{{{}}}", members.join(",")));
                }
            }
            out.push_str(["", "", "\r\n "][dice() % 3]);
            out
        }
    }

    fn spelled_text(text: &[u16], dice: &mut impl FnMut() -> usize) -> String {
        let mut out = String::from("\"");
        for unit in char::decode_utf16(text.iter().copied()) {
            let escaped = |char: char| {
                char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect()
            };
            let spelled: String = match unit {
                Err(half) => format!("\\u{:04x}", half.unpaired_surrogate()),
                Ok(char) if dice().is_multiple_of(4) => escaped(char),
                Ok('/') if dice().is_multiple_of(2) => "\\/".into(),
                Ok('\n') => "\\n".into(),
                Ok(char @ ('"' | '\\')) => format!("\\{char}"),
                Ok(char) if char < ' ' => escaped(char),
                Ok(char) => char.into(),
            };
            out.push_str(&spelled);
        }
        out + "\""
    }

    fn text() -> impl Strategy<Value = Vec<u16>> {
        let unit = prop::sample::select(vec![
            0x61, 0x62, 0x5F, 0x22, 0x5C, 0x2F, 0x0A, 0x00, 0xE9, 0xD83D, 0xDE00, 0xD800,
        ]);
        prop_oneof![vec(unit.clone(), 0..3), vec(unit, 6..12)]
    }

    fn value() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "1",
            "1.0",
            "-1e5",
            "12345678901234567890123",
        ]);
        let leaf = prop_oneof![word.prop_map(Value::Word), text().prop_map(Value::Text)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::Array),
                vec((text(), inner), 0..5).prop_map(Value::Object),
            ]
        })
    }

    fn parse(text: &str) -> Document {
        Document::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn canonical(text: &str) -> String {
        String::from_utf8(parse(text).canonical(&[]).into_owned()).unwrap()
    }

    fn without(text: &str, pointer: &str) -> String {
        let document = parse(text);
        let skip = document.matches(&Pointer::parse(pointer).unwrap());
        String::from_utf8(document.canonical(&skip).into_owned()).unwrap()
    }

    fn dice(rolls: &[usize]) -> impl FnMut() -> usize {
        let mut at = 0;
        move || {
            at += 1;
            rolls[at % rolls.len()].rotate_left(at as u32)
        }
    }

    #[test]
    fn what_stands_as_it_is_written_is_not_copied() {
        let text = r#"{"a":[1,{"b":"é","c":null},[]],"aa":{},"b":"x"}"#;
        assert!(matches!(parse(text).canonical(&[]), Cow::Borrowed(found) if found == text.as_bytes()));
        assert!(matches!(parse(&format!(" {text}\n")).canonical(&[]), Cow::Borrowed(_)));
        for other in [r#"{"b":1,"a":2}"#, r#"{"a": 1}"#, r#"["\n"]"#, r#"[[ ]]"#, r#"{"a":{"\u0062":1}}"#] {
            assert!(matches!(parse(other).canonical(&[]), Cow::Owned(_)), "{other}");
        }
    }

    #[test]
    fn names_are_sorted_also_where_they_begin_alike() {
        assert_eq!(
            canonical(
                r#"{"billing_name":1,"billing_city":2,"billing_":3,"billing":4,"billing_city":0,"":5}"#
            ),
            r#"{"":5,"billing":4,"billing_":3,"billing_city":2,"billing_city":0,"billing_name":1}"#
        );
        assert_eq!(canonical(r#"{"billing_b":1,"billing_a":2}"#), r#"{"billing_a":2,"billing_b":1}"#);
        assert_eq!(canonical("{\"a\\u0000\":1,\"a\":2}"), r#"{"a":2,"a\u0000":1}"#);
        let many: String = (0..200).map(|n| format!(r#""{}":{n},"#, 999 - n)).collect();
        let sorted: String = (0..200).rev().map(|n| format!(r#""{}":{n},"#, 999 - n)).collect();
        assert_eq!(canonical(&format!(r#"{{{many}"z":0}}"#)), format!(r#"{{{sorted}"z":0}}"#));
    }

    #[test]
    fn what_is_left_out_is_left_out_of_what_would_stand_too() {
        assert_eq!(without(r#"{"a":{"b":1,"c":2}}"#, "/a/b"), r#"{"a":{"c":2}}"#);
        assert_eq!(without(r#"{"a":[1,[2,3]],"b":[4]}"#, "/a/1/0"), r#"{"a":[1,[_,3]],"b":[4]}"#);
        assert_ne!(without("[1]", "/0"), without("[]", "/0"));
    }

    proptest! {
        #[test]
        fn all_spellings_of_a_document_have_one_text(document in value(), rolls in vec(any::<usize>(), 1..40)) {
            let text = canonical(&document.sorted().spelled(&mut || 1));
            prop_assert_eq!(&canonical(&document.spelled(&mut dice(&rolls))), &text);
            prop_assert_eq!(&canonical(&text), &text);
        }

        #[test]
        fn two_documents_never_have_one_text(one in value(), change in value(), rolls in vec(any::<usize>(), 1..40)) {
            let mut other = one.clone();
            other.changed(change, &mut dice(&rolls));
            let is_same = one.sorted() == other.sorted();
            let texts = (canonical(&one.spelled(&mut dice(&rolls))), canonical(&other.spelled(&mut || 1)));
            prop_assert_eq!(is_same, texts.0 == texts.1, "{:?}", texts);
        }
    }
}
