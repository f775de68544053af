//! What lies where in a list.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes of every list, by which it is told from other content.
pub const MAGIC: [u8; 8] = *b"IOEXLIST";
pub(super) const VERSION: u16 = 2;
pub(super) const HEADER_LEN: usize = 256;
/// What one segment, parity segment or outboard document takes in a list, in bytes.
pub const ENTRY_LEN: usize = 48;
pub(super) const SIGNATURE_LEN: usize = 64;

/// The shortest list: a name of one byte, no segments.
pub(super) const LEN_MIN: usize = HEADER_LEN + 8 + SIGNATURE_LEN;

/// Flag: `file_hash` is there.
pub(super) const FLAG_FILE_HASH: u16 = 1;
/// Flag: `file_hash` is encrypted, with its tag in `file_hash_tag`.
pub(super) const FLAG_FILE_HASH_SEALED: u16 = 2;
/// Flag: the file is a content list itself.
pub(super) const FLAG_OUTER: u16 = 4;
pub(super) const FLAGS_KNOWN: u16 = FLAG_FILE_HASH | FLAG_FILE_HASH_SEALED | FLAG_OUTER;

pub(super) const KEY_NONE: u16 = 0;
pub(super) const KEY_OPEN: u16 = 1;
pub(super) const KEY_WRAPPED: u16 = 2;

pub(super) const ENCRYPTION_AES_256_GCM: u16 = 1;

pub(super) const CHUNKING_FIXED: u16 = 0;
pub(super) const CHUNKING_FASTCDC: u16 = 1;

/// The first 256 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: U16,
    pub(super) flags: U16,
    pub(super) header_len: U32,
    pub(super) document_len: U64,
    pub(super) publisher: [u8; 32],
    pub(super) counter: U64,
    pub(super) expires_s: U64,
    pub(super) version_major: U32,
    pub(super) version_minor: U32,
    pub(super) version_patch: U32,
    pub(super) segment_len: U32,
    pub(super) file_len: U64,
    pub(super) file_hash: [u8; 32],
    pub(super) data_count: U32,
    pub(super) parity_count: U32,
    pub(super) compression: U16,
    pub(super) encryption: U16,
    pub(super) code: U16,
    pub(super) name_len: U16,
    pub(super) code_data: U16,
    pub(super) code_parity: U16,
    pub(super) target_len: U16,
    pub(super) key_kind: U16,
    pub(super) key_material_len: U32,
    pub(super) outboard_count: U32,
    pub(super) file_id: [u8; 16],
    pub(super) file_hash_tag: [u8; 16],
    pub(super) plain_hashes: [u8; 32],
    pub(super) plain_hashes_len: U32,
    pub(super) chunk_len_average: U32,
    pub(super) chunking: U16,
    pub(super) outboard_block: U16,
    pub(super) reserved: [u8; 20],
}

/// A data segment, parity segment or outboard document.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) hash: [u8; 32],
    pub(super) file_offset: U64,
    pub(super) stored_len: U32,
    pub(super) plain_len: U32,
}

/// The file's key for one receiver.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawWrapped {
    pub(super) receiver: [u8; 32],
    pub(super) enc: [u8; 32],
    pub(super) ciphertext: [u8; 48],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(size_of::<RawEntry>() == ENTRY_LEN);
const _: () = assert!(size_of::<RawWrapped>() == super::WRAPPED_KEY_LEN);

/// Bytes that a field of `len` bytes takes: fields of varying length are padded with zeros to a multiple of 8.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}
