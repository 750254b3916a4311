//! Places for things of one size, in chunks: nothing is ever copied because there are more of them.
//!
//! What was put in last lies side by side, and a place that was left is taken again first: both are what the caches of
//! a processor hold. A chunk that is empty gives its memory back. A number names a place, not what stands there: whoever
//! keeps one past the removal has to compare.

/// How many things a chunk has room for.
const CHUNK: usize = 256;

/// Behind the last free place.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
pub(super) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// The chunks that have room; what is put in next goes to the last of them.
    roomy: Vec<u32>,
    len: usize,
}

#[derive(Clone)]
struct Chunk<T> {
    slots: Vec<Slot<T>>,
    /// The place that was left last.
    free: u32,
    taken: u32,
}

#[derive(Clone)]
enum Slot<T> {
    Taken(T),
    /// With the place that was left before.
    Free(u32),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), roomy: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Puts it in; gives the number of its place. There are less than 2^32 places: memory ends long before.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        let number = match self.roomy.last() {
            Some(number) => *number,
            None => {
                let number = self.chunks.len() as u32;
                self.chunks.push(Chunk { slots: Vec::new(), free: NONE, taken: 0 });
                self.roomy.push(number);
                number
            }
        };
        self.len += 1;
        let chunk = &mut self.chunks[number as usize];
        let slot = chunk.insert(thing);
        if chunk.taken as usize == CHUNK {
            self.roomy.pop();
        }
        number * CHUNK as u32 + slot
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&T> {
        match self.chunks.get(place as usize / CHUNK)?.slots.get(place as usize % CHUNK)? {
            Slot::Taken(thing) => Some(thing),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        match self.chunks.get_mut(place as usize / CHUNK)?.slots.get_mut(place as usize % CHUNK)? {
            Slot::Taken(thing) => Some(thing),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let number = (place as usize / CHUNK) as u32;
        let chunk = self.chunks.get_mut(number as usize)?;
        let slot = chunk.slots.get_mut(place as usize % CHUNK)?;
        if let Slot::Free(_) = slot {
            return None;
        }
        let Slot::Taken(thing) = std::mem::replace(slot, Slot::Free(chunk.free)) else { return None };
        chunk.free = place % CHUNK as u32;
        chunk.taken -= 1;
        // The one that is filled next is kept, so that one thing that comes and goes does not cost a chunk each time.
        let (is_empty, next) = (chunk.taken == 0, self.roomy.last().copied());
        if chunk.taken as usize == CHUNK - 1 {
            self.roomy.push(number);
            next.into_iter().for_each(|next| self.give_back(next));
        } else if is_empty && next != Some(number) {
            self.give_back(number);
        }
        self.len -= 1;
        Some(thing)
    }

    /// Gives a chunk's memory back, if it is empty.
    fn give_back(&mut self, number: u32) {
        let empty = self.chunks.get_mut(number as usize).filter(|chunk| chunk.taken == 0);
        if let Some(chunk) = empty {
            (chunk.slots, chunk.free) = (Vec::new(), NONE);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| &chunk.slots).filter_map(|slot| match slot {
            Slot::Taken(thing) => Some(thing),
            Slot::Free(_) => None,
        })
    }
}

impl<T> Chunk<T> {
    /// It has room.
    fn insert(&mut self, thing: T) -> u32 {
        self.taken += 1;
        let free = self.free;
        match self.slots.get_mut(free as usize) {
            Some(slot) => {
                if let Slot::Free(next) = *slot {
                    self.free = next;
                }
                *slot = Slot::Taken(thing);
                free
            }
            None => {
                if self.slots.capacity() == 0 {
                    self.slots.reserve_exact(CHUNK);
                }
                self.slots.push(Slot::Taken(thing));
                self.slots.len() as u32 - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16),
        Remove(usize),
        Empty,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => any::<u16>().prop_map(Op::Insert),
            4 => any::<usize>().prop_map(Op::Remove),
            // Several chunks are filled and emptied as well.
            1 => Just(Op::Empty),
        ]
    }

    proptest! {
        #[test]
        fn what_is_put_in_stays_where_it_is_until_it_is_taken_out(ops in prop::collection::vec(op(), 1..60)) {
            let (mut slab, mut model) = (Slab::default(), HashMap::new());
            let mut order: Vec<u32> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(many) => for thing in 0..many % 400 {
                        let place = slab.insert(thing);
                        prop_assert_eq!(model.insert(place, thing), None, "a place was taken");
                        order.push(place);
                    },
                    Op::Remove(which) if !order.is_empty() => {
                        let place = order.swap_remove(which % order.len());
                        prop_assert_eq!(slab.remove(place), model.remove(&place));
                        prop_assert_eq!(slab.remove(place), None);
                        prop_assert_eq!(slab.get(place), None);
                    }
                    Op::Remove(_) => {}
                    Op::Empty => for place in order.drain(..) {
                        prop_assert_eq!(slab.remove(place), model.remove(&place));
                    },
                }
                prop_assert_eq!((slab.len(), slab.iter().count()), (model.len(), model.len()));
                for (place, thing) in &model {
                    prop_assert_eq!(slab.get(*place), Some(thing));
                }
            }
        }
    }

    #[test]
    fn places_are_taken_again_and_empty_chunks_give_their_memory_back() {
        let mut slab = Slab::default();
        let places: Vec<u32> = (0..10 * CHUNK).map(|thing| slab.insert(thing)).collect();
        for place in places {
            slab.remove(place);
        }
        let room: usize = slab.chunks.iter().map(|chunk| chunk.slots.capacity()).sum();
        assert_eq!(room, CHUNK);
        for thing in 0..10 * CHUNK {
            slab.insert(thing);
        }
        assert_eq!(slab.chunks.len(), 10);
    }
}
