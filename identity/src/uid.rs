//! The UID: an Ed25519 public key (RFC 8032), shown in base58.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;

use crate::key::{Domain, Signature};

/// Length of a UID in bytes.
pub const UID_LEN: usize = 32;

/// The longest base58 text of 32 bytes: ceil(32 * ln 256 / ln 58).
const UID_TEXT_LEN_MAX: usize = 44;

/// Names a node, a peer or a publisher: its Ed25519 public key, 32 bytes as RFC 8032 encodes it.
///
/// Any 32 bytes make a `Uid`, so that names can be compared, stored and printed without curve arithmetic; whether they
/// are a usable key shows in [`Uid::verify`]. `Display` and `FromStr` use base58 with the Bitcoin alphabet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid([u8; UID_LEN]);

impl Uid {
    /// The UID of these bytes.
    pub const fn from_bytes(bytes: [u8; UID_LEN]) -> Uid {
        Uid(bytes)
    }

    /// The public key's bytes.
    pub const fn as_bytes(&self) -> &[u8; UID_LEN] {
        &self.0
    }

    /// Checks that the holder of this UID signed `message` under `domain` (see [`Domain`]).
    ///
    /// Verification is strict (RFC 8032 section 5.1.7 without cofactor, canonical encodings, no small-order points), so
    /// that all implementations that follow the page agree on every signature, and none fits two messages or two keys.
    pub fn verify(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.verify_raw(&domain.separated(message), signature)
    }

    /// Checks a signature over exactly `bytes`, which must carry their domain themselves.
    pub(crate) fn verify_raw(&self, bytes: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let key = self.key().ok_or(SignatureError::KeyInvalid { uid: *self })?;
        key.verify_strict(bytes, &signature).map_err(|_| SignatureError::Mismatch { uid: *self })
    }

    /// The X25519 public key (RFC 7748) to which secrets for the holder of this UID are sealed: the image of the Ed25519 point under the
    /// birational map of RFC 7748 section 4.1, `u = (1 + y) / (1 - y)`. `None` if the UID is no usable key.
    pub fn to_x25519(&self) -> Option<[u8; 32]> {
        Some(self.key()?.to_montgomery().to_bytes())
    }

    /// The curve point, if these bytes are one that can be used.
    fn key(&self) -> Option<VerifyingKey> {
        // The curve library accepts encodings of y that are not reduced, which would give one key several UIDs.
        if !is_y_reduced(&self.0) {
            return None;
        }
        VerifyingKey::from_bytes(&self.0).ok().filter(|key| !key.is_weak())
    }
}

/// Whether the y coordinate (the encoding without its sign bit, little-endian) is below p = 2^255 - 19.
fn is_y_reduced(bytes: &[u8; UID_LEN]) -> bool {
    let top_is_full = bytes[31] & 0x7f == 0x7f && bytes[1..31].iter().all(|byte| *byte == 0xff);
    !(top_is_full && bytes[0] >= 0xed)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&bs58::encode(&self.0).into_string())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({self})")
    }
}

impl FromStr for Uid {
    type Err = UidError;

    /// Reads the base58 text of exactly 32 bytes, without surrounding white space.
    fn from_str(text: &str) -> Result<Uid, UidError> {
        // Base58 decoding takes quadratic time, so the length is bounded first.
        if text.len() > UID_TEXT_LEN_MAX {
            return Err(UidError::TextTooLong { len: text.len() });
        }
        let bytes = bs58::decode(text).into_vec().map_err(UidError::from_base58)?;
        let bytes: [u8; UID_LEN] =
            bytes.try_into().map_err(|bytes: Vec<u8>| UidError::Length { len: bytes.len() })?;
        Ok(Uid(bytes))
    }
}

/// Why a text is not a UID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// The text is longer than any 32 bytes are in base58.
    #[error(
        "a UID has at most {UID_TEXT_LEN_MAX} base58 characters, this text has {len}; is it an address or a URL?"
    )]
    TextTooLong {
        /// The text's length in bytes.
        len: usize,
    },
    /// A character is not of the base58 alphabet.
    #[error("character {index} (counted from 0) is not base58: use 1-9, A-Z and a-z without 0, O, I and l")]
    Character {
        /// Byte index of the character.
        index: usize,
    },
    /// The text decodes to another number of bytes.
    #[error("a UID is 32 bytes, this text decodes to {len}; was it cut?")]
    Length {
        /// How many bytes the text decodes to.
        len: usize,
    },
}

impl UidError {
    fn from_base58(error: bs58::decode::Error) -> UidError {
        match error {
            bs58::decode::Error::InvalidCharacter { index, .. }
            | bs58::decode::Error::NonAsciiCharacter { index } => UidError::Character { index },
            // Decoding into a growing vector fails in no other way; the enum is open, so an index is still owed.
            _ => UidError::Character { index: 0 },
        }
    }
}

/// Why a signature does not prove anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The UID's bytes are no Ed25519 public key, or one of small order that would fit any message.
    #[error("{uid} is not a usable Ed25519 public key")]
    KeyInvalid {
        /// The UID in question.
        uid: Uid,
    },
    /// The signature was made by another key, over other bytes or under another domain, or is malformed.
    #[error("the signature is not one of {uid} over these bytes in this domain")]
    Mismatch {
        /// The UID that should have signed.
        uid: Uid,
    },
}
