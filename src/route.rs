//! route (stand-in)
pub mod matcher;
