//! Who talks to whom, over what, and when.

use std::net::SocketAddr;
use std::time::Instant;

/// What carries a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream, framed as RFC 8656 section 12.5 says.
    Tcp,
    /// The same inside TLS.
    Tls,
}

impl Transport {
    /// Whether the client's state ends with a connection (RFC 8656 section 3.1).
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Transport::Udp
    }
}

/// What a client is known by (RFC 8656 section 2.2): its address as the server sees it, the address it sent to, and the transport.
///
/// Both addresses are canonical: an IPv4 client on a dual-stack socket is written as IPv4, never as `::ffff:a.b.c.d`, and the flow label of IPv6 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// What carries the messages.
    pub transport: Transport,
    /// The client's address, behind its NATs.
    pub client: SocketAddr,
    /// The server's address, as the client's packet names it.
    pub server: SocketAddr,
}

/// The time of a call, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Lifetimes are measured on this one. It must never run backwards from call to call.
    pub monotonic: Instant,
    /// Nonces, expiring user names and session records carry this one: seconds since 1970-01-01 UTC.
    pub unix_s: u64,
}
