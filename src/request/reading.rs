//! From rules and a request to lanes and a fingerprint.
//!
//! The order here is the order of the promise, section 3: order key, event id, identity, then the digests. Whatever
//! is ambiguous ends the reading; nothing is picked, nothing is repaired, and no value gets into an error.

use std::borrow::Cow;

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

    let mut lanes: SmallVec<[Key; 1]> =
        order.keys.iter().map(|key| lane_of(&rules.upstream, secret, texts(key))).collect();
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
        let body_bytes = match body {
            Body::Inside => self.content.length(),
            Body::Apart => 0,
        };
        let mut digest = Digest::with_room(self.secret, "fingerprint", body_bytes);
        digest.part(self.rules.route.as_bytes());
        digest.part(self.view.host.as_bytes());
        digest.part(&upper_case(self.view.method.as_str()));
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
            feed(texts(key), &mut digest);
        }
        digest.finish()
    }

    fn body(&self) -> Key {
        let mut digest = Digest::with_room(self.secret, "body", self.content.length());
        canonical::feed(self.content, &self.rules.ignore, &mut digest);
        digest.finish()
    }
}

/// Methods come in capitals; a shop may not mind others.
fn upper_case(method: &str) -> Cow<'_, [u8]> {
    match method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Owned(method.to_ascii_uppercase().into_bytes()),
        false => Cow::Borrowed(method.as_bytes()),
    }
}

/// A lane is the order's alone: not the route's, not the host's, not the identity's, so that checkout, callback and
/// browser return of one order meet. The number 7 and the string "7" are one order.
pub(super) fn lane_of<'t>(
    upstream: &str,
    secret: &Secret,
    parts: impl ExactSizeIterator<Item = &'t [u8]>,
) -> Key {
    let mut digest = Digest::new(secret, "lane");
    digest.part(upstream.as_bytes());
    feed(parts, &mut digest);
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

fn feed_identity(values: &[(&Source, Values)], digest: &mut Digest<'_>) {
    digest.length(values.len());
    for (source, values) in values {
        digest.part(source.text().as_bytes());
        digest.length(values.len());
        for value in values {
            digest.tagged(value.kind.tag(), &value.bytes);
        }
    }
}

fn feed_keys(found: Option<&Found<'_>>, digest: &mut Digest<'_>) {
    let keys = found.map_or(&[] as &[KeyParts], |found| &found.keys);
    digest.length(keys.len());
    for key in keys {
        digest.length(key.len());
        for value in key {
            digest.tagged(value.kind.tag(), &value.bytes);
        }
    }
}

fn feed<'t>(texts: impl ExactSizeIterator<Item = &'t [u8]>, digest: &mut Digest<'_>) {
    digest.length(texts.len());
    for text in texts {
        digest.part(text);
    }
}

fn texts(key: &KeyParts) -> impl ExactSizeIterator<Item = &[u8]> {
    key.iter().map(|value| value.bytes.as_slice())
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{Sample, all, identity, ignore, rules, secret},
        *,
    };

    const CHECKOUT: &str = "billing_city=Paris&payment_method=cod&total=42&nonce=a1";

    fn woo() -> Rules {
        Rules {
            identity: identity(&[
                "cookie:wp_woocommerce_session_*",
                "cookie:woocommerce_cart_hash",
                "header:authorization",
            ]),
            ignore: ignore(&["form:nonce", "query:t"]),
            ..rules(&["cookie:wp_woocommerce_session_*|segment:0"])
        }
    }

    fn checkout(session: &str) -> Sample {
        let cookies =
            format!("wp_woocommerce_session_0a={session}%7C1893456000%7C18%7C0d; woocommerce_cart_hash=9c");
        Sample::form(CHECKOUT).header("cookie", &cookies)
    }

    fn lane_of(sample: &Sample, order: &[&str]) -> Key {
        sample.read(&rules(order)).unwrap().lanes[0]
    }

    fn fingerprint(sample: &Sample, rules: &Rules) -> Key {
        sample.read(rules).unwrap().fingerprint.unwrap()
    }

    fn hex(key: Option<Key>) -> String {
        key.map(|key| key.0.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
    }

    #[test]
    fn one_order_is_one_lane_on_every_route_host_and_identity() {
        let order = &["path:id", "json:/id", "form:id", "query:id"];
        let first = lane_of(&Sample::json(r#"{"id":"7"}"#), order);
        assert_eq!(first, lane_of(&Sample::json(r#"{"id":7}"#).host("other.example"), order));
        assert_eq!(first, lane_of(&Sample::form("id=7"), order));
        assert_eq!(first, lane_of(&Sample::json("").param("id", "7").header("cookie", "x=1"), order));
        let other_route = Rules { route: "return".into(), ..rules(order) };
        assert_eq!(first, Sample::json("").query("id=7").read(&other_route).unwrap().lanes[0]);
        assert_ne!(first, lane_of(&Sample::form("id=7.0"), order));
        let other_upstream = Rules { upstream: "other".into(), ..rules(order) };
        assert_ne!(first, Sample::form("id=7").read(&other_upstream).unwrap().lanes[0]);
    }

    #[test]
    fn orders_that_differ_in_the_23rd_digit_are_two() {
        let id = |last: char| Sample::json(format!("{{\"id\":1234567890123456789012{last}}}"));
        assert_ne!(lane_of(&id('3'), &["json:/id"]), lane_of(&id('4'), &["json:/id"]));
    }

    #[test]
    fn number_and_string_are_one_lane_and_two_fingerprints() {
        let (number, string) = (Sample::json(r#"{"id":7}"#), Sample::json(r#"{"id":"7"}"#));
        let by_event = Rules { event: all(&["header:idempotency-key"]), ..rules(&["json:/id"]) };
        assert_eq!(lane_of(&number, &["json:/id"]), lane_of(&string, &["json:/id"]));
        let keyed = |sample: Sample| fingerprint(&sample.header("idempotency-key", "k"), &by_event);
        assert_ne!(keyed(number), keyed(string));
    }

    #[test]
    fn a_batch_holds_every_lane_once_and_sorted() {
        let batch =
            Sample::json(r#"[{"id":"B"},{"id":"A"},{"id":"B"}]"#).read(&rules(&["json:/*/id"])).unwrap();
        assert_eq!(batch.lanes.len(), 2);
        assert!(batch.lanes.is_sorted());
        assert_eq!(batch.order, "B,A");
        let many = Sample::json(format!("[{}1]", (0..64).map(|id| format!("{id},")).collect::<String>()));
        assert!(matches!(many.read(&rules(&["json:/*"])), Err(Unread::Unreadable { .. })));
        let product = format!("{{\"a\":[{0}0],\"b\":[{0}0]}}", "1,".repeat(8));
        let product = Sample::json(product).read(&rules(&["json:/a/* + json:/b/*"]));
        assert!(matches!(product, Err(Unread::Unreadable { .. })));
    }

    #[test]
    fn parts_of_one_key_never_run_into_each_other() {
        let order = &["form:a + form:b"];
        let read = |body: &'static str| Sample::form(body).read(&rules(order)).unwrap();
        assert_ne!(read("a=a&b=bc").lanes, read("a=ab&b=c").lanes);
        assert_eq!(read("a=a&b=bc").order, "a+bc");
        assert!(matches!(Sample::form("a=a").read(&rules(order)), Err(Unread::NoKey { .. })));
    }

    #[test]
    fn the_first_order_that_is_found_wins() {
        let sample = Sample::json(r#"{"cartId":"B"}"#).param("cart", "A");
        assert_eq!(sample.read(&rules(&["path:cart", "json:/cartId"])).unwrap().order, "A");
        assert_eq!(sample.read(&rules(&["json:/no", "json:/cartId"])).unwrap().order, "B");
    }

    #[test]
    fn a_missing_key_says_where_it_was_looked_for() {
        let read = Sample::json(r#"{"a":1}"#).read(&rules(&["path:cart", "json:/cartId + form:x"]));
        assert_eq!(
            read.unwrap_err().to_string(),
            "no order key was found; looked at path:cart, json:/cartId + form:x"
        );
        assert!(matches!(Sample::form("id=").read(&rules(&["form:id"])), Err(Unread::NoKey { .. })));
    }

    #[test]
    fn a_mismatch_of_type_and_body_is_never_a_missing_key() {
        let order = &["json:/order_id"];
        let body = r#"{"order_id":7}"#;
        for sample in [
            Sample::form(body),
            Sample::post("text/plain", body),
            Sample::post("application/json; charset=utf-16", body),
            Sample::json("order_id=7"),
            Sample::json(body).header("content-type", "text/plain"),
            Sample::json(body).header("content-encoding", "br"),
        ] {
            assert!(
                matches!(sample.read(&rules(order)), Err(Unread::Unreadable { .. })),
                "{:?}",
                sample.headers
            );
        }
        assert!(matches!(Sample::json("").read(&rules(order)), Err(Unread::NoKey { .. })));
    }

    #[test]
    fn a_doubled_key_is_unreadable_and_its_value_is_not_told() {
        let read = Sample::json(r#"{"id":"secretA","\u0069d":"secretB"}"#).read(&rules(&["json:/id"]));
        let what = read.unwrap_err().to_string();
        assert!(what.contains("json:/id") && !what.contains("secret"), "{what}");
    }

    #[test]
    fn a_key_is_at_most_1024_bytes() {
        let read =
            |length: usize| Sample::form(format!("id={}", "x".repeat(length))).read(&rules(&["form:id"]));
        assert!(read(KEY_BYTES_MAX).is_ok());
        assert!(matches!(read(KEY_BYTES_MAX + 1), Err(Unread::Unreadable { .. })));
    }

    #[test]
    fn two_copies_of_a_checkout_are_one_request() {
        let first = fingerprint(&checkout("t_5f"), &woo());
        let mut copy = checkout("t_5f").query("t=5");
        copy.body = "total=42&nonce=ff&payment_method=cod&billing_city=Paris".into();
        let copy = copy.header("cookie", "sbjs_session=2").header("user-agent", "x");
        assert_eq!(first, fingerprint(&copy, &woo()));
    }

    #[test]
    fn whatever_makes_it_another_request_changes_the_fingerprint() {
        let first = fingerprint(&checkout("t_5f"), &woo());
        let mut others = vec![
            checkout("t_60"),
            checkout("t_5f").host("other.example"),
            checkout("t_5f").query("pay=1"),
            checkout("t_5f").header("authorization", "Bearer x"),
            Sample::form(CHECKOUT).header(
                "cookie",
                "wp_woocommerce_session_0a=t_5f%7C1893456000%7C18%7C0d; woocommerce_cart_hash=aa",
            ),
        ];
        let changed = |change: fn(&mut Sample)| {
            let mut sample = checkout("t_5f");
            change(&mut sample);
            sample
        };
        others.push(changed(|sample| sample.method = http::Method::PUT));
        others.push(changed(|sample| sample.path = "/pay".into()));
        others.push(changed(|sample| sample.body = CHECKOUT.replace("42", "43").into()));
        for other in &others {
            assert_ne!(first, fingerprint(other, &woo()), "{:?}", other.headers);
        }
        assert_ne!(first, fingerprint(&checkout("t_5f"), &Rules { route: "other".into(), ..woo() }));
    }

    #[test]
    fn without_its_identity_a_request_shares_with_nobody_and_keeps_its_lane() {
        let declared =
            Rules { identity: identity(&["cookie:session"]), scope: Scope::Order, ..rules(&["form:id"]) };
        let anonymous = Sample::form("id=7").read(&declared).unwrap();
        assert_eq!(anonymous.identity, IdentityRead::Absent);
        assert_eq!((anonymous.fingerprint, anonymous.scope, anonymous.lanes.len()), (None, None, 1));
        let known = Sample::form("id=7").header("cookie", "session=a").read(&declared).unwrap();
        assert_eq!(known.identity, IdentityRead::Present);
        assert!(known.fingerprint.is_some() && known.scope.is_some());
        assert_eq!(known.lanes, anonymous.lanes);
    }

    #[test]
    fn serial_shares_nothing() {
        let serial = Rules { sharing: Sharing::Nothing, scope: Scope::Order, ..rules(&["form:id"]) };
        let read = Sample::form("id=7").read(&serial).unwrap();
        assert_eq!((read.fingerprint, read.scope, read.body), (None, None, None));
    }

    #[test]
    fn an_event_id_takes_the_place_of_the_body_and_is_scoped_by_identity() {
        let refuse = Rules {
            event: all(&["header:idempotency-key"]),
            identity: identity(&["header:authorization"]),
            ..rules(&["json:/id"])
        };
        let sample = |body: &'static str, who: &str| {
            Sample::json(body).header("idempotency-key", "\"k1\"").header("authorization", who)
        };
        let (first, changed) = (r#"{"id":7,"amount":1}"#, r#"{"id":7,"amount":2}"#);
        let one = sample(first, "a").read(&refuse).unwrap();
        let two = sample(changed, "a").read(&refuse).unwrap();
        assert!(one.by_event);
        assert_eq!(one.fingerprint, two.fingerprint);
        assert!(one.body.is_some() && one.body != two.body);
        assert_ne!(one.fingerprint, sample(first, "b").read(&refuse).unwrap().fingerprint);

        let lead = Rules { on_mismatch: OnMismatch::Lead, ..refuse };
        let one = sample(first, "a").read(&lead).unwrap();
        assert_eq!(one.body, None);
        assert_ne!(one.fingerprint, sample(changed, "a").read(&lead).unwrap().fingerprint);
    }

    #[test]
    fn a_bad_event_or_identity_is_unreadable() {
        let event = Rules { event: all(&["header:idempotency-key"]), ..rules(&["form:id"]) };
        let twice = Sample::form("id=7").header("idempotency-key", "a").header("idempotency-key", "b");
        assert!(matches!(twice.read(&event), Err(Unread::Unreadable { .. })));
        let who = Rules { identity: identity(&["cookie:s"]), ..rules(&["form:id"]) };
        let twice = Sample::form("id=7").header("cookie", "s=1; s=2");
        assert!(matches!(twice.read(&who), Err(Unread::Unreadable { .. })));
    }

    #[test]
    fn an_order_scope_is_the_same_for_other_bodies_of_one_order_and_identity() {
        let wide = Rules { scope: Scope::Order, identity: identity(&["cookie:s"]), ..rules(&["json:/id"]) };
        let read =
            |body: &'static str, who: &str| Sample::json(body).header("cookie", who).read(&wide).unwrap();
        let first = read(r#"{"id":7,"token":"a"}"#, "s=1");
        let second = read(r#"{"id":"7","token":"b"}"#, "s=1");
        assert_eq!(first.scope, second.scope);
        assert_ne!(first.fingerprint, second.fingerprint);
        assert_ne!(first.scope, read(r#"{"id":7,"token":"a"}"#, "s=2").scope);
        assert_ne!(first.scope, read(r#"{"id":8,"token":"a"}"#, "s=1").scope);
        assert_eq!(Sample::json(r#"{"id":7}"#).read(&rules(&["json:/id"])).unwrap().scope, None);
    }

    #[test]
    fn an_identity_key_is_the_same_on_every_route_of_an_upstream() {
        let sources = [Source::parse("cookie:wp_woocommerce_session_*").unwrap()];
        let key = |upstream: &str, sample: &Sample| {
            identity_key(upstream, &sources, &secret(), &sample.view(), &Content::Empty)
        };
        let first = key("shop", &checkout("t_5f"));
        assert!(first.is_some());
        assert_eq!(first, key("shop", &checkout("t_5f").query("add-to-cart=1").host("x")));
        assert_ne!(first, key("other", &checkout("t_5f")));
        assert_ne!(first, key("shop", &checkout("t_60")));
        assert_eq!(key("shop", &Sample::form("")), None);
        let doubled = "wp_woocommerce_session_a=1; wp_woocommerce_session_a=2";
        assert_eq!(key("shop", &Sample::form("").header("cookie", doubled)), None);
    }

    /// Frozen: replicas of two versions share one store. A change here needs a new `fingerprint::FORMAT`.
    #[test]
    fn golden_vectors_do_not_change() {
        let everything = Rules { scope: Scope::Order, event: all(&["header:x-event"]), ..woo() };
        let form = checkout("t_5f")
            .query("wc-ajax=checkout&t=1")
            .header("x-event", "evt_1")
            .read(&everything)
            .unwrap();
        let json =
            Sample::json(r#"{"id":7,"items":[{"price":"4.20","n":1e0},null,true],"é":"\ud83d\ude00"}"#);
        let json = json.read(&rules(&["json:/id"])).unwrap();
        let multipart = "--B\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n7\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--B--\r\n";
        let multipart =
            Sample::post("multipart/form-data; boundary=B", multipart).read(&rules(&["form:id"])).unwrap();
        let raw = Sample::post("text/plain", "hello").query("id=7").read(&rules(&["query:id"])).unwrap();
        let found = [
            ("lane", hex(form.lanes.first().copied())),
            ("fingerprint", hex(form.fingerprint)),
            ("scope", hex(form.scope)),
            ("body", hex(form.body)),
            ("json", hex(json.fingerprint)),
            ("multipart", hex(multipart.fingerprint)),
            ("raw", hex(raw.fingerprint)),
        ];
        let golden = [
            "lane 1d27fef4327b25eefe476f7ccf90c2e895cf6136b7a8f1aec0794eb6eb0a8990",
            "fingerprint a896f4e123e2b42c49ea6d23d5d957e8cb88079db2f5248ec17adcc668abab5f",
            "scope 9fbb9e9752964ffbd44dc9e1945d562544c09bf339744d5989b04bf1c6638b2b",
            "body 9815f4673c8f3ead056296014bd0015c18404019efd53aba3a55bd57ed2efb99",
            "json 41bac70305a25aeafb9a5e560edae770c720c32b1c16de69889040f2c731394b",
            "multipart cc80ce8d4cc11f893825f890789855e9d8ab6b70f06d38e0544f44fdbd14a7a3",
            "raw a41ab3c476839b8e668e33ab4169630567cf3208c2771a1dce95b487548ee704",
        ];
        assert_eq!(found.map(|(name, hex)| format!("{name} {hex}")), golden);
    }
}
