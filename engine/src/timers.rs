//! One timer for each small integer key (a connection's slot), for thousands of keys. Pure: time is an argument.
//!
//! A QUIC connection moves its timer with almost every packet, nearly always to a later time. So moving a timer back only
//! writes its new time down; the heap entry stays where it is and is pushed again when it comes up too early. Moving a
//! timer forward pushes a second entry and leaves the first one behind as stale. Stale entries are swept when they are more
//! than half of the heap, so the heap is never longer than twice the running timers and a constant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Heap entries below which sweeping is not worth it.
const SWEEP_LEN_MIN: usize = 64;

/// Timers by key.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    slots: Vec<Slot>,
    running: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// When the timer is due; `None`: it does not run.
    due: Option<Instant>,
    /// The time of the key's one heap entry that counts, never after `due`. Entries with any other time are stale.
    queued: Option<Instant>,
}

impl Timers {
    /// No timers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the key's timer to `due`, or stops it. Memory grows with the largest key ever set.
    pub fn set(&mut self, key: u32, due: Option<Instant>) {
        let index = key as usize;
        if index >= self.slots.len() {
            if due.is_none() {
                return;
            }
            self.slots.resize(index + 1, Slot::default());
        }
        let slot = &mut self.slots[index];
        self.running += usize::from(due.is_some());
        self.running -= usize::from(slot.due.is_some());
        slot.due = due;
        if let Some(due) = due
            && slot.queued.is_none_or(|queued| due < queued)
        {
            slot.queued = Some(due);
            self.heap.push(Reverse((due, key)));
        }
        if self.heap.len() > SWEEP_LEN_MIN.max(2 * self.running) {
            self.sweep();
        }
    }

    /// When the key's timer is due.
    #[must_use]
    pub fn due(&self, key: u32) -> Option<Instant> {
        self.slots.get(key as usize)?.due
    }

    /// When the first timer is due.
    pub fn next_due(&mut self) -> Option<Instant> {
        loop {
            let &Reverse((queued, key)) = self.heap.peek()?;
            if self.slots[key as usize] == (Slot { due: Some(queued), queued: Some(queued) }) {
                return Some(queued);
            }
            self.requeue_first();
        }
    }

    /// Stops the first timer that is due at `now` and returns its key. Earlier ones come first; of those due at the same
    /// time, the smaller key.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.slots[key as usize] = Slot::default();
        self.running -= 1;
        Some(key)
    }

    /// Timers that run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running
    }

    /// Whether no timer runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running == 0
    }

    /// Takes the first entry away and, if it counts and its timer runs, pushes it again with the timer's present time.
    fn requeue_first(&mut self) {
        let Some(Reverse((queued, key))) = self.heap.pop() else { return };
        let slot = &mut self.slots[key as usize];
        if slot.queued == Some(queued) {
            slot.queued = slot.due;
            self.heap.extend(slot.due.map(|due| Reverse((due, key))));
        }
    }

    /// Rebuilds the heap with one entry a running timer.
    fn sweep(&mut self) {
        self.heap.clear();
        for (key, slot) in self.slots.iter_mut().enumerate() {
            slot.queued = slot.due;
            self.heap.extend(slot.due.map(|due| Reverse((due, key as u32))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Stop(u32),
        Advance(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..40u32, 0..200u64).prop_map(|(key, after)| Step::Set(key, after)),
            1 => (0..40u32).prop_map(Step::Stop),
            2 => (0..50u64).prop_map(Step::Advance),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map(steps in steps()) {
            let start = Instant::now();
            let at = |after| start + Duration::from_millis(after);
            let (mut now, mut timers, mut model) = (0, Timers::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Set(key, after) => {
                        timers.set(key, Some(at(now + after)));
                        model.insert(key, now + after);
                    }
                    Step::Stop(key) => {
                        timers.set(key, None);
                        model.remove(&key);
                    }
                    Step::Advance(by) => now += by,
                }
                let mut expected: Vec<_> =
                    model.iter().filter(|&(_, &due)| due <= now).map(|(&key, &due)| (due, key)).collect();
                expected.sort_unstable();
                prop_assert_eq!(timers.next_due(), model.values().min().map(|&due| at(due)));
                for (due, key) in expected {
                    prop_assert_eq!(timers.due(key), Some(at(due)));
                    prop_assert_eq!(timers.pop_due(at(now)), Some(key));
                    model.remove(&key);
                }
                prop_assert_eq!(timers.pop_due(at(now)), None);
                prop_assert_eq!(timers.len(), model.len());
                prop_assert!(timers.heap.len() <= 2 * 40 + 1, "{}", timers.heap.len());
            }
        }
    }

    #[test]
    fn a_timer_that_only_moves_forward_leaves_a_bounded_heap() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for step in (0..10_000).rev() {
            timers.set(3, Some(start + Duration::from_millis(step)));
        }
        assert!(timers.heap.len() <= SWEEP_LEN_MIN + 1);
        assert_eq!((timers.next_due(), timers.pop_due(start), timers.len()), (Some(start), Some(3), 0));
    }

    #[test]
    fn a_timer_that_moves_back_keeps_its_one_entry() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for step in 0..10_000 {
            timers.set(0, Some(start + Duration::from_millis(step)));
        }
        assert_eq!(timers.heap.len(), 1);
        assert_eq!(timers.pop_due(start + Duration::from_millis(9_998)), None);
        assert_eq!(timers.pop_due(start + Duration::from_millis(9_999)), Some(0));
    }

    #[test]
    fn stopping_an_unknown_key_takes_no_memory() {
        let mut timers = Timers::new();
        timers.set(u32::MAX, None);
        assert!(timers.slots.is_empty() && timers.is_empty());
    }
}
