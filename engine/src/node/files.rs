//! The data directory as the engine sees it: what it reads, what is its own, and how it replaces a file.
//!
//! ```text
//! DIR/identity/uid.pub   the node's UID, base58 (made by `ioex up`; the secret key is not the engine's business)
//! DIR/tls/cert.pem       certificate chain, leaf first; DIR/tls/key.pem its key
//! DIR/store/             packs and index, locked by the one engine that runs
//! DIR/engine/            0700: policy (the last one), quic.key (0600: secret and generation of connection ids),
//!                        tickets.key (0600: secrets of session tickets)
//! DIR/run/               0700: engine.sock, engine.pid, upgrade.sock (where an engine that is to take over connects)
//! ```

use identity::Uid;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// No file that is read here is longer; a longer one is something else.
const TEXT_LEN_MAX: u64 = 4096;

/// Paths below the data directory.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// The data directory at `root`; touches nothing.
    #[must_use]
    pub fn new(root: &Path) -> DataDirectory {
        DataDirectory { root: root.to_path_buf() }
    }

    /// Makes the directories that are the engine's own, and closes them to other users.
    ///
    /// # Errors
    /// [`FileError`], with the path.
    pub fn prepare(&self) -> Result<(), FileError> {
        for path in [self.root.join("engine"), self.root.join("run")] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)))
                .map_err(|source| FileError::Io { path, source })?;
        }
        Ok(())
    }

    /// Certificate chain, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.root.join("tls/cert.pem")
    }

    /// Its key, PEM.
    #[must_use]
    pub fn certificate_key(&self) -> PathBuf {
        self.root.join("tls/key.pem")
    }

    /// The content store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The last policy.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.root.join("engine/policy")
    }

    /// The secrets of session tickets.
    pub(super) fn ticket_keys(&self) -> PathBuf {
        self.root.join("engine/tickets.key")
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("run/engine.sock")
    }

    /// Where an engine waits for one that is to take its place.
    #[must_use]
    pub fn upgrade_socket(&self) -> PathBuf {
        self.root.join("run/upgrade.sock")
    }

    /// The process id of the engine that runs, as text.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("run/engine.pid")
    }

    /// The node's UID.
    ///
    /// # Errors
    /// [`FileError`]: no UID has been made yet, or the file holds something else.
    pub fn uid(&self) -> Result<Uid, FileError> {
        let path = self.root.join("identity/uid.pub");
        let text = read_text(&path)?.ok_or_else(|| FileError::NoIdentity { path: path.clone() })?;
        text.trim().parse().map_err(|_| FileError::Malformed { path, what: "a UID in base58" })
    }

    /// The secret of connection ids, reset tokens and Retry tokens, with its generation; drawn on the first start.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn quic_secret(&self) -> Result<QuicSecret, FileError> {
        let path = self.root.join("engine/quic.key");
        if let Some(text) = read_text(&path)? {
            let what = "64 hexadecimal digits and a generation; remove it to draw a new key";
            return QuicSecret::parse(&text).ok_or(FileError::Malformed { path, what });
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(FileError::Random)?;
        let secret = QuicSecret { key, generation: 1 };
        replace(&path, secret.to_text().as_bytes()).map_err(|source| FileError::Io { path, source })?;
        Ok(secret)
    }

    /// Writes the secret down as it is now, with the generation of the engine that has taken over.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn keep_quic_secret(&self, secret: &QuicSecret) -> Result<(), FileError> {
        let path = self.root.join("engine/quic.key");
        replace(&path, secret.to_text().as_bytes()).map_err(|source| FileError::Io { path, source })
    }
}

/// What connection ids and tokens are made from.
#[derive(Clone, PartialEq, Eq)]
pub struct QuicSecret {
    /// 32 random bytes.
    pub key: [u8; 32],
    /// Tells processes apart that share the key. A copy of a data directory that runs beside the original must count it
    /// up, or each would reset the other's connections.
    pub generation: u32,
}

impl QuicSecret {
    fn parse(text: &str) -> Option<QuicSecret> {
        let mut words = text.split_ascii_whitespace();
        let digits: &[u8; 64] = words.next()?.as_bytes().try_into().ok()?;
        let generation = words.next()?.parse().ok()?;
        if words.next().is_some() {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(QuicSecret { key, generation })
    }

    fn to_text(&self) -> String {
        let mut text: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!(" {}\n", self.generation));
        text
    }
}

impl std::fmt::Debug for QuicSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicSecret").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Replaces a file at once and durably, readable by this user alone: whoever looks, also after a power loss, sees the
/// old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A short text file; `None` if there is none.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// What is wrong with a file of the data directory.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The node has no identity yet.
    #[error("{} is missing: this node has no identity yet; `ioex up` makes one and starts the engine", path.display())]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} does not hold {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quic_secret_is_drawn_once_and_kept_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::new(directory.path());
        data.prepare().unwrap();
        let first = data.quic_secret().unwrap();
        assert_eq!(data.quic_secret().unwrap(), first);
        assert_ne!(first.key, [0; 32]);
        let path = directory.path().join("engine/quic.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "beef 1").unwrap();
        let error = data.quic_secret().unwrap_err().to_string();
        assert!(error.contains("quic.key") && error.contains("remove it"), "{error}");
    }

    #[test]
    fn a_missing_identity_says_who_makes_one() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("mistyped");
        let data = DataDirectory::new(&missing);
        assert!(data.uid().unwrap_err().to_string().contains("ioex up"));
        assert!(!missing.exists(), "a mistyped path leaves nothing behind");
    }
}
