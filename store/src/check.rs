//! Checking the structure of packs that the index snapshot covers, and taking out of the index what is damaged.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use crate::error::{Damage, DamageKind, OpenError};
use crate::index::Index;
use crate::pack::{PACK_HEADER_PAGE_LEN, PackKey, Record};
use crate::packs::Pack;
use crate::scan::{self, Purpose, Region};
use crate::store::Inner;

/// What finding a commit on a cold disk costs, as bytes read one after the other: about 100 microseconds.
const SEEK_COST: u64 = 32 << 10;

/// Checks the structure of all packs up to what is committed now.
pub(crate) fn check_structure(inner: &Inner) -> Result<Vec<Damage>, OpenError> {
    check_packs(inner, &inner.packs.all())
}

/// Checks the structure of one pack up to what is committed now; returns what was not known.
pub(crate) fn check_one(inner: &Inner, pack: &Arc<Pack>) -> Result<Vec<Damage>, OpenError> {
    check_packs(inner, std::slice::from_ref(pack))
}

fn check_packs(inner: &Inner, packs: &[Arc<Pack>]) -> Result<Vec<Damage>, OpenError> {
    let mut damage = Vec::new();
    let mut doubts = Doubts::default();
    for pack in packs {
        let checked = check_pack(pack, pack.committed_len(), inner.store_id, &mut damage, &mut doubts);
        match checked {
            // Compacted away meanwhile.
            Err(OpenError::Io { source, .. })
                if source.kind() == ErrorKind::NotFound && inner.packs.get(pack.number).is_none() => {}
            checked => drop(checked?),
        }
    }
    doubts.apply(&inner.index, &mut damage);
    let mut quarantined = inner.quarantined();
    damage.retain(|damage| !quarantined.iter().any(|known| known.is_same_place(damage)));
    quarantined.extend(damage.iter().cloned());
    Ok(damage)
}

/// Parts of packs whose entries in the snapshot are to be dropped, unless a scan found their records.
#[derive(Default)]
pub(crate) struct Doubts {
    by_pack: HashMap<u32, Vec<Doubt>>,
}

struct Doubt {
    from: u64,
    to: u64,
    /// Payload offsets of the records in there that verify.
    known: HashSet<u64>,
    /// Which damage it belongs to.
    damage: usize,
}

impl Doubts {
    pub(crate) fn push(&mut self, pack: u32, from: u64, to: u64, known: HashSet<u64>, damage: usize) {
        self.by_pack.entry(pack).or_default().push(Doubt { from, to, known, damage });
    }

    /// Drops the entries from the index, and names in each damage the segment if it is one.
    pub(crate) fn apply(&self, index: &Index, damage: &mut [Damage]) {
        if self.by_pack.is_empty() {
            return;
        }
        let mut dropped = vec![0u64; damage.len()];
        let mut last = vec![None; damage.len()];
        for (hash, location) in index.snapshot().iter() {
            let doubts = self.by_pack.get(&location.pack).map_or(&[][..], Vec::as_slice);
            let doubt = doubts.iter().find(|doubt| {
                location.end() > doubt.from
                    && location.offset < doubt.to
                    && !doubt.known.contains(&location.offset)
            });
            if let Some(doubt) = doubt
                && index.remove_at(&hash, &location)
            {
                dropped[doubt.damage] += 1;
                last[doubt.damage] = Some(hash);
            }
        }
        for (damage, (dropped, last)) in damage.iter_mut().zip(dropped.into_iter().zip(last)) {
            if dropped == 1 {
                damage.hash = last;
            }
        }
    }
}

/// Checks the structure of a pack from its first commit to `committed_len`; returns what that cost: bytes read, and
/// [`SEEK_COST`] for each commit.
pub(crate) fn check_pack(
    pack: &Pack,
    committed_len: u64,
    store_id: [u8; 16],
    damage: &mut Vec<Damage>,
    doubts: &mut Doubts,
) -> Result<u64, OpenError> {
    let io = |source| OpenError::Io { path: pack.path.to_path_buf(), source };
    let file = File::open(&pack.path).map_err(io)?;
    // Tables are read whole; reading ahead would bring in payloads. Only a hint.
    let _ = fadvise(&file, 0, None, Advice::Random);
    let len = file.metadata().map_err(io)?.len().min(committed_len);
    let key = PackKey::new(store_id, pack.number);
    let mut scan = scan::scan(&file, &key, (PACK_HEADER_PAGE_LEN, len), 0, Purpose::Check).map_err(io)?;
    if scan.end < len {
        // No commit starts here, and none follows, although the snapshot says that there were some.
        let (offset, len) = (scan.end, committed_len - scan.end);
        scan.damage.push(Region {
            kind: DamageKind::CommitHeader,
            offset,
            len,
            within: (offset, committed_len),
        });
    }
    note_damage(pack.number, &pack.path, &scan.damage, &scan.records, damage, doubts);
    Ok(scan.bytes_read + scan.commits * SEEK_COST)
}

/// Notes damaged regions of a pack, in which `records` are the records that verify.
pub(crate) fn note_damage(
    number: u32,
    path: &Path,
    regions: &[Region],
    records: &[Record],
    damage: &mut Vec<Damage>,
    doubts: &mut Doubts,
) {
    for region in regions {
        let (from, to) = region.within;
        // A tombstone has no payload, and the offset in it may be its neighbour's.
        let inside = records.iter().filter(|record| !record.is_tombstone);
        let inside = inside.map(|record| record.payload_offset).filter(|offset| (from..to).contains(offset));
        doubts.push(number, from, to, inside.collect(), damage.len());
        let (offset, len, kind) = (region.offset, region.len, region.kind);
        damage.push(Damage { path: path.to_owned(), offset, len, kind, hash: None });
    }
}
