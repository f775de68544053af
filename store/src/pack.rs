//! The pack format, version 1: what lies where in a pack file. Pure. `docs/pack.md` draws it.
//!
//! A pack is a header page and then commits, each starting at a multiple of 4 KiB: a commit header, a table of record
//! headers, and the payloads. Payloads of [`ALIGNED_LEN_MIN`] bytes and more start at a multiple of 4 KiB and so own
//! their pages; shorter ones lie close together, so that a million of them do not cost a million pages.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Hash, SEGMENT_LEN_MAX};

/// Format version that this code writes, and the newest that it reads.
pub const VERSION: u16 = 1;

/// Alignment of commits and of long payloads, in bytes.
pub const PAGE_LEN: u64 = 4096;

/// Length of a pack's header page, in bytes: the first commit starts here.
pub const PACK_HEADER_PAGE_LEN: u64 = PAGE_LEN;

/// Length of each of the three headers, in bytes.
pub const HEADER_LEN: u64 = 64;

/// Payloads of at least this many bytes start at a page. Below, the page that alignment costs would be more than 6 %.
pub const ALIGNED_LEN_MIN: u32 = 64 << 10;

/// Alignment of shorter payloads, in bytes.
pub const SHORT_ALIGN: u64 = 8;

/// Most records in one commit: their table is then 64 MiB.
pub const RECORDS_MAX: u32 = 1 << 20;

const PACK_MAGIC: [u8; 8] = *b"IOEXPACK";
const COMMIT_MAGIC: [u8; 4] = *b"IOXC";
const RECORD_MAGIC: [u8; 4] = *b"IOXR";

/// The first 64 bytes of a pack.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PackHeader {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    header_len: U32,
    store_id: [u8; 16],
    pack: U32,
    reserved: [u8; 20],
    checksum: [u8; 8],
}

/// The first 64 bytes of a commit.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommitHeader {
    magic: [u8; 4],
    version: U16,
    flags: U16,
    sequence: U64,
    extent_len: U64,
    record_count: U32,
    pack: U32,
    store_id: [u8; 16],
    reserved: [u8; 8],
    checksum: [u8; 8],
}

/// Flag of a record: a tombstone.
const FLAG_TOMBSTONE: u16 = 1;

/// One entry of a commit's table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RecordHeader {
    magic: [u8; 4],
    version: U16,
    flags: U16,
    payload_offset: U64,
    payload_len: U32,
    sequence_low: U32,
    hash: [u8; 32],
    checksum: [u8; 8],
}

// `IntoBytes` proves at compile time that none of them has padding; these prove their size.
const _: () = assert!(size_of::<PackHeader>() as u64 == HEADER_LEN);
const _: () = assert!(size_of::<CommitHeader>() as u64 == HEADER_LEN);
const _: () = assert!(size_of::<RecordHeader>() as u64 == HEADER_LEN);

/// What headers of one pack are sealed with: a key of the store's id and the pack's number, so that a header is valid
/// only in its own store, its own pack and its own place. The id is never sent, so no payload can pose as a header.
#[derive(Clone, Debug)]
pub struct PackKey {
    store_id: [u8; 16],
    pack: u32,
    key: [u8; 32],
}

/// A commit header that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Grows from commit to commit, over all packs of a store.
    pub sequence: u64,
    /// Bytes from this header to where the next commit starts: a multiple of [`PAGE_LEN`].
    pub extent_len: u64,
    /// Records in the table.
    pub record_count: u32,
}

/// A record header that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Address of the payload.
    pub hash: Hash,
    /// Where it lies, from the start of the pack, in bytes.
    pub payload_offset: u64,
    /// Its length in bytes; 0 in a tombstone.
    pub payload_len: u32,
    /// Says that the segment was deleted: records of it before this one do not count. Has no payload.
    pub is_tombstone: bool,
}

/// Why 64 bytes are not the header that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Magic, checksum or place is wrong, or a field is out of its bounds.
    #[error("the header does not verify")]
    Invalid,
    /// A version that this code does not know, in a header that verifies.
    #[error("format version {0} is newer than this program")]
    Version(u16),
}

impl Commit {
    /// Bytes of the header and the table.
    pub fn table_len(&self) -> u64 {
        table_len(self.record_count)
    }
}

impl Record {
    /// One past the payload's last byte.
    pub fn end(&self) -> u64 {
        self.payload_offset + u64::from(self.payload_len)
    }
}

impl PackKey {
    /// The key of pack number `pack` of store `store_id`.
    pub fn new(store_id: [u8; 16], pack: u32) -> PackKey {
        let mut material = [0u8; 20];
        material[..16].copy_from_slice(&store_id);
        material[16..].copy_from_slice(&pack.to_le_bytes());
        PackKey { store_id, pack, key: blake3::derive_key("ioex pack v1 header checksum", &material) }
    }

    /// The header page of this pack, [`PACK_HEADER_PAGE_LEN`] bytes.
    pub fn pack_header_page(&self) -> Vec<u8> {
        let mut header = PackHeader {
            magic: PACK_MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            header_len: (PACK_HEADER_PAGE_LEN as u32).into(),
            store_id: self.store_id,
            pack: self.pack.into(),
            reserved: [0; 20],
            checksum: [0; 8],
        };
        header.checksum = self.checksum(0, header.as_bytes());
        let mut page = header.as_bytes().to_vec();
        page.resize(PACK_HEADER_PAGE_LEN as usize, 0);
        page
    }

    /// Checks the first bytes of this pack.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn check_pack_header(&self, bytes: &[u8]) -> Result<(), HeaderError> {
        let (header, _) = PackHeader::ref_from_prefix(bytes).map_err(|_| HeaderError::Invalid)?;
        if header.magic != PACK_MAGIC
            || header.checksum != self.checksum(0, header.as_bytes())
            || header.store_id != self.store_id
            || header.pack.get() != self.pack
        {
            return Err(HeaderError::Invalid);
        }
        known(header.version)
    }

    /// The 64 bytes of a commit header at `offset`.
    pub fn commit_header(&self, offset: u64, commit: &Commit) -> [u8; 64] {
        let mut header = CommitHeader {
            magic: COMMIT_MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            sequence: commit.sequence.into(),
            extent_len: commit.extent_len.into(),
            record_count: commit.record_count.into(),
            pack: self.pack.into(),
            store_id: self.store_id,
            reserved: [0; 8],
            checksum: [0; 8],
        };
        header.checksum = self.checksum(offset, header.as_bytes());
        zerocopy::transmute!(header)
    }

    /// Reads the commit header at `offset`, of which `bytes` are what the file holds there.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn read_commit_header(&self, offset: u64, bytes: &[u8]) -> Result<Commit, HeaderError> {
        let (header, _) = CommitHeader::ref_from_prefix(bytes).map_err(|_| HeaderError::Invalid)?;
        if header.magic != COMMIT_MAGIC || header.checksum != self.checksum(offset, header.as_bytes()) {
            return Err(HeaderError::Invalid);
        }
        known(header.version)?;
        let commit = Commit {
            sequence: header.sequence.get(),
            extent_len: header.extent_len.get(),
            record_count: header.record_count.get(),
        };
        let is_sane = commit.extent_len.is_multiple_of(PAGE_LEN)
            && commit.record_count <= RECORDS_MAX
            && commit.extent_len >= commit.table_len()
            && offset.checked_add(commit.extent_len).is_some();
        if is_sane { Ok(commit) } else { Err(HeaderError::Invalid) }
    }

    /// The 64 bytes of a record header at `offset` in the commit with this sequence number.
    pub fn record_header(&self, offset: u64, sequence: u64, record: &Record) -> [u8; 64] {
        let mut header = RecordHeader {
            magic: RECORD_MAGIC,
            version: VERSION.into(),
            flags: if record.is_tombstone { FLAG_TOMBSTONE } else { 0 }.into(),
            payload_offset: record.payload_offset.into(),
            payload_len: record.payload_len.into(),
            sequence_low: (sequence as u32).into(),
            hash: record.hash.0,
            checksum: [0; 8],
        };
        header.checksum = self.checksum(offset, header.as_bytes());
        zerocopy::transmute!(header)
    }

    /// Reads the record header at `offset`, of which `bytes` are what the file holds there. It belongs to `commit`,
    /// which starts at `commit_offset` and whose payload area the record must lie in.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn read_record_header(
        &self,
        offset: u64,
        bytes: &[u8],
        commit_offset: u64,
        commit: &Commit,
    ) -> Result<Record, HeaderError> {
        let (header, _) = RecordHeader::ref_from_prefix(bytes).map_err(|_| HeaderError::Invalid)?;
        if header.magic != RECORD_MAGIC
            || header.sequence_low.get() != commit.sequence as u32
            || header.checksum != self.checksum(offset, header.as_bytes())
        {
            return Err(HeaderError::Invalid);
        }
        known(header.version)?;
        let record = Record {
            hash: Hash(header.hash),
            payload_offset: header.payload_offset.get(),
            payload_len: header.payload_len.get(),
            is_tombstone: header.flags.get() & FLAG_TOMBSTONE != 0,
        };
        let end = record.payload_offset.checked_add(u64::from(record.payload_len));
        let is_sane = record.payload_len <= SEGMENT_LEN_MAX
            && record.payload_offset.is_multiple_of(payload_align(record.payload_len))
            && record.payload_offset >= commit_offset + commit.table_len()
            && end.is_some_and(|end| end <= commit_offset + commit.extent_len)
            && !(record.is_tombstone && record.payload_len > 0);
        if is_sane { Ok(record) } else { Err(HeaderError::Invalid) }
    }

    /// First 8 bytes of the keyed BLAKE3 of the header's place and all of it but its checksum.
    fn checksum(&self, offset: u64, header: &[u8]) -> [u8; 8] {
        let mut input = [0u8; 64];
        input[..8].copy_from_slice(&offset.to_le_bytes());
        input[8..].copy_from_slice(&header[..56]);
        let hash = blake3::keyed_hash(&self.key, &input);
        let mut checksum = [0u8; 8];
        checksum.copy_from_slice(&hash.as_bytes()[..8]);
        checksum
    }
}

/// The store id and pack number that the pack header, or else the first commit header, in `start` claims, if it verifies
/// under its own claim. `start` is the beginning of a pack, two pages of it or less.
pub fn claimed_identity(start: &[u8]) -> Option<([u8; 16], u32)> {
    if let Ok((header, _)) = PackHeader::ref_from_prefix(start) {
        let (id, pack) = (header.store_id, header.pack.get());
        if PackKey::new(id, pack).check_pack_header(start) != Err(HeaderError::Invalid) {
            return Some((id, pack));
        }
    }
    let commit = start.get(PACK_HEADER_PAGE_LEN as usize..)?;
    let (header, _) = CommitHeader::ref_from_prefix(commit).ok()?;
    let (id, pack) = (header.store_id, header.pack.get());
    PackKey::new(id, pack).read_commit_header(PACK_HEADER_PAGE_LEN, commit).is_ok().then_some((id, pack))
}

/// Where a commit of records of these lengths puts them: the offset of each payload, in the order of `lens`, and
/// the commit's extent. Short payloads come first, so that long ones do not leave gaps between them.
pub fn layout(commit_offset: u64, lens: &[u32]) -> (Vec<u64>, u64) {
    let mut offsets = vec![0; lens.len()];
    let mut cursor = commit_offset + table_len(lens.len() as u32);
    for is_long in [false, true] {
        for (offset, &len) in offsets.iter_mut().zip(lens) {
            if (len >= ALIGNED_LEN_MIN) == is_long {
                *offset = cursor.next_multiple_of(payload_align(len));
                cursor = *offset + u64::from(len);
            }
        }
    }
    (offsets, cursor.next_multiple_of(PAGE_LEN) - commit_offset)
}

/// What the offset of a payload of `len` bytes is a multiple of.
fn payload_align(len: u32) -> u64 {
    if len >= ALIGNED_LEN_MIN { PAGE_LEN } else { SHORT_ALIGN }
}

/// Bytes that a payload takes with its record header, the commit's own left out.
pub(crate) fn framed_len(payload_len: u32) -> u64 {
    HEADER_LEN + u64::from(payload_len).next_multiple_of(payload_align(payload_len))
}

/// Bytes of a commit header and a table of `records`.
fn table_len(records: u32) -> u64 {
    HEADER_LEN * (1 + u64::from(records))
}

fn known(version: U16) -> Result<(), HeaderError> {
    if version.get() == VERSION { Ok(()) } else { Err(HeaderError::Version(version.get())) }
}
