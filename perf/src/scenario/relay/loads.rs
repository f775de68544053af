//! Relays kept at work: GSO batches and single datagrams, both ways, with few allocations and with many.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use rustix::process::Pid;
use serde_json::Value;

use super::RelayArgs;
use super::lineup::{Kind, Lineup};
use super::sample::Sample;
use crate::document::{Better, Promise, Subject};
use crate::statistics::Spread;
use crate::turn::BATCH_DATAGRAMS;
use crate::turn::closed_loop::{self, Load};
use crate::turn::flows::{Direction, Flows};

/// The most allocations that turn-server-proto is measured with: it looks for each datagram's among all of them.
pub const TURN_PROTO_ALLOCATIONS_MAX: usize = 100;

/// Rounds of a subject that no promise names.
pub const REFERENCE_ROUNDS: usize = 5;

/// Single datagrams that leave together for one destination.
pub const SINGLES_BURST: usize = 32;

/// The most allocations with which single datagrams are measured.
pub const SINGLES_ALLOCATIONS_MAX: usize = 100;

/// Bursts in flight that a relay is offered at first. It gets half as many until it loses nothing.
const WINDOW_MAX: usize = 16;

/// How long one attempt at a window takes.
const WINDOW_TRIAL: Duration = Duration::from_millis(60);

/// Loss with which a window passes, in percent.
const WINDOW_LOST_PERCENT: f64 = 0.05;

/// How datagrams leave the clients or the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Full GSO batches.
    Gso,
    /// Each with a send of its own, a burst for one destination at a time.
    Singles,
}

impl Shape {
    /// As documents name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gso => "GSO",
            Self::Singles => "singles",
        }
    }

    /// GSO batches follow each other as they arrive. Single datagrams come in waves, the next when the last has arrived.
    fn low_mark(self) -> usize {
        match self {
            Self::Gso => WINDOW_MAX,
            Self::Singles => 0,
        }
    }

    /// Whether the relay is stopped while a wave is sent. A sender on another core of the same machine is no faster than a good relay
    /// relays: left to run, the relay would look for the next datagram time and again while that is being sent, no two
    /// would ever wait together, and its CPU time would tell how fast the sender is. Stopped, it finds the wave as it
    /// finds what a network card has received by the time of its interrupt.
    fn is_held(self) -> bool {
        self == Self::Singles
    }

    fn burst(self) -> usize {
        match self {
            Self::Gso => BATCH_DATAGRAMS,
            Self::Singles => SINGLES_BURST,
        }
    }
}

/// One load on one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// How datagrams leave.
    pub shape: Shape,
    /// Which way.
    pub direction: Direction,
    /// Over how many allocations.
    pub allocations: usize,
}

/// Samples of every subject under every load, a round each, and the window that it had.
#[derive(Default)]
pub struct Loads {
    samples: BTreeMap<(Key, Kind), Vec<Sample>>,
    windows: BTreeMap<(Key, Kind), usize>,
}

/// Open flows through the relays.
pub type AllFlows = BTreeMap<Kind, Flows>;

impl Loads {
    /// Opens `allocations` flows through every relay, checks what they deliver, and measures all loads over them.
    pub fn run(
        &mut self,
        args: &RelayArgs,
        lineup: &Lineup,
        allocations: usize,
        progress: &ProgressBar,
    ) -> anyhow::Result<AllFlows> {
        let mut all_flows = AllFlows::new();
        for kind in lineup.order(0) {
            let skip = kind == Kind::TurnProto && allocations > TURN_PROTO_ALLOCATIONS_MAX;
            if skip || all_flows.contains_key(&kind.process()) {
                continue;
            }
            progress.set_message(format!("{allocations} allocations: opening and checking those of {kind}"));
            let relay = lineup.get(kind).with_context(|| format!("{kind} takes part"))?;
            let mut flows = Flows::open(relay.path(), allocations)
                .with_context(|| format!("{allocations} allocations of {kind}"))?;
            flows.verify().with_context(|| format!("checking what {kind} delivers"))?;
            all_flows.insert(kind.process(), flows);
        }
        for shape in [Shape::Gso, Shape::Singles] {
            if shape == Shape::Singles && allocations > SINGLES_ALLOCATIONS_MAX {
                continue;
            }
            for direction in Direction::BOTH {
                let key = Key { shape, direction, allocations };
                self.load(args, lineup, key, &mut all_flows, progress)?;
            }
        }
        Ok(all_flows)
    }

    fn load(
        &mut self,
        args: &RelayArgs,
        lineup: &Lineup,
        key: Key,
        all_flows: &mut AllFlows,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        let Key { shape, direction, allocations } = key;
        let mut load = Load {
            direction,
            burst: shape.burst(),
            gso: shape == Shape::Gso,
            window: WINDOW_MAX,
            low_mark: shape.low_mark(),
            held: None,
            duration: WINDOW_TRIAL,
        };
        for (&kind, flows) in all_flows.iter_mut() {
            load.held = held(lineup, kind, shape)?;
            let window = find_window(flows, load).with_context(|| format!("{key:?} on {kind}"))?;
            self.windows.insert((key, kind), window);
        }
        load.duration = args.sample;
        for round in 0..args.pairs {
            progress.set_message(format!(
                "{allocations} allocations, {} {}: round {} of {}",
                shape.name(),
                direction.name(),
                round + 1,
                args.pairs
            ));
            for kind in lineup.order(round) {
                if kind == Kind::TurnProto && round >= REFERENCE_ROUNDS {
                    continue;
                }
                let Some(flows) = all_flows.get_mut(&kind.process()) else { continue };
                let relay = lineup.get(kind).with_context(|| format!("{kind} takes part"))?;
                flows.keep()?;
                load.window = self.windows[&(key, kind.process())];
                load.held = held(lineup, kind, shape)?;
                let sample = Sample::take(relay, args.server_core, flows, &load)
                    .with_context(|| format!("{key:?} on {kind}"))?;
                self.samples.entry((key, kind)).or_default().push(sample);
            }
        }
        Ok(())
    }

    fn of(&self, key: Key, kind: Kind) -> &[Sample] {
        self.samples.get(&(key, kind)).map_or(&[], Vec::as_slice)
    }

    /// Ratios of CPU a byte, a round each.
    fn ratios(&self, key: Key, above: Kind, below: Kind) -> Vec<f64> {
        let pairs = self.of(key, above).iter().zip(self.of(key, below));
        pairs.map(|(a, b)| a.cpu_s_per_gb() / b.cpu_s_per_gb()).collect()
    }

    /// What is promised of these loads.
    pub fn promises(&self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for allocations in [1, 100, 5_000] {
            for direction in Direction::BOTH {
                let key = Key { shape: Shape::Gso, direction, allocations };
                let named =
                    |what: &str| format!("{what}, GSO {}, {allocations} allocations", direction.name());
                let own: Vec<f64> = self.of(key, Kind::Ioex).iter().map(Sample::cpu_s_per_gb).collect();
                promises.push(Promise::judge(named("ioex, CPU-s/GB"), 0.40, Better::Lower, &own));
                promises.push(Promise::judge(
                    named("ioex / bare forwarder, CPU a byte"),
                    1.4,
                    Better::Lower,
                    &self.ratios(key, Kind::Ioex, Kind::Forwarder),
                ));
                promises.push(Promise::judge(
                    named("coturn / ioex, CPU a byte"),
                    12.0,
                    Better::Higher,
                    &self.ratios(key, Kind::Coturn, Kind::Ioex),
                ));
            }
        }
        for allocations in [1, 100] {
            for direction in Direction::BOTH {
                let key = Key { shape: Shape::Singles, direction, allocations };
                let named = |what: &str| {
                    format!(
                        "{what}, singles in bursts of {SINGLES_BURST} {}, {allocations} allocations",
                        direction.name()
                    )
                };
                promises.push(Promise::judge(
                    named("ioex / coturn, datagrams a CPU-second"),
                    2.5,
                    Better::Higher,
                    &self.ratios(key, Kind::Coturn, Kind::Ioex),
                ));
                let lost = |kind| -> Vec<f64> {
                    self.of(key, kind).iter().map(|s| s.outcome.lost_percent()).collect()
                };
                let more =
                    lost(Kind::Ioex).iter().zip(lost(Kind::Coturn)).map(|(a, b)| a - b).collect::<Vec<_>>();
                promises.push(Promise::judge(
                    named("ioex - coturn, percent lost"),
                    0.0,
                    Better::Lower,
                    &more,
                ));
            }
        }
        promises
    }

    /// The measurements, one subject for each load on each relay.
    pub fn describe(&self, lineup: &Lineup) -> Vec<Subject> {
        let one = |(&(key, kind), samples): (&(Key, Kind), &Vec<Sample>)| {
            let window = self.windows.get(&(key, kind.process())).copied().unwrap_or(0);
            let parameters: [(&str, Value); 5] = [
                ("load", key.shape.name().into()),
                ("direction", key.direction.name().into()),
                ("allocations", key.allocations.into()),
                ("burst_datagrams", key.shape.burst().into()),
                ("window_bursts", window.into()),
            ];
            let metric = |name: &str, value: fn(&Sample) -> f64| {
                let values: Vec<f64> = samples.iter().map(value).collect();
                Spread::of(&values).map(|spread| (name.to_owned(), spread))
            };
            let metrics = [
                metric("cpu_s_per_gb", Sample::cpu_s_per_gb),
                metric("datagrams_per_cpu_s", Sample::datagrams_per_cpu_s),
                metric("lost_percent", |s| s.outcome.lost_percent()),
                metric("core_busy_s_per_gb", |s| s.core_busy_s / s.gb()),
                metric("gb_per_s", |s| s.gb() / s.outcome.wall.as_secs_f64()),
                metric("client_cpu_s_per_gb", |s| s.client_cpu_s / s.gb()),
                metric("context_switches_per_gb", |s| s.switches as f64 / s.gb()),
            ];
            let mut metrics: BTreeMap<String, Spread> = metrics.into_iter().flatten().collect();
            if kind == Kind::IoexAgain {
                let noise = Spread::of(&self.ratios(key, Kind::IoexAgain, Kind::Ioex));
                metrics.extend(noise.map(|spread| ("ratio_to_ioex".to_owned(), spread)));
            }
            Subject {
                name: kind.to_string(),
                version: lineup.version(kind).to_owned(),
                parameters: parameters.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
                metrics,
            }
        };
        self.samples.iter().map(one).collect()
    }
}

/// Single datagrams a second, towards the peer, that a relay takes while it runs freely and the sender sends as it can.
pub fn capacity(flows: &mut Flows, duration: Duration) -> anyhow::Result<f64> {
    let load = Load {
        direction: Direction::ToPeer,
        burst: SINGLES_BURST,
        gso: false,
        window: WINDOW_MAX,
        low_mark: WINDOW_MAX / 4,
        held: None,
        duration: WINDOW_TRIAL,
    };
    let window = find_window(flows, load)?;
    let outcome = closed_loop::run(flows, &Load { window, duration, ..load })?;
    Ok(outcome.received as f64 / outcome.wall.as_secs_f64())
}

/// The relay's process, if it is to be stopped while datagrams are sent to it.
fn held(lineup: &Lineup, kind: Kind, shape: Shape) -> anyhow::Result<Option<Pid>> {
    let relay = lineup.get(kind).with_context(|| format!("{kind} takes part"))?;
    Ok(Pid::from_raw(relay.process.pid().cast_signed()).filter(|_| shape.is_held()))
}

/// The largest window, halved from [`WINDOW_MAX`] bursts, with which nothing is lost; one burst if something always is.
fn find_window(flows: &mut Flows, mut load: Load) -> anyhow::Result<usize> {
    // The first datagrams after a pause meet cold caches and idle threads: not what is asked here.
    closed_loop::run(flows, &Load { window: 1, ..load })?;
    while load.window > 1 {
        if closed_loop::run(flows, &load)?.lost_percent() <= WINDOW_LOST_PERCENT {
            break;
        }
        load.window /= 2;
    }
    Ok(load.window)
}
