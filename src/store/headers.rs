//! The header lines of a kept answer: names and values one behind the other, in one piece of memory.
//!
//! A store holds a hundred thousand of these and looks into few of them. A map of them takes a hundred bytes a line and
//! a piece of memory each for its lines and its index; this takes six bytes a line, and the body may stand behind the
//! lines in the same piece. Nothing here judges a line.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// What stands before a line: the length of its name in two bytes and of its value in four.
const LENGTHS_BYTES: usize = 6;

/// Header lines in their order, those of equal name apart.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Bytes);

impl Headers {
    /// Copies lines, and a body behind them.
    #[must_use]
    pub fn with_body(lines: &[(&HeaderName, &HeaderValue)], body: &[u8]) -> (Self, Bytes) {
        let length = |(name, value): &(&HeaderName, &HeaderValue)| {
            LENGTHS_BYTES + name.as_str().len() + value.as_bytes().len()
        };
        let head: usize = lines.iter().map(length).sum();
        let mut block = Vec::with_capacity(head + body.len());
        for (name, value) in lines {
            // The http crate allows names of 64 KiB, and what came over a connection was bounded far lower.
            let lengths = (u16::try_from(name.as_str().len()), u32::try_from(value.as_bytes().len()));
            let (Ok(name_bytes), Ok(value_bytes)) = lengths else { continue };
            block.extend_from_slice(&name_bytes.to_le_bytes());
            block.extend_from_slice(&value_bytes.to_le_bytes());
            block.extend_from_slice(name.as_str().as_bytes());
            block.extend_from_slice(value.as_bytes());
        }
        let head = block.len();
        block.extend_from_slice(body);
        let mut lines = Bytes::from(block);
        let body = lines.split_off(head);
        (Self(lines), body)
    }

    /// Names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name_bytes, lines) = rest.split_first_chunk()?;
            let (value_bytes, lines) = lines.split_first_chunk()?;
            let (name, lines) = lines.split_at_checked(usize::from(u16::from_le_bytes(*name_bytes)))?;
            let value_bytes = usize::try_from(u32::from_le_bytes(*value_bytes)).ok()?;
            let (value, lines) = lines.split_at_checked(value_bytes)?;
            rest = lines;
            Some((name, value))
        })
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much memory the lines take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The first value of a name, which is in small letters.
    #[must_use]
    pub fn get(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        let (_, value) = self.iter().find(|(found, _)| *found == name.as_ref().as_bytes())?;
        HeaderValue::from_bytes(value).ok()
    }

    /// The first line of a name and nothing else, in memory of its own.
    #[must_use]
    pub fn only(&self, name: &HeaderName) -> Self {
        match self.get(name) {
            None => Self::default(),
            Some(value) => Self::with_body(&[(name, &value)], &[]).0,
        }
    }

    /// All lines as a map. Values share this memory.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.len());
        for (name, value) in self.iter() {
            let value = HeaderValue::from_maybe_shared(self.0.slice_ref(value));
            // What stands here was a name and a value once.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                // A map has room for as many lines as came out of one.
                let _ = map.try_append(name, value);
            }
        }
        map
    }
}

impl From<&HeaderMap> for Headers {
    fn from(map: &HeaderMap) -> Self {
        Self::with_body(&SmallVec::<[_; 16]>::from_iter(map), &[]).0
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        Self::from(&map)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_and_body_come_back_as_they_were(
            lines in prop::collection::vec(("[a-z-]{1,12}", prop::collection::vec(0x80_u8.., 0..40)), 0..8),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in lines {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("letters");
                map.append(name, HeaderValue::from_bytes(&value).expect("bytes of a value"));
            }
            let (headers, kept) = Headers::with_body(&map.iter().collect::<Vec<_>>(), &body);
            prop_assert_eq!((headers.len(), headers.to_map()), (map.len(), map));
            prop_assert_eq!(kept, body);
        }
    }

    #[test]
    fn one_line_is_taken_out_without_what_stood_beside_it() {
        let mut map = HeaderMap::new();
        map.append(SET_COOKIE, HeaderValue::from_static("a=1"));
        map.append(LOCATION, HeaderValue::from_static("/done"));
        let (headers, _) = Headers::with_body(&map.iter().collect::<Vec<_>>(), &[b'x'; 1000]);
        let location = headers.only(&LOCATION);
        assert_eq!((location.len(), location.get(&LOCATION)), (1, Some(HeaderValue::from_static("/done"))));
        assert!(headers.only(&CONTENT_TYPE).is_empty());
    }
}
