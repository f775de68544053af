//! Compaction: what is alive in a pack is appended anew, and the pack's file is removed. Readers go on meanwhile.
//!
//! Order, each step durable before the next: the live records (and the tombstones that still count) in another pack; the
//! index says where they lie now; an index snapshot that names the pack as retired; the file is gone. A crash before the
//! snapshot leaves a pack full of dead records, after it a file that the next opening removes.
//!
//! The file is unlinked, never punched: a slice that is on its way to a reader would turn into zeros under it. A mapping
//! outlives its file's name, and the space comes back when the last slice has gone.
//!
//! What does not verify is not moved, and goes with its pack: it can be served to nobody, and other nodes, or whoever put it,
//! have it whole. Else a single flipped bit would hold the space of a pack for ever.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::Hash;
use crate::append::{Effect, Item};
use crate::backend::WriteOp;
use crate::error::{AppendError, Damage, DamageKind, SnapshotError};
use crate::index::Location;
use crate::pack::{self, PACK_HEADER_PAGE_LEN, PackKey};
use crate::packs::{Pack, packs_dir};
use crate::payload::PayloadReader;
use crate::scan;
use crate::store::Store;

/// How a pack is used.
#[derive(Clone, Debug)]
pub struct PackUse {
    /// Its number.
    pub pack: u32,
    /// Bytes of its file.
    pub len: u64,
    /// Segments in it that the store holds.
    pub live_segments: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes that rewriting would give back: what is neither a live segment nor its framing.
    pub dead_bytes: u64,
    /// It is appended to.
    pub is_active: bool,
    /// Something in it is known to be damaged.
    pub is_damaged: bool,
}

/// Bytes of a pack that are not worth the trouble: of its header, and of the last commits' padding.
const DEAD_LEN_MIN: u64 = 64 << 10;

impl PackUse {
    /// The share of the file that rewriting would give back, in percent; 0 where that is next to nothing.
    pub fn dead_percent(&self) -> u8 {
        if self.dead_bytes < DEAD_LEN_MIN {
            return 0;
        }
        (u128::from(self.dead_bytes) * 100 / u128::from(self.len.max(1))) as u8
    }
}

/// What compacting a pack came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the pack's file.
    pub bytes_freed: u64,
    /// Bytes that were written anew, without framing.
    pub bytes_moved: u64,
    /// Segments that were.
    pub segments_moved: u64,
    /// What was damaged in the pack, as was known or found on the way. It is gone with it, and no longer in quarantine.
    pub given_up: Vec<Damage>,
}

/// Why a pack was not compacted. What was moved stays moved, and the pack's file stays.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The live records could not be written elsewhere.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The index snapshot could not be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The pack could not be read or removed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The pack.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A compaction under way.
#[derive(Debug)]
pub struct Compaction {
    store: Store,
    pack: Arc<Pack>,
    key: PackKey,
    reader: PayloadReader,
    /// Where the next commit is looked for.
    at: u64,
    /// Items of the last commit that have not been appended yet, in reverse.
    waiting: Vec<(Hash, Option<Location>)>,
    stage: Stage,
    done: Compacted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// By the tables.
    Commits,
    /// By the index: segments whose record headers no longer verify.
    Leftovers,
    Retire,
}

impl Store {
    /// How each pack is used. Walks the whole index: about 50 ms a million segments.
    pub fn pack_use(&self) -> Vec<PackUse> {
        let mut live: HashMap<u32, (u64, u64, u64)> = HashMap::new();
        for (_, location) in self.inner.index.entries_from(&Hash([0; 32])).iter() {
            let (segments, bytes, framed) = live.entry(location.pack).or_default();
            *segments += 1;
            *bytes += u64::from(location.len);
            *framed += pack::framed_len(location.len);
        }
        let active = self.inner.writer().active;
        let quarantined = self.inner.quarantined();
        let is_damaged =
            |pack: &Pack| quarantined.iter().any(|damage| damage.path.file_name() == pack.path.file_name());
        let of_pack = |pack: &Arc<Pack>| {
            let (live_segments, live_bytes, framed) = live.get(&pack.number).copied().unwrap_or_default();
            let len = pack.committed_len();
            PackUse {
                pack: pack.number,
                len,
                live_segments,
                live_bytes,
                dead_bytes: len.saturating_sub(framed),
                is_active: active == Some(pack.number),
                is_damaged: is_damaged(pack),
            }
        };
        self.inner.packs.all().iter().map(of_pack).collect()
    }

    /// Packs that are worth compacting, the one with the largest dead share first: at least `dead_percent_min`. What is
    /// damaged counts as dead. With `and_active` the pack that is appended to counts, too, and the next append begins another.
    pub fn packs_to_compact(&self, dead_percent_min: u8, and_active: bool) -> Vec<PackUse> {
        let mut packs = self.pack_use();
        packs.retain(|pack| {
            let is_due = pack.dead_percent() >= dead_percent_min.max(1);
            is_due && (and_active || !pack.is_active)
        });
        packs.sort_by_key(|pack| std::cmp::Reverse(pack.dead_percent()));
        if packs.iter().any(|pack| pack.is_active) {
            self.seal_active_pack();
        }
        packs
    }

    /// Has the next append begin another pack, so that the present one can be compacted.
    fn seal_active_pack(&self) {
        let mut writer = self.inner.writer();
        while writer.busy {
            writer = self.inner.writer_free.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        writer.active = None;
    }

    /// Begins to compact a pack; `None` if there is no such pack, or it is appended to. One compaction at a time.
    ///
    /// # Errors
    /// [`CompactError::Io`].
    pub fn compaction(&self, pack: u32) -> Result<Option<Compaction>, CompactError> {
        // What an earlier one could not end.
        self.remove_retired()?;
        let Some(pack) = self.inner.packs.get(pack) else { return Ok(None) };
        if self.inner.writer().active == Some(pack.number) {
            return Ok(None);
        }
        let reader = PayloadReader::open(&pack.path).map_err(|source| io_error(&pack, source))?;
        let key = PackKey::new(self.inner.store_id, pack.number);
        Ok(Some(Compaction {
            store: self.clone(),
            pack,
            key,
            reader,
            at: PACK_HEADER_PAGE_LEN,
            waiting: Vec::new(),
            stage: Stage::Commits,
            done: Compacted::default(),
        }))
    }

    /// Writes a snapshot that names the retired packs, and removes their files; returns how many bytes they had.
    fn remove_retired(&self) -> Result<u64, CompactError> {
        let inner = &self.inner;
        let retired = inner.retired().clone();
        if retired.is_empty() {
            return Ok(0);
        }
        inner.write_snapshot()?;
        let mut freed = 0;
        for pack in retired {
            let io = |source| io_error(&pack, source);
            inner.backend.run(&WriteOp::Remove { path: Arc::clone(&pack.path) }).map_err(io)?;
            inner.backend.run(&WriteOp::SyncDir { path: packs_dir(&inner.dir) }).map_err(io)?;
            let was_retired = {
                let mut retired = inner.retired();
                let before = retired.len();
                retired.retain(|other| other.number != pack.number);
                retired.len() < before
            };
            // Somebody else may have come first.
            if was_retired {
                let mut writer = inner.writer();
                writer.bytes_used = writer.bytes_used.saturating_sub(pack.committed_len());
                freed += pack.committed_len();
            }
        }
        Ok(freed)
    }
}

impl Compaction {
    /// The pack.
    pub fn pack(&self) -> u32 {
        self.pack.number
    }

    /// Bytes of the pack that are behind, and bytes of the pack.
    pub fn progress(&self) -> (u64, u64) {
        (self.at, self.pack.committed_len())
    }

    /// Goes on by about `bytes_max` bytes of payload, in one append; at least one record. Blocks. `Some` when the pack is
    /// gone and its space given back.
    ///
    /// # Errors
    /// [`CompactError`]; the compaction is over, and another one may be begun.
    pub fn step(&mut self, bytes_max: u64) -> Result<Option<Compacted>, CompactError> {
        if self.stage == Stage::Retire {
            return self.retire().map(Some);
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && items.len() < 4096 {
            let Some((hash, from)) = self.waiting.pop() else {
                if self.advance()? {
                    continue;
                }
                break;
            };
            let Some(from) = from else {
                items.push(Item { hash, bytes: Bytes::new(), effect: Effect::Carry });
                continue;
            };
            // Deleted or moved since the table was read.
            if self.store.inner.index.get(&hash) != Some(from) {
                continue;
            }
            let Some(payload) = self.payload(&hash, &from)? else {
                let path = self.pack.path.to_path_buf();
                let (offset, len, kind) = (from.offset, u64::from(from.len), DamageKind::Payload);
                let damage = Damage { path, offset, len, kind, hash: Some(hash) };
                self.store.inner.quarantine(&hash, &from, damage);
                bytes += len;
                continue;
            };
            bytes += payload.len() as u64;
            items.push(Item { hash, bytes: payload, effect: Effect::Move(from) });
        }
        if !items.is_empty() {
            let tombstones = items.iter().filter(|item| item.effect == Effect::Carry).count() as u64;
            let moved = self.store.append_items(items)?;
            self.done.segments_moved += moved.segments.saturating_sub(tombstones);
            self.done.bytes_moved += moved.bytes;
        }
        Ok(None)
    }

    /// A segment's bytes, or none if they do not verify. They are gone then when the pack is, so they have a second chance: the
    /// first read may have been disturbed on its way.
    fn payload(&mut self, hash: &Hash, at: &Location) -> Result<Option<Bytes>, CompactError> {
        for _ in 0..2 {
            let payload =
                self.reader.read(at.offset, at.len).map_err(|source| io_error(&self.pack, source))?;
            if Hash::of(&payload) == *hash {
                return Ok(Some(payload));
            }
        }
        Ok(None)
    }

    /// Finds the next records to be moved; false if the tables and the index have no more.
    fn advance(&mut self) -> Result<bool, CompactError> {
        let inner = Arc::clone(&self.store.inner);
        if self.stage == Stage::Commits {
            let to = self.pack.committed_len();
            let next = scan::scan_next(self.reader.file(), &self.key, (self.at, to));
            let Some((_, _, scan)) = next.map_err(|source| io_error(&self.pack, source))? else {
                self.at = to;
                self.stage = Stage::Leftovers;
                let leftovers = inner.index.entries_from(&Hash([0; 32]));
                let here = leftovers.iter().filter(|(_, location)| location.pack == self.pack.number);
                self.waiting = here.map(|(hash, location)| (hash, Some(location))).collect();
                return Ok(true);
            };
            self.at = scan.end;
            // A tombstone counts as long as an older pack may have a record of the segment.
            let has_older = inner.packs.all().iter().any(|pack| pack.number < self.pack.number);
            for record in scan.records.iter().rev() {
                let (offset, len) = (record.payload_offset, record.payload_len);
                let here = Location { offset, pack: self.pack.number, len };
                if record.is_tombstone {
                    if has_older {
                        self.waiting.push((record.hash, None));
                    }
                } else if inner.index.get(&record.hash) == Some(here) {
                    self.waiting.push((record.hash, Some(here)));
                }
            }
            return Ok(true);
        }
        self.stage = Stage::Retire;
        Ok(false)
    }

    fn retire(&mut self) -> Result<Compacted, CompactError> {
        let inner = &self.store.inner;
        {
            let mut retired = inner.retired();
            if !retired.iter().any(|pack| pack.number == self.pack.number) {
                retired.push(Arc::clone(&self.pack));
            }
        }
        inner.packs.remove(self.pack.number);
        self.pack.retire();
        self.done.given_up.append(&mut inner.forget_damage(&self.pack.path));
        self.done.bytes_freed = self.store.remove_retired()?;
        Ok(std::mem::take(&mut self.done))
    }
}

fn io_error(pack: &Pack, source: io::Error) -> CompactError {
    CompactError::Io { path: pack.path.to_path_buf(), source }
}
