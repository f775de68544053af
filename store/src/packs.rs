//! The packs of an open store: their mappings, and which of their long payloads are verified.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use crate::index::Location;
use crate::mapping::Mapping;
use crate::pack::ALIGNED_LEN_MIN;
use crate::{Hash, Segment};

/// One pack.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) number: u32,
    pub(crate) path: Arc<Path>,
    frontier: Mutex<Frontier>,
    /// Bytes to map: the longest that the pack may become.
    mapped_len: u64,
    /// Compacted away: its file is being removed, and must not be mapped again.
    retired: AtomicBool,
    /// Made at the first look-up, and again when it was poisoned.
    mapping: RwLock<Option<Arc<Mapping>>>,
    /// A bit for every [`ALIGNED_LEN_MIN`] bytes, named by the start of a long payload: verified since it was last
    /// read from disk. Long payloads are at least so long, so no two share a bit.
    verified: Box<[AtomicU64]>,
}

/// How far a pack is durable and visible. Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frontier {
    /// Bytes from the start of the file.
    pub(crate) committed_len: u64,
    /// Sequence number of the last commit before there.
    pub(crate) sequence: u64,
}

impl Pack {
    pub(crate) fn new(
        number: u32,
        path: Arc<Path>,
        committed_len: u64,
        sequence: u64,
        pack_len_max: u64,
    ) -> Pack {
        let mapped_len = committed_len.max(pack_len_max);
        let words = mapped_len.div_ceil(u64::from(ALIGNED_LEN_MIN) * 64);
        Pack {
            number,
            path,
            frontier: Mutex::new(Frontier { committed_len, sequence }),
            mapped_len,
            retired: AtomicBool::new(false),
            mapping: RwLock::new(None),
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Length and sequence number of one and the same commit. A snapshot that paired a length with the sequence number
    /// of the commit behind it would make the next opening take that commit for the rest of one that was given up.
    pub(crate) fn frontier(&self) -> Frontier {
        *self.frontier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed_len(&self) -> u64 {
        self.frontier().committed_len
    }

    /// A commit has become durable.
    pub(crate) fn grow(&self, to: Frontier) {
        *self.frontier.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// Lets go of the mapping, for good. Slices that somebody holds keep it, and with it the file's bytes, until they go.
    pub(crate) fn retire(&self) {
        let mut slot = self.mapping.write().unwrap_or_else(PoisonError::into_inner);
        self.retired.store(true, Ordering::Release);
        *slot = None;
    }

    /// The segment at `location`, if it is resident now and verified since it was last read from disk.
    pub(crate) fn ready(&self, location: &Location, hash: &Hash) -> Option<Segment> {
        let mapping = self.mapping().ok()?;
        let range = location.offset..location.end();
        if mapping.is_poisoned() {
            return None;
        }
        if !range.is_empty() && !mapping.is_resident(range.clone()) {
            self.set_verified(location, false);
            return None;
        }
        if location.len < ALIGNED_LEN_MIN {
            // Short payloads share pages, which a neighbour may have brought in: hashing them is cheaper than to know.
            if Hash::of(mapping.get(range)?) != *hash || mapping.is_poisoned() {
                return None;
            }
        } else if !self.is_verified(location) {
            return None;
        }
        self.segment(mapping, location)
    }

    /// The mapping, made now if there is none or if the one there is was poisoned.
    ///
    /// # Errors
    /// What opening or mapping the file says.
    pub(crate) fn fresh_mapping(&self) -> io::Result<Arc<Mapping>> {
        let mapping = self.mapping()?;
        if !mapping.is_poisoned() {
            return Ok(mapping);
        }
        let mut slot = self.mapping.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = &*slot
            && !mapping.is_poisoned()
        {
            return Ok(Arc::clone(mapping));
        }
        // What was verified may have been read since from a file that was tampered with.
        self.verified.iter().for_each(|word| word.store(0, Ordering::Release));
        let mapping = self.map()?;
        *slot = Some(Arc::clone(&mapping));
        Ok(mapping)
    }

    fn mapping(&self) -> io::Result<Arc<Mapping>> {
        if let Some(mapping) = &*self.mapping.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(mapping));
        }
        let mut slot = self.mapping.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapping) = &*slot {
            return Ok(Arc::clone(mapping));
        }
        let mapping = self.map()?;
        *slot = Some(Arc::clone(&mapping));
        Ok(mapping)
    }

    /// Called with the slot locked for writing.
    fn map(&self) -> io::Result<Arc<Mapping>> {
        if self.retired.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let len = usize::try_from(self.mapped_len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Mapping::new(&File::open(&self.path)?, len)
    }

    pub(crate) fn segment(&self, mapping: Arc<Mapping>, location: &Location) -> Option<Segment> {
        let bytes: Bytes = mapping.slice(location.offset..location.end())?;
        Some(Segment::new(bytes, mapping))
    }

    /// Notes whether a long payload is verified; nothing is noted of short ones.
    pub(crate) fn set_verified(&self, location: &Location, verified: bool) {
        let Some((word, mask)) = self.verified_bit(location) else { return };
        if verified {
            word.fetch_or(mask, Ordering::AcqRel);
        } else if word.load(Ordering::Acquire) & mask != 0 {
            word.fetch_and(!mask, Ordering::AcqRel);
        }
    }

    /// Notes that a payload has just been written from bytes that were hashed. Those in the page cache are the same bytes
    /// and did not come from a disk; those that a backend wrote past it will, and are verified then.
    pub(crate) fn note_written(&self, location: &Location) {
        if location.len < ALIGNED_LEN_MIN {
            return;
        }
        let range = location.offset..location.end();
        let is_in_memory = self.mapping().is_ok_and(|mapping| mapping.is_resident(range));
        self.set_verified(location, is_in_memory);
    }

    fn is_verified(&self, location: &Location) -> bool {
        self.verified_bit(location).is_some_and(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    fn verified_bit(&self, location: &Location) -> Option<(&AtomicU64, u64)> {
        if location.len < ALIGNED_LEN_MIN {
            return None;
        }
        let bit = location.offset / u64::from(ALIGNED_LEN_MIN);
        Some((self.verified.get(usize::try_from(bit / 64).ok()?)?, 1 << (bit % 64)))
    }
}

/// All packs by number.
#[derive(Debug, Default)]
pub(crate) struct Packs {
    packs: RwLock<HashMap<u32, Arc<Pack>>>,
}

impl Packs {
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Pack>> {
        self.packs.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub(crate) fn insert(&self, pack: Arc<Pack>) {
        self.packs.write().unwrap_or_else(PoisonError::into_inner).insert(pack.number, pack);
    }

    pub(crate) fn remove(&self, number: u32) {
        self.packs.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn all(&self) -> Vec<Arc<Pack>> {
        let mut packs: Vec<_> =
            self.packs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        packs.sort_by_key(|pack| pack.number);
        packs
    }
}

/// The file of pack `number` in the store's directory.
pub(crate) fn pack_path(store_dir: &Path, number: u32) -> Arc<Path> {
    Arc::from(packs_dir(store_dir).join(format!("{number:010}.pack")))
}

/// Where packs lie.
pub(crate) fn packs_dir(store_dir: &Path) -> PathBuf {
    store_dir.join("packs")
}

/// The numbers of the pack files that there are, in order. Other files are left alone.
pub(crate) fn list_packs(store_dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(packs_dir(store_dir))? {
        let name = entry?.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|stem| stem.parse().ok());
        if let Some(number) = number
            && pack_path(store_dir, number).file_name() == Some(&name)
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_sequence_belong_to_one_commit() {
        let pack = Pack::new(1, pack_path(Path::new("store"), 1), 0, 0, 1 << 20);
        let last = 200_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for sequence in 1..=last {
                    pack.grow(Frontier { committed_len: sequence * 4096, sequence });
                }
            });
            loop {
                let seen = pack.frontier();
                assert_eq!(seen.committed_len, seen.sequence * 4096);
                if seen.sequence == last {
                    break;
                }
            }
        });
    }
}
