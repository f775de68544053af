//! The relay of a node as it starts: its addresses found and checked, its sockets bound.

use super::files::DataDirectory;
use crate::driver::sockets::{SocketError, SocketOptions, UdpSocket};
use crate::driver::streams::{ListenError, ListenerOptions, TcpListener};
use crate::quic::TicketKeys;
use crate::relay::{AddressError, NodeRelay, PortRange, RelayAddress, SessionEvents, tls};
use crate::tcp::{TcpTls, TlsError};
use std::net::SocketAddr;
use std::sync::Arc;

/// Tries to find a port that is free for UDP and TCP when the kernel is to choose one.
const PORT_TRIES: usize = 16;

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
    /// Whether there is to be a relay.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.listen.is_empty() || !self.listen_tls.is_empty()
    }

    /// How many relayed addresses there is room for.
    pub(super) fn sockets_max(&self) -> u64 {
        if !self.is_wanted() {
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
    /// What each shard listens with.
    pub(super) listeners: Vec<ShardListeners>,
    /// The certificate, where it speaks TLS.
    pub(super) tls: Option<Arc<TcpTls>>,
    /// What is to be logged.
    pub(super) events: SessionEvents,
    /// `turn:` URIs of what it listens on (RFC 7065).
    pub(super) uris: Vec<String>,
}

/// What one shard listens with, in the order of the addresses.
#[derive(Debug, Default)]
pub(super) struct ShardListeners {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<(TcpListener, Option<Arc<TcpTls>>)>,
}

impl RelayParts {
    /// Binds everything; `None` if no relay is wanted.
    pub(super) fn open(
        settings: &RelaySettings,
        directory: &DataDirectory,
        tickets: &TicketKeys,
        shards: usize,
    ) -> Result<Option<RelayParts>, RelayError> {
        if !settings.is_wanted() {
            return Ok(None);
        }
        let mut listeners: Vec<ShardListeners> =
            std::iter::repeat_with(ShardListeners::default).take(shards).collect();
        let (mut udp, mut tls_addrs) = (Vec::new(), Vec::new());
        for addr in &settings.listen {
            let (sockets, tcp) = bind_both(*addr, shards)?;
            udp.extend(sockets.first().map(UdpSocket::local_addr));
            for ((shard, socket), listener) in listeners.iter_mut().zip(sockets).zip(tcp) {
                shard.udp.push(socket);
                shard.tcp.push((listener, None));
            }
        }
        let tls = if settings.listen_tls.is_empty() {
            None
        } else {
            Some(Arc::new(tls::load(&directory.certificate(), &directory.certificate_key(), tickets)?))
        };
        for addr in &settings.listen_tls {
            let group = TcpListener::bind_group(*addr, shards, &ListenerOptions::default())?;
            tls_addrs.extend(group.first().map(TcpListener::local_addr));
            for (shard, listener) in listeners.iter_mut().zip(group) {
                shard.tcp.push((listener, tls.clone()));
            }
        }
        let all: Vec<SocketAddr> = udp.iter().chain(&tls_addrs).copied().collect();
        let addresses = match settings.addresses.as_slice() {
            [] => RelayAddress::defaults(&all)?,
            named => named.to_vec(),
        };
        RelayAddress::check(&addresses)?;
        let (node, events) = NodeRelay::new(&all, &addresses, settings.ports, shards)?;
        let named: Vec<String> = addresses.iter().map(RelayAddress::to_string).collect();
        tracing::info!(addresses = named.join(" "), ports = %settings.ports, "the relay is open");
        Ok(Some(RelayParts { node, listeners, tls, events, uris: uris(&udp, &tls_addrs) }))
    }
}

fn uris(udp: &[SocketAddr], tls: &[SocketAddr]) -> Vec<String> {
    let uri = |scheme: &'static str, transport: &'static str| {
        move |addr: &SocketAddr| format!("{scheme}:{addr}?transport={transport}")
    };
    let udp_uris = udp.iter().map(uri("turn", "udp"));
    udp_uris.chain(udp.iter().map(uri("turn", "tcp"))).chain(tls.iter().map(uri("turns", "tcp"))).collect()
}

/// A group of UDP sockets and a group of TCP listeners on one address and port. With port 0 one is looked for that
/// is free for both.
fn bind_both(addr: SocketAddr, shards: usize) -> Result<(Vec<UdpSocket>, Vec<TcpListener>), RelayError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = UdpSocket::bind_group(addr, shards, &SocketOptions::relay_clients())?;
        let bound = udp.first().map_or(addr, UdpSocket::local_addr);
        match TcpListener::bind_group(
            SocketAddr::new(addr.ip(), bound.port()),
            shards,
            &ListenerOptions::default(),
        ) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error)
                if addr.port() == 0
                    && tries < PORT_TRIES
                    && error.source.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A socket that clients would reach.
    #[error(transparent)]
    Udp(#[from] SocketError),
    /// A TCP listener.
    #[error(transparent)]
    Tcp(#[from] ListenError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The relay addresses.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No keys.
    #[error("the kernel gives no randomness for the relay's keys: {0}")]
    Random(#[from] getrandom::Error),
}
