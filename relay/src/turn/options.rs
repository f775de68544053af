//! What a server is made with, and what may change while it runs.

use super::access::AccessList;
use super::ledger::Ledger;
use crate::policy::{POLICY_WITHOUT_END, RelayLimits, RelayPolicy, UidAccess};
use crate::stun::{Credentials, CredentialsError};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a server is made with. Keys and ledger are the same on every shard of a node, for as long as its process lives.
#[derive(Clone)]
pub struct ServerOptions {
    /// This shard, below `shard_count`.
    pub shard: u16,
    /// How many shards the node has.
    pub shard_count: u16,
    /// Random: key of the stateless nonces.
    pub nonce_key: [u8; 32],
    /// Random: key of mobility tickets.
    pub ticket_key: [u8; 32],
    /// Random, another one for each shard: seed of the hash tables.
    pub hash_seed: u64,
    /// Quotas and rates of the node.
    pub ledger: Arc<Ledger>,
    /// When the server is made.
    pub started: Instant,
}

/// What may change while the server runs, without dropping a session: a [`RelayPolicy`] made ready for use.
#[derive(Clone, Debug)]
pub struct TurnPolicy {
    /// Realm and users.
    pub credentials: Credentials,
    /// Which clients, and which peers.
    pub access: AccessList,
    /// Quotas, rates, lifetimes and the lengths of tables.
    pub limits: RelayLimits,
    /// Whether clients may ask for mobility (RFC 8016). Otherwise they get 405.
    pub mobility: bool,
    /// Refuse new allocations with 508, keep those that live.
    pub draining: bool,
    /// From when on new allocations are refused with 508, because the policy has expired: seconds since 1970-01-01 UTC.
    pub valid_until_s: u64,
    /// Users whose name is a UID are held to these.
    pub uids: UidAccess,
}

impl TurnPolicy {
    /// Makes a policy ready that has no end and serves every UID. `own`: the node's own addresses, those of its interfaces, its relay addresses and their external ones.
    ///
    /// # Errors
    /// What of realm, users or secrets cannot be used.
    pub fn new(policy: &RelayPolicy, own: &[IpAddr]) -> Result<TurnPolicy, CredentialsError> {
        Ok(TurnPolicy {
            credentials: Credentials::try_from(policy)?,
            access: AccessList::new(policy, own),
            limits: policy.limits.clone(),
            mobility: policy.mobility,
            draining: policy.draining,
            valid_until_s: POLICY_WITHOUT_END,
            uids: UidAccess::default(),
        })
    }

    /// The lifetime for what a client asks: "If this computed value is greater than the default lifetime, then the server uses the
    /// computed lifetime [...] Otherwise, the server uses the default lifetime" (RFC 8656 section 7.2).
    pub(super) fn lifetime(&self, requested_s: Option<u32>) -> Duration {
        let RelayLimits { lifetime_default_s, lifetime_max_s, .. } = self.limits;
        let seconds = requested_s.unwrap_or(0).min(lifetime_max_s).max(lifetime_default_s);
        Duration::from_secs(seconds.into())
    }
}
