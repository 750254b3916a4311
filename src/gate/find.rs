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
        matcher::{BodyMatch, Head, Hit},
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
    Begun {
        begun: Bytes,
        rest: Incoming,
        lent: Lent,
    },
}

/// Finds the first route that matches.
///
/// A path that backends may read in several ways takes an unguarded route only by its plain reading, and only if
/// none of the spellings leads to a guarded route: a guard cannot be walked around by spelling.
pub async fn route(core: &Rc<Core>, parts: Parts, incoming: Incoming) -> Result<Matched, Refusal> {
    let readings = path::read(parts.uri.path());
    let mut search = Search { core, host: host(&parts), found: Found::Stream(incoming), content: None };
    let hit = search.first(&parts, &readings).await?;
    let (route, Hit { params, doubt }) = hit.ok_or(Refusal::NoRoute)?;
    let found = search.found;
    Ok(Matched { route, parts, path: readings.path, params, doubt, found })
}

/// Where a search for a route stands.
struct Search<'a> {
    core: &'a Rc<Core>,
    host: String,
    found: Found,
    /// The body, once a route has asked for it.
    content: Option<Content>,
}

impl Search<'_> {
    async fn first(&mut self, parts: &Parts, readings: &Readings) -> Result<Option<(usize, Hit)>, Refusal> {
        let plain =
            (!readings.is_plain()).then(|| (Readings::only(&readings.path), readings.without_aliases()));
        let mut unguarded = None;
        for (number, route) in self.core.gate.config.routes.iter().enumerate() {
            let by = match (&plain, &route.guard, &unguarded) {
                (None, _, _) | (Some(_), Some(_), None) => readings,
                (Some((only, _)), None, None) => only,
                // An operator who names an alias in a route without a guard means it; a spelling nobody means.
                (Some((_, spelled)), Some(_), Some(_)) => spelled,
                (Some(_), None, Some(_)) => continue,
            };
            let Some(hit) = self.matches(number, parts, by).await? else { continue };
            if route.guard.is_some() || plain.is_none() {
                return Ok(Some((number, hit)));
            }
            unguarded = Some((number, hit));
        }
        Ok(unguarded)
    }

    async fn matches(
        &mut self,
        number: usize,
        parts: &Parts,
        readings: &Readings,
    ) -> Result<Option<Hit>, Refusal> {
        let route = &self.core.gate.config.routes[number];
        let hit = match route.matcher.head(&view(parts, &self.host, &readings.path), readings) {
            Head::No => return Ok(None),
            Head::Yes(hit) => return Ok(Some(hit)),
            Head::AfterBody(hit) => hit,
        };
        let Some(guard) = bounds_for(self.core, number) else { return Ok(None) };
        if self.content.is_none() {
            let read = ensure_collected(self.core, guard, &mut self.found).await?;
            self.content = Some(crate::request::body::read(&parts.headers, &read.bytes, guard.decoded_max));
        }
        let Some(content) = &self.content else { return Ok(None) };
        match route.matcher.body(&view(parts, &self.host, &readings.path), readings, content) {
            BodyMatch::No => Ok(None),
            BodyMatch::Yes => Ok(Some(hit)),
            BodyMatch::Unreadable(_) if route.guard.is_none() => Ok(None),
            BodyMatch::Unreadable(what) => Err(Refusal::BodyUnreadable { detail: what.into(), cause: None }),
        }
    }
}

fn view<'a>(parts: &'a Parts, host: &'a str, path: &'a str) -> View<'a> {
    View {
        method: &parts.method,
        host,
        path,
        query: parts.uri.query().unwrap_or(""),
        headers: &parts.headers,
        params: &[],
    }
}

/// The bounds by which a body is read for matching: those of the route itself, or of any guard where it has none.
fn bounds_for(core: &Core, route: usize) -> Option<&Guard> {
    let routes = &core.gate.config.routes;
    routes[route].guard.as_ref().or_else(|| routes.iter().find_map(|route| route.guard.as_ref()))
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
