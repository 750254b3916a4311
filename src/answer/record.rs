//! What is kept of an answer: the end-to-end part, so that whoever gets it later gets what the leader got.
//!
//! It never keeps what was about one connection, one moment or one configuration of the server.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{ALT_SVC, CONTENT_LENGTH, DATE, LOCATION, STRICT_TRANSPORT_SECURITY},
};

use crate::{
    ops::headers::remove_hop_by_hop,
    store::{Fence, Kept, Record},
};

/// Besides the hop-by-hop fields. `Date` comes back as `Age` and `Content-Length` is made anew; `Alt-Svc`, HSTS and
/// timings speak of the server as it was then; request ids belong to the request that was sent.
const NOT_KEPT: [HeaderName; 7] = [
    DATE,
    CONTENT_LENGTH,
    ALT_SVC,
    STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

/// The record of a whole answer. `answered_at` is in Unix seconds.
#[must_use]
pub fn record(
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
    fence: Fence,
    answered_at: u64,
) -> Record {
    let mut headers = headers.clone();
    remove_hop_by_hop(&mut headers);
    for name in NOT_KEPT {
        headers.remove(name);
    }
    Record { status, headers, body: Kept::Whole(body), fence, answered_at, remaining: Duration::ZERO }
}

/// The record of an answer whose body was too large to keep: that the work is done, and where the client was sent.
#[must_use]
pub fn tombstone(status: StatusCode, headers: &HeaderMap, fence: Fence, answered_at: u64) -> Record {
    let kept = headers.get(LOCATION).map(|location| (LOCATION, location.clone()));
    Record {
        status,
        headers: kept.into_iter().collect(),
        body: Kept::Dropped,
        fence,
        answered_at,
        remaining: Duration::ZERO,
    }
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
        let record = record(StatusCode::OK, &answer(), Bytes::from_static(b"ok"), Fence(3), 1_000);
        let names: std::collections::BTreeSet<_> = record.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["set-cookie", "location", "content-type"].into());
        let cookies: Vec<_> = record.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"], "lines stay apart and in order");
        assert_eq!(record.body, Kept::Whole(Bytes::from_static(b"ok")));
    }

    #[test]
    fn a_tombstone_keeps_status_and_location_only() {
        let record = tombstone(StatusCode::SEE_OTHER, &answer(), Fence(3), 1_000);
        assert_eq!(record.headers.len(), 1);
        assert_eq!(record.headers["location"], "/done");
        assert_eq!((record.status, record.body), (StatusCode::SEE_OTHER, Kept::Dropped));
    }
}
