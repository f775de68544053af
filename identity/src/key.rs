//! Secret keys and domain-separated signatures.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use crate::uid::Uid;

/// What a signature is for. Every signature is over `domain string || 0x00 || message`, so that one made for one
/// purpose never passes for another; the strings hold no zero byte, so no two (domain, message) pairs give equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// The BLAKE3 of a content address list up to its signature, signed by its publisher.
    ContentList,
    /// A capability token. COSE fixes the signed bytes (RFC 9052 section 4.4), so here `domain string || 0x00` travels
    /// as the structure's external data instead; see [`crate::token`].
    Token,
    /// A TLS certificate's SubjectPublicKeyInfo, signed by its node; see [`crate::certificate`].
    Certificate,
    /// A record in the distributed hash table.
    DhtRecord,
    /// A usage receipt.
    Receipt,
    /// A sealed envelope of the mailbox.
    Envelope,
    /// The key material that a TLS connection exports, signed to log in at a mailbox over it.
    MailboxLogin,
    /// What two devices that pair have said to each other.
    Pairing,
}

impl Domain {
    /// All domains, for tests and documents.
    pub const ALL: [Domain; 8] = [
        Domain::ContentList,
        Domain::Token,
        Domain::Certificate,
        Domain::DhtRecord,
        Domain::Receipt,
        Domain::Envelope,
        Domain::MailboxLogin,
        Domain::Pairing,
    ];

    /// The domain string: printable ASCII. Part of the formats; a string is never changed, a new version is a new one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Domain::ContentList => "ioex content list v2",
            Domain::Token => "ioex token v1",
            Domain::Certificate => "ioex certificate v1",
            Domain::DhtRecord => "ioex dht record v1",
            Domain::Receipt => "ioex receipt v1",
            Domain::Envelope => "ioex envelope v1",
            Domain::MailboxLogin => "ioex mailbox login v1",
            Domain::Pairing => "ioex pairing v1",
        }
    }

    /// `domain string || 0x00 || message`.
    pub(crate) fn separated(self, message: &[u8]) -> Vec<u8> {
        let domain = self.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(domain.len() + 1 + message.len());
        bytes.extend_from_slice(domain);
        bytes.push(0);
        bytes.extend_from_slice(message);
        bytes
    }
}

/// An Ed25519 signature (RFC 8032): R(32) then S(32).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The secret half of a UID. Wiped from memory when dropped; `Debug` shows only the UID.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed (RFC 8032 section 5.1.5), which the caller draws from the system's random source.
    pub fn from_seed(seed: [u8; 32]) -> SecretKey {
        let seed = Zeroizing::new(seed);
        SecretKey(SigningKey::from_bytes(&seed))
    }

    /// The seed. Keep it in a file with mode 0600, and nowhere else.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Reads the text of a key file: 64 hexadecimal digits, and at most one line end after them.
    pub fn from_seed_text(text: &str) -> Result<SecretKey, SeedError> {
        let digits = text.strip_suffix('\n').unwrap_or(text);
        let digits = digits.strip_suffix('\r').unwrap_or(digits).as_bytes();
        if digits.len() != 64 {
            return Err(SeedError::Length { len: digits.len() });
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        for (index, pair) in digits.chunks_exact(2).enumerate() {
            let high = hex_digit(pair[0]).ok_or(SeedError::Digit { index: index * 2 })?;
            let low = hex_digit(pair[1]).ok_or(SeedError::Digit { index: index * 2 + 1 })?;
            seed[index] = high << 4 | low;
        }
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// The text of a key file: 64 lower-case hexadecimal digits and a line end. Wiped when dropped.
    pub fn to_seed_text(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in self.seed() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text.push('\n');
        text
    }

    /// The UID that this key speaks for.
    pub fn uid(&self) -> Uid {
        Uid::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// The X25519 private key (RFC 7748) that goes with [`Uid::to_x25519`]: the first half of SHA-512 of the seed, which is also
    /// what Ed25519 takes its scalar from. For opening what was sealed to this UID, and for nothing else.
    pub fn to_x25519(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }

    /// Signs `domain string || 0x00 || message`. Deterministic, as RFC 8032 has it.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        let mut bytes = domain.separated(message);
        let signature = self.sign_raw(&bytes);
        bytes.zeroize();
        signature
    }

    /// Signs exactly `bytes`, which must carry their domain themselves.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.uid())
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Why a text is not a key file's. Says nothing of the text itself, which may be most of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Not 64 digits.
    #[error("a key file holds 64 hexadecimal digits, this one {len} bytes; restore it from a backup")]
    Length {
        /// How many bytes there are, the line end left out.
        len: usize,
    },
    /// A byte is no hexadecimal digit.
    #[error("byte {index} (counted from 0) of the key file is not a hexadecimal digit")]
    Digit {
        /// Its index.
        index: usize,
    },
}
