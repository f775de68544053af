//! The relays of a run, started once and measured in turn.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context;

use super::RelayArgs;
use crate::subject::relay::{self, Relay};
use crate::subject::{Setting, coturn, ioex_relay};
use crate::turn::Credential;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A bare recvmsg-GRO, sendmsg-GSO forwarder without protocol: the yardstick
    Forwarder,
    /// coturn's turnserver
    Coturn,
    /// A server made of turn-server-proto and tokio, for fewer rounds and up to 100 allocations
    TurnProto,
    /// ioex-engine --relay
    Ioex,
    /// The same process once more in every round, to show the noise
    IoexAgain,
}

impl Kind {
    /// Everyone.
    pub const ALL: [Self; 5] = [Self::Forwarder, Self::Coturn, Self::TurnProto, Self::Ioex, Self::IoexAgain];

    /// Whether this is ioex.
    pub fn is_ioex(self) -> bool {
        matches!(self, Self::Ioex | Self::IoexAgain)
    }

    /// Who holds the process that is measured.
    pub fn process(self) -> Self {
        if self == Self::IoexAgain { Self::Ioex } else { self }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`, so that a width in the format string counts.
        f.pad(match self {
            Self::Forwarder => "bare forwarder",
            Self::Coturn => "coturn",
            Self::TurnProto => "turn-server-proto",
            Self::Ioex => "ioex",
            Self::IoexAgain => "ioex again",
        })
    }
}

/// The running relays.
pub struct Lineup {
    kinds: Vec<Kind>,
    relays: BTreeMap<Kind, Relay>,
    missing: Vec<String>,
}

impl Lineup {
    /// Starts everyone whom `args` names and who is there.
    pub fn start(args: &RelayArgs, setting: &Setting, engine: Option<&Path>) -> anyhow::Result<Self> {
        let mut lineup = Self { kinds: Vec::new(), relays: BTreeMap::new(), missing: Vec::new() };
        for &kind in &args.subjects {
            if kind == Kind::Coturn && coturn::version().is_none() {
                let missing = "coturn is not installed (Debian package `coturn`), so it was not measured.";
                lineup.missing.push(missing.to_owned());
                continue;
            }
            lineup.kinds.push(kind);
            let process = kind.process();
            if let Entry::Vacant(place) = lineup.relays.entry(process) {
                place.insert(start(args, setting, engine, process)?);
            }
        }
        Ok(lineup)
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

    /// The relay of a subject, if it takes part.
    pub fn get(&self, kind: Kind) -> Option<&Relay> {
        self.relays.get(&kind.process())
    }

    /// Whether a subject takes part.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Version of a subject.
    pub fn version(&self, kind: Kind) -> &str {
        self.get(kind).map_or("", |s| &s.version)
    }
}

/// Relayed addresses have an IP address for each relay, so that nobody finds its ports taken by another.
const OWN_RELAYED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const COTURN_RELAYED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Starts one relay.
pub fn start(
    args: &RelayArgs,
    setting: &Setting,
    engine: Option<&Path>,
    kind: Kind,
) -> anyhow::Result<Relay> {
    let credential = credential();
    match kind {
        Kind::Forwarder => relay::forwarder(setting),
        Kind::Coturn => coturn::start(setting, &credential, COTURN_RELAYED),
        Kind::TurnProto => relay::turn_proto(setting, &credential),
        Kind::Ioex | Kind::IoexAgain => {
            let engine = engine.context("ioex-engine is built")?;
            ioex_relay::start(setting, engine, &args.driver, &credential, &[OWN_RELAYED])
        }
    }
    .with_context(|| format!("starting {kind}"))
}

/// The static user of every server.
pub fn credential() -> Credential {
    Credential { user: "perf".to_owned(), password: "a password for measuring".to_owned() }
}
