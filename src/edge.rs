//! The client's side: accepting connections, reading requests strictly, writing answers.
//!
//! Nothing here knows routes or guards; a request that was framed properly goes to [`crate::gate::exchange`].

pub mod accept;
pub mod cores;
pub mod door;
pub mod http;
pub mod http2;
mod redirect;
pub mod roster;
pub mod strict;
pub mod tls;
pub mod tunnel;
