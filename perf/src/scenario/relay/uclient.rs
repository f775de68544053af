//! coturn's own client on both relays, as it is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{Kind, Lineup};
use crate::document::{Better, Promise, Subject};
use crate::measure::Snapshot;
use crate::statistics::Spread;
use crate::subject::Setting;
use crate::subject::caddy::free_port;
use crate::turn::uclient::{self, CLIENTS, Mode, Report};

/// Rounds of the modes in which all messages go once more through the same code.
const OTHER_ROUNDS: usize = 8;

/// Rounds of ChannelData for each round of the loads. A run's work is little, half a second of CPU, and how many messages wait
/// at a relay's wake-up is chance: single rounds differ by a tenth of the ratio.
const CHANNEL_DATA_ROUNDS: usize = 2;

/// Who is measured.
const KINDS: [Kind; 2] = [Kind::Coturn, Kind::Ioex];

#[derive(Clone, Copy)]
struct Run {
    report: Report,
    cpu_s: f64,
    core_busy_s: f64,
}

impl Run {
    /// Messages that went through the relay a CPU-second: what was sent and arrived, there and back.
    fn messages_per_cpu_s(&self) -> f64 {
        (self.report.sent + self.report.received) as f64 / self.cpu_s
    }
}

/// Runs of both relays in every mode, a round each.
#[derive(Default)]
pub struct UclientRuns {
    runs: BTreeMap<(Mode, Kind), Vec<Run>>,
    messages: usize,
}

impl UclientRuns {
    /// Runs every mode.
    pub fn run(
        args: &RelayArgs,
        setting: &Setting,
        lineup: &Lineup,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut all = Self { messages: args.uclient_messages, ..Self::default() };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let log = setting.content.folder().join("turnutils_peer.log");
        let _peer = uclient::start_peer(peer, args.client_core, &log)?;
        for mode in Mode::ALL {
            let rounds = match mode {
                _ if args.common.quick => usize::from(mode == Mode::ChannelData),
                Mode::ChannelData => CHANNEL_DATA_ROUNDS * args.pairs,
                Mode::SendIndications | Mode::RelayToRelay => args.pairs.min(OTHER_ROUNDS),
            };
            for round in 0..rounds {
                for kind in lineup.order(round).into_iter().filter(|k| KINDS.contains(k)) {
                    progress.set_message(format!(
                        "turnutils_uclient, {}, round {} of {rounds}: {kind}",
                        mode.name(),
                        round + 1
                    ));
                    let relay = lineup.get(kind).context("it takes part")?;
                    let credential = relay.credential.as_ref().context("it has a user")?;
                    let before = Snapshot::take(relay.process.pid(), args.server_core)?;
                    let report = uclient::run(mode, relay.address, credential, peer, args.uclient_messages)
                        .with_context(|| format!("{} on {kind}", mode.name()))?;
                    let usage = Snapshot::take(relay.process.pid(), args.server_core)?.since(&before);
                    ensure!(report.received > 0, "nothing came back through {kind}");
                    all.runs.entry((mode, kind)).or_default().push(Run {
                        report,
                        cpu_s: usage.cpu_s,
                        core_busy_s: usage.core_busy_s,
                    });
                }
            }
        }
        Ok(all)
    }

    fn of(&self, mode: Mode, kind: Kind) -> &[Run] {
        self.runs.get(&(mode, kind)).map_or(&[], Vec::as_slice)
    }

    /// What is promised.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for mode in Mode::ALL {
            let pairs = || self.of(mode, Kind::Ioex).iter().zip(self.of(mode, Kind::Coturn));
            let ratios: Vec<f64> = pairs()
                .map(|(ioex, coturn)| ioex.messages_per_cpu_s() / coturn.messages_per_cpu_s())
                .collect();
            let lost: Vec<f64> =
                pairs().map(|(ioex, coturn)| ioex.report.lost_percent - coturn.report.lost_percent).collect();
            let named = |what: &str| format!("{what}, turnutils_uclient as it is, {}", mode.name());
            promises.push(Promise::judge(
                named("ioex / coturn, datagrams a CPU-second"),
                1.3,
                Better::Higher,
                &ratios,
            ));
            promises.push(Promise::judge(named("ioex - coturn, percent lost"), 0.0, Better::Lower, &lost));
        }
        promises
    }

    /// The measurements.
    pub fn describe(&self, lineup: &Lineup) -> Vec<Subject> {
        let one = |(&(mode, kind), runs): (&(Mode, Kind), &Vec<Run>)| {
            let parameters: [(&str, Value); 3] = [
                ("load", format!("uclient, {}", mode.name()).into()),
                ("allocations", CLIENTS.into()),
                ("messages_per_client", self.messages.into()),
            ];
            let metric = |name: &str, value: fn(&Run) -> f64| {
                let values: Vec<f64> = runs.iter().map(value).collect();
                Spread::of(&values).map(|spread| (name.to_owned(), spread))
            };
            let metrics = [
                metric("datagrams_per_cpu_s", Run::messages_per_cpu_s),
                metric("lost_percent", |r| r.report.lost_percent),
                metric("messages_sent", |r| r.report.sent as f64),
                metric("messages_received", |r| r.report.received as f64),
                metric("core_busy_s", |r| r.core_busy_s),
            ];
            Subject {
                name: kind.to_string(),
                version: lineup.version(kind).to_owned(),
                parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
                metrics: metrics.into_iter().flatten().collect(),
            }
        };
        self.runs.iter().map(one).collect()
    }
}
