//! Content address lists that are being served: each is parsed and its signature verified once, then kept while it is in
//! use and for as long as the cache has room.

use std::collections::HashMap;
use std::rc::Rc;
use store::Hash;
use store::list::{ListError, ListView};

/// Bytes of opened lists that a shard keeps. A segment takes 40 bytes, so this is 800,000 segments: 800 GB of files.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// A verified list, as far as serving it needs it.
#[derive(Debug)]
pub(super) struct List {
    /// Address of each data segment and where it ends in the file.
    segments: Vec<(Hash, u64)>,
    /// Addresses of what else the list names: parity, outboards, plain hashes.
    others: Vec<Hash>,
    is_plain: bool,
}

impl List {
    fn open(document: &[u8]) -> Result<Self, ListError> {
        let view = ListView::open(document)?;
        let mut end = 0;
        let segments = view
            .entries()
            .map(|entry| {
                end += u64::from(entry.plain_len);
                (entry.hash, end)
            })
            .collect();
        let others = view.names().skip(view.data_count() as usize).collect();
        Ok(Self { segments, others, is_plain: view.is_plain() })
    }

    /// Whether the segments, one behind the other, are the file. One that is compressed, encrypted or a list itself is for receivers to open.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Length of the file in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.segments.last().map_or(0, |(_, end)| *end)
    }

    /// The segment that holds byte `offset` of the file.
    pub(super) fn index_at(&self, offset: u64) -> usize {
        self.segments.partition_point(|(_, end)| *end <= offset)
    }

    /// Address of segment `i` and the bytes of the file that it holds.
    pub(super) fn segment(&self, i: usize) -> Option<(Hash, std::ops::Range<u64>)> {
        let (hash, end) = *self.segments.get(i)?;
        let start = i.checked_sub(1).map_or(0, |before| self.segments[before].1);
        Some((hash, start..end))
    }

    /// Whether a data or parity segment, an outboard document or the table of plain hashes has this address.
    pub(super) fn names(&self, hash: &Hash) -> bool {
        self.segments.iter().any(|(held, _)| held == hash) || self.others.contains(hash)
    }

    fn memory(&self) -> usize {
        self.segments.capacity() * size_of::<(Hash, u64)>()
            + self.others.capacity() * size_of::<Hash>()
            + size_of::<Self>()
    }
}

/// Lists by the address of their document.
#[derive(Debug, Default)]
pub(super) struct Lists {
    opened: HashMap<Hash, Opened>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Opened {
    list: Rc<List>,
    last_used: u64,
}

impl Lists {
    /// A list that is open already.
    pub(super) fn get(&mut self, hash: &Hash) -> Option<Rc<List>> {
        self.uses += 1;
        let opened = self.opened.get_mut(hash)?;
        opened.last_used = self.uses;
        Some(Rc::clone(&opened.list))
    }

    /// Opens a list from the verified bytes of its document. Of the many that may have waited for one document only the
    /// first has it parsed and its signature verified.
    ///
    /// # Errors
    /// The document is no list, or not signed by its publisher.
    pub(super) fn open(&mut self, hash: Hash, document: &[u8]) -> Result<Rc<List>, ListError> {
        if let Some(list) = self.get(&hash) {
            return Ok(list);
        }
        let list = Rc::new(List::open(document)?);
        self.uses += 1;
        self.bytes += list.memory();
        self.opened.insert(hash, Opened { list: Rc::clone(&list), last_used: self.uses });
        while self.bytes > CACHE_BYTES_MAX && self.opened.len() > 1 {
            self.forget_oldest();
        }
        Ok(list)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.opened.iter().min_by_key(|(_, opened)| opened.last_used).map(|(hash, _)| *hash);
        if let Some(opened) = oldest.and_then(|hash| self.opened.remove(&hash)) {
            self.bytes -= opened.list.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::SecretKey;
    use store::list::ListBuilder;

    fn document(segments: usize, seed: u8) -> (Hash, Vec<u8>) {
        let list = ListBuilder {
            name: "firmware".into(),
            version: (1, 0, 0),
            counter: 1,
            ..ListBuilder::plain(vec![(Hash([seed; 32]), 1); segments])
        };
        let document = list.sign(&SecretKey::from_seed([7; 32])).unwrap();
        (Hash::of(&document), document)
    }

    #[test]
    fn however_many_wait_for_a_list_it_is_opened_and_counted_once() {
        let mut lists = Lists::default();
        let (hash, document) = document(100, 1);
        let first = lists.open(hash, &document).unwrap();
        for _ in 0..10 {
            assert!(Rc::ptr_eq(&lists.open(hash, &document).unwrap(), &first));
        }
        assert_eq!(lists.bytes, first.memory());
    }

    #[test]
    fn the_oldest_goes_when_the_cache_is_full() {
        let mut lists = Lists::default();
        let documents: Vec<_> = (1..=4).map(|seed| document(300_000, seed)).collect();
        for (hash, document) in &documents {
            lists.open(*hash, document).unwrap();
        }
        assert!(lists.get(&documents[0].0).is_none() && lists.get(&documents[3].0).is_some());
        assert!(lists.bytes <= CACHE_BYTES_MAX);
        let held: usize = lists.opened.values().map(|opened| opened.list.memory()).sum();
        assert_eq!(lists.bytes, held);
    }
}
