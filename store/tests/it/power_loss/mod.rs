//! What a power loss may do to a store, and what it may not: shared by the tests of the store and those of the engine's
//! storage executors, which include this folder.

mod disk;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use store::{Backend, Hash, LoadError, Lookup, Options, Store, WriteOp};

pub use disk::{Dice, Disk, RecordingBackend};

/// What was done to a store: operations, and what had been acknowledged when how many of them had run.
pub struct History {
    pub options: Options,
    pub log: Vec<WriteOp>,
    pub acknowledged: Vec<(usize, Vec<Hash>)>,
    /// Every segment that was ever to be appended.
    pub content: HashMap<Hash, Bytes>,
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
        let due = self.acknowledged.iter().filter(|(at, _)| *at <= run);
        for hash in due.flat_map(|(_, hashes)| hashes) {
            if !store.contains(hash) {
                return Err(format!("{hash} was acknowledged and is lost"));
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
