//! UDP sockets as the drivers want them: non-blocking, one a shard in a SO_REUSEPORT group, GRO on, the kernel telling
//! destination, traffic class and drops, "don't fragment" set, buffers of a bounded size.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::address::{self, Family};
use super::{ecn, errors, gro, gso, mtu, overflow, pktinfo, sys};

/// Bytes asked for as each socket buffer. The kernel doubles the figure for its own bookkeeping. With more, datagrams wait
/// longer in memory that has left the cache (measured: 2 MiB 0.20 CPU-s/GB, 16 MiB 0.24 to 0.31).
pub const SOCKET_BUFFER_BYTES_DEFAULT: usize = 2 << 20;

/// Bytes asked for as receive buffer of a relayed socket: a burst of 512 datagrams of 1,200 bytes, for each of which the kernel
/// books about 2,300, and takes up to a quarter of the buffer longer to book off. It takes the memory only while datagrams
/// wait in it.
pub const RELAYED_RECV_BUFFER_BYTES: usize = 1 << 20;

/// Bytes asked for as send buffer of a relayed socket: a burst of four full GSO batches.
pub const RELAYED_SEND_BUFFER_BYTES: usize = 256 << 10;

/// How a socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Shares its port with the group's other sockets.
    pub reuse_port: bool,
    /// An IPv6 socket leaves IPv4 alone.
    pub v6_only: bool,
    /// Bytes asked for as receive buffer; without CAP_NET_ADMIN the kernel cuts it to `net.core.rmem_max`.
    pub recv_buffer_bytes: usize,
    /// Bytes asked for as send buffer; without CAP_NET_ADMIN the kernel cuts it to `net.core.wmem_max`.
    pub send_buffer_bytes: usize,
    /// Each received batch tells the address it was sent to, also on a wildcard address (IP_PKTINFO). Without it that is the
    /// address the socket is bound to, which must then not be a wildcard.
    pub destination_info: bool,
    /// Each received batch tells its ECN codepoint; without it that is [`Ecn::NotEct`](super::Ecn::NotEct).
    pub congestion_marks: bool,
    /// Datagrams leave with "don't fragment" set; without it the path may fragment those that are too long for it.
    pub dont_fragment: bool,
    /// ICMP errors come back by [`Driver::socket_error`](super::Driver::socket_error) (IP_RECVERR).
    pub error_queue: bool,
    /// What becomes of a batch that finds no room in the send buffer.
    pub when_full: WhenFull,
}

/// What becomes of a batch that finds no room in its socket's send buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It keeps its driver's send buffer until there is room, as do the socket's later batches behind it.
    Wait,
    /// It is dropped and counted, as a router does.
    Drop,
}

impl SocketOptions {
    /// For a relayed transport address: a port of its own, on one address; small buffers, since there may be 100,000;
    /// the path may fragment; ICMP errors are told.
    #[must_use]
    pub fn relayed() -> Self {
        Self {
            reuse_port: false,
            v6_only: true,
            recv_buffer_bytes: RELAYED_RECV_BUFFER_BYTES,
            send_buffer_bytes: RELAYED_SEND_BUFFER_BYTES,
            destination_info: false,
            congestion_marks: false,
            dont_fragment: false,
            error_queue: true,
            when_full: WhenFull::Drop,
        }
    }

    /// For the address at which a relay's clients reach it.
    #[must_use]
    pub fn relay_clients() -> Self {
        Self { congestion_marks: false, dont_fragment: false, when_full: WhenFull::Drop, ..Self::default() }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            v6_only: false,
            recv_buffer_bytes: SOCKET_BUFFER_BYTES_DEFAULT,
            send_buffer_bytes: SOCKET_BUFFER_BYTES_DEFAULT,
            destination_info: true,
            congestion_marks: true,
            dont_fragment: true,
            error_queue: false,
            when_full: WhenFull::Wait,
        }
    }
}

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {addr}: {source}{}", advice(source))]
    Bind {
        /// What was asked for.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The kernel lacks an option that the engine cannot do without.
    #[error("UDP socket on {addr}: {option} cannot be set: {source}; Linux 5.0 or later has it")]
    Option {
        /// What the socket was for.
        addr: SocketAddr,
        /// The option's name.
        option: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another program has the port (`ss -ulpn` names it)",
        io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address (`ip address` lists those it has)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// A UDP socket, bound and set up.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    family: Family,
    has_gro: bool,
    has_gso: bool,
    options: SocketOptions,
}

impl UdpSocket {
    /// Binds a socket to `addr`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// [`SocketError`] when the address cannot be had, or the kernel lacks what the engine cannot do without. GRO and GSO
    /// are not among that: without them every datagram costs a system call.
    pub fn bind(addr: SocketAddr, options: &SocketOptions) -> Result<Self, SocketError> {
        let family = Family::of(addr);
        let bind = |source| SocketError::Bind { addr, source };
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket =
            Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP)).map_err(bind)?;
        if family == Family::V6 {
            socket.set_only_v6(options.v6_only).map_err(bind)?;
        }
        socket.set_reuse_port(options.reuse_port).map_err(bind)?;
        set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.recv_buffer_bytes)
            .map_err(bind)?;
        set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer_bytes)
            .map_err(bind)?;

        // All before `bind`, so that no datagram arrives without them.
        let fd = socket.as_fd();
        let option = |option| move |source| SocketError::Option { addr, option, source };
        // A socket that is bound to one address needs not be told at each batch which.
        if options.destination_info && addr.ip().is_unspecified() {
            pktinfo::enable(fd, family).map_err(option("IP_PKTINFO"))?;
        }
        if options.congestion_marks {
            ecn::enable(fd, family).map_err(option("IP_RECVTOS"))?;
        }
        if options.error_queue {
            errors::enable(fd, family).map_err(option("IP_RECVERR"))?;
        }
        let discovery = if options.dont_fragment { mtu::probe } else { mtu::allow_fragments };
        discovery(fd, family).map_err(option("IP_MTU_DISCOVER"))?;
        overflow::enable(fd).map_err(option("SO_RXQ_OVFL"))?;
        let has_gro = gro::enable(fd).is_ok();
        let has_gso = gso::is_supported(fd);

        socket.bind(&SockAddr::from(addr)).map_err(bind)?;
        let local = socket.local_addr().and_then(|local| {
            local
                .as_socket()
                .ok_or_else(|| io::Error::other("the kernel gave the socket an address of another family"))
        });
        let local = address::canonical(local.map_err(bind)?);
        Ok(Self { socket, local, family, has_gro, has_gso, options: *options })
    }

    /// Binds `count` sockets to one address, the kernel spreading sources over them. With port 0 the first one's port is
    /// taken for all.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_group(
        addr: SocketAddr,
        count: usize,
        options: &SocketOptions,
    ) -> Result<Vec<Self>, SocketError> {
        let options = SocketOptions { reuse_port: true, ..*options };
        let mut group: Vec<Self> = Vec::with_capacity(count);
        for _ in 0..count {
            let port = group.first().map_or(addr.port(), |first| first.local.port());
            group.push(Self::bind(SocketAddr::new(addr.ip(), port), &options)?);
        }
        Ok(group)
    }

    /// A socket that another process has bound and set up with these options, and has handed over.
    ///
    /// # Errors
    /// It is no UDP socket, or none that is bound.
    pub fn adopt(socket: OwnedFd, options: &SocketOptions) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let local = socket.local_addr()?.as_socket().map(address::canonical);
        let (Some(local), Type::DGRAM) = (local, socket.r#type()?) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a bound UDP socket"));
        };
        let family = if socket.domain()? == Domain::IPV4 { Family::V4 } else { Family::V6 };
        let has_gro = gro::enable(socket.as_fd()).is_ok();
        let has_gso = gso::is_supported(socket.as_fd());
        Ok(Self { socket, local, family, has_gro, has_gso, options: *options })
    }

    /// The socket's descriptor once more, for another process.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The address it is bound to, canonical.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The family it was made for, which decides how the kernel wants addresses spelled.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the kernel merges received datagrams.
    #[must_use]
    pub fn has_gro(&self) -> bool {
        self.has_gro
    }

    /// Whether the kernel cuts sent batches into datagrams.
    #[must_use]
    pub fn has_gso(&self) -> bool {
        self.has_gso
    }

    /// Whether ICMP errors come back on it.
    pub(super) fn has_error_queue(&self) -> bool {
        self.options.error_queue
    }

    /// What becomes of a batch that finds no room.
    pub(super) fn when_full(&self) -> WhenFull {
        self.options.when_full
    }

    /// Whether "don't fragment" is set on all that it sends.
    pub(super) fn sets_dont_fragment(&self) -> bool {
        self.options.dont_fragment
    }

    /// The receive buffer that the kernel gave, as asked for (not doubled).
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn recv_buffer_bytes(&self) -> io::Result<usize> {
        Ok(self.socket.recv_buffer_size()? / 2)
    }

    /// The send buffer that the kernel gave, as asked for (not doubled).
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        Ok(self.socket.send_buffer_size()? / 2)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sets a buffer's size past the system's maximum if we may, else up to it.
fn set_buffer(socket: &Socket, force: i32, ordinary: i32, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    sys::set_int(socket.as_fd(), libc::SOL_SOCKET, force, bytes)
        .or_else(|_| sys::set_int(socket.as_fd(), libc::SOL_SOCKET, ordinary, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_one_port_and_is_set_up() {
        for addr in ["127.0.0.1:0", "[::]:0"] {
            let addr = addr.parse().expect("a literal address");
            let group = UdpSocket::bind_group(addr, 3, &SocketOptions::default()).expect("a free port");
            assert_eq!(group.len(), 3);
            for socket in &group {
                assert_eq!(socket.local_addr(), group[0].local_addr());
                assert_ne!(socket.local_addr().port(), 0);
                assert!(socket.recv_buffer_bytes().expect("getsockopt") > 0);
                let discover =
                    sys::get_int(socket.as_fd(), libc::SOL_IP, libc::IP_MTU_DISCOVER).expect("getsockopt");
                assert_eq!(discover, libc::IP_PMTUDISC_PROBE);
            }
        }
    }

    #[test]
    fn an_address_that_is_taken_or_foreign_is_named_in_the_error() {
        let options = SocketOptions { reuse_port: false, ..SocketOptions::default() };
        let first = UdpSocket::bind("127.0.0.1:0".parse().expect("literal"), &options).expect("a free port");
        let error = UdpSocket::bind(first.local_addr(), &options).expect_err("the port is taken").to_string();
        assert!(error.contains(&first.local_addr().to_string()) && error.contains("ss -ulpn"), "{error}");
        let error = UdpSocket::bind("192.0.2.1:0".parse().expect("literal"), &options)
            .expect_err("not ours")
            .to_string();
        assert!(error.contains("192.0.2.1") && error.contains("ip address"), "{error}");
    }
}
