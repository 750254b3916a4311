//! What a request's headers say of the way it came, to the shop and back (RFC 7239, RFC 9110 section 7.6).
//!
//! What a client that is not trusted says of itself is replaced, never passed on.

use std::{cell::RefCell, fmt::Write, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};
use smallvec::SmallVec;

use super::core::Core;
use crate::ops::headers::{self, HopFields};

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The number of the lease, for a plugin of the shop that can use it. A client's own would be a forgery.
pub const FENCE: HeaderName = HeaderName::from_static("oncegate-fence");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const VIA: HeaderValue = HeaderValue::from_static("1.1 oncegate");
const VIA_OLD: HeaderValue = HeaderValue::from_static("1.0 oncegate");
const VIA_NEW: HeaderValue = HeaderValue::from_static("2.0 oncegate");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Whose word we take for where a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    Trusted,
    Untrusted,
}

/// What a client's connection is encrypted with, as the shop is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Http,
    Https,
}

/// The other end of a client connection. Texts that are the same for all its requests are made once.
pub struct Peer {
    pub address: Option<IpAddr>,
    pub trust: Trust,
    scheme: Scheme,
    shown: HeaderValue,
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Peer {
    pub fn new(address: Option<IpAddr>, trust: Trust) -> Self {
        let shown = match address {
            Some(address) => value(&address.to_string()),
            None => HeaderValue::from_static("unknown"),
        };
        Self { address, trust, scheme: Scheme::Http, shown, forwarded: RefCell::default() }
    }

    /// The same peer, over an encrypted connection.
    #[must_use]
    pub fn encrypted(self) -> Self {
        Self { scheme: Scheme::Https, ..self }
    }

    /// The address as text, for the log.
    pub fn shown(&self) -> &str {
        self.shown.to_str().unwrap_or("unknown")
    }

    /// RFC 7239: `for=…;host=…;proto=…`.
    fn forwarded(&self, host: Option<&HeaderValue>) -> HeaderValue {
        if let Some((of, value)) = &*self.forwarded.borrow()
            && Some(of) == host
        {
            return value.clone();
        }
        let mut text = String::with_capacity(64);
        // Writing to a String cannot fail.
        let _ = match self.address {
            Some(IpAddr::V4(address)) => write!(text, "for={address}"),
            Some(IpAddr::V6(address)) => write!(text, "for=\"[{address}]\""),
            None => write!(text, "for=unknown"),
        };
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            let _ = match host.contains([':', '[']) {
                true => write!(text, ";host=\"{host}\""),
                false => write!(text, ";host={host}"),
            };
        }
        text.push_str(match self.scheme {
            Scheme::Http => ";proto=http",
            Scheme::Https => ";proto=https",
        });
        let made = value(&text);
        // A copy: the value is a slice of the read buffer, which would be kept for as long as the connection lives.
        if let Some(host) = host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok()) {
            *self.forwarded.borrow_mut() = Some((host, made.clone()));
        }
        made
    }
}

/// The id of an exchange: the trusted proxy's, else a new one of 32 hex digits.
pub fn request_id(core: &Core, peer: &Peer, headers: &HeaderMap) -> HeaderValue {
    if peer.trust == Trust::Trusted
        && let Some(id) = headers.get(X_REQUEST_ID)
        && (1..=128).contains(&id.len())
        && id.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return id.clone();
    }
    let mut text = [0; 32];
    write_hex(core.random(), &mut text);
    HeaderValue::from_bytes(&text).expect("hex digits are a header value")
}

/// The trace that an exchange belongs to: the trusted proxy's, else a new one that is not sampled (W3C Trace Context).
pub fn traceparent(core: &Core, peer: &Peer, headers: &mut HeaderMap) -> HeaderValue {
    if peer.trust == Trust::Trusted
        && let Some(trace) = headers.get(TRACEPARENT)
        && trace.len() <= 128
    {
        return trace.clone();
    }
    // All zeroes would be no id.
    let mut text = *b"00-................................-................-00";
    write_hex(core.random().max(1), &mut text[3..35]);
    write_hex((core.random() >> 64).max(1), &mut text[36..52]);
    let made = HeaderValue::from_bytes(&text).expect("hex digits are a header value");
    // Room for this and for what `to_shop` adds, so that the table grows once.
    headers.reserve(7);
    headers.insert(TRACEPARENT, made.clone());
    headers.remove("tracestate");
    made
}

/// Gives a request that names its host in the target only the `Host` of it, before anybody asks for it: the shop gets
/// the path only (RFC 9112 section 3.2.2). One that names none at all gets the server's, once that is known.
pub fn name_host(parts: &mut Parts) {
    if parts.headers.contains_key(header::HOST) {
        return;
    }
    let named = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(named) = named {
        parts.headers.insert(header::HOST, named);
    }
}

/// Makes a client's headers those of the request to the shop. `upgrade` is the protocol that is asked for.
pub fn to_shop(peer: &Peer, id: &HeaderValue, upgrade: Option<HeaderValue>, parts: &mut Parts) {
    // The version that was received (RFC 9110 section 7.6.3).
    let via = match parts.version {
        Version::HTTP_10 => VIA_OLD,
        Version::HTTP_2 => VIA_NEW,
        _ => VIA,
    };
    let headers = &mut parts.headers;
    headers::remove_hop_by_hop(headers);
    remove_not_for_shop(headers, peer.trust);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
    let forwarded = peer.forwarded(host.as_ref());
    let proto = match peer.scheme {
        Scheme::Http => HTTP,
        Scheme::Https => HTTPS,
    };
    match peer.trust {
        Trust::Untrusted => {
            headers.insert(X_FORWARDED_FOR, peer.shown.clone());
            headers.insert(header::FORWARDED, forwarded);
            headers.insert(X_FORWARDED_PROTO, proto);
            if let Some(host) = host {
                headers.insert(X_FORWARDED_HOST, host);
            }
            headers.insert(header::VIA, via);
        }
        Trust::Trusted => {
            append(headers, X_FORWARDED_FOR, peer.shown.clone());
            append(headers, header::FORWARDED, forwarded);
            headers.entry(X_FORWARDED_PROTO).or_insert(proto);
            if let Some(host) = host {
                headers.entry(X_FORWARDED_HOST).or_insert(host);
            }
            append(headers, header::VIA, via);
        }
    }
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Takes out what ends here: `Expect`, since oncegate itself answers `100-continue` when it wants the body; a fence,
/// since only a leader's own request has one; and what an untrusted client has no say in: where it comes from, which
/// fence it has (a plugin that knows fences would believe it, and no real one could top it), and which page it means
/// beside the one that was matched (`X-Original-URL`, `X-Rewrite-URL`: older Zend and Symfony shops serve that one).
fn remove_not_for_shop(headers: &mut HeaderMap, trust: Trust) {
    const NAMES: [&str; 3] = ["x-real-ip", "x-original-url", "x-rewrite-url"];
    let is_spoofed = |name: &str| {
        name.starts_with("x-forwarded-") || name.starts_with("oncegate-") || NAMES.contains(&name)
    };
    let ends_here = |field: &&HeaderName| {
        let name = field.as_str();
        // One look at the first letter spares most fields all the rest.
        match name.as_bytes().first() {
            Some(b'e') => **field == header::EXPECT,
            Some(b'x' | b'o') => match trust {
                Trust::Untrusted => is_spoofed(name),
                Trust::Trusted => **field == FENCE,
            },
            Some(_) | None => false,
        }
    };
    let gone: SmallVec<[HeaderName; 4]> = headers.keys().filter(ends_here).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// What a message says of its trailers, to be said again where its body is streamed: hyper writes only those that are
/// announced. A body that is collected loses them, as RFC 9110 section 6.5.1 allows.
pub struct Trailers {
    announced: SmallVec<[HeaderValue; 1]>,
    accepted: bool,
}

impl Trailers {
    /// Of a request. `te` has no `Connection` line beside it in HTTP/2, which has no such lines.
    pub fn of_request(parts: &Parts, hop: HopFields) -> Self {
        match parts.version {
            Version::HTTP_2 => {
                let accepted = hop.te && names(&parts.headers, header::TE, b"trailers");
                Self { announced: SmallVec::new(), accepted }
            }
            _ => Self::of(&parts.headers, hop),
        }
    }

    pub fn of(headers: &HeaderMap, hop: HopFields) -> Self {
        // Only chunks have trailers behind them (RFC 9112 section 7.1.2).
        let announced = match hop.transfer_encoding && hop.trailer {
            true => headers.get_all(header::TRAILER).iter().cloned().collect(),
            false => SmallVec::new(),
        };
        // What no `Connection` line names was left over from another hop (RFC 9110 section 10.1.4).
        let accepted =
            hop.te && names(headers, header::TE, b"trailers") && names(headers, header::CONNECTION, b"te");
        Self { announced, accepted }
    }

    /// To the shop: what comes, and that the client takes what the shop has.
    pub fn to_shop(self, headers: &mut HeaderMap) {
        if self.accepted {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            // The field is for one connection, and has to say so (RFC 9110 section 10.1.4).
            headers.append(header::CONNECTION, HeaderValue::from_static("te"));
        }
        self.announce(headers);
    }

    pub fn announce(self, headers: &mut HeaderMap) {
        for line in self.announced {
            headers.append(header::TRAILER, line);
        }
    }
}

/// Makes the shop's headers those of the answer to the client.
pub fn to_client(id: &HeaderValue, headers: &mut HeaderMap) {
    headers::remove_hop_by_hop(headers);
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Whether a trusted proxy says that it was reached over https.
pub fn is_forwarded_https(peer: &Peer, headers: &HeaderMap) -> bool {
    peer.trust == Trust::Trusted && headers.get(X_FORWARDED_PROTO).is_some_and(|proto| *proto == HTTPS)
}

/// Whether this length, and no other, is said.
pub fn says_length(headers: &HeaderMap, length: usize) -> bool {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    said.next().is_some_and(|said| said == itoa::Buffer::new().format(length)) && said.next().is_none()
}

/// A number as a field value; `HeaderValue::from` costs several times as much.
pub fn number(number: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).expect("digits are a header value")
}

/// The address that the log names: behind trusted proxies, the last one in `X-Forwarded-For` that is not trusted.
pub fn client_address(peer: &Peer, trusted: &[ipnet::IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    if peer.trust == Trust::Untrusted {
        return peer.address;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let named = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    for name in named {
        let Ok(address) = name.trim().parse::<IpAddr>() else { break };
        if !trusted.iter().any(|net| net.contains(&address)) {
            return Some(address);
        }
    }
    peer.address
}

/// Whether one of the lines lists the word.
fn names(headers: &HeaderMap, name: HeaderName, word: &[u8]) -> bool {
    let mut listed =
        headers.get_all(name).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    listed.any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
}

/// The lowest bytes of a number, as many as there is room for. `format!` costs ten times as much, on every request.
fn write_hex(number: u128, out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.rchunks_exact_mut(2).zip(number.to_le_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xF)];
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, last: HeaderValue) {
    let Some(before) = headers.get(&name) else {
        headers.insert(name, last);
        return;
    };
    let mut joined = Vec::with_capacity(before.len() + last.len() + 2);
    for line in headers.get_all(&name) {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(last.as_bytes());
    // Both parts were header values, so the whole is one too.
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(name, joined);
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, trust: Trust) -> Peer {
        Peer::new(address.parse().ok(), trust)
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, text) in lines {
            headers.append(*name, HeaderValue::from_static(text));
        }
        headers
    }

    #[test]
    fn forwarded_names_the_peer_and_quotes_what_must_be_quoted() {
        let host = HeaderValue::from_static("shop.example:8080");
        assert_eq!(
            peer("::1", Trust::Untrusted).forwarded(Some(&host)),
            "for=\"[::1]\";host=\"shop.example:8080\";proto=http"
        );
        assert_eq!(peer("10.0.0.7", Trust::Untrusted).forwarded(None), "for=10.0.0.7;proto=http");
    }

    #[test]
    fn the_client_behind_trusted_proxies_is_the_last_address_that_is_not_trusted() {
        let trusted = ["10.0.0.0/8".parse().expect("a net")];
        let seen = headers(&[("x-forwarded-for", "6.6.6.6, 1.2.3.4"), ("x-forwarded-for", "10.0.0.9")]);
        let from = |trust| client_address(&peer("10.0.0.1", trust), &trusted, &seen);
        assert_eq!(from(Trust::Trusted), "1.2.3.4".parse().ok());
        assert_eq!(from(Trust::Untrusted), "10.0.0.1".parse().ok());
    }

    #[test]
    fn hex_is_written_from_its_end() {
        let mut text = [0; 8];
        write_hex(0xFEED_0A1B_2C3D, &mut text);
        assert_eq!(&text, b"0a1b2c3d");
    }

    #[test]
    fn several_lines_become_one_list_with_ours_last() {
        let mut seen = headers(&[("via", "1.0 a"), ("via", "1.1 b")]);
        append(&mut seen, header::VIA, VIA);
        assert_eq!(seen.get_all(header::VIA).iter().collect::<Vec<_>>(), ["1.0 a, 1.1 b, 1.1 oncegate"]);
    }
}
