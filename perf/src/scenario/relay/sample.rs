//! One timed load.

use crate::measure::{GB, Snapshot, process_cpu_time};
use crate::subject::relay::Relay;
use crate::turn::PAYLOAD_LEN;
use crate::turn::closed_loop::{self, Load, Outcome};
use crate::turn::flows::Flows;

/// What one load cost.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What arrived.
    pub outcome: Outcome,
    /// CPU seconds of the relay's process.
    pub cpu_s: f64,
    /// Seconds in which the relay's core was busy.
    pub core_busy_s: f64,
    /// CPU seconds of clients and peer.
    pub client_cpu_s: f64,
    /// Context switches of the relay's threads.
    pub switches: u64,
}

impl Sample {
    /// Runs `load` over open flows and reads the clocks before and after.
    pub fn take(relay: &Relay, core: usize, flows: &mut Flows, load: &Load) -> anyhow::Result<Self> {
        let own_pid = std::process::id();
        let client_before = process_cpu_time(own_pid)?;
        let before = Snapshot::take(relay.process.pid(), core)?;
        let outcome = closed_loop::run(flows, load)?;
        let usage = Snapshot::take(relay.process.pid(), core)?.since(&before);
        let client_cpu = process_cpu_time(own_pid)?.saturating_sub(client_before);
        Ok(Self {
            outcome,
            cpu_s: usage.cpu_s,
            core_busy_s: usage.core_busy_s,
            client_cpu_s: client_cpu.as_secs_f64(),
            switches: usage.switches,
        })
    }

    /// 10^9 bytes of payload that arrived.
    pub fn gb(&self) -> f64 {
        self.outcome.received as f64 * PAYLOAD_LEN as f64 / GB
    }

    /// CPU seconds of the relay a GB of payload.
    pub fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_s / self.gb()
    }

    /// Datagrams relayed a CPU-second of the relay.
    pub fn datagrams_per_cpu_s(&self) -> f64 {
        self.outcome.received as f64 / self.cpu_s
    }
}
