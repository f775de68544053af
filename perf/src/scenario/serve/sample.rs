//! One timed transfer.

use std::collections::BTreeMap;

use crate::client::{Load, Request};
use crate::measure::{GB, Snapshot, process_cpu_time};
use crate::subject::Server;

/// What one transfer cost.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Body bytes that arrived.
    pub bytes: u64,
    /// CPU seconds of the server's process.
    pub cpu_s: f64,
    /// Seconds in which the server's core was busy.
    pub core_busy_s: f64,
    /// Seconds from the first request to the last byte.
    pub wall_s: f64,
    /// CPU seconds of the client.
    pub client_cpu_s: f64,
    /// Context switches of the server's threads.
    pub switches: u64,
    /// Datagrams that the client received.
    pub datagrams_received: u64,
    /// Datagrams that the client sent.
    pub datagrams_sent: u64,
    /// CPU seconds by name of the server's threads.
    pub threads: BTreeMap<String, f64>,
}

impl Sample {
    /// Runs `requests` on established connections and reads the clocks before and after.
    pub fn take(
        server: &Server,
        core: usize,
        load: &mut Load,
        requests: Vec<Vec<Request>>,
    ) -> anyhow::Result<Self> {
        let own_pid = std::process::id();
        let client_before = process_cpu_time(own_pid)?;
        let before = Snapshot::take(server.process.pid(), core)?;
        let outcome = load.run(requests)?;
        let usage = Snapshot::take(server.process.pid(), core)?.since(&before);
        let client_cpu = process_cpu_time(own_pid)?.saturating_sub(client_before);
        Ok(Self {
            bytes: outcome.bytes,
            cpu_s: usage.cpu_s,
            core_busy_s: usage.core_busy_s,
            wall_s: outcome.wall.as_secs_f64(),
            client_cpu_s: client_cpu.as_secs_f64(),
            switches: usage.switches,
            datagrams_received: outcome.datagrams_received,
            datagrams_sent: outcome.datagrams_sent,
            threads: usage.threads,
        })
    }

    /// 10^9 bytes that arrived.
    pub fn gb(&self) -> f64 {
        self.bytes as f64 / GB
    }

    /// CPU seconds of the server a GB.
    pub fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_s / self.gb()
    }
}
