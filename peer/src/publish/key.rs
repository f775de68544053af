//! The key of a file that is published: where it comes from, and what it is bound to.
//!
//! A key must never seal two different segments under one index ([`store::aead`]). So each publication has a key of its
//! own, drawn at random; one that goes on after it was cut off may use the same key only if every segment is what it was.
//! That is not trusted but built in: a resumable or convergent key is derived from a secret, the BLAKE3 of the whole
//! file, which is read once more for it, and every setting that shapes segments. Another input or another setting is
//! another key.

use identity::Uid;
use store::Hash;
use store::pipeline::{ConvergenceSecret, SealingKey, Settings};

use super::error::PublishError;

/// How a file is encrypted (AES-256-GCM).
#[derive(Debug, Clone)]
pub struct Secrecy {
    /// Who may read the file.
    pub readers: ReadBy,
    /// Where the key comes from.
    pub origin: KeyOrigin,
}

/// Who may read an encrypted file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadBy {
    /// Whoever has the list: its key stands in it.
    ListHolders,
    /// These, at least one: the key is wrapped for each. Their UIDs stand in the list for all to see.
    Only(Vec<Uid>),
}

/// Where a file's key comes from.
#[derive(Debug, Clone)]
pub enum KeyOrigin {
    /// Drawn for this publication alone. If that is cut off, the next one has another key and nothing is used again.
    Random,
    /// Derived from this secret, the file's content and the settings.
    ///
    /// With a secret that belongs to this publication alone, and is forgotten when it is done, a publication that was cut
    /// off goes on. With one that is used again and again, the same file gives the same segments: whoever has that secret can
    /// tell by the segments' addresses whether a file is the one they guess. For public firmware only.
    OfContent(ConvergenceSecret),
}

impl KeyOrigin {
    /// Whether the file's hash must be known before its key is.
    pub(super) fn needs_file_hash(&self) -> bool {
        matches!(self, KeyOrigin::OfContent(_))
    }

    /// The key, for this file with these settings.
    pub(super) fn key(&self, file_hash: Hash, settings: &Settings) -> Result<SealingKey, PublishError> {
        match self {
            KeyOrigin::Random => SealingKey::generate().map_err(|e| PublishError::Random(e.to_string())),
            KeyOrigin::OfContent(secret) => Ok(SealingKey::convergent(secret, &file_hash, settings)),
        }
    }
}
