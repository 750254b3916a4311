//! Bytes that were made to break a gateway, over real sockets, against the whole gateway.

mod client;
mod framing;
mod heads;
mod shop;
mod stage;
mod strict;
