//! The relayed sockets of a shard: what [`Relays`] asks for, on the driver.
//!
//! The server opens and closes sockets while it looks at a message that lies in a buffer of the driver. So sockets
//! are bound and their ports taken at once, which is what can fail, and [`settle`](RelaySockets::settle) gives them
//! to the driver, or takes them from it, when the message has been dealt with.

use super::addresses::{LiveRelayed, RelayAddress};
use super::ports::{PortRange, Ports};
use crate::driver::sockets::{SocketError, SocketOptions};
use crate::driver::{Driver, SocketIndex, UdpSocket};
use rand::RngExt;
use rand::rngs::StdRng;
use relay::turn::{Family, Now, OpenError, Opened, PortKind, RelayId, Relays};
use slab::Slab;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Ports that are tried for one allocation where other programs hold those that were chosen first.
const BIND_TRIES: usize = 16;

/// `by_socket` where a socket of the driver is none of ours.
const NO_RELAY: u32 = u32::MAX;

/// See the [module](self).
#[derive(Debug)]
pub struct RelaySockets {
    pools: Vec<Pool>,
    live: Arc<LiveRelayed>,
    random: StdRng,
    /// By [`RelayId`].
    relays: Slab<Relayed>,
    /// By [`SocketIndex`].
    by_socket: Vec<u32>,
    /// Bound, but not yet the driver's.
    opened: Vec<(RelayId, UdpSocket)>,
    /// Still the driver's.
    closed: Vec<SocketIndex>,
    /// Bound, and held for whoever shows the reservation's token: another program could take a port that is only noted.
    reserved: HashMap<SocketAddr, UdpSocket>,
    /// Ports that another program held when they were chosen.
    ports_taken: u64,
}

/// The ports of one address.
#[derive(Debug)]
struct Pool {
    address: RelayAddress,
    ports: Ports,
}

/// One relayed transport address.
#[derive(Clone, Copy, Debug)]
struct Relayed {
    pool: u16,
    port: u16,
    /// `None` until the driver has it.
    socket: Option<u32>,
}

impl RelaySockets {
    /// No sockets yet; `live` is shared by the shards of the node and names the addresses.
    #[must_use]
    pub fn new(
        live: Arc<LiveRelayed>,
        range: PortRange,
        shard: usize,
        shard_count: usize,
        random: StdRng,
    ) -> RelaySockets {
        let pool = |address| Pool { address, ports: Ports::new(range, shard, shard_count) };
        RelaySockets {
            pools: live.addresses().map(pool).collect(),
            live,
            random,
            relays: Slab::new(),
            by_socket: Vec::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            reserved: HashMap::new(),
            ports_taken: 0,
        }
    }

    /// Whether sockets wait to be given to the driver or taken from it.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        !self.opened.is_empty() || !self.closed.is_empty()
    }

    /// Gives the driver what was opened and takes from it what was closed.
    ///
    /// A socket that the driver does not take leaves its allocation without a way to its peers, until it expires or
    /// its client gives it up: that happens only where the kernel has no memory left.
    pub fn settle(&mut self, driver: &mut impl Driver) {
        for socket in self.closed.drain(..) {
            driver.remove_socket(socket);
        }
        for (id, socket) in self.opened.drain(..) {
            let Some(relayed) = self.relays.get_mut(id.0 as usize) else { continue };
            match driver.add_socket(socket) {
                Ok(index) => {
                    relayed.socket = Some(index as u32);
                    if self.by_socket.len() <= index {
                        self.by_socket.resize(index + 1, NO_RELAY);
                    }
                    self.by_socket[index] = id.0;
                }
                Err(error) => {
                    tracing::error!(%error, "a relayed socket cannot be driven; the system's memory is short");
                }
            }
        }
    }

    /// The driver's socket of a relay.
    #[inline]
    #[must_use]
    pub fn socket(&self, id: RelayId) -> Option<SocketIndex> {
        self.relays.get(id.0 as usize)?.socket.map(|index| index as usize)
    }

    /// The relay of a driver's socket.
    #[inline]
    #[must_use]
    pub fn relay(&self, socket: SocketIndex) -> Option<RelayId> {
        self.by_socket.get(socket).copied().filter(|id| *id != NO_RELAY).map(RelayId)
    }

    /// Relayed transport addresses that are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.relays.len()
    }

    /// Ports that this shard has left, and how often one turned out to be another program's.
    #[must_use]
    pub fn port_numbers(&self) -> (u64, u64) {
        (self.pools.iter().map(|pool| u64::from(pool.ports.free())).sum(), self.ports_taken)
    }

    /// The relayed addresses of the node.
    #[must_use]
    pub fn live(&self) -> &LiveRelayed {
        &self.live
    }

    /// Opens a port of one pool.
    fn open_in(&mut self, index: usize, now: Instant, kind: PortKind) -> Result<Opened, OpenError> {
        for _ in 0..BIND_TRIES {
            let pool = &mut self.pools[index];
            let port = pool.ports.take(now, kind, &mut self.random).ok_or(OpenError::NoPorts)?;
            let local = pool.address.local;
            let next = (kind == PortKind::EvenAndReserveNext).then(|| port + 1);
            let bound = bind(SocketAddr::new(local, port)).map_err(|errno| (port, errno));
            let bound = bound.and_then(|socket| {
                let reserved =
                    next.map(|next| bind(SocketAddr::new(local, next)).map_err(|errno| (next, errno)));
                Ok((socket, reserved.transpose()?))
            });
            let (failed, errno) = match bound {
                Ok((socket, reserved)) => return Ok(self.admit(index, port, socket, reserved)),
                Err(failure) => failure,
            };
            let is_taken = errno == libc::EADDRINUSE;
            for port in next.into_iter().chain([port]) {
                // Another program has it. After a rest it is tried again.
                if is_taken && port == failed {
                    self.ports_taken += 1;
                    pool.ports.rest(now, port);
                } else {
                    pool.ports.give_back(port);
                }
            }
            if !is_taken {
                return Err(OpenError::System { errno });
            }
        }
        Err(OpenError::NoPorts)
    }

    fn admit(&mut self, index: usize, port: u16, socket: UdpSocket, reserved: Option<UdpSocket>) -> Opened {
        let address = self.pools[index].address;
        let reserved = reserved.map(|socket| {
            let local = SocketAddr::new(address.local, port + 1);
            self.reserved.insert(local, socket);
            local
        });
        let id = RelayId(self.relays.insert(Relayed { pool: index as u16, port, socket: None }) as u32);
        self.opened.push((id, socket));
        self.live.set(index, port, true);
        Opened {
            id,
            local: SocketAddr::new(address.local, port),
            relayed: SocketAddr::new(address.external, port),
            reserved,
        }
    }

    fn pool_of(&mut self, local: SocketAddr) -> Option<usize> {
        self.pools.iter().position(|pool| pool.address.local == local.ip())
    }
}

impl Relays for RelaySockets {
    fn open(&mut self, now: Now, family: Family, kind: PortKind) -> Result<Opened, OpenError> {
        let count = self.pools.len();
        // Any address of the family will do; the next one where a pool is empty.
        let start = if count > 1 { self.random.random_range(0..count) } else { 0 };
        let mut outcome = Err(OpenError::FamilyUnsupported);
        for index in (start..count).chain(0..start) {
            if Family::of(self.pools[index].address.local) != family {
                continue;
            }
            outcome = self.open_in(index, now.monotonic, kind);
            if outcome != Err(OpenError::NoPorts) {
                break;
            }
        }
        outcome
    }

    fn open_reserved(&mut self, _now: Now, reserved: SocketAddr) -> Result<Opened, OpenError> {
        let index = self.pool_of(reserved).ok_or(OpenError::NoPorts)?;
        let socket = self.reserved.remove(&reserved).ok_or(OpenError::NoPorts)?;
        Ok(self.admit(index, reserved.port(), socket, None))
    }

    fn release_reserved(&mut self, _now: Now, reserved: SocketAddr) {
        if self.reserved.remove(&reserved).is_some()
            && let Some(index) = self.pool_of(reserved)
        {
            self.pools[index].ports.give_back(reserved.port());
        }
    }

    fn close(&mut self, now: Now, id: RelayId) {
        let Some(relayed) = self.relays.try_remove(id.0 as usize) else { return };
        let pool = usize::from(relayed.pool);
        self.live.set(pool, relayed.port, false);
        self.pools[pool].ports.rest(now.monotonic, relayed.port);
        match relayed.socket {
            Some(socket) => {
                self.by_socket[socket as usize] = NO_RELAY;
                self.closed.push(socket as usize);
            }
            None => self.opened.retain(|(opened, _)| *opened != id),
        }
    }

    fn is_live_relayed(&self, address: SocketAddr) -> bool {
        self.live.contains(address)
    }

    fn is_relay_address(&self, ip: IpAddr) -> bool {
        self.live.addresses().any(|address| address.external == ip)
    }
}

/// Binds a relayed socket.
///
/// # Errors
/// The error number.
fn bind(local: SocketAddr) -> Result<UdpSocket, i32> {
    UdpSocket::bind(local, &SocketOptions::relayed()).map_err(|error| {
        let (SocketError::Bind { source, .. } | SocketError::Option { source, .. }) = &error;
        source.raw_os_error().unwrap_or(libc::EIO)
    })
}
