//! An HTTP/2 client that sends what it is told to, frame by frame, whether it may or not.

use std::{io, net::SocketAddr, sync::Arc};

use super::certificates::{Authority, Encrypted, Versions, connect};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub(super) struct Frames {
    pub(super) wire: Encrypted,
    /// The code of the last GOAWAY.
    goaway: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// What a stream came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The status, as far as it is one of the table, and the body.
    Answered(u16, String),
    Reset(u32),
    /// The connection has ended before.
    Ended,
}

/// Fields of a GET of `shop.example` that nobody objects to.
pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "shop.example"), (":path", "/")];

/// The same, of something else.
pub(super) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "https"), (":authority", "shop.example"), (":path", path)]
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block in which nothing is compressed (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            // One byte for a character, so that a test can say which bytes it means.
            block.extend(text.chars().map(|sign| u8::try_from(u32::from(sign)).expect("a byte")));
        }
    }
    block
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

impl Frames {
    pub(super) fn connect(authority: &Authority, to: SocketAddr) -> Self {
        Self::with(authority, to, &[])
    }

    /// With settings of its own.
    pub(super) fn with(authority: &Authority, to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut config = (*authority.client(Versions::Tls13, None)).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut wire = connect(&Arc::new(config), to, "shop.example").expect("a handshake");
        assert_eq!(wire.stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        wire.send(frame(SETTINGS, 0, 0, &payload));
        Self { wire, goaway: None }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes);
    }

    /// A request in one frame.
    pub(super) fn ask(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(frame(HEADERS, flags | END_HEADERS, stream, &block(fields)));
    }

    /// The next frame; `None` at the end of the connection.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        let head = match self.wire.exactly(9) {
            Ok(head) => head,
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = match self.wire.exactly(length) {
            Ok(payload) => payload,
            Err(error) if is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7FFF_FFFF;
        let found = Frame { kind: head[3], flags: head[4], stream, payload };
        // Whoever does not answer a ping of ours is no client.
        if (found.kind, found.flags & ACK) == (PING, 0) {
            let _ = self.wire.try_send(frame(PING, ACK, 0, &found.payload));
        }
        if (found.kind, found.flags & ACK) == (SETTINGS, 0) {
            let _ = self.wire.try_send(frame(SETTINGS, ACK, 0, &[]));
        }
        if found.kind == GOAWAY {
            self.goaway = found.payload[4..8].try_into().ok().map(u32::from_be_bytes);
        }
        Ok(Some(found))
    }

    /// Reads until a stream is over.
    pub(super) fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let Some(next) = self.next().expect("it goes on in time") else { return Outcome::Ended };
            if next.stream != stream {
                continue;
            }
            match next.kind {
                HEADERS if status == 0 => status = status_of(&next.payload),
                DATA => body.extend_from_slice(&next.payload),
                RST_STREAM => {
                    let code: [u8; 4] = next.payload[..4].try_into().expect("a code has four bytes");
                    return Outcome::Reset(u32::from_be_bytes(code));
                }
                _ => {}
            }
            if matches!(next.kind, HEADERS | DATA) && next.flags & END_STREAM != 0 {
                return Outcome::Answered(status, String::from_utf8_lossy(&body).into_owned());
            }
        }
    }

    /// Reads until the connection ends; gives the code of the last GOAWAY.
    pub(super) fn ended(&mut self) -> Option<u32> {
        while self.next().expect("it ends in time").is_some() {}
        self.goaway
    }
}

/// The other side has gone, with more or less ceremony.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// The status that a block begins with (RFC 7541 appendices A and B), 999 where it is one that no test needs.
fn status_of(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let block = match block {
        [size, rest @ ..] if size & 0xE0 == 0x20 => rest,
        block => block,
    };
    match block {
        [index @ 0x88..=0x8E, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        // A literal with the name of the table: three digits, of five bits each where they are packed.
        [_, 0x03, a, b, c, ..] => [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit - b'0')),
        [_, 0x82, first, second, ..] => {
            let bits = u16::from_be_bytes([*first, *second]);
            // The codes of 0, 1 and 2 have five bits; 3 to 9 have six, from 0x19.
            unpack(bits)
        }
        _ => 999,
    }
}

fn unpack(bits: u16) -> u16 {
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let five = bits << at >> 11;
        let digit = match five {
            0..=2 => {
                at += 5;
                five
            }
            _ => {
                let six = bits << at >> 10;
                at += 6;
                six - 0x19 + 3
            }
        };
        status = status * 10 + digit;
    }
    status
}
