//! The answers of guarded exchanges: a kept answer given again, and the marks that say how it came to be.
//!
//! It never gives a personal field to somebody whose identity is not known to be the one that produced it.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{AGE, SET_COOKIE, WWW_AUTHENTICATE},
};

use crate::{
    ops::words::{Reason, Verdict},
    store::{Kept, Record},
};

pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub const VERDICT: HeaderName = HeaderName::from_static("oncegate-verdict");
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// With whom the answer is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// With the one whose request was sent.
    Leader,
    /// With a request of the same declared identity.
    SameIdentity,
    /// With an equal request on a route without an identity.
    NoIdentity,
}

/// How the answer came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Lead(Storing),
    Follow,
    /// From a record. The time it still lives is taken from the record.
    Replay,
    /// The guard stood aside.
    Bypass(Reason),
}

/// What became of the leader's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storing {
    Stored,
    Unstored,
}

/// The record is a tombstone: there is no body to give. The caller refuses with `answer-too-large`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the answer's body was not kept")]
pub struct NotKept;

/// A kept answer as a response; `now_unix` in seconds, for `Age`. `Content-Length` is left to the server.
///
/// # Errors
/// [`NotKept`] where the record is a tombstone.
pub fn respond(record: &Record, how: How, share: Share, now_unix: u64) -> Result<Response<Bytes>, NotKept> {
    let Kept::Whole(body) = &record.body else { return Err(NotKept) };
    let mut response = Response::new(body.clone());
    *response.status_mut() = record.status;
    let headers = response.headers_mut();
    *headers = record.headers.to_map();
    match (how, share) {
        (How::Follow | How::Replay, Share::NoIdentity) => remove_personal(headers),
        (How::Follow | How::Replay, Share::Leader | Share::SameIdentity)
        | (How::Lead(_) | How::Bypass(_), Share::Leader | Share::SameIdentity | Share::NoIdentity) => {}
    }
    if how == How::Replay {
        // The shop's own Age was its age when it came (RFC 9111, section 4.2.3); a clock set back makes no negative.
        let was: u64 = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
        let age = was.saturating_add(now_unix.saturating_sub(record.answered_at));
        headers.insert(AGE, HeaderValue::from(age));
    }
    decorate(headers, how, record.remaining.as_secs());
    Ok(response)
}

/// Adds `Cache-Status` (RFC 9211), `Oncegate-Verdict` and `Idempotent-Replayed`. `ttl` in seconds is said on
/// replays only. What caches between us and the shop said stays before our word (RFC 9211, section 2).
pub fn decorate(headers: &mut HeaderMap, how: How, ttl: u64) {
    headers.append(CACHE_STATUS, cache_status(how, ttl));
    headers.insert(VERDICT, HeaderValue::from_static(verdict(how).as_str()));
    match how {
        How::Follow | How::Replay => {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        // A shop's own `Idempotent-Replayed` is its word about itself and passes.
        How::Lead(_) | How::Bypass(_) => {}
    }
}

/// Says of an answer that was decorated before that it was this replica's alone: the store that all share is down.
pub fn decorate_alone(headers: &mut HeaderMap) {
    let http::header::Entry::Occupied(mut lines) = headers.entry(CACHE_STATUS) else { return };
    // Ours is the last one; a member has one detail.
    let Some(ours) = lines.iter_mut().last() else { return };
    let Ok(text) = ours.to_str() else { return };
    if text.starts_with("oncegate;") && !text.contains("; detail=") {
        *ours = built(text, "; detail=store-down-local");
    }
}

#[must_use]
pub const fn verdict(how: How) -> Verdict {
    match how {
        How::Lead(_) => Verdict::Lead,
        How::Follow => Verdict::Follow,
        How::Replay => Verdict::Replay,
        How::Bypass(_) => Verdict::Bypass,
    }
}

fn cache_status(how: How, ttl: u64) -> HeaderValue {
    match how {
        How::Lead(Storing::Stored) => HeaderValue::from_static("oncegate; fwd=miss; stored"),
        How::Lead(Storing::Unstored) => HeaderValue::from_static("oncegate; fwd=miss"),
        How::Follow => HeaderValue::from_static("oncegate; fwd=miss; collapsed"),
        How::Replay => built("oncegate; hit; ttl=", ttl),
        // Reasons are tokens of RFC 9651, so they need no quotes.
        How::Bypass(reason) => built("oncegate; fwd=bypass; detail=", reason.as_str()),
    }
}

fn built(start: &str, end: impl std::fmt::Display) -> HeaderValue {
    let mut text = String::with_capacity(start.len() + 24);
    text.push_str(start);
    // Writing to a String cannot fail; were it to, the member is still a valid one without its end.
    let _ = write!(text, "{end}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("oncegate"))
}

/// What names, admits or challenges one person. WooCommerce's Store API sends a fresh `Nonce`, `User-ID` and
/// `Cart-Token` with every answer; the token is a credential for the cart.
const PERSONAL: [HeaderName; 10] = [
    SET_COOKIE,
    WWW_AUTHENTICATE,
    HeaderName::from_static("set-cookie2"),
    HeaderName::from_static("authentication-info"),
    HeaderName::from_static("nonce"),
    HeaderName::from_static("nonce-timestamp"),
    HeaderName::from_static("user-id"),
    HeaderName::from_static("cart-token"),
    HeaderName::from_static("x-wp-nonce"),
    HeaderName::from_static("x-magento-cache-id"),
];

fn remove_personal(headers: &mut HeaderMap) {
    for name in PERSONAL {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::store::Fence;

    fn kept(lines: &[(&str, &str)]) -> Record {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Record {
            status: StatusCode::CREATED,
            headers: headers.into(),
            body: Kept::Whole(Bytes::from_static(b"order 1001")),
            fence: Fence(7),
            answered_at: 1_000,
            remaining: Duration::from_secs(86_399),
        }
    }

    fn cache_status_of(how: How) -> String {
        let response = respond(&kept(&[]), how, Share::SameIdentity, 1_001).unwrap();
        response.headers()["cache-status"].to_str().unwrap().to_owned()
    }

    #[test]
    fn cache_status_speaks_rfc_9211() {
        assert_eq!(cache_status_of(How::Lead(Storing::Stored)), "oncegate; fwd=miss; stored");
        assert_eq!(cache_status_of(How::Lead(Storing::Unstored)), "oncegate; fwd=miss");
        assert_eq!(cache_status_of(How::Follow), "oncegate; fwd=miss; collapsed");
        assert_eq!(cache_status_of(How::Replay), "oncegate; hit; ttl=86399");
        let bypass = cache_status_of(How::Bypass(Reason::NoOrderKey));
        assert_eq!(bypass, "oncegate; fwd=bypass; detail=no-order-key");
    }

    #[test]
    fn an_answer_of_a_replica_that_is_alone_says_so_once() {
        let mut headers = HeaderMap::new();
        headers.append("cache-status", HeaderValue::from_static("varnish; hit"));
        decorate(&mut headers, How::Lead(Storing::Stored), 0);
        decorate_alone(&mut headers);
        decorate_alone(&mut headers);
        let lines: Vec<_> = headers.get_all("cache-status").iter().collect();
        assert_eq!(lines, ["varnish; hit", "oncegate; fwd=miss; stored; detail=store-down-local"]);
        let mut bypassed = HeaderMap::new();
        decorate(&mut bypassed, How::Bypass(Reason::NoOrderKey), 0);
        decorate_alone(&mut bypassed);
        assert_eq!(bypassed["cache-status"], "oncegate; fwd=bypass; detail=no-order-key");
    }

    #[test]
    fn the_shops_own_cache_status_stands_before_ours() {
        let record = kept(&[("cache-status", "varnish; hit")]);
        let response = respond(&record, How::Follow, Share::SameIdentity, 1_000).unwrap();
        let lines: Vec<_> = response.headers().get_all("cache-status").iter().collect();
        assert_eq!(lines, ["varnish; hit", "oncegate; fwd=miss; collapsed"]);
    }

    #[test]
    fn a_replay_gives_status_fields_and_bytes_again_and_says_so() {
        let record = kept(&[("content-type", "text/plain"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        let response = respond(&record, How::Replay, Share::SameIdentity, 1_090).unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.body(), "order 1001");
        let headers = response.headers();
        assert_eq!(headers["age"], "90");
        assert_eq!(headers["idempotent-replayed"], "true");
        assert_eq!(headers["oncegate-verdict"], "replay");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(!headers.contains_key("date"));
    }

    #[test]
    fn without_an_identity_nothing_personal_is_given_to_anybody_else() {
        let names = PERSONAL;
        let mut lines = vec![("content-type", "text/plain")];
        lines.extend(names.iter().map(|name| (name.as_str(), "secret")));
        let record = kept(&lines);
        for how in [How::Follow, How::Replay] {
            let response = respond(&record, how, Share::NoIdentity, 1_000).unwrap();
            assert!(names.iter().all(|name| !response.headers().contains_key(name)), "{how:?}");
            assert!(response.headers().contains_key("content-type"));
        }
        let lead = respond(&record, How::Lead(Storing::Stored), Share::Leader, 1_000).unwrap();
        assert!(names.iter().all(|name| lead.headers().contains_key(name)));
    }

    #[test]
    fn the_age_of_the_shops_own_cache_is_added_and_clocks_may_go_back() {
        let record = kept(&[("age", "10")]);
        let age = |now| {
            let response = respond(&record, How::Replay, Share::SameIdentity, now).unwrap();
            response.headers()["age"].to_str().unwrap().to_owned()
        };
        assert_eq!((age(1_005), age(10)), ("15".to_owned(), "10".to_owned()));
    }

    #[test]
    fn a_tombstone_is_never_given_as_an_empty_answer() {
        let record = Record { body: Kept::Dropped, ..kept(&[]) };
        assert_eq!(respond(&record, How::Replay, Share::SameIdentity, 1_000).unwrap_err(), NotKept);
    }

    #[test]
    fn a_leader_is_not_marked_as_replayed() {
        let mut headers = HeaderMap::new();
        decorate(&mut headers, How::Lead(Storing::Stored), 0);
        assert_eq!(headers["oncegate-verdict"], "lead");
        assert!(!headers.contains_key("idempotent-replayed"));
    }
}
