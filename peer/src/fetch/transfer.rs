//! Moves shards from all nodes at once: asks the schedule who does what, runs the requests, hands verified
//! shards to the sink. What was verified of a shard whose request failed is kept, and the next node is asked for the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use store::outboard::Outboard;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::error::{FetchError, LostGroups, NodeFailure, NodeFailures};
use super::outboards::Outboards;
use super::plan::Plan;
use super::schedule::{Failure, NodeIndex, Schedule, ShardIndex, Turn};
use super::sink::{FromSink, SinkEnd, ToSink};
use crate::backoff::{Backoff, random_u32};
use crate::client::Node;
use crate::exchange::{Arrival, ExchangeError, Length};
use crate::node_url::NodeUrl;
use crate::progress::{Progress, RateMeter};

/// How often progress is published between segments.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// So many shards that were cut off are kept as far as they are verified. More only if many nodes fail at once.
const PREFIXES_MAX: usize = 8;

/// What one node contributed.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeUrl,
    /// Verified bytes that came from it.
    pub bytes: u64,
    /// Verified segments that came from it.
    pub segments: u32,
    /// How often it did not hold what it was asked for. Of a coded file a node has its part, so this is no fault.
    pub missing: u32,
    /// Its last failure, if it has delivered nothing since.
    pub failure: Option<ExchangeError>,
    /// Whether it is not used any more because of that failure.
    pub is_given_up: bool,
    /// Whether it sent bytes that are not what was asked for, or is not who it must be.
    pub is_misconduct: bool,
}

/// Whether verified blocks of shards on their way are kept by the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// No: there is no file.
    NotKept,
    /// Yes, from now on.
    Kept,
    /// Yes, and an earlier fetch may have left some.
    Recalled,
}

/// What is known when a transfer begins.
pub(crate) struct Known {
    /// By node: why it must not be used.
    pub(crate) refused: Vec<Option<ExchangeError>>,
    /// Bytes of the file that the schedule has already.
    pub(crate) bytes_verified: u64,
    pub(crate) leaves: Leaves,
}

type Outcome = (NodeIndex, ShardIndex, Result<Bytes, ExchangeError>);

/// A transfer under way. Dropping it cancels every request.
pub(crate) struct Transfer<'a> {
    plan: Arc<Plan>,
    nodes: &'a [Node],
    outboards: Arc<Outboards>,
    reports: Vec<NodeReport>,
    meters: Vec<RateMeter>,
    schedule: Schedule,
    requests: JoinSet<Outcome>,
    flights: HashMap<(NodeIndex, ShardIndex), Flight>,
    leaves: Leaves,
    /// What is verified of shards that nobody fetches at the moment, the newest last.
    prefixes: Vec<(ShardIndex, BytesMut)>,
    to_sink: mpsc::UnboundedSender<ToSink>,
    from_sink: mpsc::UnboundedReceiver<FromSink>,
    /// Shards that the sink holds.
    unreleased: usize,
    bytes_verified: u64,
    progress: &'a watch::Sender<Progress>,
}

struct Flight {
    request: AbortHandle,
    received: Arc<AtomicU64>,
    arrival: Arc<Arrival>,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        plan: Arc<Plan>,
        nodes: &'a [Node],
        schedule: Schedule,
        backoff: Backoff,
        known: Known,
        progress: &'a watch::Sender<Progress>,
    ) -> (Transfer<'a>, SinkEnd) {
        let Known { refused, bytes_verified, leaves } = known;
        let (to_sink, shards) = mpsc::unbounded_channel();
        let (answers, from_sink) = mpsc::unbounded_channel();
        let report = |node: &Node| NodeReport {
            node: node.url().clone(),
            bytes: 0,
            segments: 0,
            missing: 0,
            failure: None,
            is_given_up: false,
            is_misconduct: false,
        };
        let mut transfer = Transfer {
            outboards: Arc::new(Outboards::new(plan.clone(), nodes, backoff)),
            plan,
            nodes,
            reports: nodes.iter().map(report).collect(),
            meters: nodes.iter().map(|_| RateMeter::new()).collect(),
            schedule,
            requests: JoinSet::new(),
            flights: HashMap::new(),
            leaves,
            prefixes: Vec::new(),
            to_sink,
            from_sink,
            unreleased: 0,
            bytes_verified,
            progress,
        };
        transfer.refuse(refused.into_iter().enumerate().filter_map(|(n, error)| Some((n, error?))));
        (transfer, SinkEnd { shards, answers })
    }

    /// Runs until every group is whole or lost and the sink has let go of them all.
    pub(crate) async fn run(mut self) -> Result<Vec<NodeReport>, FetchError> {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !(self.schedule.is_over() && self.unreleased == 0) {
            self.check_nodes()?;
            self.refuse(self.outboards.take_liars().into_iter());
            let wake = self.hand_out();
            self.settle();
            if self.schedule.is_over() && self.unreleased == 0 {
                break;
            }
            let sleep = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into());
            tokio::select! {
                Some(ended) = self.requests.join_next() => match ended {
                    Ok(outcome) => self.ended(outcome),
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => return Err(FetchError::Interrupted(e.to_string())),
                },
                answer = self.from_sink.recv() => match answer {
                    Some(FromSink::Released(shard)) => {
                        self.schedule.released(shard);
                        self.unreleased -= 1;
                    }
                    Some(FromSink::Restored(shard)) => self.count_verified(self.plan.plain_len(shard)),
                    Some(FromSink::Failed(error)) => return Err(error),
                    None => return Err(FetchError::Interrupted("the writing task has ended".to_owned())),
                },
                _ = ticks.tick() => self.publish_rates(),
                () = sleep, if wake.is_some() => {}
            }
            self.settle();
        }
        self.publish_rates();
        self.check_nodes()?;
        if self.schedule.is_done() { Ok(self.reports) } else { Err(self.lost()) }
    }

    /// Gives every node work; gives the next moment at which there may be more.
    fn hand_out(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for node in 0..self.nodes.len() {
            loop {
                match self.schedule.turn(node, now) {
                    Turn::Fetch(shard) => self.request(node, shard),
                    Turn::WaitUntil(moment) => {
                        wake = Some(wake.map_or(moment, |wake| wake.min(moment)));
                        break;
                    }
                    Turn::Idle => break,
                }
            }
        }
        wake
    }

    fn request(&mut self, index: NodeIndex, shard: ShardIndex) {
        let (hash, len) = self.plan.shard(shard);
        let node = self.nodes[index].clone();
        let received = Arc::new(AtomicU64::new(0));
        let prefix = self.prefixes.iter().position(|(cut_off, _)| *cut_off == shard);
        let prefix = prefix.map(|at| self.prefixes.remove(at).1).unwrap_or_default();
        let arrival = Arc::new(Arrival::from_prefix(prefix));
        let (counter, arriving, outboards) = (received.clone(), arrival.clone(), self.outboards.clone());
        // Weak, so that a request that lingers does not keep the sink waiting for more.
        let (leaves, sink) = (self.leaves, self.to_sink.downgrade());
        let request = self.requests.spawn(async move {
            let outcome = match outboards.of(shard).await {
                Some(outboard) => {
                    if leaves == Leaves::Recalled && arriving.is_empty() {
                        recall(shard, &outboard, &arriving, &sink).await;
                    }
                    let verified = || {
                        let sink = sink.upgrade().filter(|_| leaves != Leaves::NotKept);
                        let arrival = arriving.clone();
                        // A sink that is gone has said why.
                        let _ = sink.map(|sink| sink.send(ToSink::Verified { index: shard, arrival }));
                    };
                    node.get_segment(&outboard, &arriving, &counter, verified).await
                }
                None => node.get(&hash, Length::Exactly(u64::from(len)), &counter).await,
            };
            (index, shard, outcome)
        });
        self.flights.insert((index, shard), Flight { request, received, arrival });
    }

    fn ended(&mut self, (node, shard, outcome): Outcome) {
        // What was cancelled may have ended before it heard of it; nobody waits for it any more.
        let Some(flight) = self.flights.remove(&(node, shard)) else { return };
        match outcome {
            Ok(bytes) => self.verified(node, shard, bytes, flight.arrival.start()),
            Err(error) => {
                self.keep_prefix(node, shard, &flight);
                self.failed(node, shard, error);
            }
        }
    }

    /// The node completed a shard, of which it was asked for what is from `start` on.
    fn verified(&mut self, node: NodeIndex, index: ShardIndex, stored: Bytes, start: usize) {
        self.schedule.succeeded(node, index, Instant::now());
        self.prefixes.retain(|(shard, _)| *shard != index);
        let report = &mut self.reports[node];
        report.bytes += stored.len().saturating_sub(start) as u64;
        // What was kept of an earlier fetch was none of this node's doing.
        report.segments += u32::from(start < stored.len() || stored.is_empty());
        report.failure = None;
        let node_bytes = report.bytes;
        self.unreleased += 1;
        self.progress.send_modify(|progress| {
            if let Some(shown) = progress.nodes.get_mut(node) {
                shown.bytes = node_bytes;
            }
        });
        self.count_verified(self.plan.plain_len(index));
        // A sink that is gone has said why, or its channel's end says that it is gone: the loop reads that
        // next.
        let _ = self.to_sink.send(ToSink::Shard { index, stored });
    }

    fn count_verified(&mut self, plain_bytes: u64) {
        self.bytes_verified += plain_bytes;
        let verified = self.bytes_verified;
        self.progress.send_modify(|progress| progress.bytes_verified = verified);
    }

    fn failed(&mut self, node: NodeIndex, shard: ShardIndex, error: ExchangeError) {
        tracing::debug!(node = %self.nodes[node].url(), shard, %error, "a request failed");
        let failure = match &error {
            ExchangeError::NotFound { .. } => Failure::Missing,
            ExchangeError::Busy { retry_after, .. } => Failure::Busy(*retry_after),
            error if error.is_transient() => Failure::Transient,
            _ => Failure::Final,
        };
        let is_given_up = self.schedule.failed(node, shard, failure, Instant::now(), random_u32());
        self.note(node, error, is_given_up);
        if is_given_up {
            self.abandon(node);
        }
    }

    fn abandon(&mut self, node: NodeIndex) {
        for shard in self.schedule.abandon(node, Instant::now()) {
            if let Some(flight) = self.cancel(node, shard) {
                self.keep_prefix(node, shard, &flight);
            }
        }
    }

    fn refuse(&mut self, liars: impl Iterator<Item = (NodeIndex, ExchangeError)>) {
        for (node, error) in liars {
            if !self.schedule.is_dropped(node) {
                self.schedule.refuse(node);
                self.note(node, error, true);
                self.abandon(node);
            }
        }
    }

    /// Ends requests that became pointless, and tells the sink what to forget.
    fn settle(&mut self) {
        for (node, shard) in self.schedule.take_called_off() {
            self.cancel(node, shard);
        }
        for group in self.schedule.take_newly_lost() {
            // A sink that is gone says so through its other channel.
            let _ = self.to_sink.send(ToSink::Forget(group));
        }
    }

    /// Keeps what a request that failed has verified, for the next node.
    fn keep_prefix(&mut self, node: NodeIndex, shard: ShardIndex, flight: &Flight) {
        let start = flight.arrival.start();
        let prefix = flight.arrival.take_prefix();
        self.reports[node].bytes += prefix.len().saturating_sub(start) as u64;
        let known =
            self.prefixes.iter().find(|(cut_off, _)| *cut_off == shard).map_or(0, |(_, bytes)| bytes.len());
        if prefix.len() <= known {
            return;
        }
        self.prefixes.retain(|(cut_off, _)| *cut_off != shard);
        if self.prefixes.len() >= PREFIXES_MAX {
            self.prefixes.remove(0);
        }
        self.prefixes.push((shard, prefix));
    }

    fn note(&mut self, node: NodeIndex, error: ExchangeError, is_given_up: bool) {
        if is_given_up {
            tracing::warn!(node = %self.nodes[node].url(), %error, "the node is not used any more");
            let reason = error.to_string();
            self.progress.send_modify(|progress| {
                if let Some(shown) = progress.nodes.get_mut(node) {
                    shown.given_up = Some(reason);
                }
            });
        }
        let report = &mut self.reports[node];
        report.is_misconduct |= error.is_misconduct();
        report.is_given_up |= is_given_up;
        match error {
            ExchangeError::NotFound { .. } => report.missing += 1,
            error => report.failure = Some(error),
        }
    }

    fn cancel(&mut self, node: NodeIndex, shard: ShardIndex) -> Option<Flight> {
        let flight = self.flights.remove(&(node, shard))?;
        flight.request.abort();
        Some(flight)
    }

    /// Whether the fetch can still succeed.
    fn check_nodes(&self) -> Result<(), FetchError> {
        let are_all_dropped = (0..self.nodes.len()).all(|node| self.schedule.is_dropped(node));
        if self.schedule.is_done() || !are_all_dropped {
            return Ok(());
        }
        Err(FetchError::AllNodesFailed {
            bytes_verified: self.bytes_verified,
            bytes_total: self.plan.file_len,
            failures: self.failures(),
        })
    }

    /// Why the file cannot be made whole.
    fn lost(&self) -> FetchError {
        let groups = self.schedule.lost();
        let failures = self.failures();
        match groups.first() {
            Some(first) if self.plan.coding.is_none() => {
                FetchError::NoSegment { index: first.group, hash: self.plan.shard(first.group).0, failures }
            }
            _ => {
                let bytes = |lost: &super::LostGroup| (*lost, self.plan.group_bytes(lost.group));
                FetchError::LostGroups { groups: LostGroups(groups.iter().map(bytes).collect()), failures }
            }
        }
    }

    fn failures(&self) -> NodeFailures {
        let failure = |report: &NodeReport| {
            Some(NodeFailure { node: report.node.clone(), error: report.failure.clone()? })
        };
        NodeFailures(self.reports.iter().filter_map(failure).collect())
    }

    fn publish_rates(&mut self) {
        let now = Instant::now();
        let mut under_way = vec![0; self.nodes.len()];
        for ((node, _), flight) in &self.flights {
            under_way[*node] += flight.received.load(Ordering::Relaxed);
        }
        let rates: Vec<u64> = (0..self.nodes.len())
            .map(|node| self.meters[node].update(now, self.reports[node].bytes + under_way[node]))
            .collect();
        self.progress.send_modify(|progress| {
            progress.bytes_in_flight = under_way.iter().sum();
            for (node, rate) in progress.nodes.iter_mut().zip(rates) {
                node.rate_bytes_per_s = rate;
            }
        });
    }
}

/// Asks the sink what an earlier fetch has kept of a shard.
async fn recall(
    index: ShardIndex,
    outboard: &Arc<Outboard>,
    arrival: &Arrival,
    sink: &mpsc::WeakUnboundedSender<ToSink>,
) {
    let (answer, kept) = oneshot::channel();
    let outboard = outboard.clone();
    let asked = sink.upgrade().map(|sink| sink.send(ToSink::Recall { index, outboard, answer }));
    // A sink that is gone has said why.
    if let Some(Ok(())) = asked
        && let Ok(prefix) = kept.await
    {
        arrival.recall(prefix);
    }
}
