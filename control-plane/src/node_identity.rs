//! The node's identity on disk: made once, then read; its nospam value and its passphrase may change.

use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use crate::passphrase::{self, PassphraseError};
use identity::{
    Address, Backup, Cost, KeyFile, KeyFileError, SALT_LEN, SealError, SealedKey, SecretKey, Uid,
};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The key of this node, and the address it hands out.
#[derive(Debug)]
pub struct NodeIdentity {
    /// Signs lists, tokens and the certificate.
    pub key: SecretKey,
    /// The nospam value of the address; friend requests that lack it are refused.
    pub nospam: [u8; 4],
}

/// The identity's files as they are: the key may be sealed.
#[derive(Debug)]
pub struct IdentityFiles {
    /// What the key file holds.
    pub key: KeyFile,
    /// The nospam value of the address.
    pub nospam: [u8; 4],
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum NodeIdentityError {
    /// A file's trouble.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// No identity has been made in this data directory yet.
    #[error("there is no identity in {root}; `ioex up` makes one on its first start, `ioex id create` makes one alone, \
             `ioex id restore` brings one back", root = .root.display())]
    Missing {
        /// The data directory.
        root: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("{path} is not an identity: {source}", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// The key is sealed, and there is no passphrase.
    #[error("{path}: {source}", path = .path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: PassphraseError,
    },
    /// The key is sealed, and this passphrase does not open it.
    #[error("{path}: {source}", path = .path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SealError,
    },
    /// The UID's file names another UID than the seed gives: one of the two was exchanged.
    #[error("{public} says {found}, but the key beside it belongs to {expected}; restore the key that belongs to the \
             UID, or delete {public} to go on as {expected}", public = .public.display())]
    Mismatch {
        /// The UID's file.
        public: PathBuf,
        /// What it says.
        found: String,
        /// The UID of the key.
        expected: Uid,
    },
    /// The nospam file does not hold 8 hexadecimal digits.
    #[error("{path} does not hold 8 hexadecimal digits; draw a new value with `ioex id new-nospam` (old addresses end)",
            path = .path.display())]
    Nospam {
        /// The file.
        path: PathBuf,
    },
    /// Another identity is here already.
    #[error("{root} holds the identity {found} already; move its directory identity/ away first, or name another data \
             directory with --data", root = .root.display())]
    Taken {
        /// The data directory.
        root: PathBuf,
        /// Who is there.
        found: Uid,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

impl NodeIdentity {
    /// The UID.
    pub fn uid(&self) -> Uid {
        self.key.uid()
    }

    /// The address.
    pub fn address(&self) -> Address {
        Address { uid: self.uid(), nospam: self.nospam }
    }

    /// Reads the identity of a data directory and creates nothing but what a whole identity lacks. A passphrase, if there
    /// is one, comes from where [`passphrase::of_existing`] looks.
    pub fn load(directory: &DataDirectory) -> Result<NodeIdentity, NodeIdentityError> {
        let files = IdentityFiles::load(directory)?;
        let key = files.open(directory)?;
        Ok(NodeIdentity { key, nospam: files.nospam })
    }

    /// Reads the identity, or makes it on the first start; tells whether it was made.
    pub fn load_or_create(directory: &DataDirectory) -> Result<(NodeIdentity, bool), NodeIdentityError> {
        match NodeIdentity::load(directory) {
            Err(NodeIdentityError::Missing { .. }) => {}
            loaded => return loaded.map(|identity| (identity, false)),
        }
        let key = SecretKey::from_seed(*Zeroizing::new(random()?));
        write_key(directory, &KeyFile::Plain(key.clone()))?;
        let nospam = load_nospam(directory)?;
        Ok((NodeIdentity { key, nospam }, true))
    }
}

impl IdentityFiles {
    /// Reads the files and creates nothing but what a whole identity lacks.
    pub fn load(directory: &DataDirectory) -> Result<IdentityFiles, NodeIdentityError> {
        let key = load_key(directory)?;
        check_public(directory, key.uid())?;
        Ok(IdentityFiles { key, nospam: load_nospam(directory)? })
    }

    /// The UID.
    pub fn uid(&self) -> Uid {
        self.key.uid()
    }

    /// The address.
    pub fn address(&self) -> Address {
        Address { uid: self.uid(), nospam: self.nospam }
    }

    /// The key, for which a passphrase may be needed.
    pub fn open(&self, directory: &DataDirectory) -> Result<SecretKey, NodeIdentityError> {
        open(&self.key, directory.identity_key())
    }

    /// Writes the key file again, under a new passphrase or under none.
    pub fn set_passphrase(
        self,
        directory: &DataDirectory,
        passphrase: Option<&str>,
    ) -> Result<(), NodeIdentityError> {
        let key = self.open(directory)?;
        write_key(directory, &key_file(key, passphrase, directory.identity_key())?)
    }

    /// The backup: the key as it is in its file, or a plain one under a passphrase.
    pub fn backup(
        self,
        directory: &DataDirectory,
        passphrase: Option<&str>,
    ) -> Result<Backup, NodeIdentityError> {
        let key = match (self.key, passphrase) {
            (KeyFile::Plain(key), Some(_)) => key_file(key, passphrase, directory.identity_key())?,
            (key, _) => key,
        };
        Ok(Backup { key, nospam: self.nospam })
    }

    /// Brings an identity back. `path` is the backup's, for messages. A sealed key is opened first, so that nothing is
    /// restored that cannot be used, and stays sealed unless `is_plain`.
    ///
    /// # Errors
    /// [`NodeIdentityError::Taken`] if another identity is there; nothing was changed then.
    pub fn restore(
        directory: &DataDirectory,
        backup: Backup,
        path: PathBuf,
        is_plain: bool,
    ) -> Result<IdentityFiles, NodeIdentityError> {
        match load_key(directory) {
            Err(NodeIdentityError::Missing { .. }) => {}
            Ok(there) if there.uid() == backup.key.uid() => {}
            Ok(there) => {
                let root = directory.root().to_path_buf();
                return Err(NodeIdentityError::Taken { root, found: there.uid() });
            }
            Err(error) => return Err(error),
        }
        let key = open(&backup.key, path)?;
        let file = if is_plain { KeyFile::Plain(key) } else { backup.key };
        write_nospam(directory, backup.nospam)?;
        write_key(directory, &file)?;
        Ok(IdentityFiles { key: file, nospam: backup.nospam })
    }
}

/// Draws another nospam value. Whoever knows only the old address cannot send a friend request any more.
pub fn new_nospam(directory: &DataDirectory) -> Result<Address, NodeIdentityError> {
    let uid = load_key(directory)?.uid();
    check_public(directory, uid)?;
    let nospam = random()?;
    write_nospam(directory, nospam)?;
    Ok(Address { uid, nospam })
}

fn load_key(directory: &DataDirectory) -> Result<KeyFile, NodeIdentityError> {
    read_key(&directory.identity_key())?
        .ok_or_else(|| NodeIdentityError::Missing { root: directory.root().to_path_buf() })
}

/// What a key file holds; `None` if it is not there.
pub fn read_key(path: &Path) -> Result<Option<KeyFile>, NodeIdentityError> {
    let Some(text) = read_secret(path)? else { return Ok(None) };
    let wrong = |source| NodeIdentityError::Key { path: path.to_path_buf(), source };
    KeyFile::from_text(&text).map(Some).map_err(wrong)
}

/// The key itself, for which a passphrase may be needed. `path` is the file's, for messages.
pub fn open(key: &KeyFile, path: PathBuf) -> Result<SecretKey, NodeIdentityError> {
    match key {
        KeyFile::Plain(key) => Ok(key.clone()),
        KeyFile::Sealed(sealed) => match passphrase::of_existing() {
            Ok(text) => sealed.open(&text).map_err(|source| NodeIdentityError::Sealed { path, source }),
            Err(source) => Err(NodeIdentityError::Passphrase { path, source }),
        },
    }
}

fn key_file(key: SecretKey, passphrase: Option<&str>, path: PathBuf) -> Result<KeyFile, NodeIdentityError> {
    let Some(passphrase) = passphrase else { return Ok(KeyFile::Plain(key)) };
    SealedKey::seal(&key, passphrase, random::<SALT_LEN>()?, Cost::DEFAULT)
        .map(KeyFile::Sealed)
        .map_err(|source| NodeIdentityError::Sealed { path, source })
}

fn write_key(directory: &DataDirectory, key: &KeyFile) -> Result<(), NodeIdentityError> {
    // The key goes last: whoever finds it finds everything that belongs to it.
    write_whole(&directory.identity_public(), format!("{}\n", key.uid()).as_bytes(), 0o644)?;
    Ok(write_whole(&directory.identity_key(), key.to_text().as_bytes(), 0o600)?)
}

/// Compares the UID's file with the key, and writes it again if it is missing.
fn check_public(directory: &DataDirectory, uid: Uid) -> Result<(), NodeIdentityError> {
    let public = directory.identity_public();
    match std::fs::read_to_string(&public) {
        Ok(text) if text.trim() == uid.to_string() => Ok(()),
        Ok(text) => Err(NodeIdentityError::Mismatch { public, found: text.trim().into(), expected: uid }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(write_whole(&public, format!("{uid}\n").as_bytes(), 0o644)?)
        }
        Err(source) => Err(DataDirectoryError::Read { path: public, source }.into()),
    }
}

fn load_nospam(directory: &DataDirectory) -> Result<[u8; 4], NodeIdentityError> {
    let path = directory.nospam();
    if let Some(text) = read_secret(&path)? {
        let digits = text.trim();
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8);
        return value.map(u32::to_be_bytes).ok_or(NodeIdentityError::Nospam { path });
    }
    let nospam = random()?;
    write_nospam(directory, nospam)?;
    Ok(nospam)
}

fn write_nospam(directory: &DataDirectory, nospam: [u8; 4]) -> Result<(), NodeIdentityError> {
    let text = format!("{:08x}\n", u32::from_be_bytes(nospam));
    Ok(write_whole(&directory.nospam(), text.as_bytes(), 0o600)?)
}

fn random<const N: usize>() -> Result<[u8; N], NodeIdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NodeIdentityError::Random)?;
    Ok(bytes)
}
