//! The schedule against simulated nodes: seeded, on a clock that is a number.

use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// How a simulated node behaves.
#[derive(Debug, Clone)]
struct SimulatedNode {
    /// What a request takes, in milliseconds.
    request_ms: u64,
    /// Of 256 requests, so many fail in passing.
    failing: u8,
    /// Of 256 segments, so many are missing.
    lacking: u8,
    /// Dies for good after so many requests.
    dies_after: usize,
}

/// An end of a request: when, node, segment.
type End = std::cmp::Reverse<(u64, NodeIndex, SegmentIndex)>;

fn backoff() -> Backoff {
    Backoff { failures_max: 1_000_000, ..Backoff::default() }
}

/// Runs a whole fetch. Segments in order if `is_in_order`; storing takes `store_ms` each. Gives how many were
/// fetched.
fn simulate(
    nodes: &[SimulatedNode],
    segments: u32,
    slots: u64,
    is_in_order: bool,
    store_ms: u64,
    random: &mut dyn FnMut() -> u32,
) -> usize {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut schedule =
        Schedule::new(vec![false; segments as usize], 1, nodes.len(), slots, is_in_order, backoff());
    let mut now_ms = 0;
    let mut ends: BinaryHeap<End> = BinaryHeap::new();
    let mut stores: BinaryHeap<std::cmp::Reverse<(u64, SegmentIndex)>> = BinaryHeap::new();
    let mut cancelled = std::collections::HashSet::new();
    let mut asked = vec![0; nodes.len()];
    let mut early = BTreeSet::new();
    let mut next_in_order = 0;
    let mut unstored = 0usize;
    let mut fetched = 0;
    while !(schedule.is_done() && unstored == 0) {
        assert!(schedule.unavailable().is_none(), "node 0 holds everything");
        let mut wake = None;
        for node in 0..nodes.len() {
            loop {
                match schedule.turn(node, at(now_ms)) {
                    Turn::Fetch(segment) => {
                        assert!(!schedule.have[segment as usize], "what is verified is not fetched again");
                        if is_in_order {
                            assert!(u64::from(segment) < u64::from(next_in_order) + slots.max(2));
                        }
                        asked[node] += 1;
                        cancelled.remove(&(node, segment));
                        ends.push(std::cmp::Reverse((now_ms + nodes[node].request_ms, node, segment)));
                    }
                    Turn::WaitUntil(moment) => {
                        assert!(moment > at(now_ms), "a wait lies ahead");
                        wake = Some(wake.map_or(moment, |wake: Instant| wake.min(moment)));
                        break;
                    }
                    Turn::Idle => break,
                }
            }
        }
        let claimed_max = slots.max(2) as usize;
        assert!(is_in_order || schedule.claimed <= claimed_max, "{} claimed", schedule.claimed);
        let wake_ms = wake.map(|wake| (wake - start).as_millis() as u64 + 1);
        let end_ms = ends.peek().map(|end| end.0.0);
        let store_end_ms = stores.peek().map(|end| end.0.0);
        now_ms = [wake_ms, end_ms, store_end_ms].into_iter().flatten().min().expect("something happens next");
        while let Some(end) = stores.peek().filter(|end| end.0.0 <= now_ms) {
            schedule.stored(end.0.1);
            unstored -= 1;
            next_in_order = next_in_order.max(end.0.1 + 1);
            stores.pop();
        }
        while ends.peek().is_some_and(|end| end.0.0 <= now_ms) {
            let std::cmp::Reverse((_, node, segment)) = ends.pop().expect("peeked");
            if cancelled.remove(&(node, segment)) {
                continue;
            }
            let spec = &nodes[node];
            let failure = if asked[node] > spec.dies_after {
                Some(Failure::Final)
            } else if (segment.wrapping_mul(97) % 256) < u32::from(spec.lacking) {
                Some(Failure::Missing)
            } else if random() % 256 < u32::from(spec.failing) {
                Some(if random() < 1 << 31 { Failure::Transient } else { Failure::Busy(None) })
            } else {
                None
            };
            match failure {
                Some(failure) => {
                    if schedule.failed(node, segment, failure, at(now_ms), random()) {
                        cancelled.extend(schedule.abandon(node).into_iter().map(|segment| (node, segment)));
                    }
                }
                None => {
                    for other in schedule.succeeded(node, segment, at(now_ms)) {
                        cancelled.insert((other, segment));
                    }
                    fetched += 1;
                    unstored += 1;
                    early.insert(segment);
                    while is_in_order && early.remove(&next_to_store(&schedule, &stores)) {
                        let next = next_to_store(&schedule, &stores);
                        stores.push(std::cmp::Reverse((now_ms + store_ms, next)));
                    }
                    if !is_in_order {
                        stores.push(std::cmp::Reverse((now_ms + store_ms, segment)));
                    }
                }
            }
        }
    }
    for node in &schedule.nodes {
        assert_eq!(node.in_flight, 0, "nothing is left under way");
    }
    assert_eq!(schedule.claimed, 0, "no slot leaks");
    fetched
}

/// The segment that an in-order consumer waits for: past what is stored and what is being stored.
fn next_to_store(
    schedule: &Schedule,
    stores: &BinaryHeap<std::cmp::Reverse<(u64, SegmentIndex)>>,
) -> SegmentIndex {
    let stored = schedule.in_order_from.unwrap_or(0);
    stores.iter().map(|end| end.0.1 + 1).max().unwrap_or(stored).max(stored)
}

fn other_node() -> impl Strategy<Value = SimulatedNode> {
    let dies_after = prop_oneof![Just(usize::MAX), 0usize..40];
    (1u64..20_000, any::<u8>(), any::<u8>(), dies_after).prop_map(
        |(request_ms, failing, lacking, dies_after)| SimulatedNode {
            request_ms,
            failing,
            lacking,
            dies_after,
        },
    )
}

proptest! {
    #[test]
    fn every_segment_arrives_once_whatever_the_nodes_do(
        first_ms in 1u64..5_000,
        first_failing in 0u8..128,
        others in proptest::collection::vec(other_node(), 0..4),
        segments in 0u32..120,
        slots in 1u64..40,
        is_in_order: bool,
        store_ms in 0u64..50,
        seed: u64,
    ) {
        // Node 0 holds everything and lives, so that the fetch can end well.
        let (request_ms, failing) = (first_ms, first_failing);
        let mut nodes = vec![SimulatedNode { request_ms, failing, lacking: 0, dies_after: usize::MAX }];
        nodes.extend(others);
        let mut state = seed | 1;
        let mut random = move || {
            // xorshift64: any sequence will do, as long as the seed decides it.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        };
        let fetched = simulate(&nodes, segments, slots, is_in_order, store_ms, &mut random);
        prop_assert_eq!(fetched, segments as usize);
    }
}

fn schedule_of(segments: usize, nodes: usize) -> Schedule {
    Schedule::new(vec![false; segments], 1 << 20, nodes, 64 << 20, false, Backoff::default())
}

#[test]
fn windows_grow_on_fast_nodes_and_shrink_on_slow_ones() {
    let mut schedule = schedule_of(1000, 2);
    let start = Instant::now();
    let under_way = |schedule: &mut Schedule, node, now| {
        let mut segments = Vec::new();
        while let Turn::Fetch(segment) = schedule.turn(node, now) {
            segments.push(segment);
        }
        segments
    };
    let mut now = start;
    let mut fast = under_way(&mut schedule, 0, now);
    let slow = under_way(&mut schedule, 1, now);
    assert_eq!((fast.len(), slow.len()), (WINDOW_START, WINDOW_START));
    for _ in 0..20 {
        now += Duration::from_millis(50);
        for segment in std::mem::take(&mut fast) {
            schedule.succeeded(0, segment, now);
            schedule.stored(segment);
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
    assert!(schedule.succeeded(1, 1, later).is_empty());
    // Node 1 takes 60 ms a segment, so after 120 ms node 0 is overdue.
    assert_eq!(schedule.turn(1, later), Turn::WaitUntil(start + Duration::from_millis(120)));
    let overdue = start + Duration::from_millis(120);
    assert_eq!(schedule.turn(1, overdue), Turn::Fetch(0));
    assert_eq!(schedule.turn(1, overdue), Turn::Idle, "two copies are enough");
    assert_eq!(schedule.succeeded(1, 0, overdue), [0], "the other copy is called off");
    assert!(schedule.is_done());
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
fn a_segment_is_unavailable_only_when_no_remaining_node_may_hold_it() {
    let mut schedule = schedule_of(1, 3);
    let now = Instant::now();
    for node in [0, 1] {
        assert_eq!(schedule.turn(node, now), Turn::Fetch(0));
        schedule.failed(node, 0, Failure::Missing, now, 0);
        assert_eq!(schedule.unavailable(), None);
        assert_eq!(schedule.turn(node, now), Turn::Idle);
    }
    schedule.refuse(2);
    assert_eq!(schedule.unavailable(), Some(0));
}
