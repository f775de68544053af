//! Streams by their names, and how many there may be.

use super::{STREAMS_MAX_DEFAULT, StreamId};
use crate::driver::SOCKETS_MAX;
use crate::driver::table;

/// What a driver keeps of each stream.
#[derive(Debug)]
pub struct Table<T> {
    entries: table::Table<T>,
    len: usize,
    len_max: usize,
}

impl<T> Table<T> {
    /// No streams.
    pub fn new() -> Self {
        Self { entries: table::Table::new(), len: 0, len_max: STREAMS_MAX_DEFAULT }
    }

    /// Gives `value` a name. `None`: there are as many as there may be.
    pub fn insert(&mut self, value: T) -> Option<StreamId> {
        if self.is_full() {
            return None;
        }
        let key = self.entries.insert(|_| value)?;
        self.len += 1;
        Some(StreamId(key))
    }

    /// What has this name.
    pub fn get(&self, id: StreamId) -> Option<&T> {
        self.entries.get(id.index()).filter(|_| self.entries.key(id.index()) == Some(id.0))
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.entries.get_by_key(id.0)
    }

    /// Takes away what has this name; the name then means nothing any more.
    pub fn remove(&mut self, id: StreamId) -> Option<T> {
        self.get_mut(id)?;
        self.len -= 1;
        self.entries.remove(id.index())
    }

    /// Places of streams that were removed may be used again.
    pub fn begin_turn(&mut self) {
        self.entries.begin_turn();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self) -> bool {
        self.len >= self.len_max
    }

    /// How many there may be.
    pub fn set_len_max(&mut self, len_max: usize) {
        self.len_max = len_max.clamp(1, SOCKETS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_gone_names_nothing_and_makes_room() {
        let mut table = Table::new();
        table.set_len_max(2);
        let first = table.insert("first").expect("room");
        let second = table.insert("second").expect("room");
        assert_eq!(table.insert("third"), None);
        assert_eq!((table.remove(first), table.remove(first)), (Some("first"), None));
        table.begin_turn();
        let third = table.insert("third").expect("room again");
        assert_eq!((third.index(), table.get(first)), (first.index(), None));
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.get(second), Some(&"second"));
        assert_eq!(table.get_mut(third), Some(&mut "third"));
        assert_eq!(table.len(), 2);
    }
}
