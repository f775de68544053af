//! The node's data directory: which file lies where, with which mode, and how files come into being whole.
//!
//! ```text
//! DIR/identity/   0700   uid.key 0600 (seed, or sealed), uid.pub, nospam
//! DIR/tls/        0700   cert.pem, key.pem 0600
//! DIR/run/        0700   engine.sock, api.sock 0600, ioex.lock
//! DIR/peer/       0700   friends.redb: see `peer/docs/friends.md`
//! DIR/relay/      0700   secret, users, draining: see `relay_credentials`
//! DIR/policy/     0700   uids 0600: see `policy_uids`
//! DIR/api/        0700   token 0600: see `api::token`
//! DIR/engine/     0700   the engine's own: last policy, reset and connection-id keys
//! DIR/counters/           which version of each file was fetched last: see `peer::fetch::Counters`
//! DIR/dht/               nodes, lists: see `dht::running`
//! DIR/bootstrap/         nodes: see `bootstrap::service`
//! DIR/chain/             verified headers of both chains: see `chain::place`
//! DIR/store/             packs, index and leases; the engine's, and of `ioex store` while no engine runs
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A data directory that exists.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    root: PathBuf,
}

/// What failed on which path.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// A directory cannot be made.
    #[error("cannot create the directory {path}: {source}; name one you may write to with --data", path = .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret's file may be read by others.
    #[error("{path} may be read by others (mode {mode:04o}); mend it with: chmod 600 {path}", path = .path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl DataDirectory {
    /// Makes the directory and those in it that hold secrets, or takes away what rights others have to them.
    pub fn prepare(root: &Path) -> Result<DataDirectory, DataDirectoryError> {
        // The engine is started with another working directory in mind, and URLs are printed: keep the path
        // absolute.
        let root = std::path::absolute(root)
            .map_err(|source| DataDirectoryError::Create { path: root.into(), source })?;
        let create = |path: &Path, mode: u32| {
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(|source| DataDirectoryError::Create { path: path.into(), source })
        };
        create(&root, 0o755)?;
        for name in ["identity", "tls", "run", "peer", "relay", "policy", "api", "engine"] {
            let path = root.join(name);
            create(&path, 0o700)?;
            let fail = |source| DataDirectoryError::Create { path: path.clone(), source };
            let mode = fs::metadata(&path).map_err(fail)?.permissions().mode() & 0o777;
            if mode != 0o700 {
                fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(fail)?;
            }
        }
        Ok(DataDirectory { root })
    }

    /// The directory that `root` names, which may or may not exist: for commands that must not create
    /// anything.
    pub fn existing(root: &Path) -> DataDirectory {
        DataDirectory { root: std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf()) }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The identity's key file: the seed as 64 hexadecimal digits, or sealed under a passphrase.
    pub fn identity_key(&self) -> PathBuf {
        self.root.join("identity/uid.key")
    }

    /// The UID in base58, for the engine, which never reads the seed.
    pub fn identity_public(&self) -> PathBuf {
        self.root.join("identity/uid.pub")
    }

    /// The address's nospam value, 8 hexadecimal digits.
    pub fn nospam(&self) -> PathBuf {
        self.root.join("identity/nospam")
    }

    /// The TLS certificate chain.
    pub fn certificate(&self) -> PathBuf {
        self.root.join("tls/cert.pem")
    }

    /// The TLS certificate's private key.
    pub fn certificate_key(&self) -> PathBuf {
        self.root.join("tls/key.pem")
    }

    /// The engine's control socket.
    pub fn engine_socket(&self) -> PathBuf {
        self.root.join("run/engine.sock")
    }

    /// Friends, and messages that were received.
    pub fn friends(&self) -> PathBuf {
        self.root.join("peer/friends.redb")
    }

    /// The socket on which `ioex up` answers: see `api`.
    pub fn api_socket(&self) -> PathBuf {
        self.root.join("run/api.sock")
    }

    /// What a request to the API over TCP must show.
    pub fn api_token(&self) -> PathBuf {
        self.root.join("api/token")
    }

    /// What the DHT keeps between two runs.
    pub fn dht(&self) -> PathBuf {
        self.root.join("dht")
    }

    /// What is known of bootstrap nodes.
    pub fn bootstrap(&self) -> PathBuf {
        self.root.join("bootstrap")
    }

    /// The secret that the relay's expiring credentials are made with.
    pub fn relay_secret(&self) -> PathBuf {
        self.root.join("relay/secret")
    }

    /// The relay's users, as keys.
    pub fn relay_users(&self) -> PathBuf {
        self.root.join("relay/users")
    }

    /// There as long as the relay refuses new allocations.
    pub fn relay_draining(&self) -> PathBuf {
        self.root.join("relay/draining")
    }

    /// Which UIDs the node serves, as commands have said.
    pub fn policy_uids(&self) -> PathBuf {
        self.root.join("policy/uids")
    }

    /// The lock that the one supervising `ioex up` holds; it contains that process's id.
    pub fn supervisor_lock(&self) -> PathBuf {
        self.root.join("run/ioex.lock")
    }

    /// What the node holds: packs, index and leases.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Held by the engine that has the store open, or by `ioex store` where none runs.
    pub fn store_lock(&self) -> PathBuf {
        self.root.join("store/lock")
    }
}

/// Writes a file so that it is there whole or not at all, also after power loss, with exactly this mode.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), DataDirectoryError> {
    let fail = |source| DataDirectoryError::Write { path: path.into(), source };
    let directory = path.parent().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = directory.join(name);
    let written = (|| {
        // The mode is given at creation: a secret is never readable by others, not even for a moment.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // The failure that counts is the one being reported; a left-over file holds nothing that is in use.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(fail)
}

/// Reads a text file that only its owner may read; `None` if it does not exist.
pub fn read_secret(path: &Path) -> Result<Option<zeroize::Zeroizing<String>>, DataDirectoryError> {
    let fail = |source| DataDirectoryError::Read { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DataDirectoryError::TooOpen { path: path.into(), mode });
    }
    io::read_to_string(file).map(|text| Some(zeroize::Zeroizing::new(text))).map_err(fail)
}
