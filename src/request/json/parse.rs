//! The grammar of RFC 8259: from text to a flat list of nodes. It keeps places, never values, with one exception:
//! a string with escapes is unescaped here, once. It never recurses deeper than [`DEPTH_MAX`].

use super::{DEPTH_MAX, JsonProblem, NODES_MAX, escape};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NodeKind {
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// What the value is called, if it is a member of an object.
    pub(super) name: Name,
    pub(super) span: Span,
    /// The node after this one's own.
    pub(super) next: u32,
    pub(super) kind: NodeKind,
    /// Whether its text is what `write` would write for it.
    pub(super) stands: bool,
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
    let mut parser = Parser { text, nodes, unescaped: Vec::new(), stands: true };
    let (at, byte) = parser.token(0);
    let at = parser.value(Name::default(), at, byte, 0)?;
    let (at, _) = parser.token(at);
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

struct Parser<'a> {
    text: &'a [u8],
    nodes: Vec<Node>,
    unescaped: Vec<u8>,
    /// Whether what was read of the innermost open array or object stands as `write` would write it.
    stands: bool,
}

/// Each of these takes the place where something begins and gives the place where it ends.
impl Parser<'_> {
    #[inline(always)]
    fn value(&mut self, name: Name, at: usize, byte: u8, depth: usize) -> Result<usize, JsonProblem> {
        match byte {
            b'"' => {
                let end = plain_end(self.text, at + 1);
                if self.byte(end) == b'"' {
                    self.push(name, span(at, end + 1), NodeKind::Plain)?;
                    return Ok(end + 1);
                }
                let (span, end) = self.escaped(at + 1, end)?;
                self.push(name, span, NodeKind::Escaped)?;
                Ok(end)
            }
            b'-' | b'0'..=b'9' => {
                let end = number_end(self.text, at, byte)?;
                self.push(name, span(at, end), NodeKind::Number)?;
                Ok(end)
            }
            b'{' => self.object(name, at, depth),
            b'[' => self.array(name, at, depth),
            b't' => self.word(name, at, b"true", NodeKind::True),
            b'f' => self.word(name, at, b"false", NodeKind::False),
            b'n' => self.word(name, at, b"null", NodeKind::Null),
            _ => Err(JsonProblem::Syntax(at)),
        }
    }

    fn object(&mut self, name: Name, start: usize, depth: usize) -> Result<usize, JsonProblem> {
        let opened = self.open(name, start, NodeKind::Object, depth)?;
        let mut last = Name::default();
        let (mut at, mut byte) = self.token(start + 1);
        if byte != b'}' {
            loop {
                if byte != b'"' {
                    return Err(JsonProblem::Syntax(at));
                }
                let name;
                (name, at) = self.name(at)?;
                if name.begins <= last.begins {
                    self.compare(last, name, &opened);
                }
                last = name;
                (at, byte) = self.token(at);
                if byte != b':' {
                    return Err(JsonProblem::Syntax(at));
                }
                (at, byte) = self.token(at + 1);
                at = self.value(name, at, byte, depth + 1)?;
                (at, byte) = self.token(at);
                match byte {
                    b',' => (at, byte) = self.token(at + 1),
                    b'}' => break,
                    _ => return Err(JsonProblem::Syntax(at)),
                }
            }
        }
        Ok(self.close(&opened, at + 1))
    }

    fn array(&mut self, name: Name, start: usize, depth: usize) -> Result<usize, JsonProblem> {
        let opened = self.open(name, start, NodeKind::Array, depth)?;
        let (mut at, mut byte) = self.token(start + 1);
        if byte != b']' {
            loop {
                at = self.value(Name::default(), at, byte, depth + 1)?;
                (at, byte) = self.token(at);
                match byte {
                    b',' => (at, byte) = self.token(at + 1),
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
    fn name(&mut self, at: usize) -> Result<(Name, usize), JsonProblem> {
        match short_string(self.text, at + 1) {
            Some((begins, length)) => {
                let end = at + length + 2;
                Ok((Name { begins, span: span(at, end) }, end))
            }
            None => self.any_name(at),
        }
    }

    #[inline(never)]
    fn any_name(&mut self, at: usize) -> Result<(Name, usize), JsonProblem> {
        let end = plain_end(self.text, at + 1);
        let (span, end) = match self.byte(end) {
            b'"' => (span(at, end + 1), end + 1),
            _ => self.escaped(at + 1, end)?,
        };
        let value = string(self.text, &self.unescaped, span);
        let begins = match value.first_chunk() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => value.iter().chain(&[0; 8]).take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        Ok((Name { begins, span }, end))
    }

    /// A string that is not plain from `at` on.
    #[cold]
    fn escaped(&mut self, mut plain: usize, mut at: usize) -> Result<(Span, usize), JsonProblem> {
        self.stands = false;
        let start = self.text.len() + self.unescaped.len();
        loop {
            self.unescaped.extend_from_slice(&self.text[plain..at]);
            plain = match self.byte(at) {
                b'"' => return Ok((span(start, self.text.len() + self.unescaped.len()), at + 1)),
                b'\\' => escape::take(self.text, at, &mut self.unescaped).ok_or(JsonProblem::Syntax(at))?,
                _ => return Err(JsonProblem::Syntax(at)),
            };
            at = plain_end(self.text, plain);
        }
    }

    /// Notes where a member stands before one whose name is smaller.
    fn compare(&mut self, last: Name, name: Name, object: &Opened) {
        let is_first = self.nodes.len() == object.node + 1;
        let read = |name: Name| string(self.text, &self.unescaped, name.span);
        self.stands &= is_first || name.begins == last.begins && read(name) >= read(last);
    }

    fn word(&mut self, name: Name, start: usize, word: &[u8], kind: NodeKind) -> Result<usize, JsonProblem> {
        if !self.text[start..].starts_with(word) {
            return Err(JsonProblem::Syntax(start));
        }
        let end = start + word.len();
        self.push(name, span(start, end), kind)?;
        Ok(end)
    }

    /// The next byte that is no white space, and its place. Most JSON is sent without any.
    #[inline(always)]
    fn token(&mut self, at: usize) -> (usize, u8) {
        let byte = self.byte(at);
        if byte > b' ' { (at, byte) } else { self.after_space(at) }
    }

    fn after_space(&mut self, mut at: usize) -> (usize, u8) {
        self.stands = false;
        while matches!(self.byte(at), b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        (at, self.byte(at))
    }

    /// A byte of the text, or 0 behind it, which JSON has nowhere.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        byte(self.text, at)
    }

    #[inline]
    fn push(&mut self, name: Name, span: Span, kind: NodeKind) -> Result<(), JsonProblem> {
        if self.nodes.len() >= NODES_MAX {
            return Err(JsonProblem::TooMany);
        }
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { name, span, next, kind, stands: kind != NodeKind::Escaped });
        Ok(())
    }
}

#[inline(always)]
fn byte(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

/// RFC 8259 section 6. Only the extent of a number is found; its text is its value.
#[inline]
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
fn plain_end(text: &[u8], mut at: usize) -> usize {
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let special = special(u64::from_le_bytes(*eight));
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// The text's length was checked to fit, and what its escapes stand for is never longer than they are.
#[inline(always)]
fn span(start: usize, end: usize) -> Span {
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
