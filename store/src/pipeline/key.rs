//! Keys of publications.

use std::fmt;

use zeroize::Zeroizing;

use super::Settings;
use crate::Hash;
use crate::aead::{FileId, FileKey};

/// The key of one publication of one file with one choice of settings, and the id that its segments are bound to.
///
/// It must never seal anything else: not another file, not a changed one, not the same one cut or compressed otherwise.
/// [`SealingKey::convergent`] sees to that by itself, with a secret of the publication's own too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    /// The key.
    pub key: FileKey,
    /// What the segments are bound to.
    pub id: FileId,
}

impl SealingKey {
    /// Draws key and id from the operating system.
    ///
    /// # Errors
    /// When that has no randomness to give.
    pub fn generate() -> Result<SealingKey, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(SealingKey { key: FileKey::generate()?, id: FileId(id) })
    }

    /// The key that follows from the file: whoever publishes the same bytes with the same settings and secret again gets the same segments, which
    /// nodes then need not be sent again. For public firmware, and nothing else.
    ///
    /// **Warning: this lets others confirm a guess.** Whoever holds the secret and guesses the file, or a part of it that is uncertain (a
    /// serial number, a password in a configuration), can encrypt the guess and see by the segments' addresses whether it was right; and whoever sees two lists sees
    /// whether they are of the same file. The publisher's secret keeps strangers from that, not those to whom it was given.
    ///
    /// `file_hash` is the BLAKE3 of the whole plain file: it takes a pass over the file before the one that publishes it.
    pub fn convergent(secret: &ConvergenceSecret, file_hash: &Hash, settings: &Settings) -> SealingKey {
        let mut hasher = blake3::Hasher::new_keyed(&secret.0);
        hasher.update(b"ioex convergent key v1\0");
        hasher.update(file_hash.as_bytes());
        hasher.update(settings.fingerprint().as_bytes());
        let mut bytes = Zeroizing::new([0u8; 48]);
        hasher.finalize_xof().fill(&mut *bytes);
        let (mut key, mut id) = (Zeroizing::new([0; 32]), [0; 16]);
        key.copy_from_slice(&bytes[..32]);
        id.copy_from_slice(&bytes[32..]);
        SealingKey { key: FileKey::from_bytes(&key), id: FileId(id) }
    }
}

/// A publisher's secret for [`SealingKey::convergent`]: 32 random bytes, kept as a secret key is.
#[derive(Clone)]
pub struct ConvergenceSecret(Zeroizing<[u8; 32]>);

impl ConvergenceSecret {
    /// The secret of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> ConvergenceSecret {
        ConvergenceSecret(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for ConvergenceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConvergenceSecret(..)")
    }
}
