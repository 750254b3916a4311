//! Which route a request takes. Where that hangs on the body, the body is read here, within the bounds of the guards.

use std::{borrow::Cow, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{header, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Client,
    body::{Collected, Uncollected, collect},
    core::{Core, Lent},
    search::{Bounds, Search, Step, is_enforced},
};
use crate::{
    answer::refusal::{Cause, Refusal},
    config::Guard,
    route::{
        matcher::Hit,
        path::{self, Doubt},
    },
};

/// A request whose route is known.
pub struct Matched {
    pub route: usize,
    pub parts: Box<Parts>,
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
    /// Handed over.
    Taken,
}

/// A request whose route was not found.
pub struct Unfound {
    pub parts: Box<Parts>,
    /// The route that asked for the body, where it is that which did not come or cannot be read.
    pub asking: Option<usize>,
    pub refusal: Refusal,
}

/// Finds the first route that matches; see [`Search`].
pub async fn route(
    core: &Rc<Core>,
    client: &Client,
    parts: Box<Parts>,
    incoming: Incoming,
) -> Result<Matched, Box<Unfound>> {
    let refuse = |parts, asking, refusal| Err(Box::new(Unfound { parts, asking, refusal }));
    let readings = path::read(parts.uri.path());
    let host = host(&parts);
    let routes = &core.gate.config.routes;
    let (mut found, mut content) = (Found::Stream(incoming), None);
    let mut search = Search::new(routes, &parts, &host, &readings);
    let (route, Hit { params, doubt }) = loop {
        match search.go_on(content.as_ref(), |_, _| {}) {
            Step::Takes(route, hit) => break (route, hit),
            Step::NoRoute => return refuse(parts, None, Refusal::NoRoute),
            Step::NeedsBody(route) => {
                let Some(bounds) = Bounds::widest(routes, route) else {
                    search.pass_over();
                    continue;
                };
                // In a box: most routes are found by the head alone.
                match Box::pin(ensure_collected(core, &bounds, &mut found)).await {
                    Ok(read) => {
                        let decoded_max = bounds.decoded_bytes_max;
                        content = Some(crate::request::body::read(&parts.headers, &read.bytes, decoded_max));
                    }
                    // What is only observed, or not guarded at all, goes on as it came.
                    Err(Short::Larger | Short::NoRoom) if !is_enforced(&routes[route]) => search.pass_over(),
                    Err(short) => {
                        let refusal = short.refusal(client, bounds.body_bytes_max);
                        return refuse(parts, Some(route), refusal);
                    }
                }
            }
            Step::Unreadable { route, what } => {
                let refusal = Refusal::BodyUnreadable { detail: what.into(), cause: None };
                return refuse(parts, Some(route), refusal);
            }
        }
    };
    Ok(Matched { route, parts, path: readings.path, params, doubt, found })
}

/// Why there is no whole body.
enum Short {
    Larger,
    NoRoom,
    Broken(Arc<hyper::Error>),
    Late,
}

impl Short {
    fn refusal(self, client: &Client, body_bytes_max: usize) -> Refusal {
        match self {
            Self::Larger => Refusal::BodyTooLarge { body_bytes_max: body_bytes_max as u64 },
            Self::NoRoom => Refusal::Overloaded {
                retry_after: super::TRY_AGAIN,
                bound: "bytes of bodies that are collected (limits.buffers_max)",
            },
            Self::Broken(error) => {
                let cause: Cause = error;
                let detail = client.body_violation().unwrap_or("the body did not arrive whole");
                Refusal::BodyUnreadable { detail: detail.into(), cause: Some(cause) }
            }
            Self::Late => Refusal::RequestTimeout,
        }
    }
}

/// The whole body of a guarded request. It is taken out, so that nothing else holds on to it.
pub async fn collected(
    core: &Core,
    client: &Client,
    guard: &Guard,
    matched: &mut Matched,
) -> Result<Collected, Refusal> {
    let bounds = Bounds::of(guard);
    let read = match ensure_collected(core, &bounds, &mut matched.found).await {
        Ok(_) => std::mem::replace(&mut matched.found, Found::Taken),
        Err(short) => return Err(short.refusal(client, guard.body_max)),
    };
    match read {
        Found::Collected(read) if read.bytes.len() <= guard.body_max => Ok(read),
        Found::Collected(_) | Found::Stream(_) | Found::Begun { .. } | Found::Taken => {
            Err(Short::Larger.refusal(client, guard.body_max))
        }
    }
}

/// The body of a request that is only observed: `None` where it is larger than what is collected; it is passed on
/// all the same.
pub async fn peeked(
    core: &Core,
    client: &Client,
    guard: &Guard,
    matched: &mut Matched,
) -> Result<Option<Collected>, Refusal> {
    match ensure_collected(core, &Bounds::of(guard), &mut matched.found).await {
        Ok(read) => {
            let lent = Lent::none(&core.gate.buffers);
            Ok(Some(Collected { bytes: read.bytes.clone(), trailers: None, lent }))
        }
        Err(Short::Larger | Short::NoRoom) => Ok(None),
        Err(short) => Err(short.refusal(client, guard.body_max)),
    }
}

async fn ensure_collected<'a>(
    core: &Core,
    bounds: &Bounds,
    found: &'a mut Found,
) -> Result<&'a Collected, Short> {
    *found = match std::mem::replace(found, Found::Taken) {
        Found::Stream(incoming) => {
            let until = Instant::now() + bounds.timeout;
            match collect(incoming, bounds.body_bytes_max, until, &core.gate.buffers).await {
                Ok(read) => Found::Collected(read),
                Err(Uncollected::TooLarge { begun, rest, lent }) => {
                    *found = Found::Begun { begun, rest, lent };
                    return Err(Short::Larger);
                }
                Err(Uncollected::NoRoom { begun, rest, lent }) => {
                    *found = Found::Begun { begun, rest, lent };
                    return Err(Short::NoRoom);
                }
                Err(Uncollected::Broken(error)) => return Err(Short::Broken(Arc::new(error))),
                Err(Uncollected::Timeout) => return Err(Short::Late),
            }
        }
        other @ (Found::Collected(_) | Found::Begun { .. } | Found::Taken) => other,
    };
    match found {
        Found::Collected(read) => Ok(read),
        Found::Stream(_) | Found::Begun { .. } | Found::Taken => Err(Short::Larger),
    }
}

/// The authority that the client named, lower-case and without its port.
pub fn host(parts: &Parts) -> Cow<'_, str> {
    let named = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    };
    let without_port = match named.rfind(':') {
        Some(colon) if !named.ends_with(']') => &named[..colon],
        Some(_) | None => named,
    };
    let host = without_port.trim_end_matches('.');
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}
