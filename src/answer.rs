//! What came back, what is kept, what is given.
//!
//! Nothing here sends, waits or asks a store: it judges, trims and builds answers from what it is handed.

pub mod judge;
pub mod record;
pub mod refusal;
pub mod replay;
