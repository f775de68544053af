//! What the engine gives the server: UDP sockets on relayed transport addresses.

use super::Now;
use crate::stun::Family;
use std::net::{IpAddr, SocketAddr};

/// One UDP socket on a relayed transport address, chosen by the implementor of [`Relays`].
///
/// Ids are small: the server keeps a table as long as the largest one. An id may be given again once it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Which port an allocation asks for (EVEN-PORT, RFC 8656 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// Any port of the range.
    Any,
    /// An even port.
    Even,
    /// An even port, with the next-higher one kept for whoever shows the reservation token.
    EvenAndReserveNext,
}

/// An open relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The socket.
    pub id: RelayId,
    /// Where it is bound.
    pub local: SocketAddr,
    /// How peers see it: the external address where the node stands behind 1:1 NAT.
    pub relayed: SocketAddr,
    /// With [`PortKind::EvenAndReserveNext`]: the local address that is kept.
    pub reserved: Option<SocketAddr>,
}

/// Why no relayed transport address was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Every fitting port of the range is in use or rests. Answered with 508.
    #[error("no free relay port: widen the range or add a relay address")]
    NoPorts,
    /// The node relays nothing of this family. Answered with 440.
    #[error("no relay address of this family")]
    FamilyUnsupported,
    /// The system gave no socket. Answered with 508.
    #[error("the system gave no socket (errno {errno}): look at the limit of open files and of memory")]
    System {
        /// The error number.
        errno: i32,
    },
}

/// Sockets on relayed transport addresses. Calls are synchronous: binding a UDP socket does not wait.
pub trait Relays {
    /// Opens a relayed transport address.
    fn open(&mut self, now: Now, family: Family, kind: PortKind) -> Result<Opened, OpenError>;

    /// Opens the address that an earlier [`Relays::open`] kept as `reserved`. After an error it is kept no longer.
    fn open_reserved(&mut self, now: Now, reserved: SocketAddr) -> Result<Opened, OpenError>;

    /// Gives back a kept address that nobody asked for.
    fn release_reserved(&mut self, now: Now, reserved: SocketAddr);

    /// Closes a relayed transport address. Its port rests for the lifetime of a permission before it is given again, so that
    /// no client receives what peers send to its predecessor.
    fn close(&mut self, now: Now, id: RelayId);

    /// Whether this is a live relayed address of any shard of this node, as peers see it.
    fn is_live_relayed(&self, address: SocketAddr) -> bool;

    /// Whether this node makes relayed addresses of this address, as peers see it.
    fn is_relay_address(&self, ip: IpAddr) -> bool;
}
