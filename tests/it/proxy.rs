//! oncegate as a reverse proxy, over real TCP and in real time: scripted shops on one side, raw clients on the other,
//! so that every byte that leaves is seen as it left.
//!
//! Nothing here is about whether an order is placed once; that has tests of its own. This is about everything that a
//! proxy must get right before that question can even be asked.

mod framing;
mod gate;
mod headers;
mod life;
mod limits;
mod orders;
mod patience;
mod program;
mod restart;
mod sending;
mod servers;
mod shop;
mod spread;
mod streaming;
mod switching;
mod wire;
