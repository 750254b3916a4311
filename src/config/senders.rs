//! What is known of those who send callbacks: how long they wait for an answer, and for how long they try again.
//!
//! It only serves to warn. Where sources say different things the shorter patience and the shorter retries stand here:
//! a warning that is right for all of them.

use std::time::Duration;

use super::file::{Kind, Table};
use crate::request::verify::Scheme;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

pub(super) struct Sender {
    pub name: &'static str,
    /// After which it has hung up, or what it signed has become too old.
    pub patience: Option<Duration>,
    /// How long it delivers the same event again and again.
    pub retries: Duration,
    scheme: Option<Scheme>,
    /// What gives it away in a route. One that begins with a slash may stand inside a path.
    marks: &'static [&'static str],
}

const fn sender(
    name: &'static str,
    (patience, retries): (Option<u64>, u64),
    scheme: Option<Scheme>,
    marks: &'static [&'static str],
) -> Sender {
    let patience = match patience {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    Sender { name, patience, retries: Duration::from_secs(retries), scheme, marks }
}

/// Patience and retries in seconds.
const KNOWN: &[Sender] = &[
    // How long Stripe waits is not published; after its tolerance a plugin refuses what it signed.
    sender(
        "Stripe",
        (Some(300), 3 * DAY),
        Some(Scheme::Stripe),
        &["wc_stripe", "stripe-signature", "/stripe/webhooks", "/wc/v3/payments/webhook"],
    ),
    sender(
        "Shopify",
        (Some(5), 4 * HOUR),
        Some(Scheme::Shopify),
        &["x-shopify-topic", "x-shopify-hmac-sha256", "x-shopify-event-id", "x-shopify-webhook-id"],
    ),
    sender(
        "Razorpay",
        (Some(5), DAY),
        Some(Scheme::Razorpay),
        &["x-razorpay-signature", "x-razorpay-event-id", "rzp_wc_webhook", "/razorpay/payment/webhook"],
    ),
    sender("Adyen", (Some(10), 7 * DAY), Some(Scheme::Adyen), &["/adyen/webhook"]),
    sender(
        "Checkout.com",
        (Some(10), 30 * HOUR),
        Some(Scheme::CheckoutCom),
        &["cko-signature", "wc_checkoutcom_webhook", "/checkout_com/webhook"],
    ),
    sender("Square", (Some(10), DAY), Some(Scheme::Square), &["x-square-hmacsha256-signature"]),
    sender("Braintree", (Some(30), DAY), Some(Scheme::Braintree), &["bt_payload", "/braintree/webhook"]),
    sender("Authorize.Net", (None, 7 * DAY), Some(Scheme::AuthorizeNet), &["x-anet-signature"]),
    sender("Mollie", (Some(15), 26 * HOUR), None, &["/mollie/v1/webhook", "/mollie/checkout/webhook"]),
    sender("PayPal", (None, 3 * DAY), None, &["/paypal/v1/incoming", "wc_gateway_paypal", "/paypal/ipn"]),
    sender("Klarna", (None, 2 * DAY), None, &["kco_wc_push"]),
    sender("Amazon Pay", (None, 14 * DAY), None, &["wc_gateway_amazon_payments_advanced"]),
];

/// Who sends to a route, if its signature or its conditions give that away.
pub(super) fn of(scheme: Option<Scheme>, tables: &[&Table]) -> Option<&'static Sender> {
    if let Some(scheme) = scheme {
        return KNOWN.iter().find(|sender| sender.scheme == Some(scheme));
    }
    let mut words = Vec::new();
    tables.iter().for_each(|table| gather(table, &mut words));
    KNOWN.iter().find(|sender| {
        sender.marks.iter().any(|mark| match mark.starts_with('/') {
            true => words.iter().any(|word| word.contains(mark)),
            false => words.iter().any(|word| word == mark),
        })
    })
}

/// Names and values, in lower case, without what makes a source or an expression of them.
fn gather(table: &Table, words: &mut Vec<String>) {
    for entry in &table.entries {
        // What must not be there is no sign of anybody.
        if entry.key == "not" {
            continue;
        }
        words.push(entry.key.to_ascii_lowercase());
        gather_value(&entry.value.kind, words);
    }
}

fn gather_value(kind: &Kind, words: &mut Vec<String>) {
    match kind {
        Kind::Text(text) => {
            let text = text.to_ascii_lowercase();
            let plain = text.trim_start_matches("~").trim_start_matches("(?i)").trim_matches(['^', '$']);
            let name = plain.rsplit_once(':').map_or(plain, |(_, name)| name);
            words.push(name.to_owned());
        }
        Kind::Array(items) => items.iter().for_each(|item| gather_value(&item.kind, words)),
        Kind::Table(table) => gather(table, words),
        Kind::Integer(_) | Kind::Boolean(_) | Kind::Other(_) => {}
    }
}
