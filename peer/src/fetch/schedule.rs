//! Who fetches which shard when: pure, time is an argument.
//!
//! Every node takes work from one queue at its own pace, so a fast node does most and a slow one no harm. A
//! node's window (requests in flight) follows its speed. What a node fails to deliver goes back to the queue
//! for all.
//!
//! A group of a coded file is whole with any k of its k + m shards. Its data shards are wanted first, because they need
//! no decoding; parity takes the place of data that no remaining node holds, or that does not come. When the queue has
//! nothing for a node with room, it fetches a second copy of what is most overdue elsewhere, or a parity shard
//! in its place, and what is verified first wins.
//!
//! Memory: a group counts with what is held or on its way, and with what it still wants, once any of it has come or is
//! on its way. Groups begin in order while that fits; so a group that has begun can always be ended.

mod grouping;
mod node_state;
mod queue;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

pub(crate) use self::grouping::{GroupIndex, Grouping, ShardIndex};

use self::node_state::NodeState;
use super::homes::Homes;
use crate::backoff::Backoff;

/// A node's place in the caller's list.
pub(crate) type NodeIndex = usize;

/// The bytes a window may cover: 16 MiB is 1 Gbit/s over 130 ms.
const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// So many misses in a row, times the number of nodes, cost a node nothing: of a file that is spread over all of them
/// each holds but its part.
const MISSES_FREE: u32 = 8;

/// After so many lost groups a fetch gives up; until then it goes on, keeps what there is, and learns what is missing.
const LOST_MAX: usize = 8;

/// What a node should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Fetch this shard.
    Fetch(ShardIndex),
    /// Nothing before this moment.
    WaitUntil(Instant),
    /// Nothing before something else ends.
    Idle,
}

/// How a request failed, as far as scheduling cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node does not hold the shard.
    Missing,
    /// The node asks to wait.
    Busy(Option<Duration>),
    /// Anything that may pass.
    Transient,
    /// The node is not to be asked again.
    Final,
}

/// What is there of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardState {
    /// Nothing.
    Absent,
    /// Its plain bytes, from which its stored bytes cannot be made again: it is no help in restoring others.
    Plain,
    /// Its stored bytes, or what they can be made of.
    Present,
}

/// A group that cannot be made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostGroup {
    /// The group's place in the file; without a code, the segment's.
    pub group: u32,
    /// Shards that it has.
    pub shards: u32,
    /// Shards that it takes.
    pub needed: u32,
    /// Shards that no remaining node holds, as far as they were asked for; enough to know that the group is lost.
    pub missing: u32,
}

/// What a fetch is to bring, and within which bounds.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) grouping: Grouping,
    /// What is there of each shard.
    pub(crate) have: Vec<ShardState>,
    /// Length of the longest shard in bytes.
    pub(crate) shard_len: u32,
    /// Bound on shards claimed and not yet let go, in bytes.
    pub(crate) memory_bytes_max: u64,
    /// Groups are taken in order by the consumer.
    pub(crate) is_in_order: bool,
    /// Where shards are to be expected.
    pub(crate) homes: Option<Homes>,
}

/// The work that is left and the nodes that share it.
#[derive(Debug)]
pub(crate) struct Schedule {
    backoff: Backoff,
    grouping: Grouping,
    homes: Option<Homes>,
    states: Vec<ShardState>,
    is_done: Vec<bool>,
    done_count: usize,
    /// All groups below were opened.
    cursor: GroupIndex,
    /// Groups that were opened and are not done, or not yet let go.
    open: BTreeMap<GroupIndex, Group>,
    /// Shards of open groups that are wanted and not under way.
    waiting: BTreeSet<(GroupIndex, ShardIndex)>,
    /// Shards that came back, and since when they wait.
    returned: HashMap<ShardIndex, Instant>,
    flights: HashMap<ShardIndex, Vec<Flight>>,
    /// Requests that became pointless.
    called_off: Vec<(NodeIndex, ShardIndex)>,
    /// Nodes that said they do not hold a shard.
    missing: HashMap<ShardIndex, Vec<NodeIndex>>,
    nodes: Vec<NodeState>,
    window_max: usize,
    misses_free: u32,
    /// Bound on shards charged for.
    slots_max: usize,
    charged: usize,
    /// In-order consumers: the first group that was not let go; none `groups_ahead` past it begins.
    in_order_from: Option<GroupIndex>,
    groups_ahead: usize,
    lost_count: usize,
    newly_lost: Vec<GroupIndex>,
}

#[derive(Debug, Default)]
struct Group {
    /// Verified shards that are still in memory.
    holding: usize,
    /// What it counts in `Schedule::charged`.
    charged: usize,
    is_lost: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    node: NodeIndex,
    started: Instant,
}

impl Schedule {
    pub(crate) fn new(work: Work, node_count: usize, backoff: Backoff) -> Schedule {
        let Work { grouping, have, shard_len, memory_bytes_max, is_in_order, homes } = work;
        let per_shard = u64::from(shard_len.max(1));
        let slots_max = (memory_bytes_max / per_shard).clamp(2, 1 << 16) as usize;
        let mut schedule = Schedule {
            backoff,
            grouping,
            homes,
            states: have,
            is_done: vec![false; grouping.group_count() as usize],
            done_count: 0,
            cursor: 0,
            open: BTreeMap::new(),
            waiting: BTreeSet::new(),
            returned: HashMap::new(),
            flights: HashMap::new(),
            called_off: Vec::new(),
            missing: HashMap::new(),
            nodes: (0..node_count).map(|_| NodeState::new()).collect(),
            window_max: (WINDOW_BYTES_MAX / per_shard).clamp(4, 64) as usize,
            misses_free: MISSES_FREE * node_count.clamp(1, 64) as u32,
            slots_max,
            charged: 0,
            in_order_from: is_in_order.then_some(0),
            groups_ahead: (slots_max / grouping.data_per_group() as usize).max(1),
            lost_count: 0,
            newly_lost: Vec::new(),
        };
        schedule.states.resize(grouping.shard_count() as usize, ShardState::Absent);
        for group in 0..grouping.group_count() {
            if schedule.is_whole(group) {
                schedule.is_done[group as usize] = true;
                schedule.done_count += 1;
            }
        }
        schedule
    }

    /// Whether every group is whole.
    pub(crate) fn is_done(&self) -> bool {
        self.done_count == self.is_done.len()
    }

    /// Whether it is time to end: every group is whole or lost. In order, nothing comes after a group that is lost; and
    /// when many are, the rest is not worth the wait.
    pub(crate) fn is_over(&self) -> bool {
        let lost_max = if self.in_order_from.is_some() { 1 } else { LOST_MAX };
        self.done_count + self.lost_count == self.is_done.len() || self.lost_count >= lost_max
    }

    /// The groups that cannot be made whole, as far as they are known.
    pub(crate) fn lost(&self) -> Vec<LostGroup> {
        let lost = self.open.iter().filter(|(_, group)| group.is_lost);
        lost.map(|(group, _)| self.describe_lost(*group)).collect()
    }

    /// Whether it is known that a group cannot be made whole.
    pub(crate) fn is_lost(&self, group: GroupIndex) -> bool {
        self.open.get(&group).is_some_and(|group| group.is_lost)
    }

    /// Gives a node up before it was asked for anything.
    pub(crate) fn refuse(&mut self, node: NodeIndex) {
        self.nodes[node].is_dropped = true;
        self.replan_all();
    }

    /// Whether a node is given up.
    pub(crate) fn is_dropped(&self, node: NodeIndex) -> bool {
        self.nodes[node].is_dropped
    }

    /// What `node` should do; called until it is not `Fetch`.
    pub(crate) fn turn(&mut self, node: NodeIndex, now: Instant) -> Turn {
        let state = &self.nodes[node];
        if state.is_dropped || self.is_over() {
            return Turn::Idle;
        }
        if let Some(until) = state.wait_until.filter(|until| *until > now) {
            return Turn::WaitUntil(until);
        }
        if !state.has_window() {
            return Turn::Idle;
        }
        if let Some(shard) = self.next_waiting(node, now) {
            self.take_off(shard, node, now);
            return Turn::Fetch(shard);
        }
        self.hedge(node, now)
    }

    /// A verified shard arrived. Requests that are pointless now are [called off](Schedule::take_called_off).
    pub(crate) fn succeeded(&mut self, node: NodeIndex, shard: ShardIndex, now: Instant) {
        let flights = self.flights.remove(&shard).unwrap_or_default();
        if let Some(flight) = flights.iter().find(|flight| flight.node == node) {
            let took = now.saturating_duration_since(flight.started);
            let is_stray = self.is_stray(node, shard);
            let state = &mut self.nodes[node];
            state.succeeded(took, self.window_max);
            state.stray_hits += u32::from(is_stray);
        }
        for flight in &flights {
            self.nodes[flight.node].in_flight -= 1;
            if flight.node != node {
                self.called_off.push((flight.node, shard));
            }
        }
        self.states[shard as usize] = ShardState::Present;
        self.returned.remove(&shard);
        self.missing.remove(&shard);
        let index = self.grouping.group_of(shard);
        self.open.entry(index).or_default().holding += 1;
        if self.is_whole(index) && !std::mem::replace(&mut self.is_done[index as usize], true) {
            self.done_count += 1;
            self.call_off(index);
        }
        self.replan(index);
    }

    /// A request ended without the shard. Gives whether the node is given up because of it.
    pub(crate) fn failed(
        &mut self,
        node: NodeIndex,
        shard: ShardIndex,
        failure: Failure,
        now: Instant,
        random: u32,
    ) -> bool {
        self.land(node, shard, now);
        if failure == Failure::Missing {
            let nodes = self.missing.entry(shard).or_default();
            if !nodes.contains(&node) {
                nodes.push(node);
            }
            if self.is_stray(node, shard) {
                self.nodes[node].stray_misses += 1;
            }
        }
        let state = &mut self.nodes[node];
        let was_dropped = state.is_dropped;
        state.failed(failure, self.misses_free, &self.backoff, now, random);
        let is_given_up = !was_dropped && state.is_dropped;
        if is_given_up {
            self.replan_all();
        } else {
            self.replan(self.grouping.group_of(shard));
        }
        is_given_up
    }

    /// Takes back all that a node was fetching; gives the shards.
    pub(crate) fn abandon(&mut self, node: NodeIndex, now: Instant) -> Vec<ShardIndex> {
        let is_of_node = |flights: &Vec<Flight>| flights.iter().any(|flight| flight.node == node);
        let shards: Vec<_> = self.flights.iter().filter(|(_, f)| is_of_node(f)).map(|(i, _)| *i).collect();
        for shard in &shards {
            self.land(node, *shard, now);
            self.replan(self.grouping.group_of(*shard));
        }
        shards
    }

    /// A verified shard was let go: it is written, and what may be wanted of it again is on disk.
    pub(crate) fn released(&mut self, shard: ShardIndex) {
        let index = self.grouping.group_of(shard);
        if let Some(group) = self.open.get_mut(&index) {
            group.holding -= 1;
        }
        self.recharge(index);
        let is_let_go = |group: &Group| group.holding == 0;
        if self.is_done[index as usize] && self.open.get(&index).is_some_and(is_let_go) {
            self.open.remove(&index);
        }
        if let Some(from) = &mut self.in_order_from {
            while self.is_done.get(*from as usize) == Some(&true) && !self.open.contains_key(from) {
                *from += 1;
            }
        }
    }

    /// Requests that became pointless since this was last asked.
    pub(crate) fn take_called_off(&mut self) -> Vec<(NodeIndex, ShardIndex)> {
        std::mem::take(&mut self.called_off)
    }

    /// Groups of which it became known that they cannot be made whole, since this was last asked.
    pub(crate) fn take_newly_lost(&mut self) -> Vec<GroupIndex> {
        std::mem::take(&mut self.newly_lost)
    }

    fn take_off(&mut self, shard: ShardIndex, node: NodeIndex, now: Instant) {
        self.flights.entry(shard).or_default().push(Flight { node, started: now });
        self.nodes[node].in_flight += 1;
        let group = self.grouping.group_of(shard);
        self.waiting.remove(&(group, shard));
        self.recharge(group);
    }

    /// Whoever lands a shard must plan its group anew.
    fn land(&mut self, node: NodeIndex, shard: ShardIndex, now: Instant) {
        let Some(flights) = self.flights.get_mut(&shard) else { return };
        let before = flights.len();
        flights.retain(|flight| flight.node != node);
        if flights.len() == before {
            return;
        }
        self.nodes[node].in_flight -= 1;
        if flights.is_empty() {
            self.flights.remove(&shard);
            self.returned.insert(shard, now);
        }
    }

    /// Ends all requests for shards of a group that needs no more.
    fn call_off(&mut self, group: GroupIndex) {
        for shard in self.grouping.shards_of(group) {
            self.returned.remove(&shard);
            self.missing.remove(&shard);
            for flight in self.flights.remove(&shard).unwrap_or_default() {
                self.nodes[flight.node].in_flight -= 1;
                self.called_off.push((flight.node, shard));
            }
        }
    }
}

#[cfg(test)]
mod tests;
