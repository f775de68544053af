//! Content addresses.

use std::fmt;
use std::str::FromStr;

/// The address of a segment or list: the BLAKE3 hash of its stored bytes. Shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The address of `bytes`, computed on the calling thread with SIMD.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }
}

/// Why a text is not a [`struct@Hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashParseError {
    /// Not 64 characters.
    #[error("a content address has 64 hex digits, this text has {0} bytes")]
    Length(usize),
    /// A character that is not a lower-case hex digit. One spelling only, so that one address is one URL.
    #[error("a content address has lower-case hex digits only; position {0} holds something else")]
    Digit(usize),
}

impl FromStr for Hash {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Hash, HashParseError> {
        let text = text.as_bytes();
        if text.len() != 2 * Hash::LEN {
            return Err(HashParseError::Length(text.len()));
        }
        let mut hash = [0u8; Hash::LEN];
        for (i, &digit) in text.iter().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(HashParseError::Digit(i)),
            };
            hash[i / 2] = hash[i / 2] << 4 | value;
        }
        Ok(Hash(hash))
    }
}
