//! The answers that oncegate makes itself: one variant per name, one status per variant, and the text for it.
//!
//! Every text says what happened, whether trying again is safe, and what to do. It never shows a value of the
//! request: the public sentence is fixed, the cause goes to the log.

use std::{borrow::Cow, error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

pub use crate::ops::words::Fault;
use crate::{
    answer::replay::{CACHE_STATUS, VERDICT},
    ops::{
        log::chain,
        words::{Reason, Verdict},
    },
    store::Judged,
};

mod accept;
mod page;
mod shop;
mod text;

pub use accept::Wants;
pub use shop::Busy;
pub use text::{Retry, Text};

/// The private chain. Shared, because one failure of the shop is told to everybody who waited for it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A public sentence beside the fixed one: about a field of the configuration or a rule, never a value.
pub type Detail = Cow<'static, str>;

/// Why oncegate answers in the shop's place. `Display` is the private text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the request has no order key: {detail}")]
    NoKey { detail: Detail },
    #[error("the body is larger than {body_bytes_max} bytes")]
    BodyTooLarge { body_bytes_max: u64 },
    #[error("the body cannot be read in one way only: {detail}")]
    BodyUnreadable {
        detail: Detail,
        #[source]
        cause: Option<Cause>,
    },
    #[error("the path cannot be read in one way only: {detail}")]
    PathUnreadable { detail: Detail },
    /// A head that RFC 9112 forbids. The status is what the edge found: 400, 405, 414, 417, 431, 501 or 505.
    #[error("the request is malformed: {detail}")]
    RequestMalformed { status: StatusCode, detail: Detail },
    #[error("the request was not complete in time")]
    RequestTimeout,
    /// The route's `verify` says whose signature the request must bear. Which part of it is wrong is for the log.
    #[error("the signature of the sender is not good")]
    BadSignature,
    #[error("the event id came before with another body")]
    EventMismatch,
    #[error("waited in vain for the answer to the same order")]
    WaitExhausted { retry_after: Duration },
    #[error("the lane of the order is full")]
    LaneFull { retry_after: Duration },
    #[error("the flight has as many followers as it may have")]
    FollowersFull { retry_after: Duration },
    #[error("something was sent before and no answer is known")]
    OutcomeUnknown { retry_after: Duration },
    /// `answered` is the shop's status, `judged` what the route made of it. `next` is where the shop had sent the
    /// client: only for the same identity, and only where the work is done.
    #[error("the answer, judged {judged:?}, was too large to keep")]
    AnswerTooLarge { answered: StatusCode, judged: Judged, next: Option<HeaderValue> },
    #[error("an operator resolved the order as done")]
    ResolvedDone,
    #[error("the store gives no answer")]
    StoreDown {
        retry_after: Duration,
        #[source]
        cause: Option<Cause>,
    },
    #[error("no server of the upstream could be reached; nothing was sent")]
    UpstreamUnreachable {
        retry_after: Duration,
        #[source]
        cause: Option<Cause>,
    },
    #[error("the upstream broke off after the request was sent")]
    UpstreamReset {
        #[source]
        cause: Option<Cause>,
    },
    #[error("the upstream did not answer in time after the request was sent")]
    UpstreamTimeout {
        #[source]
        cause: Option<Cause>,
    },
    #[error("this process is going down")]
    Draining { retry_after: Duration },
    #[error("a bound of this process is reached: {bound}")]
    Overloaded { retry_after: Duration, bound: &'static str },
    #[error("no route matches")]
    NoRoute,
    /// A broken invariant ends this one exchange only.
    #[error("an invariant of this exchange is broken")]
    Internal {
        #[source]
        cause: Option<Cause>,
    },
}

impl Refusal {
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NoKey { .. } => Reason::NoKey,
            Self::BodyTooLarge { .. } => Reason::BodyTooLarge,
            Self::BodyUnreadable { .. } => Reason::BodyUnreadable,
            Self::PathUnreadable { .. } => Reason::PathUnreadable,
            Self::RequestMalformed { .. } => Reason::RequestMalformed,
            Self::RequestTimeout => Reason::RequestTimeout,
            Self::BadSignature => Reason::BadSignature,
            Self::EventMismatch => Reason::EventMismatch,
            Self::WaitExhausted { .. } => Reason::WaitExhausted,
            Self::LaneFull { .. } => Reason::LaneFull,
            Self::FollowersFull { .. } => Reason::FollowersFull,
            Self::OutcomeUnknown { .. } => Reason::OutcomeUnknown,
            Self::AnswerTooLarge { .. } => Reason::AnswerTooLarge,
            Self::ResolvedDone => Reason::ResolvedDone,
            Self::StoreDown { .. } => Reason::StoreDown,
            Self::UpstreamUnreachable { .. } => Reason::UpstreamUnreachable,
            Self::UpstreamReset { .. } => Reason::UpstreamReset,
            Self::UpstreamTimeout { .. } => Reason::UpstreamTimeout,
            Self::Draining { .. } => Reason::Draining,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::NoRoute => Reason::NoRoute,
            Self::Internal { .. } => Reason::Internal,
        }
    }

    /// The name of the interface: `type` is `urn:oncegate:refusal:NAME`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.reason().as_str()
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoKey { .. } | Self::BodyUnreadable { .. } | Self::PathUnreadable { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::RequestMalformed { status, .. } => *status,
            Self::BadSignature => StatusCode::UNAUTHORIZED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::AnswerTooLarge { .. } | Self::ResolvedDone => StatusCode::CONFLICT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::EventMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamUnreachable { .. } | Self::UpstreamReset { .. } => StatusCode::BAD_GATEWAY,
            Self::WaitExhausted { .. }
            | Self::LaneFull { .. }
            | Self::FollowersFull { .. }
            | Self::OutcomeUnknown { .. }
            | Self::StoreDown { .. }
            | Self::Draining { .. }
            | Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::NoKey { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyUnreadable { .. }
            | Self::PathUnreadable { .. }
            | Self::RequestMalformed { .. }
            | Self::RequestTimeout
            | Self::BadSignature
            | Self::EventMismatch
            | Self::LaneFull { .. }
            | Self::FollowersFull { .. }
            | Self::NoRoute => Fault::Client,
            // Whoever waits in vain waits for the shop.
            Self::WaitExhausted { .. }
            | Self::OutcomeUnknown { .. }
            | Self::UpstreamUnreachable { .. }
            | Self::UpstreamReset { .. }
            | Self::UpstreamTimeout { .. } => Fault::Upstream,
            Self::AnswerTooLarge { .. }
            | Self::ResolvedDone
            | Self::Draining { .. }
            | Self::Overloaded { .. }
            | Self::Internal { .. } => Fault::Gate,
            Self::StoreDown { .. } => Fault::Store,
        }
    }

    /// After how long it may have passed; `None` where waiting alone changes nothing.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::WaitExhausted { retry_after }
            | Self::LaneFull { retry_after }
            | Self::FollowersFull { retry_after }
            | Self::OutcomeUnknown { retry_after }
            | Self::StoreDown { retry_after, .. }
            | Self::UpstreamUnreachable { retry_after, .. }
            | Self::Draining { retry_after }
            | Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::NoKey { .. }
            | Self::BodyTooLarge { .. }
            | Self::BodyUnreadable { .. }
            | Self::PathUnreadable { .. }
            | Self::RequestMalformed { .. }
            | Self::RequestTimeout
            | Self::BadSignature
            | Self::EventMismatch
            | Self::AnswerTooLarge { .. }
            | Self::ResolvedDone
            | Self::UpstreamReset { .. }
            | Self::UpstreamTimeout { .. }
            | Self::NoRoute
            | Self::Internal { .. } => None,
        }
    }

    /// The private text with all its sources, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }

    /// The whole answer; `Content-Length` is left to the server.
    ///
    /// In the words of the route's shop where the client is a script of that shop; a browser that asks for a page gets
    /// one.
    #[must_use]
    pub fn render(&self, busy: Busy, wants: Wants, request_id: &str) -> Response<Bytes> {
        let text = text::of(self);
        let in_shops_words = match wants {
            Wants::Problem => shop::body(busy, self, &text),
            Wants::Html => None,
        };
        let (status, kind, body) = match (in_shops_words, wants) {
            (Some(body), _) => (busy.status(self), "application/json; charset=utf-8", body),
            (None, Wants::Html) if busy != Busy::Problem => {
                (self.status(), "text/html; charset=utf-8", page::html(self, &text, request_id))
            }
            (None, Wants::Html | Wants::Problem) => {
                (self.status(), "application/problem+json", page::problem(self, &text, request_id))
            }
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VERDICT, HeaderValue::from_static(Verdict::Refuse.as_str()));
        headers.insert(CACHE_STATUS, cache_status(self.name()));
        if self.status() == StatusCode::UNAUTHORIZED {
            // A 401 has to name what would be accepted (RFC 9110 section 15.5.2); providers have no registered name.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
        }
        if let Some(seconds) = self.retry_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// `Retry-After` in whole seconds, rounded up and never 0: a client that is told 0 comes back in a loop.
    fn retry_seconds(&self) -> Option<u64> {
        let wait = self.retry_after()?;
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

/// Neither `hit` nor `fwd`: the answer came from no cache and was not asked for (RFC 9211, section 2).
fn cache_status(name: &'static str) -> HeaderValue {
    let text = format!("oncegate; detail={name}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("oncegate"))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    /// One of each, in the order of declaration.
    fn all() -> Vec<Refusal> {
        let retry_after = Duration::from_millis(4_200);
        let detail = Detail::Borrowed("The JSON member /cartId is missing.");
        vec![
            Refusal::NoKey { detail: "json:/cartId".into() },
            Refusal::BodyTooLarge { body_bytes_max: 1_048_576 },
            Refusal::BodyUnreadable { detail: detail.clone(), cause: None },
            Refusal::PathUnreadable { detail: detail.clone() },
            Refusal::RequestMalformed { status: StatusCode::URI_TOO_LONG, detail },
            Refusal::RequestTimeout,
            Refusal::BadSignature,
            Refusal::EventMismatch,
            Refusal::WaitExhausted { retry_after },
            Refusal::LaneFull { retry_after },
            Refusal::FollowersFull { retry_after },
            Refusal::OutcomeUnknown { retry_after },
            Refusal::AnswerTooLarge { answered: StatusCode::OK, judged: Judged::Done, next: None },
            Refusal::ResolvedDone,
            Refusal::StoreDown { retry_after, cause: None },
            Refusal::UpstreamUnreachable { retry_after, cause: None },
            Refusal::UpstreamReset { cause: None },
            Refusal::UpstreamTimeout { cause: None },
            Refusal::Draining { retry_after },
            Refusal::Overloaded { retry_after, bound: "buffers_max" },
            Refusal::NoRoute,
            Refusal::Internal { cause: None },
        ]
    }

    fn text(response: &Response<Bytes>) -> &str {
        std::str::from_utf8(response.body()).unwrap()
    }

    #[test]
    fn names_and_statuses_are_those_of_the_interface() {
        let table: Vec<_> = all().iter().map(|one| (one.name(), one.status().as_u16())).collect();
        let interface = [
            ("no-key", 400),
            ("body-too-large", 413),
            ("body-unreadable", 400),
            ("path-unreadable", 400),
            ("request-malformed", 414),
            ("request-timeout", 408),
            ("bad-signature", 401),
            ("event-mismatch", 422),
            ("wait-exhausted", 503),
            ("lane-full", 503),
            ("followers-full", 503),
            ("outcome-unknown", 503),
            ("answer-too-large", 409),
            ("resolved-done", 409),
            ("store-down", 503),
            ("upstream-unreachable", 502),
            ("upstream-reset", 502),
            ("upstream-timeout", 504),
            ("draining", 503),
            ("overloaded", 503),
            ("no-route", 404),
            ("internal", 500),
        ];
        assert_eq!(table, interface);
        let refusals = Reason::ALL.iter().filter(|reason| reason.is_refusal()).count();
        assert_eq!(refusals, table.len());
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for refusal in all() {
            let response = refusal.render(Busy::ByAccept, Wants::Problem, "r");
            let says = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(says, Some("5"), "{}", refusal.name());
            }
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert_eq!(response.headers()["oncegate-verdict"], "refuse");
            let status = format!("oncegate; detail={}", refusal.name());
            assert_eq!(response.headers()["cache-status"], status.as_str());
        }
    }

    #[test]
    fn nobody_is_told_to_come_back_in_no_time() {
        let now = Refusal::Draining { retry_after: Duration::ZERO };
        assert_eq!(now.render(Busy::ByAccept, Wants::Problem, "r").headers()["retry-after"], "1");
    }

    #[test]
    fn the_problem_of_an_unknown_outcome_is_golden() {
        let refusal = Refusal::OutcomeUnknown { retry_after: Duration::from_secs(30) };
        let response = refusal.render(Busy::ByAccept, Wants::Problem, "0190-ab");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(text(&response), include_str!("refusal/outcome-unknown.json").trim_end());
        let parsed: serde_json::Value = serde_json::from_str(text(&response)).unwrap();
        assert_eq!(parsed["status"], 503);
    }

    #[test]
    fn the_page_of_an_unknown_outcome_is_golden() {
        let refusal = Refusal::OutcomeUnknown { retry_after: Duration::from_secs(30) };
        let response = refusal.render(Busy::ByAccept, Wants::Html, "0190-ab");
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(text(&response), include_str!("refusal/outcome-unknown.html"));
    }

    #[test]
    fn whatever_may_have_been_carried_out_says_not_to_pay_again() {
        for refusal in all() {
            let sent = matches!(
                refusal,
                Refusal::OutcomeUnknown { .. }
                    | Refusal::UpstreamReset { .. }
                    | Refusal::UpstreamTimeout { .. }
            );
            for wants in [Wants::Problem, Wants::Html] {
                let response = refusal.render(Busy::ByAccept, wants, "r");
                if sent {
                    let body = text(&response);
                    assert!(body.contains("may already have been carried out. Do not pay again."), "{body}");
                }
            }
        }
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        let detail = Detail::Borrowed("<script>\"&'\u{202e}\n");
        let refusal = Refusal::NoKey { detail };
        let page = refusal.render(Busy::ByAccept, Wants::Html, "<id>\"");
        assert!(!text(&page).contains("<script>") && !text(&page).contains("<id>"), "{}", text(&page));
        assert!(text(&page).contains("&lt;script&gt;&quot;&amp;&#39;"));
        assert!(!text(&page).contains('\u{202e}'));
        let problem = refusal.render(Busy::ByAccept, Wants::Problem, "a\"b\n\u{202e}");
        let parsed: serde_json::Value = serde_json::from_str(text(&problem)).unwrap();
        assert_eq!(parsed["request_id"], "a\"b\n\u{202e}");
        assert!(!text(&problem).contains('\u{202e}'));
    }

    #[test]
    fn a_link_to_the_order_is_given_only_where_it_leads_to_a_page() {
        let page = |next: &'static str| {
            let next = Some(HeaderValue::from_static(next));
            let refusal = Refusal::AnswerTooLarge { answered: StatusCode::FOUND, judged: Judged::Done, next };
            text(&refusal.render(Busy::ByAccept, Wants::Html, "r")).to_owned()
        };
        assert!(page("/order-received/1?a=1&b=2").contains("href=\"/order-received/1?a=1&amp;b=2\""));
        assert!(page("https://shop.example/x").contains("href=\"https://shop.example/x\""));
        assert!(!page("javascript:alert(1)").contains("href"));
        assert!(!page("//evil.example/").contains("href"));
        assert!(!page("/\\evil.example/").contains("href"));
    }

    #[test]
    fn a_failure_too_large_to_share_says_that_nothing_was_done_and_that_a_retry_is_safe() {
        let told = |judged, wants| {
            let refusal = Refusal::AnswerTooLarge { answered: StatusCode::BAD_REQUEST, judged, next: None };
            text(&refusal.render(Busy::ByAccept, wants, "r")).to_owned()
        };
        for wants in [Wants::Problem, Wants::Html] {
            let failed = told(Judged::Failed, wants);
            assert!(failed.contains("The shop answered 400"), "{failed}");
            assert!(!failed.contains("carried out") && !failed.contains("not pay again"), "{failed}");
            assert!(told(Judged::Done, wants).contains("carried out"));
        }
        assert!(told(Judged::Failed, Wants::Problem).contains("\"retry\":\"safe\""));
        assert!(told(Judged::Done, Wants::Problem).contains("\"retry\":\"pointless\""));
    }

    #[test]
    fn the_private_chain_stays_private() {
        let cause: Cause = Arc::new(std::io::Error::other("connect to 10.0.0.10:8080 refused"));
        let refusal =
            Refusal::UpstreamUnreachable { retry_after: Duration::from_secs(2), cause: Some(cause) };
        assert!(refusal.chain().ends_with("nothing was sent: connect to 10.0.0.10:8080 refused"));
        for wants in [Wants::Problem, Wants::Html] {
            assert!(!text(&refusal.render(Busy::ByAccept, wants, "r")).contains("10.0.0.10"));
        }
    }

    #[test]
    fn headers_of_a_request_decide_the_form() {
        let mut headers = HeaderMap::new();
        assert_eq!(Wants::of(&headers), Wants::Problem);
        headers.insert("accept", HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert_eq!(Wants::of(&headers), Wants::Html);
    }
}
