//! What a request is about, and which request it is: sources of values, canonical bodies, the fingerprint.
//!
//! Everything here is pure: no I/O, no clock, no globals. What a shop would read differently from us is refused or
//! hashed as raw bytes, never guessed at.

use http::{HeaderMap, Method};

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

// Stand-ins; the real ones are written in parallel.
pub mod canonical;
pub mod source;
#[allow(dead_code)]
#[derive(Clone)]
pub struct Secret([u8; 32]);
impl From<[u8; 32]> for Secret {
    fn from(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }
}
pub struct Rules {
    pub route: String,
    pub upstream: String,
    pub order: Vec<Vec<source::Source>>,
    pub event: Vec<Vec<source::Source>>,
    pub identity: Identity,
    pub ignore: Vec<canonical::Ignore>,
    pub sharing: Sharing,
    pub scope: Scope,
    pub on_mismatch: OnMismatch,
    pub order_hash: bool,
}
pub enum Identity {
    None,
    AllPresent(Vec<source::Source>),
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    Nothing,
    Same,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Request,
    Order,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnMismatch {
    Refuse,
    Lead,
}
