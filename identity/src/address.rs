//! The address: what a person hands out so that others can send a friend request.

use std::fmt;
use std::str::FromStr;

use crate::uid::{UID_LEN, Uid};

/// Length of an address in bytes: UID 32, nospam 4, checksum 2.
pub const ADDRESS_LEN: usize = UID_LEN + NOSPAM_LEN + CHECKSUM_LEN;

const NOSPAM_LEN: usize = 4;
const CHECKSUM_LEN: usize = 2;

/// The longest base58 text of 38 bytes: ceil(38 * ln 256 / ln 58).
const ADDRESS_TEXT_LEN_MAX: usize = 52;

/// What the checksum's hash starts with, so that it is no hash of anything else.
const CHECKSUM_CONTEXT: &[u8] = b"ioex address v1\0";

/// A UID with a nospam value, which its owner changes to stop friend requests from those who know the old address.
///
/// `Display` and `FromStr` use the base58 text of `uid(32) || nospam(4) || checksum(2)`; the checksum is the first two
/// bytes of BLAKE3 over `"ioex address v1" || 0x00 || uid || nospam` and catches misreading and mistyping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whom the address reaches.
    pub uid: Uid,
    /// Four bytes that a friend request must repeat.
    pub nospam: [u8; 4],
}

impl Address {
    /// The 38 bytes, checksum included.
    pub fn to_bytes(&self) -> [u8; ADDRESS_LEN] {
        let mut bytes = [0; ADDRESS_LEN];
        bytes[..UID_LEN].copy_from_slice(self.uid.as_bytes());
        bytes[UID_LEN..UID_LEN + NOSPAM_LEN].copy_from_slice(&self.nospam);
        bytes[UID_LEN + NOSPAM_LEN..].copy_from_slice(&self.checksum());
        bytes
    }

    /// Reads the 38 bytes and checks the checksum.
    pub fn from_bytes(bytes: &[u8; ADDRESS_LEN]) -> Result<Address, AddressError> {
        let mut uid = [0; UID_LEN];
        uid.copy_from_slice(&bytes[..UID_LEN]);
        let mut nospam = [0; NOSPAM_LEN];
        nospam.copy_from_slice(&bytes[UID_LEN..UID_LEN + NOSPAM_LEN]);
        let address = Address { uid: Uid::from_bytes(uid), nospam };
        if address.checksum() != bytes[UID_LEN + NOSPAM_LEN..] {
            return Err(AddressError::Checksum);
        }
        Ok(address)
    }

    fn checksum(&self) -> [u8; CHECKSUM_LEN] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(CHECKSUM_CONTEXT).update(self.uid.as_bytes()).update(&self.nospam);
        let hash = hasher.finalize();
        [hash.as_bytes()[0], hash.as_bytes()[1]]
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(self.to_bytes()).into_string())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads the base58 text of exactly 38 bytes, without surrounding white space.
    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text.len() > ADDRESS_TEXT_LEN_MAX {
            return Err(AddressError::TextTooLong { len: text.len() });
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| AddressError::Character)?;
        let bytes: [u8; ADDRESS_LEN] =
            bytes.try_into().map_err(|bytes: Vec<u8>| AddressError::Length { len: bytes.len() })?;
        Address::from_bytes(&bytes)
    }
}

/// Why a text or bytes are not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is longer than any 38 bytes are in base58.
    #[error("an address has at most {ADDRESS_TEXT_LEN_MAX} base58 characters, this text has {len}")]
    TextTooLong {
        /// The text's length in bytes.
        len: usize,
    },
    /// A character is not of the base58 alphabet.
    #[error("an address is base58: 1-9, A-Z and a-z without 0, O, I and l")]
    Character,
    /// The text decodes to another number of bytes.
    #[error("an address is {ADDRESS_LEN} bytes, this text decodes to {len}; is it a UID, or was it cut?")]
    Length {
        /// How many bytes the text decodes to.
        len: usize,
    },
    /// The checksum does not fit.
    #[error("the address's checksum does not fit: a character was mistyped; copy it again")]
    Checksum,
}
