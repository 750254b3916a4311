//! Renewal: noticing, on any route of an upstream, that an identity has begun a new purchase.
//!
//! An honest second purchase can be byte-identical to the first. What tells them apart is something in between: a
//! request or an answer that shows a new cart. From then on the identity's older records answer nobody.

use http::{HeaderMap, header};
use smallvec::SmallVec;

use super::{
    body::Collected,
    core::Core,
    find::{self, Matched},
    search,
};
use crate::{
    config::{RenewOn, Renewal},
    ops::words::StoreOp,
    request::{self, View, body::Content},
    route::{matcher::Head, path::Readings},
    store::Key,
};

/// The identities of one request under the renew rules of its upstream.
#[derive(Clone, Default)]
pub struct Renewing {
    /// One per rule whose identity the request carries: rule number and identity.
    identities: SmallVec<[(usize, Key); 1]>,
}

impl Renewing {
    /// What ends a record of this request.
    pub fn generations(&self) -> SmallVec<[Key; 1]> {
        self.identities.iter().map(|(_, key)| *key).collect()
    }
}

/// Reads the identities, and begins a generation where the request itself says so. `read` is the body, where it was
/// collected.
pub async fn of_request(
    core: &Core,
    upstream: usize,
    matched: &Matched,
    read: Option<&Collected>,
) -> Renewing {
    if core.gate.config.renewals.iter().all(|rule| rule.upstream != upstream) {
        return Renewing::default();
    }
    // In a box: most upstreams have no such rule.
    Box::pin(by_rules(core, upstream, matched, read)).await
}

async fn by_rules(core: &Core, upstream: usize, matched: &Matched, read: Option<&Collected>) -> Renewing {
    let rules = &core.gate.config.renewals;
    let mut renewing = Renewing::default();
    let host = find::host(&matched.parts);
    let view = search::view(&matched.parts, &host, &matched.path, &matched.params);
    let content = read.map_or(Content::Empty, |read| {
        request::body::read(&matched.parts.headers, &read.bytes, read.bytes.len().saturating_mul(4))
    });
    for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.upstream == upstream) {
        let name = &core.gate.config.upstreams[upstream].name;
        let Some(key) = request::identity_key(name, &rule.identity, &core.gate.secret, &view, &content)
        else {
            continue;
        };
        renewing.identities.push((number, key));
        if is_shown_by_request(rule, &view) {
            begin(core, key).await;
        }
    }
    renewing
}

/// Whether a request shows by itself that a new purchase has begun. The configuration takes no conditions on a body
/// here: traffic without a guard is not read.
pub fn is_shown_by_request(rule: &Renewal, view: &View<'_>) -> bool {
    match &rule.on {
        RenewOn::Request(matcher) => matches!(matcher.head(view, &Readings::only(view.path)), Head::Yes(_)),
        RenewOn::Answer { .. } => false,
    }
}

/// Whether an answer does.
pub fn is_shown_by_answer(rule: &Renewal, answer: &HeaderMap) -> bool {
    match &rule.on {
        RenewOn::Request(_) => false,
        RenewOn::Answer { set_cookie } => {
            answer.get_all(header::SET_COOKIE).iter().any(|line| set_cookie.is_match(line.as_bytes()))
        }
    }
}

/// Begins a generation where the shop's answer says so, before anybody gets that answer.
pub async fn of_answer(core: &Core, renewing: &Renewing, answer: &HeaderMap) {
    for (number, key) in &renewing.identities {
        if is_shown_by_answer(&core.gate.config.renewals[*number], answer) {
            begin(core, *key).await;
        }
    }
}

async fn begin(core: &Core, identity: Key) {
    // What was observed belongs to a purchase too.
    core.gate.observation.begin_generation(identity).await;
    let claims = &core.gate.claims;
    if let Err(error) = claims.store.begin_generation(identity).await {
        claims.observer.store_error(StoreOp::Generation, &error);
    }
}
