//! A store whose pack was damaged: three bytes of the input say where and how, over and over. Whatever happened to the
//! pack, the store opens or says why not, and hands out no byte that was not stored.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use store::{FileBackend, Hash, Lookup, Options, Store};

/// A store with small, page-sized and longer segments in several commits, as files in memory.
struct Template {
    files: Vec<(PathBuf, Vec<u8>)>,
    segments: Vec<Hash>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let folder = scratch("template");
    let _ = std::fs::remove_dir_all(&folder);
    let (store, _) = open(&folder).expect("an empty store opens");
    let mut segments = Vec::new();
    for (i, len) in [1_usize, 100, 4_095, 4_096, 5_000, 20_000].into_iter().enumerate() {
        let batch = [i as u8, i as u8 + 100].map(|fill| {
            let bytes = vec![fill; len];
            (Hash::of(&bytes), bytes.into())
        });
        segments.extend(batch.iter().map(|(hash, _): &(Hash, _)| *hash));
        store.append(batch.into()).expect("append");
    }
    drop(store);
    let mut files = Vec::new();
    collect(&folder, &folder, &mut files);
    Template { files, segments }
});

fuzz_target!(|data: &[u8]| {
    let folder = scratch("damaged");
    let _ = std::fs::remove_dir_all(&folder);
    for (path, bytes) in &TEMPLATE.files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("create");
        let mut bytes = bytes.clone();
        if path.extension().is_some_and(|extension| extension == "pack") {
            damage(&mut bytes, data);
        }
        std::fs::write(path, bytes).expect("write");
    }
    let Ok((store, _)) = open(&folder) else { return };
    let mut reader = store.reader();
    for hash in &TEMPLATE.segments {
        let segment = match reader.lookup(hash) {
            Lookup::Absent => continue,
            Lookup::Ready(segment) => segment,
            Lookup::Cold(cold) => match cold.load() {
                Ok(segment) => segment,
                Err(_) => continue,
            },
        };
        assert_eq!(Hash::of(&segment.bytes()), *hash);
    }
});

/// Changes bytes near commit structures as often as anywhere else; a last odd byte truncates.
fn damage(bytes: &mut Vec<u8>, data: &[u8]) {
    for change in data.chunks(3) {
        match *change {
            [high, low, value] => {
                let offset = usize::from(u16::from_be_bytes([high, low])) * 8 % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= value;
                }
            }
            [high, low] => bytes.truncate(usize::from(u16::from_be_bytes([high, low])) * 4),
            _ => {}
        }
    }
}

fn open(folder: &Path) -> Result<(Store, store::OpenReport), store::OpenError> {
    Store::open(folder, Options::default(), Arc::new(FileBackend::new()))
}

fn scratch(name: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("ioex-fuzz-{name}-{}", std::process::id()))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            files.push((name, std::fs::read(&path).expect("read")));
        }
    }
}
