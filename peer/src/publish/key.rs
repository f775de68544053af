//! The key of a file that is published: where it comes from, and what it is bound to.
//!
//! A key must never seal two different segments under one index ([`store::aead`]). So each publication has a key of its
//! own, drawn at random; one that goes on after it was cut off may use the same key only if every segment is what it was.
//! That is not trusted but built in: a resumable or convergent key is derived from a secret, the BLAKE3 of the whole
//! file, which is read once more for it, and every setting that shapes segments. Another input or another setting is
//! another key.

use std::fmt;

use identity::Uid;
use store::Hash;
use store::aead::{FileId, FileKey};

use super::error::PublishError;

/// Derivation contexts (BLAKE3 `derive_key`).
const RESUMABLE: &str = "ioex 2026 file key of a resumable publication v1";
const CONVERGENT: &str = "ioex 2026 file key of a convergent publication v1";

/// Shortest secret of a convergent key, in bytes.
pub const CONVERGENT_SECRET_LEN_MIN: usize = 16;

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
#[derive(Clone)]
pub enum KeyOrigin {
    /// Drawn for this publication alone. If that is cut off, the next one has another key and nothing is used again.
    Random,
    /// Derived, so that a publication which was cut off goes on with the same secret. The secret belongs to this
    /// publication alone: 32 random bytes, forgotten when it is done.
    Resumable([u8; 32]),
    /// Derived from a secret that is used again and again, so that the same file gives the same segments.
    ///
    /// Whoever has the secret can tell by the segments' addresses whether a file is the one they guess, and learn what is
    /// left to guess of it. For public firmware only.
    Convergent(Vec<u8>),
}

impl fmt::Debug for KeyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyOrigin::Random => "Random",
            KeyOrigin::Resumable(_) => "Resumable(..)",
            KeyOrigin::Convergent(_) => "Convergent(..)",
        })
    }
}

impl KeyOrigin {
    /// Whether the file's hash must be known before its key is.
    pub(super) fn needs_file_hash(&self) -> bool {
        !matches!(self, KeyOrigin::Random)
    }

    /// The key and the file's id. `settings` says everything else that shapes segments.
    pub(super) fn key(&self, file_hash: Hash, settings: &str) -> Result<(FileKey, FileId), PublishError> {
        let (context, secret): (_, &[u8]) = match self {
            KeyOrigin::Random => {
                let random = |e: getrandom::Error| PublishError::Random(e.to_string());
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(random)?;
                return Ok((FileKey::generate().map_err(random)?, FileId(id)));
            }
            KeyOrigin::Resumable(secret) => (RESUMABLE, secret),
            KeyOrigin::Convergent(secret) => (CONVERGENT, secret),
        };
        let mut hasher = blake3::Hasher::new_derive_key(context);
        // Each part has a length of its own in front, so that no two inputs run into one.
        for part in [secret, &file_hash.0, settings.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut derived = [0; 48];
        hasher.finalize_xof().fill(&mut derived);
        let (mut key, mut id) = ([0; FileKey::LEN], [0; 16]);
        key.copy_from_slice(&derived[..FileKey::LEN]);
        id.copy_from_slice(&derived[FileKey::LEN..]);
        Ok((FileKey::from_bytes(&key), FileId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_input_setting_secret_or_purpose_is_another_key() {
        let key = |origin: &KeyOrigin, hash: u8, settings: &str| {
            let (key, id) = origin.key(Hash([hash; 32]), settings).unwrap();
            (*key.as_bytes(), id)
        };
        let resumable = KeyOrigin::Resumable([1; 32]);
        let first = key(&resumable, 7, "a");
        assert_eq!(first, key(&resumable, 7, "a"));
        for other in [
            key(&resumable, 8, "a"),
            key(&resumable, 7, "b"),
            key(&KeyOrigin::Resumable([2; 32]), 7, "a"),
            key(&KeyOrigin::Convergent(vec![1; 32]), 7, "a"),
            key(&KeyOrigin::Random, 7, "a"),
        ] {
            assert!(first.0 != other.0 && first.1 != other.1);
        }
        assert_ne!(key(&KeyOrigin::Random, 7, "a"), key(&KeyOrigin::Random, 7, "a"));
    }
}
