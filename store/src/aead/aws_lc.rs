//! AES-256-GCM by AWS-LC.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{KEY_LEN, NONCE_LEN, TAG_LEN};

pub(super) struct Aes256Gcm(LessSafeKey);

impl Aes256Gcm {
    pub(super) fn new(key: &[u8; KEY_LEN]) -> Aes256Gcm {
        Aes256Gcm(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key of 32 bytes")))
    }

    pub(super) fn seal(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], bytes: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), bytes);
        let tag = tag.expect("a segment is far below the longest message of GCM");
        tag.as_ref().try_into().expect("a tag of 16 bytes")
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::from(associated), tag, bytes).is_ok()
    }
}
