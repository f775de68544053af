//! How the shards of a file are numbered and which of them make up a group.

use std::ops::Range;

/// A shard of the file: its data segments in order, then its parity segments in order.
pub(crate) type ShardIndex = u32;
/// A group's place in the file.
pub(crate) type GroupIndex = u32;

/// The groups of a file. Without a code each segment is a group of its own, without parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    data_count: u32,
    /// Data shards a group, k; the last group may have fewer.
    data: u32,
    /// Parity shards a group, m.
    parity: u32,
}

impl Grouping {
    /// `data_count` segments in groups of `data`, at least 1, with `parity` parity shards each. The number of all shards
    /// must fit 32 bits.
    pub(crate) fn new(data_count: u32, data: u32, parity: u32) -> Grouping {
        Grouping { data_count, data: data.max(1), parity }
    }

    /// Segments without a code.
    pub(crate) fn uncoded(data_count: u32) -> Grouping {
        Grouping::new(data_count, 1, 0)
    }

    pub(crate) fn group_count(&self) -> u32 {
        self.data_count.div_ceil(self.data)
    }

    pub(crate) fn shard_count(&self) -> u32 {
        self.data_count + self.group_count() * self.parity
    }

    pub(crate) fn is_parity(&self, shard: ShardIndex) -> bool {
        shard >= self.data_count
    }

    pub(crate) fn group_of(&self, shard: ShardIndex) -> GroupIndex {
        match shard.checked_sub(self.data_count) {
            None => shard / self.data,
            Some(parity) => parity / self.parity.max(1),
        }
    }

    /// The group's data shards. As many shards as these, of whatever kind, make the group whole.
    pub(crate) fn data_of(&self, group: GroupIndex) -> Range<ShardIndex> {
        let start = (group * self.data).min(self.data_count);
        start..start.saturating_add(self.data).min(self.data_count)
    }

    pub(crate) fn parity_of(&self, group: GroupIndex) -> Range<ShardIndex> {
        let start = self.data_count + group * self.parity;
        start..start + self.parity
    }

    /// All shards of a group, data first.
    pub(crate) fn shards_of(&self, group: GroupIndex) -> impl Iterator<Item = ShardIndex> + Clone + use<> {
        self.data_of(group).chain(self.parity_of(group))
    }

    /// The shard's place among those that its group has: data from 0, then parity.
    pub(crate) fn ordinal(&self, shard: ShardIndex) -> usize {
        match shard.checked_sub(self.data_count) {
            None => (shard % self.data) as usize,
            Some(parity) => {
                let data = self.data_of(self.group_of(shard)).len();
                data + (parity % self.parity.max(1)) as usize
            }
        }
    }

    /// Data shards of a full group.
    pub(crate) fn data_per_group(&self) -> u32 {
        self.data
    }
}
