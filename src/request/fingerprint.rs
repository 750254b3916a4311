//! Keyed digests: which lane, which request, which identity.
//!
//! BLAKE3 in keyed mode: the key is a secret of the installation, so what a store holds cannot be guessed back to a
//! person, and nobody outside can make two requests collide. Every part carries its length; nothing is ever
//! concatenated bare. The layout is frozen by golden vectors: a change of it is a change of [`FORMAT`].

use std::fmt;

use crate::store::Key;

/// The version of the layout of everything that is digested here.
pub const FORMAT: u8 = 1;

/// The secret of an installation: the same on all replicas that share a store.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// A keyed digest in the making. What it is of is gathered and hashed in one piece, which is several times cheaper
/// than hashing it part by part; only what is long is hashed as it comes.
pub(super) struct Digest<'s> {
    secret: &'s Secret,
    gathered: Vec<u8>,
    /// Of all that does not stand in `gathered` any more.
    long: Option<Box<blake3::Hasher>>,
}

/// How much is gathered before it is hashed.
const GATHER_BYTES: usize = 64 * 1024;

impl Secret {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh one, for an installation that was not given any.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// A secret of any length, as operators write them; it is stretched to 32 bytes, not strengthened.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Self {
        Self(blake3::derive_key("oncegate 2026-11 fingerprint secret", text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'s> Digest<'s> {
    /// `label` keeps digests of different purposes apart.
    pub(super) fn new(secret: &'s Secret, label: &str) -> Self {
        Self::with_room(secret, label, 0)
    }

    /// The same, with room for a body of about so many bytes.
    pub(super) fn with_room(secret: &'s Secret, label: &str, body_bytes: usize) -> Self {
        let room = 256 + body_bytes.min(GATHER_BYTES);
        let mut digest = Self { secret, gathered: Vec::with_capacity(room), long: None };
        digest.tag(FORMAT);
        digest.part(label.as_bytes());
        digest
    }

    #[inline]
    pub(super) fn tag(&mut self, tag: u8) {
        self.gathered.push(tag);
    }

    /// Bytes behind their length.
    #[inline]
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        if self.gathered.len() + bytes.len() <= GATHER_BYTES {
            self.gathered.extend_from_slice(bytes);
        } else {
            self.hash_long(bytes);
        }
    }

    #[inline]
    pub(super) fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.tag(tag);
        self.part(bytes);
    }

    pub(super) fn option(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.tag(b'-'),
            Some(bytes) => self.tagged(b'+', bytes),
        }
    }

    /// How many of something follow.
    #[inline]
    pub(super) fn length(&mut self, length: usize) {
        let mut rest = length;
        while rest >= 0x80 {
            self.tag((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.tag(rest as u8);
    }

    #[cold]
    fn hash_long(&mut self, bytes: &[u8]) {
        let hasher = self.long.get_or_insert_with(|| Box::new(blake3::Hasher::new_keyed(&self.secret.0)));
        hasher.update(&self.gathered);
        hasher.update(bytes);
        self.gathered.clear();
    }

    pub(super) fn finish(self) -> Key {
        let hash = match self.long {
            None => blake3::keyed_hash(&self.secret.0, &self.gathered),
            Some(mut hasher) => hasher.update(&self.gathered).finalize(),
        };
        Key(*hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(parts: &[Vec<u8>]) -> Key {
        let secret = Secret::new([7; 32]);
        let mut digest = Digest::new(&secret, "test");
        for part in parts {
            digest.part(part);
        }
        digest.finish()
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret(…)");
    }

    #[test]
    fn gathering_does_not_change_what_is_hashed() {
        let long =
            vec![vec![1; 3], vec![2; GATHER_BYTES - 1], vec![3; GATHER_BYTES + 1], vec![4; 300], vec![]];
        let mut plain = vec![FORMAT, 4];
        plain.extend_from_slice(b"test");
        for part in &long {
            let mut length = part.len();
            while length >= 128 {
                plain.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            plain.push(u8::try_from(length).unwrap());
            plain.extend_from_slice(part);
        }
        assert_eq!(digest(&long).0, *blake3::keyed_hash(&[7; 32], &plain).as_bytes());
    }

    #[test]
    fn labels_and_secrets_keep_digests_apart() {
        let one = |secret, label| Digest::new(&Secret::new(secret), label).finish();
        assert_ne!(one([1; 32], "lane"), one([2; 32], "lane"));
        assert_ne!(one([1; 32], "lane"), one([1; 32], "scope"));
    }

    proptest! {
        #[test]
        fn parts_never_run_into_each_other(
            one in proptest::collection::vec(proptest::collection::vec(0..3_u8, 0..4), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(0..3_u8, 0..4), 0..4),
        ) {
            prop_assert_eq!(one == other, digest(&one) == digest(&other));
        }
    }
}
