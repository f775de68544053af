//! Builds a store of many small segments and says how long it takes to open and how much memory it then uses.
//!
//! `cargo run --release -p store --example open_bench -- [SEGMENTS] [BYTES] [DIR]` (defaults: 1,000,000 of 100 bytes, a
//! temporary directory in the working directory).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "measures with real files")]
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use store::{FileBackend, Hash, Options, Store};

/// Segments of one append: one sync each.
const BATCH: u64 = 65_536;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let segments: u64 = arguments.get(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let len: usize = arguments.get(2).map_or(Ok(100), |text| text.parse())?;
    let dir = arguments.get(3).map_or_else(|| PathBuf::from("."), PathBuf::from).join("open-bench.tmp");
    let _ = fs::remove_dir_all(&dir);
    let result = run(&dir, segments, len.max(8));
    fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &Path, segments: u64, len: usize) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let (store, _) = Store::open(dir, Options::default(), Arc::new(FileBackend::new()))?;
    for first in (0..segments).step_by(BATCH as usize) {
        let batch = (first..segments.min(first + BATCH)).map(|i| content(i, len));
        store.append(batch.map(|bytes| (Hash::of(&bytes), bytes)).collect())?;
    }
    store.snapshot()?;
    println!("built in {:.2} s: {:?}", started.elapsed().as_secs_f64(), store.stats());
    drop(store);

    // The allocator keeps what building took; a fresh process shows what opening takes.
    for what in ["warm", "cold", "without its index"] {
        match what {
            "cold" => {
                for path in [dir.join("index"), dir.join("packs/0000000001.pack")] {
                    rustix::fs::fadvise(fs::File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
            "without its index" => fs::remove_file(dir.join("index"))?,
            _ => {}
        }
        let (before, read_before) = (resident(), read_bytes());
        let started = Instant::now();
        let (store, report) = Store::open(dir, Options::default(), Arc::new(FileBackend::new()))?;
        let elapsed = started.elapsed();
        let (grown, read) = (resident().saturating_sub(before), read_bytes() - read_before);
        println!(
            "{what}: opened {} segments in {:.3} s, {:.1} bytes of memory a segment (mapped pages included), {:.1} MB read",
            report.segments,
            elapsed.as_secs_f64(),
            grown as f64 / segments as f64,
            read as f64 / 1e6,
        );
        let started = Instant::now();
        let lookups = 1_000_000.min(segments);
        let mut found = 0;
        for i in 0..lookups {
            let hash = Hash::of(&content(i * 7919 % segments, len));
            found += u64::from(store.contains(&hash));
        }
        assert_eq!(found, lookups, "every segment is found");
        println!(
            "  {:.0} ns a lookup, hashing {len} bytes included",
            started.elapsed().as_nanos() as f64 / lookups as f64
        );
    }
    Ok(())
}

fn content(i: u64, len: usize) -> Bytes {
    let mut bytes = vec![0u8; len];
    bytes[..8].copy_from_slice(&i.to_le_bytes());
    Bytes::from(bytes)
}

/// Resident memory of this process in bytes, file mappings included.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kb| kb * 1024)
}

/// Bytes that this process has read, from whichever cache.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).and_then(|text| text.parse().ok()).unwrap_or(0)
}
