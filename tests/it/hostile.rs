//! Bytes that were made to break a gateway, over real sockets, against the whole gateway.
//!
//! Each test starts a gateway with a recording shop behind it ([`shop`]) that reads as strictly as RFC 9112 asks
//! ([`strict`]): a smuggled request would stand there as one more request, or as bytes that are none. Every case is
//! sent whole and in pieces, says which answers it may get and what the shop must have seen, and leaves a bystander's
//! connection healthy. Nothing may panic.
//!
//! The numbers are those of the project's catalogue of adversarial cases. Where each one stands:
//!
//! * 1 to 15 in [`framing`], 16 to 29 in [`heads`], 30 in [`mutants`], 45 and 46 in [`spelling`], 47 to 53 in
//!   [`bodies`], 54 to 63 in [`keys`].
//! * 2, equal Content-Lengths: refused, the stricter of the two ways. 5, both framings: refused on unguarded routes
//!   too, so there is no "Transfer-Encoding wins" to test.
//! * 16, memory: the bounds are seen by their statuses; memory that stays flat is watched in 53, where it could grow.
//! * 24, bytes that come before the shop's 101: what is held back, and until when, is tested with the reader itself
//!   (`edge/strict/tests.rs`); here is what happens where no 101 comes. Only WebSocket is passed on at all.
//! * 30, Garden, radamsa and smuggler need their tools; the mutants here are our own, with an oracle of our own.
//! * 46, override headers are not taken out: the guard counts each method that they name, so they lead nowhere.
//! * 54, two sources that disagree: the configured order decides (promise, section 3), and only a source that stands
//!   twice is ambiguous.
//! * 59, schemes and ports: TLS is not spoken yet, and a port is no part of a host's name; a route belongs to listeners
//!   as a whole, so there is no second port to tell apart.
//! * 60, frozen vectors of the fingerprint: `request/reading.rs`. 61, configuration without an identity: in
//!   [`keys`].
//! * 63, PROXY protocol: not spoken yet, so that its preface is no request. Client certificates (58) likewise.

mod bodies;
mod client;
mod framing;
mod heads;
mod keys;
mod mutants;
mod shop;
mod spelling;
mod stage;
mod strict;
