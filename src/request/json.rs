//! A strict reader of JSON (RFC 8259) that keeps what a digest and a key need: number text exactly as it was sent,
//! members that stand twice, strings that are not valid Unicode.
//!
//! serde_json is not used here, because it keeps the last of two equal members, turns large numbers into floats and
//! refuses lone surrogates in a way that cannot be told from junk. This reader never decides which of two equal
//! members counts, never converts a number, and never recurses deeper than [`DEPTH_MAX`].

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use self::parse::{Node, NodeKind, Parsed, Span};
use super::lookup::{Kind, Lookup, NESTED_BYTES_MAX, VALUES_MAX, Value, Values};

mod escape;
mod exchange;
mod parse;
mod shape;
mod write;

/// How deep arrays and objects may nest.
pub const DEPTH_MAX: usize = 128;

/// How many values one document may have: a bound on the memory beside the text itself.
pub const NODES_MAX: usize = 1 << 18;

/// The longest text: twice its length still fits the places of the nodes.
const TEXT_BYTES_MAX: usize = (u32::MAX / 2) as usize;

/// The outermost value of a document.
const ROOT: u32 = 0;

/// A parsed document: the text and a flat list of its nodes in the order in which they stand.
#[derive(Clone, Debug)]
pub struct Document {
    text: Bytes,
    /// See [`Parsed::unescaped`].
    unescaped: Vec<u8>,
    nodes: Vec<Node>,
}

/// Why a text is not JSON to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonProblem {
    #[error("it begins with a byte order mark (RFC 8259 section 8.1)")]
    ByteOrderMark,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it nests deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("it has more than {NODES_MAX} values")]
    TooMany,
    #[error("it is too long")]
    TooLong,
    #[error("it is not JSON at byte {0}")]
    Syntax(usize),
}

/// A JSON pointer (RFC 6901) in which `*` stands for each item of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointer {
    tokens: Vec<Token>,
}

/// What a pointer does at a member that stands twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubles {
    Refuse,
    TakeAll,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Name(Vec<u8>),
    Each,
}

impl Pointer {
    /// `None` where the text is no pointer: it must be empty (the whole document) or begin with `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(Token::parse).collect::<Option<_>>()?;
        Some(Self { tokens })
    }

    /// One member of an object, whatever letters its name has.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self { tokens: vec![Token::Name(name.as_bytes().to_vec())] }
    }

    /// What `inner` names in what this names.
    #[must_use]
    pub fn then(&self, inner: &Self) -> Self {
        Self { tokens: [self.tokens.as_slice(), &inner.tokens].concat() }
    }

    /// Each item of an array.
    #[must_use]
    pub fn each() -> Self {
        Self { tokens: vec![Token::Each] }
    }

    /// The whole document.
    #[must_use]
    pub fn whole() -> Self {
        Self { tokens: Vec::new() }
    }

    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Each);
        }
        let mut name = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            name.push(match byte {
                b'~' => match bytes.next()? {
                    b'0' => b'~',
                    b'1' => b'/',
                    _ => return None,
                },
                other => other,
            });
        }
        Some(Self::Name(name))
    }
}

impl Document {
    /// Reads a whole document.
    ///
    /// # Errors
    /// Anything that RFC 8259 does not allow, and the bounds of this module.
    pub fn parse(text: Bytes) -> Result<Self, JsonProblem> {
        if text.starts_with(b"\xEF\xBB\xBF") {
            return Err(JsonProblem::ByteOrderMark);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(JsonProblem::TooLong);
        }
        if !text.is_ascii() && std::str::from_utf8(&text).is_err() {
            return Err(JsonProblem::NotUtf8);
        }
        let Parsed { nodes, unescaped } = parse::parse(&text)?;
        Ok(Self { text, unescaped, nodes })
    }

    /// Of the text, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// The values a key is read from. Null and empty strings count as absent; an object or an array is no key.
    #[must_use]
    pub fn lookup(&self, pointer: &Pointer) -> Lookup {
        let Some(nodes) = self.walk(pointer, Doubles::Refuse) else {
            return Lookup::Ambiguous("a JSON member on the way stands twice".into());
        };
        let mut values = Values::new();
        for node in nodes {
            let node = self.node(node);
            let bytes = match node.kind {
                NodeKind::Plain | NodeKind::Escaped => self.string(node.span),
                _ => self.text(node.span),
            };
            let kind = match node.kind {
                NodeKind::Null => continue,
                NodeKind::True | NodeKind::False => Kind::Other,
                NodeKind::Number => Kind::Number,
                NodeKind::Plain | NodeKind::Escaped if bytes.is_empty() => continue,
                NodeKind::Escaped if std::str::from_utf8(bytes).is_err() => {
                    return Lookup::Unreadable("it holds half of a surrogate pair".into());
                }
                NodeKind::Plain | NodeKind::Escaped => Kind::Text,
                NodeKind::Array | NodeKind::Object => {
                    return Lookup::Unreadable("it is an array or an object, not a value".into());
                }
            };
            if bytes.len() > NESTED_BYTES_MAX {
                return Lookup::Unreadable(format!("it is longer than {NESTED_BYTES_MAX} bytes"));
            }
            if values.len() == VALUES_MAX {
                return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
            }
            values.push(Value { bytes: bytes.to_vec(), kind });
        }
        if values.is_empty() { Lookup::Absent } else { Lookup::Found(values) }
    }

    /// How many items the document has, if it is an array.
    #[must_use]
    pub fn items(&self) -> usize {
        if self.node(ROOT).kind == NodeKind::Array { self.inner(ROOT).count() } else { 0 }
    }

    /// Every node that the pointer names, those under doubled members included.
    #[must_use]
    pub fn matches(&self, pointer: &Pointer) -> SmallVec<[u32; 4]> {
        self.walk(pointer, Doubles::TakeAll).unwrap_or_default()
    }

    /// The one text that all spellings of this document have: without white space, members sorted by name (those of
    /// one name in the order in which they stand), every string escaped in one way, numbers as they came.
    /// `skip` are the nodes that are left out, sorted: a member is gone, an item of an array leaves a `_`, because the
    /// places of the others mean something. Two documents have one text only if they are equal in all of this.
    #[must_use]
    pub fn canonical(&self, skip: &[u32]) -> Cow<'_, [u8]> {
        write::canonical(self, skip)
    }

    /// The items of an array or the members of an object, in the order in which they stand; nothing for anything else.
    fn inner(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let end = self.node(node).next;
        let mut at = node + 1;
        std::iter::from_fn(move || {
            let inner = at;
            (inner < end).then(|| {
                at = self.node(inner).next;
                inner
            })
        })
    }

    #[inline]
    fn is_in_text(&self, span: Span) -> bool {
        (span.start as usize) < self.text.len()
    }

    #[inline]
    fn text(&self, span: Span) -> &[u8] {
        &self.text[span.start as usize..span.end as usize]
    }

    #[inline]
    fn string(&self, span: Span) -> &[u8] {
        parse::string(&self.text, &self.unescaped, span)
    }

    #[inline]
    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// `None`: a member on the way stands twice and doubles are refused.
    fn walk(&self, pointer: &Pointer, doubles: Doubles) -> Option<SmallVec<[u32; 4]>> {
        let mut here: SmallVec<[u32; 4]> = SmallVec::from_iter([ROOT]);
        for token in &pointer.tokens {
            let mut there = SmallVec::new();
            for &node in &here {
                match self.node(node).kind {
                    NodeKind::Array => self.step_array(node, token, &mut there),
                    NodeKind::Object => {
                        let found = self.step_object(node, token, &mut there);
                        if found > 1 && doubles == Doubles::Refuse {
                            return None;
                        }
                    }
                    _ => {}
                }
            }
            here = there;
        }
        Some(here)
    }

    fn step_array(&self, array: u32, token: &Token, found: &mut SmallVec<[u32; 4]>) {
        match token {
            Token::Each => found.extend(self.inner(array)),
            Token::Name(name) => {
                if let Some(index) = array_index(name) {
                    found.extend(self.inner(array).nth(index));
                }
            }
        }
    }

    /// `*` on an object is a member of that name, as RFC 6901 has it.
    fn step_object(&self, object: u32, token: &Token, found: &mut SmallVec<[u32; 4]>) -> usize {
        let wanted: &[u8] = match token {
            Token::Each => b"*",
            Token::Name(name) => name,
        };
        let before = found.len();
        found.extend(self.inner(object).filter(|&member| self.string(self.node(member).name.span) == wanted));
        found.len() - before
    }
}

/// RFC 6901 section 4: digits without a leading zero.
fn array_index(name: &[u8]) -> Option<usize> {
    let plain = name == b"0" || (name.first().is_some_and(|byte| (b'1'..=b'9').contains(byte)));
    if !plain || name.len() > 9 || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Document, JsonProblem> {
        Document::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn find(text: &str, pointer: &str) -> Lookup {
        parse(text).unwrap().lookup(&Pointer::parse(pointer).unwrap())
    }

    fn texts(found: Lookup) -> Vec<(Kind, String)> {
        match found {
            Lookup::Found(values) => values
                .into_iter()
                .map(|value| (value.kind, String::from_utf8(value.bytes).unwrap()))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_number_keeps_its_text_to_the_last_of_23_digits() {
        for text in ["12345678901234567890123", "12345678901234567890124", "1.0", "1e0", "-0", "1E+5"] {
            assert_eq!(texts(find(&format!("{{\"id\":{text}}}"), "/id")), [(Kind::Number, text.to_owned())]);
        }
        assert_eq!(texts(find(r#"{"id":"7"}"#, "/id")), [(Kind::Text, "7".to_owned())]);
    }

    #[test]
    fn a_member_that_stands_twice_is_ambiguous_also_when_it_is_escaped() {
        assert!(matches!(find(r#"{"order_id":"A","order_id":"B"}"#, "/order_id"), Lookup::Ambiguous(_)));
        assert!(matches!(find(r#"{"order_id":"A","\u006frder_id":"B"}"#, "/order_id"), Lookup::Ambiguous(_)));
        assert!(matches!(find(r#"{"a":{"id":1},"a":{"x":1}}"#, "/a/id"), Lookup::Ambiguous(_)));
    }

    #[test]
    fn a_double_elsewhere_does_not_disturb_a_key() {
        assert_eq!(texts(find(r#"{"x":1,"x":2,"id":"A"}"#, "/id")), [(Kind::Text, "A".to_owned())]);
    }

    #[test]
    fn a_star_gives_the_value_of_each_item() {
        let found = texts(find(r#"{"items":[{"id":"A"},{"id":7},{"no":1}]}"#, "/items/*/id"));
        assert_eq!(found, [(Kind::Text, "A".to_owned()), (Kind::Number, "7".to_owned())]);
    }

    #[test]
    fn pointers_are_unescaped_and_indexed_as_rfc_6901_says() {
        assert_eq!(
            texts(find(r#"{"a/b":{"m~n":["x","y"]}}"#, "/a~1b/m~0n/1")),
            [(Kind::Text, "y".to_owned())]
        );
        assert_eq!(find(r#"["x"]"#, "/00"), Lookup::Absent);
        assert_eq!(texts(find("\"x\"", "")), [(Kind::Text, "x".to_owned())]);
        assert!(Pointer::parse("order_id").is_none());
        assert!(Pointer::parse("/a~2").is_none());
    }

    #[test]
    fn null_and_empty_are_absent_and_an_object_is_no_key() {
        assert_eq!(find(r#"{"id":null}"#, "/id"), Lookup::Absent);
        assert_eq!(find(r#"{"id":""}"#, "/id"), Lookup::Absent);
        assert!(matches!(find(r#"{"id":{"x":1}}"#, "/id"), Lookup::Unreadable(_)));
        assert!(matches!(find(r#"{"id":["x"]}"#, "/id"), Lookup::Unreadable(_)));
    }

    #[test]
    fn depth_is_bounded_and_ten_megabytes_of_brackets_do_no_harm() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(parse(&nested(DEPTH_MAX + 1)).err(), Some(JsonProblem::TooDeep));
        assert_eq!(parse(&"[".repeat(10_000_000)).err(), Some(JsonProblem::TooDeep));
        assert_eq!(parse(&r#"{"a":"#.repeat(100_000)).err(), Some(JsonProblem::TooDeep));
    }

    #[test]
    fn a_million_values_are_refused() {
        assert_eq!(parse(&format!("[{}0]", "0,".repeat(1_000_000))).err(), Some(JsonProblem::TooMany));
    }

    #[test]
    fn half_a_surrogate_pair_is_no_key_and_equals_nothing_else() {
        assert!(matches!(find(r#"{"id":"\ud800"}"#, "/id"), Lookup::Unreadable(_)));
        assert!(matches!(find(r#"{"id":"\udc00\ud800x"}"#, "/id"), Lookup::Unreadable(_)));
        assert_eq!(texts(find(r#"{"id":"\ud83d\ude00"}"#, "/id")), [(Kind::Text, "😀".to_owned())]);
        let text = |text| String::from_utf8(parse(text).unwrap().canonical(&[]).into_owned()).unwrap();
        assert_eq!(text(r#""\uD800""#), r#""\ud800""#);
        assert_ne!(text(r#""\ud800""#), text(r#""\ud801""#));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let wrong = [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "- 1",
            "nul",
            "true false",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"",
            "[1 2]",
            "{\"a\" 1}",
            "NaN",
            "/**/1",
            "1\u{c}",
            "{}x",
            "\u{feff}{}",
        ];
        for text in wrong {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Document::parse(Bytes::from_static(b"\"\xff\"")).err(), Some(JsonProblem::NotUtf8));
        assert_eq!(parse("\u{feff}{}").err(), Some(JsonProblem::ByteOrderMark));
        assert!(Document::parse(Bytes::from_static(b"\xff\xfe{\0}\0")).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), pointer in "(/[a~01*]{0,3}){0,3}") {
            if let (Ok(document), Some(pointer)) = (Document::parse(bytes.into()), Pointer::parse(&pointer)) {
                let _ = document.lookup(&pointer);
            }
        }

        #[test]
        fn it_accepts_what_serde_json_accepts(text in r#"[\[\]{}",:0-9eE+\-.tfnul a\\u]{0,24}"#) {
            let ours = parse(&text).is_ok();
            // serde_json refuses half surrogates and numbers beyond f64 even where it only skips them.
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text.trim()).is_ok();
            prop_assert!(ours || !theirs, "we refuse what serde_json takes: {text}");
            if ours && !theirs {
                prop_assert!(text.contains("\\u") || text.contains(['e', 'E']), "we take what serde_json refuses: {text}");
            }
        }
    }
}
