//! What a power loss may do to a store, and what it may not: shared by the tests of the store and those of the engine's
//! storage executors, which include this folder.

mod disk;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::leases::{Found, Leases, Now, Owner};
use store::{Backend, Hash, LoadError, Lookup, Options, Store, WriteOp};

pub use disk::{Dice, Disk, RecordingBackend};

/// What was done to a store: operations, and what had been acknowledged when how many of them had run.
pub struct History {
    pub options: Options,
    pub log: Vec<WriteOp>,
    pub acknowledged: Vec<(usize, Vec<Hash>)>,
    /// Every segment that was ever to be appended.
    pub content: HashMap<Hash, Bytes>,
    /// Deletions: how many operations had run when each was begun and when it was acknowledged. Nothing of it is put again.
    pub deleted: Vec<(usize, usize, Vec<Hash>)>,
    /// Who must have a lease on what was acknowledged, where leases were used.
    pub owner: Option<Owner>,
}

impl History {
    /// Opens what a crash after `run` operations left, and says what is wrong with it.
    pub fn check(&self, dir: &Path, run: usize, backend: Arc<dyn Backend>) -> Result<(), String> {
        let (store, report) = Store::open(dir, self.options.clone(), backend)
            .map_err(|error| format!("does not open: {error}"))?;
        if let Some(damage) = report.damage.first() {
            return Err(format!("a crash is taken for damage: {damage}"));
        }
        let mut reader = store.reader();
        for (hash, bytes) in &self.content {
            let found = match reader.lookup(hash) {
                Lookup::Absent => continue,
                Lookup::Ready(segment) => segment,
                Lookup::Cold(cold) => match cold.load() {
                    Ok(segment) => segment,
                    Err(LoadError::Damaged(damage)) => {
                        return Err(format!("torn and in the index: {damage}"));
                    }
                    Err(error) => return Err(error.to_string()),
                },
            };
            if found.bytes() != bytes {
                return Err(format!("{hash} is not what was appended"));
            }
        }
        let begun = self.deleted.iter().filter(|(begun, ..)| *begun <= run);
        let may_be_gone: HashSet<&Hash> = begun.flat_map(|(.., hashes)| hashes).collect();
        for (_, ended, hashes) in &self.deleted {
            if let Some(hash) = hashes.iter().find(|hash| *ended <= run && store.contains(hash)) {
                return Err(format!("{hash} was deleted and is back"));
            }
        }
        let due = self.acknowledged.iter().filter(|(at, _)| *at <= run);
        for hash in due.flat_map(|(_, hashes)| hashes).filter(|hash| !may_be_gone.contains(hash)) {
            if !store.contains(hash) {
                return Err(format!("{hash} was acknowledged and is lost"));
            }
        }
        if let Some(owner) = &self.owner {
            let now = Now { wall: Duration::from_secs(1), mono: Duration::ZERO };
            let (leases, found) =
                Leases::open(&store, [1; 32], now).map_err(|error| format!("leases do not open: {error}"))?;
            if found == Found::Lost {
                return Err("a crash is taken for damage of the leases".into());
            }
            let due = self.acknowledged.iter().filter(|(at, _)| *at <= run);
            for hash in due.flat_map(|(_, hashes)| hashes).filter(|hash| !may_be_gone.contains(hash)) {
                if !leases.has_lease(hash, owner) {
                    return Err(format!("{hash} was acknowledged and its lease is lost"));
                }
            }
        }
        Ok(())
    }

    /// Loses power after every single operation, and again while the store is being opened. What was recorded must be
    /// what happened to the files.
    pub fn lose_power_everywhere(&self, root: &Path, seed: u64) {
        let mut disk = Disk::default();
        let mut dice = Dice::new(seed);
        for run in 0..=self.log.len() {
            for _ in 0..2 {
                let crashed = tempfile::tempdir().unwrap();
                disk.crash(root, crashed.path(), &mut dice);
                let backend = RecordingBackend::new();
                let before = Disk::load(crashed.path());
                self.check(crashed.path(), run, backend.clone())
                    .unwrap_or_else(|problem| panic!("seed {seed}, after {run} operations: {problem}"));

                let mut again = before;
                let log = backend.log();
                let second = dice.below(log.len() as u64 + 1) as usize;
                log[..second].iter().for_each(|op| again.apply(op));
                let twice = tempfile::tempdir().unwrap();
                again.crash(crashed.path(), twice.path(), &mut dice);
                self.check(twice.path(), run, RecordingBackend::new()).unwrap_or_else(|problem| {
                    panic!("seed {seed}, after {run} operations and {second} of opening: {problem}")
                });
            }
            if let Some(op) = self.log.get(run) {
                disk.apply(op);
            }
        }
        for (path, content) in disk.files() {
            assert!(fs::read(path).unwrap() == content, "{} was changed unseen", path.display());
        }
    }

    /// The check itself must be able to fail: it finds what is lost when every operation that starts with `skipped`
    /// ("Sync {", "SyncDir") has been left out.
    pub fn notices_a_missing(&self, skipped: &str, root: &Path) {
        let mut disk = Disk::default();
        let mut dice = Dice::new(9);
        let mut problems = 0;
        for (run, op) in self.log.iter().enumerate() {
            if !format!("{op:?}").starts_with(skipped) {
                disk.apply(op);
            }
            let crashed = tempfile::tempdir().unwrap();
            disk.crash(root, crashed.path(), &mut dice);
            problems += u32::from(self.check(crashed.path(), run + 1, RecordingBackend::new()).is_err());
        }
        assert!(problems > 0, "nothing was lost although every {skipped} was left out");
    }
}
