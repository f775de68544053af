//! Reading payloads from the disk itself, for scrub and compaction: past the page cache where the file system can, so that
//! what is checked is what the disk holds, and what is being served is not driven out of memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::pack::PAGE_LEN;

/// A pack, open for reading payloads.
#[derive(Debug)]
pub(crate) struct PayloadReader {
    file: File,
    /// The same file, past the page cache.
    direct: Option<File>,
}

impl PayloadReader {
    pub(crate) fn open(path: &Path) -> io::Result<PayloadReader> {
        let flags = OFlags::DIRECT.bits() as i32;
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(path).ok();
        Ok(PayloadReader { file: File::open(path)?, direct })
    }

    /// For headers and tables, which are small and asked for again.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// `len` bytes from `offset`; less if the file ends or the disk does not give them.
    ///
    /// # Errors
    /// What the kernel says; an unreadable sector (EIO) is no error but an end.
    pub(crate) fn read(&mut self, offset: u64, len: u32) -> io::Result<Bytes> {
        let page_len = PAGE_LEN as usize;
        let skip = (offset % PAGE_LEN) as usize;
        let pages_len = (skip + len as usize).next_multiple_of(page_len);
        // Direct reads want memory that starts at a page.
        let mut buffer = vec![0u8; pages_len + page_len];
        let start = buffer.as_ptr().align_offset(page_len).min(page_len);
        let pages = &mut buffer[start..start + pages_len];
        let from = offset - skip as u64;
        let got = match self.direct.as_ref().map(|direct| read_up_to(direct, pages, from)) {
            Some(Ok(got)) => got,
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                // The device wants another alignment than a page's.
                self.direct = None;
                read_up_to(&self.file, pages, from)?
            }
            Some(Err(error)) => return Err(error),
            None => read_up_to(&self.file, pages, from)?,
        };
        let end = got.min(skip + len as usize).max(skip);
        Ok(Bytes::from(buffer).slice(start + skip..start + end))
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
