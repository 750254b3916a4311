//! `[route.verify]`: whose signature a route's requests bear, and the secrets that it is checked with.
//!
//! No message holds a secret, nor how long it is.

use std::time::Duration;

use super::{DAY, secs};
use crate::{
    config::{
        file::{Kind, Value},
        reader::Reader,
    },
    request::verify::{OnBadSignature, Scheme, SecretProblem, SigningSecret, Verify},
};

/// Secrets of one route; each is tried on every request.
const SECRETS_MAX: usize = 8;

const BESIDE_GUARD: &str = "nothing is claimed for a route without a guard, so there is nothing to protect";

/// What a route says of signatures. Where something is missing the report says so.
pub(super) fn verify(route: &Reader<'_>) -> Option<Verify> {
    let reader = route.table("verify")?;
    let report = reader.report();
    if route.value("guard").is_none() {
        let mend = "give the route a [route.guard], or leave the signature to the shop";
        report.error(&route.at_key("verify"), "`verify` without a guard", BESIDE_GUARD, mend);
    }
    let names = Scheme::NAMES.map(|(name, _)| name).join("\", \"");
    let mend = format!("write scheme = \"…\": \"{names}\"");
    let scheme = match reader.value("scheme") {
        Some(_) => reader.choice("scheme", &Scheme::NAMES),
        None => {
            let follows = "it is not known how the sender signs";
            report.missing(&reader.at, "`verify` without `scheme`", follows, mend);
            None
        }
    };
    let secrets = secrets(&reader, scheme);
    let on_bad_signature = reader
        .choice("on_bad_signature", &[("pass", OnBadSignature::Pass), ("refuse", OnBadSignature::Refuse)]);
    let tolerance = tolerance(&reader, scheme);
    let url = url(&reader, scheme);
    reader.finish();
    let verify = Verify::new(scheme?, secrets);
    Some(Verify {
        on_bad_signature: on_bad_signature.unwrap_or(verify.on_bad_signature),
        tolerance: tolerance.or(verify.tolerance),
        url,
        ..verify
    })
}

fn secrets(reader: &Reader<'_>, scheme: Option<Scheme>) -> Vec<SigningSecret> {
    let report = reader.report();
    let mend = "write secret = \"${NAME}\" for a variable of the environment, or secret = { file = \"…\" }";
    let is_empty = |value: &Value| matches!(&value.kind, Kind::Array(items) if items.is_empty());
    if reader.value("secret").is_none_or(is_empty) {
        let follows = "no signature could be told from a forged one";
        report.missing(&reader.at_value("secret"), "`verify` without `secret`", follows, mend);
    }
    let typed = reader.secrets("secret");
    if typed.len() > SECRETS_MAX {
        let what = format!("`secret` has {} of them, more than {SECRETS_MAX}", typed.len());
        let follows = "each is tried on every request";
        report.error(&reader.at_value("secret"), what, follows, "take out those that nobody signs with");
    }
    let mut secrets = Vec::new();
    for secret in typed {
        match scheme.map(|scheme| SigningSecret::new(scheme, &secret.value)) {
            None => {}
            Some(Ok(secret)) => secrets.push(secret),
            // A variable that is not set has been told of.
            Some(Err(SecretProblem::Empty)) if report.has_told_of(&secret.at) => {}
            Some(Err(problem)) => {
                let follows = match problem {
                    SecretProblem::Empty => "anybody could sign with it",
                    SecretProblem::NotHex => "nothing that the sender signs would be good",
                };
                report.error(&secret.at, format!("a secret of `verify`: {problem}"), follows, mend);
            }
        }
    }
    secrets
}

/// How far a signed time may be from ours.
fn tolerance(reader: &Reader<'_>, scheme: Option<Scheme>) -> Option<Duration> {
    let default = scheme.and_then(Scheme::tolerance);
    reader.value("tolerance")?;
    if let Some(scheme) = scheme.filter(|scheme| !scheme.is_timed()) {
        let what = format!("`tolerance` has no effect with scheme \"{}\"", scheme.name());
        let follows = "no time is part of what it signs";
        reader.report().error(&reader.at_key("tolerance"), what, follows, "take it out");
    }
    Some(reader.duration("tolerance", default.unwrap_or(secs(300)), secs(1)..=DAY))
}

/// The address that the sender was given, where it signs that too.
fn url(reader: &Reader<'_>, scheme: Option<Scheme>) -> String {
    let mend =
        "write the address as the provider has it, such as url = \"https://shop.example/wc-api/square\"";
    let signs = scheme.is_none_or(Scheme::signs_url);
    let report = reader.report();
    match reader.text("url") {
        None => {
            if scheme.is_some() && signs && reader.value("url").is_none() {
                let what = "`verify` without `url`";
                let follows =
                    "the sender signs the address that it was given, and shops behind proxies do not know it";
                report.missing(&reader.at, what, follows, mend);
            }
            String::new()
        }
        Some(url) if !signs => {
            let what = "`url` has no effect: this sender signs no address";
            report.error(&reader.at_key("url"), what, "nothing would read it", "take it out");
            url.value
        }
        Some(url) => {
            if !url.value.starts_with("https://") && !url.value.starts_with("http://") {
                let follows = "every signature would be taken for a forged one";
                report.error(&url.at, "`url` is no whole address", follows, mend);
            }
            url.value
        }
    }
}
