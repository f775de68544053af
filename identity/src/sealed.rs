//! Key files: a seed as it is, or sealed under a passphrase (Argon2id, RFC 9106, and AES-256-GCM).

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::key::{SecretKey, SeedError};
use crate::uid::{UID_LEN, Uid};

/// Length of the salt, bytes. It must never be used twice, since the key that it gives is used with one nonce.
pub const SALT_LEN: usize = 16;

/// The longest passphrase, bytes.
pub const PASSPHRASE_LEN_MAX: usize = 1_024;

const PREFIX: &str = "ioex-sealed-key-1:";
const CONTEXT: &[u8] = b"ioex sealed key v1\0";
const HEADER_LEN: usize = UID_LEN + 12 + SALT_LEN;
const SEED_LEN: usize = 32;
const TAG_LEN: usize = 16;
const RECORD_LEN: usize = HEADER_LEN + SEED_LEN + TAG_LEN;

/// Base64 of the record: its length is a multiple of three, so there is no padding and no unused bit.
const RECORD_TEXT_LEN: usize = RECORD_LEN / 3 * 4;
const _: () = assert!(RECORD_LEN.is_multiple_of(3));

/// A key's salt makes the key that seals it unique, so the nonce may be constant.
const NONCE: [u8; 12] = [0; 12];

/// What a guess at a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, KiB: at least 8 a lane, at most 1 GiB.
    pub memory_kib: u32,
    /// Passes over it, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 16.
    pub lanes: u32,
}

impl Cost {
    /// The second recommended choice of RFC 9106 section 4, for machines without 2 GiB to spare: 64 MiB, 3 passes, 4
    /// lanes. A fifth of a second on a server, two on a device.
    pub const DEFAULT: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// The bounds, which keep a hostile file from taking a machine's memory or hours of its time.
    fn is_allowed(self) -> bool {
        (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && (8 * self.lanes..=1 << 20).contains(&self.memory_kib)
    }
}

/// A seed sealed under a passphrase, with the UID that it belongs to in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey([u8; RECORD_LEN]);

impl SealedKey {
    /// Seals the seed of `key`. `salt` is drawn from the system's random source for every call.
    ///
    /// # Errors
    /// [`SealError::Passphrase`] if it is empty or longer than [`PASSPHRASE_LEN_MAX`]; [`SealError::Cost`].
    pub fn seal(
        key: &SecretKey,
        passphrase: &str,
        salt: [u8; SALT_LEN],
        cost: Cost,
    ) -> Result<SealedKey, SealError> {
        let mut record = [0; RECORD_LEN];
        record[..UID_LEN].copy_from_slice(key.uid().as_bytes());
        for (field, value) in
            record[UID_LEN..].chunks_exact_mut(4).zip([cost.memory_kib, cost.passes, cost.lanes])
        {
            field.copy_from_slice(&value.to_le_bytes());
        }
        record[HEADER_LEN - SALT_LEN..HEADER_LEN].copy_from_slice(&salt);
        let mut sealed = SealedKey(record);
        let cipher = sealed.cipher(passphrase)?;
        let mut seed = Zeroizing::new(*key.seed());
        let tag = cipher
            .encrypt_inout_detached(&NONCE.into(), &sealed.associated_data(), seed.as_mut_slice().into())
            .map_err(|_| SealError::Mismatch)?;
        sealed.0[HEADER_LEN..HEADER_LEN + SEED_LEN].copy_from_slice(seed.as_slice());
        sealed.0[HEADER_LEN + SEED_LEN..].copy_from_slice(&tag);
        Ok(sealed)
    }

    /// The key, if this is its passphrase.
    ///
    /// # Errors
    /// [`SealError::Mismatch`] if the passphrase is another or a byte was changed, which cannot be told apart.
    pub fn open(&self, passphrase: &str) -> Result<SecretKey, SealError> {
        let cipher = self.cipher(passphrase)?;
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        seed.copy_from_slice(&self.0[HEADER_LEN..HEADER_LEN + SEED_LEN]);
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&self.0[HEADER_LEN + SEED_LEN..]);
        let data = self.associated_data();
        cipher
            .decrypt_inout_detached(&NONCE.into(), &data, seed.as_mut_slice().into(), &tag.into())
            .map_err(|_| SealError::Mismatch)?;
        let key = SecretKey::from_seed(*seed);
        // Whoever knew the passphrase could have written another UID in front.
        if key.uid() == self.uid() { Ok(key) } else { Err(SealError::Mismatch) }
    }

    /// The UID that it says it belongs to; proved only by [`SealedKey::open`].
    pub fn uid(&self) -> Uid {
        let mut uid = [0; UID_LEN];
        uid.copy_from_slice(&self.0[..UID_LEN]);
        Uid::from_bytes(uid)
    }

    /// What a guess costs.
    pub fn cost(&self) -> Cost {
        let [memory_kib, passes, lanes] = [0, 4, 8].map(|at| {
            let mut field = [0; 4];
            field.copy_from_slice(&self.0[UID_LEN + at..UID_LEN + at + 4]);
            u32::from_le_bytes(field)
        });
        Cost { memory_kib, passes, lanes }
    }

    fn cipher(&self, passphrase: &str) -> Result<aes_gcm::Aes256Gcm, SealError> {
        let (len, cost) = (passphrase.len(), self.cost());
        if len == 0 || len > PASSPHRASE_LEN_MAX {
            return Err(SealError::Passphrase { len });
        }
        let refused = |_| SealError::Cost { cost };
        if !cost.is_allowed() {
            return Err(SealError::Cost { cost });
        }
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(SEED_LEN)).map_err(refused)?;
        let mut key = Zeroizing::new([0u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(
                passphrase.as_bytes(),
                &self.0[HEADER_LEN - SALT_LEN..HEADER_LEN],
                key.as_mut_slice(),
            )
            .map_err(refused)?;
        Ok(aes_gcm::Aes256Gcm::new((&*key).into()))
    }

    fn associated_data(&self) -> [u8; CONTEXT.len() + HEADER_LEN] {
        let mut data = [0; CONTEXT.len() + HEADER_LEN];
        data[..CONTEXT.len()].copy_from_slice(CONTEXT);
        data[CONTEXT.len()..].copy_from_slice(&self.0[..HEADER_LEN]);
        data
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey(of {})", self.uid())
    }
}

/// What a key file holds.
#[derive(Clone, Debug)]
pub enum KeyFile {
    /// The seed as it is.
    Plain(SecretKey),
    /// The seed under a passphrase.
    Sealed(SealedKey),
}

impl KeyFile {
    /// Reads the text of a key file: 64 hexadecimal digits, or `ioex-sealed-key-1:` and 144 characters of base64url, and
    /// at most one line end after them.
    ///
    /// # Errors
    /// [`KeyFileError`]; it quotes nothing of the text.
    pub fn from_text(text: &str) -> Result<KeyFile, KeyFileError> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let Some(record) = line.strip_prefix(PREFIX) else {
            return Ok(KeyFile::Plain(SecretKey::from_seed_text(text)?));
        };
        if record.len() != RECORD_TEXT_LEN {
            return Err(KeyFileError::Sealed { len: record.len() });
        }
        let bytes = URL_SAFE_NO_PAD.decode(record).map_err(|_| KeyFileError::Sealed { len: record.len() })?;
        let bytes = bytes.try_into().map_err(|_| KeyFileError::Sealed { len: record.len() })?;
        Ok(KeyFile::Sealed(SealedKey(bytes)))
    }

    /// The text of the file, its line end included. Wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        match self {
            KeyFile::Plain(key) => key.to_seed_text(),
            KeyFile::Sealed(SealedKey(record)) => {
                Zeroizing::new(format!("{PREFIX}{}\n", URL_SAFE_NO_PAD.encode(record)))
            }
        }
    }

    /// The UID: that of the key, or what a sealed one says.
    pub fn uid(&self) -> Uid {
        match self {
            KeyFile::Plain(key) => key.uid(),
            KeyFile::Sealed(sealed) => sealed.uid(),
        }
    }
}

/// Why a key cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The passphrase is empty or too long.
    #[error("a passphrase has 1 to {PASSPHRASE_LEN_MAX} bytes, this one has {len}")]
    Passphrase {
        /// Its length, bytes.
        len: usize,
    },
    /// The cost is outside of its bounds, or the machine lacks the memory.
    #[error(
        "a passphrase's cost is 1 to 16 passes in 1 to 16 lanes over at most 1 GiB; {} passes in {} lanes over {} KiB are \
         not done here",
        .cost.passes, .cost.lanes, .cost.memory_kib
    )]
    Cost {
        /// What was asked for.
        cost: Cost,
    },
    /// Another passphrase, or a changed file.
    #[error("the passphrase does not open the key: it is another one, or the file was damaged")]
    Mismatch,
}

/// Why a text is not a key file's. Says nothing of the text itself, which may be most of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// No prefix of a sealed key, and no seed either.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The prefix of a sealed key, and something else after it.
    #[error(
        "a sealed key has {RECORD_TEXT_LEN} characters of base64url after its prefix, this one {len}, or a wrong one; \
             restore it from a backup"
    )]
    Sealed {
        /// Characters after the prefix.
        len: usize,
    },
}
