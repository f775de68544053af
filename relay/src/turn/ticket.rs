//! Mobility tickets and reservation tokens: what a client keeps for us and shows later, maybe to another shard.
//!
//! Both are drawn in `relay/docs/turn.md`. A ticket carries a MAC under a key that all shards share, so that any of them can tell a
//! ticket of this node from anything else before it passes the message on; it proves nothing about who shows it, which is what
//! the credentials are for. A token has only eight bytes (RFC 8656 section 18.10): the shard, and 48 random bits.

use super::AllocationIndex;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Length of a mobility ticket in bytes. It is text, and no longer than this, because coturn's client keeps tickets as C
/// strings of at most 32 bytes.
pub(super) const TICKET_LEN: usize = (BODY_LEN + MAC_LEN) / 3 * 4;

const BODY_LEN: usize = 12;

/// 96 bits. Whoever guesses a ticket still needs the credentials of its allocation's user.
const MAC_LEN: usize = 12;

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
    /// The ticket as text, with its MAC.
    pub(super) fn seal(&self, key: &[u8; 32]) -> [u8; TICKET_LEN] {
        let mut bytes = [0; BODY_LEN + MAC_LEN];
        let (body, mac) = bytes.split_at_mut(BODY_LEN);
        body[..2].copy_from_slice(&self.shard.to_be_bytes());
        body[2..5].copy_from_slice(&self.index.slot.to_be_bytes()[1..]);
        body[5..8].copy_from_slice(&self.index.generation.to_be_bytes()[1..]);
        body[8..].copy_from_slice(&self.count.to_be_bytes());
        mac.copy_from_slice(&mac_of(key, body).as_bytes()[..MAC_LEN]);
        let mut text = [0; TICKET_LEN];
        // The lengths fit each other, so this does not fail.
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        text
    }

    /// What a ticket says, if it was sealed with this key.
    pub(super) fn open(key: &[u8; 32], text: &[u8]) -> Option<Ticket> {
        let mut bytes = [0; BODY_LEN + MAC_LEN];
        if text.len() != TICKET_LEN || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len() {
            return None;
        }
        let (body, mac) = bytes.split_first_chunk::<BODY_LEN>()?;
        let mut shown = [0; blake3::OUT_LEN];
        shown[..MAC_LEN].copy_from_slice(mac);
        // Hashes compare in constant time.
        if mac_of(key, body) != blake3::Hash::from_bytes(shown) {
            return None;
        }
        let &[s0, s1, a0, a1, a2, g0, g1, g2, c0, c1, c2, c3] = body;
        let index = AllocationIndex {
            slot: u32::from_be_bytes([0, a0, a1, a2]),
            generation: u32::from_be_bytes([0, g0, g1, g2]),
        };
        Some(Ticket {
            shard: u16::from_be_bytes([s0, s1]),
            index,
            count: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// The MAC of a ticket's body, cut to its length and filled up with zeros.
fn mac_of(key: &[u8; 32], body: &[u8]) -> blake3::Hash {
    let mut mac = *blake3::keyed_hash(key, body).as_bytes();
    mac[MAC_LEN..].fill(0);
    blake3::Hash::from_bytes(mac)
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
