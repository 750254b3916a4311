//! The plain bytes of an answer's body, to be judged by: its content coding is undone, within a bound.
//!
//! We ask for `identity`, but a shop is free to answer in another coding (RFC 9110 section 12.5.3), and some compress
//! whatever they are asked. What clients get is never touched.

use std::{borrow::Cow, io::Read};

use http::{HeaderMap, header};

/// The body without its coding. `None` where nothing can be said of it: a coding that is not read, several of them,
/// bytes that are not in it, or more than `bytes_max` once it is undone.
pub(super) fn undo<'a>(headers: &HeaderMap, body: &'a [u8], bytes_max: usize) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let coding = match (lines.next(), lines.next()) {
        (None, _) => return Some(Cow::Borrowed(body)),
        (Some(line), None) => line.as_bytes().trim_ascii().to_ascii_lowercase(),
        (Some(_), Some(_)) => return None,
    };
    // No bytes are no bytes in every coding: so it is in answers to HEAD.
    if body.is_empty() {
        return Some(Cow::Borrowed(body));
    }
    match coding.as_slice() {
        b"" | b"identity" => Some(Cow::Borrowed(body)),
        b"gzip" | b"x-gzip" => unfold(flate2::read::MultiGzDecoder::new(body), bytes_max),
        // RFC 9110 section 8.4.1.2: `deflate` is the zlib format.
        b"deflate" => unfold(flate2::read::ZlibDecoder::new(body), bytes_max),
        _ => None,
    }
}

fn unfold(decoder: impl Read, bytes_max: usize) -> Option<Cow<'static, [u8]>> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut body = Vec::new();
    let read = decoder.take(limit).read_to_end(&mut body);
    (read.is_ok() && body.len() <= bytes_max).then_some(Cow::Owned(body))
}
