//! The file that a fetch writes until every byte is verified, and the journal that lets a later fetch go on.
//!
//! Beside `OUT` lie `.OUT.ioex-part`, the file itself with verified segments at their offsets, and
//! `.OUT.ioex-journal`:
//!
//! ```text
//!  0                                               8
//!  +-----------------------------------------------+
//!  | magic "IOEXJRN2"                              |
//!  +-----------------------------------------------+
//!  | hash of the list (32 bytes)                   |
//!  +-----------------------------------------------+
//!  | segment index, u32 LE | BLAKE3 of plain bytes | one for each segment written, in any order: 4 + 32 bytes;
//!  +-----------------------------------------------+ zeros where the list says what the bytes must be
//! ```
//!
//! The journal is a hint and nothing else: what it claims is read back and hashed before it counts, so a
//! torn, old or garbled journal costs time, never truth. That is why it needs neither checksums nor syncs. What is
//! stored as it is, or only encrypted, is held against the list; only for compressed segments, whose stored bytes cannot be made
//! again, the journal's own hash is taken, and the whole file's hash is checked at the end.
//!
//! Of segments that are not whole yet, blocks that are verified are in the file, too: see [`super::leaves`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use store::Hash;
use store::outboard::{BLOCK_LEN, Outboard};
use store::split::FileHasher;

use super::error::FetchError;
use super::leaves;
use super::plan::Plan;
use super::schedule::{ShardIndex, ShardState};

const MAGIC: &[u8; 8] = b"IOEXJRN2";
const HEADER_LEN: u64 = 40;
const RECORD_LEN: u64 = 36;

/// Blocks are copied to be kept, so many bytes at a time.
const KEPT_AT_ONCE_MAX: usize = 1 << 20;

/// A cancelled fetch finishes its last write before it lets go of the file; so long a new one waits for that.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The partial file of one fetch, locked against others.
#[derive(Debug)]
pub(crate) struct PartialFile {
    out: PathBuf,
    part_path: PathBuf,
    part: File,
    scratch: Vec<u8>,
    journal_path: PathBuf,
    journal: File,
    plan: Arc<Plan>,
    /// Segments that are verified and written.
    have: Vec<bool>,
    bytes_resumed: u64,
    /// Whether an earlier fetch may have left blocks of segments that are not whole.
    is_resumed: bool,
    /// Bytes of shards that are not whole, from their first on, that are kept in the file.
    kept: HashMap<ShardIndex, u32>,
    file_hash: InOrderHash,
}

/// The whole file's hash, kept up as far as the file is whole from its start.
#[derive(Debug)]
struct InOrderHash {
    hasher: FileHasher,
    next: usize,
    scratch: Vec<u8>,
}

impl PartialFile {
    /// Opens or creates the partial file of `out`, and verifies what an earlier fetch of the same list left
    /// in it. Blocking. `resumed` hears the running total of bytes found good.
    pub(crate) fn open(
        out: &Path,
        plan: Arc<Plan>,
        resumed: impl FnMut(u64),
    ) -> Result<PartialFile, FetchError> {
        let (part_path, journal_path) = paths(out)?;
        let part = open_locked(&part_path)?;
        let journal = open_read_write(&journal_path)?;
        let mut file = PartialFile {
            out: out.to_owned(),
            part_path,
            part,
            scratch: Vec::new(),
            journal_path,
            journal,
            have: vec![false; plan.segments.len()],
            bytes_resumed: 0,
            is_resumed: false,
            kept: HashMap::new(),
            file_hash: InOrderHash { hasher: FileHasher::new(), next: 0, scratch: Vec::new() },
            plan,
        };
        if file.journal_is_of_this_list() {
            file.is_resumed = true;
            file.verify_claims(resumed)?;
        } else {
            file.start_anew()?;
        }
        // A hole as long as the file: an impossible length fails now and not after hours.
        let found = file.part.metadata().map_err(|e| file.failed("read", &file.part_path, e))?.len();
        let len = found.clamp(file.plan.file_len, leaves::len_max(&file.plan));
        file.part.set_len(len).map_err(|e| file.failed("extend", &file.part_path, e))?;
        Ok(file)
    }

    /// Whether a segment is verified and written.
    pub(crate) fn has(&self, index: ShardIndex) -> bool {
        self.have[index as usize]
    }

    /// What is there of each data shard.
    pub(crate) fn states(&self) -> Vec<ShardState> {
        let state = |(index, have): (usize, &bool)| match have {
            false => ShardState::Absent,
            true if self.plan.can_be_stored_again(index as ShardIndex) => ShardState::Present,
            true => ShardState::Plain,
        };
        self.have.iter().enumerate().map(state).collect()
    }

    /// Bytes that an earlier fetch left and that were found good.
    pub(crate) fn bytes_resumed(&self) -> u64 {
        self.bytes_resumed
    }

    /// Whether [`PartialFile::recall`] may find something.
    pub(crate) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Keeps what is verified of a shard that is not whole yet: all from what is kept already on. Blocking.
    ///
    /// Fails silently: what is not kept is fetched again, and a disk that is full says so when the segment is written.
    /// `verified` appends what is verified from an offset on, at most so many bytes of it.
    pub(crate) fn keep(&mut self, shard: ShardIndex, verified: impl Fn(usize, usize, &mut Vec<u8>)) {
        let place = leaves::place(&self.plan, shard);
        // Where its plain bytes are by now, no others may come.
        if !place.is_slot && self.has(shard) {
            return;
        }
        let mut from = self.kept.get(&shard).copied().unwrap_or(0);
        loop {
            self.scratch.clear();
            let room = (place.len.saturating_sub(from) as usize).min(KEPT_AT_ONCE_MAX);
            verified(from as usize, room, &mut self.scratch);
            if self.scratch.is_empty() {
                return;
            }
            let written = self
                .part
                .seek(SeekFrom::Start(place.offset + u64::from(from)))
                .and_then(|_| self.part.write_all(&self.scratch));
            if let Err(error) = written {
                tracing::debug!(shard, %error, "blocks cannot be kept");
                return;
            }
            from += self.scratch.len() as u32;
            self.kept.insert(shard, from);
        }
    }

    /// What an earlier fetch kept of a shard: whole blocks from its first on, or all of it. Blocking.
    pub(crate) fn recall(&mut self, shard: ShardIndex, outboard: &Outboard) -> BytesMut {
        let place = leaves::place(&self.plan, shard);
        let len = outboard.shard_len().min(place.len) as usize;
        let mut bytes = BytesMut::new();
        let (Ok(mut verifier), Ok(_)) = (outboard.verifier(0), self.part.seek(SeekFrom::Start(place.offset)))
        else {
            return bytes;
        };
        while bytes.len() < len {
            let start = bytes.len();
            let end = len.min(start + BLOCK_LEN as usize);
            bytes.resize(end, 0);
            let is_read = self.part.read_exact(&mut bytes[start..]).is_ok();
            // A block that does not verify, or is cut short by the plain bytes' end, is left out.
            if !is_read || verifier.push(&bytes[start..]) != Ok(end as u32) {
                bytes.truncate(start);
                break;
            }
        }
        if !bytes.is_empty() {
            self.kept.insert(shard, bytes.len() as u32);
        }
        bytes
    }

    /// A shard that was kept is not needed any more.
    pub(crate) fn forget(&mut self, shard: ShardIndex) {
        self.kept.remove(&shard);
    }

    /// Writes the plain bytes of a segment that was verified. Blocking.
    pub(crate) fn write(&mut self, index: ShardIndex, plain: &[u8]) -> Result<(), FetchError> {
        let segment = self.plan.segments[index as usize];
        if plain.len() != segment.plain_len as usize {
            let reason = format!("it opens to {} bytes, not {}", plain.len(), segment.plain_len);
            return Err(FetchError::Segment { index, reason });
        }
        // Blocks of a segment that is stored as it is are there.
        let is_as_is = self.plan.is_stored_as_it_is(index);
        let kept = self.kept.get(&index).filter(|_| is_as_is).map_or(0, |kept| *kept as usize);
        self.part
            .seek(SeekFrom::Start(segment.file_offset + kept as u64))
            .and_then(|_| self.part.write_all(&plain[kept..]))
            .map_err(|e| self.failed("write", &self.part_path, e))?;
        let mut record = [0; RECORD_LEN as usize];
        record[..4].copy_from_slice(&index.to_le_bytes());
        if !self.plan.can_be_stored_again(index) {
            record[4..].copy_from_slice(Hash::of(plain).as_bytes());
        }
        self.journal.write_all(&record).map_err(|e| self.failed("write", &self.journal_path, e))?;
        self.have[index as usize] = true;
        if !leaves::place(&self.plan, index).is_slot {
            self.forget(index);
        }
        self.advance_hash(Some((index, plain)))
    }

    /// Reads back the plain bytes of a segment that was written. Blocking.
    pub(crate) fn read(&mut self, index: ShardIndex) -> Result<Vec<u8>, FetchError> {
        let segment = self.plan.segments[index as usize];
        let mut plain = vec![0; segment.plain_len as usize];
        self.part
            .seek(SeekFrom::Start(segment.file_offset))
            .and_then(|_| self.part.read_exact(&mut plain))
            .map_err(|e| self.failed("read", &self.part_path, e))?;
        Ok(plain)
    }

    /// Checks the whole, makes it durable, and gives it its name. Blocking; every segment must have been
    /// written.
    pub(crate) fn finish(mut self) -> Result<(), FetchError> {
        self.advance_hash(None)?;
        if let Some(expected) = self.plan.file_hash {
            let found = self.file_hash.hasher.finish();
            if found != expected {
                return Err(FetchError::FileHash { expected, found });
            }
        }
        // Without the slots behind it.
        let len = self.plan.file_len;
        self.part.set_len(len).map_err(|e| self.failed("truncate", &self.part_path, e))?;
        self.part.sync_all().map_err(|e| self.failed("sync", &self.part_path, e))?;
        fs::rename(&self.part_path, &self.out).map_err(|e| self.failed("rename", &self.part_path, e))?;
        sync_directory(&self.out).map_err(|e| self.failed("sync the directory of", &self.out, e))?;
        // Left behind it would only be ignored: without a partial file its claims do not verify.
        let _ = fs::remove_file(&self.journal_path);
        Ok(())
    }

    fn journal_is_of_this_list(&mut self) -> bool {
        let mut header = [0; HEADER_LEN as usize];
        let is_read =
            self.journal.seek(SeekFrom::Start(0)).is_ok() && self.journal.read_exact(&mut header).is_ok();
        is_read && header[..8] == *MAGIC && header[8..] == *self.plan.list_hash.as_bytes()
    }

    fn start_anew(&mut self) -> Result<(), FetchError> {
        self.part.set_len(0).map_err(|e| self.failed("truncate", &self.part_path, e))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(self.plan.list_hash.as_bytes());
        self.journal
            .set_len(0)
            .and_then(|()| self.journal.seek(SeekFrom::Start(0)))
            .and_then(|_| self.journal.write_all(&header))
            .map_err(|e| self.failed("write", &self.journal_path, e))
    }

    /// Verifies every segment that the journal claims, and leaves the journal ready for more records.
    fn verify_claims(&mut self, mut resumed: impl FnMut(u64)) -> Result<(), FetchError> {
        let mut claimed = self.read_claims().map_err(|e| self.failed("read", &self.journal_path, e))?;
        claimed.sort_unstable();
        claimed.dedup();
        let part_len = self.part.metadata().map_err(|e| self.failed("read", &self.part_path, e))?.len();
        for (index, plain_hash) in claimed {
            let Some(segment) = self.plan.segments.get(index as usize).copied() else { continue };
            if self.has(index) || segment.file_offset + u64::from(segment.plain_len) > part_len {
                continue;
            }
            let plain = self.read(index)?;
            let is_right = if self.plan.can_be_stored_again(index) {
                self.plan.store_again(index, plain.clone()).is_some()
            } else {
                Hash::of(&plain) == plain_hash
            };
            if !is_right {
                continue;
            }
            self.have[index as usize] = true;
            self.bytes_resumed += u64::from(segment.plain_len);
            resumed(self.bytes_resumed);
            self.advance_hash(Some((index, &plain)))?;
        }
        Ok(())
    }

    fn read_claims(&mut self) -> io::Result<Vec<(ShardIndex, Hash)>> {
        let len = self.journal.metadata()?.len();
        // A segment has one record, or a few if writes were lost; a journal that is longer than that is
        // garbage at its end and is not read in full.
        let sensible = self.plan.segments.len() as u64 * 4 + 1024;
        let records = ((len - HEADER_LEN) / RECORD_LEN).min(sensible);
        let end = HEADER_LEN + records * RECORD_LEN;
        self.journal.set_len(end)?;
        self.journal.seek(SeekFrom::Start(HEADER_LEN))?;
        let mut claimed = Vec::new();
        let mut reader = BufReader::new(&self.journal);
        let (mut index, mut plain_hash) = ([0; 4], [0; 32]);
        for _ in 0..records {
            reader.read_exact(&mut index)?;
            reader.read_exact(&mut plain_hash)?;
            claimed.push((ShardIndex::from_le_bytes(index), Hash(plain_hash)));
        }
        self.journal.seek(SeekFrom::Start(end))?;
        Ok(claimed)
    }

    /// Feeds the whole-file hash from its position on: the segment at hand from memory, others from the file.
    fn advance_hash(&mut self, at_hand: Option<(ShardIndex, &[u8])>) -> Result<(), FetchError> {
        if self.plan.file_hash.is_none() {
            return Ok(());
        }
        while self.have.get(self.file_hash.next) == Some(&true) {
            let next = self.file_hash.next;
            match at_hand {
                Some((index, bytes)) if index as usize == next => self.file_hash.hasher.push(bytes),
                _ => {
                    let segment = self.plan.segments[next];
                    self.file_hash.scratch.resize(segment.plain_len as usize, 0);
                    self.part
                        .seek(SeekFrom::Start(segment.file_offset))
                        .and_then(|_| self.part.read_exact(&mut self.file_hash.scratch))
                        .map_err(|e| self.failed("read", &self.part_path, e))?;
                    self.file_hash.hasher.push(&self.file_hash.scratch);
                }
            }
            self.file_hash.next += 1;
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> FetchError {
        file_error(action, path, source, self.plan.file_len)
    }
}

/// Writes content that is held and verified as a whole: `.OUT.ioex-part`, then the final name. Blocking.
pub(crate) fn write_whole(out: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let (part_path, _) = paths(out)?;
    let failed = |action, path: &Path, e| file_error(action, path, e, bytes.len() as u64);
    let mut part = open_locked(&part_path)?;
    part.set_len(0).and_then(|()| part.write_all(bytes)).map_err(|e| failed("write", &part_path, e))?;
    part.sync_all().map_err(|e| failed("sync", &part_path, e))?;
    fs::rename(&part_path, out).map_err(|e| failed("rename", &part_path, e))?;
    sync_directory(out).map_err(|e| failed("sync the directory of", out, e))
}

fn file_error(action: &'static str, path: &Path, source: io::Error, bytes_needed: u64) -> FetchError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            FetchError::DiskFull { path: path.to_owned(), bytes_needed }
        }
        _ => FetchError::File { action, path: path.to_owned(), source },
    }
}

/// `.OUT.ioex-part` and `.OUT.ioex-journal` in the directory of `OUT`.
fn paths(out: &Path) -> Result<(PathBuf, PathBuf), FetchError> {
    let unusable = |why: &str| FetchError::File {
        action: "write",
        path: out.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, why),
    };
    let name = out.file_name().ok_or_else(|| unusable("it names no file"))?;
    if out.is_dir() {
        return Err(unusable("it is a directory; name a file in it"));
    }
    let beside = |suffix: &str| {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(suffix);
        out.with_file_name(hidden)
    };
    Ok((beside(".ioex-part"), beside(".ioex-journal")))
}

fn open_read_write(path: &Path) -> Result<File, FetchError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| file_error("open", path, e, 0))
}

fn open_locked(path: &Path) -> Result<File, FetchError> {
    let mut waited = Duration::ZERO;
    loop {
        let file = open_read_write(path)?;
        match file.try_lock() {
            // The fetch that held the lock may have renamed the file to its final name meanwhile, and what
            // has that name is not written to any more.
            Ok(()) if is_still(&file, path) => return Ok(file),
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(TryLockError::WouldBlock) => return Err(FetchError::InUse { path: path.to_owned() }),
            // File systems without locks exist (some network mounts); two fetches of one name are then on
            // their own.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(file_error("lock", path, e, 0)),
        }
    }
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

/// Elsewhere an open file cannot be renamed over, so the name cannot have moved.
#[cfg(not(unix))]
fn is_still(_file: &File, _path: &Path) -> bool {
    true
}

/// Makes a rename in the directory of `path` durable.
#[cfg(unix)]
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Directories cannot be opened elsewhere; the rename is as durable as the system makes it.
#[cfg(not(unix))]
pub(super) fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}
