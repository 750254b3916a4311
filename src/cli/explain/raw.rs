//! Files that hold a raw HTTP message, as `curl -v`, a debugger or an editor leaves them.
//!
//! The lines of a head may end with LF alone; they are taken for CRLF before the gateway's own strict reader looks at
//! them. The body is all that stands behind the empty line, whatever `Content-Length` says.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request, response};

use crate::edge::strict::{
    StrictLimits, Violation,
    scan::{self, Verdict},
};

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A request of a file, as the gate gets it.
pub(super) struct RawRequest {
    pub parts: request::Parts,
    pub body: Bytes,
    pub notes: Vec<String>,
}

/// An answer of a file.
pub(super) struct RawAnswer {
    pub parts: response::Parts,
    pub body: Bytes,
    pub notes: Vec<String>,
}

/// Why a file holds no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum RawError {
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has more than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("there is nothing in it; a request begins with a line like `POST /checkout HTTP/1.1`")]
    Empty,
    #[error("`{0}` is no request line; it should be like `POST /checkout HTTP/1.1`")]
    RequestLine(String),
    #[error("`{0}` is no status line; it should be like `HTTP/1.1 200 OK`")]
    StatusLine(String),
    #[error("`{0}` is no header line; it should be like `Content-Type: application/json`")]
    HeaderLine(String),
    #[error("the gateway would refuse it with {}: {}", .0.status, .0.what)]
    Refused(Violation),
}

/// Reads a whole file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, RawError> {
    let whole = |from: &mut dyn Read| {
        let mut bytes = Vec::new();
        from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let read = match path.as_os_str() == "-" {
        true => whole(&mut io::stdin().lock()),
        false => File::open(path).and_then(|mut file| whole(&mut file)),
    };
    let bytes = read.map_err(|source| RawError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(RawError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Takes a file for a request.
pub(super) fn request(file: &[u8], limits: &StrictLimits) -> Result<RawRequest, RawError> {
    let (head, body) = split(file);
    let first = head.first().ok_or(RawError::Empty)?;
    let words: Vec<&str> = first.split(' ').collect();
    let &[method, target, version] = words.as_slice() else {
        return Err(RawError::RequestLine(shown(first)));
    };
    if !version.starts_with("HTTP/") {
        return Err(RawError::RequestLine(shown(first)));
    }
    let bytes: Vec<u8> =
        head.iter().flat_map(|line| [line.bytes, b"\r\n"].concat()).chain(*b"\r\n").collect();
    match scan::head(&bytes, limits) {
        Verdict::Whole(_) => {}
        Verdict::Bad(violation) => return Err(RawError::Refused(violation)),
        // There is an end, so the head is longer than what is looked at.
        Verdict::Partial => return Err(RawError::RequestLine(shown(first))),
    }
    let (Ok(method), Ok(target)) = (Method::from_bytes(method.as_bytes()), target.parse::<Uri>()) else {
        return Err(RawError::RequestLine(shown(first)));
    };
    let headers = headers(&head[1..])?;
    let (body, notes) = framed(&headers, body, "request");
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri, parts.headers) = (method, target, headers);
    Ok(RawRequest { parts, body, notes })
}

/// Takes a file for an answer.
pub(super) fn answer(file: &[u8]) -> Result<RawAnswer, RawError> {
    let (head, body) = split(file);
    let first = head.first().ok_or(RawError::Empty)?;
    let mut words = first.split(' ').filter(|word| !word.is_empty());
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/"));
    let status = words.next().and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
    let Some(status) = status.filter(|_| is_http) else { return Err(RawError::StatusLine(shown(first))) };
    let headers = headers(&head[1..])?;
    let (body, notes) = framed(&headers, body, "answer");
    let (mut parts, ()) = http::Response::new(()).into_parts();
    (parts.status, parts.headers) = (status, headers);
    Ok(RawAnswer { parts, body, notes })
}

/// A line without its end, as text where it is text.
struct Line<'a> {
    bytes: &'a [u8],
    text: &'a str,
}

impl std::ops::Deref for Line<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.text
    }
}

/// The lines of the head, and what stands behind the empty line. Empty lines before the first are set aside.
fn split(file: &[u8]) -> (Vec<Line<'_>>, &[u8]) {
    let mut head = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        let (line, behind) = match memchr::memchr(b'\n', rest) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = behind;
        let bytes = line.strip_suffix(b"\r").unwrap_or(line);
        match (bytes.is_empty(), head.is_empty()) {
            (true, true) => {}
            (true, false) => break,
            // What is no text is for the strict reader to refuse; a value of a field is read from the bytes.
            (false, _) => head.push(Line { bytes, text: std::str::from_utf8(bytes).unwrap_or("") }),
        }
    }
    (head, rest)
}

fn headers(lines: &[Line<'_>]) -> Result<HeaderMap, RawError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let field = memchr::memchr(b':', line.bytes).and_then(|colon| {
            let name = HeaderName::from_bytes(&line.bytes[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line.bytes[colon + 1..].trim_ascii()).ok()?;
            Some((name, value))
        });
        let (name, value) = field.ok_or_else(|| RawError::HeaderLine(shown(line)))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The body, without the line end that editors put behind it, and how it disagrees with its head.
fn framed(headers: &HeaderMap, body: &[u8], what: &str) -> (Bytes, Vec<String>) {
    let mut notes = Vec::new();
    let without_end = body.strip_suffix(b"\n").map_or(body, |body| body.strip_suffix(b"\r").unwrap_or(body));
    let said: Option<usize> =
        headers.get(header::CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.trim().parse().ok());
    let body = match said {
        Some(said) if body.len() == said => body,
        Some(said) if without_end.len() == said => without_end,
        Some(said) => {
            let has = without_end.len();
            notes.push(format!(
                "Content-Length says {said} bytes and the file has {has}: those of the file are read"
            ));
            without_end
        }
        None if headers.contains_key(header::TRANSFER_ENCODING) => {
            notes.push(format!(
                "the {what} is chunked; what stands in the file is read as it is, not as chunks"
            ));
            body
        }
        None => without_end,
    };
    if said.is_none() && !body.is_empty() && notes.is_empty() && what == "request" {
        notes.push("there is no Content-Length; without it a server would read no body".to_owned());
    }
    (Bytes::copy_from_slice(body), notes)
}

/// The beginning of a line, safe to print.
fn shown(line: &str) -> String {
    super::text::clean(&line.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StrictLimits =
        StrictLimits { head_bytes_max: 8192, target_bytes_max: 4096, fields_max: 50 };

    fn parsed(file: &str) -> RawRequest {
        request(file.as_bytes(), &LIMITS).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn lines_may_end_either_way_and_the_body_is_all_behind_the_empty_line() {
        for end in ["\n", "\r\n"] {
            let file =
                ["\n", "POST /a?b=1 HTTP/1.1", "Host: shop", "Content-Length: 5", "", "a=1\nb"].join(end);
            let raw = parsed(&file);
            assert_eq!((raw.parts.method.as_str(), raw.parts.uri.path()), ("POST", "/a"));
            assert_eq!(raw.parts.headers["host"], "shop");
            assert_eq!((raw.body.as_ref(), raw.notes.len()), (&b"a=1\nb"[..], 0), "{:?}", raw.notes);
        }
    }

    #[test]
    fn a_length_that_disagrees_is_told_and_an_editor_s_line_end_is_not() {
        let file = |length: &str, body: &str| format!("POST / HTTP/1.1\nHost: s\n{length}\n{body}");
        let raw = parsed(&file("Content-Length: 3\n", "a=1\n"));
        assert_eq!((raw.body.as_ref(), raw.notes.len()), (&b"a=1"[..], 0));
        let raw = parsed(&file("Content-Length: 30\n", "a=1\n"));
        assert_eq!(raw.body.as_ref(), b"a=1");
        assert!(raw.notes[0].contains("says 30 bytes and the file has 3"), "{:?}", raw.notes);
        let raw = parsed(&file("", "a=1\n"));
        assert!(raw.notes[0].contains("no Content-Length"), "{:?}", raw.notes);
        let raw = parsed(&file("Transfer-Encoding: chunked\n", "3\na=1\n0\n\n"));
        assert!(raw.notes[0].contains("chunked"), "{:?}", raw.notes);
    }

    #[test]
    fn what_is_no_message_is_told_with_what_it_should_be_like() {
        let told =
            |file: &[u8]| request(file, &LIMITS).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told(b"").contains("nothing in it"));
        assert!(told(b"{\"a\":1}\n").contains("`{\"a\":1}` is no request line"));
        assert!(told(b"GET / HTTP/1.1\n\n").contains("refuse it with 400"));
        assert!(told(b"GET / HTTP/1.1\nHost: a\nHost: b\n\n").contains("refuse it with 400"));
        assert!(told(b"GET /\xff\x1b[31m HTTP/1.1\nHost: a\n\n").is_ascii());
        let told = |file: &[u8]| answer(file).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told(b"200 OK\n\n").contains("is no status line"));
        assert!(told(b"HTTP/1.1 200 OK\nnonsense\n\n").contains("`nonsense` is no header line"));
        assert_eq!(answer(b"HTTP/2 200 \nA: b\n\nok\n").map(|raw| raw.body).unwrap_or_default(), "ok");
    }
}
