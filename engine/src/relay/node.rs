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
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    /// The policy that was made ready last.
    prepared: Arc<Mutex<Option<Prepared>>>,
}

struct Prepared {
    from: Arc<Policy>,
    is_draining: bool,
    policy: Arc<TurnPolicy>,
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

    /// A policy made ready for the server. The first shard that asks makes it, the others get the same one.
    ///
    /// # Errors
    /// What of the policy cannot be used.
    pub fn prepare(
        &self,
        policy: &Arc<Policy>,
        is_draining: bool,
    ) -> Result<Arc<TurnPolicy>, CredentialsError> {
        // A shard that panicked has left nothing half done: what is stored is whole.
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*prepared
            && Arc::ptr_eq(&prepared.from, policy)
            && prepared.is_draining == is_draining
        {
            return Ok(Arc::clone(&prepared.policy));
        }
        let mut made = TurnPolicy::new(&policy.relay, &self.own_addresses())?;
        made.draining |= is_draining;
        made.valid_until_s = policy.valid_until_s;
        made.uids = policy.uids.clone();
        let made = Arc::new(made);
        *prepared = Some(Prepared { from: Arc::clone(policy), is_draining, policy: Arc::clone(&made) });
        Ok(made)
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
