//! From stored bytes to plain bytes.

use zstd::bulk::Decompressor;

use crate::Hash;
use crate::aead::{FileKey, NotAuthentic, SegmentCipher, TAG_LEN};
use crate::list::{Compression, Entry, ListView, SEAL_INDEX_PLAIN_HASHES};

/// Opens the data segments of one file. May be shared by threads, each with a [`Scratch`] of its own.
#[derive(Debug)]
pub struct SegmentOpener {
    cipher: Option<SegmentCipher>,
    compression: Compression,
}

/// A list's segments cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenerError {
    /// They are encrypted, and no key was given.
    #[error("the file is encrypted: its key is needed")]
    NoKey,
}

/// Why a segment does not open. It was verified by its address before, so the fault is the publisher's, or the key is another file's.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The tag does not fit.
    #[error(transparent)]
    NotAuthentic(#[from] NotAuthentic),
    /// It has another length than the list says.
    #[error("segment {index} has {found} bytes where the list says {expected}")]
    Length {
        /// Which.
        index: u32,
        /// The list's length, bytes.
        expected: u32,
        /// What was given.
        found: usize,
    },
    /// It is no zstd frame, or one of another length than the list says. Nothing beyond that length was written.
    #[error("segment {index} does not decompress to the {plain_len} bytes that the list says: {reason}")]
    Decompress {
        /// Which.
        index: u32,
        /// Bytes that it should have.
        plain_len: u32,
        /// Why.
        reason: String,
    },
}

/// What opening needs beside the segment: a decompressor and a buffer, used again for each.
#[derive(Default)]
pub struct Scratch {
    decompressor: Option<Decompressor<'static>>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("capacity", &self.plain.capacity()).finish_non_exhaustive()
    }
}

impl SegmentOpener {
    /// For the segments of this list; `key` is that of [`ListView::file_key`].
    ///
    /// # Errors
    /// [`OpenerError`].
    pub fn new(list: &ListView<'_>, key: Option<&FileKey>) -> Result<SegmentOpener, OpenerError> {
        let cipher = match (list.is_encrypted(), key) {
            (false, _) => None,
            (true, Some(key)) => Some(SegmentCipher::new(key, list.file_id())),
            (true, None) => return Err(OpenerError::NoKey),
        };
        Ok(SegmentOpener { cipher, compression: list.compression() })
    }

    /// The plain bytes of data segment `index`, which is `entry` in the list, out of its stored bytes: decrypted in place, and decompressed into `scratch` if
    /// it is compressed. They are exactly as many as the list says; nothing more is ever written, whatever a frame claims.
    ///
    /// # Errors
    /// [`OpenError`]; what `stored` holds is then of no use.
    pub fn open<'a>(
        &self,
        index: u32,
        entry: &Entry,
        stored: &'a mut [u8],
        scratch: &'a mut Scratch,
    ) -> Result<&'a [u8], OpenError> {
        if stored.len() != entry.stored_len as usize {
            return Err(OpenError::Length { index, expected: entry.stored_len, found: stored.len() });
        }
        let bytes: &'a [u8] = match &self.cipher {
            Some(cipher) => cipher.open(index.into(), stored)?,
            None => stored,
        };
        if bytes.len() == entry.plain_len as usize {
            return Ok(bytes);
        }
        let plain_len = entry.plain_len;
        let failed = |reason: String| OpenError::Decompress { index, plain_len, reason };
        if self.compression == Compression::None {
            return Err(failed("the list has no compression".into()));
        }
        let decompressor = match &mut scratch.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|error| failed(error.to_string()))?),
        };
        scratch.plain.resize(plain_len as usize, 0);
        let len = decompressor
            .decompress_to_buffer(bytes, &mut scratch.plain[..])
            .map_err(|error| failed(error.to_string()))?;
        if len != scratch.plain.len() {
            return Err(failed(format!("it has {len}")));
        }
        Ok(&scratch.plain)
    }
}

/// Why a document is not the plain hashes of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlainHashesError {
    /// The list has none, or the document is not the one that it names.
    #[error("this document is not the table of plain hashes that the list names")]
    NotNamed,
    /// It is encrypted, and no key was given.
    #[error("the plain hashes are encrypted: the file's key is needed")]
    NoKey,
    /// It does not open.
    #[error("the plain hashes do not open: the key is another file's")]
    NotAuthentic,
}

/// The BLAKE3 hashes of the plain bytes of each data segment, in order, out of the document that [`ListView::plain_hashes`] names.
///
/// # Errors
/// [`PlainHashesError`].
pub fn open_plain_hashes(
    list: &ListView<'_>,
    key: Option<&FileKey>,
    document: &[u8],
) -> Result<Vec<Hash>, PlainHashesError> {
    let named = list
        .plain_hashes()
        .is_some_and(|(hash, len)| document.len() == len as usize && Hash::of(document) == hash);
    if !named {
        return Err(PlainHashesError::NotNamed);
    }
    let mut document = document.to_vec();
    let table: &[u8] = if list.is_encrypted() {
        let key = key.ok_or(PlainHashesError::NoKey)?;
        let cipher = SegmentCipher::new(key, list.file_id());
        cipher.open(SEAL_INDEX_PLAIN_HASHES, &mut document).map_err(|_| PlainHashesError::NotAuthentic)?
    } else {
        &document
    };
    let (hashes, _) = table.as_chunks::<32>();
    Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// The document that [`ListView::plain_hashes`] names, made anew of the BLAKE3 hashes of the plain bytes of each data segment, in order.
///
/// # Errors
/// [`PlainHashesError::NoKey`]; [`PlainHashesError::NotNamed`] if what comes of them is not what the list names.
pub fn make_plain_hashes(
    list: &ListView<'_>,
    key: Option<&FileKey>,
    hashes: &[Hash],
) -> Result<Vec<u8>, PlainHashesError> {
    let cipher = match (list.is_encrypted(), key) {
        (false, _) => None,
        (true, Some(key)) => Some(SegmentCipher::new(key, list.file_id())),
        (true, None) => return Err(PlainHashesError::NoKey),
    };
    let table = hashes.iter().flat_map(|hash| hash.0).collect();
    let document = seal_plain_hashes(cipher.as_ref(), table);
    let is_named = list.plain_hashes() == Some((Hash::of(&document), document.len() as u32));
    if is_named { Ok(document) } else { Err(PlainHashesError::NotNamed) }
}

/// Seals a table of plain hashes as [`open_plain_hashes`] opens it.
pub(super) fn seal_plain_hashes(cipher: Option<&SegmentCipher>, mut table: Vec<u8>) -> Vec<u8> {
    if let Some(cipher) = cipher {
        table.reserve_exact(TAG_LEN);
        let tag = cipher.seal(SEAL_INDEX_PLAIN_HASHES, &mut table);
        table.extend_from_slice(&tag);
    }
    table
}
