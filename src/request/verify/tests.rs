//! Signatures as the providers make them: the samples of the facts with their synthetic secrets, each beside forgeries.

use bytes::Bytes;
use proptest::prelude::*;

use super::{super::sample::Sample, *};

const STRIPE: &str = "whsec_oncegate_test";
const ADYEN: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
/// When the first Stripe sample was signed.
const SIGNED_AT: u64 = 1_790_000_001;

/// A raw request: what the gate would make of it.
fn raw(bytes: &'static [u8]) -> Sample {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut sample = Sample::form(Bytes::from_static(&bytes[end + 4..]));
    sample.headers.clear();
    sample.query = target.split_once('?').map_or("", |(_, query)| query).to_owned();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        sample.headers.append(name, value.parse().unwrap());
    }
    sample
}

macro_rules! sample {
    ($name:literal) => {
        raw(include_bytes!(concat!("../../../tests/samples/", $name, ".req.http")))
    };
}

fn verify(scheme: Scheme, secrets: &[&str]) -> Verify {
    let secrets = secrets.iter().map(|text| SigningSecret::new(scheme, text).unwrap()).collect();
    Verify { url: "https://shop.example/wc-api/square".to_owned(), ..Verify::new(scheme, secrets) }
}

fn check(verify: &Verify, sample: &Sample) -> Result<Verified, BadSignature> {
    verify.check(&sample.view(), &sample.body, 1 << 20, None)
}

fn at(seconds: u64) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Every provider's sample, and where its signature is: the header's name, or `None` where it is elsewhere.
fn all() -> Vec<(Scheme, &'static str, Sample, Option<&'static str>)> {
    use Scheme::*;
    let authorize_net = "0F1E2D3C4B5A69788796A5B4C3D2E1F0".repeat(4).leak();
    vec![
        (Stripe, STRIPE, sample!("stripe-01-pi-succeeded"), Some("stripe-signature")),
        (Stripe, STRIPE, sample!("stripe-01b-pi-succeeded-redelivered"), Some("stripe-signature")),
        (Stripe, STRIPE, sample!("stripe-02-charge-refunded-same-order"), Some("stripe-signature")),
        (Shopify, "shpss_oncegate_test", sample!("shopify-01-orders-create"), Some("x-shopify-hmac-sha256")),
        (ShopifyAppProxy, "shpss_oncegate_test", sample!("shopify-05-app-proxy"), None),
        (Adyen, ADYEN, sample!("adyen-01-authorisation"), None),
        (Adyen, ADYEN, sample!("adyen-02-capture-same-order"), None),
        (Adyen, ADYEN, sample!("adyen-03-same-psp-success-false"), None),
        (Razorpay, "rzp_oncegate_test", sample!("razorpay-01-authorized"), Some("x-razorpay-signature")),
        (
            Square,
            "sq0sig_oncegate_test",
            sample!("square-01-payment-updated"),
            Some("x-square-hmacsha256-signature"),
        ),
        (CheckoutCom, "cko_oncegate_test", sample!("checkout-com-01-captured"), Some("cko-signature")),
        (AuthorizeNet, authorize_net, sample!("authorize-net-01-authcapture"), Some("x-anet-signature")),
        (Braintree, "bt_priv_oncegate_test", sample!("braintree-01-settled"), None),
    ]
}

#[test]
fn every_providers_own_signature_is_good_and_no_other_secrets() {
    let mut seen = Vec::new();
    for (scheme, secret, sample, _) in all() {
        assert!(check(&verify(scheme, &[secret]), &sample).is_ok(), "{scheme:?}");
        let other = if scheme == Scheme::Adyen { "00ff" } else { "another" };
        assert_eq!(check(&verify(scheme, &[other]), &sample), Err(BadSignature::Mismatch), "{scheme:?}");
        assert!(check(&verify(scheme, &[other, secret]), &sample).is_ok(), "{scheme:?}: two at a time");
        seen.push(scheme);
    }
    assert!(Scheme::NAMES.iter().all(|(_, scheme)| seen.contains(scheme)));
}

#[test]
fn a_changed_order_is_not_what_was_signed() {
    for (scheme, secret, sample, _) in all() {
        let forged = match scheme {
            Scheme::ShopifyAppProxy => Sample { query: sample.query.replace("sample.", "forged."), ..sample },
            _ => {
                let body = String::from_utf8(sample.body.to_vec()).unwrap();
                let forged = body
                    .replace("4712", "4713")
                    .replace("00000044", "00000046")
                    .replace("47", "48")
                    .replace("#1001", "#1002")
                    .replace("000045", "000046")
                    .replace("PG5v", "PG5w");
                assert_ne!(body, forged, "{scheme:?}");
                Sample { body: forged.into(), ..sample }
            }
        };
        assert_eq!(check(&verify(scheme, &[secret]), &forged), Err(BadSignature::Mismatch), "{scheme:?}");
    }
}

#[test]
fn a_signature_that_is_missing_doubled_or_nonsense_is_never_good() {
    for (scheme, secret, sample, header) in all() {
        let Some(header) = header else { continue };
        let verify = verify(scheme, &[secret]);
        let mut without = sample.clone();
        let good = without.headers.remove(header).unwrap();
        assert_eq!(check(&verify, &without), Err(BadSignature::Missing), "{scheme:?}");
        let twice = sample.clone().header(header, good.to_str().unwrap());
        assert_eq!(check(&verify, &twice), Err(BadSignature::Unreadable), "{scheme:?}");
        for nonsense in ["", "x", "sha512=", "t=1", "v1=00", "t=,v1=", "é"] {
            let mut forged = without.clone();
            forged.headers.insert(header, http::HeaderValue::from_bytes(nonsense.as_bytes()).unwrap());
            assert!(check(&verify, &forged).is_err(), "{scheme:?} {nonsense}");
        }
    }
}

#[test]
fn the_forged_stripe_sample_is_forged() {
    let forged = sample!("stripe-04-forged-signature");
    assert_eq!(check(&verify(Scheme::Stripe, &[STRIPE]), &forged), Err(BadSignature::Mismatch));
}

#[test]
fn a_stripe_signature_is_good_for_five_minutes_on_either_side() {
    let sample = sample!("stripe-01-pi-succeeded");
    let verify = verify(Scheme::Stripe, &[STRIPE]);
    let check = |now| verify.check(&sample.view(), &sample.body, 1 << 20, at(now));
    let signed = Ok(Verified { at: Some(SIGNED_AT) });
    assert_eq!((check(SIGNED_AT + 300), check(SIGNED_AT - 300)), (signed, signed));
    assert_eq!(check(SIGNED_AT + 301), Err(BadSignature::Stale));
    assert_eq!(check(SIGNED_AT - 301), Err(BadSignature::Stale));
    let unbounded = Verify { tolerance: None, ..verify.clone() };
    assert_eq!(unbounded.check(&sample.view(), &sample.body, 1 << 20, at(0)), signed);
}

#[test]
fn one_of_several_stripe_signatures_is_enough_and_test_modes_is_none() {
    let sample = sample!("stripe-01-pi-succeeded");
    let header = sample.headers["stripe-signature"].to_str().unwrap().to_owned();
    let with = |line: &str| {
        let mut sample = sample.clone();
        sample.headers.insert("stripe-signature", line.parse().unwrap());
        check(&verify(Scheme::Stripe, &[STRIPE]), &sample)
    };
    let (time, good) = header.split_once(',').unwrap();
    assert!(with(&format!("{time}, v1={}, {good},v0=00", "0".repeat(64))).is_ok());
    assert_eq!(with(&header.replace("v1=", "v0=")), Err(BadSignature::Mismatch));
    assert_eq!(with(&format!("t=1,{header}")), Err(BadSignature::Unreadable), "which time was signed?");
    let many = format!("{time},{}{good}", "v1=00,".repeat(SIGNATURES_MAX));
    assert_eq!(with(&many), Err(BadSignature::Mismatch), "nobody sends that many");
}

#[test]
fn squares_signature_is_for_one_address_only() {
    let sample = sample!("square-01-payment-updated");
    let verify = verify(Scheme::Square, &["sq0sig_oncegate_test"]);
    let elsewhere = Verify { url: "https://shop.example/wc-api/other".to_owned(), ..verify.clone() };
    assert!(check(&verify, &sample).is_ok());
    assert_eq!(check(&elsewhere, &sample), Err(BadSignature::Mismatch));
}

#[test]
fn a_batch_of_adyens_is_good_if_all_of_it_is() {
    let verify = verify(Scheme::Adyen, &[ADYEN]);
    let sample = sample!("adyen-01-authorisation");
    let text = std::str::from_utf8(&sample.body).unwrap().to_owned();
    let item = &text[text.find("[{").unwrap() + 1..text.rfind("]}").unwrap()];
    let batch = |items: &[&str]| {
        let body = format!("{{\"live\":\"false\",\"notificationItems\":[{}]}}", items.join(","));
        check(&verify, &Sample { body: body.into(), ..sample.clone() })
    };
    let forged = item.replace("000000044", "000000045");
    let unsigned = item.replace("hmacSignature", "hmac");
    assert!(batch(&[item, item]).is_ok());
    assert_eq!(batch(&[item, &forged]), Err(BadSignature::Mismatch));
    assert_eq!(batch(&[item, &unsigned]), Err(BadSignature::Missing));
    assert_eq!(batch(&[item, "{}", &forged]), Err(BadSignature::Missing), "nothing hides behind a gap");
    assert_eq!(batch(&[]), Err(BadSignature::Missing));
    assert_eq!(batch(&vec![item; super::super::LANES_MAX + 1]), Err(BadSignature::Unreadable));
    let twice = item.replace("\"success\":\"true\"", "\"success\":\"true\",\"success\":\"false\"");
    assert_eq!(batch(&[&twice]), Err(BadSignature::Unreadable), "the shop may read the other one");
    let as_form = Sample::form(sample.body.clone());
    assert!(check(&verify, &as_form).is_err(), "declared as something else");
}

#[test]
fn the_parameters_of_a_proxied_request_are_signed_whatever_their_order() {
    let verify = verify(Scheme::ShopifyAppProxy, &["shpss_oncegate_test"]);
    let sample = sample!("shopify-05-app-proxy");
    let with = |query: String| check(&verify, &Sample { query, ..sample.clone() });
    let mut turned: Vec<&str> = sample.query.split('&').collect();
    turned.reverse();
    assert_eq!(with(turned.join("&")), Ok(Verified { at: Some(1_790_000_000) }));
    assert_eq!(with(format!("{}&extra=1", sample.query)), Err(BadSignature::Mismatch));
    assert_eq!(with(format!("{}&signature=00", sample.query)), Err(BadSignature::Unreadable));
    assert_eq!(with(format!("{}&timestamp=1", sample.query)), Err(BadSignature::Unreadable));
    assert_eq!(with("shop=a&timestamp=1".into()), Err(BadSignature::Missing));
}

/// The example of Shopify's own page: a name with two values, and the secret "hush".
#[test]
fn two_values_of_a_parameter_are_joined_by_a_comma() {
    let text = "extra=1,2logged_in_customer_id=1path_prefix=/apps/awesome_reviewsshop=s.myshopify.comtimestamp=1317327555";
    let Key::Sha256(mac) = Key::new(Algorithm::Sha256, b"hush") else { unreachable!() };
    let mut mac = mac;
    hmac::Mac::update(&mut mac, text.as_bytes());
    let signature: String =
        hmac::Mac::finalize(mac).into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let query = format!(
        "extra=1&extra=2&shop=s.myshopify.com&logged_in_customer_id=1&path_prefix=%2Fapps%2Fawesome_reviews&timestamp=1317327555&signature={signature}"
    );
    let sample = Sample { query, ..sample!("shopify-05-app-proxy") };
    assert!(check(&verify(Scheme::ShopifyAppProxy, &["hush"]), &sample).is_ok());
}

#[test]
fn braintrees_payload_may_have_lost_its_line_end_and_stands_once() {
    let verify = verify(Scheme::Braintree, &["bt_priv_oncegate_test"]);
    let sample = sample!("braintree-01-settled");
    let text = std::str::from_utf8(&sample.body).unwrap();
    let with = |body: String| check(&verify, &Sample { body: body.into(), ..sample.clone() });
    assert!(with(text.replace("%0A", "")).is_ok());
    assert!(with(text.replace("bt_signature=", "bt_signature=other%7C00%26")).is_ok(), "one pair of two");
    assert_eq!(with(format!("{text}&bt_payload=x")), Err(BadSignature::Unreadable));
    assert_eq!(with(format!("{text}&bt.payload=x")), Err(BadSignature::Unreadable), "one name to PHP");
    assert_eq!(with("bt_payload=x".into()), Err(BadSignature::Missing));
}

#[test]
fn an_authorize_net_key_signs_as_text_and_as_bytes() {
    let sample = sample!("authorize-net-01-authcapture");
    let text = "0F1E2D3C4B5A69788796A5B4C3D2E1F0".repeat(4);
    let bytes = text::hex(text.as_bytes()).unwrap();
    let Key::Sha512(mut mac) = Key::new(Algorithm::Sha512, &bytes) else { unreachable!() };
    hmac::Mac::update(&mut mac, &sample.body);
    let signature: String =
        hmac::Mac::finalize(mac).into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut other = sample.clone();
    other.headers.insert("x-anet-signature", format!("SHA512={signature}").parse().unwrap());
    let verify = verify(Scheme::AuthorizeNet, &[&text]);
    assert!(check(&verify, &sample).is_ok() && check(&verify, &other).is_ok());
}

#[test]
fn a_secret_that_is_none_is_refused_and_none_is_ever_shown() {
    assert_eq!(SigningSecret::new(Scheme::Stripe, "").unwrap_err(), SecretProblem::Empty);
    assert_eq!(SigningSecret::new(Scheme::Adyen, "not hex").unwrap_err(), SecretProblem::NotHex);
    let shown =
        format!("{:?} {:?}", verify(Scheme::Stripe, &[STRIPE]), SigningSecret::new(Scheme::Stripe, STRIPE));
    assert!(shown.contains("Stripe") && !shown.contains("whsec"), "{shown}");
}

proptest! {
    #[test]
    fn no_request_makes_the_check_panic(
        header in prop::collection::vec(any::<u8>().prop_filter("", |byte| *byte >= 32 && *byte != 127), 0..80),
        query in "[a-z=&%0-9]{0,60}",
        body in prop::collection::vec(any::<u8>(), 0..80),
        json in any::<bool>(),
    ) {
        for (scheme, secret, _, name) in all() {
            let body = Bytes::from(body.clone());
            let mut sample = if json { Sample::json(body) } else { Sample::form(body) }.query(&query);
            if let Some(name) = name {
                sample.headers.insert(name, http::HeaderValue::from_bytes(&header).unwrap());
            }
            prop_assert!(check(&verify(scheme, &[secret]), &sample).is_err());
        }
    }
}
