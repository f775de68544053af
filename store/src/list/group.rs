//! Groups: which shards stand for each other.

use std::ops::Range;

use super::GROUP_LEN_MAX;
use crate::SEGMENT_LEN_MAX;
use crate::erasure::{Code, Shape};

/// The shards of a group. Shards are numbered through the whole list: data segments first, parity segments behind them, each in the order of
/// their table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its data segments. The last group may have fewer than k.
    pub data: Range<u32>,
    /// Its parity segments, in the numbering of shards.
    pub parity: Range<u32>,
    /// What each shard counts as, in bytes, when the group is coded: shorter ones are padded with zeros, and data segments that the last group
    /// lacks are zeros altogether. Parity segments have this length.
    pub shard_len: u32,
    /// k and m.
    pub shape: Shape,
}

impl Group {
    /// Numbers of all shards that the group has: data, then parity.
    pub fn shards(&self) -> impl DoubleEndedIterator<Item = u32> + Clone + use<> {
        self.data.clone().chain(self.parity.clone())
    }

    /// The place in the code of the list's shard `shard`: 0 .. k for data, k .. k + m for parity; `None` if it is none of this group's.
    pub fn position(&self, shard: u32) -> Option<usize> {
        if self.data.contains(&shard) {
            Some((shard - self.data.start) as usize)
        } else if self.parity.contains(&shard) {
            Some(self.shape.data + (shard - self.parity.start) as usize)
        } else {
            None
        }
    }

    /// How many shards of the group must be had to bring back the others: as many as it has data segments.
    pub fn needed(&self) -> usize {
        self.data.len()
    }
}

/// A group cannot be as large as this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "groups of {data} segments of up to {segment_len} bytes are longer than {len_max} bytes, or a shard is longer than {shard_len_max}: choose shorter segments or fewer a group"
)]
pub struct GroupSizeError {
    /// k.
    pub data: usize,
    /// Longest stored length of a segment, bytes.
    pub segment_len: u64,
    /// Most bytes of data in a group.
    pub len_max: u64,
    /// Most bytes of a shard.
    pub shard_len_max: u64,
}

/// The shard length of a group whose longest segment has `segment_len` stored bytes.
///
/// # Errors
/// [`GroupSizeError`]: a receiver could not be asked to hold such a group.
pub fn group_len(code: Code, shape: Shape, segment_len: u64) -> Result<u32, GroupSizeError> {
    let len = segment_len.next_multiple_of(code.shard_align() as u64);
    let shard_len_max = u64::from(SEGMENT_LEN_MAX);
    if len > shard_len_max || (shape.data as u64).saturating_mul(len) > GROUP_LEN_MAX {
        return Err(GroupSizeError { data: shape.data, segment_len, len_max: GROUP_LEN_MAX, shard_len_max });
    }
    Ok(len as u32)
}
