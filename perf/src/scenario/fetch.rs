//! `ioex fetch` of an encrypted and coded file from five nodes, beside a plain one from the same nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use identity::SecretKey;
use indicatif::{ProgressBar, ProgressStyle};
use peer::placement::Placement;
use relay::policy::Policy;
use store::erasure::{Code, Shape};
use store::list::Readers;
use store::pipeline::{CompressionChoice, Encoder, Input, SealingKey, Settings};
use store::{FileBackend, Hash, Store};

use super::CommonArgs;
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::measure::{GB, process_cpu_time};
use crate::process::Process;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::ioex::{self, Node};

const NODES: usize = 5;
const SHAPE: Shape = Shape { data: 10, parity: 4 };
/// The nodes share a core, the receiver has the next.
const NODE_CORE: usize = 0;
const RECEIVER_CORE: usize = 1;

/// `perf fetch`
#[derive(Clone, Debug, clap::Args)]
pub struct FetchArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Length of the file in bytes
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Fetches of each kind, in alternation
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// A built ioex-engine, instead of this workspace's
    #[arg(long, value_name = "PATH")]
    engine: Option<PathBuf>,
    /// A built ioex, instead of this workspace's
    #[arg(long, value_name = "PATH")]
    ioex: Option<PathBuf>,
}

impl FetchArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// One fetch.
#[derive(Clone, Copy, Debug)]
struct Run {
    seconds: f64,
    cpu_s: f64,
    peak_mib: f64,
    bytes: f64,
}

/// A kind of content and its fetches.
struct Kind {
    name: &'static str,
    list: Hash,
    runs: Vec<Run>,
}

/// Runs the scenario.
pub fn run(args: &FetchArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.bytes = args.bytes.min(64 << 20);
        args.rounds = args.rounds.min(2);
    }
    let started = Instant::now();
    let commit = commit();
    let progress = ProgressBar::new(args.rounds as u64 * 3);
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos} of {len}, {msg}")?);
    progress.set_message("building");
    let engine = args.engine.clone().map_or_else(ioex::build_engine, Ok)?;
    let command = args.ioex.clone().map_or_else(ioex::build_command, Ok)?;
    progress.set_message("making the content");
    let content = Content::create(&args.common.dir, args.bytes)?;
    // Nodes by their UIDs, as the rule of placement counts them.
    let mut keys: Vec<SecretKey> =
        (0..NODES as u8).map(|seed| SecretKey::from_seed([seed + 40; 32])).collect();
    keys.sort_by_key(|key| *key.uid().as_bytes());
    let nodes = keys
        .iter()
        .enumerate()
        .map(|(i, key)| Node::create_bound(key, &content.folder().join(format!("node-{i}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let mut kinds = vec![
        Kind { name: "plain", list: publish(&content, &nodes, None)?, runs: Vec::new() },
        Kind { name: "encrypted 10+4", list: publish(&content, &nodes, Some(0))?, runs: Vec::new() },
        Kind {
            name: "encrypted 10+4, 4 of 14 lost",
            list: publish(&content, &nodes, Some(4))?,
            runs: Vec::new(),
        },
    ];
    let setting = Setting { content: &content, core: NODE_CORE };
    let mut running = Vec::new();
    let mut urls = Vec::new();
    for (node, key) in nodes.iter().zip(&keys) {
        let (process, address) = node.launch(&setting, &engine, "auto", &[], Policy::default())?;
        running.push(process);
        urls.push(format!("https://{}@{address}", key.uid()));
    }
    // The first of each kind brings the content into memory and is not counted.
    for round in 0..=args.rounds {
        for kind in &mut kinds {
            progress.set_message(kind.name);
            let run = fetch(&command, &content, &urls, &kind.list, args.bytes)?;
            if round > 0 {
                kind.runs.push(run);
                progress.inc(1);
            }
        }
    }
    progress.finish_and_clear();
    Ok(document(&args, commit, started, &kinds))
}

/// Puts the content into the nodes' stores: whole on each, or encrypted, coded and spread, without the first `lost` shards of each
/// group. Gives the list's address.
fn publish(content: &Content, nodes: &[Node], lost: Option<usize>) -> anyhow::Result<Hash> {
    let settings = Settings {
        compression: CompressionChoice::Off,
        coding: lost.map(|_| (Code::fastest_for(SHAPE), SHAPE)),
        outboards: lost.is_some(),
        ..Settings::default()
    };
    let key = lost.map(|_| SealingKey::generate()).transpose()?;
    let placement = Placement::new(nodes.len(), SHAPE);
    let open =
        |node: &Node| Store::open(&node.store(), store::Options::default(), Arc::new(FileBackend::default()));
    let stores = nodes.iter().map(|node| Ok(open(node)?.0)).collect::<anyhow::Result<Vec<_>>>()?;
    let on_all =
        |held: Vec<(Hash, Bytes)>| stores.iter().try_for_each(|store| store.append(held.clone()).map(|_| ()));
    let mut encoder = Encoder::new(settings, key, Input::Bytes(content.bytes.clone()))?;
    while let Some(group) = encoder.next_group()? {
        let number = u64::from(group.number);
        let shards: Vec<_> = group.data.into_iter().chain(group.parity).map(|s| (s.hash, s.bytes)).collect();
        match lost {
            None => on_all(shards)?,
            Some(lost) => {
                let mut by_node: Vec<Vec<(Hash, Bytes)>> = vec![Vec::new(); stores.len()];
                for (ordinal, shard) in shards.into_iter().enumerate().skip(lost) {
                    by_node[placement.home(number, ordinal)].push(shard);
                }
                for (store, held) in stores.iter().zip(by_node) {
                    store.append(held)?;
                }
            }
        }
        on_all(group.documents.into_iter().map(|stored| (stored.hash, stored.bytes)).collect())?;
    }
    let encoded = encoder.finish()?;
    on_all(encoded.documents.into_iter().map(|stored| (stored.hash, stored.bytes)).collect())?;
    let mut list = encoded.list;
    list.name = "perf".to_owned();
    list.counter = 1;
    if let Some(encryption) = &mut list.encryption {
        encryption.readers = Readers::Open;
    }
    let document = Bytes::from(list.sign(&SecretKey::from_seed([8; 32]))?);
    let hash = Hash::of(&document);
    on_all(vec![(hash, document)])?;
    Ok(hash)
}

fn fetch(ioex: &Path, content: &Content, urls: &[String], list: &Hash, bytes: u64) -> anyhow::Result<Run> {
    let out = content.folder().join("fetched");
    let mut command = Command::new(ioex);
    command.arg("fetch").arg(list.to_string()).arg("--json").arg("-o").arg(&out);
    command.arg("--data").arg(content.folder().join("receiver"));
    for url in urls {
        command.arg("--from").arg(url);
    }
    let mut process = Process::start(command, RECEIVER_CORE, &content.folder().join("fetch.log"))?;
    let (mut cpu, mut peak_kib) = (Duration::ZERO, 0.0);
    // What the process used is read until it ends, and is at most two milliseconds old then.
    while !process.has_ended() {
        cpu = process_cpu_time(process.pid()).unwrap_or(cpu).max(cpu);
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kib = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(peak_kib);
        std::thread::sleep(Duration::from_millis(2));
    }
    let report: serde_json::Value =
        serde_json::from_str(&process.read_line().context("ioex fetch says what it did")?)?;
    ensure!(fs::metadata(&out)?.len() == bytes, "another length was fetched");
    fs::remove_file(&out)?;
    let seconds = report["seconds"].as_f64().context("ioex fetch says how long it took")?;
    Ok(Run { seconds, cpu_s: cpu.as_secs_f64(), peak_mib: peak_kib / 1024.0, bytes: bytes as f64 })
}

fn document(args: &FetchArgs, commit: String, started: Instant, kinds: &[Kind]) -> Document {
    let ratios = |kind: &Kind| -> Vec<f64> {
        kinds[0].runs.iter().zip(&kind.runs).map(|(plain, coded)| plain.seconds / coded.seconds).collect()
    };
    let describe = |kind: &Kind| {
        let metric = |name: &str, value: fn(&Run) -> f64| {
            let values: Vec<f64> = kind.runs.iter().map(value).collect();
            Spread::of(&values).map(|spread| (name.to_owned(), spread))
        };
        let metrics = [
            metric("mb_per_s", |run| run.bytes / 1e6 / run.seconds),
            metric("cpu_s_per_gb", |run| run.cpu_s / (run.bytes / GB)),
            metric("peak_resident_mib", |run| run.peak_mib),
        ];
        Subject {
            name: format!("ioex fetch, {}", kind.name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            parameters: BTreeMap::from([
                ("bytes".to_owned(), args.bytes.into()),
                ("nodes".to_owned(), NODES.into()),
            ]),
            metrics: metrics.into_iter().flatten().collect(),
        }
    };
    let peaks: Vec<f64> = kinds.iter().flat_map(|kind| kind.runs.iter().map(|run| run.peak_mib)).collect();
    Document {
        scenario: "fetch".to_owned(),
        quick: args.common.quick,
        machine: Machine::here(),
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: kinds.iter().map(describe).collect(),
        promises: vec![
            Promise::judge(
                "fetch of an encrypted 10+4 file from 5 nodes, rate as a part of a plain file's",
                0.8,
                Better::Higher,
                &ratios(&kinds[1]),
            ),
            Promise::judge("peak of resident memory of a fetch, MiB", 64.0, Better::Lower, &peaks),
        ],
        notes: vec![
            "The five nodes share one core and the receiver has another. Plain: all nodes hold the whole file. Encrypted: \
             each shard is on one node. With 4 of 14 shards lost every group is restored; that rate is reported and not judged."
                .to_owned(),
        ],
    }
}
