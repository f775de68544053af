//! Binds a TLS certificate to a UID: a node's self-signed P-256 certificate carries an extension in which the node's
//! Ed25519 key signs the certificate's public key.
//!
//! Whoever completes a TLS handshake with that certificate holds its P-256 key; the extension shows that the UID's
//! holder vouches for that key. The extension is not critical, so that browsers and curl, which trust certificates in
//! other ways, pass over it. Drawn in `identity/docs/certificate.md`.

use crate::key::{Domain, SecretKey, Signature};
use crate::uid::{SignatureError, UID_LEN, Uid};

/// The extension's object identifier: the arc under which anyone may use the number of a UUID of their own
/// (1.2.840.113556.1.8000.2554), here of b39b2c37-5b04-4aec-9cf9-aca2304a810f, in groups of at most 24 bits.
pub const EXTENSION_OID: &[u64] =
    &[1, 2, 840, 113_556, 1, 8000, 2554, 45_979, 11_319, 23_300, 19_180, 40_185, 11_313_712, 4_882_703];

/// Length of the extension's value in bytes: DER tag and length 2, UID 32, signature 64.
pub const EXTENSION_LEN: usize = 2 + UID_LEN + 64;

/// What an extension holds must be DER (RFC 5280 section 4.2): OCTET STRING, 96 bytes.
const DER_HEAD: [u8; 2] = [0x04, 96];

/// The longest SubjectPublicKeyInfo that is looked at, in bytes. P-256 takes 91, RSA with 8,192 bits 1,062.
pub const SPKI_LEN_MAX: usize = 2048;

/// The extension's value, the DER of an OCTET STRING of `uid(32) || signature(64)`: the signature is over the DER bytes of the certificate's
/// SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) under [`Domain::Certificate`].
pub fn extension_value(key: &SecretKey, spki_der: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(EXTENSION_LEN);
    value.extend_from_slice(&DER_HEAD);
    value.extend_from_slice(key.uid().as_bytes());
    value.extend_from_slice(&key.sign(Domain::Certificate, spki_der).0);
    value
}

/// Checks an extension's value against the certificate it was found in, and gives the UID that vouches for it.
///
/// The caller compares the UID with the one it expects: anyone can bind a certificate to a UID of their own.
pub fn verify_extension(value: &[u8], spki_der: &[u8]) -> Result<Uid, BindingError> {
    if spki_der.is_empty() || spki_der.len() > SPKI_LEN_MAX {
        return Err(BindingError::SpkiLength { len: spki_der.len() });
    }
    let value: &[u8; EXTENSION_LEN] =
        value.try_into().map_err(|_| BindingError::ValueLength { len: value.len() })?;
    let (head, statement) = value.split_at(DER_HEAD.len());
    if head != DER_HEAD {
        return Err(BindingError::NotOctetString);
    }
    let mut uid = [0; UID_LEN];
    uid.copy_from_slice(&statement[..UID_LEN]);
    let mut signature = [0; 64];
    signature.copy_from_slice(&statement[UID_LEN..]);
    let uid = Uid::from_bytes(uid);
    uid.verify(Domain::Certificate, spki_der, &Signature(signature))?;
    Ok(uid)
}

/// Why a certificate is not bound to a UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The extension's value has another length.
    #[error("the UID extension holds {len} bytes, not {EXTENSION_LEN}")]
    ValueLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The value is no DER OCTET STRING of 96 bytes.
    #[error("the UID extension is not a DER OCTET STRING of 96 bytes")]
    NotOctetString,
    /// The certificate's public key is absent or larger than any in use.
    #[error("the certificate's SubjectPublicKeyInfo has {len} bytes; 1 to {SPKI_LEN_MAX} are accepted")]
    SpkiLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The signature does not fit: the extension was copied from another certificate, or made by another key.
    #[error("the certificate's UID extension does not prove its UID: {0}")]
    Signature(#[from] SignatureError),
}
