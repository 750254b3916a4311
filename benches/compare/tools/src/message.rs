//! Where a message ends: the little of RFC 9112 that both ends need. A body is as long as Content-Length says and no
//! other framing is known, because no subject of the comparison changes the framing of what it passes on.

use memchr::{memchr, memmem};

pub enum Framed {
    /// There is more to come.
    Partial,
    Whole {
        head_bytes: usize,
        bytes: usize,
    },
}

/// Looks at the beginning of `bytes` for one message, a request or an answer.
pub fn frame(bytes: &[u8]) -> Result<Framed, &'static str> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(Framed::Partial) };
    let head_bytes = end + 4;
    if field(&bytes[..head_bytes], b"transfer-encoding").is_some() {
        return Err("a message in chunks, where Content-Length was sent");
    }
    let body_bytes = match field(&bytes[..head_bytes], b"content-length") {
        None => 0,
        Some(value) => {
            let value = str::from_utf8(value).map_err(|_| "a Content-Length that is no text")?;
            value.trim().parse::<usize>().map_err(|_| "a Content-Length that is no number")?
        }
    };
    let bytes_due = head_bytes + body_bytes;
    if bytes.len() < bytes_due {
        return Ok(Framed::Partial);
    }
    Ok(Framed::Whole { head_bytes, bytes: bytes_due })
}

/// The target of a request, as it was sent.
pub fn target(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

/// The value of the first field line of that name, which is given in lower case.
fn field<'head>(head: &'head [u8], name: &[u8]) -> Option<&'head [u8]> {
    let mut rest = head;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name) {
            return Some(line[name.len() + 1..].trim_ascii());
        }
    }
    None
}
