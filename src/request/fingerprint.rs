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

/// A keyed digest in the making. Small writes are gathered: the hash is several times faster on long ones.
pub(super) struct Digest {
    hasher: blake3::Hasher,
    gathered: [u8; GATHER_BYTES],
    used: usize,
}

/// How much is gathered before it is hashed.
const GATHER_BYTES: usize = 1024;

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

impl Digest {
    /// `label` keeps digests of different purposes apart.
    pub(super) fn new(secret: &Secret, label: &str) -> Self {
        let mut digest =
            Self { hasher: blake3::Hasher::new_keyed(&secret.0), gathered: [0; GATHER_BYTES], used: 0 };
        digest.tag(FORMAT);
        digest.part(label.as_bytes());
        digest
    }

    #[inline]
    pub(super) fn tag(&mut self, tag: u8) {
        if self.used == GATHER_BYTES {
            self.flush();
        }
        self.gathered[self.used] = tag;
        self.used += 1;
    }

    /// Bytes behind their length.
    #[inline]
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        let end = self.used + bytes.len();
        if let Some(room) = self.gathered.get_mut(self.used..end) {
            room.copy_from_slice(bytes);
            self.used = end;
        } else {
            self.flush();
            self.hasher.update(bytes);
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

    fn flush(&mut self) {
        self.hasher.update(&self.gathered[..self.used]);
        self.used = 0;
    }

    pub(super) fn finish(mut self) -> Key {
        self.flush();
        Key(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(parts: &[Vec<u8>]) -> Key {
        let mut digest = Digest::new(&Secret::new([7; 32]), "test");
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
