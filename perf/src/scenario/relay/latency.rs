//! What a relay adds to a datagram's delay, at shares of what it can relay.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{Kind, Lineup};
use super::loads::{AllFlows, Key, Loads, REFERENCE_ROUNDS, SINGLES_BURST, Shape};
use crate::document::{Better, Promise, Subject};
use crate::statistics::Spread;
use crate::turn::flows::{Direction, Flows, Path};
use crate::turn::open_loop::{self, Pace};

/// Allocations that share the load.
pub const ALLOCATIONS: usize = 100;

/// Shares of the capacity, in percent. The promise is about the middle one, which has all rounds.
const PERCENTS: [u32; 3] = [10, 50, 90];

/// Who is measured.
const KINDS: [Kind; 3] = [Kind::Coturn, Kind::Ioex, Kind::IoexAgain];

/// Delays of one run, less those of the direct path at the same rate.
#[derive(Clone, Copy)]
struct Added {
    p50_us: f64,
    p99_us: f64,
    direct_p99_us: f64,
    lost_percent: f64,
}

/// Added delays of every subject at every share, a round each.
#[derive(Default)]
pub struct Latency {
    capacities: BTreeMap<Kind, f64>,
    added: BTreeMap<(u32, Kind), Vec<Added>>,
}

impl Latency {
    /// Measures over the flows that are open.
    pub fn run(
        args: &RelayArgs,
        lineup: &Lineup,
        loads: &Loads,
        all_flows: &mut AllFlows,
        progress: &ProgressBar,
    ) -> anyhow::Result<Self> {
        let mut latency = Self::default();
        let key = Key { shape: Shape::Singles, direction: Direction::ToPeer, allocations: ALLOCATIONS };
        let mut direct = Flows::open(Path::Direct, ALLOCATIONS)?;
        for kind in KINDS {
            latency.capacities.extend(loads.capacity(key, kind.process()).map(|c| (kind, c)));
        }
        for percent in PERCENTS {
            let rounds = if percent == 50 { args.pairs } else { args.pairs.min(REFERENCE_ROUNDS) };
            for round in 0..rounds {
                progress.set_message(format!(
                    "delay at {percent} % of capacity: round {} of {rounds}",
                    round + 1
                ));
                for kind in lineup.order(round) {
                    let Some(capacity) = latency.capacities.get(&kind) else { continue };
                    let pace = Pace {
                        datagrams_per_s: capacity * f64::from(percent) / 100.0,
                        burst: SINGLES_BURST / 2,
                        duration: args.sample,
                    };
                    let flows = all_flows.get_mut(&kind.process()).context("its flows are open")?;
                    flows.keep()?;
                    let added =
                        added(flows, &mut direct, &pace).with_context(|| format!("delay of {kind}"))?;
                    latency.added.entry((percent, kind)).or_default().push(added);
                }
            }
        }
        Ok(latency)
    }

    fn of(&self, percent: u32, kind: Kind) -> &[Added] {
        self.added.get(&(percent, kind)).map_or(&[], Vec::as_slice)
    }

    /// What is promised.
    pub fn promise(&self) -> Promise {
        let pairs = self.of(50, Kind::Ioex).iter().zip(self.of(50, Kind::Coturn));
        let ratios: Vec<f64> = pairs.map(|(ioex, coturn)| ioex.p99_us / coturn.p99_us).collect();
        Promise::judge(
            "ioex / coturn, added delay p99, each at half of its capacity",
            1.0,
            Better::Lower,
            &ratios,
        )
    }

    /// The measurements.
    pub fn describe(&self, lineup: &Lineup) -> Vec<Subject> {
        let one = |(&(percent, kind), runs): (&(u32, Kind), &Vec<Added>)| {
            let capacity = self.capacities.get(&kind).copied().unwrap_or(0.0);
            let parameters: [(&str, Value); 4] = [
                ("load", format!("{percent} % of capacity").into()),
                ("allocations", ALLOCATIONS.into()),
                ("datagrams_per_s", (capacity * f64::from(percent) / 100.0).round().into()),
                ("burst_datagrams", (SINGLES_BURST / 2).into()),
            ];
            let metric = |name: &str, value: fn(&Added) -> f64| {
                let values: Vec<f64> = runs.iter().map(value).collect();
                Spread::of(&values).map(|spread| (name.to_owned(), spread))
            };
            let metrics = [
                metric("added_p50_us", |a| a.p50_us),
                metric("added_p99_us", |a| a.p99_us),
                metric("direct_p99_us", |a| a.direct_p99_us),
                metric("lost_percent", |a| a.lost_percent),
            ];
            Subject {
                name: kind.to_string(),
                version: lineup.version(kind).to_owned(),
                parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
                metrics: metrics.into_iter().flatten().collect(),
            }
        };
        self.added.iter().map(one).collect()
    }
}

/// One run through the relay and one straight to the peer.
fn added(flows: &mut Flows, direct: &mut Flows, pace: &Pace) -> anyhow::Result<Added> {
    let through = open_loop::run(flows, pace)?;
    let pace = Pace { duration: pace.duration.min(Duration::from_millis(150)), ..*pace };
    let straight = open_loop::run(direct, &pace)?;
    let difference = |quantile: f64| -> anyhow::Result<f64> {
        let through = through.quantile_us(quantile).context("nothing arrived through the relay")?;
        Ok(through - straight.quantile_us(quantile).context("nothing arrived on the direct path")?)
    };
    let lost = through.sent.saturating_sub(through.received());
    Ok(Added {
        p50_us: difference(0.50)?,
        p99_us: difference(0.99)?,
        direct_p99_us: straight.quantile_us(0.99).unwrap_or(0.0),
        lost_percent: 100.0 * lost as f64 / through.sent.max(1) as f64,
    })
}
