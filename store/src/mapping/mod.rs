//! Memory-mapped files, and what happens when one shrinks under its mapping. The crate's only `unsafe` is in here.
//!
//! A pack is mapped once, over the longest that it may become: pages past the end of the file may be mapped, only not
//! touched, and they work as soon as the file has grown over them. So a growing pack needs one mapping in its life,
//! and the store hands out nothing beyond the committed length.

mod sigbus;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::param::page_size;

pub use sigbus::{install_sigbus_handler, sigbus_generation};

/// Pages asked of one `mincore` call: 1 MiB of file where pages have 4 KiB.
const MINCORE_PAGES: usize = 256;

/// Bytes asked for with one read-ahead advice: what Linux reads at once unless it was told otherwise.
const READ_AHEAD_LEN: usize = 128 << 10;

/// A read-only mapping of a file, watched by the SIGBUS handler.
#[derive(Debug)]
pub(crate) struct Mapping {
    // Declared first, so dropped first: the address range must leave the watch list before it is unmapped and
    // could be given to someone else.
    watch: sigbus::Watch,
    map: Mmap,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, whether or not it is that long yet. Bytes past its end must not be read.
    ///
    /// # Errors
    /// What `mmap` says; `OutOfMemory` if the watch list is full.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Arc<Mapping>> {
        install_sigbus_handler();
        // SAFETY: the mapping is read-only and the store is the only writer of its directory (held by a lock). Bytes
        // below the committed length are never written again, so slices of them do not change. A file that someone
        // else truncates raises SIGBUS, which `sigbus` turns into zeros and a poisoned mapping.
        let map = unsafe { MmapOptions::new().len(len.max(1)).map(file)? };
        // Faults must not read neighbours in: only `populate` reads from disk, and what it read is then verified.
        map.advise(Advice::Random)?;
        let watch = sigbus::Watch::new(map.as_ptr() as usize, map.len())
            .ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "too many mapped packs"))?;
        Ok(Arc::new(Mapping { watch, map }))
    }

    /// The bytes of `range`, or `None` if it is not inside the mapping. The caller vouches that the file is as long.
    pub(crate) fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        self.map.get(start..end)
    }

    /// The same as [`get`](Mapping::get), as `Bytes` that keep the mapping alive.
    pub(crate) fn slice(self: &Arc<Mapping>, range: Range<u64>) -> Option<Bytes> {
        if range.is_empty() {
            return Some(Bytes::new());
        }
        self.get(range.clone())?;
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        Some(Bytes::from_owner(Slice { mapping: Arc::clone(self), range: start..end }))
    }

    /// Whether every page of `range` is in the page cache now, so that touching it waits for no disk.
    pub(crate) fn is_resident(&self, range: Range<u64>) -> bool {
        self.get(range).is_some_and(is_resident)
    }

    /// The same of a slice that [`slice`](Mapping::slice) gave.
    pub(crate) fn is_resident_slice(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.map.as_ptr_range().contains(&bytes.as_ptr()) && is_resident(bytes)
    }

    /// Reads `range` from disk into the page cache and maps it. Blocks.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file or the disk does not give these bytes, else what the kernel says.
    pub(crate) fn populate(&self, range: Range<u64>) -> io::Result<()> {
        let Some(bytes) = self.get(range) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let start = page_start(bytes.as_ptr() as usize);
        let len = bytes.as_ptr() as usize + bytes.len() - start;
        // WILLNEED starts reading although the mapping is advised RANDOM, but the kernel reads only as much of one call
        // as its read-ahead allows. POPULATE_READ then waits, and reports what cannot be read as an error, where
        // touching the page would raise SIGBUS.
        for from in (start..start + len).step_by(READ_AHEAD_LEN) {
            let len = (start + len - from).min(READ_AHEAD_LEN);
            // SAFETY: the range lies in the mapping and starts at a page; the advice leaves its contents alone.
            unsafe { libc::madvise(from as *mut libc::c_void, len, libc::MADV_WILLNEED) };
        }
        // SAFETY: the range lies in the mapping and starts at a page; the advice leaves its contents alone.
        let status = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_POPULATE_READ) };
        if status == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Kernels before 5.14 do not know the advice: hashing touches the pages anyway, guarded by the handler.
            Some(libc::EINVAL) => Ok(()),
            Some(libc::EFAULT | libc::EIO | libc::EHWPOISON) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(error),
        }
    }

    /// Whether a fault was survived somewhere in this mapping. It stays so.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.watch.is_poisoned()
    }
}

/// Whether every page under `bytes`, a part of a live mapping, is in the page cache.
fn is_resident(bytes: &[u8]) -> bool {
    let page_len = page_size();
    let start = page_start(bytes.as_ptr() as usize);
    let end = bytes.as_ptr() as usize + bytes.len();
    let mut pages = [0u8; MINCORE_PAGES];
    for from in (start..end).step_by(MINCORE_PAGES * page_len) {
        let len = (end - from).min(MINCORE_PAGES * page_len);
        // SAFETY: `from..from + len` lies in the mapping, `from` is a multiple of the page size, and `pages` has
        // a byte for every page that `len` bytes touch.
        let status = unsafe { libc::mincore(from as *mut libc::c_void, len, pages.as_mut_ptr()) };
        if status != 0 || pages[..len.div_ceil(page_len)].iter().any(|page| page & 1 == 0) {
            return false;
        }
    }
    true
}

/// The first address of the kernel's page that `address` lies in.
fn page_start(address: usize) -> usize {
    address & !(page_size() - 1)
}

/// A part of a mapping as the owner of `Bytes`.
struct Slice {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.mapping.map[self.range.clone()]
    }
}
