//! Walking the structure of a pack file: commit headers and record tables, no payloads. What a crash left and what
//! time damaged look alike at first; this tells them apart.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::error::DamageKind;
use crate::pack::{Commit, HEADER_LEN, HeaderError, PAGE_LEN, PackKey, Record};

/// Bytes read at once in search of the next commit behind damage.
const SEARCH_LEN: usize = 1 << 20;

/// What a scan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// All records, to index them.
    Index,
    /// Damage only: records are kept of damaged commits alone, so that checking a large pack takes little memory.
    Check,
}

/// What was found in a pack.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Records that verify, in the order of the file.
    pub(crate) records: Vec<Record>,
    /// Regions that are not what they must be.
    pub(crate) damage: Vec<Region>,
    /// One past the last commit: where the next one goes. What lies behind is no commit.
    pub(crate) end: u64,
    /// Sequence number of the last commit.
    pub(crate) sequence: u64,
    /// The last commit, if the scan met any.
    pub(crate) last: Option<LastCommit>,
    /// Commits met.
    pub(crate) commits: u64,
    /// Bytes of structure read.
    pub(crate) bytes_read: u64,
    /// A version of the format that this code does not know, where a commit or record says so.
    pub(crate) newer: Option<u16>,
}

/// A damaged part of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) kind: DamageKind,
    /// The bytes that do not verify.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The commit or stretch that they belong to: what the index says lies in it is to be doubted, unless the scan
    /// found its record.
    pub(crate) within: (u64, u64),
}

/// The last commit that a scan met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCommit {
    pub(crate) offset: u64,
    /// Its records are `records[first_record..]`.
    pub(crate) first_record: usize,
    /// Damage inside it is `damage[first_damage..]`.
    pub(crate) first_damage: usize,
}

/// Walks the commits from `from`, where one must start, to `to`. Commits have sequence numbers above `sequence`: what
/// has a lower one is the rest of an append that was given up.
pub(crate) fn scan(
    file: &File,
    key: &PackKey,
    (from, to): (u64, u64),
    sequence: u64,
    purpose: Purpose,
) -> io::Result<Scan> {
    let mut scan = Scan { end: from, sequence, ..Scan::default() };
    let mut offset = from;
    let mut page = vec![0u8; PAGE_LEN as usize];
    while offset < to {
        let got = read_up_to(file, &mut page, offset)?;
        scan.bytes_read += got as u64;
        match key.read_commit_header(offset, &page[..got]) {
            Ok(commit) if commit.sequence > scan.sequence => {
                let (records, damage) = (scan.records.len(), scan.damage.len());
                scan_commit(file, key, offset, &commit, &page[..got], &mut scan)?;
                if purpose == Purpose::Check && scan.damage.len() == damage {
                    scan.records.truncate(records);
                }
                offset += commit.extent_len;
                scan.end = offset;
                scan.sequence = commit.sequence;
                scan.commits += 1;
            }
            Err(HeaderError::Version(version)) => {
                scan.newer = Some(version);
                return Ok(scan);
            }
            // Either the tail of the pack, or damage with commits behind it.
            _ => match next_commit(file, key, offset + PAGE_LEN, to, scan.sequence)? {
                Some(next) => {
                    let (len, within) = (next - offset, (offset, next));
                    scan.damage.push(Region { kind: DamageKind::CommitHeader, offset, len, within });
                    offset = next;
                }
                None => break,
            },
        }
    }
    Ok(scan)
}

/// The first commit at `from` or behind it, where it starts and what is in it; `None` if there is none before `to`. A start
/// above `from` means that what lies between is damaged.
pub(crate) fn scan_next(
    file: &File,
    key: &PackKey,
    (from, to): (u64, u64),
) -> io::Result<Option<(u64, Commit, Scan)>> {
    let mut page = vec![0u8; PAGE_LEN as usize];
    let mut offset = from;
    while offset < to {
        let got = read_up_to(file, &mut page, offset)?;
        if let Ok(commit) = key.read_commit_header(offset, &page[..got]) {
            let mut scan = Scan { end: offset + commit.extent_len, ..Scan::default() };
            scan_commit(file, key, offset, &commit, &page[..got], &mut scan)?;
            return Ok(Some((offset, commit, scan)));
        }
        match next_commit(file, key, offset + PAGE_LEN, to, 0)? {
            Some(next) => offset = next,
            None => break,
        }
    }
    Ok(None)
}

/// Reads the record table of a commit whose first page is `page`.
fn scan_commit(
    file: &File,
    key: &PackKey,
    offset: u64,
    commit: &Commit,
    page: &[u8],
    scan: &mut Scan,
) -> io::Result<()> {
    scan.last =
        Some(LastCommit { offset, first_record: scan.records.len(), first_damage: scan.damage.len() });
    let mut long_table;
    let table = if commit.table_len() <= page.len() as u64 {
        page
    } else {
        long_table = vec![0u8; commit.table_len() as usize];
        let got = read_up_to(file, &mut long_table, offset)?;
        scan.bytes_read += got as u64;
        &long_table[..got]
    };
    for i in 0..u64::from(commit.record_count) {
        let at = HEADER_LEN * (1 + i);
        let bytes = table.get(at as usize..(at + HEADER_LEN) as usize).unwrap_or(&[]);
        match key.read_record_header(offset + at, bytes, offset, commit) {
            Ok(record) => scan.records.push(record),
            Err(HeaderError::Version(version)) => scan.newer = Some(version),
            Err(HeaderError::Invalid) => scan.damage.push(Region {
                kind: DamageKind::RecordHeader,
                offset: offset + at,
                len: HEADER_LEN,
                within: (offset, offset + commit.extent_len),
            }),
        }
    }
    Ok(())
}

/// The first commit header from `from` on, at a multiple of [`PAGE_LEN`], with a sequence number above `sequence`.
fn next_commit(file: &File, key: &PackKey, from: u64, to: u64, sequence: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0u8; SEARCH_LEN];
    let mut offset = from;
    while offset < to {
        let got = read_up_to(file, &mut buffer, offset)?;
        if got == 0 {
            break;
        }
        for (i, page) in buffer[..got].chunks(PAGE_LEN as usize).enumerate() {
            let at = offset + i as u64 * PAGE_LEN;
            match key.read_commit_header(at, page) {
                Ok(commit) if commit.sequence > sequence => return Ok(Some(at)),
                Err(HeaderError::Version(_)) => return Ok(Some(at)),
                _ => {}
            }
        }
        offset += SEARCH_LEN as u64;
    }
    Ok(None)
}

/// Fills `buffer` from `offset`, or as much of it as the file has. Pages that the disk cannot read are zeros, and so
/// holes: the rest of the store must open all the same.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                let at = offset + got as u64;
                let page_left = (at / PAGE_LEN + 1) * PAGE_LEN - at;
                let end = buffer.len().min(got + page_left as usize);
                buffer[got..end].fill(0);
                got = end;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
