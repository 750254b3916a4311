//! answer (stand-in)
pub mod judge;
