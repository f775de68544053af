//! The load at a fixed rate, with the time of sending in every datagram: how long they take.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::flows::{Direction, Flows, payload};

/// How long to wait for stragglers.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(50);

/// Bursts that the sender may be behind its schedule before it skips some: it does not make up for its own pauses by a flood.
const BURSTS_BEHIND_MAX: u64 = 4;

/// How to load, towards the peer, without GSO.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Datagrams a second.
    pub datagrams_per_s: f64,
    /// Datagrams that leave together for one destination; the bursts are evenly spaced and go round the flows.
    pub burst: usize,
    /// How long to send.
    pub duration: Duration,
}

/// Delays that were seen.
pub struct Delays {
    /// Datagrams sent.
    pub sent: u64,
    /// From just before the send call to just after the receive call, in nanoseconds, ascending.
    sorted_ns: Vec<u64>,
}

impl Delays {
    /// Datagrams that arrived.
    pub fn received(&self) -> u64 {
        self.sorted_ns.len() as u64
    }

    /// The delay in microseconds that a share `quantile` (0 to 1) of the datagrams did not exceed.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let last = self.sorted_ns.len().checked_sub(1)?;
        let rank = (quantile * last as f64).round() as usize;
        Some(self.sorted_ns[rank] as f64 / 1e3)
    }
}

/// Sends at the pace and gives the delays.
pub fn run(flows: &mut Flows, pace: &Pace) -> anyhow::Result<Delays> {
    let bursts_per_s = pace.datagrams_per_s / pace.burst as f64;
    let expected = (pace.datagrams_per_s * pace.duration.as_secs_f64()) as usize;
    let mut delays_ns = Vec::with_capacity(expected + pace.burst);
    let mut bursts_sent = 0_u64;
    let mut skipped = 0_u64;
    let mut flow = 0;
    let started = Instant::now();
    let mut last_arrival = Duration::ZERO;
    loop {
        let elapsed = started.elapsed();
        let sent = bursts_sent * pace.burst as u64;
        if elapsed < pace.duration {
            let due = (elapsed.as_secs_f64() * bursts_per_s) as u64;
            let behind = due.saturating_sub(bursts_sent + skipped);
            if behind > BURSTS_BEHIND_MAX {
                skipped += behind - BURSTS_BEHIND_MAX;
            }
            if behind > 0 {
                flows.stamp(u64::try_from(started.elapsed().as_nanos())?, pace.burst);
                flows.send(flow, Direction::ToPeer, pace.burst, false)?;
                flow = (flow + 1) % flows.len();
                bursts_sent += 1;
            }
        } else if delays_ns.len() as u64 >= sent || elapsed > last_arrival.max(pace.duration) + ARRIVAL_LIMIT
        {
            break;
        }
        while let Some((bytes, datagram_len)) = flows.receive(0, Direction::ToPeer)? {
            last_arrival = started.elapsed();
            let now_ns = u64::try_from(last_arrival.as_nanos())?;
            for datagram in bytes.chunks(datagram_len) {
                let stamp = payload(datagram)?.first_chunk().context("a payload holds a stamp")?;
                delays_ns.push(now_ns.saturating_sub(u64::from_be_bytes(*stamp)));
            }
            // What is due is sent in time, whatever there is to receive.
            if (last_arrival.as_secs_f64() * bursts_per_s) as u64 > bursts_sent + skipped {
                break;
            }
        }
    }
    delays_ns.sort_unstable();
    Ok(Delays { sent: bursts_sent * pace.burst as u64, sorted_ns: delays_ns })
}
