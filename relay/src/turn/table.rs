//! All allocations of a shard, and how they are found: by index, by client, by relayed address, by time.

use super::allocation::Allocation;
use super::timers::Timers;
use super::{AllocationIndex, FiveTuple, RelayId};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::time::Instant;

/// Generations have 24 bits, as many as a mobility ticket has room for: a late index is taken for a new one after 16 million
/// allocations in its slot.
const GENERATIONS: u32 = 1 << 24;

/// No slot: in the table by relayed address.
const NONE: u32 = u32::MAX;

/// The allocations of a shard.
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots by their client. Only clients that proved their credentials get in.
    by_client: HashTable<u32>,
    /// Slots by the id of a relayed address.
    by_relay: Vec<u32>,
    hasher: FixedState,
    timers: Timers,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

impl Table {
    pub(super) fn new(seed: u64) -> Table {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            by_client: HashTable::new(),
            by_relay: Vec::new(),
            hasher: FixedState::with_seed(seed),
            timers: Timers::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn get(&self, index: AllocationIndex) -> Option<&Allocation> {
        let slot = self.slots.get(index.slot as usize)?;
        if slot.generation == index.generation { slot.allocation.as_deref() } else { None }
    }

    pub(super) fn get_mut(&mut self, index: AllocationIndex) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(index.slot as usize)?;
        if slot.generation == index.generation { slot.allocation.as_deref_mut() } else { None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (AllocationIndex, &Allocation)> {
        (0u32..).zip(&self.slots).filter_map(|(slot, entry)| {
            let index = AllocationIndex { slot, generation: entry.generation };
            Some((index, entry.allocation.as_deref()?))
        })
    }

    pub(super) fn find(&self, client: &FiveTuple) -> Option<AllocationIndex> {
        let hash = self.hasher.hash_one(client);
        let &slot = self.by_client.find(hash, |&slot| client_of(&self.slots, slot) == Some(client))?;
        Some(AllocationIndex { slot, generation: self.slots[slot as usize].generation })
    }

    pub(super) fn find_relay(&self, relay: RelayId) -> Option<AllocationIndex> {
        let slot = *self.by_relay.get(relay.0 as usize)?;
        let generation = self.slots.get(slot as usize)?.generation;
        Some(AllocationIndex { slot, generation })
    }

    /// The index that the next [`insert`](Table::insert) gives.
    pub(super) fn next_index(&self) -> AllocationIndex {
        match self.free.last() {
            Some(&slot) => AllocationIndex { slot, generation: self.slots[slot as usize].generation },
            None => AllocationIndex { slot: self.slots.len() as u32, generation: 0 },
        }
    }

    /// Takes an allocation in. Its client has none yet.
    pub(super) fn insert(&mut self, allocation: Allocation) -> AllocationIndex {
        let index = self.next_index();
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        for relayed in allocation.relayed.iter().flatten() {
            let at = relayed.id.0 as usize;
            if at >= self.by_relay.len() {
                self.by_relay.resize(at + 1, NONE);
            }
            self.by_relay[at] = index.slot;
        }
        self.timers.push(allocation.queued, index);
        self.slots[index.slot as usize].allocation = Some(Box::new(allocation));
        self.attach(index);
        index
    }

    /// Takes an allocation out. Its relayed addresses are no longer found either.
    pub(super) fn remove(&mut self, index: AllocationIndex) -> Option<Box<Allocation>> {
        self.get(index)?;
        self.detach(index);
        let slot = &mut self.slots[index.slot as usize];
        let allocation = slot.allocation.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(index.slot);
        for relayed in allocation.relayed.iter().flatten() {
            self.forget_relay(relayed.id);
        }
        self.sweep();
        Some(allocation)
    }

    /// A relayed address closes while its allocation lives on.
    pub(super) fn forget_relay(&mut self, relay: RelayId) {
        if let Some(slot) = self.by_relay.get_mut(relay.0 as usize) {
            *slot = NONE;
        }
    }

    /// The allocation's client leads to it no more.
    pub(super) fn detach(&mut self, index: AllocationIndex) {
        let Some(allocation) = self.get_mut(index) else { return };
        if !std::mem::replace(&mut allocation.is_attached, false) {
            return;
        }
        let client = allocation.client;
        let hash = self.hasher.hash_one(client);
        if let Ok(entry) = self.by_client.find_entry(hash, |&slot| slot == index.slot) {
            entry.remove();
        }
    }

    /// The allocation's client leads to it from now on.
    pub(super) fn attach(&mut self, index: AllocationIndex) {
        let Some(allocation) = self.get_mut(index) else { return };
        allocation.is_attached = true;
        let client = allocation.client;
        let hash = self.hasher.hash_one(client);
        let (slots, hasher) = (&self.slots, &self.hasher);
        // The table asks again for the hashes of all when it grows.
        self.by_client.insert_unique(hash, index.slot, |&slot| {
            client_of(slots, slot).map_or(0, |client| hasher.hash_one(client))
        });
    }

    /// The allocation has to be looked at no later than `due`.
    pub(super) fn wake_by(&mut self, index: AllocationIndex, due: Instant) {
        let Some(allocation) = self.get_mut(index) else { return };
        if due < allocation.queued {
            self.queue(index, due);
        }
    }

    /// Sets the allocation's timer after it came up.
    pub(super) fn queue(&mut self, index: AllocationIndex, due: Instant) {
        let Some(allocation) = self.get_mut(index) else { return };
        allocation.queued = due;
        self.timers.push(due, index);
        self.sweep();
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// The next allocation that is to be looked at.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<AllocationIndex> {
        loop {
            let (due, index) = self.timers.pop_due(now)?;
            if self.get(index).is_some_and(|allocation| allocation.queued == due) {
                return Some(index);
            }
        }
    }

    fn sweep(&mut self) {
        let live = self.len();
        let slots = &self.slots;
        self.timers.sweep(live, |due, index| {
            let slot = &slots[index.slot as usize];
            slot.generation == index.generation
                && slot.allocation.as_ref().is_some_and(|allocation| allocation.queued == due)
        });
    }
}

fn client_of(slots: &[Slot], slot: u32) -> Option<&FiveTuple> {
    slots[slot as usize].allocation.as_ref().map(|allocation| &allocation.client)
}
