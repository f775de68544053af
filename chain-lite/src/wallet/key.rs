//! Keys and signatures: ECDSA over secp256r1 (P-256) with SHA-256.

use std::fmt;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{self, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::wallet::{ProgramHash, Script};

/// Length of a public key: its parity and its abscissa.
pub const PUBLIC_KEY_LEN: usize = 33;

/// Length of a signature: r and s, 32 bytes each, the first byte the highest.
pub const SIGNATURE_LEN: usize = 64;

const SECRET_KEY_LEN: usize = 32;

/// A key that spends. Its memory is cleared when it is dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that is these bytes as a number, the first byte the highest. For a new key they come from the
    /// system's source of randomness, and whoever drew them clears them.
    pub fn from_bytes(bytes: &[u8; SECRET_KEY_LEN]) -> Result<SecretKey, KeyError> {
        SigningKey::from_slice(bytes).map(SecretKey).map_err(|_| KeyError::Secret)
    }

    /// Reads the 64 hexadecimal digits that the chain's own wallets export. Where such a wallet left out zeros
    /// at the front, they must be put back: a digit that was lost elsewhere would make another key.
    pub fn from_hex(text: &str) -> Result<SecretKey, KeyError> {
        let digits = text.chars().count();
        if digits != 2 * SECRET_KEY_LEN {
            return Err(KeyError::Digits { found: digits });
        }
        let mut bytes = Zeroizing::new([0; SECRET_KEY_LEN]);
        for (at, character) in text.chars().enumerate() {
            let digit = character.to_digit(16).ok_or(KeyError::Digit { at })?;
            bytes[at / 2] = bytes[at / 2] << 4 | digit as u8;
        }
        SecretKey::from_bytes(&bytes)
    }

    /// The key as the chain's own wallets import it, for who keeps it elsewhere.
    pub fn to_hex(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(<[u8; SECRET_KEY_LEN]>::from(self.0.to_bytes()));
        let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_KEY_LEN));
        for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from_digit(nibble.into(), 16).expect("a nibble is a digit"));
        }
        text
    }

    /// The key that verifies.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(*self.0.verifying_key())
    }

    /// Signs SHA-256 of `message`, a transaction's [`unsigned`](crate::pow::Transaction::unsigned) bytes say.
    /// The same message has the same signature (RFC 6979); no randomness is needed.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature: ecdsa::Signature = self.0.sign(message);
        Signature(signature.to_bytes().into())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public_key())
    }
}

/// A key that verifies. As text it is 66 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    bytes: [u8; PUBLIC_KEY_LEN],
}

impl PublicKey {
    /// Reads a compressed point: 2 or 3, then 32 bytes.
    pub fn from_bytes(bytes: &[u8; PUBLIC_KEY_LEN]) -> Result<PublicKey, KeyError> {
        // The library knows another form of 33 bytes (5, then the abscissa alone), which this chain does not.
        if !matches!(bytes[0], 2 | 3) {
            return Err(KeyError::Public);
        }
        let key = VerifyingKey::from_sec1_bytes(bytes).map_err(|_| KeyError::Public)?;
        Ok(PublicKey { key, bytes: *bytes })
    }

    /// The compressed point.
    pub fn to_bytes(&self) -> [u8; PUBLIC_KEY_LEN] {
        self.bytes
    }

    /// The account that this key alone spends from. Its address begins with `E`.
    pub fn account(&self) -> ProgramHash {
        Script::Standard(*self).account()
    }

    /// Whether the secret key signed `message`.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        ecdsa::Signature::from_slice(&signature.0)
            .is_ok_and(|signature| self.key.verify(message, &signature).is_ok())
    }

    fn new(key: VerifyingKey) -> PublicKey {
        let point = key.to_sec1_point(true);
        let bytes = point.as_bytes().try_into().expect("a compressed point has 33 bytes");
        PublicKey { key, bytes }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature: r and s. Of each there is a twin with s the other way round, which is valid too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; SIGNATURE_LEN]);

/// Why something is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The number is 0 or at least the order of the curve.
    #[error("this number is no secret key: it is 0 or too large")]
    Secret,
    /// There are more or fewer digits than a key has.
    #[error("a secret key has 64 hexadecimal digits, not {found}; put zeros in front if it has fewer")]
    Digits {
        /// How many there are.
        found: usize,
    },
    /// A character is no hexadecimal digit.
    #[error("character {} of the secret key is no hexadecimal digit", at + 1)]
    Digit {
        /// Characters before this one.
        at: usize,
    },
    /// The bytes are no point of the curve.
    #[error("these 33 bytes are no compressed point of secp256r1")]
    Public,
}
