//! Who fetches which segment when: pure, time is an argument.
//!
//! Every node takes work from one queue at its own pace, so a fast node does most and a slow one no harm. A
//! node's window (requests in flight) follows its speed. What a node fails to deliver goes back to the queue
//! for all. When the queue is empty, a node with room fetches a second copy of the segment that is most
//! overdue elsewhere, and the first verified copy wins.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// A node's place in the caller's list.
pub(crate) type NodeIndex = usize;
/// A segment's place in the file.
pub(crate) type SegmentIndex = u32;

/// A segment is fetched by at most so many nodes at once.
const COPIES_MAX: usize = 2;
/// Windows grow while requests take less than this and shrink when they take more than `REQUEST_TIME_MAX`: a
/// node has about that much work queued, which covers any round trip and keeps little hostage on a slow node.
const REQUEST_TIME_MIN: Duration = Duration::from_millis(250);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(2);
const WINDOW_START: usize = 2;
/// The bytes a window may cover: 16 MiB is 1 Gbit/s over 130 ms.
const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// A copy is not overdue before this, however fast others are.
const OVERDUE_MIN: Duration = Duration::from_millis(100);
/// So many misses in a row cost a node nothing.
const MISSES_FREE: u32 = 8;
/// What a request is thought to take on a node that has not finished one.
const REQUEST_TIME_GUESS: Duration = Duration::from_secs(1);

/// What a node should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Fetch this segment.
    Fetch(SegmentIndex),
    /// Nothing before this moment.
    WaitUntil(Instant),
    /// Nothing before something else ends.
    Idle,
}

/// How a request failed, as far as scheduling cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node does not hold the segment.
    Missing,
    /// The node asks to wait.
    Busy(Option<Duration>),
    /// Anything that may pass.
    Transient,
    /// The node is not to be asked again.
    Final,
}

/// The work that is left and the nodes that share it.
#[derive(Debug)]
pub(crate) struct Schedule {
    backoff: Backoff,
    /// Segments that are verified (or already were when the fetch began).
    have: Vec<bool>,
    have_count: usize,
    /// All segments below were handed out at least once.
    cursor: SegmentIndex,
    /// Segments below the cursor that came back.
    returned: BTreeSet<SegmentIndex>,
    flights: HashMap<SegmentIndex, Vec<Flight>>,
    /// Nodes that said they do not hold a segment.
    missing: HashMap<SegmentIndex, Vec<NodeIndex>>,
    nodes: Vec<NodeState>,
    window_max: usize,
    /// Bound on segments claimed and not yet stored.
    slots_max: usize,
    stored: Vec<bool>,
    claimed: usize,
    /// In-order consumers: the first segment not yet stored; no segment `slots_max` past it is claimed.
    in_order_from: Option<SegmentIndex>,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    node: NodeIndex,
    started: Instant,
}

#[derive(Debug)]
struct NodeState {
    is_dropped: bool,
    in_flight: usize,
    window: usize,
    /// Smoothed duration of this node's requests.
    request_time: Option<Duration>,
    failures: u32,
    busy: u32,
    /// Segments it did not hold since it last delivered one.
    misses: u32,
    busy_since: Option<Instant>,
    wait_until: Option<Instant>,
}

impl Schedule {
    /// `have[i]` says which segments need no fetching; `memory_bytes_max` bounds claimed and not yet stored
    /// bytes; `is_in_order` is for consumers that take segments in order.
    pub(crate) fn new(
        have: Vec<bool>,
        segment_len: u32,
        node_count: usize,
        memory_bytes_max: u64,
        is_in_order: bool,
        backoff: Backoff,
    ) -> Schedule {
        let per_segment = u64::from(segment_len.max(1));
        let node = |_| NodeState {
            is_dropped: false,
            in_flight: 0,
            window: WINDOW_START,
            request_time: None,
            failures: 0,
            busy: 0,
            misses: 0,
            busy_since: None,
            wait_until: None,
        };
        Schedule {
            backoff,
            have_count: have.iter().filter(|have| **have).count(),
            stored: have.clone(),
            have,
            cursor: 0,
            returned: BTreeSet::new(),
            flights: HashMap::new(),
            missing: HashMap::new(),
            nodes: (0..node_count).map(node).collect(),
            window_max: (WINDOW_BYTES_MAX / per_segment).clamp(4, 64) as usize,
            slots_max: (memory_bytes_max / per_segment).clamp(2, 1 << 16) as usize,
            claimed: 0,
            in_order_from: is_in_order.then_some(0),
        }
    }

    /// Whether every segment is verified.
    pub(crate) fn is_done(&self) -> bool {
        self.have_count == self.have.len()
    }

    /// Gives a node up before it was asked for anything.
    pub(crate) fn refuse(&mut self, node: NodeIndex) {
        self.nodes[node].is_dropped = true;
    }

    /// Whether a node is given up.
    pub(crate) fn is_dropped(&self, node: NodeIndex) -> bool {
        self.nodes[node].is_dropped
    }

    /// A segment that no remaining node holds.
    pub(crate) fn unavailable(&self) -> Option<SegmentIndex> {
        let lacks = |(_, nodes): &(&SegmentIndex, &Vec<NodeIndex>)| {
            self.nodes.iter().enumerate().all(|(n, state)| state.is_dropped || nodes.contains(&n))
        };
        let wanted = |(i, _): &(&SegmentIndex, &Vec<NodeIndex>)| !self.have[**i as usize];
        self.missing.iter().filter(wanted).filter(lacks).map(|(i, _)| *i).min()
    }

    /// What `node` should do; called until it is not `Fetch`.
    pub(crate) fn turn(&mut self, node: NodeIndex, now: Instant) -> Turn {
        let state = &self.nodes[node];
        if state.is_dropped || self.is_done() {
            return Turn::Idle;
        }
        if let Some(until) = state.wait_until.filter(|until| *until > now) {
            return Turn::WaitUntil(until);
        }
        // A node that failed proves itself with one request before it gets more.
        let window = if state.failures + state.busy > 0 { 1 } else { state.window };
        if state.in_flight >= window {
            return Turn::Idle;
        }
        if let Some(segment) = self.next_waiting(node) {
            self.take_off(segment, node, now);
            return Turn::Fetch(segment);
        }
        self.overdue(node, now)
    }

    /// A verified segment arrived. Gives the other nodes that are still fetching it: their requests are
    /// pointless.
    pub(crate) fn succeeded(
        &mut self,
        node: NodeIndex,
        segment: SegmentIndex,
        now: Instant,
    ) -> Vec<NodeIndex> {
        let flights = self.flights.remove(&segment).unwrap_or_default();
        if let Some(flight) = flights.iter().find(|flight| flight.node == node) {
            let took = now.saturating_duration_since(flight.started);
            let window_max = self.window_max;
            let state = &mut self.nodes[node];
            state.request_time = Some(match state.request_time {
                Some(average) => (average * 3 + took) / 4,
                None => took,
            });
            if took < REQUEST_TIME_MIN {
                state.window = (state.window + 1).min(window_max);
            } else if took > REQUEST_TIME_MAX {
                state.window = (state.window - 1).max(1);
            }
            state.failures = 0;
            state.busy = 0;
            state.misses = 0;
            state.busy_since = None;
            state.wait_until = None;
        }
        for flight in &flights {
            self.nodes[flight.node].in_flight -= 1;
        }
        if !std::mem::replace(&mut self.have[segment as usize], true) {
            self.have_count += 1;
        }
        self.returned.remove(&segment);
        self.missing.remove(&segment);
        flights.iter().map(|flight| flight.node).filter(|other| *other != node).collect()
    }

    /// A request ended without the segment. Gives whether the node is given up because of it.
    pub(crate) fn failed(
        &mut self,
        node: NodeIndex,
        segment: SegmentIndex,
        failure: Failure,
        now: Instant,
        random: u32,
    ) -> bool {
        self.land(node, segment);
        let state = &mut self.nodes[node];
        let was_dropped = state.is_dropped;
        match failure {
            Failure::Missing => {
                let nodes = self.missing.entry(segment).or_default();
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
                // A node that holds part of the file is welcome; one that holds none is asked ever more
                // rarely.
                state.misses += 1;
                if state.misses > MISSES_FREE {
                    let wait = self.backoff.wait(state.misses - MISSES_FREE, random);
                    state.wait_until = state.wait_until.max(Some(now + wait));
                }
            }
            Failure::Busy(retry_after) => {
                if state.wait_until.is_none_or(|until| until <= now) {
                    state.busy += 1;
                }
                let since = *state.busy_since.get_or_insert(now);
                let wait = self.backoff.wait_busy(retry_after, state.busy, random);
                state.wait_until = state.wait_until.max(Some(now + wait));
                state.is_dropped |= now.saturating_duration_since(since) > self.backoff.busy_max;
            }
            Failure::Transient => {
                // Requests that fail together (one connection) count once: only the first finds the node not
                // waiting.
                if state.wait_until.is_none_or(|until| until <= now) {
                    state.failures += 1;
                    state.wait_until = Some(now + self.backoff.wait(state.failures, random));
                    state.is_dropped |= state.failures >= self.backoff.failures_max;
                }
            }
            Failure::Final => state.is_dropped = true,
        }
        !was_dropped && state.is_dropped
    }

    /// Takes back all that a node was fetching; gives the segments.
    pub(crate) fn abandon(&mut self, node: NodeIndex) -> Vec<SegmentIndex> {
        let is_of_node = |flights: &Vec<Flight>| flights.iter().any(|flight| flight.node == node);
        let segments: Vec<_> = self.flights.iter().filter(|(_, f)| is_of_node(f)).map(|(i, _)| *i).collect();
        for segment in &segments {
            self.land(node, *segment);
        }
        segments
    }

    /// A verified segment has been written; its memory is free again.
    pub(crate) fn stored(&mut self, segment: SegmentIndex) {
        if !std::mem::replace(&mut self.stored[segment as usize], true) {
            self.claimed -= 1;
        }
        if let Some(from) = &mut self.in_order_from {
            while self.stored.get(*from as usize) == Some(&true) {
                *from += 1;
            }
        }
    }

    /// The lowest segment that nobody fetches, that the node may hold, and that there is room for.
    fn next_waiting(&mut self, node: NodeIndex) -> Option<SegmentIndex> {
        let may_hold = |i: &SegmentIndex| !self.missing.get(i).is_some_and(|nodes| nodes.contains(&node));
        let in_window = |i: SegmentIndex| match self.in_order_from {
            Some(from) => (i as usize) < from as usize + self.slots_max,
            None => self.claimed < self.slots_max,
        };
        if let Some(i) = self.returned.iter().copied().find(may_hold) {
            return in_window(i).then(|| {
                self.returned.remove(&i);
                i
            });
        }
        while self.have.get(self.cursor as usize) == Some(&true) {
            self.cursor += 1;
        }
        let next = self.cursor;
        if next as usize >= self.have.len() || !in_window(next) {
            return None;
        }
        self.cursor += 1;
        Some(next)
    }

    fn take_off(&mut self, segment: SegmentIndex, node: NodeIndex, now: Instant) {
        let flights = self.flights.entry(segment).or_default();
        if flights.is_empty() {
            self.claimed += 1;
        }
        flights.push(Flight { node, started: now });
        self.nodes[node].in_flight += 1;
    }

    fn land(&mut self, node: NodeIndex, segment: SegmentIndex) {
        let Some(flights) = self.flights.get_mut(&segment) else { return };
        let before = flights.len();
        flights.retain(|flight| flight.node != node);
        if flights.len() == before {
            return;
        }
        self.nodes[node].in_flight -= 1;
        if flights.is_empty() {
            self.flights.remove(&segment);
            self.claimed -= 1;
            self.returned.insert(segment);
        }
    }

    /// The segment that is longest under way elsewhere, if this node would likely be faster; else when one
    /// may be.
    fn overdue(&mut self, node: NodeIndex, now: Instant) -> Turn {
        let own = self.nodes[node].request_time.unwrap_or(REQUEST_TIME_GUESS);
        let patience = (own * 2).max(OVERDUE_MIN);
        let candidate = self
            .flights
            .iter()
            .filter(|(i, flights)| {
                flights.len() < COPIES_MAX
                    && flights.iter().all(|flight| flight.node != node)
                    && !self.missing.get(i).is_some_and(|nodes| nodes.contains(&node))
            })
            .filter_map(|(i, flights)| Some((flights.first()?.started, *i)))
            .min();
        match candidate {
            Some((started, segment)) if started + patience <= now => {
                self.take_off(segment, node, now);
                Turn::Fetch(segment)
            }
            Some((started, _)) => Turn::WaitUntil(started + patience),
            None => Turn::Idle,
        }
    }
}

#[cfg(test)]
mod tests;
