//! AES-256-GCM in Rust, with the AES and carry-less multiplication instructions of the CPU if it has them.

use aes_gcm::aead::{AeadInOut, KeyInit};

use super::{KEY_LEN, NONCE_LEN, TAG_LEN};

pub(super) struct Aes256Gcm(aes_gcm::Aes256Gcm);

impl Aes256Gcm {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Aes256Gcm {
        Aes256Gcm(aes_gcm::Aes256Gcm::new(key.into()))
    }

    pub(super) fn seal(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], bytes: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.0.encrypt_inout_detached(nonce.into(), associated, bytes.into());
        tag.expect("a segment is far below the longest message of GCM").into()
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        self.0.decrypt_inout_detached(nonce.into(), associated, bytes.into(), tag.into()).is_ok()
    }
}
