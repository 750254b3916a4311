//! The grammar of RFC 8259: from text to a flat list of nodes. It keeps places, never values, and never recurses
//! deeper than [`DEPTH_MAX`].

use super::{DEPTH_MAX, JsonProblem, NODES_MAX};

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

/// `start..end` is the text of a scalar (of a string: without its quotes); `next` is the node after this one's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) next: u32,
}

/// The nodes of a text that is one JSON value with nothing but white space around it.
pub(super) fn nodes(text: &[u8]) -> Result<Vec<Node>, JsonProblem> {
    let nodes = Vec::with_capacity((text.len() / 12 + 1).min(NODES_MAX));
    let mut parser = Parser { text, at: 0, nodes };
    parser.skip_space();
    parser.value(0)?;
    parser.skip_space();
    if parser.at == text.len() { Ok(parser.nodes) } else { Err(parser.wrong()) }
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
            at += plain_run(&self.text[at.min(self.text.len())..]);
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

    #[inline]
    fn skip_space(&mut self) {
        // Most JSON is sent without any.
        if self.peek().is_some_and(|byte| byte > b' ') {
            return;
        }
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonProblem> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong()) }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong(&self) -> JsonProblem {
        JsonProblem::Syntax(self.at)
    }
}

/// How many bytes stand before the first quote, backslash or control character, rounded down to what can be told a
/// word at a time; the caller looks at each byte after that.
#[inline]
fn plain_run(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let mut run = 0;
    for word in text.chunks_exact(8) {
        let word =
            u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        // The lowest byte that these mark is one that is meant; bytes above it may be marked by a borrow.
        let is = |byte: u8| {
            let differing = word ^ (ONES * u64::from(byte));
            differing.wrapping_sub(ONES) & !differing
        };
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (is(b'"') | is(b'\\') | control) & HIGHS;
        if found != 0 {
            return run + (found.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    run
}

fn count(number: usize) -> u32 {
    u32::try_from(number)
        .expect("the text's length was checked to fit, and there is at most one node per byte")
}
