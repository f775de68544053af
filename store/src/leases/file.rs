//! redb's file, changed through the store's [`Backend`] like every other, so that tests lose power here too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::WriteOp;
use crate::store::DynBackend;

/// An open database file.
#[derive(Debug)]
pub(super) struct LeaseFile {
    backend: DynBackend,
    path: Arc<Path>,
    /// For reading.
    file: File,
}

impl LeaseFile {
    pub(super) fn open(backend: DynBackend, path: &Arc<Path>) -> io::Result<LeaseFile> {
        Ok(LeaseFile { backend, path: Arc::clone(path), file: File::open(path)? })
    }
}

impl redb::StorageBackend for LeaseFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.run(&WriteOp::Truncate { path: Arc::clone(&self.path), len })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.backend.run(&WriteOp::Sync { path: Arc::clone(&self.path) })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::copy_from_slice(data);
        self.backend.run(&WriteOp::Write { path: Arc::clone(&self.path), offset, bytes })
    }
}
