//! Scrub: everything is read from the disk and verified, a step at a time, in the order in which it lies there.

use std::fs;
use std::io;
use std::sync::Arc;

use crate::error::{Damage, DamageKind, OpenError};
use crate::index::Location;
use crate::pack::{PACK_HEADER_PAGE_LEN, PackKey};
use crate::packs::Pack;
use crate::payload::PayloadReader;
use crate::store::{Inner, Store};
use crate::{Hash, check, scan};

/// Where a scrub goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubPosition {
    /// The pack; the first that there is with this number or a higher one.
    pub pack: u32,
    /// The commit in it: bytes from the start of the file.
    pub offset: u64,
    /// Records of that commit that are behind.
    pub record: u32,
}

/// What a step of a scrub did.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Where it goes on; `None` at the end.
    pub next: Option<ScrubPosition>,
    /// Segments that were read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What does not verify. It is quarantined: not served any more, its bytes left where they are.
    pub damage: Vec<Damage>,
}

impl Store {
    /// Reads and verifies about `bytes_max` bytes of payload, at least one record or commit. Blocks. Tables count, too:
    /// what lies in a commit whose header no longer verifies is quarantined.
    ///
    /// # Errors
    /// [`OpenError::Io`] with the pack that could not be read at all.
    pub fn scrub(&self, from: ScrubPosition, bytes_max: u64) -> Result<Scrubbed, OpenError> {
        let inner = &self.inner;
        let mut scrubbed = Scrubbed::default();
        let packs = inner.packs.all();
        let Some(pack) = packs.iter().find(|pack| pack.number >= from.pack) else { return Ok(scrubbed) };
        let start = ScrubPosition { pack: pack.number, offset: PACK_HEADER_PAGE_LEN, record: 0 };
        let mut at = if from.pack == pack.number { from } else { start };
        at.offset = at.offset.max(PACK_HEADER_PAGE_LEN);
        let next_pack = ScrubPosition { pack: pack.number.saturating_add(1), offset: 0, record: 0 };
        let io = |source| OpenError::Io { path: pack.path.to_path_buf(), source };
        let mut reader = match PayloadReader::open(&pack.path) {
            // Compacted away since, or found missing whenever it is asked for.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                scrubbed.next = Some(next_pack);
                return Ok(scrubbed);
            }
            reader => reader.map_err(io)?,
        };
        let key = PackKey::new(inner.store_id, pack.number);
        let to = pack.committed_len();
        while scrubbed.bytes < bytes_max {
            let found = scan::scan_next(reader.file(), &key, (at.offset, to)).map_err(io)?;
            let Some((offset, commit, scan)) = found else {
                if at.offset < to {
                    scrubbed.damage.append(&mut check_structure(inner, pack)?);
                }
                scrubbed.next = Some(next_pack);
                return Ok(scrubbed);
            };
            if offset > at.offset || !scan.damage.is_empty() {
                scrubbed.damage.append(&mut check_structure(inner, pack)?);
            }
            if offset > at.offset {
                at.record = 0;
            }
            let mut behind = at.record;
            for record in scan.records.iter().skip(at.record as usize) {
                if scrubbed.bytes >= bytes_max {
                    break;
                }
                behind += 1;
                let (offset, len) = (record.payload_offset, record.payload_len);
                let location = Location { offset, pack: pack.number, len };
                if record.is_tombstone || inner.index.get(&record.hash) != Some(location) {
                    continue;
                }
                let payload = reader.read(offset, len).map_err(io)?;
                scrubbed.segments += 1;
                scrubbed.bytes += u64::from(len);
                // What was deleted or compacted away meanwhile is nobody's damage.
                if Hash::of(&payload) != record.hash && inner.index.get(&record.hash) == Some(location) {
                    let path = pack.path.to_path_buf();
                    let (len, kind) = (u64::from(len), DamageKind::Payload);
                    let damage = Damage { path, offset, len, kind, hash: Some(record.hash) };
                    inner.quarantine(&record.hash, &location, damage.clone());
                    scrubbed.damage.push(damage);
                }
            }
            at = if behind as usize >= scan.records.len() {
                ScrubPosition { pack: pack.number, offset: offset + commit.extent_len, record: 0 }
            } else {
                ScrubPosition { pack: pack.number, offset, record: behind }
            };
        }
        scrubbed.next = Some(at);
        Ok(scrubbed)
    }
}

/// Checks the tables of a pack in which something does not verify, and quarantines what they no longer vouch for.
fn check_structure(inner: &Inner, pack: &Arc<Pack>) -> Result<Vec<Damage>, OpenError> {
    if !fs::exists(&pack.path).unwrap_or(true) {
        return Ok(Vec::new());
    }
    check::check_one(inner, pack)
}
