//! edge

pub mod strict;
