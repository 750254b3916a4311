//! oncegate: a reverse proxy that makes "pay once" true.
//!
//! The map, in the order in which a request walks:
//!
//! * [`edge`]: the client's side, up to "here is a request": a thread per core, and a reader that is strict about framing.
//! * [`gate`]: the file to read first: the stages of a guarded exchange, in order. Traffic without a guard and routes
//!   that are only observed have their ways beside it (`gate/pass.rs`, `gate/observe.rs`).
//! * [`route`]: which requests a rule is about. [`request`]: which order, which request, and whose.
//! * [`claim`]: who may send: flights and lanes of this process, and the task of a flight (`claim/driver.rs`), which
//!   claims in the store, has the request sent once (by `gate/lead.rs`), settles and tells everybody.
//! * [`upstream`]: the shop's side; sends at most once.
//! * [`answer`]: what came back, what is kept, what is given, and what oncegate answers itself.
//! * [`store`]: what all replicas agree on. In memory, in memory with a journal on a disk, or in a Redis that replicas
//!   share, with this replica's own memory standing by while it is away (`store/standby.rs`). The record machine is in
//!   `store/machine.rs`, beside the stores that run it, so that imports point one way only.
//!
//! Around them:
//!
//! * [`ops`]: words, metrics, log and header fields: the vocabulary below everything.
//! * [`config`]: what was typed (`file`) and what it means (`check`). Nothing later sees raw text.
//! * [`server`]: puts all of it together: start, the store's clock, drain. [`admin`]: health, metrics, and an
//!   operator's word on orders in doubt.
//! * [`cli`]: `run`, `check`, `explain`, `orders`, `demo`.
//!
//! What may import what is written down, and kept, in `tests/tidy.rs`.
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
