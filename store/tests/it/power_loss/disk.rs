//! A disk that crashes: records what a store does to its files, and makes up what a power loss at any point could leave.
//!
//! Until a file is synced, each 512-byte sector of each write to it may or may not have reached the disk, in any
//! order, and its length may or may not have changed. Until a directory is synced, each creation and renaming in it may
//! or may not have. What was synced stays.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::{Arc, Mutex};

use store::{Backend, Ended, FileBackend, WriteOp};

const SECTOR_LEN: usize = 512;

/// Small, seeded, good enough to choose what survives.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Runs operations on the real file system and keeps them.
#[derive(Default)]
pub struct RecordingBackend {
    real: FileBackend,
    log: Arc<Mutex<Vec<WriteOp>>>,
    /// An executor is running an operation itself.
    in_ring: Arc<AtomicBool>,
}

impl RecordingBackend {
    pub fn new() -> Arc<RecordingBackend> {
        Arc::default()
    }

    pub fn len(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub fn log(&self) -> Vec<WriteOp> {
        self.log.lock().unwrap().clone()
    }
}

impl Backend for RecordingBackend {
    fn run(&self, op: &WriteOp) -> io::Result<()> {
        match op {
            // The machine that runs this test does not crash, and its disk has better things to do.
            WriteOp::Sync { .. } | WriteOp::SyncDir { .. } => {}
            op => self.real.run(op)?,
        }
        self.log.lock().unwrap().push(copy(op));
        Ok(())
    }

    /// A write may reach the disk from its start on, a sync is one when it has ended. In between there must be nothing
    /// else: the order of the log would not be the order on the disk.
    fn begin(&self, op: &WriteOp) -> Option<Ended> {
        let in_ring = Arc::clone(&self.in_ring);
        assert!(!in_ring.swap(true, AcqRel), "two operations of a plan at once");
        let op = copy(op);
        let log = Arc::clone(&self.log);
        if matches!(op, WriteOp::Sync { .. }) {
            return Some(Box::new(move || {
                log.lock().unwrap().push(op);
                in_ring.store(false, Release);
            }));
        }
        log.lock().unwrap().push(op);
        Some(Box::new(move || in_ring.store(false, Release)))
    }
}

/// The operation with a copy of its bytes: what was given may lie in a buffer that is used again.
fn copy(op: &WriteOp) -> WriteOp {
    match op {
        WriteOp::Write { path, offset, bytes } => WriteOp::Write {
            path: Arc::clone(path),
            offset: *offset,
            bytes: bytes::Bytes::copy_from_slice(bytes),
        },
        op => op.clone(),
    }
}

/// A file's contents: what is safe, and what was done since.
#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: bytes::Bytes },
    Truncate(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// What is on the disk and what is only on its way there.
#[derive(Clone, Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// Names as the running system sees them.
    names: HashMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    dirs: Vec<PathBuf>,
}

impl Disk {
    /// What a directory holds now, all of it safe.
    pub fn load(root: &Path) -> Disk {
        let mut disk = Disk::default();
        let mut todo = vec![root.to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    disk.inodes.push(Inode { durable: fs::read(&path).unwrap(), pending: Vec::new() });
                    disk.names.insert(path.clone(), disk.inodes.len() - 1);
                    disk.durable_names.insert(path, disk.inodes.len() - 1);
                }
            }
            disk.dirs.push(dir);
        }
        disk
    }

    pub fn apply(&mut self, op: &WriteOp) {
        match op {
            WriteOp::CreateDir { path } => self.dirs.push(path.clone()),
            WriteOp::Allocate { .. } => {}
            WriteOp::Create { path } => match self.names.get(&**path) {
                Some(&inode) => self.inodes[inode].pending.push(Change::Truncate(0)),
                None => {
                    self.inodes.push(Inode::default());
                    self.names.insert(path.to_path_buf(), self.inodes.len() - 1);
                    self.pending_names.push(NameChange::Link(path.to_path_buf(), self.inodes.len() - 1));
                }
            },
            WriteOp::Write { path, offset, bytes } => {
                self.inode(path).pending.push(Change::Write { offset: *offset, bytes: bytes.clone() });
            }
            WriteOp::Truncate { path, len } => self.inode(path).pending.push(Change::Truncate(*len)),
            WriteOp::Sync { path } => {
                let inode = self.inode(path);
                for change in std::mem::take(&mut inode.pending) {
                    inode.apply(&change);
                }
            }
            WriteOp::SyncDir { path } => {
                let (synced, pending) = std::mem::take(&mut self.pending_names)
                    .into_iter()
                    .partition(|change| change.dirs().contains(&Some(path.as_path())));
                self.pending_names = pending;
                for change in &synced {
                    change.apply(&mut self.durable_names);
                }
            }
            WriteOp::Rename { from, to } => {
                let inode = self.names.remove(&**from).expect("a file that is renamed exists");
                self.names.insert(to.to_path_buf(), inode);
                self.pending_names.push(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
            }
            WriteOp::Remove { path } => {
                if self.names.remove(&**path).is_some() {
                    self.pending_names.push(NameChange::Unlink(path.to_path_buf()));
                }
            }
        }
    }

    /// The files as the running system sees them.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Vec<u8>)> {
        self.names.iter().map(|(path, inode)| {
            let mut inode = self.inodes[*inode].clone();
            std::mem::take(&mut inode.pending).iter().for_each(|change| inode.apply(change));
            (path.as_path(), inode.durable)
        })
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        let inode = self.names[path];
        &mut self.inodes[inode]
    }

    /// Puts what a power loss now could leave into `to`, an empty directory that stands for `root`.
    pub fn crash(&self, root: &Path, to: &Path, dice: &mut Dice) {
        let place = |path: &Path| to.join(path.strip_prefix(root).expect("the store stays in its directory"));
        for dir in &self.dirs {
            fs::create_dir_all(place(dir)).unwrap();
        }
        let mut names = self.durable_names.clone();
        // From one crash to the next: nothing, everything, or each on its own.
        let luck = [0, 50, 90, 100][dice.below(4) as usize];
        for change in &self.pending_names {
            if dice.chance(luck) {
                change.apply(&mut names);
            }
        }
        for (path, inode) in &names {
            let inode = self.inodes[*inode].crash(luck, dice);
            fs::write(place(path), inode).unwrap();
        }
    }
}

impl Inode {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Truncate(len) => self.durable.resize(*len as usize, 0),
            Change::Write { offset, bytes } => write(&mut self.durable, *offset as usize, bytes),
        }
    }

    fn crash(&self, luck: u64, dice: &mut Dice) -> Vec<u8> {
        let mut survivor = self.clone();
        let mut changes = std::mem::take(&mut survivor.pending);
        if dice.chance(50) {
            changes.reverse();
        }
        for change in &changes {
            match change {
                Change::Truncate(_) if dice.chance(luck) => survivor.apply(change),
                Change::Truncate(_) => {}
                Change::Write { offset, bytes } => {
                    let end = *offset as usize + bytes.len();
                    if survivor.durable.len() < end && dice.chance(luck) {
                        survivor.durable.resize(end, 0);
                    }
                    // Long writes lose stretches rather than single sectors, or the test would take all day.
                    let stretch = (bytes.len() / 16).next_multiple_of(SECTOR_LEN).max(SECTOR_LEN);
                    for (i, part) in bytes.chunks(stretch).enumerate() {
                        if dice.chance(luck) {
                            write(&mut survivor.durable, *offset as usize + i * stretch, part);
                        }
                    }
                }
            }
        }
        survivor.durable
    }
}

impl NameChange {
    fn dirs(&self) -> [Option<&Path>; 2] {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => [path.parent(), None],
            NameChange::Rename(from, to) => [from.parent(), to.parent()],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}
