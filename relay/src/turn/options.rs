//! What a server is made with, and what may change while it runs.

use std::time::Duration;

/// What a server is made with. The keys are the same on every shard of a node and for as long as its process lives.
#[derive(Clone)]
pub struct ServerOptions {
    /// This shard.
    pub shard: u16,
    /// How many shards the node has; above `shard`.
    pub shard_count: u16,
    /// Key of the stateless nonces.
    pub nonce_key: [u8; 32],
    /// Key of mobility tickets and reservation tokens.
    pub ticket_key: [u8; 32],
    /// Seed of the hash tables.
    pub hash_seed: u64,
}

/// What may change while the server runs, without dropping a session.
#[derive(Clone, Debug, Default)]
pub struct TurnPolicy {
    /// Sent as REALM.
    pub realm: String,
    /// Lifetimes and the lengths of tables.
    pub limits: TurnLimits,
    /// Whether clients may ask for mobility (RFC 8016). Otherwise they get 405.
    pub mobility: bool,
    /// Refuse new allocations with 508, keep those that live.
    pub drain: bool,
}

/// Bounds of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Lifetime of an allocation whose client does not ask for one, or asks for less. RFC 8656 section 3.2 gives 600 s.
    pub lifetime_default: Duration,
    /// The longest lifetime. RFC 8656 section 7.2 recommends 3,600 s.
    pub lifetime_max: Duration,
    /// Permissions an allocation. A client in a call needs one a candidate address of the other side, some tens.
    pub permissions_max: u16,
    /// Channels an allocation, resting ones too. There are 4,096 numbers.
    pub channels_max: u16,
    /// Allocations a shard.
    pub allocations_max: u32,
}

impl Default for TurnLimits {
    fn default() -> TurnLimits {
        TurnLimits {
            lifetime_default: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(3_600),
            permissions_max: 128,
            channels_max: 128,
            allocations_max: 100_000,
        }
    }
}
