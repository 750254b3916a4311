//! A short hash for the tables that are about claims.
//!
//! What is looked up there are keyed digests, which nobody outside can choose, and fences, which we count ourselves.
//! So a hash that withstands chosen keys would be paid for in vain, ten times per claim. It must not be used for
//! anything that came from a client as it is.

use std::hash::{BuildHasherDefault, Hasher};

pub type Short = BuildHasherDefault<ShortHasher>;

#[derive(Clone, Copy, Default)]
pub struct ShortHasher(u64);

/// 2^64 divided by the golden ratio: spreads neighbouring numbers over all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for ShortHasher {
    fn finish(&self) -> u64 {
        // The map takes its bucket from the low bits and its tag from the high ones; a product is weak in the low.
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut whole = [0; 8];
            whole.copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(whole));
        }
        for byte in words.remainder() {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(SPREAD);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word.unsigned_abs() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher};

    use super::*;
    use crate::store::{Fence, Key, machine::cells::Place};

    #[test]
    fn neighbours_and_kinds_fall_apart() {
        let short = Short::default();
        let fences: HashSet<u64> = (0..4096).map(|number| short.hash_one(Fence(number)) % 4096).collect();
        assert!(fences.len() > 2400, "{} of 4096 buckets", fences.len());
        let key = Key([7; 32]);
        let kinds = [Place::Fingerprint(key), Place::Scope(key), Place::Lane(key)];
        let kinds: HashSet<u64> = kinds.iter().map(|place| short.hash_one(place)).collect();
        assert_eq!(kinds.len(), 3);
    }
}
