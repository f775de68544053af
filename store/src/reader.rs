//! Looking segments up and loading cold ones.

use bytes::Bytes;

use crate::{Hash, LoadError};

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup {
    /// The store does not hold it.
    Absent,
    /// Verified since it was last read from disk, and resident now: touching it does not wait for a disk.
    Ready(Segment),
    /// On disk, or not verified since it was read: hand it to a thread that may block.
    Cold(ColdSegment),
}

/// Looks segments up. One a thread; takes no lock that a writer holds over I/O.
#[derive(Debug)]
pub struct Reader;

impl Reader {
    /// Finds a segment, without touching its bytes and without waiting for a disk.
    pub fn lookup(&mut self, _hash: &Hash) -> Lookup {
        todo!()
    }

    /// Length of a segment in bytes, or `None` if the store does not hold it.
    pub fn len_of(&mut self, _hash: &Hash) -> Option<u32> {
        todo!()
    }
}

/// A segment that is not known to be in memory and verified.
#[derive(Debug)]
pub struct ColdSegment;

impl ColdSegment {
    /// Its length in bytes.
    pub fn len(&self) -> u32 {
        todo!()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads and verifies the segment. Blocks: for a storage executor, never for a shard.
    ///
    /// # Errors
    /// [`LoadError::Damaged`] with file and offset if the bytes do not match their hash; the record is then quarantined.
    pub fn load(self) -> Result<Segment, LoadError> {
        todo!()
    }
}

/// A segment in a mapped pack. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct Segment {
    bytes: Bytes,
}

impl Segment {
    /// The bytes; no copy, they own the mapping.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether the file shrank or failed under the mapping (SIGBUS): bytes read since then may be zeros. Whoever sent
    /// from it must reset what it sent; [`mapping::sigbus_generation`](crate::mapping::sigbus_generation) says cheaply
    /// that there may be something to look for.
    pub fn is_poisoned(&self) -> bool {
        todo!()
    }
}
