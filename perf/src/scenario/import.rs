//! Importing a large file from the page cache: splitting, hashing, durable append.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use store::import::{Imported, Input};
use store::{FileBackend, SEGMENT_LEN_DEFAULT, Store};

use super::CommonArgs;
use crate::content::write_random;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::{GB, process_cpu_time};
use crate::statistics::Spread;

/// `perf import`
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Length of the file in bytes
    #[arg(long, default_value_t = 4 << 30)]
    bytes: u64,
    /// Imports, each into an empty store
    #[arg(long, default_value_t = 6)]
    runs: usize,
    /// Hashing threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl ImportArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// One import: what the store says of it, and what this process used.
struct Run {
    imported: Imported,
    cpu_s: f64,
}

impl Run {
    fn gb(&self) -> f64 {
        self.imported.bytes as f64 / GB
    }
}

/// Runs the scenario.
pub fn run(args: &ImportArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.bytes = args.bytes.min(256 << 20);
        args.runs = args.runs.min(2);
    }
    let started = Instant::now();
    let commit = commit();
    let folder = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(&args.common.dir)?;
    let file = folder.path().join("input");
    let progress = ProgressBar::new(args.bytes * args.runs as u64);
    progress.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {bytes} of {total_bytes}, {msg}",
    )?);
    progress.set_message("making the file");
    // Writing leaves the file in the page cache; the sync keeps its write-back out of what is measured.
    write_random(&file, args.bytes, 1)?;
    File::open(&file)?.sync_all()?;
    let mut runs = Vec::new();
    for run in 0..args.runs {
        progress.set_message(format!("import {} of {}", run + 1, args.runs));
        let imported = import(&args, &folder.path().join("store"), &file, &progress)?;
        ensure!(imported.imported.bytes == args.bytes, "the import saw {} bytes", imported.imported.bytes);
        runs.push(imported);
    }
    progress.finish_and_clear();
    Ok(Document {
        scenario: "import".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![describe(&args, &runs)],
        promises: vec![Promise::judge(
            "import from the page cache, GB a CPU-second, durable write included",
            1.0,
            Better::Higher,
            &runs.iter().map(|r| r.gb() / r.cpu_s).collect::<Vec<_>>(),
        )],
        notes: vec![
            "CPU is user and system time of the importing process from opening the file to the last sync. Reading and \
             hashing (each byte twice: its segment and the whole file) and the durable write are reported apart; what \
             the kernel's write-back threads do after a write is not in it."
                .to_owned(),
        ],
    })
}

/// Imports `file` into a new store in `folder`, which goes again.
fn import(args: &ImportArgs, folder: &Path, file: &Path, progress: &ProgressBar) -> anyhow::Result<Run> {
    fs::create_dir(folder)?;
    let run = {
        let (store, _) = Store::open(folder, store::Options::default(), Arc::new(FileBackend::default()))?;
        let pid = std::process::id();
        let base = progress.position();
        let before = process_cpu_time(pid)?;
        let input = Input::File(File::open(file)?);
        let mut advance = |done: u64| progress.set_position(base + done);
        let imported = store::import::import(&store, input, SEGMENT_LEN_DEFAULT, args.threads, &mut advance)
            .context("the import failed")?;
        let cpu_s = process_cpu_time(pid)?.saturating_sub(before).as_secs_f64();
        progress.set_position(base + args.bytes);
        Run { imported, cpu_s }
    };
    fs::remove_dir_all(folder)?;
    Ok(run)
}

fn describe(args: &ImportArgs, runs: &[Run]) -> Subject {
    let metric = |name: &str, value: fn(&Run) -> f64| {
        let values: Vec<f64> = runs.iter().map(value).collect();
        Spread::of(&values).map(|spread| (name.to_owned(), spread))
    };
    let metrics = [
        metric("gb_per_cpu_s", |r| r.gb() / r.cpu_s),
        metric("cpu_s_per_gb", |r| r.cpu_s / r.gb()),
        metric("hash_cpu_s_per_gb", |r| r.imported.hash_cpu.as_secs_f64() / r.gb()),
        metric("write_cpu_s_per_gb", |r| r.imported.write_cpu.as_secs_f64() / r.gb()),
        metric("gb_per_s", |r| r.gb() / r.imported.wall.as_secs_f64()),
        metric("wall_s", |r| r.imported.wall.as_secs_f64()),
    ];
    let parameters = [
        ("bytes", args.bytes.into()),
        ("segment_bytes", SEGMENT_LEN_DEFAULT.into()),
        ("threads", args.threads.into()),
    ];
    Subject {
        name: "ioex import".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.into_iter().flatten().collect(),
    }
}
