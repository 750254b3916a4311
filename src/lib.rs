//! oncegate: a reverse proxy that makes "pay once" true.
//!
//! The map, in the order in which a request walks:
//!
//! * [`edge`]: the client's side, up to "here is a request". Strict about framing.
//! * [`gate`]: the page to read first: a whole guarded exchange on one screen.
//! * [`config`]: what was typed (`file`) and what it means (`check`). Nothing later sees raw text.
//! * [`route`]: which requests a rule is about. [`request`]: which order, and which request it is.
//! * [`claim`]: who may send, inside this process: flights and lanes.
//! * [`upstream`]: the shop's side; sends at most once.
//! * [`answer`]: what came back, what is kept, what is given.
//! * [`store`]: what all replicas agree on. The record machine is in `store/machine.rs`, beside the stores that run
//!   it, so that imports point one way only.
//! * [`ops`]: clock, metrics, log, drain: the vocabulary below everything. [`admin`] and [`cli`] stand outside.
//!
//! Invariants that everything here keeps:
//!
//! 1. A request that moves money is sent once. After its first byte has left it is never sent again by itself.
//! 2. A leader is a task of its own; a client that goes away ends nothing.
//! 3. "Error" is neither "not claimed" nor "go ahead". Unreadable is busy, never free.
//! 4. An answer goes only to the identity whose request produced it.
//! 5. Every queue, table, body and wait has a bound; a bound reached is a refusal, never a send.

pub mod admin;
pub mod answer;
pub mod claim;
pub mod cli;
pub mod config;
pub mod edge;
pub mod gate;
pub mod ops;
pub mod request;
pub mod route;
pub mod server;
pub mod store;
pub mod upstream;
