//! The rules that hold for a request whatever the version of HTTP that it came by, one at a time.
//!
//! Over HTTP/1.1 the scanner keeps them while it walks through the bytes; here they are for a head that somebody else
//! has read.

use super::{
    Violation,
    field::{self, NAME},
    scan::METHOD_BYTES_MAX,
};

/// Longest request target; beyond it 414.
const TARGET_BYTES_MAX: usize = 16 << 10;

pub const TOO_MANY_FIELDS: Violation = Violation::new(431, "too many header fields");
pub const HOST_MISSING: Violation = Violation::bad("Host is missing");
pub const HOST_TWICE: Violation = Violation::bad("Host must be given once");
pub const HOSTS_DIFFER: Violation = Violation::bad("the request target and Host name different servers");
pub const BAD_TARGET: Violation = Violation::bad("the request target is malformed");
const UNDERSCORE: Violation = Violation::bad("a header name must not hold an underscore");
const BAD_NAME: Violation = Violation::bad("a header name must be a token");
const BAD_VALUE: Violation = Violation::bad("a header value holds a control character, or blanks around it");
const BAD_HOST: Violation = Violation::bad("Host must be one host name or address, and at most one port");
const LENGTH_TWICE: Violation = Violation::bad("Content-Length must be given once");

/// How long a target may be where a head may be so long.
#[must_use]
pub fn target_bytes_max(head_bytes_max: usize) -> usize {
    TARGET_BYTES_MAX.min(head_bytes_max / 2)
}

pub fn method(method: &[u8]) -> Result<(), Violation> {
    if method.len() > METHOD_BYTES_MAX {
        return Err(Violation::new(501, "the method is too long to be one that anybody knows"));
    }
    Ok(())
}

pub fn name(name: &[u8]) -> Result<(), Violation> {
    match name.get(field::span(name, NAME)) {
        None if !name.is_empty() => Ok(()),
        Some(b'_') => Err(UNDERSCORE),
        Some(_) | None => Err(BAD_NAME),
    }
}

/// A value as it is, with nothing around it that some readers take off (RFC 9113 section 8.2.1).
pub fn value(value: &[u8]) -> Result<(), Violation> {
    let is_clean = field::value_is_clean(value) && field::trim(value).len() == value.len();
    if is_clean { Ok(()) } else { Err(BAD_VALUE) }
}

pub fn host(host: &[u8]) -> Result<(), Violation> {
    if field::host_is_clean(host) { Ok(()) } else { Err(BAD_HOST) }
}

/// A target in origin form, or `*` for OPTIONS.
pub fn target(is_options: bool, target: &[u8], bytes_max: usize) -> Result<(), Violation> {
    if target.len() > bytes_max {
        return Err(Violation::new(414, "the request target is too long"));
    }
    match target {
        [b'/', ..] if field::path_is_clean(target) => Ok(()),
        b"*" if is_options => Ok(()),
        _ => Err(BAD_TARGET),
    }
}

/// `Content-Length`, and whether there is another line of it.
pub fn length(value: &[u8], again: bool) -> Result<(), Violation> {
    if again {
        return Err(LENGTH_TWICE);
    }
    field::length(value).map(drop)
}

pub fn expect(value: &[u8]) -> Result<(), Violation> {
    if value.eq_ignore_ascii_case(b"100-continue") {
        return Ok(());
    }
    Err(Violation::new(417, "only `Expect: 100-continue` can be met"))
}
