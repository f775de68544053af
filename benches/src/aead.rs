//! Encryption of 64 KiB by the cipher that the store uses and by those that it could use instead.

use aes_gcm::aead::{AeadInOut, KeyInit};
use boring::symm::{Cipher, Crypter, Mode};
use store::aead::{FileId, FileKey, SegmentCipher, TAG_LEN};

/// Bytes of a message.
pub const MESSAGE_LEN: usize = 64 << 10;

const KEY: [u8; FileKey::LEN] = [7; FileKey::LEN];
const ID: [u8; 16] = [9; 16];
const NONCE: [u8; 12] = [0; 12];

/// A message and the ciphers, keyed.
pub struct Ciphers {
    store: SegmentCipher,
    portable: aes_gcm::Aes256Gcm,
    message: Vec<u8>,
    sealed: Vec<u8>,
}

impl std::fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ciphers").finish_non_exhaustive()
    }
}

/// All of them, and a message of zeros.
pub fn ciphers() -> Ciphers {
    Ciphers {
        store: SegmentCipher::new(&FileKey::from_bytes(&KEY), FileId(ID)),
        portable: aes_gcm::Aes256Gcm::new(&KEY.into()),
        message: vec![0; MESSAGE_LEN],
        sealed: vec![0; MESSAGE_LEN],
    }
}

/// By `store::aead`, as it is built here: AWS-LC.
pub fn store_work(ciphers: &mut Ciphers) -> [u8; TAG_LEN] {
    ciphers.store.seal(0, &mut ciphers.message)
}

/// By crate `aes-gcm`.
pub fn portable_work(ciphers: &mut Ciphers) -> [u8; TAG_LEN] {
    let message = ciphers.message.as_mut_slice().into();
    ciphers.portable.encrypt_inout_detached(&NONCE.into(), &ID, message).expect("a short message").into()
}

/// By BoringSSL, which keys itself for each message through this interface.
///
/// # Panics
/// Not unless BoringSSL lacks AES-256-GCM.
pub fn boring_work(ciphers: &mut Ciphers) -> [u8; TAG_LEN] {
    let mut crypter =
        Crypter::new(Cipher::aes_256_gcm(), Mode::Encrypt, &KEY, Some(&NONCE)).expect("a key and a nonce");
    crypter.aad_update(&ID).expect("associated data");
    crypter.update(&ciphers.message, &mut ciphers.sealed).expect("room for the message");
    let mut tag = [0; TAG_LEN];
    crypter.finalize(&mut []).expect("nothing is left");
    crypter.get_tag(&mut tag).expect("a tag");
    tag
}

#[cfg(test)]
mod tests {
    /// What is compared must be the same work.
    #[test]
    fn all_ciphers_give_one_tag() {
        let tag = super::store_work(&mut super::ciphers());
        assert_eq!(super::portable_work(&mut super::ciphers()), tag);
        assert_eq!(super::boring_work(&mut super::ciphers()), tag);
    }
}
