//! What the relays of a node's shards share.

use super::addresses::{LiveRelayed, RelayAddress};
use super::places::StreamPlaces;
use super::ports::PortRange;
use super::sessions::{SessionEvents, SessionLog};
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay::policy::Policy;
use relay::stun::CredentialsError;
use relay::turn::TurnPolicy;
use relay::turn::ledger::Ledger;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the relays of a node's shards share. Each shard has a clone.
#[derive(Clone)]
pub struct NodeRelay {
    /// The relay addresses, and which of their ports are live.
    pub(super) live: Arc<LiveRelayed>,
    /// Where the ports of allocations come from.
    pub(super) ports: PortRange,
    /// Quotas and rates.
    pub(super) ledger: Arc<Ledger>,
    /// Streams of clients' addresses.
    pub(super) places: Arc<StreamPlaces>,
    /// Keys of the nonces, of tickets and tokens, and of what each shard draws its random numbers from.
    pub(super) keys: Arc<[[u8; 32]; 3]>,
    /// Where sessions that begin and end are told.
    pub(super) log: SessionLog,
    listeners: Arc<[SocketAddr]>,
    /// The policies that were made ready last, at most [`PREPARED_MAX`].
    prepared: Arc<Mutex<VecDeque<Prepared>>>,
}

/// One that shards may still ask for while the next one is made ready.
const PREPARED_MAX: usize = 2;

/// How long the node's own addresses, and what was made with them, are good for: a policy may change a hundred times a second.
const OWN_ADDRESSES_AGE_MAX: Duration = Duration::from_secs(1);

struct Prepared {
    from: Arc<Policy>,
    is_draining: bool,
    policy: Arc<TurnPolicy>,
    /// The node's own addresses, and when they were listed.
    own: Arc<[IpAddr]>,
    listed: Instant,
}

impl Prepared {
    /// Whether `policy` differs from what it was made of in nothing that concerns the relay.
    fn is_for(&self, policy: &Policy) -> bool {
        self.from.relay == policy.relay
            && self.from.uids == policy.uids
            && self.from.valid_until_s == policy.valid_until_s
    }
}

impl NodeRelay {
    /// The keys are new ones: nonces and tickets of an earlier process are refused, and clients ask again.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn new(
        listeners: &[SocketAddr],
        addresses: &[RelayAddress],
        ports: PortRange,
        shard_count: usize,
    ) -> Result<(NodeRelay, SessionEvents), getrandom::Error> {
        let mut keys = [[0; 32]; 3];
        getrandom::fill(keys.as_flattened_mut())?;
        let (log, events) = SessionLog::new();
        let node = NodeRelay {
            live: Arc::new(LiveRelayed::new(addresses)),
            ports,
            ledger: Ledger::new(Instant::now(), shard_count, getrandom::u64()?),
            places: Arc::default(),
            keys: Arc::new(keys),
            log,
            listeners: listeners.into(),
            prepared: Arc::default(),
        };
        Ok((node, events))
    }

    /// Random numbers of a shard, which nobody can guess.
    #[must_use]
    pub(super) fn random(&self, shard: usize) -> StdRng {
        StdRng::from_seed(*blake3::keyed_hash(&self.keys[2], &shard.to_le_bytes()).as_bytes())
    }

    /// A policy made ready for the server. The first who asks makes it, the others get the same one. One that differs from the last in
    /// nothing that concerns the relay is the same one too.
    ///
    /// # Errors
    /// What of the policy cannot be used.
    pub fn prepare(
        &self,
        policy: &Arc<Policy>,
        is_draining: bool,
    ) -> Result<Arc<TurnPolicy>, CredentialsError> {
        let last = {
            let mut prepared = self.lock_prepared();
            let made = prepared
                .iter()
                .find(|made| Arc::ptr_eq(&made.from, policy) && made.is_draining == is_draining);
            if let Some(made) = made {
                return Ok(Arc::clone(&made.policy));
            }
            let last = prepared.back_mut().filter(|last| last.listed.elapsed() < OWN_ADDRESSES_AGE_MAX);
            if let Some(last) = last {
                if last.is_draining == is_draining && last.is_for(policy) {
                    last.from = Arc::clone(policy);
                    return Ok(Arc::clone(&last.policy));
                }
                Some((Arc::clone(&last.own), last.listed))
            } else {
                None
            }
        };
        // Without the lock, for this may take milliseconds, and shards ask for what is ready.
        let (own, listed) = last.unwrap_or_else(|| (self.own_addresses().into(), Instant::now()));
        let mut made = TurnPolicy::new(&policy.relay, &own)?;
        made.draining |= is_draining;
        made.valid_until_s = policy.valid_until_s;
        made.uids = policy.uids.clone();
        let made = Arc::new(made);
        let mut prepared = self.lock_prepared();
        if prepared.len() == PREPARED_MAX {
            prepared.pop_front();
        }
        let policy = Arc::clone(policy);
        prepared.push_back(Prepared { from: policy, is_draining, policy: Arc::clone(&made), own, listed });
        Ok(made)
    }

    fn lock_prepared(&self) -> MutexGuard<'_, VecDeque<Prepared>> {
        // A thread that panicked has left nothing half done: what is stored is whole.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's own addresses: of its interfaces, of its listeners, and what it relays from, inside and outside.
    fn own_addresses(&self) -> Vec<IpAddr> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!(%error, "the addresses of this machine's interfaces cannot be listed; name them in peer_deny");
            Vec::new()
        });
        let interfaces = interfaces.iter().map(if_addrs::Interface::ip);
        let listeners = self.listeners.iter().map(SocketAddr::ip);
        let relayed = self.live.addresses().flat_map(|address| [address.local, address.external]);
        let mut own: Vec<IpAddr> = interfaces.chain(listeners).chain(relayed).collect();
        own.retain(|ip| !ip.is_unspecified());
        own.sort_unstable();
        own.dedup();
        own
    }
}

impl fmt::Debug for NodeRelay {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeRelay")
            .field("listeners", &self.listeners)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
