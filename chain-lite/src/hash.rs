//! Double SHA-256, and how its results are written.

use std::fmt;

use sha2::{Digest, Sha256};

/// A double SHA-256: 32 bytes in the order in which they are hashed and sent. As a number it is
/// little-endian, so people read it from the last byte to the first, and so it is displayed.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Thirty-two zero bytes: what a genesis block names as its predecessor.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The same bytes from the last to the first.
    pub fn reversed(mut self) -> Hash {
        self.0.reverse();
        self
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of SHA-256 of `bytes`.
pub fn sha256d(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(Sha256::digest(bytes)).into())
}
