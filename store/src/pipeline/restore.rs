//! Bringing shards back, without any key.

use bytes::Bytes;

use super::buffers::Buffers;
use super::parity::{PaddedStripe, stripes};
use crate::Hash;
use crate::erasure::{Code, Codec, ErasureError, Shape};
use crate::list::{Group, ListView};

/// Why shards cannot be brought back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The list has no code.
    #[error("the list has no parity: lost segments can only be fetched elsewhere")]
    NoCode,
    /// The list has no such group.
    #[error("the list has no group {group}")]
    NoGroup {
        /// Which.
        group: u32,
    },
    /// More shards are lost than there is parity.
    #[error("group {group}: {present} of {needed} needed shards are there, {} more must be found", needed - present)]
    TooFew {
        /// Which.
        group: u32,
        /// Shards that are there.
        present: usize,
        /// How many it takes.
        needed: usize,
    },
    /// What was given is not what the group consists of, or is asked for though it is there.
    #[error(
        "group {group}: shard {shard} is there already, is none of the group's, or has another length than the list says"
    )]
    Shard {
        /// Which group.
        group: u32,
        /// Which shard of the list.
        shard: u32,
    },
    /// All shards were those of the list, and what was made of them is not: the publisher's parity is wrong.
    #[error(
        "group {group}: shard {shard} came back as something else than {expected}: the publisher coded the group wrongly"
    )]
    Differs {
        /// Which group.
        group: u32,
        /// Which shard of the list.
        shard: u32,
        /// Its address.
        expected: Hash,
    },
    /// The code refused.
    #[error(transparent)]
    Code(#[from] ErasureError),
}

/// A group with the addresses of its shards: all of a list that restoring takes, so that the list need not be at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupShards {
    /// Which group of the list, from 0.
    pub number: u32,
    /// Which shards it has.
    pub group: Group,
    /// Address and stored length in bytes of each of [`Group::shards`], in that order.
    pub addresses: Vec<(Hash, u32)>,
}

impl GroupShards {
    /// Of group `number` of a list.
    ///
    /// # Errors
    /// [`RestoreError::NoGroup`].
    pub fn of(list: &ListView<'_>, number: u32) -> Result<GroupShards, RestoreError> {
        let group = list.group(number).ok_or(RestoreError::NoGroup { group: number })?;
        let addresses = group.shards().filter_map(|shard| list.shard(shard)).collect();
        Ok(GroupShards { number, group, addresses })
    }
}

/// Brings back shards of a list's groups. Keeps what it computed for the last group, for others mostly lack the same shards.
#[derive(Debug)]
pub struct Restorer {
    codec: Codec,
    /// Of shards that were brought back, given back when those are dropped: fresh pages would cost more than the code does.
    buffers: Buffers,
}

impl Restorer {
    /// For the groups of this list.
    ///
    /// # Errors
    /// [`RestoreError::NoCode`].
    pub fn new(list: &ListView<'_>) -> Result<Restorer, RestoreError> {
        let (code, shape) = list.coding().ok_or(RestoreError::NoCode)?;
        Restorer::of_code(code, shape)
    }

    /// For the groups of any list with this code.
    ///
    /// # Errors
    /// [`RestoreError::Code`]: the code has no such shape.
    pub fn of_code(code: Code, shape: Shape) -> Result<Restorer, RestoreError> {
        let buffers = Buffers::new(2 * shape.parity);
        Ok(Restorer { codec: Codec::new(code, shape)?, buffers })
    }

    /// Brings back the shards `wanted` of a group, by their numbers in the list: their stored bytes, without padding, in the order of `wanted`, each
    /// verified by its address. `shards` has an element for each of [`GroupShards::addresses`], in that order: what was verified, or `None`.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(
        &mut self,
        of: &GroupShards,
        shards: &[Option<Bytes>],
        wanted: &[u32],
    ) -> Result<Vec<Bytes>, RestoreError> {
        let (group, layout) = (of.number, &of.group);
        let shape = layout.shape;
        let numbers: Vec<u32> = layout.shards().collect();
        let wrong = |shard| RestoreError::Shard { group, shard };
        if shards.len() != numbers.len() || of.addresses.len() != numbers.len() {
            return Err(wrong(numbers.get(shards.len()).copied().unwrap_or(layout.parity.end)));
        }
        // Data segments that the last group lacks are zeros, and there.
        let mut by_position: Vec<Option<&[u8]>> = vec![None; shape.shards()];
        by_position[layout.data.len()..shape.data].fill(Some(&[]));
        for ((number, shard), (_, len)) in numbers.iter().zip(shards).zip(&of.addresses) {
            let Some(bytes) = shard else { continue };
            let position = layout.position(*number).ok_or_else(|| wrong(*number))?;
            if bytes.len() != *len as usize {
                return Err(wrong(*number));
            }
            by_position[position] = Some(bytes);
        }
        let (present, needed) = (shards.iter().flatten().count(), layout.needed());
        if present < needed {
            return Err(RestoreError::TooFew { group, present, needed });
        }
        let positions = wanted
            .iter()
            .map(|number| layout.position(*number).ok_or_else(|| wrong(*number)))
            .collect::<Result<Vec<usize>, _>>()?;
        if let Some(at) = positions.iter().position(|position| by_position[*position].is_some()) {
            return Err(wrong(wanted[at]));
        }
        let shard_len = layout.shard_len as usize;
        let mut restored: Vec<_> = wanted.iter().map(|_| self.buffers.take_filled(shard_len)).collect();
        for range in stripes(shard_len) {
            let there = by_position.iter().flatten().copied();
            let stripe = PaddedStripe::new(&range, there);
            let mut next = 0;
            let inputs: Vec<Option<&[u8]>> = by_position
                .iter()
                .map(|shard| {
                    shard.map(|bytes| {
                        next += 1;
                        stripe.of(next - 1, &range, bytes)
                    })
                })
                .collect();
            let mut outputs: Vec<(usize, &mut [u8])> = positions
                .iter()
                .copied()
                .zip(restored.iter_mut().map(|shard| &mut shard.bytes[range.clone()]))
                .collect();
            self.codec.reconstruct(&inputs, &mut outputs)?;
        }
        let mut verified = Vec::with_capacity(wanted.len());
        for (shard, mut bytes) in wanted.iter().copied().zip(restored) {
            let at = numbers.iter().position(|number| *number == shard).ok_or_else(|| wrong(shard))?;
            let (expected, len) = of.addresses[at];
            bytes.bytes.truncate(len as usize);
            if Hash::of(&bytes.bytes) != expected {
                return Err(RestoreError::Differs { group, shard, expected });
            }
            verified.push(bytes.into_bytes());
        }
        Ok(verified)
    }
}
