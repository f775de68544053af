//! The subjects of a run, started once and measured in turn.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::ServeArgs;
use super::sample::Sample;
use crate::client::{Load, Protocol, Request};
use crate::content::Content;
use crate::measure::SyscallCount;
use crate::subject::ioex::Node;
use crate::subject::{Server, Setting, caddy, reference};

/// Pause after a transfer, in which the server forgets the connections that the client closed.
const SETTLE: Duration = Duration::from_millis(50);

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A bare quiche sender without HTTP/3: the yardstick
    Quiche,
    /// The same with HTTP/3
    QuicheH3,
    /// quinn with h3-quinn
    H3Quinn,
    /// Caddy's file server
    Caddy,
    /// ioex-engine
    Ioex,
    /// The same process once more in every round, to show the noise
    IoexAgain,
}

impl Kind {
    /// Everyone.
    pub const ALL: [Self; 6] =
        [Self::Quiche, Self::QuicheH3, Self::H3Quinn, Self::Caddy, Self::Ioex, Self::IoexAgain];

    /// Whether this is ioex.
    pub fn is_ioex(self) -> bool {
        matches!(self, Self::Ioex | Self::IoexAgain)
    }

    /// Who holds the process that is measured.
    fn process(self) -> Self {
        if self == Self::IoexAgain { Self::Ioex } else { self }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`, so that a width in the format string counts.
        f.pad(match self {
            Self::Quiche => "bare quiche",
            Self::QuicheH3 => "bare quiche, HTTP/3",
            Self::H3Quinn => "h3-quinn",
            Self::Caddy => "Caddy",
            Self::Ioex => "ioex",
            Self::IoexAgain => "ioex again",
        })
    }
}

/// The running subjects.
pub struct Lineup<'a> {
    content: &'a Content,
    core: usize,
    kinds: Vec<Kind>,
    servers: BTreeMap<Kind, Server>,
    node: Option<Node>,
    missing: Vec<String>,
}

impl<'a> Lineup<'a> {
    /// Starts everyone whom `args` names and who is there.
    pub fn start(args: &ServeArgs, setting: &Setting<'a>, engine: Option<&Path>) -> anyhow::Result<Self> {
        let content = setting.content;
        let mut lineup = Self {
            content,
            core: setting.core,
            kinds: Vec::new(),
            servers: BTreeMap::new(),
            node: None,
            missing: Vec::new(),
        };
        for &kind in &args.subjects {
            if kind == Kind::Caddy && caddy::version().is_none() {
                let missing = "Caddy is not installed (Debian package `caddy`), so it was not measured.";
                lineup.missing.push(missing.to_owned());
                continue;
            }
            lineup.kinds.push(kind);
            let process = kind.process();
            if !lineup.servers.contains_key(&process) {
                let server = lineup.start_one(args, setting, process, engine)?;
                lineup.servers.insert(process, server);
            }
        }
        Ok(lineup)
    }

    fn start_one(
        &mut self,
        args: &ServeArgs,
        setting: &Setting,
        kind: Kind,
        engine: Option<&Path>,
    ) -> anyhow::Result<Server> {
        match kind {
            Kind::Quiche => reference::quiche_sender(setting, Protocol::Raw),
            Kind::QuicheH3 => reference::quiche_sender(setting, Protocol::Http3),
            Kind::H3Quinn => reference::h3_quinn(setting),
            Kind::Caddy => caddy::start(setting),
            Kind::Ioex | Kind::IoexAgain => {
                let content = setting.content;
                let folder = content.folder().join("node");
                let node = Node::create(&folder, &content.certificate(), &content.key())?;
                let list = node.publish(&content.file())?;
                let engine = engine.context("ioex-engine is built")?;
                let server = node.start(setting, engine, &args.driver, Some(list))?;
                self.node = Some(node);
                Ok(server)
            }
        }
    }

    /// Who is there.
    pub fn kinds(&self) -> Vec<Kind> {
        self.kinds.clone()
    }

    /// The order of a round: each starts one place later than in the round before.
    pub fn order(&self, round: usize) -> Vec<Kind> {
        let mut kinds = self.kinds.clone();
        let shift = round % kinds.len().max(1);
        kinds.rotate_left(shift);
        kinds
    }

    /// What is not there, for the reader.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The server of a subject, if it takes part.
    pub fn get(&self, kind: Kind) -> Option<&Server> {
        self.servers.get(&kind.process())
    }

    /// Version of a subject.
    pub fn version(&self, kind: Kind) -> &str {
        self.get(kind).map_or("", |s| &s.version)
    }

    /// One timed transfer.
    pub fn measure(&self, args: &ServeArgs, kind: Kind, connections: usize) -> anyhow::Result<Sample> {
        let server = self.get(kind).with_context(|| format!("{kind} does not take part"))?;
        let attempt = || {
            let mut load =
                Load::connect(&server.load(args.window_bytes(connections), 1, false), connections)?;
            Sample::take(server, self.core, &mut load, self.requests(server, connections))
        };
        let sample = attempt().with_context(|| format!("{kind} with {connections} connections"))?;
        std::thread::sleep(SETTLE);
        Ok(sample)
    }

    /// One transfer that is not timed, whose bytes are compared with the content.
    pub fn verify(&self, args: &ServeArgs, kind: Kind, connections: usize) -> anyhow::Result<()> {
        let server = self.get(kind).with_context(|| format!("{kind} does not take part"))?;
        let requests = self.requests(server, connections);
        let expected: Vec<Vec<blake3::Hash>> =
            requests.iter().map(|r| r.iter().map(|r| self.hash(r)).collect()).collect();
        let mut load = Load::connect(&server.load(args.window_bytes(connections), 1, true), connections)?;
        let outcome = load.run(requests).with_context(|| format!("{kind} with {connections} connections"))?;
        ensure!(outcome.hashes == expected, "{kind} sent other bytes than it was given");
        drop(load);
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// One transfer that is not timed, in which system calls and the server's own counters are read.
    pub fn count(
        &mut self,
        args: &ServeArgs,
        kind: Kind,
        connections: usize,
    ) -> anyhow::Result<BTreeMap<String, f64>> {
        let before = self.counters(kind)?;
        let pid = self.get(kind).with_context(|| format!("{kind} does not take part"))?.process.pid();
        let syscalls = SyscallCount::start(pid);
        let sample = self.measure(args, kind, connections)?;
        let syscalls = syscalls.and_then(SyscallCount::finish);
        let after = self.counters(kind)?;
        let difference = |name: &str| Some(after.get(name)?.saturating_sub(*before.get(name)?) as f64);
        let mut counted = BTreeMap::new();
        if let Some(syscalls) = syscalls {
            counted.insert("syscalls_per_gb".to_owned(), syscalls as f64 / sample.gb());
        }
        if let (Some(datagrams), Some(batches)) = (difference(DATAGRAMS_SENT), difference(BATCHES_SENT)) {
            counted.insert("datagrams_per_batch".to_owned(), datagrams / batches.max(1.0));
        }
        if let (Some(handed_over), Some(again)) = (difference(BODY_BYTES), difference(BYTES_RETRANSMITTED)) {
            counted.insert("copies_per_byte".to_owned(), (handed_over + again) / sample.bytes as f64);
        }
        Ok(counted)
    }

    /// Counters of ioex and of the bare quiche sender under ioex's names; none of the others.
    fn counters(&mut self, kind: Kind) -> anyhow::Result<BTreeMap<String, u64>> {
        match (kind, &self.node) {
            (Kind::Ioex | Kind::IoexAgain, Some(node)) => {
                let mut sums = BTreeMap::new();
                for (name, value) in node.status()?.counters {
                    // A counter of several shards comes once a shard, told apart by its labels.
                    let name = name.split('{').next().unwrap_or(&name).to_owned();
                    *sums.entry(name).or_insert(0) += value;
                }
                Ok(sums)
            }
            (Kind::Quiche | Kind::QuicheH3, _) => {
                let server =
                    self.servers.get_mut(&kind).with_context(|| format!("{kind} does not take part"))?;
                let line = reference::counters(server)?;
                let counters = [(DATAGRAMS_SENT, line.datagrams_sent), (BATCHES_SENT, line.send_calls)];
                Ok(counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }
            _ => Ok(BTreeMap::new()),
        }
    }

    /// The content in equal parts, one a connection; the last takes what is left.
    fn requests(&self, server: &Server, connections: usize) -> Vec<Vec<Request>> {
        let total = self.content.bytes.len() as u64;
        let part = total / connections as u64;
        let request = |i: u64| {
            let first = i * part;
            let len = if i + 1 == connections as u64 { total - first } else { part };
            vec![Request::Get { path: server.path.clone(), first, len }]
        };
        (0..connections as u64).map(request).collect()
    }

    fn hash(&self, request: &Request) -> blake3::Hash {
        match request {
            Request::Get { first, len, .. } => {
                blake3::hash(&self.content.bytes[*first as usize..(*first + *len) as usize])
            }
            Request::Put { body, .. } => blake3::hash(body),
        }
    }
}

/// Names of the engine's counters that perf reads.
const DATAGRAMS_SENT: &str = "ioex_datagrams_sent_total";
const BATCHES_SENT: &str = "ioex_batches_sent_total";
/// Bytes handed to QUIC as slices of the mapping, each copied once, into its packet.
const BODY_BYTES: &str = "ioex_body_bytes_total";
/// Bytes of them that were lost, and so copied once more.
const BYTES_RETRANSMITTED: &str = "ioex_stream_bytes_retransmitted_total";
