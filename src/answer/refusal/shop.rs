//! Refusals in the words of a shop, for clients that understand nothing else.
//!
//! A checkout's script shows what its own shop answers, and "an error has occurred" for whatever else comes: a shopper
//! who reads that tries again. The text is the one that a page would show; the name of the refusal stands where a
//! program finds it. Nothing here says anything that the problem document does not.

use std::fmt::Write as _;

use http::StatusCode;

use super::{Refusal, Text, page::escape};
use crate::ops::log::json_string;

/// In whose words a route refuses (`busy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Busy {
    /// A problem document, or a page where the client asks for one.
    #[default]
    ByAccept,
    /// A problem document for everybody: a provider reads the status, and shows the body to its merchant.
    Problem,
    /// WooCommerce's classic checkout: 200 with `"result":"failure"`. Its script shows `messages`, and shows nothing of
    /// an answer with another status.
    WooCommerce,
    /// WooCommerce's Store API: `code`, `message` and `data.status`.
    StoreApi,
    /// Magento's REST API: `message`.
    MagentoRest,
    /// Magento's GraphQL: 200 with `errors`, as its own business errors come.
    MagentoGraphql,
}

impl Busy {
    /// As they are typed.
    pub const ALL: [(&'static str, Self); 5] = [
        ("problem", Self::Problem),
        ("woocommerce", Self::WooCommerce),
        ("woocommerce-store-api", Self::StoreApi),
        ("magento-rest", Self::MagentoRest),
        ("magento-graphql", Self::MagentoGraphql),
    ];

    /// The status of a refusal in these words.
    #[must_use]
    pub fn status(self, refusal: &Refusal) -> StatusCode {
        match (self, refusal.status()) {
            (Self::WooCommerce | Self::MagentoGraphql, _) => StatusCode::OK,
            // The block looks for a cart in the body of a 409.
            (Self::StoreApi, StatusCode::CONFLICT) => StatusCode::BAD_REQUEST,
            (Self::ByAccept | Self::Problem | Self::StoreApi | Self::MagentoRest, status) => status,
        }
    }
}

/// The body in a shop's words; `None` where it is a problem document's or a page's place.
pub(super) fn body(busy: Busy, refusal: &Refusal, text: &Text) -> Option<String> {
    let mut out = String::with_capacity(512);
    let (name, shopper) = (refusal.name(), text.shopper);
    match busy {
        Busy::ByAccept | Busy::Problem => return None,
        Busy::WooCommerce => {
            let mut messages = String::from("<ul class=\"woocommerce-error\" role=\"alert\"><li>");
            escape(&mut messages, shopper);
            messages.push_str("</li></ul>");
            out.push_str("{\"result\":\"failure\",\"messages\":");
            json_string(&mut out, &messages);
            out.push_str(",\"refresh\":false,\"reload\":false,\"oncegate\":");
            json_string(&mut out, name);
            out.push('}');
        }
        Busy::StoreApi => {
            out.push_str("{\"code\":");
            json_string(&mut out, &format!("oncegate_{}", name.replace('-', "_")));
            out.push_str(",\"message\":");
            json_string(&mut out, shopper);
            // Writing to a String cannot fail.
            let _ = write!(out, ",\"data\":{{\"status\":{}}}}}", busy.status(refusal).as_u16());
        }
        Busy::MagentoRest => {
            out.push_str("{\"message\":");
            json_string(&mut out, shopper);
            out.push_str(",\"parameters\":{\"oncegate\":");
            json_string(&mut out, name);
            out.push_str("}}");
        }
        Busy::MagentoGraphql => {
            out.push_str("{\"errors\":[{\"message\":");
            json_string(&mut out, shopper);
            out.push_str(",\"extensions\":{\"category\":\"oncegate\",\"code\":");
            json_string(&mut out, name);
            if let Some(seconds) = refusal.retry_seconds() {
                let _ = write!(out, ",\"retry_after\":{seconds}");
            }
            out.push_str("}}]}");
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Response;
    use serde_json::Value;

    use super::{super::Wants, *};
    use crate::answer::judge::{DoneSpec, DoneWhen, Seen};

    fn waited() -> Refusal {
        Refusal::WaitExhausted { retry_after: Duration::from_secs(2) }
    }

    fn told(busy: Busy, wants: Wants, refusal: &Refusal) -> (Response<Bytes>, Value) {
        let response = refusal.render(busy, wants, "0190-ab");
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        (response, body)
    }

    #[test]
    fn a_classic_checkout_shows_the_message_and_counts_it_as_a_failure() {
        let (response, body) = told(Busy::WooCommerce, Wants::Problem, &waited());
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (200, &"2".parse().unwrap())
        );
        assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
        assert_eq!(
            (&body["result"], &body["refresh"], &body["reload"]),
            (&"failure".into(), &false.into(), &false.into())
        );
        let messages = body["messages"].as_str().unwrap();
        assert!(
            messages.starts_with("<ul class=\"woocommerce-error\"") && messages.contains("do not pay again"),
            "{messages}"
        );
        // Whoever judges it, another oncegate perhaps, must not take it for an order.
        let done = DoneSpec { json: vec![("/result".into(), "success".into())], ..DoneSpec::default() };
        let judged = DoneWhen::new(&[done]).unwrap().judge_seen(
            response.status(),
            response.headers(),
            Seen::Whole(response.body()),
            1 << 20,
        );
        assert_eq!(judged, crate::store::Judged::Failed);
    }

    #[test]
    fn the_store_api_is_never_told_409() {
        let (response, body) = told(Busy::StoreApi, Wants::Problem, &waited());
        assert_eq!((response.status().as_u16(), &body["data"]["status"]), (503, &503.into()));
        assert_eq!(body["code"], "oncegate_wait_exhausted");
        let (response, body) = told(Busy::StoreApi, Wants::Problem, &Refusal::ResolvedDone);
        assert_eq!((response.status().as_u16(), &body["data"]["status"]), (400, &400.into()));
        assert!(body["message"].as_str().unwrap().contains("already carried out"));
    }

    #[test]
    fn magento_is_told_in_a_message_and_graphql_in_its_errors() {
        let (response, body) = told(Busy::MagentoRest, Wants::Problem, &waited());
        assert_eq!((response.status().as_u16(), body["message"].is_string()), (503, true));
        let (response, body) = told(Busy::MagentoGraphql, Wants::Problem, &waited());
        assert_eq!((response.status().as_u16(), &body["data"]), (200, &Value::Null));
        let error = &body["errors"][0];
        assert!(error["message"].is_string());
        assert_eq!(error["extensions"]["code"], "wait-exhausted");
        assert_eq!(error["extensions"]["retry_after"], 2);
    }

    #[test]
    fn a_browser_that_asks_for_a_page_gets_one_and_a_provider_never_does() {
        for (_, busy) in Busy::ALL.into_iter().filter(|(_, busy)| *busy != Busy::Problem) {
            let (response, _) = told(busy, Wants::Html, &waited());
            assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8", "{busy:?}");
            assert_eq!(response.status().as_u16(), 503, "{busy:?}");
        }
        let (response, body) = told(Busy::Problem, Wants::Html, &waited());
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(body["type"], "urn:oncegate:refusal:wait-exhausted");
    }

    #[test]
    fn whatever_may_have_been_carried_out_says_not_to_pay_again_in_every_shops_words() {
        for (_, busy) in Busy::ALL {
            let (response, _) = told(busy, Wants::Problem, &Refusal::UpstreamTimeout { cause: None });
            let body = String::from_utf8_lossy(response.body());
            assert!(body.contains("may already have been carried out. Do not pay again."), "{body}");
            assert_eq!(response.headers()["oncegate-verdict"], "refuse");
        }
    }
}
