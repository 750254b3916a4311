//! Whether a request really comes from the sender that it claims to come from: signatures of payment providers.
//!
//! It is asked before anything is claimed, so that a forged callback holds no lane. Signatures are checked over the
//! bytes as they came and compared in constant time; a secret is never shown, not even by `Debug`. Time is an argument.
//!
//! It never replaces the shop's own check: what is signed differs from provider to provider, and is said at each.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::HeaderMap;

use super::{View, body, query};
use mac::{Algorithm, Key};

mod adyen;
mod mac;
mod text;

/// Signatures in one header that are tried, and pairs in one form field. A provider sends one, or two while its
/// secret changes.
const SIGNATURES_MAX: usize = 16;

/// Whose way of signing it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    Stripe,
    /// Webhooks.
    Shopify,
    /// What a storefront's visitors send through Shopify.
    ShopifyAppProxy,
    Adyen,
    Razorpay,
    Square,
    CheckoutCom,
    AuthorizeNet,
    Braintree,
}

impl Scheme {
    /// All of them, with the names that they have in a configuration.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("stripe", Self::Stripe),
        ("shopify", Self::Shopify),
        ("shopify-app-proxy", Self::ShopifyAppProxy),
        ("adyen", Self::Adyen),
        ("razorpay", Self::Razorpay),
        ("square", Self::Square),
        ("checkout-com", Self::CheckoutCom),
        ("authorize-net", Self::AuthorizeNet),
        ("braintree", Self::Braintree),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }

    /// Whether what is signed has a time in it.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        matches!(self, Self::Stripe | Self::ShopifyAppProxy)
    }

    /// How far that time may be from ours, as the provider documents it. Shopify documents nothing for its proxy.
    #[must_use]
    pub const fn tolerance(self) -> Option<Duration> {
        match self {
            Self::Stripe => Some(Duration::from_secs(300)),
            Self::Shopify
            | Self::ShopifyAppProxy
            | Self::Adyen
            | Self::Razorpay
            | Self::Square
            | Self::CheckoutCom
            | Self::AuthorizeNet
            | Self::Braintree => None,
        }
    }

    /// Whether the address that the sender was given is part of what it signs.
    #[must_use]
    pub const fn signs_url(self) -> bool {
        matches!(self, Self::Square)
    }
}

/// What becomes of a request whose signature is not good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBadSignature {
    /// It goes to the shop as if there were no guard: it holds no lane, gets nobody's answer and leaves none.
    Pass,
    Refuse,
}

/// Why a secret cannot be one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretProblem {
    #[error("it is empty")]
    Empty,
    #[error("it is not hexadecimal, as this provider's secrets are")]
    NotHex,
}

/// How the requests of a route are verified.
#[derive(Clone)]
pub struct Verify {
    pub scheme: Scheme,
    pub on_bad_signature: OnBadSignature,
    /// `None`: the time is not looked at.
    pub tolerance: Option<Duration>,
    /// The address that the sender was given, where it signs that too.
    pub url: String,
    /// Any of them is good, so that one can take the place of another.
    pub secrets: Vec<SigningSecret>,
}

impl Verify {
    #[must_use]
    pub fn new(scheme: Scheme, secrets: Vec<SigningSecret>) -> Self {
        let (on_bad_signature, tolerance) = (OnBadSignature::Pass, scheme.tolerance());
        Self { scheme, on_bad_signature, tolerance, url: String::new(), secrets }
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// One secret, as keys: a provider may be vague about how its text becomes bytes.
#[derive(Clone)]
pub struct SigningSecret(Vec<Key>);

impl SigningSecret {
    /// The secret as the provider shows it.
    ///
    /// # Errors
    /// Where it cannot be one: anybody could sign with an empty one.
    pub fn new(scheme: Scheme, text: &str) -> Result<Self, SecretProblem> {
        if text.is_empty() {
            return Err(SecretProblem::Empty);
        }
        let of = |bytes: &[u8], algorithm| Key::new(algorithm, bytes);
        let plain = |algorithm| of(text.as_bytes(), algorithm);
        let unhexed = || text::hex(text.as_bytes()).ok_or(SecretProblem::NotHex);
        Ok(Self(match scheme {
            Scheme::Stripe
            | Scheme::Shopify
            | Scheme::ShopifyAppProxy
            | Scheme::Razorpay
            | Scheme::Square
            | Scheme::CheckoutCom => vec![plain(Algorithm::Sha256)],
            Scheme::Adyen => vec![of(&unhexed()?, Algorithm::Sha256)],
            // Its pages say that the key is to be made binary, and its customers that its webhooks are signed with
            // the text. Whoever knows the one knows the other.
            Scheme::AuthorizeNet => {
                let mut keys = vec![plain(Algorithm::Sha512)];
                keys.extend(unhexed().ok().map(|bytes| of(&bytes, Algorithm::Sha512)));
                keys
            }
            Scheme::Braintree => vec![of(&mac::sha1(text.as_bytes()), Algorithm::Sha1)],
        }))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// A request that its sender signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// When, in seconds since 1970, where that is signed too.
    pub at: Option<u64>,
}

/// Why a signature is not good. The sentences hold no values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSignature {
    #[error("it bears no signature")]
    Missing,
    /// There is one, or what it is about, and it cannot be read in one way only.
    #[error("its signature, or what it signs, cannot be read in one way only")]
    Unreadable,
    #[error("its signature was made with another secret, or for something else")]
    Mismatch,
    /// Too old, or from the future.
    #[error("its signature is good, and its time is too far from now")]
    Stale,
}

/// What a signature is looked for in.
struct Signed<'a> {
    headers: &'a HeaderMap,
    query: &'a [u8],
    body: &'a Bytes,
    decoded_max: usize,
}

impl Verify {
    /// Checks a whole request. Without `now` the time that was signed is only told: nobody knows when a request that
    /// lies in a file arrived.
    ///
    /// # Errors
    /// Where it is not known that the sender is who it claims to be.
    pub fn check(
        &self,
        view: &View<'_>,
        body: &Bytes,
        decoded_max: usize,
        now: Option<SystemTime>,
    ) -> Result<Verified, BadSignature> {
        let signed = Signed { headers: view.headers, query: view.query.as_bytes(), body, decoded_max };
        let verified = match self.scheme {
            Scheme::Stripe => self.stripe(&signed),
            Scheme::Shopify => {
                let name = match signed.headers.contains_key("x-shopify-hmac-sha256") {
                    true => "x-shopify-hmac-sha256",
                    // Under this name for what Shopify calls events.
                    false => "shopify-hmac-sha256",
                };
                self.over_body(signed.header(name)?, text::base64, &signed)
            }
            Scheme::ShopifyAppProxy => self.app_proxy(&signed),
            Scheme::Adyen => adyen::check(self, &signed),
            Scheme::Razorpay => self.over_body(signed.header("x-razorpay-signature")?, text::hex, &signed),
            Scheme::Square => self.square(&signed),
            Scheme::CheckoutCom => self.over_body(signed.header("cko-signature")?, text::hex, &signed),
            Scheme::AuthorizeNet => {
                let signature = signed.header("x-anet-signature")?;
                let (name, digits) = signature.split_at_checked(7).ok_or(BadSignature::Unreadable)?;
                if !name.eq_ignore_ascii_case(b"sha512=") {
                    return Err(BadSignature::Unreadable);
                }
                self.over_body(digits, text::hex, &signed)
            }
            Scheme::Braintree => self.braintree(&signed),
        }?;
        self.in_time(verified, now)
    }

    fn in_time(&self, verified: Verified, now: Option<SystemTime>) -> Result<Verified, BadSignature> {
        let (Some(tolerance), Some(now), Some(at)) = (self.tolerance, now, verified.at) else {
            return Ok(verified);
        };
        // On both sides: a clock that is wrong is to be noticed, and the shop's own check may be as strict.
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if now.abs_diff(at) > tolerance.as_secs() { Err(BadSignature::Stale) } else { Ok(verified) }
    }

    /// Whether one of the secrets signed these parts, one after the other, with one of these signatures.
    fn is_signed(&self, parts: &[&[u8]], signatures: &[Vec<u8>]) -> Result<(), BadSignature> {
        let keys = self.secrets.iter().flat_map(|secret| &secret.0);
        // Every secret is tried, so that the time taken does not tell which one it was.
        let good = keys.fold(false, |good, key| key.signed(parts, signatures) | good);
        if good { Ok(()) } else { Err(BadSignature::Mismatch) }
    }

    fn over_body(
        &self,
        signature: &[u8],
        decode: impl Fn(&[u8]) -> Option<Vec<u8>>,
        signed: &Signed<'_>,
    ) -> Result<Verified, BadSignature> {
        let signature = decode(signature).ok_or(BadSignature::Unreadable)?;
        self.is_signed(&[signed.body], &[signature])?;
        Ok(Verified { at: None })
    }

    /// `Stripe-Signature: t=SECONDS,v1=HEX,…`: over the time as it is written, a full stop, and the body.
    fn stripe(&self, signed: &Signed<'_>) -> Result<Verified, BadSignature> {
        let header = signed.header("stripe-signature")?;
        let (mut at, mut signatures) = (None, Vec::new());
        for piece in header.split(|&byte| byte == b',') {
            let piece = piece.trim_ascii();
            let Some((name, value)) = memchr::memchr(b'=', piece).map(|at| (&piece[..at], &piece[at + 1..]))
            else {
                return Err(BadSignature::Unreadable);
            };
            match name {
                b"t" if at.is_some() => return Err(BadSignature::Unreadable),
                b"t" => at = Some((value, text::number(value).ok_or(BadSignature::Unreadable)?)),
                b"v1" if signatures.len() < SIGNATURES_MAX => signatures.extend(text::hex(value)),
                // `v0` signs what test mode sends with no secret worth the name.
                _ => {}
            }
        }
        let (written, at) = at.ok_or(BadSignature::Unreadable)?;
        self.is_signed(&[written, b".", signed.body], &signatures)?;
        Ok(Verified { at: Some(at) })
    }

    /// The address first, then the body: the same body for another address of the same shop is another signature.
    fn square(&self, signed: &Signed<'_>) -> Result<Verified, BadSignature> {
        let signature = text::base64(signed.header("x-square-hmacsha256-signature")?);
        let signature = signature.ok_or(BadSignature::Unreadable)?;
        self.is_signed(&[self.url.as_bytes(), signed.body], &[signature])?;
        Ok(Verified { at: None })
    }

    /// `signature` in the query, over all other parameters: decoded, each `name=value`, several values of one name
    /// joined by commas, sorted, and put together without anything in between. The body is not signed.
    fn app_proxy(&self, signed: &Signed<'_>) -> Result<Verified, BadSignature> {
        if query::is_overlong(signed.query) {
            return Err(BadSignature::Unreadable);
        }
        let mut parameters: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let (mut signature, mut at) = (None, None);
        for (name, value) in query::pairs(signed.query) {
            if *name == *b"signature" {
                if signature.replace(text::hex(&value).ok_or(BadSignature::Unreadable)?).is_some() {
                    return Err(BadSignature::Unreadable);
                }
                continue;
            }
            if *name == *b"timestamp"
                && at.replace(text::number(&value).ok_or(BadSignature::Unreadable)?).is_some()
            {
                return Err(BadSignature::Unreadable);
            }
            match parameters.entry(name.into_owned()) {
                Entry::Occupied(mut values) => {
                    values.get_mut().push(b',');
                    values.get_mut().extend_from_slice(&value);
                }
                Entry::Vacant(place) => {
                    place.insert(value.into_owned());
                }
            }
        }
        let signature = signature.ok_or(BadSignature::Missing)?;
        let mut lines: Vec<Vec<u8>> =
            parameters.into_iter().map(|(name, value)| [&*name, b"=", &*value].concat()).collect();
        lines.sort_unstable();
        self.is_signed(&[&lines.concat()], &[signature])?;
        Ok(Verified { at })
    }

    /// `bt_signature=PUBLIC|HEX&PUBLIC|HEX` over `bt_payload`. Which public key stands before it is not looked at:
    /// the signature itself shows whose it is.
    fn braintree(&self, signed: &Signed<'_>) -> Result<Verified, BadSignature> {
        let content = body::read(signed.headers, signed.body, signed.decoded_max);
        let body::Content::Form(form) = content else { return Err(BadSignature::Missing) };
        let field = |wanted: &[u8]| {
            let mut values = query::pairs(&form).filter(|(name, _)| query::php_name(name) == wanted);
            match (values.next(), values.next()) {
                (None, _) => Err(BadSignature::Missing),
                (Some((_, value)), None) => Ok(value.into_owned()),
                (Some(_), Some(_)) => Err(BadSignature::Unreadable),
            }
        };
        let (signature, payload) = (field(b"bt_signature")?, field(b"bt_payload")?);
        let signatures: Vec<Vec<u8>> = signature
            .split(|&byte| byte == b'&')
            .take(SIGNATURES_MAX)
            .filter_map(|pair| text::hex(&pair[memchr::memchr(b'|', pair)? + 1..]))
            .collect();
        // Its own libraries try the line end that some servers take off.
        self.is_signed(&[&payload], &signatures)
            .or_else(|_| self.is_signed(&[&payload, b"\n"], &signatures))?;
        Ok(Verified { at: None })
    }
}

impl Signed<'_> {
    /// The only line of a header.
    fn header(&self, name: &str) -> Result<&[u8], BadSignature> {
        let mut lines = self.headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Err(BadSignature::Missing),
            (Some(line), None) => Ok(line.as_bytes().trim_ascii()),
            (Some(_), Some(_)) => Err(BadSignature::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests;
