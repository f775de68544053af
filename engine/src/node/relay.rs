//! The relay of a node as it starts: its addresses found and checked, its sockets bound.

use crate::driver::sockets::{SocketError, SocketOptions, UdpSocket};
use crate::relay::{AddressError, NodeRelay, PortRange, RelayAddress, SessionEvents};
use std::net::SocketAddr;

/// What an operator says of the relay.
#[derive(Clone, Debug, Default)]
pub struct RelaySettings {
    /// Where clients reach it over UDP and TCP. Empty: there is no relay.
    pub listen: Vec<SocketAddr>,
    /// Where they reach it over TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// What relayed transport addresses are made of. Empty: the addresses it listens on.
    pub addresses: Vec<RelayAddress>,
    /// Their ports.
    pub ports: PortRange,
}

impl RelaySettings {
    /// How many relayed addresses there is room for.
    pub(super) fn sockets_max(&self) -> u64 {
        if self.listen.is_empty() && self.listen_tls.is_empty() {
            return 0;
        }
        // Where none is named there is one of each family.
        let addresses = if self.addresses.is_empty() { 2 } else { self.addresses.len() };
        addresses as u64 * self.ports.count()
    }
}

/// A relay that is ready to run on the shards.
#[derive(Debug)]
pub(super) struct RelayParts {
    pub(super) node: NodeRelay,
    /// The sockets of each shard, in the order of the addresses.
    pub(super) udp: Vec<Vec<UdpSocket>>,
    /// What is to be logged.
    pub(super) events: SessionEvents,
    /// `turn:` URIs of what it listens on (RFC 7065).
    pub(super) uris: Vec<String>,
}

impl RelayParts {
    /// Binds everything; `None` if no relay is wanted.
    pub(super) fn open(settings: &RelaySettings, shards: usize) -> Result<Option<RelayParts>, RelayError> {
        if settings.listen.is_empty() && settings.listen_tls.is_empty() {
            return Ok(None);
        }
        let mut udp: Vec<Vec<UdpSocket>> = std::iter::repeat_with(Vec::new).take(shards).collect();
        let mut listeners = Vec::new();
        for addr in &settings.listen {
            let group = UdpSocket::bind_group(*addr, shards, &SocketOptions::relay_clients())?;
            listeners.extend(group.first().map(UdpSocket::local_addr));
            for (shard, socket) in udp.iter_mut().zip(group) {
                shard.push(socket);
            }
        }
        let addresses = match settings.addresses.as_slice() {
            [] => RelayAddress::defaults(&listeners)?,
            named => named.to_vec(),
        };
        RelayAddress::check(&addresses)?;
        let uris = listeners.iter().map(|listener| format!("turn:{listener}?transport=udp")).collect();
        let (node, events) = NodeRelay::new(&listeners, &addresses, settings.ports, shards)?;
        let named: Vec<String> = addresses.iter().map(RelayAddress::to_string).collect();
        tracing::info!(addresses = named.join(" "), ports = %settings.ports, "the relay is open");
        Ok(Some(RelayParts { node, udp, events, uris }))
    }
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A socket that clients would reach.
    #[error(transparent)]
    Udp(#[from] SocketError),
    /// The relay addresses.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No keys.
    #[error("the kernel gives no randomness for the relay's keys: {0}")]
    Random(#[from] getrandom::Error),
}
