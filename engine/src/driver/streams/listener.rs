//! TCP listeners as the drivers want them: one a shard in a SO_REUSEPORT group, and set up so that the streams they accept
//! (which inherit it on Linux) send small messages at once and keep short what waits in the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::driver::address;

/// Clients that may wait to be accepted; the kernel cuts it to `net.core.somaxconn` (4,096 since Linux 5.4).
const BACKLOG: i32 = 4_096;

/// Bytes that may wait in the kernel beyond what the congestion window lets out (TCP_NOTSENT_LOWAT): at 100 Mbit/s 10 ms.
/// What is relayed is better dropped than late, so little waits where nobody can drop it; the window grows as it will.
const NOT_SENT_BYTES_MAX: u32 = 128 << 10;

/// How a listener is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Shares its port with the group's other listeners; the kernel spreads clients over them.
    pub reuse_port: bool,
    /// An IPv6 listener leaves IPv4 alone.
    pub v6_only: bool,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self { reuse_port: true, v6_only: false }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP {addr}: {source}{}", advice(source))]
pub struct ListenError {
    /// What was asked for.
    pub addr: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another program has the port (`ss -tlpn` names it)",
        io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address (`ip address` lists those it has)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A TCP listener, bound, set up and listening.
#[derive(Debug)]
pub struct TcpListener {
    socket: Socket,
    local: SocketAddr,
}

impl TcpListener {
    /// Listens on `addr`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`ListenError`], with the address.
    pub fn bind(addr: SocketAddr, options: &ListenerOptions) -> Result<Self, ListenError> {
        Self::try_bind(addr, options).map_err(|source| ListenError { addr, source })
    }

    /// Listens `count` times on one address, the kernel spreading clients over the listeners. With port 0 the first one's
    /// port is taken for all.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_group(
        addr: SocketAddr,
        count: usize,
        options: &ListenerOptions,
    ) -> Result<Vec<Self>, ListenError> {
        let options = ListenerOptions { reuse_port: true, ..*options };
        let mut group: Vec<Self> = Vec::with_capacity(count);
        for _ in 0..count {
            let port = group.first().map_or(addr.port(), |first| first.local.port());
            group.push(Self::bind(SocketAddr::new(addr.ip(), port), &options)?);
        }
        Ok(group)
    }

    fn try_bind(addr: SocketAddr, options: &ListenerOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(options.v6_only)?;
        }
        // A restart must not wait for the connections of the process before it.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(options.reuse_port)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(BACKLOG)?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("the kernel gave the listener an address of another family"))?;
        Ok(Self { socket, local: address::canonical(local) })
    }

    /// The address it listens on, canonical.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether accepting fails instead of waiting when nobody is there. Each driver wants it its own way.
    pub(in crate::driver) fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(is_nonblocking)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn streams_inherit_what_the_listener_has() {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let addr = addr.parse().expect("a literal address");
            let listener = TcpListener::bind(addr, &ListenerOptions::default()).expect("a free port");
            let client = TcpStream::connect(listener.local_addr()).expect("it listens");
            let (accepted, _) = listener.socket.accept().expect("a client");
            assert!(accepted.tcp_nodelay().expect("getsockopt"));
            assert_eq!(accepted.tcp_notsent_lowat().expect("getsockopt"), NOT_SENT_BYTES_MAX);
            drop(client);
        }
    }

    #[test]
    fn an_address_that_is_taken_or_foreign_is_named_in_the_error() {
        let options = ListenerOptions { reuse_port: false, ..ListenerOptions::default() };
        let first =
            TcpListener::bind("127.0.0.1:0".parse().expect("literal"), &options).expect("a free port");
        let error =
            TcpListener::bind(first.local_addr(), &options).expect_err("the port is taken").to_string();
        assert!(error.contains(&first.local_addr().to_string()) && error.contains("ss -tlpn"), "{error}");
        let error = TcpListener::bind("192.0.2.1:0".parse().expect("literal"), &options)
            .expect_err("not ours")
            .to_string();
        assert!(error.contains("192.0.2.1") && error.contains("ip address"), "{error}");
    }
}
