//! Allocations that only exist: what each takes of memory, and how many one node has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{self, Kind, Lineup};
use crate::datagrams::Socket;
use crate::document::{Better, Promise, Subject};
use crate::measure::Memory;
use crate::statistics::Spread;
use crate::subject::relay::Relay;
use crate::subject::{Setting, ioex_relay};
use crate::turn::flows::Flows;
use crate::turn::setup::Setup;

/// Allocations whose memory is divided by their number.
const COUNTED: usize = 5_000;

/// Allocations that a new process has before the memory is read the first time: code and tables are there then.
const FIRST: usize = 64;

/// Processes of each kind, one after the other.
const RUNS: usize = 3;

/// Whose memory is read.
const KINDS: [Kind; 3] = [Kind::Coturn, Kind::TurnProto, Kind::Ioex];

/// Allocations of the whole-node measurement, and the loopback addresses that clients and relayed addresses are spread over:
/// an address has 16,384 relay ports by default.
const NODE: usize = 100_000;
const NODE_ADDRESSES: u8 = 8;

/// Of these the node must still relay: so many of its allocations carry payload both ways at the end.
const CHECKED: usize = 500;

/// Open files that this program needs, and its children, which inherit the limit.
const OPEN_FILES: u64 = NODE as u64 + 65_536;

/// Files that are not sockets of allocations, in a relay and in this program.
const OTHER_FILES: u64 = 512;

/// What allocations took.
#[derive(Clone, Copy)]
struct Idle {
    user_bytes: f64,
    kernel_bytes: f64,
    allocations: usize,
    seconds: f64,
}

/// What was measured.
#[derive(Default)]
pub struct IdleRuns {
    of: Vec<(Kind, String, Vec<Idle>)>,
    node: Option<(String, Idle)>,
    reason: Option<String>,
}

/// Raises the limit on open files as far as this user may, for this process and for what it starts.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised =
        Rlimit { current: Some(OPEN_FILES), maximum: limit.maximum.map(|hard| hard.max(OPEN_FILES)) };
    if setrlimit(Resource::Nofile, raised).is_err() {
        // Not root: what the hard limit allows.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Sockets that a process may have beside its other files.
fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES)
}

impl IdleRuns {
    /// Measures processes of its own.
    pub fn run(
        args: &RelayArgs,
        setting: &Setting,
        lineup: &Lineup,
        engine: Option<&Path>,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut all = Self::default();
        let (counted, runs) = if args.common.quick { (200, 1) } else { (COUNTED, RUNS) };
        for kind in KINDS.into_iter().filter(|k| lineup.has(*k)) {
            let mut of_one = Vec::new();
            let mut version = String::new();
            for run in 0..runs {
                progress
                    .set_message(format!("memory of {counted} allocations of {kind}, {} of {runs}", run + 1));
                let relay = lineup::start(args, setting, engine, kind)?;
                version.clone_from(&relay.version);
                let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
                let (idle, error) = idle(&relay, counted, &local)?;
                error.map_or(Ok(()), Err).with_context(|| format!("{counted} allocations of {kind}"))?;
                of_one.push(idle);
            }
            all.of.push((kind, version, of_one));
        }
        if lineup.has(Kind::Ioex) {
            let count = if args.common.quick { 1_000 } else { NODE.min(open_files() as usize) };
            if count < NODE && !args.common.quick {
                all.reason = Some(format!(
                    "this machine's hard limit on open files lets one process have no more than {count} sockets, and may \
                     not be raised here"
                ));
            }
            progress.set_message(format!("{count} allocations on one node"));
            let address = |net: u8| move |host: u8| IpAddr::from([127, 0, net, host]);
            let relayed: Vec<IpAddr> = (1..=NODE_ADDRESSES).map(address(1)).collect();
            let clients: Vec<IpAddr> = (1..=NODE_ADDRESSES).map(address(2)).collect();
            let engine = engine.context("ioex-engine is built")?;
            let relay = ioex_relay::start(setting, engine, &args.driver, &lineup::credential(), &relayed)?;
            let (idle, error) = idle(&relay, count, &clients)?;
            all.reason = error.map(|e| format!("{e:#}")).or(all.reason);
            all.node = Some((relay.version.clone(), idle));
        }
        Ok(all)
    }

    /// What is promised.
    pub fn promises(&self) -> Vec<Promise> {
        let ioex = self.of.iter().find(|(kind, ..)| *kind == Kind::Ioex);
        let user: Vec<f64> =
            ioex.map_or(Vec::new(), |(.., runs)| runs.iter().map(|i| i.user_bytes).collect());
        let node: Vec<f64> = self.node.iter().map(|(_, idle)| idle.allocations as f64).collect();
        vec![
            Promise::judge(
                format!("ioex, bytes of user memory an idle allocation, {COUNTED} allocations"),
                4_096.0,
                Better::Lower,
                &user,
            ),
            Promise::judge("ioex, allocations on one node that all live", NODE as f64, Better::Higher, &node),
        ]
    }

    /// The measurements.
    pub fn describe(&self) -> Vec<Subject> {
        let one = |name: String, version: &str, runs: &[Idle]| {
            let metric = |name: &str, value: fn(&Idle) -> f64| {
                let values: Vec<f64> = runs.iter().map(value).collect();
                Spread::of(&values).map(|spread| (name.to_owned(), spread))
            };
            let metrics = [
                metric("user_bytes_per_allocation", |i| i.user_bytes),
                metric("kernel_bytes_per_allocation", |i| i.kernel_bytes),
                metric("allocations_per_s", |i| i.allocations as f64 / i.seconds),
            ];
            let allocations = runs.first().map_or(0, |i| i.allocations);
            let parameters: [(&str, Value); 2] =
                [("load", "idle".into()), ("allocations", allocations.into())];
            Subject {
                name,
                version: version.to_owned(),
                parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
                metrics: metrics.into_iter().flatten().collect(),
            }
        };
        let mut subjects: Vec<Subject> =
            self.of.iter().map(|(kind, version, runs)| one(kind.to_string(), version, runs)).collect();
        let node = self.node.iter().map(|(version, idle)| one(Kind::Ioex.to_string(), version, &[*idle]));
        subjects.extend(node);
        subjects
    }

    /// Why there were not more allocations on one node.
    pub fn reason(&self) -> Option<String> {
        let reason = self.reason.as_ref()?;
        Some(format!("The node did not get all of its allocations: {reason}."))
    }
}

/// Opens `count` allocations of `relay` from `sources`, reads the memory before and after, and uses some of them.
fn idle(relay: &Relay, count: usize, sources: &[IpAddr]) -> anyhow::Result<(Idle, Option<anyhow::Error>)> {
    let credential = relay.credential.as_ref().context("it has a user")?;
    let peer = Socket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let setup = Setup { server: relay.address, credential, peer: peer.local() };
    let bind = |i: usize| Socket::bind(SocketAddr::new(sources[i % sources.len()], 0));
    let first = setup.open((0..FIRST).map(bind).collect::<anyhow::Result<_>>()?)?;
    // The clients' own sockets are there before the kernel's memory is read.
    let sockets = (0..count).map(bind).collect::<anyhow::Result<_>>()?;
    let before = Memory::take(relay.process.pid())?;
    let started = Instant::now();
    let (mut clients, error) = setup.open_many(sockets);
    let seconds = started.elapsed().as_secs_f64();
    let after = Memory::take(relay.process.pid())?;
    let allocations = clients.len();
    let each = |before: u64, after: u64| (after as f64 - before as f64) / allocations.max(1) as f64;
    let idle = Idle {
        user_bytes: each(before.user, after.user),
        kernel_bytes: each(before.kernel, after.kernel),
        allocations,
        seconds,
    };
    // Those that are used are taken from the whole range, and the rest still lives meanwhile.
    let step = clients.len().div_ceil(CHECKED).max(1);
    let mut rest = Vec::new();
    let mut used = Vec::new();
    for (i, client) in clients.drain(..).enumerate() {
        if i % step == 0 { used.push(client) } else { rest.push(client) }
    }
    Flows::new(used, peer, relay.address, Some(credential.clone()))?.verify()?;
    drop((first, rest));
    Ok((idle, error))
}
