//! Accounts, and how people write them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::sha256d;

/// Length of a program hash: its prefix and 20 bytes of hash.
pub const PROGRAM_HASH_LEN: usize = 21;

/// Characters of an address. With the prefixes that there are, each has as many.
pub const ADDRESS_LEN: usize = 34;

const CHECKSUM_LEN: usize = 4;

/// An account: a byte that says of what kind, and RIPEMD-160 of SHA-256 of the script that guards it. As text
/// it is an address: base58 of the 21 bytes and a checksum, the first 4 bytes of their double SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramHash(pub [u8; PROGRAM_HASH_LEN]);

impl ProgramHash {
    /// The kind of account. `None` for a byte that no script leads to.
    pub fn prefix(&self) -> Option<Prefix> {
        Prefix::from_byte(self.0[0])
    }
}

impl fmt::Display for ProgramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; PROGRAM_HASH_LEN + CHECKSUM_LEN];
        bytes[..PROGRAM_HASH_LEN].copy_from_slice(&self.0);
        bytes[PROGRAM_HASH_LEN..].copy_from_slice(&checksum(&self.0));
        f.pad(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for ProgramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The kinds of accounts, by the first byte of their program hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// One key. Addresses begin with `E`.
    Standard = 0x21,
    /// Some of several keys. Addresses begin with `8`.
    Multisig = 0x12,
    /// A side chain. Addresses begin with `X`.
    CrossChain = 0x4b,
    /// An identity. Addresses begin with `i`.
    Identity = 0x67,
    /// A contract of a side chain. Addresses begin with `C`.
    Contract = 0x1c,
}

impl Prefix {
    fn from_byte(byte: u8) -> Option<Prefix> {
        Some(match byte {
            0x21 => Prefix::Standard,
            0x12 => Prefix::Multisig,
            0x4b => Prefix::CrossChain,
            0x67 => Prefix::Identity,
            0x1c => Prefix::Contract,
            _ => return None,
        })
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It has another length.
    #[error("an address has {ADDRESS_LEN} characters, not {found}")]
    Length {
        /// How many characters it has.
        found: usize,
    },
    /// It has a character that no address has.
    #[error("character {} of the address is {found:?}; it has digits and letters but 0, O, I and l", at + 1)]
    Character {
        /// Characters before this one.
        at: usize,
        /// The character.
        found: char,
    },
    /// The checksum is another one.
    #[error("the address ends with another checksum; is a character wrong or two in the wrong order?")]
    Checksum {
        /// What the address should end with.
        expected: [u8; CHECKSUM_LEN],
        /// What it ends with.
        found: [u8; CHECKSUM_LEN],
    },
    /// The kind of account is unknown: it is an address of another chain.
    #[error("the address has prefix {found:#04x}; addresses of this chain begin with E, 8, X, i or C")]
    Prefix {
        /// The prefix.
        found: u8,
    },
}

impl FromStr for ProgramHash {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ProgramHash, AddressError> {
        let found = text.chars().count();
        if let Some((at, found)) = text.chars().enumerate().find(|(_, found)| !is_base58(*found)) {
            return Err(AddressError::Character { at, found });
        }
        if found != ADDRESS_LEN {
            return Err(AddressError::Length { found });
        }
        let mut bytes = [0; PROGRAM_HASH_LEN + CHECKSUM_LEN];
        // 58^34 is below 2^200, so that only leading ones, each a byte of 0, can make it longer than 25 bytes.
        bs58::decode(text).onto(&mut bytes).map_err(|_| AddressError::Prefix { found: 0 })?;
        let (hash, end) = bytes.split_first_chunk().expect("25 bytes hold 21");
        let (expected, found) = (checksum(hash), [end[0], end[1], end[2], end[3]]);
        if found != expected {
            return Err(AddressError::Checksum { expected, found });
        }
        let hash = ProgramHash(*hash);
        hash.prefix().ok_or(AddressError::Prefix { found: hash.0[0] })?;
        Ok(hash)
    }
}

fn checksum(hash: &[u8; PROGRAM_HASH_LEN]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = sha256d(hash).0;
    [a, b, c, d]
}

fn is_base58(character: char) -> bool {
    character.is_ascii_alphanumeric() && !matches!(character, '0' | 'O' | 'I' | 'l')
}
