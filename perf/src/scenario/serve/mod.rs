//! Serving content over QUIC: ioex against a bare quiche sender, h3-quinn and Caddy, in alternation.

mod lineup;
pub mod sample;
mod upload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::CommonArgs;
use crate::client::ACK_DATAGRAMS;
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, Subject, commit};
use crate::process::pin_to_core;
use crate::quic::{BATCH_SEGMENTS, DATAGRAM_LEN};
use crate::statistics::Spread;
use crate::subject::Setting;
use lineup::{Kind, Lineup};
use sample::Sample;

/// Flow-control windows of all connections of a run together, in bytes, and of one at most: as large as browsers offer
/// (6 to 12 MiB), and for many connections what their socket buffers hold, so that nobody loses packets.
const WINDOWS_BYTES_MAX: u64 = 32 << 20;
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// `perf serve`
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Rounds; every subject runs once a round, and ratios are taken within a round
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Bytes of a transfer
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Connections of a transfer, which share the bytes evenly
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32])]
    connections: Vec<usize>,
    /// Who takes part; a promise about someone who does not is not measured, and so does not hold
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Kind::ALL)]
    subjects: Vec<Kind>,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load client
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Flow-control window of a stream in bytes, instead of 32 MiB over all connections and 8 MiB for one
    #[arg(long)]
    window_bytes: Option<u64>,
}

impl ServeArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }

    fn window_bytes(&self, connections: usize) -> u64 {
        self.window_bytes.unwrap_or_else(|| (WINDOWS_BYTES_MAX / connections as u64).min(WINDOW_BYTES_MAX))
    }
}

/// Samples of one subject with one number of connections, a round each.
type Samples = BTreeMap<(Kind, usize), Vec<Sample>>;

/// Runs the scenario.
pub fn run(args: &ServeArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.pairs = args.pairs.min(2);
        args.bytes = args.bytes.min(64 << 20);
    }
    ensure!(args.pairs > 0, "--pairs is at least 1");
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(200));

    let engine = match &args.engine {
        Some(engine) => Some(engine.clone()),
        None if args.subjects.iter().any(|k| k.is_ioex()) => {
            progress.set_message("building ioex-engine");
            Some(crate::subject::ioex::build_engine()?)
        }
        None => None,
    };
    progress.set_message(format!("making {} MiB of content", args.bytes >> 20));
    let content = Content::create(&args.common.dir, args.bytes)?;
    progress.set_message("starting the subjects");
    let setting = Setting { content: &content, core: args.server_core };
    let mut lineup = Lineup::start(&args, &setting, engine.as_deref())?;
    // What this program starts from here on inherits the client's core; servers are given theirs.
    pin_to_core(args.client_core)?;

    let mut samples = Samples::new();
    let mut counted = BTreeMap::new();
    for &connections in &args.connections {
        for kind in lineup.kinds() {
            progress.set_message(format!("{connections} connections: checking every byte of {kind}"));
            lineup.verify(&args, kind, connections)?;
            progress.set_message(format!("{connections} connections: counting system calls of {kind}"));
            counted.insert((kind, connections), lineup.count(&args, kind, connections)?);
        }
        for round in 0..args.pairs {
            for kind in lineup.order(round) {
                let rounds = args.pairs;
                progress.set_message(format!(
                    "{connections} connections, round {} of {rounds}: {kind}",
                    round + 1
                ));
                let sample = lineup.measure(&args, kind, connections)?;
                samples.entry((kind, connections)).or_default().push(sample);
            }
        }
    }
    let uploads = match lineup.get(Kind::Ioex) {
        Some(_) => {
            upload::run(&args, &setting, &mut lineup, engine.as_deref().context("ioex is built")?, &progress)?
        }
        None => Vec::new(),
    };
    progress.finish_and_clear();

    let mut subjects = Vec::new();
    for ((kind, connections), of_one) in &samples {
        let mut subject = describe(&args, *kind, *connections, lineup.version(*kind), of_one);
        for (name, value) in &counted[&(*kind, *connections)] {
            subject.metrics.extend(Spread::of(&[*value]).map(|spread| (name.clone(), spread)));
        }
        if *kind == Kind::IoexAgain {
            let noise = Spread::of(&ratios(&samples, Kind::IoexAgain, Kind::Ioex, *connections));
            subject.metrics.extend(noise.map(|spread| ("ratio_to_ioex".to_owned(), spread)));
        }
        subjects.push(subject);
    }
    subjects.extend(upload::describe(&args, &lineup, &uploads));
    Ok(Document {
        scenario: "serve".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects,
        promises: promises(&args, &samples, &counted, &uploads),
        notes: notes(&lineup),
    })
}

fn describe(args: &ServeArgs, kind: Kind, connections: usize, version: &str, samples: &[Sample]) -> Subject {
    let parameters = [
        ("connections", connections.into()),
        ("bytes", args.bytes.into()),
        ("window_bytes", args.window_bytes(connections).into()),
        ("ack_datagrams", ACK_DATAGRAMS.into()),
        ("datagram_bytes_max", DATAGRAM_LEN.into()),
    ];
    let parameters: BTreeMap<String, Value> =
        parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    let metric = |name: &str, value: fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(value).collect();
        Spread::of(&values).map(|spread| (name.to_owned(), spread))
    };
    let metrics = [
        metric("cpu_s_per_gb", Sample::cpu_s_per_gb),
        metric("core_busy_s_per_gb", |s| s.core_busy_s / s.gb()),
        metric("wall_s", |s| s.wall_s),
        metric("gb_per_s", |s| s.gb() / s.wall_s),
        metric("client_cpu_s_per_gb", |s| s.client_cpu_s / s.gb()),
        metric("context_switches_per_gb", |s| s.switches as f64 / s.gb()),
        metric("datagrams_per_ack", |s| s.datagrams_received as f64 / s.datagrams_sent.max(1) as f64),
    ];
    Subject {
        name: kind.to_string(),
        version: version.to_owned(),
        parameters,
        metrics: metrics.into_iter().flatten().collect(),
    }
}

/// Ratios of CPU a byte, a round each.
fn ratios(samples: &Samples, above: Kind, below: Kind, connections: usize) -> Vec<f64> {
    let (Some(above), Some(below)) = (samples.get(&(above, connections)), samples.get(&(below, connections)))
    else {
        return Vec::new();
    };
    above.iter().zip(below).map(|(a, b)| a.cpu_s_per_gb() / b.cpu_s_per_gb()).collect()
}

type Counted = BTreeMap<(Kind, usize), BTreeMap<String, f64>>;

fn promises(
    args: &ServeArgs,
    samples: &Samples,
    counted: &Counted,
    uploads: &[upload::Pair],
) -> Vec<Promise> {
    let mut promises = Vec::new();
    for connections in [1, 32] {
        let ratio = |above, below| ratios(samples, above, below, connections);
        let named = |what: &str| format!("{what}, CPU a byte, {connections} connections");
        promises.push(Promise::judge(
            named("ioex / bare quiche"),
            1.10,
            Better::Lower,
            &ratio(Kind::Ioex, Kind::Quiche),
        ));
        promises.push(Promise::judge(
            named("h3-quinn / ioex"),
            1.3,
            Better::Higher,
            &ratio(Kind::H3Quinn, Kind::Ioex),
        ));
        promises.push(Promise::judge(
            named("Caddy / ioex"),
            5.0,
            Better::Higher,
            &ratio(Kind::Caddy, Kind::Ioex),
        ));
        let copies = counted.get(&(Kind::Ioex, connections)).and_then(|c| c.get("copies_per_byte"));
        // A retransmission copies again: one packet in a hundred may be one.
        promises.push(Promise::judge(
            format!("copies out of the mapping a byte served, {connections} connections"),
            1.01,
            Better::Lower,
            &copies.map_or(Vec::new(), |c| vec![*c]),
        ));
    }
    let ratios: Vec<f64> = uploads.iter().map(upload::Pair::ratio).collect();
    promises.push(Promise::judge("ioex PUT / GET, CPU a byte, 1 connection", 2.0, Better::Lower, &ratios));
    if args.common.quick {
        for promise in &mut promises {
            promise.holds = false;
        }
    }
    promises
}

fn notes(lineup: &Lineup) -> Vec<String> {
    let mut notes = vec![
        format!(
            "CPU is user and system time of the server's process over the transfer; the core's busy time beside it holds \
             what interrupts did. GB is 1e9 bytes that arrived. Servers on one core, the client on another; every \
             server sends at most {DATAGRAM_LEN} bytes a datagram, the references in GSO batches of {BATCH_SEGMENTS}."
        ),
        format!(
            "ACK policy of the client, the same for all: a connection's ACKs leave when its socket is empty or \
             {ACK_DATAGRAMS} datagrams were processed; quiche has no ACK-frequency extension. Congestion control is each \
             server's own default."
        ),
        "Ratios are taken within a round, whose order rotates. The 95 % interval of their median comes from order \
         statistics; its end nearer to failing decides. \"ioex again\" is the same process measured twice a round: what \
         its ratio to \"ioex\" differs from 1 is noise."
            .to_owned(),
        "System calls are counted with the raw_syscalls tracepoint in a run of its own that is not timed.".to_owned(),
        "Before it is measured, each subject's bytes are compared by BLAKE3 with what was published.".to_owned(),
    ];
    notes.extend(lineup.missing().iter().cloned());
    notes
}
