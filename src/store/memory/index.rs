//! From what a run is called to the number of its place: a hash table that holds nothing but numbers.
//!
//! It is split into shards, each of which grows by itself: everybody waits for the lock meanwhile, for a tenth of a
//! millisecond where a million runs are kept. Names are not kept here; whoever asks compares.

use hashbrown::HashTable;

use crate::store::{Fence, Key};

const SHARDS: usize = 64;

#[derive(Clone)]
pub(super) struct Index {
    shards: Vec<HashTable<Entry>>,
}

#[derive(Clone, Copy)]
struct Entry {
    digest: u32,
    place: u32,
}

/// Where to look for a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hash {
    shard: usize,
    digest: u32,
}

impl From<Fence> for Hash {
    /// Fences are counted: those that follow one another stand side by side, as what is asked for together does.
    fn from(fence: Fence) -> Self {
        const BESIDE: u64 = SHARDS as u64;
        let digest = (fence.0 / BESIDE / SHARDS as u64 * BESIDE + fence.0 % BESIDE) as u32;
        Self { shard: (fence.0 / BESIDE) as usize % SHARDS, digest }
    }
}

impl From<&Key> for Hash {
    /// A key is a keyed digest: nobody outside can choose its bytes.
    fn from(key: &Key) -> Self {
        let [first, second, third, fourth, fifth, ..] = key.0;
        Self {
            shard: usize::from(first) % SHARDS,
            digest: u32::from_le_bytes([second, third, fourth, fifth]),
        }
    }
}

/// The table takes its bucket from the low bits, and what it looks at first from the highest.
fn spread(digest: u32) -> u64 {
    u64::from(digest) | u64::from(digest).wrapping_mul(0x9e37_79b9_7f4a_7c15) & (0x7f << 57)
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: vec![HashTable::new(); SHARDS] }
    }
}

/// `is_it` compares what stands at a place with the name that is asked for.
impl Index {
    #[inline]
    pub(super) fn find(&self, hash: Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let is_it = |entry: &Entry| entry.digest == hash.digest && is_it(entry.place);
        self.shards[hash.shard].find(spread(hash.digest), is_it).map(|entry| entry.place)
    }

    /// Notes a place under a name; one that was noted before gives way.
    pub(super) fn insert(&mut self, hash: Hash, place: u32, is_it: impl Fn(u32) -> bool) {
        let is_it = |entry: &Entry| entry.digest == hash.digest && is_it(entry.place);
        let rehash = |entry: &Entry| spread(entry.digest);
        let entry = Entry { digest: hash.digest, place };
        let shard = &mut self.shards[hash.shard];
        *shard.entry(spread(hash.digest), is_it, rehash).or_insert(entry).get_mut() = entry;
    }

    pub(super) fn remove(&mut self, hash: Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let is_it = |entry: &Entry| entry.digest == hash.digest && is_it(entry.place);
        let found = self.shards[hash.shard].find_entry(spread(hash.digest), is_it).ok()?;
        Some(found.remove().0.place)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_found_where_they_were_put_and_nowhere_else() {
        let (mut index, count) = (Index::default(), 20_000_u32);
        let name = |place: u32| Fence(u64::from(place) * 3 + 1);
        for place in 0..count {
            index.insert(name(place).into(), place, |other| other == place);
        }
        assert_eq!(index.len(), count as usize);
        for place in 0..count {
            let found = |fence: Fence| index.find(fence.into(), |place| name(place) == fence);
            assert_eq!(found(name(place)), Some(place));
            assert_eq!(found(Fence(name(place).0 + 1)), None);
        }
        for place in 0..count {
            assert_eq!(index.remove(name(place).into(), |other| other == place), Some(place));
        }
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn a_name_stands_once() {
        let mut index = Index::default();
        let hash = Hash::from(&Key([7; 32]));
        index.insert(hash, 1, |_| true);
        index.insert(hash, 2, |place| place == 1);
        assert_eq!((index.len(), index.find(hash, |_| true)), (1, Some(2)));
    }

    #[test]
    fn neighbours_stand_side_by_side_and_shards_are_filled_evenly() {
        let hashes: Vec<Hash> = (0..1 << 16).map(|fence| Hash::from(Fence(fence))).collect();
        assert_eq!(
            hashes.iter().map(|hash| (hash.shard, hash.digest)).collect::<HashSet<_>>().len(),
            1 << 16
        );
        assert_eq!((hashes[1].shard, hashes[1].digest), (hashes[0].shard, hashes[0].digest + 1));
        for shard in 0..SHARDS {
            assert_eq!(hashes.iter().filter(|hash| hash.shard == shard).count(), (1 << 16) / SHARDS);
        }
    }
}
