//! The key of a publication that may be interrupted: kept in a file, and used again only for the same input and the same settings.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{SealingKey, Settings};
use crate::Hash;
use crate::aead::{FileId, FileKey};

const MAGIC: &[u8; 8] = b"IOEXPUBJ";
const VERSION: u64 = 1;
const LEN: usize = 8 + 8 + 32 + 32 + 16 + 32;

/// What tells that a file is still the same: which one it is, how long, and when it was last written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputIdentity {
    device: u64,
    inode: u64,
    len: u64,
    modified_ns: i128,
    /// Of the inode: nobody can set it back, as they can the time of modification.
    changed_ns: i128,
}

impl InputIdentity {
    /// That of an open file. Take it before the first byte is read, and compare it after the last: a file that was written meanwhile was not published as
    /// any of its states.
    ///
    /// # Errors
    /// As [`File::metadata`].
    pub fn of(file: &File) -> io::Result<InputIdentity> {
        let metadata = file.metadata()?;
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Ok(InputIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn fingerprint(&self, settings: &Settings) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("ioex publication journal v1");
        for number in [self.device, self.inode, self.len] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.modified_ns.to_le_bytes()).update(&self.changed_ns.to_le_bytes());
        hasher.update(settings.fingerprint().as_bytes());
        Hash(*hasher.finalize().as_bytes())
    }
}

/// The journal can neither be read nor written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said so.
    #[error("the publication's journal {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No key could be drawn.
    #[error("no random key: {0}")]
    Random(#[from] getrandom::Error),
}

/// The key for a publication of `input` with `settings`: the one that `path` keeps if it was begun with the same, else a new one, which `path` then keeps
/// (mode 0600, durable before this returns). The flag says whether it is the kept one. Remove the file when the publication has ended.
///
/// Of anything that cannot be read as a journal, nothing is used.
///
/// # Errors
/// [`JournalError`]. A publication without a journal would be sealed anew each time it goes on, which is safe, and sends everything again.
pub fn resume_key(
    path: &Path,
    input: &InputIdentity,
    settings: &Settings,
) -> Result<(SealingKey, bool), JournalError> {
    let refused = |error| JournalError::Io { path: path.to_owned(), error };
    let fingerprint = input.fingerprint(settings);
    if let Some(key) = read(path, &fingerprint).map_err(refused)? {
        return Ok((key, true));
    }
    let key = SealingKey::generate()?;
    write(path, &fingerprint, &key).map_err(refused)?;
    Ok((key, false))
}

fn read(path: &Path, fingerprint: &Hash) -> io::Result<Option<SealingKey>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(LEN + 1));
    file.take(LEN as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() != LEN {
        return Ok(None);
    }
    let (fields, checksum) = bytes.split_at(LEN - 32);
    let is_whole = Hash::of(fields).as_bytes() == checksum;
    let head = header(fingerprint);
    if !is_whole || fields[..head.len()] != head {
        return Ok(None);
    }
    let (mut key, mut id) = (Zeroizing::new([0; 32]), [0; 16]);
    key.copy_from_slice(&fields[48..80]);
    id.copy_from_slice(&fields[80..96]);
    Ok(Some(SealingKey { key: FileKey::from_bytes(&key), id: FileId(id) }))
}

fn header(fingerprint: &Hash) -> [u8; 48] {
    let mut header = [0; 48];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&VERSION.to_le_bytes());
    header[16..].copy_from_slice(fingerprint.as_bytes());
    header
}

fn write(path: &Path, fingerprint: &Hash, key: &SealingKey) -> io::Result<()> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LEN));
    bytes.extend_from_slice(&header(fingerprint));
    bytes.extend_from_slice(key.key.as_bytes());
    bytes.extend_from_slice(&key.id.0);
    let checksum = Hash::of(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // One that a crash left may have other rights.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
