//! The sockets of a driver by index, and who had an index before.
//!
//! What the kernel says of a socket comes back later, by a key that was given to it. A key holds the index and how often
//! that index has been given out, so that what was meant for a socket that is no more cannot reach its successor.

use std::collections::VecDeque;

use super::{SOCKETS_MAX, SocketIndex};

/// Bits of a generation, so that a key and something else fit a word of 64 bits.
pub const GENERATION_BITS: u32 = 24;

/// Bits of an index within a key.
pub const INDEX_BITS: u32 = 32;

const _: () = assert!(SOCKETS_MAX as u64 <= 1 << INDEX_BITS);

/// An index and which of its owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The index.
    #[must_use]
    pub fn index(self) -> SocketIndex {
        self.index as SocketIndex
    }

    /// The key in the low bits of a word: the index, then the generation.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << INDEX_BITS | u64::from(self.index)
    }

    /// The key in the low bits of a word, whatever the others are.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let generation = (bits >> INDEX_BITS) as u32 & ((1 << GENERATION_BITS) - 1);
        Self { index: bits as u32, generation }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Indices without owner, the longest unused first.
    free: VecDeque<u32>,
    /// Indices that were freed in this turn: the shard may still hold what names them.
    freed: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Table<T> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: VecDeque::new(), freed: Vec::new() }
    }

    /// Adds what `make` makes of its key. `None`: the table is full.
    pub fn insert(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        let index = match self.free.pop_front() {
            Some(index) => index,
            None if self.slots.len() < SOCKETS_MAX => {
                self.slots.push(Slot { generation: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        let key = Key { index, generation: slot.generation };
        slot.entry = Some(make(key));
        Some(key)
    }

    /// The entry with that index, whoever it is.
    #[must_use]
    pub fn get(&self, index: SocketIndex) -> Option<&T> {
        self.slots.get(index)?.entry.as_ref()
    }

    /// As [`get`](Self::get).
    #[must_use]
    pub fn get_mut(&mut self, index: SocketIndex) -> Option<&mut T> {
        self.slots.get_mut(index)?.entry.as_mut()
    }

    /// The entry that was given that key, if it still is there.
    #[must_use]
    pub fn get_by_key(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.index()).filter(|slot| slot.generation == key.generation)?.entry.as_mut()
    }

    /// The key of the entry with that index.
    #[must_use]
    pub fn key(&self, index: SocketIndex) -> Option<Key> {
        let slot = self.slots.get(index).filter(|slot| slot.entry.is_some())?;
        Some(Key { index: index as u32, generation: slot.generation })
    }

    /// Takes an entry out. Its index rests until [`begin_turn`](Self::begin_turn), at least.
    pub fn remove(&mut self, index: SocketIndex) -> Option<T> {
        let slot = self.slots.get_mut(index)?;
        let entry = slot.entry.take()?;
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.freed.push(index as u32);
        Some(entry)
    }

    /// No entry has this index or a higher one.
    #[must_use]
    pub fn indices_end(&self) -> SocketIndex {
        self.slots.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len() + self.freed.len()
    }

    /// What was removed before may have successors now.
    pub fn begin_turn(&mut self) {
        self.free.extend(self.freed.drain(..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_rests_for_a_turn_and_its_next_owner_has_another_key() {
        let mut table = Table::new();
        let old = table.insert(|_| "old").expect("room");
        let other = table.insert(|_| "other").expect("room");
        assert_eq!((old.index(), other.index()), (0, 1));
        assert_eq!(table.remove(0), Some("old"));
        assert_eq!((table.remove(0), table.get(0), table.key(0)), (None, None, None));
        assert_eq!(table.insert(|_| "third").expect("room").index(), 2);
        table.begin_turn();
        let new = table.insert(|_| "new").expect("room");
        assert_eq!(new.index(), 0);
        assert_ne!(new, old);
        assert_eq!(table.get_by_key(old), None);
        assert_eq!(table.get_by_key(new), Some(&mut "new"));
        assert_eq!(table.get_mut(1), Some(&mut "other"));
        assert_eq!(table.get(99), None);
        assert!(!table.is_empty());
        (0..table.indices_end()).for_each(|index| _ = table.remove(index));
        assert!(table.is_empty());
    }

    #[test]
    fn a_key_survives_as_bits_beside_others() {
        let mut table = Table::new();
        for round in 0..1_000 {
            let key = table.insert(|key| key).expect("room");
            assert_eq!(Key::from_bits(key.to_bits() | 0xAB << 56), key, "round {round}");
            assert!(key.to_bits() < 1 << (GENERATION_BITS + INDEX_BITS));
            if round % 3 == 0 {
                table.remove(key.index());
                table.begin_turn();
            }
        }
    }
}
