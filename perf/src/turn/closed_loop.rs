//! The load that keeps a relay at work: a bounded number of datagrams in flight, the next leave when some have arrived.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::flows::{Direction, Flows};

/// When nothing has arrived for this long, what is in flight is lost. Shorter, and a relay that merely waits for its core on a
/// busy machine would pass for one that drops.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// Receive calls in a row before the sender looks at its window again.
const RECV_CALLS_A_TURN: usize = 16;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Which way.
    pub direction: Direction,
    /// Datagrams that leave together for one destination.
    pub burst: usize,
    /// Whether they leave as one GSO send.
    pub gso: bool,
    /// Bursts in flight at most, over all flows; they go round the flows in turn.
    pub window: usize,
    /// Bursts in flight down to which nothing more is sent: 0 sends the whole window together and waits for all of it.
    pub low_mark: usize,
    /// A child process that is stopped while datagrams are sent, so that it finds them all when it runs again.
    pub held: Option<Pid>,
    /// How long to send.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// From the first send to the last arrival.
    pub wall: Duration,
}

impl Outcome {
    /// Share of the datagrams sent that did not arrive, in percent.
    pub fn lost_percent(&self) -> f64 {
        100.0 * self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64
    }
}

/// Sends for the load's duration and waits for what is in flight then.
pub fn run(flows: &mut Flows, load: &Load) -> anyhow::Result<Outcome> {
    let window = load.window * load.burst;
    let low_mark = load.low_mark.min(load.window - 1) * load.burst;
    let mut loop_ = ClosedLoop { outstanding: VecDeque::new(), in_flight: 0, sent: 0, received: 0 };
    let started = Instant::now();
    let mut last_arrival = started;
    let mut next_flow = 0;
    loop {
        let now = Instant::now();
        let sending = now - started < load.duration;
        if !sending && loop_.in_flight == 0 {
            break;
        }
        if sending && loop_.in_flight <= low_mark && loop_.in_flight + load.burst <= window {
            let hold = load.held.map(Hold::new).transpose()?;
            while loop_.in_flight + load.burst <= window {
                flows.send(next_flow, load.direction, load.burst, load.gso)?;
                loop_.left(next_flow, load);
                next_flow = (next_flow + 1) % flows.len();
            }
            drop(hold);
        }
        if loop_.receive(flows, load.direction)? > 0 {
            last_arrival = Instant::now();
        } else if now.saturating_duration_since(last_arrival) > LOST_AFTER {
            loop_.give_up();
            last_arrival = now;
        }
    }
    Ok(Outcome { sent: loop_.sent, received: loop_.received, wall: last_arrival - started })
}

/// A child process that does not run until this is dropped.
struct Hold(Pid);

impl Hold {
    fn new(child: Pid) -> anyhow::Result<Self> {
        kill_process(child, Signal::STOP)?;
        let hold = Self(child);
        // Its threads may be running on another core for a little while yet.
        waitpid(Some(child), WaitOptions::UNTRACED)?;
        Ok(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // It fails only if the child is gone, which the next attempt to hold it tells.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

struct ClosedLoop {
    /// Clients that something is on its way to, with how many datagrams. Unused towards the peer, which has one socket.
    outstanding: VecDeque<(usize, usize)>,
    in_flight: usize,
    sent: u64,
    received: u64,
}

impl ClosedLoop {
    fn left(&mut self, flow: usize, load: &Load) {
        self.in_flight += load.burst;
        self.sent += load.burst as u64;
        if load.direction == Direction::ToPeer {
            return;
        }
        match self.outstanding.iter_mut().find(|(f, _)| *f == flow) {
            Some((_, datagrams)) => *datagrams += load.burst,
            None => self.outstanding.push_back((flow, load.burst)),
        }
    }

    /// Receives what is there; gives the number of datagrams.
    fn receive(&mut self, flows: &mut Flows, direction: Direction) -> anyhow::Result<usize> {
        let mut arrived = 0;
        if direction == Direction::ToPeer {
            for _ in 0..RECV_CALLS_A_TURN {
                let Some((bytes, datagram_len)) = flows.receive(0, direction)? else { break };
                arrived += bytes.len().div_ceil(datagram_len);
            }
        } else {
            for _ in 0..self.outstanding.len().min(RECV_CALLS_A_TURN) {
                let Some((flow, datagrams)) = self.outstanding.pop_front() else { break };
                let count = match flows.receive(flow, direction)? {
                    Some((bytes, datagram_len)) => bytes.len().div_ceil(datagram_len),
                    None => 0,
                };
                arrived += count;
                if datagrams > count {
                    self.outstanding.push_back((flow, datagrams - count));
                }
            }
        }
        self.in_flight = self.in_flight.saturating_sub(arrived);
        self.received += arrived as u64;
        Ok(arrived)
    }

    /// What is in flight will not come.
    fn give_up(&mut self) {
        self.in_flight = 0;
        self.outstanding.clear();
    }
}
