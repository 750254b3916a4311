//! What looking for one value can come to.
//!
//! Nothing here decides what a value is for; it only keeps "not there" apart from "there twice" and "there, but not
//! to be read safely".

use smallvec::SmallVec;

/// How many values one source may give. More is refused: each is a lane that the request would hold.
pub const VALUES_MAX: usize = 64;

/// The longest single value that is read, in bytes. An `Authorization` header with a large token fits.
pub const VALUE_BYTES_MAX: usize = 8192;

/// The longest text that a step goes into, in bytes: a form or a JSON document that stands in a value.
pub const NESTED_BYTES_MAX: usize = 256 << 10;

pub type Values = SmallVec<[Value; 1]>;

/// The answer to "what does this request say there?".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    Absent,
    /// At least one value, none of them empty.
    Found(Values),
    /// It stands there more than once, and the shop may read another one than we do. The sentence carries no value.
    Ambiguous(String),
    /// Something is there that has no safe reading. The sentence carries no value.
    Unreadable(String),
}

/// One value and what it was written as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    pub bytes: Vec<u8>,
    pub kind: Kind,
}

/// A number is kept as the text it was sent as: 23 digits do not fit into any machine number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Number,
    /// `true` or `false`.
    Other,
}

impl Lookup {
    /// One value of text; an empty one counts as absent.
    #[must_use]
    pub fn text(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Self::Absent;
        }
        Self::Found(SmallVec::from_iter([Value { bytes, kind: Kind::Text }]))
    }
}

impl Kind {
    /// The letter that keeps kinds apart in a digest.
    #[must_use]
    pub fn tag(self) -> u8 {
        match self {
            Self::Text => b's',
            Self::Number => b'n',
            Self::Other => b'b',
        }
    }
}
