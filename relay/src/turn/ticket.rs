//! Mobility tickets and reservation tokens: what a client keeps for us and shows later, maybe to another shard.
//!
//! Both are drawn in `relay/docs/turn.md`. A ticket carries a MAC under a key that all shards share, so that any of them can tell a
//! ticket of this node from anything else before it passes the message on; it proves nothing about who shows it, which is what
//! the credentials are for. A token has only eight bytes (RFC 8656 section 18.10): the shard, and 48 random bits.

use super::AllocationIndex;

/// Length of a mobility ticket in bytes.
pub(super) const TICKET_LEN: usize = BODY_LEN + blake3::OUT_LEN;

const VERSION: u8 = 1;
const BODY_LEN: usize = 16;

/// What a mobility ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The shard that has the allocation.
    pub(super) shard: u16,
    /// The allocation.
    pub(super) index: AllocationIndex,
    /// How many tickets the allocation was given before this one, modulo 2^32.
    pub(super) count: u32,
}

impl Ticket {
    /// The ticket as bytes, with its MAC.
    pub(super) fn seal(&self, key: &[u8; 32]) -> [u8; TICKET_LEN] {
        let mut bytes = [0; TICKET_LEN];
        let (body, mac) = bytes.split_at_mut(BODY_LEN);
        body[0] = VERSION;
        body[2..4].copy_from_slice(&self.shard.to_be_bytes());
        body[4..8].copy_from_slice(&self.index.slot.to_be_bytes());
        body[8..12].copy_from_slice(&self.index.generation.to_be_bytes());
        body[12..16].copy_from_slice(&self.count.to_be_bytes());
        mac.copy_from_slice(blake3::keyed_hash(key, body).as_bytes());
        bytes
    }

    /// What a ticket says, if it was sealed with this key.
    pub(super) fn open(key: &[u8; 32], bytes: &[u8]) -> Option<Ticket> {
        let (body, mac) = bytes.split_first_chunk::<BODY_LEN>()?;
        let mac: [u8; blake3::OUT_LEN] = mac.try_into().ok()?;
        // Hashes compare in constant time.
        if blake3::keyed_hash(key, body) != blake3::Hash::from_bytes(mac) || body[..2] != [VERSION, 0] {
            return None;
        }
        let &[_, _, s0, s1, a0, a1, a2, a3, g0, g1, g2, g3, c0, c1, c2, c3] = body;
        let index = AllocationIndex {
            slot: u32::from_be_bytes([a0, a1, a2, a3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        };
        Some(Ticket {
            shard: u16::from_be_bytes([s0, s1]),
            index,
            count: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// A reservation token that names its shard.
pub(super) fn reservation_token(shard: u16, random: &mut impl FnMut(&mut [u8])) -> [u8; 8] {
    let mut token = [0; 8];
    random(&mut token);
    token[..2].copy_from_slice(&shard.to_be_bytes());
    token
}

/// The shard that made a reservation token, if it was made on this node.
pub(super) fn reservation_shard(token: &[u8; 8]) -> u16 {
    u16::from_be_bytes([token[0], token[1]])
}
