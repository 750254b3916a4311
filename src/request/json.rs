//! A strict reader of JSON (RFC 8259) that keeps what a digest and a key need: number text exactly as it was sent,
//! members that stand twice, strings that are not valid Unicode.
//!
//! serde_json is not used here, because it keeps the last of two equal members, turns large numbers into floats and
//! refuses lone surrogates in a way that cannot be told from junk. This reader never decides which of two equal
//! members counts, never converts a number, and never recurses deeper than [`DEPTH_MAX`].

use std::borrow::Cow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::lookup::{Kind, Lookup, VALUE_BYTES_MAX, VALUES_MAX, Value, Values};

/// How deep arrays and objects may nest.
pub const DEPTH_MAX: usize = 128;

/// How many values and member names one document may have: a bound on the memory beside the text itself.
pub const NODES_MAX: usize = 1 << 18;

/// A parsed document: the text and a flat list of its nodes in the order in which they stand.
#[derive(Clone, Debug)]
pub struct Document {
    text: Bytes,
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

/// A node as a walker sees it.
pub enum Shape<'a> {
    Null,
    Bool(bool),
    Number(&'a [u8]),
    /// Unescaped. Lone surrogates are kept as their three bytes, so that different strings stay different.
    Text(Cow<'a, [u8]>),
    Array,
    Object,
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NodeKind {
    Null,
    True,
    False,
    Number,
    /// A string without a backslash: its bytes are its value.
    Plain,
    Escaped,
    Array,
    Object,
}

/// `start..end` is the text of a scalar (of a string: without its quotes); `next` is the node after this one's own.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: NodeKind,
    start: u32,
    end: u32,
    next: u32,
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
        if u32::try_from(text.len()).is_err() {
            return Err(JsonProblem::TooLong);
        }
        if std::str::from_utf8(&text).is_err() {
            return Err(JsonProblem::NotUtf8);
        }
        let nodes = Vec::with_capacity((text.len() / 12 + 1).min(NODES_MAX));
        let mut parser = Parser { text: &text, at: 0, nodes };
        parser.skip_space();
        parser.value(0)?;
        parser.skip_space();
        if parser.at != text.len() {
            return Err(JsonProblem::Syntax(parser.at));
        }
        let nodes = parser.nodes;
        Ok(Self { text, nodes })
    }

    /// The values a key is read from. Null and empty strings count as absent; an object or an array is no key.
    #[must_use]
    pub fn lookup(&self, pointer: &Pointer) -> Lookup {
        let Some(nodes) = self.walk(pointer, Doubles::Refuse) else {
            return Lookup::Ambiguous("a JSON member on the way stands twice".into());
        };
        let mut values = Values::new();
        for node in nodes {
            let value = match self.shape(node) {
                Shape::Null => continue,
                Shape::Bool(bool) => Value { bytes: bool.to_string().into_bytes(), kind: Kind::Other },
                Shape::Number(text) => Value { bytes: text.to_vec(), kind: Kind::Number },
                Shape::Text(text) if text.is_empty() => continue,
                Shape::Text(text) if std::str::from_utf8(&text).is_err() => {
                    return Lookup::Unreadable("it holds half of a surrogate pair".into());
                }
                Shape::Text(text) => Value { bytes: text.into_owned(), kind: Kind::Text },
                Shape::Array | Shape::Object => {
                    return Lookup::Unreadable("it is an array or an object, not a value".into());
                }
            };
            if value.bytes.len() > VALUE_BYTES_MAX {
                return Lookup::Unreadable(format!("it is longer than {VALUE_BYTES_MAX} bytes"));
            }
            if values.len() == VALUES_MAX {
                return Lookup::Unreadable(format!("there are more than {VALUES_MAX} of it"));
            }
            values.push(value);
        }
        if values.is_empty() { Lookup::Absent } else { Lookup::Found(values) }
    }

    /// Every node that the pointer names, those under doubled members included.
    #[must_use]
    pub fn matches(&self, pointer: &Pointer) -> SmallVec<[u32; 4]> {
        self.walk(pointer, Doubles::TakeAll).unwrap_or_default()
    }

    /// The outermost value of the document.
    #[must_use]
    pub fn root(&self) -> u32 {
        0
    }

    #[must_use]
    pub fn shape(&self, node: u32) -> Shape<'_> {
        let node = self.node(node);
        let text = &self.text[node.start as usize..node.end as usize];
        match node.kind {
            NodeKind::Null => Shape::Null,
            NodeKind::True => Shape::Bool(true),
            NodeKind::False => Shape::Bool(false),
            NodeKind::Number => Shape::Number(text),
            NodeKind::Plain => Shape::Text(Cow::Borrowed(text)),
            NodeKind::Escaped => Shape::Text(Cow::Owned(unescape(text))),
            NodeKind::Array => Shape::Array,
            NodeKind::Object => Shape::Object,
        }
    }

    /// The items of an array; nothing for anything else.
    pub fn items(&self, array: u32) -> impl Iterator<Item = u32> + '_ {
        let end = self.end_of(array, NodeKind::Array);
        let mut at = array + 1;
        std::iter::from_fn(move || {
            let item = at;
            (item < end).then(|| {
                at = self.node(item).next;
                item
            })
        })
    }

    /// The members of an object as name and value, in the order in which they stand; nothing for anything else.
    pub fn members(&self, object: u32) -> impl Iterator<Item = (Cow<'_, [u8]>, u32)> + '_ {
        let end = self.end_of(object, NodeKind::Object);
        let mut at = object + 1;
        std::iter::from_fn(move || {
            let (name, value) = (at, at + 1);
            (name < end).then(|| {
                at = self.node(value).next;
                (self.name(name), value)
            })
        })
    }

    fn end_of(&self, node: u32, kind: NodeKind) -> u32 {
        let found = self.node(node);
        if found.kind == kind { found.next } else { 0 }
    }

    fn name(&self, node: u32) -> Cow<'_, [u8]> {
        let node = self.node(node);
        let text = &self.text[node.start as usize..node.end as usize];
        if node.kind == NodeKind::Escaped { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) }
    }

    fn node(&self, index: u32) -> Node {
        self.nodes[index as usize]
    }

    /// `None`: a member on the way stands twice and doubles are refused.
    fn walk(&self, pointer: &Pointer, doubles: Doubles) -> Option<SmallVec<[u32; 4]>> {
        let mut here: SmallVec<[u32; 4]> = SmallVec::from_iter([self.root()]);
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
            Token::Each => found.extend(self.items(array)),
            Token::Name(name) => {
                if let Some(index) = array_index(name) {
                    found.extend(self.items(array).nth(index));
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
        found
            .extend(self.members(object).filter(|(name, _)| name.as_ref() == wanted).map(|(_, value)| value));
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

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<(), JsonProblem> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", NodeKind::True),
            Some(b'f') => self.word(b"false", NodeKind::False),
            Some(b'n') => self.word(b"null", NodeKind::Null),
            _ => Err(self.wrong()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonProblem> {
        let object = self.open(NodeKind::Object, depth)?;
        if !self.take(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.wrong());
                }
                self.string()?;
                self.skip_space();
                self.expect(b':')?;
                self.skip_space();
                self.value(depth + 1)?;
                self.skip_space();
                if self.take(b'}') {
                    break;
                }
                self.expect(b',')?;
                self.skip_space();
            }
        }
        self.close(object);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonProblem> {
        let array = self.open(NodeKind::Array, depth)?;
        if !self.take(b']') {
            loop {
                self.value(depth + 1)?;
                self.skip_space();
                if self.take(b']') {
                    break;
                }
                self.expect(b',')?;
                self.skip_space();
            }
        }
        self.close(array);
        Ok(())
    }

    fn open(&mut self, kind: NodeKind, depth: usize) -> Result<usize, JsonProblem> {
        if depth >= DEPTH_MAX {
            return Err(JsonProblem::TooDeep);
        }
        let at = self.at;
        self.push(kind, at, at)?;
        self.at += 1;
        self.skip_space();
        Ok(self.nodes.len() - 1)
    }

    fn close(&mut self, container: usize) {
        self.nodes[container].next = count(self.nodes.len());
    }

    fn string(&mut self) -> Result<(), JsonProblem> {
        let start = self.at + 1;
        let mut at = start;
        let mut kind = NodeKind::Plain;
        loop {
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = NodeKind::Escaped;
                    at += self.escape_length(at)?;
                }
                Some(0x20..) => at += 1,
                Some(_) | None => return Err(JsonProblem::Syntax(at)),
            }
        }
        self.push(kind, start, at)?;
        self.at = at + 1;
        Ok(())
    }

    fn escape_length(&self, at: usize) -> Result<usize, JsonProblem> {
        match self.text.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u')
                if self.text.get(at + 2..at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                Ok(6)
            }
            _ => Err(JsonProblem::Syntax(at)),
        }
    }

    /// RFC 8259 section 6. Only its extent is found; its text is its value.
    fn number(&mut self) -> Result<(), JsonProblem> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        self.push(NodeKind::Number, start, self.at)
    }

    fn digits(&mut self) -> Result<(), JsonProblem> {
        let length = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return Err(self.wrong());
        }
        self.at += length;
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: NodeKind) -> Result<(), JsonProblem> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong());
        }
        let start = self.at;
        self.at += word.len();
        self.push(kind, start, self.at)
    }

    fn push(&mut self, kind: NodeKind, start: usize, end: usize) -> Result<(), JsonProblem> {
        if self.nodes.len() >= NODES_MAX {
            return Err(JsonProblem::TooMany);
        }
        let next = count(self.nodes.len() + 1);
        self.nodes.push(Node { kind, start: count(start), end: count(end), next });
        Ok(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonProblem> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong()) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong(&self) -> JsonProblem {
        JsonProblem::Syntax(self.at)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number)
        .expect("the text's length was checked to fit, and there is at most one node per byte")
}

/// Unescapes a string whose escapes were checked. A lone surrogate becomes the three bytes that UTF-8 would use for
/// it if it were allowed to: no valid text has them, so two different strings never become equal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let letter = rest.get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => rest = unescape_unicode(rest, &mut out),
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
    out
}

fn unescape_unicode<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let first = hex4(text).unwrap_or(0xFFFD);
    let rest = text.get(4..).unwrap_or_default();
    if (0xD800..0xDC00).contains(&first)
        && let Some(second) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xDC00..0xE000).contains(&second)
    {
        push_char(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), out);
        return rest.get(6..).unwrap_or_default();
    }
    push_char(first, out);
    rest
}

fn hex4(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

fn push_char(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let low_six = |shift: u32| 0x80 | u8::try_from((code >> shift) & 0x3F).unwrap_or(0);
            out.extend_from_slice(&[0xED, low_six(6), low_six(0)]);
        }
    }
}
