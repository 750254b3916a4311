//! `multipart/form-data` (RFC 7578), fully buffered, read more strictly than any shop reads it.
//!
//! Whatever two readers could cut differently is refused: bare line feeds before a boundary, text before the first
//! or after the last one, folded headers, unquoted oddities, two dispositions. No boundary is kept: it is random, and
//! differs between two copies of one form.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;

use super::{lookup::Lookup, query};

/// How many parts a body may have.
pub const PARTS_MAX: usize = 1000;

/// How long the header block of one part may be, in bytes.
pub const PART_HEADER_BYTES_MAX: usize = 8 * 1024;

/// A body cut into its parts.
#[derive(Clone, Debug)]
pub struct Multipart {
    parts: Vec<Part>,
}

/// One field or file.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: Vec<u8>,
    pub filename: Option<Vec<u8>>,
    pub media_type: Option<Vec<u8>>,
    /// `Content-Transfer-Encoding`, which RFC 7578 section 4.7 deprecates and which no browser sends.
    pub transfer: Transfer,
    pub content: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// None, `7bit`, `8bit` or `binary`: the bytes are the value.
    AsItIs,
    /// Anything else: a shop may or may not decode it.
    Encoded,
}

/// Why a body is not `multipart/form-data` to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MultipartProblem {
    #[error("its Content-Type names no usable boundary")]
    Boundary,
    #[error("it does not begin with its boundary")]
    Preamble,
    #[error("it does not end with its boundary")]
    End,
    #[error("a line that begins like its boundary goes on differently")]
    BoundaryLine,
    #[error("it has more than {PARTS_MAX} parts")]
    TooManyParts,
    #[error("the header of a part is longer than {PART_HEADER_BYTES_MAX} bytes")]
    LongHeader,
    #[error("the header of a part is malformed")]
    Header,
    #[error("a part has no plain Content-Disposition: form-data with one name")]
    Disposition,
}

impl Multipart {
    /// Cuts a body at a boundary (as [`boundary`] gives it).
    ///
    /// # Errors
    /// Whatever has more than one reading, and the bounds of this module.
    pub fn parse(body: &Bytes, boundary: &[u8]) -> Result<Self, MultipartProblem> {
        let mut needle = Vec::with_capacity(boundary.len() + 3);
        needle.extend_from_slice(b"\n--");
        needle.extend_from_slice(boundary);
        let finder = memmem::Finder::new(&needle);

        let lead = if body.starts_with(b"\r\n") { 2 } else { 0 };
        if !body[lead..].starts_with(&needle[1..]) {
            return Err(MultipartProblem::Preamble);
        }
        let mut at = lead + needle.len() - 1;
        let mut parts = Vec::new();
        loop {
            let rest = &body[at..];
            if rest == b"--" || rest == b"--\r\n" {
                return Ok(Self { parts });
            }
            if rest.starts_with(b"--") {
                return Err(MultipartProblem::End);
            }
            if !rest.starts_with(b"\r\n") {
                return Err(MultipartProblem::BoundaryLine);
            }
            if parts.len() == PARTS_MAX {
                return Err(MultipartProblem::TooManyParts);
            }
            let start = at + 2;
            // The search begins at the line feed before the part, so that an empty header block is seen as such.
            let end = at + 1 + finder.find(&body[at + 1..]).ok_or(MultipartProblem::End)?;
            if end <= start || body[end - 1] != b'\r' {
                return Err(MultipartProblem::BoundaryLine);
            }
            parts.push(Part::parse(&body.slice(start..end - 1))?);
            at = end + needle.len();
        }
    }

    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Looks a field up, by the name that PHP gives it. A file of that name, or a field in a transfer encoding, has
    /// no safe reading.
    #[must_use]
    pub fn lookup(&self, name: &[u8]) -> Lookup {
        let wanted = query::php_name(name);
        let is_meant = |part: &&Part| query::base(&query::php_name(&part.name)) == query::base(&wanted);
        for part in self.parts.iter().filter(is_meant) {
            if part.filename.is_some() {
                return Lookup::Unreadable("it is a file".into());
            }
            if part.transfer == Transfer::Encoded {
                return Lookup::Unreadable("it has a Content-Transfer-Encoding".into());
            }
        }
        let pairs = self.parts.iter().map(|part| (Cow::Borrowed(&*part.name), Cow::Borrowed(&*part.content)));
        query::lookup_in(pairs, name)
    }
}

impl Part {
    fn parse(part: &Bytes) -> Result<Self, MultipartProblem> {
        let header_end = match memmem::find(part, b"\r\n\r\n") {
            Some(end) => end,
            None if part.len() > PART_HEADER_BYTES_MAX => return Err(MultipartProblem::LongHeader),
            None => return Err(MultipartProblem::Header),
        };
        if header_end > PART_HEADER_BYTES_MAX {
            return Err(MultipartProblem::LongHeader);
        }
        let (mut disposition, mut media_type, mut transfer) = (None, None, None);
        for line in split_lines(&part[..header_end]) {
            let (name, value) = header_line(line).ok_or(MultipartProblem::Header)?;
            let place = if name.eq_ignore_ascii_case(b"content-disposition") {
                &mut disposition
            } else if name.eq_ignore_ascii_case(b"content-type") {
                &mut media_type
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                &mut transfer
            } else {
                continue;
            };
            if place.replace(value).is_some() {
                return Err(MultipartProblem::Header);
            }
        }
        let named = disposition.and_then(Disposition::parse).ok_or(MultipartProblem::Disposition)?;
        let transfer = match transfer {
            None => Transfer::AsItIs,
            Some(value) if is_any_of(value, &[b"7bit", b"8bit", b"binary"]) => Transfer::AsItIs,
            Some(_) => Transfer::Encoded,
        };
        Ok(Self {
            name: named.name,
            filename: named.filename,
            media_type: media_type.map(<[u8]>::to_vec),
            transfer,
            content: part.slice(header_end + 4..),
        })
    }
}

/// The boundary that a Content-Type names. PHP takes whatever follows the first `boundary` in the value, so a value
/// that has the word twice is refused.
///
/// # Errors
/// No boundary, two of them, or one with letters that RFC 2046 section 5.1.1 does not allow.
pub fn boundary(content_type: &[u8]) -> Result<Vec<u8>, MultipartProblem> {
    let lower = content_type.to_ascii_lowercase();
    let mut places = memmem::find_iter(&lower, b"boundary");
    let (Some(at), None) = (places.next(), places.next()) else { return Err(MultipartProblem::Boundary) };
    let before = content_type[..at].trim_ascii_end();
    let value =
        content_type[at + b"boundary".len()..].strip_prefix(b"=").ok_or(MultipartProblem::Boundary)?;
    if !before.ends_with(b";") {
        return Err(MultipartProblem::Boundary);
    }
    let (value, rest) = match value.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr::memchr(b'"', quoted).ok_or(MultipartProblem::Boundary)?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => value.split_at(memchr::memchr2(b';', b',', value).unwrap_or(value.len())),
    };
    let rest = rest.trim_ascii();
    let is_fit = (1..=70).contains(&value.len()) && value.iter().all(|&byte| is_boundary_byte(byte));
    if !is_fit || !(rest.is_empty() || rest.starts_with(b";")) {
        return Err(MultipartProblem::Boundary);
    }
    Ok(value.to_vec())
}

struct Disposition {
    name: Vec<u8>,
    filename: Option<Vec<u8>>,
}

impl Disposition {
    /// `form-data; name="a"; filename="b"`. Parameters that readers take differently (`name*`, single quotes,
    /// doubled ones) make it unreadable.
    fn parse(value: &[u8]) -> Option<Self> {
        let at = memchr::memchr(b';', value)?;
        if !value[..at].trim_ascii().eq_ignore_ascii_case(b"form-data") {
            return None;
        }
        let (mut name, mut filename) = (None, None);
        let mut rest = &value[at..];
        while let Some(after) = rest.strip_prefix(b";") {
            let after = after.trim_ascii_start();
            if after.is_empty() {
                break;
            }
            let equals = memchr::memchr(b'=', after)?;
            let key = &after[..equals];
            let (text, remainder) = parameter_value(&after[equals + 1..])?;
            let place = if key.eq_ignore_ascii_case(b"name") {
                &mut name
            } else if key.eq_ignore_ascii_case(b"filename") {
                &mut filename
            } else {
                return None;
            };
            if place.replace(text).is_some() {
                return None;
            }
            rest = remainder.trim_ascii_start();
        }
        (rest.is_empty() || rest == b";").then_some(())?;
        Some(Self { name: name.filter(|name| !name.is_empty())?, filename })
    }
}

/// A token, or a quoted string in which PHP's rfc1867 reader takes `\"` and `\\` for one letter and leaves every
/// other backslash alone (browsers send them bare).
fn parameter_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(text.len());
        let token = &text[..end];
        let is_token =
            token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&*+-.^_`|~[]".contains(byte));
        return (is_token && !token.is_empty()).then(|| (token.to_vec(), &text[end..]));
    };
    let mut out = Vec::with_capacity(quoted.len());
    let mut at = 0;
    loop {
        match (quoted.get(at)?, quoted.get(at + 1)) {
            (b'\\', Some(&next @ (b'"' | b'\\'))) => {
                out.push(next);
                at += 2;
            }
            // PHP goes on after a quote that nothing ends; RFC readers stop. Only a clean end is taken.
            (b'"', None | Some(b';' | b' ' | b'\t')) => return Some((out, &quoted[at + 1..])),
            (b'"', Some(_)) | (0, _) => return None,
            (&byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

fn split_lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(block);
    std::iter::from_fn(move || {
        let block = rest?;
        match memmem::find(block, b"\r\n") {
            Some(at) => {
                rest = Some(&block[at + 2..]);
                Some(&block[..at])
            }
            None => {
                rest = None;
                Some(block)
            }
        }
    })
}

/// A name that is a token, a colon, a value without control bytes. Folded lines begin with a space and so have none.
fn header_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
    let is_name =
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    let is_value = value.iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7F));
    (is_name && is_value).then_some((name, value))
}

fn is_any_of(value: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|name| value.eq_ignore_ascii_case(name))
}

fn is_boundary_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> Result<Multipart, MultipartProblem> {
        Multipart::parse(&Bytes::copy_from_slice(body.as_bytes()), b"B")
    }

    fn part(disposition: &str, content: &str) -> String {
        format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    }

    fn one(disposition: &str) -> Option<Vec<u8>> {
        Some(parse(&(part(disposition, "1") + "--B--\r\n")).ok()?.parts()[0].name.clone())
    }

    #[test]
    fn fields_are_found_by_their_php_name() {
        let body = part("name=\"a.b\"", "1") + &part("name=\"f\"; filename=\"x.txt\"", "file") + "--B--\r\n";
        let multipart = parse(&body).unwrap();
        assert_eq!(multipart.lookup(b"a_b"), Lookup::text("1"));
        assert_eq!(multipart.lookup(b"zz"), Lookup::Absent);
        assert!(matches!(multipart.lookup(b"f"), Lookup::Unreadable(_)));
        assert_eq!(multipart.parts()[1].filename.as_deref(), Some(b"x.txt".as_slice()));
    }

    #[test]
    fn a_doubled_key_is_ambiguous_and_an_encoded_one_unreadable() {
        let body = part("name=\"id\"", "1") + &part("name=\"id\"", "2") + "--B--";
        assert!(matches!(parse(&body).unwrap().lookup(b"id"), Lookup::Ambiguous(_)));
        let body = "--B\r\nContent-Disposition: form-data; name=\"id\"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--B--";
        assert!(matches!(parse(body).unwrap().lookup(b"id"), Lookup::Unreadable(_)));
    }

    #[test]
    fn names_are_unquoted_as_php_does_it() {
        assert_eq!(one(r#"name="a\"b""#).as_deref(), Some(br#"a"b"#.as_slice()));
        assert_eq!(one(r#"name="a\\b\c""#).as_deref(), Some(br"a\b\c".as_slice()));
        assert_eq!(one("name=id").as_deref(), Some(b"id".as_slice()));
        for wrong in [
            "name='id'",
            "name=\"id",
            "name=\"id\"x",
            "name=\"\"",
            "name*=utf-8''id",
            "name=\"a\"; name=\"b\"",
            "x",
        ] {
            assert_eq!(one(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn whatever_can_be_cut_in_two_ways_is_refused() {
        let field = part("name=\"id\"", "1");
        let wrong = [
            String::new(),
            "--B".into(),
            field.clone(),
            format!("preamble\r\n{field}--B--"),
            format!("{field}--B--\r\nepilogue"),
            format!("{field}--B--\r\n{field}--B--"),
            format!("{field}--Bx\r\n"),
            field.replace("1\r\n", "1\n") + "--B--",
            field.replace("\r\n", "\n") + "--B--",
            "--B\r\nContent-Disposition: form-data;\r\n name=\"id\"\r\n\r\n1\r\n--B--".into(),
            "--B\r\nX: y\r\n\r\n1\r\n--B--".into(),
            "--B\r\n--B--".into(),
        ];
        for body in wrong {
            assert!(parse(&body).is_err(), "{body:?}");
        }
        assert!(parse(&(field + "--B--\r\n")).is_ok());
    }

    #[test]
    fn parts_and_their_headers_have_bounds() {
        let field = part("name=\"a\"", "1");
        assert!(parse(&(field.repeat(PARTS_MAX) + "--B--")).is_ok());
        let many = parse(&(field.repeat(10_000) + "--B--"));
        assert_eq!(many.err(), Some(MultipartProblem::TooManyParts));
        let long = format!("--B\r\nX: {}\r\n\r\n1\r\n--B--", "y".repeat(PART_HEADER_BYTES_MAX));
        assert_eq!(parse(&long).err(), Some(MultipartProblem::LongHeader));
    }

    #[test]
    fn a_boundary_has_one_reading_or_none() {
        assert_eq!(boundary(b"multipart/form-data; boundary=abc").unwrap(), b"abc");
        assert_eq!(boundary(b"multipart/form-data; charset=utf-8; boundary=\"a b\"").ok(), None);
        assert_eq!(boundary(b"multipart/form-data; boundary=\"a:b\"; x=y").unwrap(), b"a:b");
        let wrong = [
            "",
            ";boundary=",
            "; boundary=a; boundary=b",
            "; xboundary=a",
            "; boundary=\"a",
            "; boundary=a,b",
            "; boundary = a",
        ];
        for parameters in wrong {
            assert!(boundary(format!("multipart/form-data{parameters}").as_bytes()).is_err(), "{parameters}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(prop_oneof![
            Just("--B".to_owned()), Just("\r\n".to_owned()), Just("\n".to_owned()), Just("--".to_owned()), Just("Content-Disposition: form-data; name=\"a\"".to_owned()), ".{0,3}",
        ], 0..16)) {
            let _ = parse(&pieces.concat());
            let _ = boundary(pieces.concat().as_bytes());
        }
    }
}
