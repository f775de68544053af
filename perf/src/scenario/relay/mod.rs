//! Relaying as a TURN server: ioex against coturn, a server from crates.io and a bare forwarder, in alternation.

pub mod allocations;
mod idle;
mod latency;
mod lineup;
mod loads;
mod sample;
mod uclient;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};

use super::CommonArgs;
use crate::content::Content;
use crate::document::{Document, Machine, commit};
use crate::process::pin_to_core;
use crate::subject::Setting;
use crate::turn::{BATCH_DATAGRAMS, PAYLOAD_LEN};
use idle::IdleRuns;
use latency::Latency;
use lineup::{Kind, Lineup};
use loads::{Loads, REFERENCE_ROUNDS, TURN_PROTO_ALLOCATIONS_MAX};
use uclient::UclientRuns;

/// `perf relay`
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Rounds; every subject runs once a round, and ratios are taken within a round
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Length of one sample in milliseconds
    #[arg(long = "sample-ms", default_value = "300", value_parser = milliseconds)]
    sample: Duration,
    /// Allocations that share a load
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 5_000])]
    allocations: Vec<usize>,
    /// Messages of each of the clients of a turnutils_uclient run
    #[arg(long, default_value_t = 3_000)]
    uclient_messages: usize,
    /// What is measured; a promise about something that is not does not hold
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Who takes part; a promise about someone who does not is not measured, and so does not hold
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Kind::ALL)]
    subjects: Vec<Kind>,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the relays
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of clients and peers
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

/// Open files that relays and this program need for the largest load, with room.
const OPEN_FILES: u64 = 65_536;

impl RelayArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// The parts of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Relays kept at work, with GSO and with single datagrams
    Loads,
    /// Added delay at shares of the capacity; needs the loads with 100 allocations
    Latency,
    /// coturn's own client
    Uclient,
    /// Memory of idle allocations
    Idle,
}

impl Part {
    /// All.
    pub const ALL: [Self; 4] = [Self::Loads, Self::Latency, Self::Uclient, Self::Idle];
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

/// Runs the scenario.
pub fn run(args: &RelayArgs) -> anyhow::Result<Document> {
    let mut args = args.clone();
    if args.common.quick {
        args.pairs = args.pairs.min(2);
        args.sample = args.sample.min(Duration::from_millis(30));
        args.uclient_messages = args.uclient_messages.min(50);
        args.allocations.iter_mut().for_each(|n| *n = (*n).min(200));
    }
    ensure!(args.pairs > 0, "--pairs is at least 1");
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));

    let engine = match &args.engine {
        Some(engine) => Some(engine.clone()),
        None if args.subjects.iter().any(|k| k.is_ioex()) => {
            progress.set_message("building ioex-engine");
            Some(crate::subject::ioex::build_engine()?)
        }
        None => None,
    };
    allocations::raise_open_files(OPEN_FILES)?;
    // Of the content, relays use nothing but the certificate.
    let content = Content::create(&args.common.dir, 0)?;
    let setting = Setting { content: &content, core: args.server_core };
    progress.set_message("starting the relays");
    let lineup = Lineup::start(&args, &setting, engine.as_deref())?;
    // What this program starts from here on inherits the client's core; relays are given theirs.
    pin_to_core(args.client_core)?;

    let mut loads = Loads::default();
    let mut latency = Latency::default();
    if args.parts.contains(&Part::Loads) {
        for &allocations in &args.allocations {
            let mut all_flows = loads.run(&args, &lineup, allocations, &progress)?;
            if allocations == latency::ALLOCATIONS && args.parts.contains(&Part::Latency) {
                latency = Latency::run(&args, &lineup, &mut all_flows, &progress)?;
            }
            for (_, flows) in all_flows {
                flows.close()?;
            }
        }
    }
    let mut uclient_runs = UclientRuns::default();
    if args.parts.contains(&Part::Uclient) && lineup.has(Kind::Coturn) {
        uclient_runs = UclientRuns::run(&args, &setting, &lineup, &progress)?;
    }
    let mut idle_runs = IdleRuns::default();
    if args.parts.contains(&Part::Idle) {
        idle_runs = IdleRuns::run(&args, &setting, &lineup, engine.as_deref(), &progress)?;
    }
    progress.finish_and_clear();

    let mut subjects = loads.describe(&lineup);
    subjects.extend(uclient_runs.describe(&lineup));
    subjects.extend(latency.describe(&lineup));
    subjects.extend(idle_runs.describe());
    let mut promises = loads.promises();
    promises.extend(uclient_runs.promises());
    promises.push(latency.promise());
    promises.push(idle_runs.promise());
    if args.common.quick {
        promises.iter_mut().for_each(|p| p.holds = false);
    }
    Ok(Document {
        scenario: "relay".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects,
        promises,
        notes: notes(&lineup),
    })
}

fn notes(lineup: &Lineup) -> Vec<String> {
    let mut notes = vec![
        format!(
            "CPU is user and system time of the relay's process over the load; the core's busy time beside it holds what \
             interrupts did. GB is 1e9 bytes of payload that arrived, {PAYLOAD_LEN} bytes a datagram. Relays on one core, \
             clients and their peer on the other, in one thread that never sleeps; all of it over the loopback interface."
        ),
        format!(
            "GSO load: batches of {BATCH_DATAGRAMS} datagrams in one send; singles: each datagram with a message of its own \
             in `sendmmsg`. Clients send ChannelData, the peer plain datagrams. A bounded number of bursts is in flight \
             (window_bursts): the next GSO batch leaves as soon as one arrived. Singles come in waves of the whole window; the relay \
             is stopped (SIGSTOP) while a wave is sent and finds it as it would find what a network card received by the time of its \
             interrupt. Left to run, a fast relay takes each datagram as it is sent, never two at a time, never sleeps, and its \
             CPU time is the sender's. It is the largest window, from 16 bursts down, with which the relay lost nothing in a trial. \
             What is lost is counted."
        ),
        "Where the host runs a virtual machine's two cores on one physical core, what crosses from one to the other stays in a \
         cache; where it runs them on two, everything that crosses costs more: a byte half as much again with the bare forwarder. \
         It moves them while a scenario runs, hence the two groups into which samples with GSO may fall. Ratios within a round \
         are little touched by that."
            .to_owned(),
        "The bare forwarder receives with GRO, sends with GSO, one thread, no protocol, no headers. coturn runs one relay \
         thread, UDP alone, without TLS and command-line interface. Its GSO (4.17, in a multiplex mode) is not in Debian; \
         what is measured is the version that the table of subjects names in the document."
            .to_owned(),
        format!(
            "turn-server-proto is the crate's state machine on tokio's sockets, up to {TURN_PROTO_ALLOCATIONS_MAX} \
             allocations and {REFERENCE_ROUNDS} rounds. crates.io's turn-server (4.1.5) cannot take part: it relays between \
             its own clients only, and answers a channel to any other peer with 443."
        ),
        "Added delay: single datagrams in bursts of 16, evenly paced, over 100 allocations, at shares of what the same subject \
         relays of them while it and the sender run freely. A round has slices, after each of which the subjects take turns; its \
         quantile is the median of its slices', so that a pause of the machine in one of them does not decide it (the worst slice's \
         p99 stands beside it), less the median, over the rounds, of the same quantile of the direct path at the same rate."
            .to_owned(),
        idle::MEMORY_NOTE.to_owned(),
        "Ratios are taken within a round, whose order rotates. The 95 % interval of their median comes from order \
         statistics; its end nearer to failing decides. \"ioex again\" is the same process measured twice a round: what \
         its ratio to \"ioex\" differs from 1 is noise."
            .to_owned(),
        "Before it is measured, each flow's payload is compared byte by byte, both ways.".to_owned(),
    ];
    notes.extend(lineup.missing().iter().cloned());
    notes
}
