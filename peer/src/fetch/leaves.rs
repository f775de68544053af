//! Where the verified blocks of a segment that is not whole yet lie in the partial file, so that a fetch that is killed
//! asks for the rest only.
//!
//! Stored bytes are never longer than plain ones but for a tag, so most shards have their blocks where their plain bytes
//! will be. Parity, and compressed segments of a coded file, are needed as they are stored until their group is whole:
//! they lie behind the file's end, in slots that groups use in turn. What is read from either place is verified against
//! the outboard before it counts, so no record says what is there; a slot that another group has used since is simply of
//! no use.

use super::plan::Plan;
use super::schedule::ShardIndex;

/// Slots behind the file are for so many bytes of groups, or for two groups; they are holes until they are written to.
const SLOTS_BYTES: u64 = 64 << 20;
const SLOT_GROUPS_MIN: u64 = 2;

/// A part of the partial file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    /// Bytes of the shard, from its first on, that have room.
    pub(crate) len: u32,
    /// Whether it is behind the file's end.
    pub(crate) is_slot: bool,
}

/// Where a shard's stored bytes may lie.
pub(crate) fn place(plan: &Plan, shard: ShardIndex) -> Place {
    let (_, stored_len) = plan.shard(shard);
    if let Some(segment) = plan.segments.get(shard as usize)
        && !is_held(plan, shard)
    {
        let len = segment.stored_len.min(segment.plain_len);
        return Place { offset: segment.file_offset, len, is_slot: false };
    }
    let group = u64::from(plan.grouping.group_of(shard)) % slot_groups(plan);
    let slot = group * shards_per_group(plan) + plan.grouping.ordinal(shard) as u64;
    let offset = plan.file_len + slot * u64::from(plan.shard_len_max);
    Place { offset, len: stored_len, is_slot: true }
}

/// Whether the stored bytes of a shard are needed until its group is whole.
fn is_held(plan: &Plan, shard: ShardIndex) -> bool {
    plan.coding.is_some() && !plan.can_be_stored_again(shard)
}

/// The partial file's length with all slots, in bytes.
pub(crate) fn len_max(plan: &Plan) -> u64 {
    if plan.coding.is_none() {
        return plan.file_len;
    }
    plan.file_len + slot_groups(plan) * shards_per_group(plan) * u64::from(plan.shard_len_max)
}

fn slot_groups(plan: &Plan) -> u64 {
    let group = shards_per_group(plan) * u64::from(plan.shard_len_max.max(1));
    (SLOTS_BYTES / group).max(SLOT_GROUPS_MIN)
}

fn shards_per_group(plan: &Plan) -> u64 {
    plan.coding.map_or(1, |(_, shape)| shape.shards() as u64)
}
