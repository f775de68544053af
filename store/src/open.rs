//! Opening: from whatever a crash or a bad disk left to a store that serves what is whole and reports what is not.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use bytes::Bytes;

use crate::Hash;
use crate::backend::WriteOp;
use crate::check::{self, Doubts};
use crate::error::{Damage, DamageKind, OpenError};
use crate::index::{Index, Location, Meta, PackMeta, Snapshot, SnapshotFault, TailEntry};
use crate::lock::Lock;
use crate::mapping;
use crate::pack::{self, HeaderError, PACK_HEADER_PAGE_LEN, PAGE_LEN, PackKey, Record};
use crate::packs::{self, Pack, Packs};
use crate::quarantine;
use crate::scan::{self, Purpose, Region, Scan};
use crate::store::{Cut, DynBackend, Inner, OpenReport, Options, Writer, index_path};

pub(crate) fn open(
    dir: &Path,
    options: Options,
    backend: DynBackend,
    inherited_lock: Option<File>,
) -> Result<(Inner, OpenReport), OpenError> {
    let started = Instant::now();
    check_options(&options)?;
    mapping::install_sigbus_handler();
    make_directories(dir, &backend)?;
    let lock = Lock::take(dir, inherited_lock)?;
    let mut opening = Opening {
        dir,
        options: &options,
        backend: &backend,
        report: OpenReport::default(),
        doubts: Doubts::default(),
        found: Vec::new(),
        next_pack: 1,
        sequence: 0,
        active: None,
        torn: Vec::new(),
    };
    let snapshot = opening.snapshot()?;
    let numbers = packs::list_packs(dir).map_err(|source| io_error(&packs::packs_dir(dir), source))?;
    let numbers = opening.remove_retired(&snapshot.meta, numbers)?;
    let store_id = opening.store_id(&snapshot.meta, &numbers)?;
    let known: Vec<Damage> = snapshot.meta.quarantined.iter().map(quarantine::from_meta).collect();

    let packs = Packs::default();
    for &number in &numbers {
        let covered = snapshot.meta.packs.iter().find(|meta| meta.pack == number);
        if let Some(pack) = opening.pack(number, store_id, covered, numbers.last() == Some(&number))? {
            packs.insert(Arc::new(pack));
        }
    }
    opening.missing_packs(&snapshot.meta, &packs);
    opening.check_covered(&snapshot.meta, &packs, store_id)?;

    let Opening { mut report, doubts, found, next_pack, sequence, active, torn, .. } = opening;
    let index = Index::new(Arc::new(snapshot));
    doubts.apply(&index, &mut report.damage);
    for (hash, entry) in &found {
        index.insert(*hash, *entry);
    }
    report.damage.retain(|damage| !known.iter().any(|known| known.is_same_place(damage)));
    report.segments = index.len();
    report.recovered = found.len() as u64;
    let all = packs.all();
    report.packs = all.len() as u64;
    let bytes_used = all.iter().map(|pack| pack.committed_len()).sum();
    let quarantined = known.into_iter().chain(report.damage.iter().cloned()).chain(torn).collect();
    let bytes_max = options.bytes_max;
    let inner = Inner {
        dir: dir.to_owned(),
        options,
        backend,
        store_id,
        index,
        packs,
        writer: Mutex::new(Writer { busy: false, active, next_pack, sequence, bytes_used, bytes_max }),
        writer_free: Condvar::new(),
        retired: Mutex::default(),
        snapshotting: Mutex::new(()),
        quarantined: Mutex::new(quarantined),
        lock,
    };
    let is_changed = !report.damage.is_empty() || !report.cut.is_empty();
    if is_changed || inner.is_snapshot_due() {
        // What was found is found again if this fails, as it does on a full disk; the store opens all the same.
        let _ = inner.write_snapshot();
    }
    report.elapsed = started.elapsed();
    Ok((inner, report))
}

/// What opening gathers on its way.
struct Opening<'a> {
    dir: &'a Path,
    options: &'a Options,
    backend: &'a DynBackend,
    report: OpenReport,
    doubts: Doubts,
    /// What the records behind the snapshot say, in the order in which they were appended: the last one counts.
    found: Vec<(Hash, TailEntry)>,
    next_pack: u32,
    sequence: u64,
    active: Option<u32>,
    /// Record headers of a last commit of which the rest is whole. Left out and no damage now, but the snapshot will cover
    /// them, and what a later opening finds there must be known.
    torn: Vec<Damage>,
}

impl Opening<'_> {
    /// The snapshot, or an empty one: if there is none, or if it does not verify and was moved aside.
    fn snapshot(&mut self) -> Result<Snapshot, OpenError> {
        let path = index_path(self.dir);
        match Snapshot::open(&path) {
            Ok(snapshot) => Ok(snapshot),
            Err(SnapshotFault::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Snapshot::empty(Meta::default()))
            }
            Err(SnapshotFault::Io(source)) => Err(io_error(&path, source)),
            Err(SnapshotFault::Invalid) => {
                let len = fs::metadata(&path).map_err(|source| io_error(&path, source))?.len();
                let path = self.move_aside(&path)?;
                let damage = Damage { path, offset: 0, len, kind: DamageKind::Index, hash: None };
                self.report.damage.push(damage);
                Ok(Snapshot::empty(Meta::default()))
            }
        }
    }

    /// The store's id: from the snapshot, else from the first pack that proves one, else a new one.
    fn store_id(&self, meta: &Meta, numbers: &[u32]) -> Result<[u8; 16], OpenError> {
        if meta.store_id != [0; 16] {
            return Ok(meta.store_id);
        }
        for &number in numbers {
            let path = packs::pack_path(self.dir, number);
            if let Some((id, claimed)) = pack::claimed_identity(&read_start(&path)?)
                && claimed == number
            {
                return Ok(id);
            }
        }
        let mut id = [0u8; 16];
        getrandom::fill(&mut id).map_err(|error| io_error(self.dir, io::Error::other(error.to_string())))?;
        Ok(id)
    }

    /// Opens one pack: checks its header and what lies behind the snapshot, and cuts off what is torn. `None` if it
    /// holds nothing or was moved aside.
    fn pack(
        &mut self,
        number: u32,
        store_id: [u8; 16],
        covered: Option<&PackMeta>,
        is_last: bool,
    ) -> Result<Option<Pack>, OpenError> {
        let path = packs::pack_path(self.dir, number);
        let io = |source| io_error(&path, source);
        let file = File::open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let key = PackKey::new(store_id, number);
        let start = read_start(&path)?;
        let header = key.check_pack_header(&start);
        if let Err(HeaderError::Version(found)) = header {
            return Err(version_error(&path, found));
        }
        self.next_pack = self.next_pack.max(number.saturating_add(1));

        let (from, sequence) = covered.map_or((PACK_HEADER_PAGE_LEN, 0), |c| (c.committed_len, c.sequence));
        let mut scan = scan::scan(&file, &key, (from, len), sequence, Purpose::Index).map_err(io)?;
        if let Some(found) = scan.newer {
            return Err(version_error(&path, found));
        }
        // Header and first commit become durable by one sync: without one of them the pack was just being created.
        let is_foreign = pack::claimed_identity(&start).is_some_and(|claimed| claimed != (store_id, number));
        let is_newborn = is_last && covered.is_none() && scan.commits <= 1 && !is_foreign;
        if header.is_err() && covered.is_none() && scan.commits == 0 && !is_newborn {
            let path = self.move_aside(&path)?;
            self.report.damage.push(Damage {
                path,
                offset: 0,
                len,
                kind: DamageKind::PackHeader,
                hash: None,
            });
            return Ok(None);
        }
        self.verify_last_commit(&file, &path, &mut scan)?;
        if header.is_err() && is_newborn {
            let cut_len = if scan.records.is_empty() { len } else { PACK_HEADER_PAGE_LEN };
            self.report.cut.push(Cut { path: path.to_path_buf(), offset: 0, len: cut_len });
            if scan.records.is_empty() {
                // The next append creates it anew.
                self.next_pack = number;
                return Ok(None);
            }
            let bytes = Bytes::from(key.pack_header_page());
            let header = WriteOp::Write { path: Arc::clone(&path), offset: 0, bytes };
            self.backend.run(&header).map_err(io)?;
            self.backend.run(&WriteOp::Sync { path: Arc::clone(&path) }).map_err(io)?;
        }

        let damage_before = self.report.damage.len();
        if header.is_err() && !is_newborn {
            self.damage(&path, DamageKind::PackHeader, 0, pack::HEADER_LEN);
        }
        if covered.is_some() && len < from {
            self.doubts.push(number, len, u64::MAX, HashSet::new(), self.report.damage.len());
            self.damage(&path, DamageKind::Truncated, len, from - len);
        }
        self.note_damage(number, &path, &scan.damage, &scan.records);
        if scan.last.is_some() || len > scan.end {
            // The writer may have died between its writes and the sync: what is found may be in the page cache only,
            // or lack the last commit's padding. It must be durable before a snapshot says that it is there.
            let ops = [
                WriteOp::Truncate { path: Arc::clone(&path), len: scan.end },
                WriteOp::Sync { path: Arc::clone(&path) },
            ];
            ops[usize::from(len == scan.end)..].iter().try_for_each(|op| self.backend.run(op)).map_err(io)?;
        }
        if len > scan.end {
            self.report.cut.push(Cut { path: path.to_path_buf(), offset: scan.end, len: len - scan.end });
        }

        for record in &scan.records {
            let (offset, len) = (record.payload_offset, record.payload_len);
            let at = TailEntry::At(Location { offset, pack: number, len });
            self.found.push((record.hash, if record.is_tombstone { TailEntry::Gone } else { at }));
        }
        self.sequence = self.sequence.max(scan.sequence);
        let is_whole = self.report.damage.len() == damage_before;
        self.active = (is_last && is_whole && scan.end < self.options.pack_len_max).then_some(number);
        Ok(Some(Pack::new(number, path, scan.end, scan.sequence, self.options.pack_len_max)))
    }

    /// The last commit is the only one that may be torn: the one before was durable before it was begun. So its
    /// payloads are read and checked. What does not verify was never acknowledged, and is left out; if nothing in it
    /// verifies, the whole commit is taken for torn.
    fn verify_last_commit(&mut self, file: &File, path: &Path, scan: &mut Scan) -> Result<(), OpenError> {
        let Some(last) = scan.last else { return Ok(()) };
        let mut torn = Vec::new();
        let mut whole = Vec::new();
        for record in scan.records.drain(last.first_record..) {
            let is_whole = verify_payload(file, &record).map_err(|source| io_error(path, source))?;
            if is_whole { whole.push(record) } else { torn.push(record) }
        }
        let torn_headers = scan.damage.split_off(last.first_damage);
        if whole.is_empty() {
            scan.end = last.offset;
            return Ok(());
        }
        scan.records.append(&mut whole);
        self.torn.extend(torn_headers.iter().map(|region| Damage {
            path: path.to_owned(),
            offset: region.offset,
            len: region.len,
            kind: region.kind,
            hash: None,
        }));
        let payloads = torn.iter().map(|record| (record.payload_offset, u64::from(record.payload_len)));
        for (offset, len) in torn_headers.iter().map(|region| (region.offset, region.len)).chain(payloads) {
            self.report.cut.push(Cut { path: path.to_owned(), offset, len });
        }
        Ok(())
    }

    /// Ends compactions that a crash has cut short between the snapshot, which says that a pack holds nothing any more, and
    /// the removal of its file. Returns the packs that count.
    fn remove_retired(&self, meta: &Meta, mut numbers: Vec<u32>) -> Result<Vec<u32>, OpenError> {
        let retired = meta.packs.iter().filter(|covered| covered.is_retired()).map(|covered| covered.pack);
        let retired: Vec<u32> = retired.filter(|number| numbers.contains(number)).collect();
        for &number in &retired {
            let path = packs::pack_path(self.dir, number);
            let removed = self.backend.run(&WriteOp::Remove { path: Arc::clone(&path) });
            removed.map_err(|source| io_error(&path, source))?;
        }
        if !retired.is_empty() {
            let path = packs::packs_dir(self.dir);
            let synced = self.backend.run(&WriteOp::SyncDir { path: path.clone() });
            synced.map_err(|source| io_error(&path, source))?;
            numbers.retain(|number| !retired.contains(number));
        }
        Ok(numbers)
    }

    /// Packs that the snapshot knows and the directory does not have.
    fn missing_packs(&mut self, meta: &Meta, packs: &Packs) {
        for covered in &meta.packs {
            self.sequence = self.sequence.max(covered.sequence);
            self.next_pack = self.next_pack.max(covered.pack.saturating_add(1));
            if packs.get(covered.pack).is_none() && !covered.is_retired() {
                self.doubts.push(covered.pack, 0, u64::MAX, HashSet::new(), self.report.damage.len());
                let path = packs::pack_path(self.dir, covered.pack);
                self.damage(&path, DamageKind::Missing, 0, covered.committed_len);
            }
        }
    }

    /// Checks the structure that the snapshot covers, newest packs first, within the budget.
    fn check_covered(&mut self, meta: &Meta, packs: &Packs, store_id: [u8; 16]) -> Result<(), OpenError> {
        let mut budget = self.options.structure_check_bytes_max;
        let mut covered: Vec<_> = meta.packs.iter().filter(|covered| covered.sequence > 0).collect();
        covered.sort_by_key(|covered| std::cmp::Reverse(covered.pack));
        for meta in covered {
            let Some(pack) = packs.get(meta.pack) else { continue };
            if budget == 0 {
                self.report.packs_unchecked += 1;
                continue;
            }
            let damage_before = self.report.damage.len();
            let (damage, doubts) = (&mut self.report.damage, &mut self.doubts);
            let read = check::check_pack(&pack, meta.committed_len, store_id, damage, doubts)?;
            budget = budget.saturating_sub(read);
            if self.report.damage.len() > damage_before && self.active == Some(meta.pack) {
                self.active = None;
            }
        }
        Ok(())
    }

    fn damage(&mut self, path: &Path, kind: DamageKind, offset: u64, len: u64) {
        self.report.damage.push(Damage { path: path.to_owned(), offset, len, kind, hash: None });
    }

    fn note_damage(&mut self, number: u32, path: &Path, regions: &[Region], records: &[Record]) {
        check::note_damage(number, path, regions, records, &mut self.report.damage, &mut self.doubts);
    }

    fn move_aside(&self, path: &Path) -> Result<PathBuf, OpenError> {
        quarantine::move_aside(&**self.backend, self.dir, path).map_err(|source| io_error(path, source))
    }
}

fn check_options(options: &Options) -> Result<(), OpenError> {
    let value = options.pack_len_max;
    if (1 << 20..=64 << 30).contains(&value) {
        return Ok(());
    }
    Err(OpenError::Option { option: "pack_len_max", value, allowed: "1048576 to 68719476736 bytes" })
}

fn make_directories(dir: &Path, backend: &DynBackend) -> Result<(), OpenError> {
    let (packs, quarantine) = (packs::packs_dir(dir), quarantine::quarantine_dir(dir));
    if packs.is_dir() && quarantine.is_dir() {
        return Ok(());
    }
    for path in [dir.to_owned(), packs, quarantine] {
        backend.run(&WriteOp::CreateDir { path: path.clone() }).map_err(|source| io_error(&path, source))?;
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    for path in [Some(dir), parent].into_iter().flatten() {
        let path = path.to_owned();
        backend.run(&WriteOp::SyncDir { path: path.clone() }).map_err(|source| io_error(&path, source))?;
    }
    Ok(())
}

/// The header page and the first page of commits, or as much of them as there is.
fn read_start(path: &Path) -> Result<Vec<u8>, OpenError> {
    let io = |source| io_error(path, source);
    let file = File::open(path).map_err(io)?;
    let mut start = vec![0u8; 2 * PAGE_LEN as usize];
    let got = scan::read_up_to(&file, &mut start, 0).map_err(io)?;
    start.truncate(got);
    Ok(start)
}

fn verify_payload(file: &File, record: &Record) -> io::Result<bool> {
    if record.is_tombstone {
        return Ok(true);
    }
    let mut payload = vec![0u8; record.payload_len as usize];
    let got = scan::read_up_to(file, &mut payload, record.payload_offset)?;
    Ok(got == payload.len() && Hash::of(&payload) == record.hash)
}

fn version_error(path: &Path, found: u16) -> OpenError {
    OpenError::Version { path: path.to_owned(), found: u32::from(found), known: u32::from(pack::VERSION) }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source }
}
