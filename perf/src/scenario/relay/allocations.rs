//! How many allocations one node has: 100,000, of which each lives.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::idle::{self, Idle};
use super::lineup::{self, Kind};
use crate::content::Content;
use crate::document::{Better, Document, Machine, Promise, commit};
use crate::process::pin_to_core;
use crate::scenario::CommonArgs;
use crate::subject::{Setting, ioex, ioex_relay};

/// Allocations that are promised.
const PROMISED: usize = 100_000;

/// Allocations of a quick run.
const QUICK: usize = 1_000;

/// Ports that a relayed address has by default, less those that other programs may have taken.
const PORTS_AN_ADDRESS: usize = 16_000;

/// Clients an address of theirs: fewer than Linux has ephemeral ports by default (28,232).
const CLIENTS_AN_ADDRESS: usize = 16_000;

/// Addresses of each kind at most: the last octet of `127.0.1.x`.
const ADDRESSES_MAX: usize = 254;

/// Files that are not sockets of allocations, in the engine and in this program, generously.
const OTHER_FILES: u64 = 512;

/// `perf relay-allocations`
#[derive(Clone, Debug, clap::Args)]
pub struct AllocationsArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Allocations; of fewer than the default the promise cannot hold
    #[arg(long, default_value_t = PROMISED)]
    allocations: usize,
    /// A built ioex-engine to measure, instead of this workspace's
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Driver of ioex: auto, uring or epoll
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Core of the engine
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the clients
    #[arg(long, default_value_t = 1)]
    client_core: usize,
}

impl AllocationsArgs {
    /// Where the document goes.
    pub fn common(&self) -> &CommonArgs {
        &self.common
    }
}

/// Runs the scenario.
pub fn run(args: &AllocationsArgs) -> anyhow::Result<Document> {
    let started = Instant::now();
    let commit = commit();
    // Before this thread is pinned to one core.
    let machine = Machine::here();
    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed_precise} {wide_msg}")?);
    let engine = match &args.engine {
        Some(engine) => engine.clone(),
        None => {
            progress.set_message("building ioex-engine");
            ioex::build_engine()?
        }
    };

    let wanted = if args.common.quick { args.allocations.min(QUICK) } else { args.allocations };
    let addresses = wanted.div_ceil(PORTS_AN_ADDRESS.min(CLIENTS_AN_ADDRESS)).max(1);
    ensure!(
        addresses <= ADDRESSES_MAX,
        "--allocations is at most {}",
        ADDRESSES_MAX * PORTS_AN_ADDRESS.min(CLIENTS_AN_ADDRESS)
    );
    let limit = raise_open_files(wanted as u64 + OTHER_FILES)?;
    let sockets = usize::try_from(limit.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let count = wanted.min(sockets);
    let limited = (count < wanted).then(|| {
        format!(
            "the hard limit on open files (RLIMIT_NOFILE, `ulimit -Hn`) is {limit} here and may not be raised by this user, \
             which leaves one process {count} sockets of {wanted}. perf/vm/run measures in a virtual machine instead"
        )
    });

    let network = |network: u8| move |host: usize| IpAddr::from([127, 0, network, host as u8]);
    let relayed: Vec<IpAddr> = (1..=addresses).map(network(1)).collect();
    let clients: Vec<IpAddr> = (1..=addresses).map(network(2)).collect();
    // Of the content, a relay uses nothing but the certificate.
    let content = Content::create(&args.common.dir, 0)?;
    let setting = Setting { content: &content, core: args.server_core };
    let relay = ioex_relay::start(&setting, &engine, &args.driver, &lineup::credential(), &relayed)?;
    pin_to_core(args.client_core)?;
    progress.set_message(format!("{count} allocations on one node"));
    let (idle, error) = Idle::measure(&relay, count, &clients).context("allocations on one node")?;
    progress.finish_and_clear();

    let mut promises = vec![
        Promise::judge(
            "ioex, allocations on one node that all live",
            PROMISED as f64,
            Better::Higher,
            &[idle.allocations as f64],
        ),
        Promise::judge(
            "ioex, bytes of user memory an idle allocation",
            idle::USER_BYTES_MAX,
            Better::Lower,
            &[idle.user_bytes],
        ),
    ];
    if args.common.quick {
        promises.iter_mut().for_each(|p| p.holds = false);
    }
    let reason = error.map(|e| format!("{e:#}")).or(limited);
    let mut notes = vec![
        format!(
            "Relayed addresses are spread over {addresses} addresses of 127.0.1.0/24, clients over as many of 127.0.2.0/24: an \
             address has 16,384 relay ports by default. Engine and clients in one process each, a core each."
        ),
        format!(
            "Each allocation has a permission and a channel. When all are open, every one of them binds its channel again, which \
             only an allocation that lives can; then up to {} of them, taken from the whole range, carry payload both ways, \
             compared byte by byte, while the rest lives.",
            idle::CHECKED
        ),
        idle::MEMORY_NOTE.to_owned(),
    ];
    notes.extend(reason.map(|reason| format!("There were not more allocations: {reason}.")));
    Ok(Document {
        scenario: "relay-allocations".to_owned(),
        quick: args.common.quick,
        machine,
        commit,
        seconds: started.elapsed().as_secs_f64(),
        subjects: vec![Idle::describe(Kind::Ioex, &relay.version, &[idle])],
        promises,
        notes,
    })
}

/// Raises the limit on open files to `wanted` or as far as this user may, for this process and for what it starts. Gives
/// the limit that is then in force.
pub fn raise_open_files(wanted: u64) -> anyhow::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= wanted) {
        return Ok(limit.current.unwrap_or(u64::MAX));
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|hard| hard.max(wanted)) };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => return Ok(wanted),
        // Not a user who may raise the hard limit, or beyond fs.nr_open: what the hard limit allows.
        Err(Errno::PERM) => {}
        Err(error) => return Err(error).context("raising the limit on open files"),
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raising the limit on open files to the hard limit")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}
