//! The connection ids that this server chooses: which shard they belong to, whose key made them, and the stateless
//! reset token of each. Pure: randomness and keys are arguments. Drawn, with test vectors, in
//! `engine/docs/connection-id.md`.
//!
//! An id must do three things at once. The kernel's classic BPF program reads its first byte, without a key, to find
//! the shard; everyone else must learn nothing from it but that; and a server that has lost a connection must be able
//! to tell its own old ids (answer with a stateless reset) from noise and from the ids of another process that shares
//! its key (stay silent). So the first byte is random within its residue class, and the other sixteen are one AES-128
//! block, as in draft-ietf-quic-load-balancers section 5.4.1, that holds a copy of the first byte, the key generation
//! and 72 random bits.

use boring::symm::{Cipher, Crypter, Mode};

/// Length of every connection id that this server chooses, bytes.
pub const CONNECTION_ID_LEN: usize = 17;

/// Shards that one byte can tell apart.
pub const SHARDS_MAX: usize = 256;

/// Version of the layout, the second byte of the encrypted block. Three bytes of the block are known in advance, so a
/// made-up id passes for ours once in 2^24 tries, and even then earns no more than a useless reset.
const LAYOUT_VERSION: u8 = 1;

/// A connection id of our own making.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId([u8; CONNECTION_ID_LEN]);

impl ConnectionId {
    /// The id in a received header, if it has the length of ours.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id as it stands in a packet.
    pub fn as_bytes(&self) -> &[u8; CONNECTION_ID_LEN] {
        &self.0
    }
}

impl std::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The shard that a connection id belongs to, of `shard_count` (1 to 256): its first byte modulo the count. It holds
/// for the ids that clients choose for their first flight too. An empty id belongs to shard 0.
pub fn shard_of(id: &[u8], shard_count: usize) -> usize {
    id.first().map_or(0, |byte| usize::from(*byte) % shard_count.max(1))
}

/// What an id says once it is decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made under this key and this generation: a connection of this process, or of one that ran before it.
    Ours,
    /// Made under this key by a process of another generation, which may be alive: never answer for it.
    OtherGeneration(u32),
    /// Not made under this key.
    Unknown,
}

/// The keys of one process, shared by its shards. The generation is kept beside the key on disk: processes that share
/// a key but not a generation do not reset each other's connections.
#[derive(Clone)]
pub struct Keys {
    generation: u32,
    id_key: [u8; 16],
    token_key: [u8; 32],
}

impl Keys {
    /// Derives the keys from a 32-byte secret (`DIR/engine/quic.key`) and its generation.
    pub fn new(secret: &[u8; 32], generation: u32) -> Self {
        let id_key = blake3::derive_key("ioex 2026 connection id permutation v1", secret);
        let mut seed = [0; 36];
        seed[..32].copy_from_slice(secret);
        seed[32..].copy_from_slice(&generation.to_le_bytes());
        Self {
            generation,
            id_key: id_key[..16].try_into().expect("a slice of sixteen bytes"),
            token_key: blake3::derive_key("ioex 2026 stateless reset token v1", &seed),
        }
    }

    /// A new id of `shard` (of `shard_count`), from 10 random bytes.
    ///
    /// # Panics
    /// If `shard` is not below `shard_count`, or that not within [`SHARDS_MAX`]: both come from the process's own
    /// configuration.
    pub fn issue(&self, shard: usize, shard_count: usize, random: [u8; 10]) -> ConnectionId {
        assert!(shard < shard_count && shard_count <= SHARDS_MAX, "shard {shard} of {shard_count}");
        let mut steering = usize::from(random[0]);
        steering = steering - steering % shard_count + shard;
        if steering > 255 {
            steering -= shard_count;
        }
        let steering = u8::try_from(steering).expect("one class was subtracted above");
        let mut block = [0; 16];
        block[0] = steering;
        block[1] = LAYOUT_VERSION;
        block[2..6].copy_from_slice(&self.generation.to_le_bytes());
        block[6] = 0;
        block[7..].copy_from_slice(&random[1..]);
        let mut id = [0; CONNECTION_ID_LEN];
        id[0] = steering;
        id[1..].copy_from_slice(&self.permute(Mode::Encrypt, &block));
        ConnectionId(id)
    }

    /// Who made this id. Costs an AES block: for ids that no connection answers to, not for every packet.
    pub fn origin(&self, id: &ConnectionId) -> Origin {
        let block = self.permute(Mode::Decrypt, id.0[1..].try_into().expect("seventeen bytes less one"));
        if block[0] != id.0[0] || block[1] != LAYOUT_VERSION || block[6] != 0 {
            return Origin::Unknown;
        }
        match u32::from_le_bytes(block[2..6].try_into().expect("four bytes")) {
            generation if generation == self.generation => Origin::Ours,
            generation => Origin::OtherGeneration(generation),
        }
    }

    /// The stateless reset token of an id (RFC 9000 section 10.3.2), of this process's generation.
    pub fn reset_token(&self, id: &ConnectionId) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.token_key, id.as_bytes());
        hash.as_bytes()[..16].try_into().expect("sixteen of thirty-two bytes")
    }

    fn permute(&self, mode: Mode, block: &[u8; 16]) -> [u8; 16] {
        let mut crypter = Crypter::new(Cipher::aes_128_ecb(), mode, &self.id_key, None)
            .expect("AES-128 takes a 16-byte key and no nonce");
        crypter.pad(false);
        let mut out = [0; 32];
        crypter.update(block, &mut out).expect("one block into room for two");
        out[..16].try_into().expect("sixteen of thirty-two bytes")
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("generation", &self.generation).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn ids_carry_their_shard_and_their_origin() {
        let keys = Keys::new(&[7; 32], 3);
        let later = Keys::new(&[7; 32], 4);
        let strangers = Keys::new(&[8; 32], 3);
        for shard_count in [1, 2, 3, 7, 64, 255, 256] {
            for shard in 0..shard_count {
                for byte in [0u8, 1, 100, 254, 255] {
                    let id = keys.issue(shard, shard_count, [byte; 10]);
                    assert_eq!(shard_of(id.as_bytes(), shard_count), shard);
                    assert_eq!(keys.origin(&id), Origin::Ours);
                    assert_eq!(later.origin(&id), Origin::OtherGeneration(3));
                    assert_eq!(strangers.origin(&id), Origin::Unknown);
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_is_not_ours() {
        let keys = Keys::new(&[7; 32], 3);
        let id = keys.issue(1, 2, *b"0123456789");
        for at in 0..CONNECTION_ID_LEN {
            let mut changed = *id.as_bytes();
            changed[at] ^= 1;
            assert_eq!(keys.origin(&ConnectionId(changed)), Origin::Unknown, "byte {at}");
        }
    }

    #[test]
    fn tokens_differ_by_id_and_generation() {
        let keys = Keys::new(&[7; 32], 3);
        let a = keys.issue(0, 1, *b"0123456789");
        let b = keys.issue(0, 1, *b"0123456780");
        assert_ne!(keys.reset_token(&a), keys.reset_token(&b));
        assert_ne!(keys.reset_token(&a), Keys::new(&[7; 32], 4).reset_token(&a));
    }

    /// The vectors of `engine/docs/connection-id.md`.
    #[test]
    fn test_vectors() {
        let secret: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).expect("below 32"));
        let page = include_str!("../docs/connection-id.md");
        for (generation, shard, count, random) in
            [(1, 0, 1, [0; 10]), (1, 1, 2, *b"0123456789"), (0xdead_beef, 5, 8, [0xff; 10])]
        {
            let keys = Keys::new(&secret, generation);
            let id = keys.issue(shard, count, random);
            let line = format!(
                "| {generation} | {shard} of {count} | `{}` | `{}` | `{}` |",
                hex(&random),
                hex(id.as_bytes()),
                hex(&keys.reset_token(&id))
            );
            assert!(page.contains(&line), "the page lacks: {line}");
        }
    }
}
