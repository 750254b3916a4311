//! What a body says, by the type that it was declared as.
//!
//! The declared type decides, never a guess at the bytes: a shop goes by the declaration, and a body that does not
//! parse as declared is [`Content::Unreadable`]. A content coding is undone for reading only; the shop gets the
//! bytes as they came.

use std::{borrow::Cow, io::Read};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{
    json::{Document, Pointer},
    lookup::Lookup,
    multipart::{self, Multipart},
    query, xml,
};

/// A body as its declared type has it.
#[derive(Clone, Debug)]
pub enum Content {
    /// No bytes at all, whatever was declared.
    Empty,
    Json(Document),
    /// `application/x-www-form-urlencoded`, still encoded; it is walked where it is needed.
    Form(Bytes),
    Multipart(Multipart),
    /// XML without its content coding; it is read where it is needed.
    Xml(Bytes),
    /// Any other type, or none.
    Raw(Bytes),
    /// No safe reading. The bytes are those that came, in their coding; the reason is a sentence without values.
    Unreadable {
        raw: Bytes,
        reason: Cow<'static, str>,
    },
}

/// Which kind of source can be read from a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    Json,
    Form,
    Xml,
    Graphql,
}

impl Content {
    /// Looks up a field of a form (urlencoded or multipart). Absent in bodies that were not declared as a form.
    #[must_use]
    pub fn form(&self, name: &str) -> Lookup {
        match self {
            Self::Form(raw) => query::lookup(raw, name.as_bytes()),
            Self::Multipart(multipart) => multipart.lookup(name.as_bytes()),
            Self::Unreadable { reason, .. } => Lookup::Unreadable(reason.to_string()),
            Self::Empty | Self::Json(_) | Self::Xml(_) | Self::Raw(_) => Lookup::Absent,
        }
    }

    /// Looks up a JSON pointer. Absent in bodies that were not declared as JSON, and for what is no pointer.
    #[must_use]
    pub fn json(&self, pointer: &str) -> Lookup {
        Pointer::parse(pointer).map_or(Lookup::Absent, |pointer| self.json_at(&pointer))
    }

    #[must_use]
    pub fn json_at(&self, pointer: &Pointer) -> Lookup {
        match self {
            Self::Json(document) => document.lookup(pointer),
            Self::Unreadable { reason, .. } => Lookup::Unreadable(reason.to_string()),
            Self::Empty | Self::Form(_) | Self::Multipart(_) | Self::Xml(_) | Self::Raw(_) => Lookup::Absent,
        }
    }

    /// Looks up the way to an element. Absent in bodies that were not declared as XML.
    #[must_use]
    pub fn xml_at(&self, path: &xml::Path) -> Lookup {
        match self {
            Self::Xml(body) => xml::lookup(body, path),
            Self::Unreadable { reason, .. } => Lookup::Unreadable(reason.to_string()),
            Self::Empty | Self::Json(_) | Self::Form(_) | Self::Multipart(_) | Self::Raw(_) => Lookup::Absent,
        }
    }

    /// Why the body has no safe reading, where it has none.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        match self {
            Self::Unreadable { reason, .. } => Some(reason),
            Self::Empty
            | Self::Json(_)
            | Self::Form(_)
            | Self::Multipart(_)
            | Self::Xml(_)
            | Self::Raw(_) => None,
        }
    }

    /// Whether this body was declared as something that such a source is read from. Nothing misfits an empty body.
    #[must_use]
    pub fn fits(&self, reads: Reads) -> bool {
        match self {
            Self::Empty => true,
            Self::Json(_) => matches!(reads, Reads::Json | Reads::Graphql),
            Self::Form(_) | Self::Multipart(_) => matches!(reads, Reads::Form | Reads::Graphql),
            Self::Xml(_) => reads == Reads::Xml,
            Self::Raw(_) | Self::Unreadable { .. } => false,
        }
    }

    /// About how many bytes of it there are to digest.
    #[must_use]
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Empty | Self::Multipart(_) => 0,
            Self::Json(document) => document.length(),
            Self::Form(raw) | Self::Xml(raw) | Self::Raw(raw) | Self::Unreadable { raw, .. } => raw.len(),
        }
    }

    /// What it is, in one word or two, for people.
    #[must_use]
    pub fn declared(&self) -> &'static str {
        match self {
            Self::Empty => "nothing",
            Self::Json(_) => "JSON",
            Self::Form(_) => "a form",
            Self::Multipart(_) => "a multipart form",
            Self::Xml(_) => "XML",
            Self::Raw(_) => "neither a form nor JSON nor XML",
            Self::Unreadable { .. } => "something that cannot be read",
        }
    }
}

/// What a body is, whatever its sender declares (`body_as`): Amazon's notifications are JSON under `text/plain`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyAs {
    Declared,
    Json,
    Form,
    Xml,
}

/// Reads a complete body as its headers declare it. `decoded_bytes_max` bounds what a content coding may unfold to.
#[must_use]
pub fn read(headers: &HeaderMap, raw: &Bytes, decoded_bytes_max: usize) -> Content {
    read_as(BodyAs::Declared, headers, raw, decoded_bytes_max)
}

/// The same, of a route that knows better than its senders.
#[must_use]
pub fn read_as(body_as: BodyAs, headers: &HeaderMap, raw: &Bytes, decoded_bytes_max: usize) -> Content {
    if raw.is_empty() {
        return Content::Empty;
    }
    match read_declared(body_as, headers, raw, decoded_bytes_max) {
        Ok(content) => content,
        Err(reason) => Content::Unreadable { raw: raw.clone(), reason },
    }
}

/// Which reader a media type asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Media {
    Json,
    Form,
    Multipart,
    Xml,
    Other,
}

/// A content coding that is undone for reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

type Reason = Cow<'static, str>;

fn read_declared(
    body_as: BodyAs,
    headers: &HeaderMap,
    raw: &Bytes,
    decoded_bytes_max: usize,
) -> Result<Content, Reason> {
    let content_type = single(headers, &header::CONTENT_TYPE)?.unwrap_or_default();
    let media = match body_as {
        BodyAs::Declared => media(content_type),
        BodyAs::Json => Media::Json,
        BodyAs::Form => Media::Form,
        BodyAs::Xml => Media::Xml,
    };
    if media == Media::Other {
        // No key is read from such a body, so its coding does not matter: it is hashed as it came.
        return Ok(Content::Raw(raw.clone()));
    }
    let body = match coding(headers)? {
        Coding::Identity => raw.clone(),
        Coding::Gzip => unfold(flate2::read::MultiGzDecoder::new(raw.as_ref()), decoded_bytes_max)?,
        Coding::Deflate => inflate(raw, decoded_bytes_max)?,
    };
    check_charset(media, content_type)?;
    match media {
        Media::Json => match Document::parse(body) {
            Ok(document) => Ok(Content::Json(document)),
            Err(problem) => Err(format!("the body is declared as JSON: {problem}").into()),
        },
        Media::Form => read_form(body),
        Media::Multipart => {
            let parsed =
                multipart::boundary(content_type).and_then(|boundary| Multipart::parse(&body, &boundary));
            match parsed {
                Ok(multipart) => Ok(Content::Multipart(multipart)),
                Err(problem) => Err(format!("the body is declared as a multipart form: {problem}").into()),
            }
        }
        Media::Xml => Ok(Content::Xml(body)),
        Media::Other => Ok(Content::Raw(body)),
    }
}

fn read_form(body: Bytes) -> Result<Content, Reason> {
    // JSON under a form's type parses as one field with a strange name. A shop that reads the raw body would see a
    // key where we see none, so the mismatch is refused.
    if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Err("the body is declared as a form but begins like JSON".into());
    }
    if query::is_overlong(&body) {
        return Err(format!("the form has more than {} fields", query::PAIRS_MAX).into());
    }
    Ok(Content::Form(body))
}

/// The only line of a header that must not stand twice.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Reason> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (_, Some(_)) => Err(format!("the header {name} stands twice").into()),
        (line, None) => Ok(line.map(http::HeaderValue::as_bytes)),
    }
}

fn media(content_type: &[u8]) -> Media {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    let is = |name: &[u8]| essence.eq_ignore_ascii_case(name);
    let ends = |suffix: &[u8]| {
        let at = essence.len().checked_sub(suffix.len()).filter(|_| essence.contains(&b'/'));
        at.is_some_and(|at| essence[at..].eq_ignore_ascii_case(suffix))
    };
    if is(b"application/json") {
        Media::Json
    } else if is(b"application/x-www-form-urlencoded") {
        Media::Form
    } else if is(b"multipart/form-data") {
        Media::Multipart
    } else if ends(b"+json") {
        Media::Json
    } else if is(b"application/xml") || is(b"text/xml") || ends(b"+xml") {
        Media::Xml
    } else {
        Media::Other
    }
}

/// JSON is UTF-8 (RFC 8259 section 8.1), and so is XML here. A form may be in any charset whose letters below 128 are ASCII.
fn check_charset(media: Media, content_type: &[u8]) -> Result<(), Reason> {
    let Some(parameters) = memchr::memchr(b';', content_type) else { return Ok(()) };
    let lower = content_type[parameters + 1..].to_ascii_lowercase();
    let mut found = lower.split(|&byte| byte == b';').filter_map(|parameter| {
        let value =
            parameter.trim_ascii().strip_prefix(b"charset")?.trim_ascii().strip_prefix(b"=")?.trim_ascii();
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    });
    let (first, second) = (found.next(), found.next());
    if second.is_some() {
        return Err("the Content-Type names two charsets".into());
    }
    let Some(charset) = first else { return Ok(()) };
    let is_known = match charset {
        b"utf-8" | b"utf8" | b"us-ascii" | b"ascii" => true,
        other => {
            matches!(media, Media::Form | Media::Multipart)
                && (other.starts_with(b"iso-8859-") || other.starts_with(b"windows-125"))
        }
    };
    if is_known { Ok(()) } else { Err("the body is in a charset that is not read".into()) }
}

fn coding(headers: &HeaderMap) -> Result<Coding, Reason> {
    let Some(value) = single(headers, &header::CONTENT_ENCODING)? else { return Ok(Coding::Identity) };
    match value.trim_ascii().to_ascii_lowercase().as_slice() {
        b"" | b"identity" => Ok(Coding::Identity),
        b"gzip" | b"x-gzip" => Ok(Coding::Gzip),
        b"deflate" => Ok(Coding::Deflate),
        _ => Err("the body is in a content coding that is not read, or in several".into()),
    }
}

/// RFC 9110 section 8.4.1.2: `deflate` is the zlib format. Some send it without the wrapper; that is not read.
fn inflate(raw: &Bytes, decoded_bytes_max: usize) -> Result<Bytes, Reason> {
    let mut decoder = flate2::read::ZlibDecoder::new(raw.as_ref());
    let body = unfold(&mut decoder, decoded_bytes_max)?;
    if usize::try_from(decoder.total_in()) != Ok(raw.len()) {
        return Err("something follows the end of the compressed body".into());
    }
    Ok(body)
}

fn unfold(decoder: impl Read, decoded_bytes_max: usize) -> Result<Bytes, Reason> {
    let limit = u64::try_from(decoded_bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut body = Vec::new();
    match decoder.take(limit).read_to_end(&mut body) {
        Err(_) => Err("the body is not in the content coding that it is declared in".into()),
        Ok(_) if body.len() > decoded_bytes_max => {
            Err("the body is larger than allowed once its content coding is undone".into())
        }
        Ok(_) => Ok(body.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn content(lines: &[(&'static str, &str)], body: impl Into<Bytes>) -> Content {
        read(&headers(lines), &body.into(), 1 << 20)
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_declared_type_decides() {
        let form = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
        assert!(matches!(content(&[form], "id=1"), Content::Form(_)));
        assert!(content(&[form], " {\"id\":1}").unreadable().is_some());
        let json = ("content-type", "Application/JSON;charset=\"utf-8\"");
        assert!(matches!(content(&[json], "{}"), Content::Json(_)));
        assert!(matches!(
            content(&[("content-type", "application/vnd.x.v1.hal+json")], "{}"),
            Content::Json(_)
        ));
        assert!(content(&[json], "id=1").unreadable().is_some());
        assert!(matches!(content(&[], "{}"), Content::Raw(_)));
        assert!(matches!(content(&[json, json], ""), Content::Empty));
        assert!(content(&[json, json], "{}").unreadable().is_some());
        assert!(
            content(&[("content-type", "application/json; charset=utf-16")], "{}").unreadable().is_some()
        );
    }

    #[test]
    fn a_route_may_know_better_than_its_senders() {
        let plain = headers(&[("content-type", "text/plain; charset=UTF-8")]);
        let read =
            |body_as, body: &'static str| read_as(body_as, &plain, &Bytes::from_static(body.as_bytes()), 99);
        let message = r#"{"MessageId":"7"}"#;
        assert_eq!(read(BodyAs::Json, message).json("/MessageId"), Lookup::text("7"));
        assert!(matches!(read(BodyAs::Declared, message), Content::Raw(_)));
        assert_eq!(read(BodyAs::Form, "id=7").form("id"), Lookup::text("7"));
        assert!(matches!(read(BodyAs::Xml, "<a/>"), Content::Xml(_)));
        assert!(read(BodyAs::Json, "id=7").unreadable().is_some());
    }

    #[test]
    fn an_unreadable_body_is_never_a_missing_key() {
        let broken = content(&[("content-type", "application/json")], "{");
        assert!(matches!(broken.json("/id"), Lookup::Unreadable(_)));
        assert!(matches!(broken.form("id"), Lookup::Unreadable(_)));
    }

    #[test]
    fn a_content_coding_is_undone_for_reading() {
        let json = ("content-type", "application/json");
        let found = content(&[json, ("content-encoding", "gzip")], gzip(br#"{"id":"A"}"#)).json("/id");
        assert_eq!(found, Lookup::text("A"));
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(br#"{"id":"A"}"#).unwrap();
        let mut zlib = encoder.finish().unwrap();
        assert_eq!(
            content(&[json, ("content-encoding", "Deflate")], zlib.clone()).json("/id"),
            Lookup::text("A")
        );
        zlib.push(0);
        assert!(content(&[json, ("content-encoding", "deflate")], zlib).unreadable().is_some());
    }

    #[test]
    fn a_coding_that_is_wrong_or_unknown_or_a_bomb_is_unreadable() {
        let json = ("content-type", "application/json");
        for coding in ["gzip, gzip", "br", "zstd", "gzip", "deflate", "x"] {
            assert!(content(&[json, ("content-encoding", coding)], "{}").unreadable().is_some(), "{coding}");
        }
        let bomb = gzip(&vec![b' '; 8 << 20]);
        assert!(bomb.len() < 1 << 14);
        assert!(content(&[json, ("content-encoding", "gzip")], bomb).unreadable().is_some());
        let mut junk = gzip(b"{}");
        junk.extend_from_slice(b"junk");
        assert!(content(&[json, ("content-encoding", "gzip")], junk).unreadable().is_some());
    }
}
