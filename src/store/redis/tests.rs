//! The scripts against the pure machine: random sequences of steps on both, every reply, every nudge and every cell
//! equal after each step. The time is given, to both the same.
//!
//! What this cannot see is what Redis does between two steps: expiry, failures, other clients. That is for the
//! tests that run the store.

mod difference;
#[path = "../../../tests/it/world/redis.rs"]
#[expect(dead_code, reason = "the integration tests do more with a server than these")]
mod server;
mod steps;
