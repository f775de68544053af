//! The content address list, version 1: what a publisher signs so that a receiver can find, verify and put together
//! a file. `docs/list.md` draws it.

use identity::{SecretKey, Uid};

use crate::Hash;

/// Longest list in bytes: it is stored and served as one segment.
pub const LIST_LEN_MAX: usize = crate::SEGMENT_LEN_MAX as usize;

/// Why a document is not a list that can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not what the format says.
    #[error("{0}")]
    Malformed(&'static str),
    /// The signature is not the publisher's.
    #[error("the signature is not the publisher's")]
    Signature,
}

/// A list that has been checked, read in place.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'a> {
    document: &'a [u8],
}

impl<'a> ListView<'a> {
    /// Checks bounds and structure, then the signature; only then is there anything to read.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn open(_document: &'a [u8]) -> Result<ListView<'a>, ListError> {
        todo!()
    }
    /// The list's address: BLAKE3 of the whole document.
    pub fn hash(&self) -> Hash {
        Hash::of(self.document)
    }
    /// Who signed it.
    pub fn publisher(&self) -> Uid {
        todo!()
    }
    /// The publisher's name for the file, 1 to 255 bytes.
    pub fn name(&self) -> &'a str {
        todo!()
    }
    /// Which product the file is for; may be empty.
    pub fn target(&self) -> &'a str {
        todo!()
    }
    /// Semantic version: major, minor, patch.
    pub fn version(&self) -> (u32, u32, u32) {
        todo!()
    }
    /// Grows with every list that the publisher signs under this name.
    pub fn counter(&self) -> u64 {
        todo!()
    }
    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub fn expires_s(&self) -> u64 {
        todo!()
    }
    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        todo!()
    }
    /// BLAKE3 of the whole file, if the list says it.
    pub fn file_hash(&self) -> Option<Hash> {
        todo!()
    }
    /// Number of segments.
    pub fn segment_count(&self) -> u32 {
        todo!()
    }
    /// Address and length in bytes of segment `i`, or `None` past the last.
    pub fn segment(&self, _i: u32) -> Option<(Hash, u32)> {
        todo!()
    }
    /// Where segment `i` starts in the file, or `None` past the last.
    pub fn offset_of(&self, _i: u32) -> Option<u64> {
        todo!()
    }
    /// The segment that holds byte `offset` of the file, and the offset within it; `None` past the end.
    pub fn locate(&self, _offset: u64) -> Option<(u32, u32)> {
        todo!()
    }
}

/// What goes into a list.
#[derive(Clone, Debug)]
pub struct ListBuilder {
    /// The publisher's name for the file, 1 to 255 bytes.
    pub name: String,
    /// Semantic version: major, minor, patch.
    pub version: (u32, u32, u32),
    /// Grows with every list that the publisher signs under this name.
    pub counter: u64,
    /// Seconds since 1970 (UTC) after which the list is not to be used; 0: never.
    pub expires_s: u64,
    /// Which product the file is for, at most 255 bytes; may be empty.
    pub target: String,
    /// BLAKE3 of the whole file.
    pub file_hash: Option<Hash>,
    /// The segments in order: address and length in bytes.
    pub segments: Vec<(Hash, u32)>,
}

impl ListBuilder {
    /// The signed document, at most [`LIST_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`ListError::Malformed`] if a field is out of its range.
    pub fn sign(&self, _key: &SecretKey) -> Result<Vec<u8>, ListError> {
        todo!()
    }
}
