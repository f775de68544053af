//! Looking segments up and loading cold ones.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Damage, DamageKind};
use crate::index::Location;
use crate::mapping::Mapping;
use crate::packs::Pack;
use crate::store::Inner;
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
pub struct Reader {
    inner: Arc<Inner>,
    /// The pack of the last lookup: the next is often in the same.
    last: Option<Arc<Pack>>,
}

impl Reader {
    pub(crate) fn new(inner: Arc<Inner>) -> Reader {
        Reader { inner, last: None }
    }

    /// Finds a segment without waiting for a disk. Segments below 64 KiB are hashed each time, which takes at most
    /// some 20 microseconds; longer ones are verified once, and again whenever they had left the page cache.
    pub fn lookup(&mut self, hash: &Hash) -> Lookup {
        let mut location = self.inner.index.get(hash);
        loop {
            let Some(at) = location else { return Lookup::Absent };
            let Some(pack) = self.pack(at.pack) else {
                // Compaction moved the segment between the two looks, or the pack is missing.
                location = self.inner.index.get(hash);
                if location == Some(at) {
                    return Lookup::Absent;
                }
                continue;
            };
            return match pack.ready(&at, hash) {
                Some(segment) => Lookup::Ready(segment),
                None => {
                    let inner = Arc::clone(&self.inner);
                    Lookup::Cold(ColdSegment { inner, pack, location: at, hash: *hash })
                }
            };
        }
    }

    /// Length of a segment in bytes, or `None` if the store does not hold it.
    pub fn len_of(&mut self, hash: &Hash) -> Option<u32> {
        self.inner.index.get(hash).map(|location| location.len)
    }

    fn pack(&mut self, number: u32) -> Option<Arc<Pack>> {
        if let Some(pack) = &self.last
            && pack.number == number
        {
            return Some(Arc::clone(pack));
        }
        let pack = self.inner.packs.get(number)?;
        self.last = Some(Arc::clone(&pack));
        Some(pack)
    }
}

/// A segment that is not known to be in memory and verified.
#[derive(Clone, Debug)]
pub struct ColdSegment {
    inner: Arc<Inner>,
    pack: Arc<Pack>,
    location: Location,
    hash: Hash,
}

impl ColdSegment {
    /// Its address.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Its length in bytes.
    pub fn len(&self) -> u32 {
        self.location.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads and verifies the segment. Blocks: for a storage executor, never for a shard.
    ///
    /// # Errors
    /// [`LoadError::Damaged`] with file and offset if the bytes are gone or do not match their hash; the record is then
    /// quarantined, and looking it up again finds nothing. [`LoadError::Deleted`] if the segment was deleted since.
    pub fn load(mut self) -> Result<Segment, LoadError> {
        loop {
            let kind = match self.try_load() {
                Ok(segment) => return Ok(segment),
                Err(Fault::Io(source)) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LoadError::Io { path: self.pack.path.to_path_buf(), source });
                }
                Err(Fault::Io(_)) => DamageKind::Missing,
                Err(Fault::Damage(kind)) => kind,
            };
            // What was compacted away since the lookup is not damaged: it lies elsewhere, or was deleted.
            match self.inner.index.get(&self.hash) {
                None => return Err(LoadError::Deleted { hash: self.hash }),
                Some(location) if location == self.location => return Err(self.damaged(kind)),
                Some(location) => {
                    let Some(pack) = self.inner.packs.get(location.pack) else { continue };
                    (self.location, self.pack) = (location, pack);
                }
            }
        }
    }

    fn try_load(&self) -> Result<Segment, Fault> {
        let range = self.location.offset..self.location.end();
        if fs::metadata(&self.pack.path).map_err(Fault::Io)?.len() < range.end {
            return Err(Fault::Damage(DamageKind::Truncated));
        }
        let mapping = self.pack.fresh_mapping().map_err(Fault::Io)?;
        if !range.is_empty() {
            match mapping.populate(range.clone()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Fault::Damage(DamageKind::Unreadable));
                }
                populated => populated.map_err(Fault::Io)?,
            }
        }
        let matches = mapping.get(range).is_some_and(|bytes| Hash::of(bytes) == self.hash);
        if mapping.is_poisoned() {
            return Err(Fault::Damage(DamageKind::Unreadable));
        }
        let segment = if matches { self.pack.segment(mapping, &self.location) } else { None };
        let Some(segment) = segment else { return Err(Fault::Damage(DamageKind::Payload)) };
        self.pack.set_verified(&self.location, true);
        Ok(segment)
    }

    fn damaged(&self, kind: DamageKind) -> LoadError {
        let damage = Damage {
            path: self.pack.path.to_path_buf(),
            offset: self.location.offset,
            len: u64::from(self.location.len),
            kind,
            hash: Some(self.hash),
        };
        self.inner.quarantine(&self.hash, &self.location, damage.clone());
        LoadError::Damaged(damage)
    }
}

/// Why a try to load gave nothing.
enum Fault {
    Io(io::Error),
    Damage(DamageKind),
}

/// A segment in a mapped pack. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct Segment {
    bytes: Bytes,
    mapping: Arc<Mapping>,
}

impl Segment {
    pub(crate) fn new(bytes: Bytes, mapping: Arc<Mapping>) -> Segment {
        Segment { bytes, mapping }
    }

    /// The bytes; no copy, they own the mapping.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Whether the whole segment is in memory now. For whoever keeps a segment for long, as a slow reader's stream does:
    /// pages may have been evicted since the lookup, and touching them would wait for a disk.
    pub fn is_resident(&self) -> bool {
        self.mapping.is_resident_slice(&self.bytes)
    }

    /// Whether the file shrank or failed under the mapping (SIGBUS): bytes read since then may be zeros. Whoever sent
    /// from it must reset what it sent; [`mapping::sigbus_generation`](crate::mapping::sigbus_generation) says cheaply
    /// that there may be something to look for.
    pub fn is_poisoned(&self) -> bool {
        self.mapping.is_poisoned()
    }
}
