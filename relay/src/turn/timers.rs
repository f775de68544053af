//! One timer an allocation, in a heap with lazy deletion.
//!
//! An allocation wakes for whatever of it ends first: itself, a permission, a channel. Most refreshes only move that back, so a
//! timer is only ever pulled forward; when it comes up too early the allocation looks through its own tables and sets it again.
//! An entry counts if it is the one that its allocation remembers. The others are stale; they are swept when they are more than
//! half of the heap, so the heap is never longer than twice the allocations and a constant.

use super::AllocationIndex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Heap entries below which sweeping is not worth it.
const SWEEP_LEN_MIN: usize = 64;

/// When allocations are to be looked at, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    due: Instant,
    slot: u32,
    generation: u32,
}

impl Timers {
    /// Adds an entry. The allocation remembers `due` as the one entry that counts.
    pub(super) fn push(&mut self, due: Instant, index: AllocationIndex) {
        self.heap.push(Reverse(Entry { due, slot: index.slot, generation: index.generation }));
    }

    /// When the first entry is due. It may be stale: then waking for it finds nothing to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// Takes the first entry out if it is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, AllocationIndex)> {
        let &Reverse(entry) = self.heap.peek()?;
        if entry.due > now {
            return None;
        }
        self.heap.pop();
        Some((entry.due, AllocationIndex { slot: entry.slot, generation: entry.generation }))
    }

    /// Drops stale entries if they may be more than half, given how many allocations live and which entries count.
    pub(super) fn sweep(&mut self, live: usize, counts: impl Fn(Instant, AllocationIndex) -> bool) {
        if self.heap.len() > SWEEP_LEN_MIN.max(2 * live) {
            self.heap.retain(|Reverse(entry)| {
                counts(entry.due, AllocationIndex { slot: entry.slot, generation: entry.generation })
            });
        }
    }
}
