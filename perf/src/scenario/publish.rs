//! Publishing: from a file in the page cache to encrypted, coded and addressed segments, and back with shards lost.
//!
//! All rates are by CPU time, so that they say what a core does. The stages are measured alone in the same round, on this thread, each over the same bytes as the
//! pipeline: together they say what the pipeline could reach if it cost nothing itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use identity::SecretKey;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::MemfdFlags;
use store::aead::SegmentCipher;
use store::erasure::{Code, Codec, Shape};
use store::list::{ListBuilder, ListView, Readers};
use store::pipeline::{
    CompressionChoice, EncodedGroup, Encoder, GroupShards, Input, Restorer, SealingKey, Settings,
};
use store::split::Subtree;
use store::{Hash, SEGMENT_LEN_DEFAULT, outboard};

use super::CommonArgs;
use crate::content::write_random;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::{GB, process_cpu_time, thread_cpu_s};
use crate::statistics::Spread;

const SHAPE: Shape = Shape { data: 10, parity: 4 };
const SEGMENT_LEN: usize = SEGMENT_LEN_DEFAULT as usize;
/// The sink's length: what is written begins again at its start.
const SINK_LEN: u64 = 64 << 20;

/// `perf publish`
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Length of the file in bytes
    #[arg(long, default_value_t = 640 << 20)]
    bytes: u64,
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Threads of the pipeline; 0 is one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl PublishArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn settings(&self) -> Settings {
        Settings {
            compression: CompressionChoice::Off,
            coding: Some((Code::fastest_for(SHAPE), SHAPE)),
            threads: self.threads,
            ..Settings::default()
        }
    }
}

/// Samples of a metric by its name, one a round.
type Samples = BTreeMap<&'static str, Vec<f64>>;

/// Runs the scenario.
pub fn run(args: &PublishArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.bytes = args.bytes.min(64 << 20);
        args.rounds = args.rounds.min(2);
    }
    let started = Instant::now();
    let commit = commit();
    let folder = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(&args.common.dir)?;
    let path = folder.path().join("input");
    write_random(&path, args.bytes, 1)?;
    File::open(&path)?.sync_all()?;
    let mut sink = Sink::new()?;
    let mut stages = Stages::new(&path)?;
    let restoring = Restoring::new(&path, &args)?;
    let progress = ProgressBar::new(args.rounds as u64);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} round {pos} of {len}")?);
    let (mut encoded, mut alone, mut restored) = (Samples::new(), Samples::new(), Samples::new());
    encode(&path, &args, &mut sink)?;
    for round in 0..args.rounds {
        // What comes first changes, so that no one has the better part of a phase.
        let note = |samples: &mut Samples, name, value: f64| samples.entry(name).or_default().push(value);
        for place in 0..3 {
            match (place + round) % 3 {
                0 => {
                    let run = encode(&path, &args, &mut sink)?;
                    note(&mut encoded, "gb_per_cpu_s", run.gb / run.cpu_s);
                    note(&mut encoded, "gb_per_s", run.gb / run.wall_s);
                }
                1 => {
                    let mut sum_s_per_gb = 0.0;
                    for (name, s_per_gb) in stages.measure(&mut sink, args.common.quick)? {
                        note(&mut alone, name, 1.0 / s_per_gb);
                        sum_s_per_gb += s_per_gb;
                    }
                    note(&mut alone, "all_gb_per_cpu_s", 1.0 / sum_s_per_gb);
                }
                _ => note(&mut restored, "gb_restored_per_cpu_s", restoring.measure(args.common.quick)?),
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let of = |samples: &Samples, name| samples.get(name).cloned().unwrap_or_default();
    let rates = of(&encoded, "gb_per_cpu_s");
    let shares: Vec<f64> =
        rates.iter().zip(of(&alone, "all_gb_per_cpu_s")).map(|(rate, all)| rate / all).collect();
    let list_open = list_open_ms(args.common.quick)?;
    Ok(Document {
        scenario: "publish".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![
            subject("pipeline", &args, &encoded),
            subject("its stages alone", &args, &alone),
            subject("restoring 4 of 14", &args, &restored),
            subject("opening a list", &args, &Samples::from([("ms_of_1000000_segments", list_open.clone())])),
        ],
        promises: vec![
            Promise::judge("publish without zstd, 10+4, GB a CPU-second", 1.0, Better::Higher, &rates),
            Promise::judge("publish, part of what its stages allow together", 0.6, Better::Higher, &shares),
            Promise::judge(
                "data restored with 4 of 14 shards lost, GB a CPU-second, verified",
                2.0,
                Better::Higher,
                &of(&restored, "gb_restored_per_cpu_s"),
            ),
            Promise::judge("opening a list of 1,000,000 segments, ms", 50.0, Better::Lower, &list_open),
        ],
        notes: vec![
            "Segments of 1 MiB, AES-256-GCM, 10+4 by ReedSolomon256, outboards, the file's own hash; source a file in the page \
             cache, sink a memory file. CPU is user and system time of the whole process. A stage's rate is in bytes of the \
             file: addresses and the sink have 14 bytes for every 10 of them. What the stages allow is the inverse of the sum \
             of their times. Restored data are the bytes that come back, each verified by its address."
                .to_owned(),
        ],
    })
}

struct Encoding {
    gb: f64,
    cpu_s: f64,
    wall_s: f64,
}

fn encode(path: &Path, args: &PublishArgs, sink: &mut Sink) -> anyhow::Result<Encoding> {
    let pid = std::process::id();
    let (started, before) = (Instant::now(), process_cpu_time(pid)?);
    let mut encoder =
        Encoder::new(args.settings(), Some(SealingKey::generate()?), Input::reader(File::open(path)?))?;
    while let Some(group) = encoder.next_group()? {
        for stored in group.data.iter().chain(&group.parity) {
            sink.write(&stored.bytes)?;
        }
    }
    let encoded = encoder.finish()?;
    let cpu_s = process_cpu_time(pid)?.saturating_sub(before).as_secs_f64();
    let wall_s = started.elapsed().as_secs_f64();
    let bytes: u64 = encoded.list.segments.iter().map(|segment| u64::from(segment.plain_len)).sum();
    ensure!(bytes == args.bytes, "the pipeline saw {bytes} bytes");
    Ok(Encoding { gb: bytes as f64 / GB, cpu_s, wall_s })
}

/// A file in memory, written over and over.
struct Sink {
    file: File,
    written: u64,
}

impl Sink {
    fn new() -> anyhow::Result<Sink> {
        let file = File::from(rustix::fs::memfd_create("ioex-perf-sink", MemfdFlags::CLOEXEC)?);
        let mut sink = Sink { file, written: 0 };
        let page = vec![0; 1 << 20];
        for _ in 0..SINK_LEN >> 20 {
            sink.write(&page)?;
        }
        Ok(sink)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.written + bytes.len() as u64 > SINK_LEN {
            self.file.seek(SeekFrom::Start(0))?;
            self.written = 0;
        }
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// What the pipeline does to a group, one thing at a time.
struct Stages {
    file: File,
    data: Vec<Vec<u8>>,
    parity: Vec<Vec<u8>>,
    cipher: SegmentCipher,
    codec: Codec,
}

impl Stages {
    fn new(path: &Path) -> anyhow::Result<Stages> {
        let key = SealingKey::generate()?;
        let mut stages = Stages {
            file: File::open(path)?,
            data: vec![vec![0; SEGMENT_LEN]; SHAPE.data],
            parity: vec![vec![0; SEGMENT_LEN]; SHAPE.parity],
            cipher: SegmentCipher::new(&key.key, key.id),
            codec: Codec::new(Code::fastest_for(SHAPE), SHAPE)?,
        };
        stages.read()?;
        Ok(stages)
    }

    /// CPU-seconds a GB of the file, stage by stage.
    fn measure(&mut self, sink: &mut Sink, quick: bool) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let turns = if quick { 1 } else { 8 };
        let bytes = (turns * SHAPE.data * SEGMENT_LEN) as f64;
        let mut times = Vec::new();
        type Stage = fn(&mut Stages, &mut Sink) -> anyhow::Result<()>;
        let stages: [(&'static str, Stage); 6] = [
            ("read_gb_per_cpu_s", |stages, _| stages.read()),
            ("file_hash_gb_per_cpu_s", |stages, _| stages.hash_file()),
            ("encrypt_gb_per_cpu_s", |stages, _| stages.encrypt()),
            ("parity_gb_per_cpu_s", |stages, _| stages.code()),
            ("address_gb_per_cpu_s", |stages, _| stages.address()),
            ("write_gb_per_cpu_s", |stages, sink| stages.write(sink)),
        ];
        for (name, stage) in stages {
            let start_s = thread_cpu_s();
            for _ in 0..turns {
                stage(self, sink)?;
            }
            times.push((name, (thread_cpu_s() - start_s) / (bytes / GB)));
        }
        Ok(times)
    }

    fn read(&mut self) -> anyhow::Result<()> {
        for segment in &mut self.data {
            if self.file.read_exact(segment).is_err() {
                self.file.seek(SeekFrom::Start(0))?;
                self.file.read_exact(segment).context("the file is shorter than a segment")?;
            }
        }
        Ok(())
    }

    fn hash_file(&mut self) -> anyhow::Result<()> {
        for (i, segment) in self.data.iter().enumerate() {
            black_box(Subtree::inner(((i + 1) * SEGMENT_LEN) as u64, segment));
        }
        Ok(())
    }

    fn encrypt(&mut self) -> anyhow::Result<()> {
        for (i, segment) in (0..).zip(&mut self.data) {
            black_box(self.cipher.seal(i, segment));
        }
        Ok(())
    }

    fn code(&mut self) -> anyhow::Result<()> {
        let data: Vec<&[u8]> = self.data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = self.parity.iter_mut().map(Vec::as_mut_slice).collect();
        Ok(self.codec.encode(&data, &mut parity)?)
    }

    fn address(&mut self) -> anyhow::Result<()> {
        let mut outboards = Vec::new();
        for shard in self.data.iter().chain(&self.parity) {
            outboards.clear();
            black_box(outboard::append(shard, &mut outboards));
        }
        Ok(())
    }

    fn write(&mut self, sink: &mut Sink) -> anyhow::Result<()> {
        for shard in self.data.iter().chain(&self.parity) {
            sink.write(shard)?;
        }
        Ok(())
    }
}

/// Some groups of which the first four data segments are lost.
struct Restoring {
    document: Vec<u8>,
    groups: Vec<Vec<Option<Bytes>>>,
}

impl Restoring {
    fn new(path: &Path, args: &PublishArgs) -> anyhow::Result<Restoring> {
        let input = File::open(path)?.take(4 * (SHAPE.data * SEGMENT_LEN) as u64);
        let mut encoder = Encoder::new(args.settings(), Some(SealingKey::generate()?), Input::reader(input))?;
        let mut groups = Vec::new();
        while let Some(EncodedGroup { data, parity, .. }) = encoder.next_group()? {
            let shards = data.into_iter().chain(parity).map(|stored| Some(stored.bytes));
            let lost = |(i, shard)| if i < SHAPE.parity { None } else { shard };
            groups.push(shards.enumerate().map(lost).collect());
        }
        let mut list = ListBuilder { name: "perf".to_owned(), ..encoder.finish()?.list };
        if let Some(encryption) = &mut list.encryption {
            encryption.readers = Readers::Open;
        }
        Ok(Restoring { document: list.sign(&SecretKey::from_seed([1; 32]))?, groups })
    }

    /// GB that come back in a CPU-second.
    fn measure(&self, quick: bool) -> anyhow::Result<f64> {
        let list = ListView::open(&self.document)?;
        let mut restorer = Restorer::new(&list)?;
        let turns = if quick { 1 } else { 5 };
        let mut bytes = 0;
        let start_s = thread_cpu_s();
        for _ in 0..turns {
            for (g, shards) in (0..).zip(&self.groups) {
                let wanted: Vec<u32> =
                    list.group(g).context("the group is there")?.shards().take(SHAPE.parity).collect();
                let restored = restorer.restore(&GroupShards::of(&list, g)?, shards, &wanted)?;
                bytes += restored.iter().map(Bytes::len).sum::<usize>();
            }
        }
        Ok(bytes as f64 / GB / (thread_cpu_s() - start_s))
    }
}

/// Milliseconds of CPU time that bounds and signature of a list of 1,000,000 segments take.
fn list_open_ms(quick: bool) -> anyhow::Result<Vec<f64>> {
    let segments = (0..1_000_000u32).map(|i| (Hash([i as u8; 32]), SEGMENT_LEN_DEFAULT));
    let list = ListBuilder { name: "perf".to_owned(), ..ListBuilder::plain(segments) };
    let document = list.sign(&SecretKey::from_seed([1; 32]))?;
    let mut samples = Vec::new();
    for _ in 0..if quick { 1 } else { 20 } {
        let start_s = thread_cpu_s();
        black_box(ListView::open(&document)?.file_len());
        samples.push((thread_cpu_s() - start_s) * 1e3);
    }
    Ok(samples)
}

fn subject(name: &str, args: &PublishArgs, samples: &Samples) -> Subject {
    let parameters = [
        ("bytes", args.bytes.into()),
        ("segment_bytes", SEGMENT_LEN_DEFAULT.into()),
        ("threads", args.threads.into()),
    ];
    let metrics = samples
        .iter()
        .filter_map(|(name, values)| Spread::of(values).map(|spread| ((*name).to_owned(), spread)));
    Subject {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
        metrics: metrics.collect(),
    }
}
