//! Encryption of a file's segments: AES-256-GCM (NIST SP 800-38D) under one random key a file.
//!
//! Every segment is sealed by itself, so that any of them can be placed, fetched and opened alone:
//!
//! ```text
//! nonce            four zero bytes, then the segment's index, 8 bytes, big-endian
//! associated data  the file id, 16 bytes
//! sealed           ciphertext, as long as the plain bytes, then the tag, 16 bytes
//! ```
//!
//! **A key must never seal two different segments under one index**: GCM would give both away, and the power to forge more. So a key is
//! drawn for each publication, and drawn anew when an interrupted one goes on with another input or with other settings. A segment that was
//! moved to another index, or into another file, does not open.
//!
//! The cipher is that of AWS-LC (feature `aws-lc-rs`, the default: 10 GB/s and more on a Zen 5 core, segments of 1 MiB) or the portable one of RustCrypto
//! (feature `aes-gcm`). Both give the same bytes; tests compare them. `cargo bench -p benches --bench time -- aead` measures both, and BoringSSL.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(any(test, all(feature = "aes-gcm", not(feature = "aws-lc-rs"))))]
mod portable;

use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "aws-lc-rs")]
use self::aws_lc::Aes256Gcm;
#[cfg(all(feature = "aes-gcm", not(feature = "aws-lc-rs")))]
use self::portable::Aes256Gcm;

#[cfg(not(any(feature = "aws-lc-rs", feature = "aes-gcm")))]
compile_error!("store needs a cipher: feature `aws-lc-rs` (fast) or `aes-gcm` (portable)");

/// Bytes that sealing adds to a segment.
pub const TAG_LEN: usize = 16;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;

/// The key of one publication of one file. Overwritten when it is dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct FileKey(Zeroizing<[u8; KEY_LEN]>);

impl FileKey {
    /// Length in bytes.
    pub const LEN: usize = KEY_LEN;

    /// Draws a key from the operating system.
    ///
    /// # Errors
    /// When that has no randomness to give.
    pub fn generate() -> Result<FileKey, getrandom::Error> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(&mut *key)?;
        Ok(FileKey(key))
    }

    /// A key that was unwrapped.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> FileKey {
        FileKey(Zeroizing::new(*bytes))
    }

    /// The bytes, to wrap them for a reader.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

/// Names one publication of a file inside what is sealed. Random, not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub [u8; 16]);

/// A segment that was not sealed under this key, id and index, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {index} does not open: it was changed, or its key, file or place is another")]
pub struct NotAuthentic {
    /// Index of the segment in its file.
    pub index: u64,
}

/// Seals and opens the segments of one file. May be shared by threads.
pub struct SegmentCipher {
    cipher: Aes256Gcm,
    id: FileId,
}

impl fmt::Debug for SegmentCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentCipher").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SegmentCipher {
    /// The cipher of a file.
    pub fn new(key: &FileKey, id: FileId) -> SegmentCipher {
        SegmentCipher { cipher: Aes256Gcm::new(key.as_bytes()), id }
    }

    /// Encrypts a segment of at most [`SEGMENT_LEN_MAX`](crate::SEGMENT_LEN_MAX) bytes in place; the tag belongs right behind it.
    #[must_use = "without its tag a sealed segment cannot be opened"]
    pub fn seal(&self, index: u64, segment: &mut [u8]) -> [u8; TAG_LEN] {
        debug_assert!(segment.len() <= crate::SEGMENT_LEN_MAX as usize);
        self.cipher.seal(&nonce(index), &self.id.0, segment)
    }

    /// Decrypts in place what [`seal`](Self::seal) made with its tag behind it; returns the plain bytes.
    ///
    /// # Errors
    /// [`NotAuthentic`]. What `sealed` holds is then of no use.
    pub fn open<'a>(&self, index: u64, sealed: &'a mut [u8]) -> Result<&'a mut [u8], NotAuthentic> {
        let (segment, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(NotAuthentic { index })?;
        if self.cipher.open(&nonce(index), &self.id.0, segment, tag) {
            Ok(segment)
        } else {
            Err(NotAuthentic { index })
        }
    }
}

fn nonce(index: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests;
