//! The only way to the file system for whatever changes it.
//!
//! The store says *what* is to happen as [`WriteOp`]s, in order; a [`Backend`] makes it happen. [`FileBackend`] is the
//! real one. An asynchronous executor may run the operations of an [`AppendPlan`](crate::AppendPlan) itself, if it says
//! so ([`Backend::begin`]), and tests record them all, drop and reorder what was not synced, and open what is left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::pack::{ALIGNED_LEN_MIN, PAGE_LEN};

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
    /// Removes a file's name; no matter if it is gone already. Whoever has the file mapped goes on reading it.
    Remove {
        /// The file.
        path: Arc<Path>,
    },
}

/// Runs [`WriteOp`]s. The only way to the file system for creating, writing, syncing, cutting, renaming and removing.
pub trait Backend: Send + Sync + 'static {
    /// Runs one operation to its end.
    ///
    /// # Errors
    /// Whatever the file system says. After an error the file may hold any part of what was to be written.
    fn run(&self, op: &WriteOp) -> io::Result<()>;

    /// An executor that runs `op` itself, in a ring, calls this before it starts, and what it gets once the operation has
    /// succeeded: so a backend sees these operations too. Most need not.
    fn begin(&self, _op: &WriteOp) -> Option<Ended> {
        None
    }
}

/// To be called when an operation has succeeded that [`Backend::begin`] was told of.
pub type Ended = Box<dyn FnOnce() + Send>;

/// Least whole pages of a write, in bytes, that go past the page cache.
const DIRECT_LEN_MIN: usize = ALIGNED_LEN_MIN as usize;

/// The real file system.
///
/// Long payloads in page-aligned memory are written past the page cache (`O_DIRECT`), where the file system can: a
/// publisher's import neither copies them into fresh pages, which is most of the CPU of a durable write, nor drives
/// out what is being served. They come into memory, verified, when they are asked for.
#[derive(Debug, Default)]
pub struct FileBackend {
    /// The file written last stays open: an append is several operations on the one active pack.
    last: Mutex<Option<(Arc<Path>, Arc<Open>)>>,
}

/// An open file.
#[derive(Debug)]
struct Open {
    file: File,
    /// The same file, opened for writing past the page cache.
    direct: Option<File>,
}

impl Open {
    fn new(path: &Path, options: &OpenOptions) -> io::Result<Open> {
        let file = options.open(path)?;
        let flags = OFlags::DIRECT.bits() as i32;
        Ok(Open { file, direct: OpenOptions::new().write(true).custom_flags(flags).open(path).ok() })
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = self.write_pages(bytes, offset)?;
        self.file.write_all_at(&bytes[written..], offset + written as u64)
    }

    /// Writes the whole pages of `bytes` past the page cache and gives their length; none if that is not possible.
    fn write_pages(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let page_len = PAGE_LEN as usize;
        let len = bytes.len() - bytes.len() % page_len;
        let is_aligned = offset.is_multiple_of(PAGE_LEN) && bytes.as_ptr().addr().is_multiple_of(page_len);
        let Some(direct) = self.direct.as_ref().filter(|_| len >= DIRECT_LEN_MIN && is_aligned) else {
            return Ok(0);
        };
        match direct.write_all_at(&bytes[..len], offset) {
            Ok(()) => Ok(len),
            // The device wants another alignment than a page's.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl FileBackend {
    /// A backend with no file open.
    pub fn new() -> FileBackend {
        FileBackend::default()
    }

    fn file(&self, path: &Arc<Path>) -> io::Result<Arc<Open>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((open, file)) = &*last
            && open == path
        {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(Open::new(path, OpenOptions::new().write(true))?);
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
                let file = Open::new(path, OpenOptions::new().write(true).create(true).truncate(true))?;
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some((Arc::clone(path), Arc::new(file)));
                Ok(())
            }
            WriteOp::Allocate { path, offset, len } => {
                // A file system that does not know it, or has no room, says so again when it is written to.
                let _ = fallocate(&self.file(path)?.file, FallocateFlags::KEEP_SIZE, *offset, *len);
                Ok(())
            }
            WriteOp::Write { path, offset, bytes } => self.file(path)?.write(bytes, *offset),
            WriteOp::Truncate { path, len } => self.file(path)?.file.set_len(*len),
            WriteOp::Sync { path } => self.file(path)?.file.sync_data(),
            WriteOp::SyncDir { path } => File::open(path)?.sync_all(),
            WriteOp::Rename { from, to } => {
                // A kept descriptor would go on under the old name.
                self.forget();
                fs::rename(from, to)
            }
            WriteOp::Remove { path } => {
                self.forget();
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that starts at a page, `skip` bytes in.
    fn aligned(len: usize, skip: usize) -> Bytes {
        let bytes = Bytes::from((0..len + 8192).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        let start = bytes.as_ptr().align_offset(4096) + skip;
        bytes.slice(start..start + len)
    }

    #[test]
    fn whole_pages_and_rests_come_out_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("pack").into();
        let backend = FileBackend::new();
        backend.run(&WriteOp::Create { path: Arc::clone(&path) }).unwrap();
        // Whole pages; pages and a rest; too short; memory or offset that is not aligned.
        let cases = [
            (1 << 20, 0, 0),
            (70_001, 0, 1 << 20),
            (4096, 0, 2 << 20),
            (1 << 17, 1, 3 << 20),
            (1 << 17, 0, (4 << 20) + 1),
        ];
        for (len, skip, offset) in cases {
            let bytes = aligned(len, skip);
            backend.run(&WriteOp::Write { path: Arc::clone(&path), offset, bytes: bytes.clone() }).unwrap();
            backend.run(&WriteOp::Sync { path: Arc::clone(&path) }).unwrap();
            let mut read = vec![0; len];
            File::open(&path).unwrap().read_exact_at(&mut read, offset).unwrap();
            assert!(read == bytes, "{len} bytes at {offset}, {skip} bytes into a page");
        }
    }
}
