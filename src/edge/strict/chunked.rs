//! Follows a chunked body byte by byte and says where it ends (RFC 9112 7.1).
//!
//! Pure: bytes in, verdict out. It keeps no byte of the body and never repairs: what another reader could take for a
//! different length is the end of the connection.

use memchr::memchr;

use super::{
    Violation,
    field::{self, NAME, TOKEN},
};

/// What was found in the bytes that were fed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fed {
    /// All of them belong to the body, and it goes on.
    More,
    /// The body ended; this many bytes belong to it.
    Done(usize),
    /// This many bytes are sound; the next one is not.
    Bad(usize, Violation),
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// Of the chunk under way: what its size line said so far, then what is left of it.
    size: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
    name: Name,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Size,
    SizeLf,
    ExtensionStart,
    Extension,
    Quoted,
    Escaped,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// The name of the trailer field under way, as far as a name that is forbidden could reach.
#[derive(Debug, Default)]
struct Name {
    bytes: [u8; 24],
    len: usize,
}

/// A chunk below 2^62 bytes: no sum with it can run over (CVE-2021-32714 was such a sum).
const SIZE_MAX: u64 = 1 << 62;
const SIZE_DIGITS_MAX: u8 = 16;
/// Of all chunks of one body together: an extension means nothing to us, so that more than this is an attack.
const EXTENSION_BYTES_MAX: usize = 4 * 1024;
const TRAILER_BYTES_MAX: usize = 16 * 1024;
const TRAILERS_MAX: usize = 100;

impl Chunked {
    pub(super) fn new() -> Self {
        Self {
            at: At::Size,
            size: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
            name: Name::default(),
        }
    }

    /// Goes on with the next bytes of the connection.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Fed {
        let mut done = 0;
        while done < bytes.len() {
            let step = match self.at {
                At::Data => Ok(self.skip_data(bytes.len() - done)),
                At::TrailerValue => self.skip_value(&bytes[done..]),
                _ => self.step(bytes[done]).map(|()| 1),
            };
            match step {
                Ok(step) => done += step,
                Err(violation) => return Fed::Bad(done, violation),
            }
            if self.at == At::End {
                return Fed::Done(done);
            }
        }
        Fed::More
    }

    fn skip_data(&mut self, available: usize) -> usize {
        let step = usize::try_from(self.size).unwrap_or(usize::MAX).min(available);
        self.size -= step as u64;
        if self.size == 0 {
            self.at = At::DataCr;
        }
        step
    }

    fn skip_value(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let end = memchr(b'\r', bytes).unwrap_or(bytes.len());
        self.count_trailer(end)?;
        if !field::value_is_clean(&bytes[..end]) {
            return Err(Violation::bad("a trailer field holds a control character"));
        }
        if end < bytes.len() {
            self.at = At::TrailerLf;
            return Ok(end + 1);
        }
        Ok(end)
    }

    fn step(&mut self, byte: u8) -> Result<(), Violation> {
        self.at = match (self.at, byte) {
            (At::Size, _) => self.size_byte(byte)?,
            (At::SizeLf, b'\n') if self.size > 0 => At::Data,
            (At::SizeLf, b'\n') => At::TrailerStart,
            (At::SizeLf, _) => return Err(Violation::bad("a chunk size line must end with CR LF")),
            (At::ExtensionStart | At::Extension | At::Quoted | At::Escaped, _) => {
                self.extension_byte(byte)?
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                (self.size, self.digits) = (0, 0);
                At::Size
            }
            (At::DataCr | At::DataLf, _) => {
                return Err(Violation::bad("chunk data is longer than its size says"));
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::TrailerName, _) => self.name_byte(byte)?,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => At::End,
            (At::TrailerLf | At::EndLf, _) => {
                return Err(Violation::bad("a trailer line must end with CR LF"));
            }
            (At::Data | At::TrailerValue | At::End, _) => self.at,
        };
        Ok(())
    }

    fn size_byte(&mut self, byte: u8) -> Result<At, Violation> {
        const BAD: Violation = Violation::bad("a chunk size must be a hexadecimal number");
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(At::SizeLf),
            b';' if self.digits > 0 => return Ok(At::ExtensionStart),
            _ => return Err(BAD),
        };
        self.digits += 1;
        // Looked at before the shift, so that the shift can lose nothing.
        if self.digits > SIZE_DIGITS_MAX || self.size >= SIZE_MAX >> 4 {
            return Err(BAD);
        }
        self.size = (self.size << 4) | u64::from(digit);
        Ok(At::Size)
    }

    fn extension_byte(&mut self, byte: u8) -> Result<At, Violation> {
        const BAD: Violation = Violation::bad("a chunk extension is malformed");
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Violation::bad("chunk extensions are too long"));
        }
        let control = byte < 0x20 && byte != b'\t' || byte == 0x7F;
        match (self.at, byte) {
            (At::ExtensionStart, _) if field::is(byte, TOKEN) => Ok(At::Extension),
            (At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, b';') => Ok(At::ExtensionStart),
            (At::Extension, b'"') => Ok(At::Quoted),
            (At::Quoted, b'"') => Ok(At::Extension),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Escaped, _) if !control => Ok(At::Quoted),
            (At::Extension | At::Quoted, _) if !control => Ok(self.at),
            _ => Err(BAD),
        }
    }

    fn name_byte(&mut self, byte: u8) -> Result<At, Violation> {
        self.count_trailer(1)?;
        if self.at == At::TrailerStart {
            self.trailers += 1;
            self.name.len = 0;
            if self.trailers > TRAILERS_MAX {
                return Err(Violation::new(431, "too many trailer fields"));
            }
        }
        if field::is(byte, NAME) {
            if let Some(slot) = self.name.bytes.get_mut(self.name.len) {
                *slot = byte;
            }
            self.name.len += 1;
            return Ok(At::TrailerName);
        }
        if byte != b':' || self.at == At::TrailerStart {
            return Err(Violation::bad("a trailer field has no valid name"));
        }
        // The prefixes that are forbidden are shorter than the buffer, so that a longer name is judged by its start.
        let name = &self.name.bytes[..self.name.len.min(self.name.bytes.len())];
        if field::is_forbidden_in_trailers(name) {
            return Err(Violation::bad("a trailer field must not change framing, routing or identity"));
        }
        Ok(At::TrailerValue)
    }

    fn count_trailer(&mut self, bytes: usize) -> Result<(), Violation> {
        self.trailer_bytes = self.trailer_bytes.saturating_add(bytes);
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Violation::new(431, "trailer fields are too long"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Fed {
        Chunked::new().feed(bytes)
    }

    /// The same bytes in pieces of these lengths (then the rest): what was found, counted from the first byte.
    fn pieces(bytes: &[u8], lens: &[usize]) -> Fed {
        let mut chunked = Chunked::new();
        let (mut at, mut lens) = (0, lens.iter());
        while at < bytes.len() {
            let end = bytes.len().min(at + lens.next().copied().unwrap_or(bytes.len()).max(1));
            match chunked.feed(&bytes[at..end]) {
                Fed::More => at = end,
                Fed::Done(n) => return Fed::Done(at + n),
                Fed::Bad(n, violation) => return Fed::Bad(at + n, violation),
            }
        }
        Fed::More
    }

    #[test]
    fn a_sound_body_ends_exactly_where_it_ends() {
        let bodies: [&[u8]; 7] = [
            b"0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"000A;a=b;c=\"d;e\\\"\"\r\n0123456789\r\n0;last\r\n\r\n",
            b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n",
            b"0\r\nX-Sum: 1\r\nX-More:\tobs\xff\r\n\r\n",
            b"0000000000000001\r\nx\r\n0\r\n\r\n",
            b"0\r\nx-name-that-is-longer-than-the-buffer-of-names: 1\r\n\r\n",
        ];
        for body in bodies {
            let sent = [body, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(whole(&sent), Fed::Done(body.len()), "{:?}", body.escape_ascii().to_string());
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let bodies: [&[u8]; 31] = [
            b"5\nhello",
            b"0x5\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"11111111111111111\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5\t;a\r\n",
            b"g\r\n",
            b"\r\n",
            b";a\r\n",
            b"5\r\r\n",
            b"5;\r\n",
            b"5;;a\r\n",
            b"5;a\nb\r\n",
            b"5;a\x00\r\n",
            b"5;a=\"\r\n",
            b"5; a\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"4000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\nContent-Length: 5\r\n",
            b"0\r\nhost: a\r\n",
            b"0\r\nX-Forwarded-For: 1\r\n",
            b"0\r\n: x\r\n",
            b"0\r\nX : y\r\n",
            b"0\r\n folded\r\n",
            b"0\r\nX: a\nb\r\n",
            b"0\r\nX_Y: a\r\n",
        ];
        for body in bodies {
            assert!(matches!(whole(body), Fed::Bad(..)), "{:?}", body.escape_ascii().to_string());
        }
    }

    #[test]
    fn the_largest_chunk_is_below_two_to_the_62nd() {
        assert_eq!(whole(b"3fffffffffffffff\r\n"), Fed::More);
    }

    #[test]
    fn extensions_and_trailers_have_bounds() {
        let extension = [b"1;a=".as_slice(), &[b'x'; 5_000], b"\r\n"].concat();
        assert!(matches!(whole(&extension), Fed::Bad(..)));
        let many = [b"0\r\n".as_slice(), &b"x: y\r\n".repeat(101), b"\r\n"].concat();
        assert!(matches!(whole(&many), Fed::Bad(_, violation) if violation.status == 431));
        let long = [b"0\r\nx: ".as_slice(), &[b'x'; 17_000], b"\r\n\r\n"].concat();
        assert!(matches!(whole(&long), Fed::Bad(_, violation) if violation.status == 431));
    }

    proptest! {
        #[test]
        fn however_a_body_is_split_the_verdict_is_the_same(
            parts in proptest::collection::vec(prop_oneof![
                Just(b"5\r\nhello\r\n".to_vec()), Just(b"0\r\n".to_vec()), Just(b"\r\n".to_vec()),
                Just(b"a;x=\"y\"\r\n0123456789\r\n".to_vec()), Just(b"X-T: v\r\n".to_vec()), Just(b"Host: v\r\n".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..4),
            ], 0..8),
            lens in proptest::collection::vec(1usize..6, 0..60),
        ) {
            let bytes = parts.concat();
            let once = whole(&bytes);
            let split = pieces(&bytes, &lens);
            let single = pieces(&bytes, &vec![1; bytes.len()]);
            // A trailer value is judged in runs, so that the place (not the verdict) may differ inside of it.
            match (once, split, single) {
                (Fed::Bad(_, a), Fed::Bad(_, b), Fed::Bad(_, c)) => { prop_assert_eq!(a, b); prop_assert_eq!(a, c); }
                (a, b, c) => { prop_assert_eq!(a, b); prop_assert_eq!(a, c); }
            }
        }
    }
}
