//! One file of records: a page that says which chain this is, then a record a block.
//!
//! Durability: a batch is one write and one `fdatasync`. A reorganisation cuts the file at the branch point
//! first and appends then. Each record's check covers the hash of the record before it, so that what is left
//! of an old branch behind a new one is told from the new one, as is a record in the wrong place.

use crate::data_directory::{DataDirectoryError, write_whole};
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Length of the page in front of the records.
pub const PAGE_LEN: usize = 128;

const MAGIC: [u8; 8] = *b"ioexhdrs";
const FORMAT: u16 = 1;

/// Bytes that are read at once where many records are.
const CHUNK_LEN: usize = 1 << 20;

/// How often a read that meets a writer is tried again, a millisecond apart.
const READ_ATTEMPTS: usize = 20;

/// A header of fixed width.
pub trait Record: Copy {
    /// The chain's number in the page.
    const CHAIN: u8;
    /// Length on disk, with the check of four bytes at its end.
    const LEN: usize;
    /// The block's hash, which the next record's check covers.
    fn hash(&self) -> [u8; 32];
    /// Appends all but the check.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads what [`Self::write`] wrote.
    fn read(bytes: &[u8]) -> Self;
}

/// Which chain a file is of, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What the headers were verified from: the genesis block's or the checkpoint's hash.
    pub anchor: [u8; 32],
    /// Height of the first record.
    pub first: u64,
    /// The chain's own number, if it has one (EIP-155), else 0.
    pub chain_id: u64,
}

/// Why headers cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HeaderFileError {
    /// The file system refuses.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be made.
    #[error(transparent)]
    Create(#[from] DataDirectoryError),
    /// The page is not one of this chain and format.
    #[error("{path} is no file of headers: {reason}; move it away, and the headers are fetched again", path = .path.display())]
    Page {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A record does not hold its check.
    #[error("{path} is damaged at height {height}; the next start of `ioex up` cuts it there and fetches the rest again", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first height that does not hold.
        height: u64,
    },
}

/// What the writer found when it opened the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Records that hold, from the first on.
    pub records: u64,
    /// Bytes behind them that were cut off: what a crash left, or damage.
    pub cut_bytes: u64,
}

/// The file of one chain.
#[derive(Debug)]
pub struct HeaderFile<R> {
    file: File,
    path: PathBuf,
    page: Page,
    record: PhantomData<R>,
}

impl<R: Record> HeaderFile<R> {
    /// Makes a file without records, in place of one that may be there.
    pub fn create(path: &Path, page: Page) -> Result<HeaderFile<R>, HeaderFileError> {
        write_whole(path, &encode_page::<R>(&page), 0o644)?;
        HeaderFile::open(path, true)
    }

    /// Opens the file for the one process that writes it, and cuts it behind the last record up to which all
    /// hold. Every record is read: 300 MB/s and more, and a year has at most 118 MB.
    pub fn open_to_write(path: &Path) -> Result<(HeaderFile<R>, Opened), HeaderFileError> {
        let headers = HeaderFile::open(path, true)?;
        let size = headers.size()?;
        let records = headers.verified_prefix()?;
        let end = offset::<R>(records);
        if end != size {
            headers.file.set_len(end).map_err(|source| headers.failed("cut", source))?;
            headers.sync()?;
        }
        Ok((headers, Opened { records, cut_bytes: size.saturating_sub(end) }))
    }

    /// Opens the file to read, beside a process that may be writing it; `None` if there is none.
    pub fn open_to_read(path: &Path) -> Result<Option<HeaderFile<R>>, HeaderFileError> {
        match HeaderFile::open(path, false) {
            Ok(headers) => Ok(Some(headers)),
            Err(HeaderFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which chain this is, and where it begins.
    pub fn page(&self) -> Page {
        self.page
    }

    /// How many whole records there are now.
    pub fn len(&self) -> Result<u64, HeaderFileError> {
        Ok(self.size()?.saturating_sub(PAGE_LEN as u64) / R::LEN as u64)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> Result<bool, HeaderFileError> {
        Ok(self.len()? == 0)
    }

    /// The record at a height; `None` if the file does not reach there.
    pub fn get(&self, height: u64) -> Result<Option<R>, HeaderFileError> {
        Ok(self.range(height, 1)?.pop())
    }

    /// The last record that holds, and its height. Behind it there may be what a crash left, which the next
    /// writer cuts off.
    pub fn tip(&self) -> Result<Option<(u64, R)>, HeaderFileError> {
        let len = self.len()?;
        let window = len.min((CHUNK_LEN / R::LEN) as u64);
        let from = self.page.first + len - window;
        let records = match self.try_range(from, window as usize)? {
            Ok(records) => records,
            Err(height) => self.range(from, height.saturating_sub(from) as usize)?,
        };
        let last = (records.len() as u64).checked_sub(1);
        Ok(last.and_then(|last| Some((from + last, *records.last()?))))
    }

    /// Up to `count` records from a height on, fewer where the file ends.
    pub fn range(&self, from: u64, count: usize) -> Result<Vec<R>, HeaderFileError> {
        let mut wrong = None;
        for attempt in 0..READ_ATTEMPTS {
            if attempt > 0 {
                // A writer is amid a reorganisation, which is a cut and an append.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            match self.try_range(from, count)? {
                Ok(records) => return Ok(records),
                Err(height) => wrong = Some(height),
            }
        }
        Err(HeaderFileError::Damaged { path: self.path.clone(), height: wrong.unwrap_or(from) })
    }

    /// The height of a block by its hash. The file is read from its end: a block of last year is 0.1 s away.
    pub fn find(&self, hash: &[u8; 32]) -> Result<Option<u64>, HeaderFileError> {
        let chunk = (CHUNK_LEN / R::LEN) as u64;
        let mut end = self.page.first + self.len()?;
        while end > self.page.first {
            let from = end.saturating_sub(chunk).max(self.page.first);
            let records = self.range(from, (end - from) as usize)?;
            if let Some(place) = records.iter().rposition(|record| record.hash() == *hash) {
                return Ok(Some(from + place as u64));
            }
            end = from;
        }
        Ok(None)
    }

    /// Appends records and syncs them.
    pub fn append(&self, records: &[R]) -> Result<(), HeaderFileError> {
        let len = self.len()?;
        let mut before = self.hash_before(len)?;
        let mut bytes = Vec::with_capacity(records.len() * R::LEN);
        for (height, record) in (self.page.first + len..).zip(records) {
            let start = bytes.len();
            record.write(&mut bytes);
            let check = check(&before, height, &bytes[start..]);
            bytes.extend_from_slice(&check);
            debug_assert_eq!(bytes.len() - start, R::LEN);
            before = record.hash();
        }
        self.file.write_all_at(&bytes, offset::<R>(len)).map_err(|source| self.failed("write", source))?;
        self.sync()
    }

    /// Puts `records` in the place of everything from height `from` on, which is at most one above the tip.
    pub fn replace_from(&self, from: u64, records: &[R]) -> Result<(), HeaderFileError> {
        let kept = from.saturating_sub(self.page.first);
        let len = self.len()?;
        if kept > len {
            // Records in between would be missing.
            return Err(HeaderFileError::Damaged { path: self.path.clone(), height: self.page.first + len });
        }
        if kept < len {
            self.file.set_len(offset::<R>(kept)).map_err(|source| self.failed("cut", source))?;
        }
        self.append(records)
    }

    fn open(path: &Path, write: bool) -> Result<HeaderFile<R>, HeaderFileError> {
        let failed = |action| move |source| HeaderFileError::Io { action, path: path.to_path_buf(), source };
        let file = OpenOptions::new().read(true).write(write).open(path).map_err(failed("open"))?;
        let mut bytes = [0; PAGE_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(failed("read the page of"))?;
        let page = decode_page::<R>(&bytes)
            .map_err(|reason| HeaderFileError::Page { path: path.to_path_buf(), reason })?;
        Ok(HeaderFile { file, path: path.to_path_buf(), page, record: PhantomData })
    }

    fn sync(&self) -> Result<(), HeaderFileError> {
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    fn size(&self) -> Result<u64, HeaderFileError> {
        Ok(self.file.metadata().map_err(|source| self.failed("look at", source))?.len())
    }

    /// How many records hold, from the first on.
    fn verified_prefix(&self) -> Result<u64, HeaderFileError> {
        let len = self.len()?;
        let mut at = 0;
        while at < len {
            let count = (CHUNK_LEN / R::LEN).min((len - at) as usize);
            match self.try_range(self.page.first + at, count)? {
                Ok(records) => at += records.len() as u64,
                Err(height) => return Ok(height - self.page.first),
            }
        }
        Ok(at)
    }

    /// The records, or the first height that does not hold.
    fn try_range(&self, from: u64, count: usize) -> Result<Result<Vec<R>, u64>, HeaderFileError> {
        let len = self.len()?;
        let Some(first) = from.checked_sub(self.page.first).filter(|first| *first < len) else {
            return Ok(Ok(Vec::new()));
        };
        let count = count.min((len - first) as usize);
        let mut bytes = vec![0; count * R::LEN];
        match self.file.read_exact_at(&mut bytes, offset::<R>(first)) {
            Ok(()) => {}
            // It was cut meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Err(from)),
            Err(source) => return Err(self.failed("read", source)),
        }
        let mut before = self.hash_before(first)?;
        let mut records = Vec::with_capacity(count);
        for (height, bytes) in (from..).zip(bytes.chunks_exact(R::LEN)) {
            let (fields, found) = bytes.split_at(R::LEN - 4);
            if check(&before, height, fields) != found {
                return Ok(Err(height));
            }
            let record = R::read(fields);
            before = record.hash();
            records.push(record);
        }
        Ok(Ok(records))
    }

    /// The hash in the record before the `place`-th, or the anchor before the first.
    fn hash_before(&self, place: u64) -> Result<[u8; 32], HeaderFileError> {
        let Some(before) = place.checked_sub(1) else { return Ok(self.page.anchor) };
        let mut bytes = vec![0; R::LEN];
        match self.file.read_exact_at(&mut bytes, offset::<R>(before)) {
            Ok(()) => Ok(R::read(&bytes[..R::LEN - 4]).hash()),
            // It was cut meanwhile: no record's check holds behind this.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok([0xff; 32]),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> HeaderFileError {
        HeaderFileError::Io { action, path: self.path.clone(), source }
    }
}

fn offset<R: Record>(records: u64) -> u64 {
    PAGE_LEN as u64 + records * R::LEN as u64
}

fn check(before: &[u8; 32], height: u64, fields: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(before);
    let crc = crc32c::crc32c_append(crc, &height.to_le_bytes());
    crc32c::crc32c_append(crc, fields).to_le_bytes()
}

fn encode_page<R: Record>(page: &Page) -> [u8; PAGE_LEN] {
    let mut bytes = [0; PAGE_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[10] = R::CHAIN;
    // A record is shorter than 65,536 bytes.
    bytes[12..14].copy_from_slice(&(R::LEN as u16).to_le_bytes());
    bytes[16..24].copy_from_slice(&page.first.to_le_bytes());
    bytes[24..32].copy_from_slice(&page.chain_id.to_le_bytes());
    bytes[32..64].copy_from_slice(&page.anchor);
    let check = crc32c::crc32c(&bytes[..PAGE_LEN - 4]).to_le_bytes();
    bytes[PAGE_LEN - 4..].copy_from_slice(&check);
    bytes
}

fn decode_page<R: Record>(bytes: &[u8; PAGE_LEN]) -> Result<Page, String> {
    if bytes[..8] != MAGIC {
        return Err("it does not begin with `ioexhdrs`".into());
    }
    if crc32c::crc32c(&bytes[..PAGE_LEN - 4]).to_le_bytes() != bytes[PAGE_LEN - 4..] {
        return Err("its page is damaged".into());
    }
    let u16_at = |at: usize| u16::from_le_bytes(*bytes[at..].first_chunk().expect("within the page"));
    let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("within the page"));
    if u16_at(8) != FORMAT {
        return Err(format!("its format is {}, known is {FORMAT}", u16_at(8)));
    }
    if (bytes[10], usize::from(u16_at(12))) != (R::CHAIN, R::LEN) {
        return Err(format!("it is of chain {} with {} bytes a record", bytes[10], u16_at(12)));
    }
    let anchor = *bytes[32..].first_chunk().expect("within the page");
    Ok(Page { anchor, first: u64_at(16), chain_id: u64_at(24) })
}
