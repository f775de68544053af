//! The index snapshot, version 1: header, directory, entries sorted by hash, and an rkyv archive of what is known of
//! the packs. `docs/index.md` draws it. Written by one node and read by itself.
//!
//! Entries are read where they lie in the mapping, by bounds-checked little-endian loads: nothing in a lookup trusts a
//! pointer that came from the file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Location, TailEntry};
use crate::Hash;
use crate::backend::{Backend, WriteOp};
use crate::mapping::Mapping;

const MAGIC: [u8; 8] = *b"IOEXINDX";

/// Format version that this code writes and reads. An index of another version is rebuilt from the packs.
const VERSION: u32 = 1;

/// Entries that a directory slot holds on average: 8 x 48 bytes are six cache lines, the slot adds half a byte each.
const ENTRIES_A_SLOT: u64 = 8;

/// Bytes that are gathered before they are written.
const WRITE_LEN: usize = 1 << 20;

/// The first 128 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    entry_len: U32,
    entry_count: U64,
    directory_bits: U32,
    reserved_a: U32,
    meta_offset: U64,
    meta_len: U64,
    reserved_b: [u8; 48],
    /// BLAKE3 of the header before this field, and of all bytes after the header.
    hash: [u8; 32],
}

/// Where a segment lies, after its hash.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    hash: [u8; 32],
    offset: U64,
    pack: U32,
    len: U32,
}

const HEADER_LEN: usize = 128;
const ENTRY_LEN: usize = 48;
const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(size_of::<Entry>() == ENTRY_LEN);

/// What the snapshot knows besides the entries.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) store_id: [u8; 16],
    pub(crate) packs: Vec<PackMeta>,
    pub(crate) quarantined: Vec<QuarantinedMeta>,
}

/// A pack as far as the snapshot covers it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug)]
pub(crate) struct PackMeta {
    pub(crate) pack: u32,
    pub(crate) committed_len: u64,
    /// Sequence number of its last commit, 0 if it has none.
    pub(crate) sequence: u64,
}

impl PackMeta {
    /// A pack that was compacted away: nothing in its file counts, if the file is still there.
    pub(crate) fn retired(pack: u32) -> PackMeta {
        PackMeta { pack, committed_len: 0, sequence: 0 }
    }

    /// A pack that counts has at least its header page.
    pub(crate) fn is_retired(&self) -> bool {
        self.committed_len == 0
    }
}

/// Damage that was found before.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub(crate) struct QuarantinedMeta {
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) kind: u8,
    pub(crate) hash: Option<[u8; 32]>,
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub(crate) enum SnapshotFault {
    /// It does not verify.
    Invalid,
    /// The file system failed.
    Io(io::Error),
}

/// A snapshot that has verified, mapped.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// `None`: no snapshot has been written yet.
    mapping: Option<Arc<Mapping>>,
    entry_count: u64,
    directory_bits: u32,
    entries_offset: u64,
    pub(crate) meta: Meta,
}

impl Snapshot {
    /// The snapshot of a store that has none.
    pub(crate) fn empty(meta: Meta) -> Snapshot {
        Snapshot { mapping: None, entry_count: 0, directory_bits: 0, entries_offset: 0, meta }
    }

    /// Maps and verifies the snapshot in `path`.
    pub(crate) fn open(path: &Path) -> Result<Snapshot, SnapshotFault> {
        let file = File::open(path).map_err(SnapshotFault::Io)?;
        let len = file.metadata().map_err(SnapshotFault::Io)?.len();
        let mapping_len = usize::try_from(len).map_err(|_| SnapshotFault::Invalid)?;
        let mapping = Mapping::new(&file, mapping_len).map_err(SnapshotFault::Io)?;
        mapping.populate(0..len).map_err(|_| SnapshotFault::Invalid)?;
        let snapshot = Snapshot::verify(Arc::clone(&mapping), len).ok_or(SnapshotFault::Invalid)?;
        if mapping.is_poisoned() { Err(SnapshotFault::Invalid) } else { Ok(snapshot) }
    }

    fn verify(mapping: Arc<Mapping>, len: u64) -> Option<Snapshot> {
        let bytes = mapping.get(0..len)?;
        let (header, rest) = Header::ref_from_prefix(bytes).ok()?;
        let is_known = header.magic == MAGIC
            && header.version.get() == VERSION
            && header.entry_len.get() as usize == ENTRY_LEN
            && header.directory_bits.get() < 32;
        if !is_known {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header.as_bytes()[..HEADER_LEN - 32]).update(rest);
        if hasher.finalize() != header.hash {
            return None;
        }
        let entries_offset = entries_offset(header.directory_bits.get());
        let entry_count = header.entry_count.get();
        let entries_end = entry_count.checked_mul(ENTRY_LEN as u64)?.checked_add(entries_offset)?;
        let meta_offset = header.meta_offset.get();
        let meta_end = meta_offset.checked_add(header.meta_len.get())?;
        if entries_end > meta_offset || meta_end != len {
            return None;
        }
        let mut archive: AlignedVec = AlignedVec::new();
        archive.extend_from_slice(mapping.get(meta_offset..meta_end)?);
        let meta = rkyv::from_bytes::<Meta, rkyv::rancor::Error>(&archive).ok()?;
        let directory_bits = header.directory_bits.get();
        Some(Snapshot { mapping: Some(mapping), entry_count, directory_bits, entries_offset, meta })
    }

    /// Where the segment lies.
    pub(crate) fn get(&self, hash: &Hash) -> Option<Location> {
        let mapping = self.mapping.as_ref()?;
        let slot = HEADER_LEN as u64 + 4 * slot_of(hash, self.directory_bits);
        let bounds = mapping.get(slot..slot + 8)?;
        let from = u64::from(u32::from_le_bytes(bounds[..4].try_into().ok()?));
        let to = u64::from(u32::from_le_bytes(bounds[4..].try_into().ok()?));
        let entries = self.entries(from, to.min(self.entry_count))?;
        let found = entries.binary_search_by(|entry| entry.hash.cmp(&hash.0)).ok()?;
        Some(entries[found].location())
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> u64 {
        self.entry_count
    }

    /// All entries, in the order of their hashes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Hash, Location)> {
        self.iter_from(FIRST)
    }

    /// All entries from `from` on, in the order of their hashes.
    fn iter_from(&self, from: Hash) -> impl Iterator<Item = (Hash, Location)> {
        let entries = self.entries(0, self.entry_count).unwrap_or(&[]);
        let entries = &entries[entries.partition_point(|entry| entry.hash < from.0)..];
        entries.iter().map(|entry| (Hash(entry.hash), entry.location()))
    }

    fn entries(&self, from: u64, to: u64) -> Option<&[Entry]> {
        let mapping = self.mapping.as_ref()?;
        let at = |index: u64| self.entries_offset + index * ENTRY_LEN as u64;
        <[Entry]>::ref_from_bytes(mapping.get(at(from)..at(to))?).ok()
    }
}

impl Entry {
    fn location(&self) -> Location {
        Location { offset: self.offset.get(), pack: self.pack.get(), len: self.len.get() }
    }
}

/// Writes a snapshot: the old one with the tail merged in. Needs no memory that grows with the old one but the
/// directory's half byte an entry.
pub(crate) struct SnapshotWriter<'a> {
    pub(crate) backend: &'a dyn Backend,
    /// The directory that holds the snapshot.
    pub(crate) dir: &'a Path,
    /// Name that it is written under.
    pub(crate) temporary: Arc<Path>,
    /// Name that it gets when it is durable.
    pub(crate) path: Arc<Path>,
}

impl SnapshotWriter<'_> {
    /// Writes, syncs and renames. `tail` is sorted.
    pub(crate) fn write(&self, old: &Snapshot, tail: &[(Hash, TailEntry)], meta: &Meta) -> io::Result<()> {
        let directory_bits = directory_bits(old.len() + tail.len() as u64);
        let mut directory = vec![0u32; (1usize << directory_bits) + 1];
        let mut entry_count = 0u64;
        for (hash, _) in merged(old, FIRST, tail) {
            directory[slot_of(&hash, directory_bits) as usize + 1] += 1;
            entry_count += 1;
        }
        if u32::try_from(entry_count).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "an index holds at most 4294967295 segments",
            ));
        }
        for slot in 1..directory.len() {
            directory[slot] += directory[slot - 1];
        }

        let meta = rkyv::to_bytes::<rkyv::rancor::Error>(meta).map_err(io::Error::other)?;
        let entries_end = entries_offset(directory_bits) + entry_count * ENTRY_LEN as u64;
        let mut header = Header {
            magic: MAGIC,
            version: VERSION.into(),
            entry_len: (ENTRY_LEN as u32).into(),
            entry_count: entry_count.into(),
            directory_bits: directory_bits.into(),
            reserved_a: 0.into(),
            meta_offset: entries_end.next_multiple_of(16).into(),
            meta_len: (meta.len() as u64).into(),
            reserved_b: [0; 48],
            hash: [0; 32],
        };

        self.backend.run(&WriteOp::Create { path: Arc::clone(&self.temporary) })?;
        let mut out = Output {
            writer: self,
            buffer: Vec::new(),
            offset: HEADER_LEN as u64,
            hasher: blake3::Hasher::new(),
        };
        out.hasher.update(&header.as_bytes()[..HEADER_LEN - 32]);
        for start in &directory {
            out.push(&start.to_le_bytes())?;
        }
        out.pad_to(entries_offset(directory_bits))?;
        for (hash, location) in merged(old, FIRST, tail) {
            let entry = Entry {
                hash: hash.0,
                offset: location.offset.into(),
                pack: location.pack.into(),
                len: location.len.into(),
            };
            out.push(entry.as_bytes())?;
        }
        out.pad_to(header.meta_offset.get())?;
        out.push(&meta)?;
        out.flush()?;
        header.hash = *out.hasher.finalize().as_bytes();
        self.write_at(0, header.as_bytes().to_vec())?;
        if old.mapping.as_ref().is_some_and(|mapping| mapping.is_poisoned()) {
            // What was merged may be zeros. The packs still know better, and so will the next opening.
            return Err(io::Error::other(
                "the old index was truncated while it was in use: open the store again",
            ));
        }

        self.backend.run(&WriteOp::Sync { path: Arc::clone(&self.temporary) })?;
        self.backend
            .run(&WriteOp::Rename { from: Arc::clone(&self.temporary), to: Arc::clone(&self.path) })?;
        self.backend.run(&WriteOp::SyncDir { path: self.dir.to_owned() })
    }

    fn write_at(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.backend.run(&WriteOp::Write {
            path: Arc::clone(&self.temporary),
            offset,
            bytes: Bytes::from(bytes),
        })
    }
}

/// Gathers small pieces, hashes and writes them.
struct Output<'a, 'b> {
    writer: &'a SnapshotWriter<'b>,
    buffer: Vec<u8>,
    /// Where the buffer's first byte goes.
    offset: u64,
    hasher: blake3::Hasher,
}

impl Output<'_, '_> {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_LEN { self.flush() } else { Ok(()) }
    }

    /// Zeros up to `offset`, which is at most a few bytes away.
    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let zeros = offset - self.offset - self.buffer.len() as u64;
        self.push(&vec![0; zeros as usize])
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(WRITE_LEN));
        self.hasher.update(&bytes);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        self.writer.write_at(offset, bytes)
    }
}

/// The least address.
const FIRST: Hash = Hash([0; 32]);

/// The entries of both from `from` on, in the order of their hashes; the tail decides where both say something. `tail` has
/// none before `from`.
pub(super) fn merged<'a>(
    old: &'a Snapshot,
    from: Hash,
    tail: &'a [(Hash, TailEntry)],
) -> impl Iterator<Item = (Hash, Location)> + 'a {
    let mut old = old.iter_from(from).peekable();
    let mut tail = tail.iter().copied().peekable();
    std::iter::from_fn(move || {
        loop {
            let take_old = match (old.peek(), tail.peek()) {
                (Some((old, _)), Some((new, _))) => old < new,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if take_old {
                return old.next();
            }
            let (hash, entry) = tail.next()?;
            old.next_if(|(old, _)| *old == hash);
            if let TailEntry::At(location) = entry {
                return Some((hash, location));
            }
        }
    })
}

/// Slots of the directory as a power of two, for about [`ENTRIES_A_SLOT`] entries each.
fn directory_bits(entries: u64) -> u32 {
    (entries / ENTRIES_A_SLOT).max(1).ilog2().min(28)
}

/// Where the entries start: behind the directory's `2^bits + 1` bounds, at a multiple of 16.
fn entries_offset(directory_bits: u32) -> u64 {
    (HEADER_LEN as u64 + 4 * ((1 << directory_bits) + 1)).next_multiple_of(16)
}

/// The slot of a hash: its first bits. Hashes are uniform, so slots are about equally full.
fn slot_of(hash: &Hash, directory_bits: u32) -> u64 {
    let first = u32::from_be_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]]);
    u64::from(first) >> (32 - directory_bits)
}
