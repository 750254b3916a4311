//! Which route a request takes. Where that hangs on the body, the body is read here, within the bounds of the guards.

use std::rc::Rc;

use bytes::Bytes;
use http::{header, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    body::{Collected, Uncollected, collect},
    core::{Core, Lent},
};
use crate::{
    answer::refusal::Refusal,
    config::{Enforce, Guard},
    request::{View, body::Content},
    route::{
        matcher::{BodyMatch, Head},
        path::{self, Doubt, Readings},
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
    Begun { begun: Bytes, rest: Incoming, lent: Lent },
}

/// A path of one reading and the first route that it takes.
struct Way {
    route: usize,
    params: Vec<(String, String)>,
    path: String,
}

/// Finds the first route that matches.
///
/// A path that backends may read in several ways takes the way of its plain reading, unless another reading leads to
/// a guarded route: then it is that route's, so that a guard cannot be walked around by spelling.
pub async fn route(core: &Rc<Core>, parts: Parts, incoming: Incoming) -> Result<Matched, Refusal> {
    let readings = path::read(parts.uri.path());
    let mut found = Found::Stream(incoming);
    let Readings { path: plain, others, doubt } = readings;
    let mut way = first_match(core, &parts, &plain, &mut found).await?;
    for other in others {
        if way.as_ref().is_some_and(|way| is_guarded(core, way.route)) {
            break;
        }
        if let Some(odd) = first_match(core, &parts, &other, &mut found).await?
            && is_guarded(core, odd.route)
        {
            way = Some(odd);
        }
    }
    let Some(Way { route, params, path }) = way else { return Err(Refusal::NoRoute) };
    Ok(Matched { route, parts, path, params, doubt, found })
}

fn is_guarded(core: &Core, route: usize) -> bool {
    core.gate.config.routes[route].guard.is_some()
}

async fn first_match(
    core: &Rc<Core>,
    parts: &Parts,
    path: &str,
    found: &mut Found,
) -> Result<Option<Way>, Refusal> {
    let host = host(parts);
    let readings = Readings { path: path.to_owned(), others: Vec::new(), doubt: None };
    let view = View {
        method: &parts.method,
        host: &host,
        path,
        query: parts.uri.query().unwrap_or(""),
        headers: &parts.headers,
        params: &[],
    };
    let mut content = None;
    for (number, route) in core.gate.config.routes.iter().enumerate() {
        let hit = match route.matcher.head(&view, &readings) {
            Head::No => continue,
            Head::Yes(hit) => hit,
            Head::AfterBody(hit) => {
                let Some(guard) = widest_guard(core, number) else { continue };
                let read = ensure_collected(core, guard, found).await?;
                let content = content.get_or_insert_with(|| content_of(parts, read, guard));
                match route.matcher.body(&view, content) {
                    BodyMatch::No => continue,
                    BodyMatch::Yes => hit,
                    BodyMatch::Unreadable(_) if route.guard.is_none() => continue,
                    BodyMatch::Unreadable(what) => {
                        return Err(Refusal::BodyUnreadable { detail: what.into(), cause: None });
                    }
                }
            }
        };
        return Ok(Some(Way { route: number, params: hit.params, path: path.to_owned() }));
    }
    Ok(None)
}

/// The bounds by which a body is read for matching: those of the route itself, or of any guard where it has none.
fn widest_guard(core: &Core, route: usize) -> Option<&Guard> {
    let routes = &core.gate.config.routes;
    routes[route].guard.as_ref().or_else(|| routes.iter().find_map(|route| route.guard.as_ref()))
}

fn content_of(parts: &Parts, read: &Collected, guard: &Guard) -> Content {
    crate::request::body::read(&parts.headers, &read.bytes, guard.decoded_max)
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
pub async fn peeked(core: &Rc<Core>, guard: &Guard, matched: &mut Matched) -> Result<Option<Collected>, Refusal> {
    match ensure_collected(core, guard, &mut matched.found).await {
        Ok(read) => {
            let lent = Lent::none(&core.gate.buffers);
            Ok(Some(Collected { bytes: read.bytes.clone(), trailers: None, lent }))
        }
        Err(Refusal::BodyTooLarge { .. }) if matches!(matched.found, Found::Begun { .. }) => Ok(None),
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
        Found::Collected(Collected { bytes: Bytes::new(), trailers: None, lent: Lent::none(&core.gate.buffers) }),
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
