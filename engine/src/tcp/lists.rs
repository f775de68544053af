//! Content address lists that are being served: each is parsed and its signature verified once, then kept while it is in
//! use and for as long as the cache has room.

use crate::limits::TCP_LISTS_BYTES_MAX;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use store::Hash;
use store::list::{ListError, ListView};

/// A verified list, as far as serving its file needs it.
#[derive(Debug)]
pub(super) struct List {
    /// Address of each segment and where it ends in the file.
    segments: Box<[(Hash, u64)]>,
    is_plain: bool,
}

impl List {
    /// Parses and verifies a document.
    pub(super) fn open(document: &[u8]) -> Result<List, ListError> {
        let mut end = 0;
        let view = ListView::open(document)?;
        let segments = view.entries().map(|entry| {
            end += u64::from(entry.plain_len);
            (entry.hash, end)
        });
        Ok(List { segments: segments.collect(), is_plain: view.is_plain() })
    }

    /// Whether the segments, one behind the other, are the file. One that is compressed, encrypted or a list itself is for receivers to open.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Length of the file in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.segments.last().map_or(0, |(_, end)| *end)
    }

    /// The segment that holds byte `offset` of the file, and the bytes of the file that it holds; `None` past the end.
    pub(super) fn segment_at(&self, offset: u64) -> Option<(Hash, Range<u64>)> {
        let i = self.segments.partition_point(|(_, end)| *end <= offset);
        let (hash, end) = *self.segments.get(i)?;
        let start = i.checked_sub(1).map_or(0, |before| self.segments[before].1);
        Some((hash, start..end))
    }

    fn memory(&self) -> usize {
        size_of_val(&*self.segments) + size_of::<List>()
    }
}

/// Opened lists by the address of their document, the least recently used forgotten first.
#[derive(Debug, Default)]
pub(super) struct Lists {
    opened: HashMap<Hash, Opened>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Opened {
    list: Arc<List>,
    last_used: u64,
}

impl Lists {
    /// A list that is open already.
    pub(super) fn get(&mut self, hash: &Hash) -> Option<Arc<List>> {
        self.uses += 1;
        let opened = self.opened.get_mut(hash)?;
        opened.last_used = self.uses;
        Some(Arc::clone(&opened.list))
    }

    /// Keeps a list, and forgets others until there is room. One that is too long for the cache is not kept at all;
    /// whoever has it goes on with it.
    pub(super) fn insert(&mut self, hash: Hash, list: &Arc<List>) {
        let memory = list.memory();
        if memory > TCP_LISTS_BYTES_MAX || self.opened.contains_key(&hash) {
            return;
        }
        while self.bytes + memory > TCP_LISTS_BYTES_MAX {
            let Some(oldest) =
                self.opened.iter().min_by_key(|(_, opened)| opened.last_used).map(|(hash, _)| *hash)
            else {
                break;
            };
            if let Some(forgotten) = self.opened.remove(&oldest) {
                self.bytes -= forgotten.list.memory();
            }
        }
        self.uses += 1;
        self.bytes += memory;
        self.opened.insert(hash, Opened { list: Arc::clone(list), last_used: self.uses });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lens: &[u64]) -> Arc<List> {
        let mut end = 0;
        let segments = lens.iter().enumerate().map(|(i, len)| {
            end += len;
            (Hash::of(&i.to_le_bytes()), end)
        });
        Arc::new(List { segments: segments.collect(), is_plain: true })
    }

    #[test]
    fn every_byte_has_its_segment() {
        let list = list(&[3, 1, 4]);
        assert_eq!(list.file_len(), 8);
        let starts: Vec<_> = (0..8).map(|offset| list.segment_at(offset).unwrap().1).collect();
        assert_eq!(starts, [0..3, 0..3, 0..3, 3..4, 4..8, 4..8, 4..8, 4..8]);
        assert_eq!(list.segment_at(8), None);
        assert_eq!(self::list(&[]).segment_at(0), None);
    }

    #[test]
    fn the_cache_forgets_what_was_not_used_and_stays_in_its_bounds() {
        let long = list(&vec![1; TCP_LISTS_BYTES_MAX / 2 / size_of::<(Hash, u64)>() - 10]);
        let (a, b, c) = (Hash([1; 32]), Hash([2; 32]), Hash([3; 32]));
        let mut lists = Lists::default();
        lists.insert(a, &long);
        lists.insert(b, &long);
        assert!(lists.get(&a).is_some());
        lists.insert(c, &long);
        assert!(lists.get(&b).is_none() && lists.get(&a).is_some() && lists.get(&c).is_some());
        assert!(lists.bytes <= TCP_LISTS_BYTES_MAX);
        let too_long = list(&vec![1; TCP_LISTS_BYTES_MAX / size_of::<(Hash, u64)>() + 1]);
        lists.insert(b, &too_long);
        assert!(lists.get(&b).is_none() && lists.get(&a).is_some());
    }
}
