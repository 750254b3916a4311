//! Whether the sender of a request signed it, asked before anything is claimed: a forged callback holds no lane.
//!
//! Nothing here decides what a signature is; that is `request::verify`'s. It counts and tells of those that are not good.

use std::time::SystemTime;

use super::{body::Collected, core::Core, find, find::Matched, search};
use crate::{
    config::Guard,
    ops::{log::Level, words::Signature},
    request::verify::{BadSignature, OnBadSignature},
};

/// What a request's signature means for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signed {
    /// It is the sender's, or nobody asks for one.
    Good,
    /// It is to go to the shop as if there were no guard.
    PassedOn,
    Refused,
}

/// Checks the signature of a request that has been read whole.
pub(super) fn check(core: &Core, id: &str, guard: &Guard, matched: &Matched, read: &Collected) -> Signed {
    let Some(verify) = &guard.verify else { return Signed::Good };
    let host = find::host(&matched.parts);
    let view = search::view(&matched.parts, &host, &matched.path, &matched.params);
    let checked = verify.check(&view, &read.bytes, guard.decoded_max, Some(SystemTime::now()));
    let gate = &core.gate;
    gate.metrics.route(matched.route).signature(outcome(checked.err()));
    let Err(why) = checked else { return Signed::Good };
    let route = &gate.config.routes[matched.route].name;
    let why = why.to_string();
    let fields =
        [("route", route.as_str()), ("scheme", verify.scheme.name()), ("why", &why), ("request_id", id)];
    gate.log.event(Level::Warn, "bad-signature", &fields);
    match verify.on_bad_signature {
        OnBadSignature::Pass => Signed::PassedOn,
        OnBadSignature::Refuse => Signed::Refused,
    }
}

fn outcome(bad: Option<BadSignature>) -> Signature {
    match bad {
        None => Signature::Verified,
        Some(BadSignature::Missing) => Signature::Missing,
        Some(BadSignature::Unreadable) => Signature::Unreadable,
        Some(BadSignature::Mismatch) => Signature::Mismatch,
        Some(BadSignature::Stale) => Signature::Stale,
    }
}
