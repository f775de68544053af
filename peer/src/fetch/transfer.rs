//! Moves segments from all nodes at once: asks the schedule who does what, runs the requests, hands verified
//! segments to the sink.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::error::{FetchError, NodeFailure, NodeFailures};
use super::plan::Plan;
use super::schedule::{Failure, NodeIndex, Schedule, SegmentIndex, Turn};
use crate::backoff::random_u32;
use crate::client::Node;
use crate::exchange::{ExchangeError, Length};
use crate::node_url::NodeUrl;
use crate::progress::{Progress, RateMeter};

/// How often progress is published between segments.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A segment on its way to the sink.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) index: SegmentIndex,
    pub(crate) bytes: Bytes,
}

/// The two ends that the sink holds: segments in (bounded by the schedule's slots), confirmations out.
pub(crate) struct SinkEnd {
    pub(crate) segments: mpsc::UnboundedReceiver<Verified>,
    pub(crate) stored: mpsc::UnboundedSender<Result<SegmentIndex, FetchError>>,
}

/// What one node contributed.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeUrl,
    /// Verified bytes that came from it.
    pub bytes: u64,
    /// Verified segments that came from it.
    pub segments: u32,
    /// Its last failure, if it was given up or had one at the end.
    pub failure: Option<ExchangeError>,
    /// Whether it sent bytes that are not what was asked for, or is not who it must be.
    pub is_misconduct: bool,
}

type Outcome = (NodeIndex, SegmentIndex, Result<Bytes, ExchangeError>);

/// A transfer under way. Dropping it cancels every request.
pub(crate) struct Transfer<'a> {
    plan: Arc<Plan>,
    nodes: &'a [Node],
    reports: Vec<NodeReport>,
    meters: Vec<RateMeter>,
    schedule: Schedule,
    requests: JoinSet<Outcome>,
    flights: HashMap<(NodeIndex, SegmentIndex), Flight>,
    to_sink: mpsc::UnboundedSender<Verified>,
    from_sink: mpsc::UnboundedReceiver<Result<SegmentIndex, FetchError>>,
    unstored: usize,
    bytes_verified: u64,
    progress: &'a watch::Sender<Progress>,
}

struct Flight {
    request: AbortHandle,
    received: Arc<AtomicU64>,
}

impl<'a> Transfer<'a> {
    /// `refused[n]` says why node `n` must not be used; `bytes_verified` counts what the schedule already
    /// has.
    pub(crate) fn new(
        plan: Arc<Plan>,
        nodes: &'a [Node],
        refused: Vec<Option<ExchangeError>>,
        schedule: Schedule,
        bytes_verified: u64,
        progress: &'a watch::Sender<Progress>,
    ) -> (Transfer<'a>, SinkEnd) {
        let (to_sink, segments) = mpsc::unbounded_channel();
        let (stored, from_sink) = mpsc::unbounded_channel();
        let report = |node: &Node| NodeReport {
            node: node.url().clone(),
            bytes: 0,
            segments: 0,
            failure: None,
            is_misconduct: false,
        };
        let mut transfer = Transfer {
            plan,
            nodes,
            reports: nodes.iter().map(report).collect(),
            meters: nodes.iter().map(|_| RateMeter::new()).collect(),
            schedule,
            requests: JoinSet::new(),
            flights: HashMap::new(),
            to_sink,
            from_sink,
            unstored: 0,
            bytes_verified,
            progress,
        };
        for (node, error) in refused.into_iter().enumerate().filter_map(|(n, error)| Some((n, error?))) {
            transfer.schedule.refuse(node);
            transfer.note(node, error, true);
        }
        (transfer, SinkEnd { segments, stored })
    }

    /// Runs until every segment is verified and the sink has confirmed them all.
    pub(crate) async fn run(mut self) -> Result<Vec<NodeReport>, FetchError> {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !(self.schedule.is_done() && self.unstored == 0) {
            self.check_nodes()?;
            let wake = self.hand_out();
            let sleep = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now).into());
            tokio::select! {
                Some(ended) = self.requests.join_next() => match ended {
                    Ok(outcome) => self.ended(outcome),
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => return Err(FetchError::Interrupted(e.to_string())),
                },
                stored = self.from_sink.recv() => match stored {
                    Some(stored) => {
                        self.schedule.stored(stored?);
                        self.unstored -= 1;
                    }
                    None => return Err(FetchError::Interrupted("the writing task has ended".to_owned())),
                },
                _ = ticks.tick() => self.publish_rates(),
                () = sleep, if wake.is_some() => {}
            }
        }
        self.publish_rates();
        Ok(self.reports)
    }

    /// Gives every node work; gives the next moment at which there may be more.
    fn hand_out(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for node in 0..self.nodes.len() {
            loop {
                match self.schedule.turn(node, now) {
                    Turn::Fetch(segment) => self.request(node, segment),
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

    fn request(&mut self, index: NodeIndex, segment: SegmentIndex) {
        let planned = self.plan.segments[segment as usize];
        let node = self.nodes[index].clone();
        let received = Arc::new(AtomicU64::new(0));
        let counter = received.clone();
        let request = self.requests.spawn(async move {
            let length = Length::Exactly(u64::from(planned.len));
            (index, segment, node.get(&planned.hash, length, &counter).await)
        });
        self.flights.insert((index, segment), Flight { request, received });
    }

    fn ended(&mut self, (node, segment, outcome): Outcome) {
        // What was cancelled may have ended before it heard of it; nobody waits for it any more.
        if self.flights.remove(&(node, segment)).is_none() {
            return;
        }
        match outcome {
            Ok(bytes) => self.verified(node, segment, bytes),
            Err(error) => self.failed(node, segment, error),
        }
    }

    fn verified(&mut self, node: NodeIndex, index: SegmentIndex, bytes: Bytes) {
        for other in self.schedule.succeeded(node, index, Instant::now()) {
            self.cancel(other, index);
        }
        let len = bytes.len() as u64;
        self.bytes_verified += len;
        self.reports[node].bytes += len;
        self.reports[node].segments += 1;
        self.reports[node].failure = None;
        self.unstored += 1;
        let verified = self.bytes_verified;
        let node_bytes = self.reports[node].bytes;
        self.progress.send_modify(|progress| {
            progress.bytes_verified = verified;
            if let Some(shown) = progress.nodes.get_mut(node) {
                shown.bytes = node_bytes;
            }
        });
        // A sink that is gone has said why, or its channel's end says that it is gone: the loop reads that
        // next.
        let _ = self.to_sink.send(Verified { index, bytes });
    }

    fn failed(&mut self, node: NodeIndex, segment: SegmentIndex, error: ExchangeError) {
        tracing::debug!(node = %self.nodes[node].url(), segment, %error, "a request failed");
        let failure = match &error {
            ExchangeError::NotFound { .. } => Failure::Missing,
            ExchangeError::Busy { retry_after, .. } => Failure::Busy(*retry_after),
            error if error.is_transient() => Failure::Transient,
            _ => Failure::Final,
        };
        let is_given_up = self.schedule.failed(node, segment, failure, Instant::now(), random_u32());
        self.note(node, error, is_given_up);
        if is_given_up {
            for segment in self.schedule.abandon(node) {
                self.cancel(node, segment);
            }
        }
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
        report.failure = Some(error);
    }

    fn cancel(&mut self, node: NodeIndex, segment: SegmentIndex) {
        if let Some(flight) = self.flights.remove(&(node, segment)) {
            flight.request.abort();
        }
    }

    /// Whether the fetch can still succeed.
    fn check_nodes(&self) -> Result<(), FetchError> {
        if self.schedule.is_done() {
            return Ok(());
        }
        if (0..self.nodes.len()).all(|node| self.schedule.is_dropped(node)) {
            return Err(FetchError::AllNodesFailed {
                bytes_verified: self.bytes_verified,
                bytes_total: self.plan.file_len,
                failures: self.failures(),
            });
        }
        match self.schedule.unavailable() {
            Some(index) => Err(FetchError::NoSegment {
                index,
                hash: self.plan.segments[index as usize].hash,
                failures: self.failures(),
            }),
            None => Ok(()),
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
