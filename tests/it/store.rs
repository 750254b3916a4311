//! The stores behind the seam: what all of them promise, and what each of them promises besides.

mod conformance;
mod file;
mod memory;
mod redis;
