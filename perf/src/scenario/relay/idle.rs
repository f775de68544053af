//! Allocations that only exist: what each takes of memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{self, Kind, Lineup};
use crate::datagrams::Socket;
use crate::document::{Better, Promise, Subject};
use crate::measure::Memory;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::relay::Relay;
use crate::turn::flows::Flows;
use crate::turn::setup::Setup;

/// Allocations whose memory is divided by their number.
const COUNTED: usize = 5_000;

/// User memory in bytes that an idle allocation may take at most.
pub const USER_BYTES_MAX: f64 = 4_096.0;

/// Allocations that a new process has before the memory is read the first time: code and tables are there then.
const FIRST: usize = 64;

/// Processes of each kind, one after the other.
const RUNS: usize = 3;

/// Whose memory is read.
const KINDS: [Kind; 3] = [Kind::Coturn, Kind::TurnProto, Kind::Ioex];

/// What a reader must know of these figures.
pub const MEMORY_NOTE: &str = "Memory of an allocation: growth of the process's PSS, and of the kernel's slab memory (sockets, \
     files, requests of io_uring; the clients' sockets exist before), over allocations with a permission and a channel each, by \
     their number.";

/// Of many allocations so many carry payload both ways at the end.
pub const CHECKED: usize = 500;

/// What allocations took.
#[derive(Clone, Copy)]
pub struct Idle {
    /// Allocations that live: each has answered twice, the second time when all were open.
    pub allocations: usize,
    /// Growth of the engine's memory, an allocation.
    pub user_bytes: f64,
    kernel_bytes: f64,
    /// How long opening all of them took.
    seconds: f64,
}

/// What was measured.
#[derive(Default)]
pub struct IdleRuns {
    of: Vec<(Kind, String, Vec<Idle>)>,
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
                let (idle, error) = Idle::measure(&relay, counted, &local)?;
                error.map_or(Ok(()), Err).with_context(|| format!("{counted} allocations of {kind}"))?;
                of_one.push(idle);
            }
            all.of.push((kind, version, of_one));
        }
        Ok(all)
    }

    /// What is promised.
    pub fn promise(&self) -> Promise {
        let ioex = self.of.iter().find(|(kind, ..)| *kind == Kind::Ioex);
        let user: Vec<f64> =
            ioex.map_or(Vec::new(), |(.., runs)| runs.iter().map(|i| i.user_bytes).collect());
        Promise::judge(
            format!("ioex, bytes of user memory an idle allocation, {COUNTED} allocations"),
            USER_BYTES_MAX,
            Better::Lower,
            &user,
        )
    }

    /// The measurements.
    pub fn describe(&self) -> Vec<Subject> {
        self.of.iter().map(|(kind, version, runs)| Idle::describe(*kind, version, runs)).collect()
    }
}

impl Idle {
    /// Opens `count` allocations of `relay` from `sources`, reads the memory before and after, asks each whether it lives, and
    /// uses some of them. If the relay or this machine does not give so many, there is a reason beside what was measured.
    pub fn measure(
        relay: &Relay,
        count: usize,
        sources: &[IpAddr],
    ) -> anyhow::Result<(Self, Option<anyhow::Error>)> {
        let credential = relay.credential.as_ref().context("it has a user")?;
        let peer = Socket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let setup = Setup { server: relay.address, credential, peer: peer.local() };
        let bind = |i: usize| Socket::bind(SocketAddr::new(sources[i % sources.len()], 0));
        let first = setup.open((0..FIRST).map(bind).collect::<anyhow::Result<_>>()?)?;
        // The clients' own sockets are there before the kernel's memory is read.
        let sockets = (0..count).map(bind).collect::<anyhow::Result<_>>()?;
        let before = Memory::take(relay.process.pid())?;
        let started = Instant::now();
        let (clients, error) = setup.open_many(sockets);
        let seconds = started.elapsed().as_secs_f64();
        let after = Memory::take(relay.process.pid())?;
        let allocations = clients.len();
        let each = |before: u64, after: u64| (after as f64 - before as f64) / allocations.max(1) as f64;
        let idle = Self {
            allocations,
            user_bytes: each(before.user, after.user),
            kernel_bytes: each(before.kernel, after.kernel),
            seconds,
        };
        // A channel can be bound again only by an allocation that lives.
        let mut clients = setup.keep(clients)?;
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

    /// Runs of one relay as a subject of a document.
    pub fn describe(kind: Kind, version: &str, runs: &[Self]) -> Subject {
        let metric = |name: &str, value: fn(&Self) -> f64| {
            let values: Vec<f64> = runs.iter().map(value).collect();
            Spread::of(&values).map(|spread| (name.to_owned(), spread))
        };
        let metrics = [
            metric("user_bytes_per_allocation", |i| i.user_bytes),
            metric("kernel_bytes_per_allocation", |i| i.kernel_bytes),
            metric("allocations_per_s", |i| i.allocations as f64 / i.seconds),
        ];
        let allocations = runs.first().map_or(0, |i| i.allocations);
        let parameters: [(&str, Value); 2] = [("load", "idle".into()), ("allocations", allocations.into())];
        Subject {
            name: kind.to_string(),
            version: version.to_owned(),
            parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
            metrics: metrics.into_iter().flatten().collect(),
        }
    }
}
