//! What a source of values gives: nothing, values, or a reason why it cannot be known.

use smallvec::SmallVec;

/// What stands at a place in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Absent,
    Found(SmallVec<[Value; 1]>),
    Ambiguous(String),
    Unreadable(String),
}

/// One value, as the bytes that it was sent as after decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub bytes: Vec<u8>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Other,
}
