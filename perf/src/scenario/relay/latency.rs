//! What a relay adds to a datagram's delay, at shares of what it can relay.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{Kind, Lineup};
use super::loads::{AllFlows, REFERENCE_ROUNDS, SINGLES_BURST, capacity};
use crate::document::{Better, Promise, Subject};
use crate::statistics::Spread;
use crate::turn::flows::{Flows, Path};
use crate::turn::open_loop::{self, Pace};

/// Allocations that share the load.
pub const ALLOCATIONS: usize = 100;

/// Shares of the capacity, in percent. The promise is about the middle one, which has all rounds.
const PERCENTS: [u32; 3] = [10, 50, 90];

/// Who is measured.
const KINDS: [Kind; 3] = [Kind::Coturn, Kind::Ioex, Kind::IoexAgain];

/// Slices of a round. The subjects take turns after each. A virtual machine's cores are taken away for milliseconds now and
/// then, and a pause that is a hundredth of a run is its p99, whoever is measured: of the slices of a round the median
/// counts, so that a pause in one of them does not decide it, while what a relay itself does time and again is in all
/// of them. The worst slice is reported beside it.
const SLICES: u32 = 8;

/// The shortest slice: a few thousand datagrams, so that p99 is one of many.
const SLICE_MIN: Duration = Duration::from_millis(20);

/// Quantiles of one slice's delays, and those of the direct path at the same rate right after it.
#[derive(Clone, Copy)]
struct Slice {
    p50_us: f64,
    p99_us: f64,
    direct_p50_us: f64,
    direct_p99_us: f64,
    sent: u64,
    lost: u64,
}

/// A round: medians over its slices, and the worst of them.
#[derive(Clone, Copy)]
struct Run {
    p50_us: f64,
    p99_us: f64,
    worst_p99_us: f64,
    direct_p50_us: f64,
    direct_p99_us: f64,
    lost_percent: f64,
}

impl Run {
    fn of(slices: &[Slice]) -> Option<Self> {
        let spread = |value: fn(&Slice) -> f64| Spread::of(&slices.iter().map(value).collect::<Vec<f64>>());
        let p99_us = spread(|s| s.p99_us)?;
        let (sent, lost) = slices.iter().fold((0, 0), |(sent, lost), s| (sent + s.sent, lost + s.lost));
        Some(Self {
            p50_us: spread(|s| s.p50_us)?.median,
            p99_us: p99_us.median,
            worst_p99_us: p99_us.max,
            direct_p50_us: spread(|s| s.direct_p50_us)?.median,
            direct_p99_us: spread(|s| s.direct_p99_us)?.median,
            lost_percent: 100.0 * lost as f64 / sent.max(1) as f64,
        })
    }
}

/// Delays of every subject at every share, a round each.
#[derive(Default)]
pub struct Latency {
    capacities: BTreeMap<Kind, f64>,
    runs: BTreeMap<(u32, Kind), Vec<Run>>,
}

impl Latency {
    /// Measures over the flows that are open.
    pub fn run(
        args: &RelayArgs,
        lineup: &Lineup,
        all_flows: &mut AllFlows,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut latency = Self::default();
        let mut direct = Flows::open(Path::Direct, ALLOCATIONS)?;
        for kind in KINDS {
            let Some(flows) = all_flows.get_mut(&kind.process()) else { continue };
            progress.set_message(format!("capacity of {kind}"));
            flows.keep()?;
            let capacity = capacity(flows, args.sample).with_context(|| format!("capacity of {kind}"))?;
            latency.capacities.insert(kind, capacity);
        }
        for percent in PERCENTS {
            let rounds = if percent == 50 { args.pairs } else { args.pairs.min(REFERENCE_ROUNDS) };
            for round in 0..rounds {
                progress.set_message(format!(
                    "delay at {percent} % of capacity: round {} of {rounds}",
                    round + 1
                ));
                let mut slices: BTreeMap<Kind, Vec<Slice>> = BTreeMap::new();
                let orders = (0..SLICES as usize).flat_map(|slice| lineup.order(round + slice));
                for kind in orders {
                    let Some(capacity) = latency.capacities.get(&kind) else { continue };
                    let pace = Pace {
                        datagrams_per_s: capacity * f64::from(percent) / 100.0,
                        burst: SINGLES_BURST / 2,
                        duration: (args.sample / 4).max(SLICE_MIN),
                    };
                    let flows = all_flows.get_mut(&kind.process()).context("its flows are open")?;
                    flows.keep()?;
                    let slice =
                        slice(flows, &mut direct, &pace).with_context(|| format!("delay of {kind}"))?;
                    slices.entry(kind).or_default().push(slice);
                }
                for (kind, slices) in slices {
                    latency.runs.entry((percent, kind)).or_default().extend(Run::of(&slices));
                }
            }
        }
        Ok(latency)
    }

    /// Added p50, p99 and p99 of the worst slice of every round, in microseconds: a quantile less the median, over the rounds,
    /// of the direct path's quantile. The direct path is a yardstick that does not change from round to round; the pauses that
    /// this program's own core makes do, and a difference of two single rounds would hold two of them.
    fn added(&self, percent: u32, kind: Kind) -> Vec<[f64; 3]> {
        let runs = self.runs.get(&(percent, kind)).map_or(&[][..], Vec::as_slice);
        let median = |value: fn(&Run) -> f64| {
            Spread::of(&runs.iter().map(value).collect::<Vec<f64>>()).map_or(0.0, |s| s.median)
        };
        let (direct_p50_us, direct_p99_us) = (median(|r| r.direct_p50_us), median(|r| r.direct_p99_us));
        let added =
            |r: &Run| [r.p50_us - direct_p50_us, r.p99_us - direct_p99_us, r.worst_p99_us - direct_p99_us];
        runs.iter().map(added).collect()
    }

    /// What is promised.
    pub fn promise(&self) -> Promise {
        let pairs = self.added(50, Kind::Ioex).into_iter().zip(self.added(50, Kind::Coturn));
        let ratios: Vec<f64> =
            pairs.map(|([_, ioex_p99, _], [_, coturn_p99, _])| ioex_p99 / coturn_p99).collect();
        Promise::judge(
            "ioex / coturn, added delay p99, each at half of its capacity",
            1.0,
            Better::Lower,
            &ratios,
        )
    }

    /// The measurements.
    pub fn describe(&self, lineup: &Lineup) -> Vec<Subject> {
        let one = |(&(percent, kind), runs): (&(u32, Kind), &Vec<Run>)| {
            let added = self.added(percent, kind);
            let capacity = self.capacities.get(&kind).copied().unwrap_or(0.0);
            let parameters: [(&str, Value); 4] = [
                ("load", format!("{percent} % of capacity").into()),
                ("allocations", ALLOCATIONS.into()),
                ("datagrams_per_s", (capacity * f64::from(percent) / 100.0).round().into()),
                ("burst_datagrams", (SINGLES_BURST / 2).into()),
            ];
            let metric =
                |name: &str, values: Vec<f64>| Spread::of(&values).map(|spread| (name.to_owned(), spread));
            let metrics = [
                metric("added_p50_us", added.iter().map(|a| a[0]).collect()),
                metric("added_p99_us", added.iter().map(|a| a[1]).collect()),
                metric("added_p99_worst_us", added.iter().map(|a| a[2]).collect()),
                metric("direct_p99_us", runs.iter().map(|r| r.direct_p99_us).collect()),
                metric("lost_percent", runs.iter().map(|r| r.lost_percent).collect()),
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

/// One slice through the relay and one, half as long, straight to the peer.
fn slice(flows: &mut Flows, direct: &mut Flows, pace: &Pace) -> anyhow::Result<Slice> {
    let through = open_loop::run(flows, pace)?;
    let straight = open_loop::run(direct, &Pace { duration: pace.duration / 2, ..*pace })?;
    let quantile = |quantile| through.quantile_us(quantile).context("nothing arrived through the relay");
    let direct_quantile =
        |quantile| straight.quantile_us(quantile).context("nothing arrived on the direct path");
    Ok(Slice {
        p50_us: quantile(0.50)?,
        p99_us: quantile(0.99)?,
        direct_p50_us: direct_quantile(0.50)?,
        direct_p99_us: direct_quantile(0.99)?,
        sent: through.sent,
        lost: through.sent.saturating_sub(through.received()),
    })
}
