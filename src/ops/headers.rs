//! What any intermediary does to header fields: the hop-by-hop ones end here (RFC 9110, section 7.6.1).
//!
//! It never looks at a value other than those of `Connection` and `Upgrade`, and never adds a field.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use smallvec::SmallVec;

/// How many option names of `Connection` are honoured. The number of fields in a head is bounded already; this
/// keeps one long line from costing more than the head that carries it.
const OPTIONS_MAX: usize = 64;

/// Which of the fields that are about one connection stand in a head. All are found in one pass: to ask for each of
/// them by its hash cost more than all else that is done to most heads.
#[derive(Clone, Copy, Default, Debug)]
pub struct HopFields {
    pub connection: bool,
    pub te: bool,
    pub trailer: bool,
    pub transfer_encoding: bool,
    pub upgrade: bool,
    /// One of these, or another that RFC 9110, section 7.6.1 lists.
    pub any: bool,
}

impl HopFields {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys().filter(|name| is_hop_by_hop(name)) {
            found.any = true;
            found.connection |= *name == CONNECTION;
            found.te |= *name == TE;
            found.trailer |= *name == TRAILER;
            found.transfer_encoding |= *name == TRANSFER_ENCODING;
            found.upgrade |= *name == UPGRADE;
        }
        found
    }
}

/// Takes out what is meant for one connection only: the fields that RFC 9110, section 7.6.1 lists, and every field
/// that any `Connection` line names. `TE: trailers` goes as well: we do not promise trailers to the next hop.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let hop = HopFields::of(headers);
    if !hop.any {
        return;
    }
    let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
    if hop.connection {
        gone.extend(options(headers).take(OPTIONS_MAX).filter(|name| !is_kept_whatever_is_said(name)));
    }
    gone.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    // A length beside a transfer coding was not what framed the body (RFC 9112, section 6.3): it must not do so from
    // here on, when the coding is gone.
    if hop.transfer_encoding {
        gone.push(CONTENT_LENGTH);
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Whether the field is about one connection by its very name.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    // One comparison of the length and one of the text per candidate; no hashing.
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// The protocol that the sender wishes to change to: one `Upgrade` line, and `upgrade` among the connection options
/// (RFC 9110, section 7.8: without the option the field is meant for another connection).
///
/// Only WebSocket (RFC 6455, section 4.1) counts. A tunnel to a shop that agrees to `h2c` carries requests that no
/// route and no guard ever sees, and RFC 9113, section 3.1 has given that upgrade up.
#[must_use]
pub fn wants_upgrade(headers: &HeaderMap, hop: HopFields) -> Option<HeaderValue> {
    if !hop.upgrade {
        return None;
    }
    let mut lines = headers.get_all(UPGRADE).iter();
    let wanted = lines.next()?;
    if lines.next().is_some() || !wanted.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    options(headers).take(OPTIONS_MAX).any(|name| name == UPGRADE).then(|| wanted.clone())
}

/// The names in all `Connection` lines; what is no field name cannot be a field and is passed over.
fn options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
}

/// Fields that carry framing, routing, keys, identity or an answer's meaning. A sender must not name them as
/// connection options (RFC 9110, section 7.6.1), and one who does so wants them to vanish between us and the shop,
/// so that the shop reads another request than we did. They stay.
fn is_kept_whatever_is_said(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-")
        || name.starts_with("oncegate-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "content-encoding"
                | "cookie"
                | "set-cookie"
                | "authorization"
                | "idempotency-key"
                | "forwarded"
                | "via"
                | "origin"
                | "referer"
                | "location"
                | "cache-control"
                | "cache-status"
                | "x-request-id"
                | "traceparent"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn left(lines: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(lines);
        remove_hop_by_hop(&mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn every_connection_line_is_honoured() {
        let left = left(&[
            ("connection", "close, X-Hop"),
            ("connection", " ,x-second ,, "),
            ("x-hop", "1"),
            ("x-second", "2"),
            ("x-stays", "3"),
        ]);
        assert_eq!(left, ["x-stays"]);
    }

    #[test]
    fn the_listed_fields_go_without_a_connection_line() {
        let left = left(&[
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, ["accept"]);
    }

    #[test]
    fn a_connection_line_cannot_take_keys_identity_or_framing_away() {
        let lines = [
            ("connection", "Cookie, Idempotency-Key, X-Forwarded-For, Host, Content-Length, Authorization"),
            ("cookie", "a=b"),
            ("idempotency-key", "k"),
            ("x-forwarded-for", "192.0.2.1"),
            ("host", "shop.example"),
            ("content-length", "3"),
            ("authorization", "Bearer t"),
        ];
        assert_eq!(left(&lines).len(), lines.len() - 1);
    }

    #[test]
    fn lines_of_equal_name_go_together() {
        assert!(left(&[("te", "trailers"), ("te", "gzip")]).is_empty());
    }

    #[test]
    fn an_upgrade_counts_only_with_its_connection_option() {
        let asked = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let wants_upgrade = |headers: &HeaderMap| wants_upgrade(headers, HopFields::of(headers));
        assert_eq!(wants_upgrade(&asked).unwrap(), "websocket");
        assert_eq!(wants_upgrade(&map(&[("upgrade", "websocket")])), None);
        assert_eq!(wants_upgrade(&map(&[("connection", "upgrade")])), None);
        let twice = map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")]);
        assert_eq!(wants_upgrade(&twice), None);
    }

    #[test]
    fn an_upgrade_to_anything_but_websocket_is_not_passed_on() {
        let asking = |protocol| {
            let headers = map(&[("connection", "upgrade"), ("upgrade", protocol)]);
            wants_upgrade(&headers, HopFields::of(&headers))
        };
        assert_eq!(asking("WebSocket").unwrap(), "WebSocket");
        for protocol in ["", "h2c", "HTTP/2.0", "TLS/1.2", "websocket, h2c", "foo"] {
            assert_eq!(asking(protocol), None, "{protocol}");
        }
    }

    #[test]
    fn a_thousand_options_cost_no_more_than_the_bound() {
        let line = (0..1_000).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        let mut headers = map(&[("connection", &line), ("x-999", "stays"), ("x-3", "goes")]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-999"]);
    }
}
