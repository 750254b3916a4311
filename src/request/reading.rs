//! From rules and a request to lanes and a fingerprint.
//!
//! The order here is the order of the promise, section 3: order key, event id, identity, then the digests. Whatever
//! is ambiguous ends the reading; nothing is picked, nothing is repaired, and no value gets into an error.

use smallvec::SmallVec;

use super::{
    Identity, IdentityRead, KEY_BYTES_MAX, LANES_MAX, OnMismatch, Reading, Rules, Scope, Sharing, Unread,
    View,
    body::Content,
    canonical,
    fingerprint::{Digest, Secret},
    lookup::{Lookup, Value, Values},
    shown,
    source::{AllOf, Source},
};
use crate::store::Key;

/// Reads what a guarded request is about, and which request it is.
///
/// # Errors
/// [`Unread::NoKey`] where no order key is found; [`Unread::Unreadable`] where something that is needed stands
/// twice or cannot be read safely.
pub fn read(rules: &Rules, secret: &Secret, view: &View<'_>, content: &Content) -> Result<Reading, Unread> {
    let Some(order) = first_found(&rules.order, view, content)? else {
        return Err(no_key(&rules.order, content));
    };
    let event = first_found(&rules.event, view, content)?;
    let identity = read_identity(&rules.identity, view, content)?;

    let mut lanes: SmallVec<[Key; 1]> = order.keys.iter().map(|key| lane(rules, secret, key)).collect();
    lanes.sort_unstable();
    lanes.dedup();

    let shares = rules.sharing == Sharing::Same && identity.read != IdentityRead::Absent;
    let body_apart = event.is_some() && rules.on_mismatch == OnMismatch::Refuse;
    let parts =
        Parts { rules, secret, view, content, order: &order, event: event.as_ref(), identity: &identity };
    Ok(Reading {
        lanes,
        order: shown::order(rules, secret, &order),
        fingerprint: shares.then(|| parts.fingerprint(if body_apart { Body::Apart } else { Body::Inside })),
        scope: (shares && rules.scope == Scope::Order).then(|| parts.scope()),
        body: (shares && body_apart).then(|| parts.body()),
        identity: identity.read,
        by_event: event.is_some(),
    })
}

/// Names an identity for a renew rule. `None` where it is absent, or where it cannot be read for certain: then no
/// generation can be begun.
#[must_use]
pub fn identity_key(
    upstream: &str,
    sources: &[Source],
    secret: &Secret,
    view: &View<'_>,
    content: &Content,
) -> Option<Key> {
    let found = present(sources, view, content).ok()?;
    if found.is_empty() {
        return None;
    }
    let mut digest = Digest::new(secret, "identity");
    digest.part(upstream.as_bytes());
    feed_identity(&found, &mut digest);
    Some(digest.finish())
}

/// One key: a value for each source of an all-of.
pub(super) type KeyParts = SmallVec<[Value; 1]>;

/// The alternative that was found, and the keys that it gave.
pub(super) struct Found<'r> {
    pub(super) sources: &'r AllOf,
    pub(super) keys: SmallVec<[KeyParts; 1]>,
}

struct IdentityFound<'r> {
    read: IdentityRead,
    values: Vec<(&'r Source, Values)>,
}

/// Whether the body is part of the fingerprint or stands beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Inside,
    Apart,
}

struct Parts<'a> {
    rules: &'a Rules,
    secret: &'a Secret,
    view: &'a View<'a>,
    content: &'a Content,
    order: &'a Found<'a>,
    event: Option<&'a Found<'a>>,
    identity: &'a IdentityFound<'a>,
}

impl Parts<'_> {
    fn fingerprint(&self, body: Body) -> Key {
        let mut digest = Digest::new(self.secret, "fingerprint");
        digest.part(self.rules.route.as_bytes());
        digest.part(self.view.host.as_bytes());
        digest.part(self.view.method.as_str().to_ascii_uppercase().as_bytes());
        digest.part(self.view.path.as_bytes());
        canonical::feed_query(self.view.query, &self.rules.ignore, &mut digest);
        feed_identity(&self.identity.values, &mut digest);
        feed_keys(Some(self.order), &mut digest);
        feed_keys(self.event, &mut digest);
        match body {
            Body::Inside => canonical::feed(self.content, &self.rules.ignore, &mut digest),
            Body::Apart => digest.tag(b'a'),
        }
        digest.finish()
    }

    /// The order goes in as text, as in a lane: two spellings of one order are one order.
    fn scope(&self) -> Key {
        let mut digest = Digest::new(self.secret, "scope");
        digest.part(self.rules.upstream.as_bytes());
        digest.part(self.rules.route.as_bytes());
        digest.part(self.view.host.as_bytes());
        feed_identity(&self.identity.values, &mut digest);
        let mut keys: SmallVec<[&KeyParts; 1]> = self.order.keys.iter().collect();
        keys.sort_by(|one, other| texts(one).cmp(texts(other)));
        digest.length(keys.len());
        for key in keys {
            feed_texts(key, &mut digest);
        }
        digest.finish()
    }

    fn body(&self) -> Key {
        let mut digest = Digest::new(self.secret, "body");
        canonical::feed(self.content, &self.rules.ignore, &mut digest);
        digest.finish()
    }
}

/// A lane is the order's alone: not the route's, not the host's, not the identity's, so that checkout, callback and
/// browser return of one order meet. The number 7 and the string "7" are one order.
fn lane(rules: &Rules, secret: &Secret, key: &KeyParts) -> Key {
    let mut digest = Digest::new(secret, "lane");
    digest.part(rules.upstream.as_bytes());
    feed_texts(key, &mut digest);
    digest.finish()
}

/// The first alternative of which all parts are found. An earlier one that cannot be read for certain ends the
/// search: it may be the one that the shop goes by.
pub(super) fn first_found<'r>(
    alternatives: &'r [AllOf],
    view: &View<'_>,
    content: &Content,
) -> Result<Option<Found<'r>>, Unread> {
    for sources in alternatives {
        let keys = all_of(sources, view, content)?;
        if !keys.is_empty() {
            return Ok(Some(Found { sources, keys }));
        }
    }
    Ok(None)
}

/// Every combination of the values of all sources; none where one of them is absent.
fn all_of(sources: &AllOf, view: &View<'_>, content: &Content) -> Result<SmallVec<[KeyParts; 1]>, Unread> {
    let mut keys: SmallVec<[KeyParts; 1]> = SmallVec::new();
    for (index, source) in sources.iter().enumerate() {
        let Some(values) = found(source, view, content)? else { return Ok(SmallVec::new()) };
        if values.iter().any(|value| value.bytes.len() > KEY_BYTES_MAX) {
            return Err(unreadable(source, &format!("it is longer than {KEY_BYTES_MAX} bytes")));
        }
        if index == 0 {
            keys.extend(values.into_iter().map(|value| KeyParts::from_iter([value])));
            continue;
        }
        if keys.len() * values.len() > LANES_MAX {
            return Err(unreadable(source, &format!("the request is about more than {LANES_MAX} orders")));
        }
        keys = keys
            .iter()
            .flat_map(|key| {
                values.iter().map(|value| key.iter().cloned().chain([value.clone()]).collect::<KeyParts>())
            })
            .collect();
    }
    Ok(keys)
}

fn read_identity<'r>(
    identity: &'r Identity,
    view: &View<'_>,
    content: &Content,
) -> Result<IdentityFound<'r>, Unread> {
    let Identity::AllPresent(sources) = identity else {
        return Ok(IdentityFound { read: IdentityRead::Undeclared, values: Vec::new() });
    };
    let values = present(sources, view, content)?;
    let read = if values.is_empty() { IdentityRead::Absent } else { IdentityRead::Present };
    Ok(IdentityFound { read, values })
}

fn present<'r>(
    sources: &'r [Source],
    view: &View<'_>,
    content: &Content,
) -> Result<Vec<(&'r Source, Values)>, Unread> {
    let mut all = Vec::with_capacity(sources.len());
    for source in sources {
        if let Some(values) = found(source, view, content)? {
            all.push((source, values));
        }
    }
    Ok(all)
}

fn found(source: &Source, view: &View<'_>, content: &Content) -> Result<Option<Values>, Unread> {
    match source.read(view, content) {
        Lookup::Absent => Ok(None),
        Lookup::Found(values) => Ok(Some(values)),
        Lookup::Ambiguous(why) | Lookup::Unreadable(why) => Err(unreadable(source, &why)),
    }
}

fn unreadable(source: &Source, why: &str) -> Unread {
    Unread::Unreadable { what: format!("{source} cannot be read: {why}") }
}

/// A body that was declared as something that none of the body's sources can be read from is a mismatch, not a
/// request without a key: a shop may not care what was declared.
fn no_key(order: &[AllOf], content: &Content) -> Unread {
    let mut wanted =
        order.iter().flatten().filter_map(|source| Some((source, source.reads_body()?))).peekable();
    if let Some(&(first, _)) = wanted.peek()
        && wanted.all(|(_, reads)| !content.fits(reads))
    {
        return unreadable(first, &format!("the body is declared as {}", content.declared()));
    }
    let names = order.iter().map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + "));
    Unread::NoKey { looked: names.collect::<Vec<_>>().join(", ") }
}

fn feed_identity(values: &[(&Source, Values)], digest: &mut Digest) {
    digest.length(values.len());
    for (source, values) in values {
        digest.part(source.to_string().as_bytes());
        digest.length(values.len());
        for value in values {
            digest.tagged(value.kind.tag(), &value.bytes);
        }
    }
}

fn feed_keys(found: Option<&Found<'_>>, digest: &mut Digest) {
    let keys = found.map_or(&[] as &[KeyParts], |found| &found.keys);
    digest.length(keys.len());
    for key in keys {
        digest.length(key.len());
        for value in key {
            digest.tagged(value.kind.tag(), &value.bytes);
        }
    }
}

fn feed_texts(key: &KeyParts, digest: &mut Digest) {
    digest.length(key.len());
    for text in texts(key) {
        digest.part(text);
    }
}

fn texts(key: &KeyParts) -> impl Iterator<Item = &[u8]> {
    key.iter().map(|value| value.bytes.as_slice())
}
