//! The vocabulary below everything: words, metrics, log, and what a proxy does to header fields.
//!
//! Nothing in here knows a route, a store or a shop, so that every other module may import it.

pub mod gather;
pub mod headers;
pub mod log;
pub mod metrics;
pub mod words;
