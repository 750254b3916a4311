//! Which requests a rule is about: what a path means to a shop, and the conditions of a route.
//!
//! Everything here is pure: no I/O, no clock, no globals. It never changes what goes to the shop, and where two shops
//! could read one request differently it answers for both of them.

pub mod matcher;
pub mod path;
pub mod pattern;
mod template;
