//! The only way to the file system for whatever changes it.
//!
//! The store says *what* is to happen as [`WriteOp`]s, in order; a [`Backend`] makes it happen. [`FileBackend`] is the
//! real one. An asynchronous executor may run the operations of an [`AppendPlan`](crate::AppendPlan) itself, and
//! tests record them, drop and reorder what was not synced, and open what is left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};

/// One change to the file system. Paths are absolute or relative to the working directory, as the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// Makes a directory; it may exist already.
    CreateDir {
        /// The directory.
        path: PathBuf,
    },
    /// Makes an empty file, or empties the one that exists.
    Create {
        /// The file.
        path: Arc<Path>,
    },
    /// Sets space aside that is about to be written, without changing the file's length. A hint: one long write-back
    /// into one piece of disk costs half the CPU of finding room page by page. Whoever cannot, need not.
    Allocate {
        /// The file.
        path: Arc<Path>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Writes all of `bytes` at `offset`. The file exists; it grows if need be.
    Write {
        /// The file.
        path: Arc<Path>,
        /// First byte to write, from the start of the file.
        offset: u64,
        /// What to write; never empty.
        bytes: Bytes,
    },
    /// Cuts the file to `len` bytes, or fills it up with zeros.
    Truncate {
        /// The file.
        path: Arc<Path>,
        /// Its new length in bytes.
        len: u64,
    },
    /// Returns once the file's data, and what metadata is needed to read them, are on stable storage (`fdatasync`).
    Sync {
        /// The file.
        path: Arc<Path>,
    },
    /// Returns once the directory's entries are on stable storage.
    SyncDir {
        /// The directory.
        path: PathBuf,
    },
    /// Renames a file, replacing `to` at once if it exists.
    Rename {
        /// Present name.
        from: Arc<Path>,
        /// New name, in the same file system.
        to: Arc<Path>,
    },
}

/// Runs [`WriteOp`]s. The only way to the file system for creating, writing, syncing, cutting and renaming.
pub trait Backend: Send + Sync + 'static {
    /// Runs one operation to its end.
    ///
    /// # Errors
    /// Whatever the file system says. After an error the file may hold any part of what was to be written.
    fn run(&self, op: &WriteOp) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug, Default)]
pub struct FileBackend {
    /// The file written last stays open: an append is several operations on the one active pack.
    last: Mutex<Option<(Arc<Path>, Arc<File>)>>,
}

impl FileBackend {
    /// A backend with no file open.
    pub fn new() -> FileBackend {
        FileBackend::default()
    }

    fn file(&self, path: &Arc<Path>) -> io::Result<Arc<File>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*last
            && open == path
        {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().write(true).open(path)?);
        *last = Some((Arc::clone(path), Arc::clone(&file)));
        Ok(file)
    }

    fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Backend for FileBackend {
    fn run(&self, op: &WriteOp) -> io::Result<()> {
        match op {
            WriteOp::CreateDir { path } => fs::create_dir_all(path),
            WriteOp::Create { path } => {
                let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some((Arc::clone(path), Arc::new(file)));
                Ok(())
            }
            WriteOp::Allocate { path, offset, len } => {
                // A file system that does not know it, or has no room, says so again when it is written to.
                let _ = fallocate(self.file(path)?, FallocateFlags::KEEP_SIZE, *offset, *len);
                Ok(())
            }
            WriteOp::Write { path, offset, bytes } => self.file(path)?.write_all_at(bytes, *offset),
            WriteOp::Truncate { path, len } => self.file(path)?.set_len(*len),
            WriteOp::Sync { path } => self.file(path)?.sync_data(),
            WriteOp::SyncDir { path } => File::open(path)?.sync_all(),
            WriteOp::Rename { from, to } => {
                // A kept descriptor would go on under the old name.
                self.forget();
                fs::rename(from, to)
            }
        }
    }
}
