//! What a request is about, and which request it is: sources of values, canonical bodies, the fingerprint.
//!
//! Everything here is pure: no I/O, no clock, no globals. What a shop would read differently from us is refused or
//! hashed as raw bytes, never guessed at.

use http::{HeaderMap, Method};
use smallvec::SmallVec;

use crate::store::Key;

pub mod body;
pub mod canonical;
pub mod explain;
pub mod fingerprint;
pub mod graphql;
mod ignore;
pub mod json;
pub mod lookup;
pub mod multipart;
pub mod named;
pub mod query;
mod reading;
#[cfg(test)]
mod sample;
mod shown;
pub mod source;
mod step;
pub mod verify;
pub mod xml;

pub use self::{
    body::Content,
    canonical::Ignore,
    explain::{Explanation, explain},
    fingerprint::Secret,
    lookup::Lookup,
    reading::{identity_key, read},
    source::{AllOf, Source},
};

/// How many order keys one request may have: it holds the lanes of all of them.
pub const LANES_MAX: usize = 64;

/// The longest order key or event id, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// A request as the guard reads it. The bytes that go to the shop are not touched by any of this.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub method: &'a Method,
    /// The authority the client named, lower-case, without a port.
    pub host: &'a str,
    /// The normalised path: percent-decoded once, dot segments and doubled slashes resolved, `;parameters` and a
    /// trailing slash set aside. See `route::path`.
    pub path: &'a str,
    /// The query as it came, without `?`; empty where there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// What the path template captured, by name.
    pub params: &'a [(String, String)],
}

/// What a guard reads from a request, as `config` made it.
#[derive(Clone, Debug)]
pub struct Rules {
    pub route: String,
    pub upstream: String,
    /// Where the order key stands; the first that is found wins.
    pub order: Vec<AllOf>,
    /// Where the sender's id of one event stands; the first that is found wins.
    pub event: Vec<AllOf>,
    pub identity: Identity,
    pub ignore: Vec<Ignore>,
    pub sharing: Sharing,
    pub scope: Scope,
    pub on_mismatch: OnMismatch,
    /// `log.order = "hash"`: the order is never shown in the clear.
    pub order_hash: bool,
}

/// Whose request it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// `identity = "none"`: nobody is told apart.
    None,
    /// All sources that are present count; at least one must be.
    AllPresent(Vec<Source>),
}

/// What equal requests share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Only the lane (mode `serial`).
    Nothing,
    /// Equal requests share an answer.
    Same,
}

/// What a done record answers (`replay_scope`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Request,
    Order,
}

/// What an event id that comes again with another body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    Refuse,
    /// A request of its own.
    Lead,
}

/// What was read from one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Every order the request is about: sorted, without repetitions, at least one, at most [`LANES_MAX`].
    pub lanes: SmallVec<[Key; 1]>,
    /// The order for the log: safe to print, at most 128 characters, secrets and card numbers hashed.
    pub order: String,
    /// `None` where nothing may be shared: mode `serial`, or an identity that is declared but absent.
    pub fingerprint: Option<Key>,
    /// With [`Scope::Order`]: the same for all requests of one route, host, order and identity.
    pub scope: Option<Key>,
    /// With an event id and [`OnMismatch::Refuse`]: the digest of the canonical body, which then is not part of the
    /// fingerprint.
    pub body: Option<Key>,
    pub identity: IdentityRead,
    /// Whether an event id took the place of the body.
    pub by_event: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityRead {
    Undeclared,
    Present,
    /// Declared, but this request has none: it shares with nobody.
    Absent,
}

/// Why a request has no reading. The sentences are safe to show to a client: they hold no values.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unread {
    #[error("no order key was found; looked at {looked}")]
    NoKey { looked: String },
    #[error("{what}")]
    Unreadable { what: String },
}
