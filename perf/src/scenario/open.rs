//! Opening a store of many small segments: how long it takes, what it reads, what memory it holds.
//!
//! Each open happens in a process of its own, so that its memory and its reads are its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};
use store::{FileBackend, Hash, Store};

use super::CommonArgs;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::statistics::Spread;

/// Bytes appended at a time while the store is made: one sync each time.
const APPEND_BYTES: u64 = 64 << 20;

/// `perf open`
#[derive(Clone, Debug, clap::Args)]
pub struct OpenArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Segments in the store
    #[arg(long, default_value_t = 1_000_000)]
    segments: u64,
    /// Bytes of a segment; the least that a file is split into, and one page
    #[arg(long, default_value_t = 4096)]
    segment_bytes: u64,
    /// Opens from a cold page cache, and as many from a warm one
    #[arg(long, default_value_t = 6)]
    runs: usize,
}

impl OpenArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// What the process that opens the store is told.
#[derive(Clone, Debug, clap::Args)]
pub struct OpenerArgs {
    /// The store
    folder: PathBuf,
    /// Segments that it must hold
    segments: u64,
    /// Bytes of a segment
    segment_bytes: u64,
}

/// What an open cost. Memory is resident memory, file mappings included.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Opened {
    seconds: f64,
    /// Bytes read from the disk while opening.
    read_bytes: u64,
    /// Resident memory that opening added.
    opened_memory_bytes: u64,
    /// Resident memory after every segment was looked up, less that before opening.
    used_memory_bytes: u64,
    /// The most memory that was resident at any time, less that before opening.
    peak_memory_bytes: u64,
}

/// Runs the scenario.
pub fn run(args: &OpenArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.segments = args.segments.min(50_000);
        args.runs = args.runs.min(2);
    }
    let started = Instant::now();
    let commit = commit();
    let folder = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(&args.common.dir)?;
    let progress = ProgressBar::new(args.segments);
    progress.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {wide_bar} {pos} of {len} segments, {msg}",
    )?);
    make_store(folder.path(), &args, &progress)?;

    let payload_bytes = args.segments * args.segment_bytes;
    let store_bytes = folder_bytes(folder.path())?;
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    for run in 0..args.runs {
        progress.set_message(format!("opening, {} of {}", run + 1, args.runs));
        drop_cached_pages(folder.path())?;
        cold.push(open(folder.path(), &args)?);
        warm.push(open(folder.path(), &args)?);
    }
    progress.finish_and_clear();
    let subjects =
        vec![describe(&args, "cold", &cold, store_bytes), describe(&args, "warm", &warm, store_bytes)];
    let per_segment = |o: &Opened| o.used_memory_bytes as f64 / args.segments as f64;
    let seconds = |opens: &[Opened]| opens.iter().map(|o| o.seconds).collect::<Vec<_>>();
    let all = args.segments;
    let promises = vec![
        Promise::judge(format!("opening {all} segments, cold, seconds"), 1.0, Better::Lower, &seconds(&cold)),
        Promise::judge(format!("opening {all} segments, warm, seconds"), 1.0, Better::Lower, &seconds(&warm)),
        Promise::judge(
            format!("bytes read from disk a segment on a cold open ({} are payload)", args.segment_bytes),
            128.0,
            Better::Lower,
            &cold.iter().map(|o| o.read_bytes as f64 / all as f64).collect::<Vec<_>>(),
        ),
        Promise::judge(
            "resident bytes a segment after each was looked up",
            80.0,
            Better::Lower,
            &cold.iter().chain(&warm).map(per_segment).collect::<Vec<_>>(),
        ),
    ];
    Ok(Document {
        scenario: "open".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects,
        promises,
        notes: vec![
            format!(
                "{all} segments of {} bytes ({payload_bytes} bytes of payload); the store's files take {store_bytes} bytes. Every open is a new process. Cold: the files' pages were dropped from the page cache \
                 before. What is read is the kernel's count of bytes fetched from the disk for that process.",
                args.segment_bytes
            ),
            "Memory is what resident memory grew by, mapped files included, after the address of every segment was \
             looked up once; the allocator was told to give freed memory back at once. The peak is that of opening."
                .to_owned(),
        ],
    })
}

/// Opens the store in this process and prints what it cost.
pub fn opener(args: &OpenerArgs) -> anyhow::Result<()> {
    let read_before = disk_reads()?;
    let memory_before = memory_bytes("VmRSS:")?;
    let started = Instant::now();
    let (store, report) =
        Store::open(&args.folder, store::Options::default(), Arc::new(FileBackend::default()))?;
    let seconds = started.elapsed().as_secs_f64();
    let read_bytes = disk_reads()? - read_before;
    let opened_memory_bytes = memory_bytes("VmRSS:")?.saturating_sub(memory_before);
    ensure!(report.segments == args.segments, "the store holds {} segments", report.segments);
    for i in 0..args.segments {
        ensure!(store.contains(&Hash::of(&segment(i, args.segment_bytes))), "segment {i} is missing");
    }
    let used_memory_bytes = memory_bytes("VmRSS:")?.saturating_sub(memory_before);
    let peak_memory_bytes = memory_bytes("VmHWM:")?.saturating_sub(memory_before);
    let opened = Opened { seconds, read_bytes, opened_memory_bytes, used_memory_bytes, peak_memory_bytes };
    crate::print_line(&serde_json::to_string(&opened)?)
}

/// The `i`-th segment: its number, and zeros.
fn segment(i: u64, len: u64) -> Vec<u8> {
    let mut segment = i.to_le_bytes().to_vec();
    segment.resize(len as usize, 0);
    segment
}

fn make_store(folder: &Path, args: &OpenArgs, progress: &ProgressBar) -> anyhow::Result<()> {
    progress.set_message("making the store");
    let (store, _) = Store::open(folder, store::Options::default(), Arc::new(FileBackend::default()))?;
    let at_once = (APPEND_BYTES / args.segment_bytes).clamp(1, 16_384);
    for first in (0..args.segments).step_by(usize::try_from(at_once)?) {
        let last = args.segments.min(first + at_once);
        let batch = (first..last)
            .map(|i| {
                let bytes = Bytes::from(segment(i, args.segment_bytes));
                (Hash::of(&bytes), bytes)
            })
            .collect();
        store.append(batch)?;
        progress.set_position(last);
    }
    store.snapshot()?;
    Ok(())
}

fn open(folder: &Path, args: &OpenArgs) -> anyhow::Result<Opened> {
    let output = Command::new(std::env::current_exe()?)
        .arg("opener")
        .arg(folder)
        .arg(args.segments.to_string())
        .arg(args.segment_bytes.to_string())
        // Memory that was freed goes back to the kernel at once, so that what is resident is what the store holds.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .output()
        .context("starting the process that opens the store")?;
    ensure!(output.status.success(), "opening failed:\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what the open cost")
}

fn describe(args: &OpenArgs, cache: &str, opens: &[Opened], store_bytes: u64) -> Subject {
    let segments = args.segments as f64;
    let metric = |name: &str, value: &dyn Fn(&Opened) -> f64| {
        let values: Vec<f64> = opens.iter().map(value).collect();
        Spread::of(&values).map(|spread| (name.to_owned(), spread))
    };
    let metrics = [
        metric("seconds", &|o| o.seconds),
        metric("read_bytes_per_segment", &|o| o.read_bytes as f64 / segments),
        metric("opened_memory_bytes_per_segment", &|o| o.opened_memory_bytes as f64 / segments),
        metric("used_memory_bytes_per_segment", &|o| o.used_memory_bytes as f64 / segments),
        metric("peak_memory_bytes_per_segment", &|o| o.peak_memory_bytes as f64 / segments),
    ];
    let parameters = [
        ("page_cache", cache.into()),
        ("segments", args.segments.into()),
        ("segment_bytes", args.segment_bytes.into()),
        ("store_bytes", store_bytes.into()),
    ];
    Subject {
        name: format!("ioex store, {cache}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        metrics: metrics.into_iter().flatten().collect(),
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    files(folder)?.iter().map(|f| Ok(fs::metadata(f)?.len())).sum()
}

fn drop_cached_pages(folder: &Path) -> anyhow::Result<()> {
    for path in files(folder)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Bytes that the kernel fetched from a disk for this process.
fn disk_reads() -> anyhow::Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line =
        io.lines().find_map(|l| l.strip_prefix("read_bytes:")).context("/proc/self/io counts reads")?;
    Ok(line.trim().parse()?)
}

/// A line of `/proc/self/status` that is in kB, in bytes.
fn memory_bytes(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name} in status"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
