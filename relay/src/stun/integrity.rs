//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT: what covers what, and the keys (RFC 8489 sections 14.5
//! to 14.7 and 18.5).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

use super::message::HEADER_LEN;

/// Bytes of MESSAGE-INTEGRITY.
pub(super) const SHA1_LEN: usize = 20;

/// Bytes of MESSAGE-INTEGRITY-SHA256 that is not truncated.
pub(super) const SHA256_LEN: usize = 32;

/// What FINGERPRINT is XORed with, so that it differs from a checksum of another protocol.
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Which attribute protects a message, and with which MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, 32 bytes.
    Sha256,
}

/// How a long-term key is made of user name, realm and password (RFC 8489 section 18.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// MD5, code 1: what every client knows.
    Md5,
    /// SHA-256, code 2.
    Sha256,
}

impl PasswordAlgorithm {
    /// The algorithm of a code in PASSWORD-ALGORITHM.
    pub fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Md5),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// Its code in PASSWORD-ALGORITHM.
    pub const fn code(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }
}

/// A long-term key: 16 bytes of MD5 or 32 of SHA-256. Overwritten when it is dropped, never printed.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Key {
    bytes: [u8; 32],
    #[zeroize(skip)]
    algorithm: PasswordAlgorithm,
}

impl Key {
    /// A key made with MD5.
    pub fn md5(key: &[u8; 16]) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(key);
        Self { bytes, algorithm: PasswordAlgorithm::Md5 }
    }

    /// A key made with SHA-256.
    pub fn sha256(key: &[u8; 32]) -> Self {
        Self { bytes: *key, algorithm: PasswordAlgorithm::Sha256 }
    }

    /// How it was made.
    pub fn algorithm(&self) -> PasswordAlgorithm {
        self.algorithm
    }

    /// The bytes that key the HMAC.
    pub fn as_bytes(&self) -> &[u8] {
        match self.algorithm {
            PasswordAlgorithm::Md5 => &self.bytes[..16],
            PasswordAlgorithm::Sha256 => &self.bytes,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, hidden)", self.algorithm)
    }
}

/// What the answer to an authenticated request is protected with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyKey {
    /// The key of the request's user.
    pub key: Key,
    /// The attribute: SHA-256 if the request named a password algorithm, SHA-1 if not.
    pub integrity: Integrity,
}

/// RFC 8489 section 14.6: "The value will be at most 32 bytes, but it MUST be at least 16 bytes and MUST be a multiple of
/// 4 bytes."
pub(super) fn sha256_len_is_valid(len: usize) -> bool {
    (16..=SHA256_LEN).contains(&len) && len.is_multiple_of(4)
}

/// FINGERPRINT of a message whose FINGERPRINT attribute would start behind `covered`: the checksum of everything before
/// it, with a length field that includes it.
pub(super) fn fingerprint(covered: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    cover(covered, 8, |bytes| crc.update(bytes));
    crc.finalize() ^ FINGERPRINT_XOR
}

/// MAC of a message whose integrity attribute, with a value of `value_len` bytes, would start behind `covered`. Returns
/// an array of which the first 20 or 32 bytes count.
pub(super) fn mac(integrity: Integrity, key: &[u8], covered: &[u8], value_len: usize) -> [u8; SHA256_LEN] {
    let mut out = [0; SHA256_LEN];
    match integrity {
        Integrity::Sha1 => {
            if let Some(mac) = keyed::<Hmac<Sha1>>(key, covered, value_len) {
                out[..SHA1_LEN].copy_from_slice(&mac.finalize().into_bytes());
            }
        }
        Integrity::Sha256 => {
            if let Some(mac) = keyed::<Hmac<Sha256>>(key, covered, value_len) {
                out.copy_from_slice(&mac.finalize().into_bytes());
            }
        }
    }
    out
}

/// Whether the integrity attribute that starts at byte `at` of `message`, with a value of `value_len` bytes, is right.
/// The comparison takes the same time wherever the bytes differ.
pub(super) fn verify(integrity: Integrity, key: &[u8], message: &[u8], at: usize, value_len: usize) -> bool {
    let Some((covered, attribute)) = message.split_at_checked(at) else { return false };
    let Some(stated) = attribute.get(4..4 + value_len) else { return false };
    match integrity {
        Integrity::Sha1 => {
            keyed::<Hmac<Sha1>>(key, covered, value_len).is_some_and(|mac| mac.verify_slice(stated).is_ok())
        }
        Integrity::Sha256 => keyed::<Hmac<Sha256>>(key, covered, value_len)
            .is_some_and(|mac| mac.verify_truncated_left(stated).is_ok()),
    }
}

/// The MAC over what an integrity attribute covers. HMAC takes keys of every length, so there always is one.
fn keyed<M: Mac + KeyInit>(key: &[u8], covered: &[u8], value_len: usize) -> Option<M> {
    let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
    cover(covered, 4 + value_len, |bytes| mac.update(bytes));
    Some(mac)
}

/// Feeds a message up to an attribute of `attribute_len` bytes, with a length field that counts up to the attribute's
/// end, whatever follows it (RFC 8489 section 14.5).
fn cover(covered: &[u8], attribute_len: usize, mut feed: impl FnMut(&[u8])) {
    let Some((&[t0, t1, _, _], rest)) = covered.split_first_chunk::<4>() else { return };
    let counted = (covered.len() + attribute_len).saturating_sub(HEADER_LEN);
    let [l0, l1] = u16::try_from(counted).unwrap_or(u16::MAX).to_be_bytes();
    feed(&[t0, t1, l0, l1]);
    feed(rest);
}
