//! The grammar of RFC 8259: from text to a flat list of nodes. It keeps places, never values, with one exception:
//! a string with escapes is unescaped here, once. It never recurses deeper than [`DEPTH_MAX`].

use super::{DEPTH_MAX, JsonProblem, NODES_MAX, escape, shape::Shape};

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum NodeKind {
    #[default]
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

/// From where to where something stands: in the text, a string with its quotes; or, if it is a string with escapes,
/// in what stands behind the text (see [`Parsed::unescaped`]).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// The name of a member.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Name {
    /// Its first eight bytes as a number, as if zeros followed a shorter one. The smaller number is the smaller name;
    /// only where two are equal, the names themselves must be compared.
    pub(super) begins: u64,
    pub(super) span: Span,
}

/// One value. Its items or members follow it in the list.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Node {
    /// What the value is called, if it is a member of an object. In a [`Row`] it is the name of the same member of an
    /// item before it, which is the same name.
    pub(super) name: Name,
    pub(super) span: Span,
    /// The node after this one's own.
    pub(super) next: u32,
    pub(super) kind: NodeKind,
    /// Of an array or object, whether its text is what `write` would write for it.
    pub(super) stands: bool,
    /// Of an item of an array; see `shape`.
    pub(super) row: Row,
}

impl Node {
    /// Whether its text is what `write` would write for it.
    #[inline]
    pub(super) fn stands(&self) -> bool {
        self.stands && self.kind != NodeKind::Escaped
    }
}

/// Whether an object has the names of the item before it, in their order, and neither holds arrays or objects that are
/// not empty: then each member is one node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Row {
    #[default]
    No,
    Loose,
    /// And there is nothing else in it, no white space and no escapes: each member can be copied as it stands.
    Tight,
}

/// A value that holds no others.
pub(super) struct Leaf {
    pub(super) span: Span,
    pub(super) kind: NodeKind,
    /// Where it ends in the text.
    pub(super) end: usize,
}

/// What a text came to.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) nodes: Vec<Node>,
    /// The values of the strings that have escapes, one after the other. Their places are counted from the end of
    /// the text, as if this stood behind it. It is never longer than the text.
    pub(super) unescaped: Vec<u8>,
}

/// The nodes of a text that is one JSON value with nothing but white space around it. The text must be UTF-8, and
/// short enough for twice its length to fit a `u32`.
pub(super) fn parse(text: &[u8]) -> Result<Parsed, JsonProblem> {
    let nodes = Vec::with_capacity((text.len() / 8 + 1).min(NODES_MAX));
    let mut parser = Parser { nodes, unescaped: Vec::new(), stands: true };
    let (at, byte) = parser.token(text, 0);
    let at = parser.value(text, Name::default(), at, byte, 0)?;
    let (at, _) = parser.token(text, at);
    if at == text.len() {
        Ok(Parsed { nodes: parser.nodes, unescaped: parser.unescaped })
    } else {
        Err(JsonProblem::Syntax(at))
    }
}

/// An array or object that has not ended.
struct Opened {
    node: usize,
    /// [`Parser::stands`] of the one that it stands in.
    outer_stands: bool,
}

/// The text is not in here but handed on: so it stays in registers while nodes are written.
pub(super) struct Parser {
    pub(super) nodes: Vec<Node>,
    pub(super) unescaped: Vec<u8>,
    /// Whether what was read of the innermost open array or object stands as `write` would write it.
    pub(super) stands: bool,
}

/// Each of these takes the place where something begins and gives the place where it ends.
impl Parser {
    #[inline(always)]
    fn value(
        &mut self,
        text: &[u8],
        name: Name,
        at: usize,
        byte: u8,
        depth: usize,
    ) -> Result<usize, JsonProblem> {
        match byte {
            b'{' => self.object(text, name, at, depth),
            b'[' => self.array(text, name, at, depth),
            _ => {
                let Leaf { span, kind, end } = leaf(text, at, &mut self.unescaped)?;
                self.stands &= kind != NodeKind::Escaped;
                self.push(name, span, kind)?;
                Ok(end)
            }
        }
    }

    fn object(&mut self, text: &[u8], name: Name, start: usize, depth: usize) -> Result<usize, JsonProblem> {
        let opened = self.open(name, start, NodeKind::Object, depth)?;
        let mut last = Name::default();
        let (mut at, mut byte) = self.token(text, start + 1);
        if byte != b'}' {
            loop {
                if byte != b'"' {
                    return Err(JsonProblem::Syntax(at));
                }
                let name;
                (name, at) = self.name(text, at)?;
                if name.begins <= last.begins {
                    self.compare(text, last, name, &opened);
                }
                last = name;
                (at, byte) = self.token(text, at);
                if byte != b':' {
                    return Err(JsonProblem::Syntax(at));
                }
                (at, byte) = self.token(text, at + 1);
                at = self.value(text, name, at, byte, depth + 1)?;
                (at, byte) = self.token(text, at);
                match byte {
                    b',' => (at, byte) = self.token(text, at + 1),
                    b'}' => break,
                    _ => return Err(JsonProblem::Syntax(at)),
                }
            }
        }
        Ok(self.close(&opened, at + 1))
    }

    fn array(&mut self, text: &[u8], name: Name, start: usize, depth: usize) -> Result<usize, JsonProblem> {
        let opened = self.open(name, start, NodeKind::Array, depth)?;
        let mut shape = Shape::default();
        let (mut at, mut byte) = self.token(text, start + 1);
        if byte != b']' {
            loop {
                let (item, first) = (self.nodes.len(), byte);
                at = self.value(text, Name::default(), at, byte, depth + 1)?;
                (at, byte) = self.token(text, at);
                // The depth, because an item that is alike may hold an empty array where this one does not.
                let may_be_alike = first == b'{' && byte == b',' && depth + 2 < DEPTH_MAX;
                if may_be_alike && shape.keep(text, &self.nodes, item) {
                    let end = self.alike(text, &shape, at);
                    (at, byte) = self.token(text, end);
                }
                match byte {
                    b',' => (at, byte) = self.token(text, at + 1),
                    b']' => break,
                    _ => return Err(JsonProblem::Syntax(at)),
                }
            }
        }
        Ok(self.close(&opened, at + 1))
    }

    #[inline]
    fn open(
        &mut self,
        name: Name,
        start: usize,
        kind: NodeKind,
        depth: usize,
    ) -> Result<Opened, JsonProblem> {
        if depth >= DEPTH_MAX {
            return Err(JsonProblem::TooDeep);
        }
        let node = self.nodes.len();
        self.push(name, span(start, start), kind)?;
        Ok(Opened { node, outer_stands: std::mem::replace(&mut self.stands, true) })
    }

    #[inline]
    fn close(&mut self, opened: &Opened, end: usize) -> usize {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[opened.node];
        node.span.end = end as u32;
        node.next = next;
        node.stands = self.stands;
        self.stands &= opened.outer_stands;
        end
    }

    #[inline(always)]
    fn name(&mut self, text: &[u8], at: usize) -> Result<(Name, usize), JsonProblem> {
        match short_string(text, at + 1) {
            Some((begins, length)) => {
                let end = at + length + 2;
                Ok((Name { begins, span: span(at, end) }, end))
            }
            None => self.any_name(text, at),
        }
    }

    #[inline(never)]
    fn any_name(&mut self, text: &[u8], at: usize) -> Result<(Name, usize), JsonProblem> {
        let end = plain_end(text, at + 1);
        let (span, end) = match byte(text, end) {
            b'"' => (span(at, end + 1), end + 1),
            _ => {
                self.stands = false;
                escaped(text, at + 1, &mut self.unescaped)?
            }
        };
        let value = string(text, &self.unescaped, span);
        let begins = match value.first_chunk() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => value.iter().chain(&[0; 8]).take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        Ok((Name { begins, span }, end))
    }

    /// Notes where a member stands before one whose name is smaller.
    fn compare(&mut self, text: &[u8], last: Name, name: Name, object: &Opened) {
        let is_first = self.nodes.len() == object.node + 1;
        let read = |name: Name| string(text, &self.unescaped, name.span);
        self.stands &= is_first || name.begins == last.begins && read(name) >= read(last);
    }

    /// The next byte that is no white space, and its place. Most JSON is sent without any.
    #[inline(always)]
    pub(super) fn token(&mut self, text: &[u8], at: usize) -> (usize, u8) {
        let byte = byte(text, at);
        if byte > b' ' { (at, byte) } else { self.after_space(text, at) }
    }

    fn after_space(&mut self, text: &[u8], mut at: usize) -> (usize, u8) {
        self.stands = false;
        while matches!(byte(text, at), b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        (at, byte(text, at))
    }

    #[inline]
    fn push(&mut self, name: Name, span: Span, kind: NodeKind) -> Result<(), JsonProblem> {
        if self.nodes.len() >= NODES_MAX {
            return Err(JsonProblem::TooMany);
        }
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { name, span, next, kind, stands: true, row: Row::No });
        Ok(())
    }
}

/// A byte of the text, or 0 behind it, which JSON has nowhere.
#[inline(always)]
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// A value that holds no other: no array and no object, or an empty one.
#[inline(always)]
pub(super) fn leaf(text: &[u8], start: usize, unescaped: &mut Vec<u8>) -> Result<Leaf, JsonProblem> {
    let (end, kind) = match byte(text, start) {
        b'"' => {
            let end = plain_end(text, start + 1);
            if byte(text, end) != b'"' {
                return any_leaf(text, start, unescaped);
            }
            (end + 1, NodeKind::Plain)
        }
        // One digit, as most quantities are.
        b'0'..=b'9' if matches!(byte(text, start + 1), b',' | b'}') => (start + 1, NodeKind::Number),
        b'1'..=b'9' => match short_number_end(text, start) {
            Some(end) => (end, NodeKind::Number),
            None => return any_leaf(text, start, unescaped),
        },
        _ => return any_leaf(text, start, unescaped),
    };
    Ok(Leaf { span: span(start, end), kind, end })
}

/// The same, however it is written. It is not called for strings without escapes.
#[inline(never)]
fn any_leaf(text: &[u8], start: usize, unescaped: &mut Vec<u8>) -> Result<Leaf, JsonProblem> {
    let rest = text.get(start..).unwrap_or_default();
    let (length, kind) = match rest {
        [b'"', ..] => {
            let (span, end) = escaped(text, start + 1, unescaped)?;
            return Ok(Leaf { span, kind: NodeKind::Escaped, end });
        }
        [first @ (b'-' | b'0'..=b'9'), ..] => (number_end(text, start, *first)? - start, NodeKind::Number),
        [b't', b'r', b'u', b'e', ..] => (4, NodeKind::True),
        [b'f', b'a', b'l', b's', b'e', ..] => (5, NodeKind::False),
        [b'n', b'u', b'l', b'l', ..] => (4, NodeKind::Null),
        [b'[', b']', ..] => (2, NodeKind::Array),
        [b'{', b'}', ..] => (2, NodeKind::Object),
        _ => return Err(JsonProblem::Syntax(start)),
    };
    let end = start + length;
    Ok(Leaf { span: span(start, end), kind, end })
}

/// A string with escapes, from its first byte behind the quote on.
#[cold]
fn escaped(text: &[u8], mut plain: usize, unescaped: &mut Vec<u8>) -> Result<(Span, usize), JsonProblem> {
    let start = text.len() + unescaped.len();
    loop {
        let at = plain_end(text, plain);
        unescaped.extend_from_slice(&text[plain..at]);
        plain = match byte(text, at) {
            b'"' => return Ok((span(start, text.len() + unescaped.len()), at + 1)),
            b'\\' => escape::take(text, at, unescaped).ok_or(JsonProblem::Syntax(at))?,
            _ => return Err(JsonProblem::Syntax(at)),
        };
    }
}

/// The end of a number of less than eight bytes without a sign and an exponent, as most are.
#[inline(always)]
fn short_number_end(text: &[u8], start: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(*text.get(start..)?.first_chunk()?);
    // A digit becomes a number below ten, to which so much can be added without its highest bit being set.
    let numbers = word ^ (ONES * 0x30);
    let mut others = (numbers | numbers.wrapping_add(ONES * 0x76)) & (ONES * 0x80);
    let digits = others.trailing_zeros();
    let (mut end, mut next) = (digits / 8, word.checked_shr(digits & !7)? as u8);
    if next == b'.' {
        others &= others - 1;
        let fraction = others.trailing_zeros();
        if fraction == digits + 8 {
            return None;
        }
        (end, next) = (fraction / 8, word.checked_shr(fraction & !7)? as u8);
    }
    (next | 0x20 != b'e').then_some(start + end as usize)
}

/// RFC 8259 section 6. Only the extent of a number is found; its text is its value.
fn number_end(text: &[u8], start: usize, first: u8) -> Result<usize, JsonProblem> {
    let mut at = match first {
        b'1'..=b'9' => start + 1 + digits(text, start + 1),
        b'0' => start + 1,
        _ if byte(text, start + 1) == b'0' => start + 2,
        _ => digits_end(text, start + 1)?,
    };
    if byte(text, at) == b'.' {
        at = digits_end(text, at + 1)?;
    }
    if matches!(byte(text, at), b'e' | b'E') {
        at += 1;
        at += usize::from(matches!(byte(text, at), b'+' | b'-'));
        at = digits_end(text, at)?;
    }
    Ok(at)
}

#[inline]
fn digits_end(text: &[u8], start: usize) -> Result<usize, JsonProblem> {
    match digits(text, start) {
        0 => Err(JsonProblem::Syntax(start)),
        length => Ok(start + length),
    }
}

#[inline(always)]
fn digits(text: &[u8], start: usize) -> usize {
    let mut at = start;
    while byte(text, at).is_ascii_digit() {
        at += 1;
    }
    at - start
}

/// What marks the first byte of a word that is a quote, a backslash or a control character; 0 where there is none.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // A quote and the control characters are the bytes that are less than 0x21 once their second bit is turned. The
    // lowest byte that is marked is one that is meant; bytes above it may be marked by a borrow.
    let quote_or_control = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5C)).wrapping_sub(ONES);
    (quote_or_control | backslash) & !word & (ONES * 0x80)
}

/// A name of less than eight bytes without escapes, as most are: [`Name::begins`], and how long it is.
#[inline(always)]
fn short_string(text: &[u8], start: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.get(start..)?.first_chunk()?);
    let bits = special(word).trailing_zeros() & !7;
    let is_quote = word.checked_shr(bits)? as u8 == b'"';
    is_quote.then_some(((word & ((1 << bits) - 1)).swap_bytes(), bits as usize / 8))
}

/// Where the first quote, backslash or control character stands, at `at` or behind it.
#[inline(always)]
fn plain_end(text: &[u8], at: usize) -> usize {
    let sixteen = text.get(at..).and_then(<[u8]>::first_chunk::<16>);
    sixteen.and_then(special_at).map_or_else(|| long_plain_end(text, at), |first| at + first)
}

#[inline(never)]
fn long_plain_end(text: &[u8], at: usize) -> usize {
    let (blocks, few) = text.get(at..).unwrap_or_default().as_chunks();
    for (index, block) in blocks.iter().enumerate() {
        if let Some(first) = special_at(block) {
            return at + 16 * index + first;
        }
    }
    let is_special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
    text.len() - few.len() + few.iter().position(is_special).unwrap_or(few.len())
}

#[inline(always)]
fn special_at(block: &[u8; 16]) -> Option<usize> {
    let both = u128::from_le_bytes(*block);
    match (special(both as u64), special((both >> 64) as u64)) {
        (0, 0) => None,
        (0, second) => Some(8 + second.trailing_zeros() as usize / 8),
        (first, _) => Some(first.trailing_zeros() as usize / 8),
    }
}

/// The text's length was checked to fit, and what its escapes stand for is never longer than they are.
#[inline(always)]
pub(super) fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}

/// The value of a string by its place (see [`Span`]).
#[inline]
pub(super) fn string<'a>(text: &'a [u8], unescaped: &'a [u8], span: Span) -> &'a [u8] {
    let (start, end) = (span.start as usize, span.end as usize);
    match start.checked_sub(text.len()) {
        None => &text[start + 1..end - 1],
        Some(start) => &unescaped[start..end - text.len()],
    }
}
