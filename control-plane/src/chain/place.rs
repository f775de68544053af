//! Where the light client keeps its things in the node's data directory.
//!
//! ```text
//! DIR/chain/lock              held by the one process that follows; it holds that process's id
//! DIR/chain/status.json       what that process last said of itself and of the endpoints
//! DIR/chain/events.jsonl      events that concern this node, verified, one JSON object a line
//! DIR/chain/pow/headers       verified headers of the public chain
//! DIR/chain/dpos/headers      verified headers of the consortium chain
//! DIR/chain/dpos/signers      who signed them: an address a line, its line number is in the records
//! DIR/chain/dpos/checkpoint   the header that following began with
//! DIR/chain/dpos/state        who may sign on top of a settled block: where following goes on after a restart
//! DIR/chain/dpos/watched      up to which block events have been looked for
//! ```

use crate::data_directory::{DataDirectory, DataDirectoryError, write_whole};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The light client's part of a data directory.
#[derive(Clone, Debug)]
pub struct ChainDirectory {
    root: PathBuf,
}

/// Held as long as this process follows the chains.
#[derive(Debug)]
pub struct FollowerLock(#[expect(dead_code, reason = "the lock ends with the file")] File);

/// Why this process may not follow.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another one does.
    #[error("another process (see {path}) already follows the chains of this node", path = .0.display())]
    Held(PathBuf),
    /// The files cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
}

impl ChainDirectory {
    /// The light client's part of `directory`; nothing is made.
    pub fn of(directory: &DataDirectory) -> ChainDirectory {
        ChainDirectory { root: directory.root().join("chain") }
    }

    /// Makes the directories and becomes the one process that writes here.
    pub fn lock(&self) -> Result<FollowerLock, LockError> {
        for name in ["pow", "dpos"] {
            let path = self.root.join(name);
            let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(|source| DataDirectoryError::Create { path, source })?;
        }
        let path = self.root.join("lock");
        let failed = |source| DataDirectoryError::Write { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source).into()),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(FollowerLock(file))
    }

    /// Whether a process follows now.
    pub fn is_followed(&self) -> bool {
        let lock = File::open(self.root.join("lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// What the follower last said.
    pub fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }

    /// Events that concern this node.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// Headers of the public chain.
    pub fn pow_headers(&self) -> PathBuf {
        self.root.join("pow/headers")
    }

    /// Headers of the consortium chain.
    pub fn dpos_headers(&self) -> PathBuf {
        self.root.join("dpos/headers")
    }

    /// Who signed them.
    pub fn dpos_signers(&self) -> PathBuf {
        self.root.join("dpos/signers")
    }

    /// The header that following began with.
    pub fn dpos_checkpoint(&self) -> PathBuf {
        self.root.join("dpos/checkpoint")
    }

    /// Where following goes on.
    pub fn dpos_state(&self) -> PathBuf {
        self.root.join("dpos/state")
    }

    /// Up to which block events have been looked for.
    pub fn dpos_watched(&self) -> PathBuf {
        self.root.join("dpos/watched")
    }
}

/// The content of a file; `None` if there is none.
pub(super) fn read_if_any(path: &Path) -> Result<Option<Vec<u8>>, DataDirectoryError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirectoryError::Read { path: path.to_path_buf(), source }),
    }
}

/// Writes a file whole and synced, readable by all: nothing here is a secret.
pub(super) fn write_public(path: &Path, content: &[u8]) -> Result<(), DataDirectoryError> {
    write_whole(path, content, 0o644)
}
