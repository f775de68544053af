//! Key material: how a list carries the key of an encrypted file to those who may read it.

use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use identity::{SecretKey, Uid};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::layout::{KEY_OPEN, KEY_WRAPPED, RawWrapped};
use crate::aead::{FileId, FileKey};

type Kem25519 = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::AesGcm256;

/// Domain of wrapped keys: HPKE's `info`.
const INFO: &[u8] = b"ioex file key v1";

/// What one receiver's key takes in a list, in bytes.
pub const WRAPPED_KEY_LEN: usize = 112;

/// The file's key sealed to one receiver: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. `info` is
/// `ioex file key v1`, the associated data is the file id and the publisher's UID, so that a key does not open in another file or under
/// another publisher's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    /// Who can open it.
    pub receiver: Uid,
    enc: [u8; 32],
    ciphertext: [u8; FileKey::LEN + 16],
}

/// The receiver's UID is no key to which anything can be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be sealed to {receiver}: it is no usable Ed25519 public key")]
pub struct WrapError {
    /// Who was to receive the key.
    pub receiver: Uid,
}

/// Why a list gives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The file is encrypted for others.
    #[error("the file is encrypted for {receivers} receivers, and {uid} is none of them: ask its publisher")]
    NotAReceiver {
        /// Who asked.
        uid: Uid,
        /// How many may read it.
        receivers: usize,
    },
    /// The file is encrypted for receivers, and no receiver's key was given.
    #[error("the file is encrypted for {receivers} receivers: it takes the secret key of one of them")]
    NoSecret {
        /// How many may read it.
        receivers: usize,
    },
    /// What was sealed to this receiver does not open.
    #[error("the file's key for {uid} does not open: the list was put together wrongly, ask its publisher")]
    Unwrap {
        /// Who asked.
        uid: Uid,
    },
}

impl WrappedKey {
    /// Seals `key` of the file `id` by `publisher` to `receiver`.
    ///
    /// # Errors
    /// [`WrapError`].
    pub fn seal(
        key: &FileKey,
        id: FileId,
        publisher: &Uid,
        receiver: &Uid,
        random: &mut impl CryptoRng,
    ) -> Result<WrappedKey, WrapError> {
        let refused = || WrapError { receiver: *receiver };
        let public = receiver.to_x25519().ok_or_else(refused)?;
        let public = <Kem25519 as Kem>::PublicKey::from_bytes(&public).map_err(|_| refused())?;
        let (enc, sealed) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem25519>(
            &OpModeS::Base,
            &public,
            INFO,
            key.as_bytes(),
            &associated_data(id, publisher),
            random,
        )
        .map_err(|_| refused())?;
        let enc = <[u8; 32]>::try_from(&enc.to_bytes()[..]).map_err(|_| refused())?;
        let ciphertext = sealed.try_into().map_err(|_| refused())?;
        Ok(WrappedKey { receiver: *receiver, enc, ciphertext })
    }

    /// The file's key, for its receiver.
    ///
    /// # Errors
    /// [`KeyError::NotAReceiver`] if it is sealed to another UID, [`KeyError::Unwrap`].
    pub fn open(&self, id: FileId, publisher: &Uid, secret: &SecretKey) -> Result<FileKey, KeyError> {
        let uid = secret.uid();
        if uid != self.receiver {
            return Err(KeyError::NotAReceiver { uid, receivers: 1 });
        }
        let broken = KeyError::Unwrap { uid };
        let private = <Kem25519 as Kem>::PrivateKey::from_bytes(&*secret.to_x25519()).map_err(|_| broken)?;
        let enc = <Kem25519 as Kem>::EncappedKey::from_bytes(&self.enc).map_err(|_| broken)?;
        let key = hpke::single_shot_open::<Aead, Kdf, Kem25519>(
            &OpModeR::Base,
            &private,
            &enc,
            INFO,
            &self.ciphertext,
            &associated_data(id, publisher),
        )
        .map(Zeroizing::new)
        .map_err(|_| broken)?;
        let key = <&[u8; FileKey::LEN]>::try_from(&key[..]).map_err(|_| broken)?;
        Ok(FileKey::from_bytes(key))
    }

    pub(super) fn to_raw(self) -> RawWrapped {
        RawWrapped { receiver: *self.receiver.as_bytes(), enc: self.enc, ciphertext: self.ciphertext }
    }

    fn from_raw(raw: &RawWrapped) -> WrappedKey {
        let receiver = Uid::from_bytes(raw.receiver);
        WrappedKey { receiver, enc: raw.enc, ciphertext: raw.ciphertext }
    }
}

/// File id, then the publisher's UID.
fn associated_data(id: FileId, publisher: &Uid) -> [u8; 48] {
    let mut data = [0; 48];
    data[..16].copy_from_slice(&id.0);
    data[16..].copy_from_slice(publisher.as_bytes());
    data
}

/// To whom a publisher gives the file's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everyone who has the list: the segments tell those who hold them nothing, the list tells its holders everything.
    Open,
    /// Those to whom it is wrapped, in any order, each once, at least one. Their UIDs stand in the list for all to see.
    Wrapped(Vec<WrappedKey>),
}

impl Readers {
    /// Kind, and the bytes of the section.
    pub(super) fn to_section(&self, key: &FileKey) -> (u16, Zeroizing<Vec<u8>>) {
        match self {
            Readers::Open => (KEY_OPEN, Zeroizing::new(key.as_bytes().to_vec())),
            Readers::Wrapped(keys) => {
                let mut raw: Vec<RawWrapped> = keys.iter().map(|key| key.to_raw()).collect();
                raw.sort_unstable_by_key(|key| key.receiver);
                (KEY_WRAPPED, Zeroizing::new(raw.as_bytes().to_vec()))
            }
        }
    }
}

/// What a list says about the file's key.
#[derive(Clone, Debug)]
pub enum KeyMaterial<'a> {
    /// The file is not encrypted.
    None,
    /// Whoever has the list has the key.
    Open(FileKey),
    /// Sealed to each receiver.
    Wrapped(WrappedKeys<'a>),
}

/// The keys of a list's receivers, ordered by their UIDs' bytes.
#[derive(Clone, Copy, Debug)]
pub struct WrappedKeys<'a> {
    pub(super) keys: &'a [RawWrapped],
    pub(super) id: FileId,
    pub(super) publisher: Uid,
}

impl WrappedKeys<'_> {
    /// How many receivers there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: a list that opens has at least one receiver.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Who may read the file.
    pub fn receivers(&self) -> impl ExactSizeIterator<Item = Uid> {
        self.keys.iter().map(|key| Uid::from_bytes(key.receiver))
    }

    /// The key as it was sealed to `receiver`.
    pub fn of(&self, receiver: &Uid) -> Option<WrappedKey> {
        let at = self.keys.binary_search_by_key(receiver.as_bytes(), |key| key.receiver).ok()?;
        Some(WrappedKey::from_raw(&self.keys[at]))
    }

    /// The file's key, by the secret of one of its receivers.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn unwrap(&self, secret: &SecretKey) -> Result<FileKey, KeyError> {
        let uid = secret.uid();
        let wrapped = self.of(&uid).ok_or(KeyError::NotAReceiver { uid, receivers: self.len() })?;
        wrapped.open(self.id, &self.publisher, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9180 appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode. The RFC has no such vector with AES-256-GCM; that
    /// cipher has its own in `store::aead`, and `tests/vectors/derive.py` wraps a key with it by code of its own.
    #[test]
    fn hpke_is_the_rfcs() {
        let private = hex::<32>("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        let enc = hex::<32>("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let sealed = hex::<45>(
            "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
        );
        let opened = hpke::single_shot_open::<hpke::aead::AesGcm128, Kdf, Kem25519>(
            &OpModeR::Base,
            &<Kem25519 as Kem>::PrivateKey::from_bytes(&private).unwrap(),
            &<Kem25519 as Kem>::EncappedKey::from_bytes(&enc).unwrap(),
            b"Ode on a Grecian Urn",
            &sealed,
            b"Count-0",
        );
        assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    }

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }
}
