//! Imports a file from the page cache and says what hashing and durable writing cost, apart.
//!
//! `cargo run --release -p store --example import_bench -- [MIB] [THREADS] [DIR]` (defaults: 4096, one a core, a temporary
//! directory in the working directory).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "measures with real files")]
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use store::import::{Input, import};
use store::{FileBackend, Options, SEGMENT_LEN_DEFAULT, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let mib: u64 = arguments.get(1).map_or(Ok(4096), |text| text.parse())?;
    let threads: usize = arguments.get(2).map_or(Ok(0), |text| text.parse())?;
    let dir = arguments.get(3).map_or_else(|| PathBuf::from("."), PathBuf::from).join("import-bench.tmp");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let result = run(&dir, mib, threads);
    fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &std::path::Path, mib: u64, threads: usize) -> Result<(), Box<dyn Error>> {
    let input = dir.join("input");
    let mut file = File::create(&input)?;
    let mut content = blake3::Hasher::new().finalize_xof();
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..mib {
        content.fill(&mut block);
        file.write_all(&block)?;
    }
    // Its own write-back must not fall into the measurement.
    file.sync_all()?;

    for round in 1..=3 {
        let path = dir.join(format!("store-{round}"));
        let (store, _) = Store::open(&path, Options::default(), Arc::new(FileBackend::new()))?;
        let imported =
            import(&store, Input::File(File::open(&input)?), SEGMENT_LEN_DEFAULT, threads, &mut |_| ())?;
        let gb = imported.bytes as f64 / 1e9;
        let (hash, write) = (imported.hash_cpu.as_secs_f64(), imported.write_cpu.as_secs_f64());
        println!(
            "round {round}: {gb:.2} GB in {:.2} s; hash {:.3} CPU-s/GB ({:.2} GB/s a core), write {:.3} CPU-s/GB \
             ({:.2} GB/s a core), together {:.2} GB/s a core",
            imported.wall.as_secs_f64(),
            hash / gb,
            gb / hash,
            write / gb,
            gb / write,
            gb / (hash + write),
        );
        drop(store);
        fs::remove_dir_all(&path)?;
    }
    Ok(())
}
