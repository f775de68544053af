//! The sockets of a node: for each address a group of UDP sockets, one a shard, and a TCP listener on the same port.

use crate::driver::sockets::{SocketError, SocketOptions, UdpSocket};
use crate::steering::{Steering, SteeringError};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// The port of content over HTTP/3, and beside it over TCP.
pub(super) const PORT_DEFAULT: u16 = 4433;

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const TCP_BACKLOG: i32 = 1024;

/// Tries to find a port that is free for UDP and TCP when the kernel is to choose one.
const PORT_TRIES: usize = 16;

/// What the node listens on.
#[derive(Debug)]
pub(super) struct Sockets {
    /// The sockets of each shard, in the order of the addresses.
    pub(super) udp: Vec<Vec<UdpSocket>>,
    /// TCP listeners, each with the UDP port of HTTP/3 beside it.
    pub(super) tcp: Vec<(TcpListener, u16)>,
    udp_addrs: Vec<SocketAddr>,
    tcp_addrs: Vec<SocketAddr>,
}

/// The sockets of a node once more.
#[derive(Debug)]
pub(super) struct SharedSockets {
    /// Of each shard, in the order of the addresses.
    pub(super) udp: Vec<Vec<OwnedFd>>,
    /// TCP listeners, each with the UDP port of HTTP/3 beside it.
    pub(super) tcp: Vec<(TcpListener, u16)>,
}

impl Sockets {
    /// Binds everything.
    pub(super) fn bind(listen: &[SocketAddr], shards: usize, with_tcp: bool) -> Result<Sockets, ListenError> {
        let mut sockets = Sockets {
            udp: std::iter::repeat_with(Vec::new).take(shards).collect(),
            tcp: Vec::new(),
            udp_addrs: Vec::new(),
            tcp_addrs: Vec::new(),
        };
        if listen.is_empty() {
            let every = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT_DEFAULT);
            match sockets.bind_one(every, with_tcp) {
                // A kernel without IPv6, as in many containers.
                Err(error) if error.is_without_ipv6() => {
                    let every = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT_DEFAULT);
                    sockets.bind_one(every, with_tcp)?;
                }
                result => result?,
            }
        }
        for addr in listen {
            sockets.bind_one(*addr, with_tcp)?;
        }
        Ok(sockets)
    }

    /// What another engine has handed over: the descriptors of each shard, in the order of the addresses, and TCP listeners.
    pub(super) fn adopt(
        udp: Vec<Vec<OwnedFd>>,
        tcp: Vec<(TcpListener, u16)>,
    ) -> Result<Sockets, ListenError> {
        let adopt = |fd| UdpSocket::adopt(fd, &SocketOptions::default()).map_err(ListenError::Adopt);
        let shard = |fds: Vec<OwnedFd>| fds.into_iter().map(adopt).collect();
        let udp: Vec<Vec<UdpSocket>> = udp.into_iter().map(shard).collect::<Result<_, _>>()?;
        let udp_addrs = udp.iter().take(1).flatten().map(UdpSocket::local_addr).collect();
        let addr = |(listener, _): &(TcpListener, u16)| listener.local_addr().map_err(ListenError::Adopt);
        let tcp_addrs = tcp.iter().map(addr).collect::<Result<_, _>>()?;
        Ok(Sockets { udp, tcp, udp_addrs, tcp_addrs })
    }

    /// Where it listens over UDP.
    pub(super) fn udp_addrs(&self) -> &[SocketAddr] {
        &self.udp_addrs
    }

    /// The same sockets once more, for an engine that is to take them over.
    pub(super) fn share(&self) -> io::Result<SharedSockets> {
        let shard = |sockets: &Vec<UdpSocket>| sockets.iter().map(UdpSocket::share).collect();
        let udp = self.udp.iter().map(shard).collect::<io::Result<_>>()?;
        let listener = |(listener, port): &(TcpListener, u16)| Ok((listener.try_clone()?, *port));
        let tcp = self.tcp.iter().map(listener).collect::<io::Result<_>>()?;
        Ok(SharedSockets { udp, tcp })
    }

    /// URLs of all listeners.
    pub(super) fn names(&self) -> Vec<String> {
        let udp = self.udp_addrs.iter().map(|addr| format!("udp://{addr}"));
        let tcp = self.tcp_addrs.iter().map(|addr| format!("tcp://{addr}"));
        udp.chain(tcp).collect()
    }

    /// Whether the kernel merges what arrives on every UDP socket.
    pub(super) fn has_gro(&self) -> bool {
        self.udp.iter().flatten().all(UdpSocket::has_gro)
    }

    /// Whether the kernel cuts batches on every UDP socket.
    pub(super) fn has_gso(&self) -> bool {
        self.udp.iter().flatten().all(UdpSocket::has_gso)
    }

    fn bind_one(&mut self, addr: SocketAddr, with_tcp: bool) -> Result<(), ListenError> {
        let mut tries = 0;
        let (group, tcp) = loop {
            tries += 1;
            let group = UdpSocket::bind_group(addr, self.udp.len(), &SocketOptions::default())?;
            // The group has a socket: there is at least one shard.
            let bound = group.first().map_or(addr, UdpSocket::local_addr);
            if !with_tcp {
                break (group, None);
            }
            match listen_tcp(SocketAddr::new(addr.ip(), bound.port())) {
                Ok(listener) => break (group, Some(listener)),
                Err(source)
                    if addr.port() == 0
                        && tries < PORT_TRIES
                        && source.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(ListenError::Tcp { addr: bound, source }),
            }
        };
        // The sockets were bound in the order of the shards, as the program needs it.
        Steering::attach(&group)?;
        let bound = group.first().map_or(addr, UdpSocket::local_addr);
        self.udp_addrs.push(bound);
        for (shard, socket) in self.udp.iter_mut().zip(group) {
            shard.push(socket);
        }
        if let Some(listener) = tcp {
            self.tcp_addrs.push(bound);
            self.tcp.push((listener, bound.port()));
        }
        Ok(())
    }
}

fn listen_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the process before it.
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(TCP_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Why the node does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A UDP socket.
    #[error(transparent)]
    Udp(#[from] SocketError),
    /// What another engine has handed over is of no use.
    #[error("a socket that the running engine has handed over cannot be used: {0}; restart instead")]
    Adopt(io::Error),
    /// Datagrams cannot be steered to their shards.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A TCP listener.
    #[error(
        "cannot listen on TCP {addr}: {source}; `ss -tlpn` names who has the port, --no-tcp does without"
    )]
    Tcp {
        /// What was asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ListenError {
    fn is_without_ipv6(&self) -> bool {
        let ListenError::Udp(SocketError::Bind { source, .. }) = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
    }
}
