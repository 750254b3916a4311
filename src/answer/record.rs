//! What is kept of an answer: the end-to-end part, so that whoever gets it later gets what the leader got.
//!
//! It never keeps what was about one connection, one moment or one configuration of the server.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, LOCATION},
};
use smallvec::SmallVec;

use crate::{
    ops::headers::{is_hop_by_hop, remove_hop_by_hop},
    store::{Fence, Headers, Kept, Record},
};

/// The record of a whole answer. `answered_at` is in Unix seconds.
///
/// Everything is copied: what hyper hands out are slices of its read buffer, and a record of a few hundred bytes must
/// not hold on to eight thousand.
#[must_use]
pub fn record(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    fence: Fence,
    answered_at: u64,
) -> Record {
    let mut lines: SmallVec<[(&HeaderName, &HeaderValue); 16]> = SmallVec::new();
    for (name, value) in headers {
        if *name == CONNECTION {
            // It may name any of the others.
            let mut stripped = headers.clone();
            remove_hop_by_hop(&mut stripped);
            return record(status, &stripped, body, fence, answered_at);
        }
        if is_kept(name) && !is_hop_by_hop(name) {
            lines.push((name, value));
        }
    }
    let (headers, body) = Headers::with_body(&lines, body);
    Record { status, headers, body: Kept::Whole(body), fence, answered_at, remaining: Duration::ZERO }
}

/// Besides the hop-by-hop fields. `Date` comes back as `Age` and `Content-Length` is made anew; `Alt-Svc`, HSTS and
/// timings speak of the server as it was then; request ids belong to the request that was sent.
fn is_kept(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "date"
            | "content-length"
            | "alt-svc"
            | "strict-transport-security"
            | "server-timing"
            | "x-request-id"
            | "traceparent"
    )
}

/// The record of an answer whose body was too large to keep: that the work is done, and where the client was sent.
#[must_use]
pub fn tombstone(status: StatusCode, headers: &HeaderMap, fence: Fence, answered_at: u64) -> Record {
    let location = headers.get(LOCATION).map(|location| (&LOCATION, location));
    let (headers, _) = Headers::with_body(location.as_slice(), &[]);
    Record { status, headers, body: Kept::Dropped, fence, answered_at, remaining: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("date", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("content-length", "2"),
            ("connection", "x-hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=1"),
            ("server-timing", "db;dur=53"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-request-id", "first"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("location", "/done"),
            ("content-type", "text/plain"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_record_keeps_the_end_to_end_fields_and_no_others() {
        let record = record(StatusCode::OK, &answer(), b"ok", Fence(3), 1_000);
        let names: std::collections::BTreeSet<_> =
            record.headers.iter().map(|(name, _)| name.escape_ascii().to_string()).collect();
        assert_eq!(names, ["set-cookie", "location", "content-type"].map(String::from).into());
        let headers = record.headers.to_map();
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"], "lines stay apart and in order");
        assert_eq!(record.body, Kept::Whole("ok".into()));
    }

    #[test]
    fn a_tombstone_keeps_status_and_location_only() {
        let record = tombstone(StatusCode::SEE_OTHER, &answer(), Fence(3), 1_000);
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers.get(&LOCATION).unwrap(), "/done");
        assert_eq!((record.status, record.body), (StatusCode::SEE_OTHER, Kept::Dropped));
    }
}
