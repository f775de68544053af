//! The backup of an identity: key and nospam in one text file.

use zeroize::Zeroizing;

use crate::address::{Address, AddressError};
use crate::sealed::{KeyFile, KeyFileError};
use crate::uid::Uid;

const TITLE: &str = "ioex identity backup 1";

/// The longest text of a backup, bytes, which a reader need not exceed.
pub const BACKUP_LEN_MAX: usize = 1_024;

/// What brings an identity back with its address: the key, sealed or not, and the nospam value.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The key.
    pub key: KeyFile,
    /// The nospam value of the address.
    pub nospam: [u8; 4],
}

impl Backup {
    /// Three lines: what it is, the address, the key file's text. Wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        let address = Address { uid: self.key.uid(), nospam: self.nospam };
        Zeroizing::new(format!("{TITLE}\n{address}\n{}", *self.key.to_text()))
    }

    /// Reads the three lines. Line ends may be CR LF, and the last one may be missing.
    ///
    /// # Errors
    /// [`BackupError`]; it quotes nothing of the key.
    pub fn from_text(text: &str) -> Result<Backup, BackupError> {
        let mut lines = text.splitn(3, '\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        if lines.next() != Some(TITLE) {
            return Err(BackupError::Title);
        }
        let address: Address = lines.next().unwrap_or_default().parse()?;
        let key = KeyFile::from_text(lines.next().unwrap_or_default())?;
        if key.uid() != address.uid {
            return Err(BackupError::Mismatch { address: address.uid, key: key.uid() });
        }
        Ok(Backup { key, nospam: address.nospam })
    }
}

/// Why a text is no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The first line is another.
    #[error("a backup begins with the line `{TITLE}`; is this another file?")]
    Title,
    /// The second line is no address.
    #[error("line 2 of the backup: {0}")]
    Address(#[from] AddressError),
    /// The third line is no key.
    #[error("line 3 of the backup: {0}")]
    Key(#[from] KeyFileError),
    /// The lines belong to two identities.
    #[error(
        "line 2 of the backup is an address of {address}, line 3 a key of {key}; one of them was exchanged"
    )]
    Mismatch {
        /// UID of the address.
        address: Uid,
        /// UID of the key.
        key: Uid,
    },
}
