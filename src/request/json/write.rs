//! The one text that all spellings of a document have. What it is, [`Document::canonical`] says.
//!
//! Whatever stands in the document's text as it is written here is copied in one piece, however much that is. Items of
//! an array that are alike (see `shape`) are sorted once.

use std::borrow::Cow;

use super::{
    Document, ROOT, escape,
    parse::{Node, NodeKind, Row, Span},
};

pub(super) fn canonical<'a>(document: &'a Document, skip: &[u32]) -> Cow<'a, [u8]> {
    let (out, members, row) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = Writer { document, skip, out, members, row, row_end: ROOT };
    let root = document.node(ROOT);
    if writer.stands(ROOT, root) {
        return Cow::Borrowed(document.text(root.span));
    }
    writer.out.reserve(document.text.len() + BLOCK);
    writer.members.reserve(16);
    writer.value(ROOT);
    Cow::Owned(writer.out)
}

struct Writer<'a> {
    document: &'a Document,
    skip: &'a [u32],
    out: Vec<u8>,
    /// The members of the objects that are being written, those of an inner object behind those of an outer one.
    members: Vec<Member>,
    /// The members of the last object that a [`Row`] follows, in the order in which they were written, counted from
    /// its node; and the node behind it.
    row: Vec<u32>,
    row_end: u32,
}

/// What its name begins with (see [`super::parse::Name`]), and its node. Nodes are numbered in the order in which they
/// stand, so members of one name keep their order.
type Member = (u64, u32);

/// How much is copied at once of what is short: without a look at how short it is, that is two instructions.
const BLOCK: usize = 32;

impl Writer<'_> {
    /// The recursion is bounded by `json::DEPTH_MAX`.
    fn value(&mut self, index: u32) {
        let node = self.document.node(index);
        match node.kind {
            _ if self.stands(index, node) => self.out.extend_from_slice(self.document.text(node.span)),
            NodeKind::Array => self.array(index),
            NodeKind::Object => self.object(index, node.next),
            _ => self.string(node.span),
        }
    }

    fn array(&mut self, array: u32) {
        let end = self.document.node(array).next;
        let mut item = array + 1;
        self.out.push(b'[');
        while item < end {
            let next = self.document.node(item).next;
            if self.is_skipped(item) {
                self.out.push(b'_');
            } else {
                self.value(item);
            }
            self.out.push(b',');
            item = self.alike(next, end);
        }
        self.close(b']');
    }

    fn object(&mut self, object: u32, end: u32) {
        let document = self.document;
        let first = self.members.len();
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
            self.member(self.members[at].1);
            self.out.push(b',');
        }
        self.close(b'}');
        let is_followed = || document.nodes.get(end as usize).is_some_and(|next| next.row != Row::No);
        // Each member is one node, and none is left out.
        if self.members.len() - first == (end - object - 1) as usize && is_followed() {
            self.row.clear();
            self.row.extend(self.members[first..].iter().map(|(_, node)| node - object));
            self.row_end = end;
        }
        self.members.truncate(first);
    }

    /// Writes the items from `item` on that are alike, if the last object that was written is the one that they are
    /// like: their members have the same order. Gives the first item that is not written.
    fn alike(&mut self, item: u32, end: u32) -> u32 {
        if self.row_end != item || item == end {
            return item;
        }
        let (document, skip, size) = (self.document, self.skip, self.row.len() + 1);
        let nodes = &document.nodes[item as usize..end as usize];
        let place = |row: usize| item + (row * size) as u32;
        let is_whole = |row: usize, object: &Node| !is_touched(skip, place(row), object);
        let is_tight =
            |(index, row): &(usize, &[Node])| row[0].row == Row::Tight && is_whole(*index, &row[0]);
        let mut written = nodes.chunks_exact(size).enumerate().take_while(is_tight).count();
        if written > 0 {
            self.tight(&nodes[..written * size], size);
        }
        while let Some(object) = nodes.get(written * size)
            && object.row != Row::No
            && is_whole(written, object)
        {
            self.out.push(b'{');
            for at in 0..self.row.len() {
                self.member(place(written) + self.row[at]);
                self.out.push(b',');
            }
            self.close(b'}');
            self.out.push(b',');
            written += 1;
        }
        self.row_end = place(written);
        self.row_end
    }

    /// Writes items of which each member is copied as it stands. What is written is not longer than their text.
    #[inline(never)]
    fn tight(&mut self, nodes: &[Node], size: usize) {
        let text = &self.document.text[..];
        let length = (nodes[nodes.len() - size].span.end - nodes[0].span.start) as usize;
        let start = self.out.len();
        self.out.resize(start + length + BLOCK, 0);
        let (order, out) = (&self.row[..], &mut self.out[start..]);
        let mut at = 0;
        for row in nodes.chunks_exact(size) {
            let mut before = b'{';
            for &member in order {
                let node = &row[member as usize];
                // With the byte before it. The name is as long as the one that the node names.
                let name = node.name.span;
                let from = (node.span.start - (name.end - name.start) - 2) as usize;
                let length = node.span.end as usize - from;
                match (out[at..].first_chunk_mut::<BLOCK>(), text[from..].first_chunk()) {
                    (Some(out), Some(block)) if length <= BLOCK => *out = *block,
                    _ => out[at..at + length].copy_from_slice(&text[from..from + length]),
                }
                out[at] = before;
                before = b',';
                at += length;
            }
            out[at] = b'}';
            out[at + 1] = b',';
            at += 2;
        }
        self.out.truncate(start + at);
    }

    /// Closes an array or object; the comma behind its last value gives way.
    #[inline]
    fn close(&mut self, bracket: u8) {
        match self.out.last_mut() {
            Some(comma @ b',') => *comma = bracket,
            _ => self.out.push(bracket),
        }
    }

    #[inline(always)]
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
        node.stands() && !is_touched(self.skip, index, node)
    }

    #[inline]
    fn is_skipped(&self, node: u32) -> bool {
        !self.skip.is_empty() && self.skip.binary_search(&node).is_ok()
    }
}

/// Whether a value, or something in it, is left out.
#[inline]
fn is_touched(skip: &[u32], index: u32, node: &Node) -> bool {
    let next = || skip.get(skip.partition_point(|&skipped| skipped < index));
    !skip.is_empty() && next().is_some_and(|&skipped| skipped < node.next)
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
