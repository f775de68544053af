//! What both drivers ask of a connected socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketAddrAny, SocketFlags};

use super::TcpListener;
use crate::driver::address;
use std::os::fd::AsFd;

/// Accepts the next client without waiting; its socket does not wait either.
///
/// # Errors
/// Those of `accept4(2)`; [`io::ErrorKind::WouldBlock`] when nobody is there.
pub fn accept(listener: &TcpListener) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::accept_with(listener.as_fd(), flags).map_err(io::Error::from)
}

/// Both ends of a connection, canonical: the client's address and the one that it connected to.
///
/// # Errors
/// The client has already gone.
pub fn addresses(socket: BorrowedFd<'_>) -> io::Result<(SocketAddr, SocketAddr)> {
    let peer = rustix::net::getpeername(socket)?;
    let peer = peer.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    Ok((canonical(peer)?, canonical(rustix::net::getsockname(socket)?)?))
}

fn canonical(addr: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(addr).map(address::canonical).map_err(io::Error::from)
}

/// Receives into `memory` without waiting; 0: the client sends no more.
///
/// # Errors
/// Those of `recv(2)`.
pub fn receive(socket: BorrowedFd<'_>, memory: &mut [u8]) -> io::Result<usize> {
    rustix::net::recv(socket, memory, RecvFlags::DONTWAIT).map(|(len, _)| len).map_err(io::Error::from)
}

/// Sends what the kernel takes without waiting.
///
/// # Errors
/// Those of `send(2)`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::send(socket, bytes, flags).map_err(io::Error::from)
}

/// Ends both directions, so that every operation on the socket ends. One that was not connected any more has none.
pub fn shut_down(socket: BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// The error that the kernel has noted for a socket.
pub fn pending_errno(socket: BorrowedFd<'_>) -> i32 {
    match rustix::net::sockopt::socket_error(socket) {
        Ok(Err(error)) => error.raw_os_error(),
        _ => libc::ECONNRESET,
    }
}
