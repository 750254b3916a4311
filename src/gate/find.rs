//! Which route a request takes. Where that hangs on the body, the body is read here, within the bounds of the guards.

use std::rc::Rc;

use bytes::Bytes;
use http::{header, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    body::{Collected, Uncollected, collect},
    core::{Core, Lent},
    search::{self, Search, Step},
};
use crate::{
    answer::refusal::Refusal,
    config::{Enforce, Guard},
    route::{
        matcher::Hit,
        path::{self, Doubt},
    },
};

/// A request whose route is known.
pub struct Matched {
    pub route: usize,
    pub parts: Parts,
    /// The path as the shop would read it.
    pub path: String,
    pub params: Vec<(String, String)>,
    /// What keeps the path from being read in one way only.
    pub doubt: Option<Doubt>,
    pub found: Found,
}

/// What is there of the body.
pub enum Found {
    /// Not read yet.
    Stream(Incoming),
    Collected(Collected),
    /// Begun to read, and larger than what is collected.
    Begun {
        begun: Bytes,
        rest: Incoming,
        lent: Lent,
    },
}

/// Finds the first route that matches; see [`Search`].
pub async fn route(core: &Rc<Core>, parts: Parts, incoming: Incoming) -> Result<Matched, Refusal> {
    let readings = path::read(parts.uri.path());
    let host = host(&parts);
    let routes = &core.gate.config.routes;
    let (mut found, mut content) = (Found::Stream(incoming), None);
    let mut search = Search::new(routes, &parts, &host, &readings);
    let (route, Hit { params, doubt }) = loop {
        match search.go_on(content.as_ref(), |_, _| {}) {
            Step::Takes(route, hit) => break (route, hit),
            Step::NoRoute => return Err(Refusal::NoRoute),
            Step::NeedsBody(route) => {
                let Some(guard) = search::bounds_for(routes, route) else {
                    search.pass_over();
                    continue;
                };
                let read = ensure_collected(core, guard, &mut found).await?;
                content = Some(crate::request::body::read(&parts.headers, &read.bytes, guard.decoded_max));
            }
            Step::Unreadable { what, .. } => {
                return Err(Refusal::BodyUnreadable { detail: what.into(), cause: None });
            }
        }
    };
    Ok(Matched { route, parts, path: readings.path, params, doubt, found })
}

/// The whole body of a guarded request.
pub async fn collected(core: &Rc<Core>, guard: &Guard, matched: &mut Matched) -> Result<Collected, Refusal> {
    ensure_collected(core, guard, &mut matched.found).await?;
    let Found::Collected(read) = &mut matched.found else { return Err(too_large(guard)) };
    let lent = std::mem::replace(&mut read.lent, Lent::none(&core.gate.buffers));
    let read = Collected { bytes: read.bytes.clone(), trailers: read.trailers.take(), lent };
    if read.bytes.len() > guard.body_max {
        return Err(too_large(guard));
    }
    Ok(read)
}

/// The body of a request that is only observed: `None` where it is larger than what is collected; it is passed on
/// all the same.
pub async fn peeked(
    core: &Rc<Core>,
    guard: &Guard,
    matched: &mut Matched,
) -> Result<Option<Collected>, Refusal> {
    let bytes = match ensure_collected(core, guard, &mut matched.found).await {
        Ok(read) => Ok(read.bytes.clone()),
        Err(refusal) => Err(refusal),
    };
    match bytes {
        Ok(bytes) => Ok(Some(Collected { bytes, trailers: None, lent: Lent::none(&core.gate.buffers) })),
        Err(_) if matches!(matched.found, Found::Begun { .. }) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

async fn ensure_collected<'a>(
    core: &Core,
    guard: &Guard,
    found: &'a mut Found,
) -> Result<&'a Collected, Refusal> {
    let owned = std::mem::replace(
        found,
        Found::Collected(Collected {
            bytes: Bytes::new(),
            trailers: None,
            lent: Lent::none(&core.gate.buffers),
        }),
    );
    *found = match owned {
        Found::Stream(incoming) => {
            let until = Instant::now() + guard.body_timeout;
            match collect(incoming, guard.body_max, until, &core.gate.buffers).await {
                Ok(read) => Found::Collected(read),
                Err(Uncollected::TooLarge { begun, rest, lent }) => match guard.enforce {
                    Enforce::Yes => return Err(too_large(guard)),
                    Enforce::Observe => Found::Begun { begun, rest, lent },
                },
                Err(Uncollected::NoRoom { begun, rest, lent }) => match guard.enforce {
                    Enforce::Yes => {
                        let bound = "bytes of bodies that are collected (limits.buffers_max)";
                        return Err(Refusal::Overloaded { retry_after: super::TRY_AGAIN, bound });
                    }
                    Enforce::Observe => Found::Begun { begun, rest, lent },
                },
                Err(Uncollected::Broken(error)) => {
                    let cause: crate::answer::refusal::Cause = std::sync::Arc::new(error);
                    let detail = "the body did not arrive whole".into();
                    return Err(Refusal::BodyUnreadable { detail, cause: Some(cause) });
                }
                Err(Uncollected::Timeout) => return Err(Refusal::RequestTimeout),
            }
        }
        other @ (Found::Collected(_) | Found::Begun { .. }) => other,
    };
    match found {
        Found::Collected(read) => Ok(read),
        Found::Stream(_) | Found::Begun { .. } => Err(too_large(guard)),
    }
}

fn too_large(guard: &Guard) -> Refusal {
    Refusal::BodyTooLarge { body_bytes_max: guard.body_max as u64 }
}

/// The authority that the client named, lower-case and without its port.
pub fn host(parts: &Parts) -> String {
    let named = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    };
    let without_port = match named.rfind(':') {
        Some(colon) if !named.ends_with(']') => &named[..colon],
        Some(_) | None => named,
    };
    without_port.trim_end_matches('.').to_ascii_lowercase()
}
