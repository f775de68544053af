//! The schedule against simulated nodes: seeded, on a clock that is a number.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use proptest::prelude::*;

use super::*;

/// How a simulated node behaves.
#[derive(Debug, Clone)]
struct SimulatedNode {
    /// What a request takes, in milliseconds.
    request_ms: u64,
    /// Of 256 requests, so many fail in passing.
    failing: u8,
    /// Of 256 shards, so many are missing.
    lacking: u8,
    /// Dies for good after so many requests.
    dies_after: usize,
}

impl SimulatedNode {
    fn lacks(&self, node: NodeIndex, shard: ShardIndex) -> bool {
        let dice = (shard ^ ((node as u32) << 20)).wrapping_mul(0x9e37_79b1) >> 24;
        dice < u32::from(self.lacking)
    }
}

#[derive(Debug, Clone)]
struct Scenario {
    nodes: Vec<SimulatedNode>,
    grouping: Grouping,
    have: Vec<ShardState>,
    slots: u64,
    is_in_order: bool,
    store_ms: u64,
    seed: u64,
}

fn backoff() -> Backoff {
    Backoff {
        failures_max: 1_000_000,
        failing_max: Duration::from_secs(1 << 30),
        busy_max: Duration::from_secs(1 << 30),
        ..Backoff::default()
    }
}

fn work(grouping: Grouping, slots: u64, is_in_order: bool) -> Work {
    let have = vec![ShardState::Absent; grouping.shard_count() as usize];
    Work { grouping, have, shard_len: 1, memory_bytes_max: slots, is_in_order, homes: None }
}

/// A fetch on simulated nodes.
struct Simulation<'a> {
    scenario: &'a Scenario,
    schedule: Schedule,
    start: Instant,
    now_ms: u64,
    /// Requests: when they end, and whose they are.
    ends: BinaryHeap<Reverse<(u64, NodeIndex, ShardIndex)>>,
    /// Shards on their way out of memory.
    stores: BinaryHeap<Reverse<(u64, ShardIndex)>>,
    /// Verified shards that wait for their group.
    held: Vec<ShardIndex>,
    cancelled: HashSet<(NodeIndex, ShardIndex)>,
    asked: Vec<usize>,
    fetched: HashSet<ShardIndex>,
    random: u64,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario) -> Simulation<'a> {
        let work = Work {
            have: scenario.have.clone(),
            ..work(scenario.grouping, scenario.slots, scenario.is_in_order)
        };
        Simulation {
            scenario,
            schedule: Schedule::new(work, scenario.nodes.len(), backoff()),
            start: Instant::now(),
            now_ms: 0,
            ends: BinaryHeap::new(),
            stores: BinaryHeap::new(),
            held: Vec::new(),
            cancelled: HashSet::new(),
            asked: vec![0; scenario.nodes.len()],
            fetched: HashSet::new(),
            random: scenario.seed | 1,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    /// xorshift64: any sequence will do, as long as the seed decides it.
    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }

    fn run(mut self) -> Simulation<'a> {
        while !(self.schedule.is_over() && self.stores.is_empty() && self.releasable().is_empty()) {
            let wake = self.hand_out();
            self.check_memory();
            let wake_ms = wake.map(|wake| (wake - self.start).as_millis() as u64 + 1);
            let end_ms = self.ends.peek().map(|end| end.0.0);
            let store_ms = self.stores.peek().map(|end| end.0.0);
            let next = [wake_ms, end_ms, store_ms].into_iter().flatten().min();
            if next.is_none() && (0..self.scenario.nodes.len()).all(|node| self.schedule.is_dropped(node)) {
                break;
            }
            self.now_ms = next.unwrap_or_else(|| panic!("nothing happens any more: {:?}", self.schedule));
            while let Some(Reverse((_, shard))) =
                self.stores.peek().copied().filter(|end| end.0.0 <= self.now_ms)
            {
                self.stores.pop();
                self.schedule.released(shard);
            }
            while let Some(Reverse((_, node, shard))) =
                self.ends.peek().copied().filter(|end| end.0.0 <= self.now_ms)
            {
                self.ends.pop();
                if !self.cancelled.remove(&(node, shard)) {
                    self.end(node, shard);
                }
            }
            for shard in self.releasable() {
                self.held.retain(|held| *held != shard);
                self.stores.push(Reverse((self.now_ms + self.scenario.store_ms, shard)));
            }
        }
        self
    }

    fn hand_out(&mut self) -> Option<Instant> {
        let mut wake: Option<Instant> = None;
        for node in 0..self.scenario.nodes.len() {
            loop {
                match self.schedule.turn(node, self.now()) {
                    Turn::Fetch(shard) => {
                        let state = self.schedule.states[shard as usize];
                        assert!(state != ShardState::Present, "what is verified is not fetched again");
                        self.asked[node] += 1;
                        self.cancelled.remove(&(node, shard));
                        let end_ms = self.now_ms + self.scenario.nodes[node].request_ms;
                        self.ends.push(Reverse((end_ms, node, shard)));
                    }
                    Turn::WaitUntil(moment) => {
                        assert!(moment > self.now(), "a wait lies ahead");
                        wake = Some(wake.map_or(moment, |wake: Instant| wake.min(moment)));
                        break;
                    }
                    Turn::Idle => break,
                }
            }
        }
        wake
    }

    fn end(&mut self, node: NodeIndex, shard: ShardIndex) {
        let spec = &self.scenario.nodes[node];
        let failure = if self.asked[node] > spec.dies_after {
            Some(Failure::Final)
        } else if spec.lacks(node, shard) {
            Some(Failure::Missing)
        } else if self.random() % 256 < u32::from(spec.failing) {
            Some(if self.random() < 1 << 31 { Failure::Transient } else { Failure::Busy(None) })
        } else {
            None
        };
        match failure {
            Some(failure) => {
                let random = self.random();
                if self.schedule.failed(node, shard, failure, self.now(), random) {
                    let abandoned = self.schedule.abandon(node, self.now());
                    self.cancelled.extend(abandoned.into_iter().map(|shard| (node, shard)));
                }
            }
            None => {
                self.schedule.succeeded(node, shard, self.now());
                assert!(self.fetched.insert(shard), "each shard counts once");
                self.held.push(shard);
            }
        }
        self.cancelled.extend(self.schedule.take_called_off());
    }

    /// What the consumer lets go: shards of whole groups, in order if it takes them so, and of lost ones.
    fn releasable(&self) -> Vec<ShardIndex> {
        let may_go = |shard: &&ShardIndex| {
            let group = self.scenario.grouping.group_of(**shard);
            let is_whole = |group: u32| self.schedule.is_done[group as usize];
            let is_due = match self.scenario.is_in_order {
                true => (0..=group).all(is_whole),
                false => is_whole(group),
            };
            is_due || self.schedule.is_lost(group)
        };
        self.held.iter().filter(may_go).copied().collect()
    }

    fn check_memory(&self) {
        let slots = self.scenario.slots.max(2) as usize;
        let group = self.scenario.grouping.shards_of(0).count();
        let counted: usize = self.schedule.open.values().map(|group| group.charged).sum();
        assert_eq!(self.schedule.charged, counted);
        let in_use = self.schedule.flights.keys().filter(|shard| !self.held.contains(shard)).count();
        let bound = (slots + slots / 8).max(group) + group;
        assert!(in_use <= bound && self.schedule.charged <= bound, "{} of {slots}", self.schedule.charged);
    }
}

/// What must come of the groups: a model that knows what every node holds and that only nodes that live count.
fn can_be_whole(scenario: &Scenario, group: GroupIndex, lives: impl Fn(NodeIndex) -> bool) -> bool {
    let grouping = &scenario.grouping;
    let state = |shard: ShardIndex| scenario.have[shard as usize];
    let is_held = |shard: ShardIndex| {
        scenario.nodes.iter().enumerate().any(|(n, node)| lives(n) && !node.lacks(n, shard))
    };
    let has_plain = |shard: ShardIndex| state(shard) != ShardState::Absent || is_held(shard);
    let has_stored = |shard: ShardIndex| state(shard) == ShardState::Present || is_held(shard);
    grouping.data_of(group).all(has_plain)
        || grouping.shards_of(group).filter(|shard| has_stored(*shard)).count()
            >= grouping.data_of(group).len()
}

fn node(dies: bool) -> impl Strategy<Value = SimulatedNode> {
    let dies_after = match dies {
        true => prop_oneof![Just(usize::MAX), 0usize..40].boxed(),
        false => Just(usize::MAX).boxed(),
    };
    let lacking = prop_oneof![Just(0u8), Just(60u8), any::<u8>()];
    (1u64..20_000, 0u8..200, lacking, dies_after).prop_map(|(request_ms, failing, lacking, dies_after)| {
        SimulatedNode { request_ms, failing, lacking, dies_after }
    })
}

fn parity_count(grouping: &Grouping) -> usize {
    (0..grouping.shard_count()).filter(|shard| grouping.is_parity(*shard)).count()
}

fn scenario(dies: bool) -> impl Strategy<Value = Scenario> {
    let grouping = prop_oneof![
        (0u32..100).prop_map(Grouping::uncoded),
        (0u32..100, 1u32..12, 1u32..6).prop_map(|(count, data, parity)| Grouping::new(count, data, parity)),
    ];
    let state = prop_oneof![
        8 => Just(ShardState::Absent), 1 => Just(ShardState::Plain), 1 => Just(ShardState::Present)
    ];
    let states = proptest::collection::vec(state, 100);
    let nodes = proptest::collection::vec(node(dies), 1..6);
    (nodes, grouping, states, 1u64..60, any::<bool>(), 0u64..50, any::<u64>()).prop_map(
        |(nodes, grouping, mut have, slots, is_in_order, store_ms, seed)| {
            have.truncate(grouping.shard_count() as usize - parity_count(&grouping));
            have.resize(grouping.shard_count() as usize, ShardState::Absent);
            if is_in_order {
                have.fill(ShardState::Absent);
            }
            Scenario { nodes, grouping, have, slots, is_in_order, store_ms, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nodes fail in passing, are slow, hold parts: exactly the groups that can be made whole are, each shard is
    /// fetched once, memory stays bounded.
    #[test]
    fn every_group_that_can_be_whole_is(scenario in scenario(false)) {
        let end = Simulation::new(&scenario).run();
        let can_be = |group: &u32| can_be_whole(&scenario, *group, |_| true);
        let whole: Vec<u32> =
            (0..scenario.grouping.group_count()).filter(|g| end.schedule.is_done[*g as usize]).collect();
        if end.schedule.lost().len() >= LOST_MAX {
            // It gave up. What it says is lost, is.
            prop_assert!(end.schedule.lost().iter().all(|lost| !can_be(&lost.group)));
        } else if scenario.is_in_order {
            let first_lost = (0..scenario.grouping.group_count()).find(|group| !can_be(group));
            prop_assert_eq!(end.schedule.is_done(), first_lost.is_none());
            prop_assert!(end.schedule.lost().iter().all(|lost| !can_be(&lost.group)));
        } else {
            let expected: Vec<u32> = (0..scenario.grouping.group_count()).filter(can_be).collect();
            prop_assert_eq!(whole, expected);
        }
        for lost in end.schedule.lost() {
            prop_assert!(lost.shards - lost.missing < lost.needed, "{:?}", lost);
        }
        if end.schedule.is_done() {
            prop_assert!(end.schedule.nodes.iter().all(|node| node.in_flight == 0), "nothing is left under way");
            prop_assert_eq!(end.schedule.charged, 0, "no slot leaks");
        }
    }

    /// The same with nodes that die: nothing hangs, and what is whole at the end could be so.
    #[test]
    fn it_ends_whoever_dies(scenario in scenario(true)) {
        let end = Simulation::new(&scenario).run();
        let lives = |node: usize| scenario.nodes[node].dies_after == usize::MAX;
        for group in 0..scenario.grouping.group_count() {
            let is_whole = end.schedule.is_done[group as usize];
            prop_assert!(!is_whole || can_be_whole(&scenario, group, |_| true));
            let gave_up = scenario.is_in_order || end.schedule.lost().len() >= LOST_MAX;
            prop_assert!(is_whole || gave_up || !can_be_whole(&scenario, group, lives));
        }
    }

    #[test]
    fn every_shard_is_of_one_group(count in 1u32..200, data in 1u32..20, parity in 0u32..9) {
        let grouping = Grouping::new(count, data, parity);
        let mut seen = vec![0; grouping.shard_count() as usize];
        for group in 0..grouping.group_count() {
            prop_assert_eq!(grouping.parity_of(group).len() as u32, parity);
            for (ordinal, shard) in grouping.shards_of(group).enumerate() {
                seen[shard as usize] += 1;
                prop_assert_eq!((grouping.group_of(shard), grouping.ordinal(shard)), (group, ordinal));
            }
        }
        prop_assert!(seen.iter().all(|seen| *seen == 1));
    }
}

fn schedule_of(segments: u32, nodes: usize) -> Schedule {
    let work = Work {
        shard_len: 1 << 20,
        memory_bytes_max: 64 << 20,
        ..work(Grouping::uncoded(segments), 64, false)
    };
    Schedule::new(work, nodes, Backoff::default())
}

/// One group of 4 + 2.
fn group_of_six(nodes: usize) -> Schedule {
    Schedule::new(work(Grouping::new(4, 4, 2), 6, false), nodes, Backoff::default())
}

fn under_way(schedule: &mut Schedule, node: NodeIndex, now: Instant) -> Vec<ShardIndex> {
    let mut shards = Vec::new();
    while let Turn::Fetch(shard) = schedule.turn(node, now) {
        shards.push(shard);
    }
    shards
}

#[test]
fn windows_grow_on_fast_nodes_and_shrink_on_slow_ones() {
    let mut schedule = schedule_of(1000, 2);
    let start = Instant::now();
    let mut now = start;
    let mut fast = under_way(&mut schedule, 0, now);
    let slow = under_way(&mut schedule, 1, now);
    assert_eq!((fast.len(), slow.len()), (node_state::WINDOW_START, node_state::WINDOW_START));
    for _ in 0..20 {
        now += Duration::from_millis(50);
        for shard in std::mem::take(&mut fast) {
            schedule.succeeded(0, shard, now);
            schedule.released(shard);
        }
        fast = under_way(&mut schedule, 0, now);
    }
    assert_eq!(fast.len(), 16, "16 MiB under way");
    schedule.succeeded(1, slow[0], start + Duration::from_secs(9));
    assert_eq!(under_way(&mut schedule, 1, start + Duration::from_secs(9)).len(), 0, "one is enough for it");
}

#[test]
fn an_idle_node_copies_the_most_overdue_segment() {
    let mut schedule = schedule_of(2, 2);
    let start = Instant::now();
    assert_eq!(schedule.turn(0, start), Turn::Fetch(0));
    assert_eq!(schedule.turn(1, start), Turn::Fetch(1));
    let later = start + Duration::from_millis(60);
    schedule.succeeded(1, 1, later);
    assert!(schedule.take_called_off().is_empty());
    // Node 1 takes 60 ms a segment, so after 120 ms node 0 is overdue.
    assert_eq!(schedule.turn(1, later), Turn::WaitUntil(start + Duration::from_millis(120)));
    let overdue = start + Duration::from_millis(120);
    assert_eq!(schedule.turn(1, overdue), Turn::Fetch(0));
    assert_eq!(schedule.turn(1, overdue), Turn::Idle, "two copies are enough");
    schedule.succeeded(1, 0, overdue);
    assert_eq!(schedule.take_called_off(), [(0, 0)], "the other copy is called off");
    assert!(schedule.is_done());
}

#[test]
fn copies_that_do_not_come_either_are_copied_again_later() {
    let mut schedule = schedule_of(1, 3);
    let start = Instant::now();
    assert_eq!(schedule.turn(0, start), Turn::Fetch(0));
    let patience = schedule.nodes[1].patience();
    assert_eq!(schedule.turn(1, start + patience), Turn::Fetch(0));
    assert_eq!(
        schedule.turn(2, start + patience),
        Turn::WaitUntil(start + patience * 2),
        "twice the patience"
    );
    assert_eq!(schedule.turn(2, start + patience * 2), Turn::Fetch(0));
}

#[test]
fn failures_of_one_moment_count_once_and_too_many_end_it() {
    let mut schedule = schedule_of(100, 1);
    let start = Instant::now();
    assert_eq!(schedule.turn(0, start), Turn::Fetch(0));
    assert_eq!(schedule.turn(0, start), Turn::Fetch(1));
    assert!(!schedule.failed(0, 0, Failure::Transient, start, 0));
    assert!(!schedule.failed(0, 1, Failure::Transient, start, 0));
    assert_eq!(schedule.nodes[0].failures, 1);
    let Turn::WaitUntil(mut now) = schedule.turn(0, start) else { panic!("a failed node rests") };
    for failures in 2..=Backoff::default().failures_max {
        assert_eq!(schedule.turn(0, now), Turn::Fetch(0), "what came back goes first");
        assert_eq!(schedule.turn(0, now), Turn::Idle, "one request at a time until it works");
        let is_given_up = schedule.failed(0, 0, Failure::Transient, now, u32::MAX);
        assert_eq!(is_given_up, failures == Backoff::default().failures_max);
        if let Turn::WaitUntil(until) = schedule.turn(0, now) {
            assert!(until <= now + Backoff::default().max);
            now = until;
        }
    }
    assert!(schedule.is_dropped(0));
}

#[test]
fn a_segment_is_lost_only_when_no_remaining_node_may_hold_it() {
    let mut schedule = schedule_of(1, 3);
    let now = Instant::now();
    for node in [0, 1] {
        assert_eq!(schedule.turn(node, now), Turn::Fetch(0));
        schedule.failed(node, 0, Failure::Missing, now, 0);
        assert!(schedule.lost().is_empty());
        assert!(under_way(&mut schedule, node, now).is_empty());
    }
    schedule.refuse(2);
    assert_eq!(schedule.lost(), [LostGroup { group: 0, shards: 1, needed: 1, missing: 1 }]);
    assert!(schedule.is_over() && !schedule.is_done());
}

#[test]
fn data_is_fetched_first_and_parity_for_what_nobody_holds() {
    let mut schedule = group_of_six(1);
    let now = Instant::now();
    let mut asked = Vec::new();
    while !schedule.is_over() {
        let Turn::Fetch(shard) = schedule.turn(0, now) else { panic!("the only node has work: {asked:?}") };
        asked.push(shard);
        match shard {
            1 | 4 => assert!(!schedule.failed(0, shard, Failure::Missing, now, 0)),
            _ => schedule.succeeded(0, shard, now),
        }
    }
    assert_eq!(asked, [0, 1, 2, 3, 4, 5], "no parity before a data shard is missing");
    assert!(schedule.is_done());
}

#[test]
fn one_shard_too_few_is_said_with_numbers() {
    let mut schedule = group_of_six(1);
    let now = Instant::now();
    while let Turn::Fetch(shard) = schedule.turn(0, now) {
        match shard {
            0 | 2 | 5 => assert!(!schedule.failed(0, shard, Failure::Missing, now, 0)),
            _ => schedule.succeeded(0, shard, now),
        }
    }
    assert!(schedule.is_over());
    assert_eq!(schedule.lost(), [LostGroup { group: 0, shards: 6, needed: 4, missing: 3 }]);
}

#[test]
fn parity_stands_in_for_data_that_does_not_come() {
    let mut schedule = group_of_six(2);
    let start = Instant::now();
    // Node 0 takes two data shards and says nothing more; node 1 does the rest.
    assert_eq!(under_way(&mut schedule, 0, start), [0, 1]);
    assert_eq!(under_way(&mut schedule, 1, start), [2, 3]);
    let later = start + Duration::from_millis(60);
    for shard in [2, 3] {
        schedule.succeeded(1, shard, later);
    }
    // It does not hold what node 0 was asked for.
    let overdue = start + Duration::from_millis(120);
    assert_eq!(schedule.turn(1, overdue), Turn::Fetch(0), "a copy is tried first");
    schedule.failed(1, 0, Failure::Missing, overdue, 0);
    assert_eq!(schedule.turn(1, overdue), Turn::Fetch(4), "then parity");
    assert_eq!(schedule.turn(1, overdue), Turn::Fetch(1));
    schedule.failed(1, 1, Failure::Missing, overdue, 0);
    assert_eq!(under_way(&mut schedule, 1, overdue), [5]);
    for shard in [4, 5] {
        schedule.succeeded(1, shard, overdue);
    }
    assert!(schedule.is_done(), "any four of six");
    let mut called_off = schedule.take_called_off();
    called_off.sort_unstable();
    assert_eq!(called_off, [(0, 0), (0, 1)]);
}

#[test]
fn what_was_compressed_is_fetched_again_only_to_restore_others() {
    // Data shards 0 and 1 are there as plain bytes, 2 as stored ones; 3 is held by nobody.
    let mut have = vec![ShardState::Absent; 6];
    have[0] = ShardState::Plain;
    have[1] = ShardState::Plain;
    have[2] = ShardState::Present;
    let work = Work { have, ..work(Grouping::new(4, 4, 2), 6, false) };
    let mut schedule = Schedule::new(work, 1, Backoff::default());
    let now = Instant::now();
    assert_eq!(under_way(&mut schedule, 0, now), [3], "only this is missing");
    schedule.failed(0, 3, Failure::Missing, now, 0);
    assert_eq!(schedule.turn(0, now), Turn::Fetch(0), "two parity shards and two of the data make four");
}

#[test]
fn a_spread_file_is_asked_for_where_it_lies() {
    let urls: Vec<crate::NodeUrl> =
        (1..=3u16).map(|port| format!("https://127.0.0.1:{port}").parse().unwrap()).collect();
    let shape = store::erasure::Shape { data: 4, parity: 2 };
    let homes = Homes::new(shape, &urls.iter().collect::<Vec<_>>());
    let work = Work { homes, ..work(Grouping::new(4, 4, 2), 6, false) };
    let mut schedule = Schedule::new(work, 3, Backoff::default());
    let now = Instant::now();
    let first: Vec<_> = (0..3).map(|node| schedule.turn(node, now)).collect();
    assert_eq!(first, [Turn::Fetch(0), Turn::Fetch(1), Turn::Fetch(2)]);
    // Shard 3 is at home on node 0 too.
    assert_eq!(schedule.turn(0, now), Turn::Fetch(3));
}
