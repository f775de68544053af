//! No room left: a clear error, nothing lost, reads go on.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use store::import::{ImportError, Input, import};
use store::{AppendError, Backend, FileBackend, Options, Store, WriteOp};

use crate::support::{noise, open, read, segment};

/// A disk with room for so many bytes more. Part of what does not fit is written all the same, as on a real one.
struct SmallDisk {
    real: FileBackend,
    room: AtomicU64,
}

impl Backend for SmallDisk {
    fn run(&self, op: &WriteOp) -> io::Result<()> {
        if let WriteOp::Write { path, offset, bytes } = op {
            let room = self.room.load(Ordering::Relaxed);
            if bytes.len() as u64 > room {
                let bytes = bytes.slice(..room as usize);
                if !bytes.is_empty() {
                    self.real.run(&WriteOp::Write { path: Arc::clone(path), offset: *offset, bytes })?;
                }
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.room.store(room - bytes.len() as u64, Ordering::Relaxed);
        }
        self.real.run(op)
    }
}

#[test]
fn a_full_disk_refuses_appends_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(SmallDisk { real: FileBackend::new(), room: AtomicU64::new(1_000_000) });
    let (store, _) = Store::open(dir.path(), Options::default(), disk.clone()).unwrap();
    let held: Vec<_> = (0..7).map(|i| segment(i, 120_000)).collect();
    for segment in &held {
        store.append(vec![segment.clone()]).unwrap();
    }
    let (hash, bytes) = segment(100, 300_000);
    let pack = dir.path().join("packs/0000000001.pack");
    let len = std::fs::metadata(&pack).unwrap().len();
    for _ in 0..3 {
        let error = store.append(vec![(hash, bytes.clone())]).unwrap_err();
        assert!(matches!(&error, AppendError::NoSpace { path } if *path == pack), "{error}");
        assert_eq!(std::fs::metadata(&pack).unwrap().len(), len, "what did not fit is given back at once");
    }
    assert!(!store.contains(&hash));
    let input = Input::Reader(Box::new(io::Cursor::new(noise(101, 500_000))));
    let error = import(&store, input, 65_536, 2, &mut |_| ()).unwrap_err();
    assert!(matches!(error, ImportError::Append(AppendError::NoSpace { .. })), "{error}");
    assert!(held.iter().all(|(hash, bytes)| read(&store, hash).as_ref() == Some(bytes)));

    // With room again it goes on where it was; and a process that dies now loses nothing.
    disk.room.store(1_000_000, Ordering::Relaxed);
    store.append(vec![(hash, bytes.clone())]).unwrap();
    drop(store);
    let (store, report) = open(dir.path());
    assert_eq!((report.segments, report.cut.len(), report.damage.len()), (8, 0, 0));
    assert_eq!(read(&store, &hash), Some(bytes));
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it was skipped")]
fn a_full_file_system_does_the_same() {
    let Some(mount) = Tmpfs::mount("24m") else {
        eprintln!("skipped: mounting a tmpfs needs root; the test above stands in");
        return;
    };
    let dir = mount.dir.path().join("store");
    let (store, _) = open(&dir);
    let mut held = Vec::new();
    let error = loop {
        let segment = segment(held.len() as u64, 1 << 20);
        match store.append(vec![segment.clone()]) {
            Ok(_) => held.push(segment),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    assert!((20..24).contains(&held.len()), "{} of 24 MiB", held.len());
    assert!(held.iter().all(|(hash, bytes)| read(&store, hash).as_ref() == Some(bytes)));
    drop(store);
    fill(&dir);
    // Not a byte is free, not even for the index: the store opens, and serves.
    let (store, report) = open(&dir);
    assert_eq!((report.segments as usize, report.damage.len()), (held.len(), 0));
    assert!(held.iter().all(|(hash, bytes)| read(&store, hash).as_ref() == Some(bytes)));
    let error = store.append(vec![segment(1000, 100)]).unwrap_err();
    assert!(matches!(error, AppendError::NoSpace { .. }), "{error}");
    assert!(store.snapshot().is_err(), "there is no room for an index");
    std::fs::remove_file(dir.join("filler")).unwrap();
    store.append(vec![segment(1000, 100)]).unwrap();
    store.snapshot().unwrap();
}

/// Takes the last free byte of the file system.
fn fill(dir: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("filler")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// A small file system of its own, until dropped.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    fn mount(size: &str) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let option = format!("size={size}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(dir.path()).output();
        status.is_ok_and(|output| output.status.success()).then_some(Tmpfs { dir })
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.dir.path()).output();
    }
}
