//! What lies where in a list.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes of every list, by which it is told from other content.
pub const MAGIC: [u8; 8] = *b"IOEXLIST";
pub(super) const VERSION: u16 = 1;
pub(super) const HEADER_LEN: usize = 256;
/// What one segment takes in a list, in bytes.
pub const ENTRY_LEN: usize = 48;
pub(super) const SIGNATURE_LEN: usize = 64;

/// The shortest list: a name of one byte, no segments.
pub(super) const LEN_MIN: usize = HEADER_LEN + 8 + SIGNATURE_LEN;

/// Flag: `file_hash` is there.
pub(super) const FLAG_FILE_HASH: u16 = 1;

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
    pub(super) segment_count: U32,
    pub(super) parity_count: U32,
    pub(super) compression: U16,
    pub(super) encryption: U16,
    pub(super) code: U16,
    pub(super) name_len: U16,
    pub(super) code_data: U16,
    pub(super) code_parity: U16,
    pub(super) target_len: U16,
    pub(super) reserved_a: U16,
    pub(super) key_material_len: U32,
    pub(super) reserved_b: U32,
    pub(super) file_id: [u8; 16],
    pub(super) reserved_c: [u8; 80],
}

/// A segment.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) hash: [u8; 32],
    pub(super) file_offset: U64,
    pub(super) stored_len: U32,
    pub(super) plain_len: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(size_of::<Entry>() == ENTRY_LEN);

/// Bytes that a field of `len` bytes takes: fields of varying length are padded with zeros to a multiple of 8.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}
