//! A UDP socket that receives with GRO and sends with GSO, used alike by the reference servers and by the load client.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// Bytes of a receive buffer: the largest batch that UDP GRO delivers.
pub const RECV_BUFFER_LEN: usize = 65_536;

/// Socket buffer in bytes, each way. Large enough for a window of every connection in the tests, small enough
/// that what lies in it stays in the last-level cache.
pub const SOCKET_BUFFER_LEN: usize = 2 << 20;

/// A non-blocking UDP socket with GRO on.
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    connected: bool,
}

/// What one receive call delivered: datagrams of one source, lying one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Source address.
    pub from: SocketAddr,
    /// Bytes of all datagrams together.
    pub len: usize,
    /// Bytes of every datagram but the last, which may be shorter.
    pub segment_len: usize,
}

impl Socket {
    /// Binds to `address` (port 0: any free port).
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let io = UdpSocket::bind(address).with_context(|| format!("binding a UDP socket to {address}"))?;
        let state = UdpSocketState::new(UdpSockRef::from(&io)).context("enabling UDP GRO")?;
        state.set_recv_buffer_size(UdpSockRef::from(&io), SOCKET_BUFFER_LEN)?;
        state.set_send_buffer_size(UdpSockRef::from(&io), SOCKET_BUFFER_LEN)?;
        let local = io.local_addr()?;
        Ok(Self { io, state, local, connected: false })
    }

    /// Makes `to` its only correspondent, which spares the kernel a look into the routing table at every single send.
    pub fn connect(&mut self, to: SocketAddr) -> io::Result<()> {
        self.io.connect(to)?;
        self.connected = true;
        Ok(())
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// One GRO batch, or `None` if nothing has arrived. `buffer` holds [`RECV_BUFFER_LEN`] bytes.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut meta = [RecvMeta::default()];
        match self.state.recv(UdpSockRef::from(&self.io), &mut [IoSliceMut::new(buffer)], &mut meta) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(Received {
                from: meta[0].addr,
                len: meta[0].len,
                segment_len: meta[0].stride.max(1),
            })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sends `batch` in one call as datagrams of `segment_len` bytes. A full socket buffer drops the batch, as a full
    /// queue of a network card would: QUIC sends again what was lost.
    pub fn send(&self, to: SocketAddr, batch: &[u8], segment_len: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: batch,
            segment_size: (batch.len() > segment_len).then_some(segment_len),
            src_ip: None,
        };
        match self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Sends each datagram of `batch` with a message of its own, in one `sendmmsg` call; without GSO. What the kernel does not
    /// take is dropped, as in [`Socket::send`]. A connected socket sends to its correspondent.
    pub fn send_singly(&self, to: SocketAddr, batch: &[u8], datagram_len: usize) -> io::Result<()> {
        let to = to.as_any();
        let slices: Vec<[IoSlice; 1]> = batch.chunks(datagram_len).map(|d| [IoSlice::new(d)]).collect();
        let mut controls: Vec<SendAncillaryBuffer> =
            slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<MMsgHdr> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| match self.connected {
                true => MMsgHdr::new(slice, control),
                false => MMsgHdr::new_with_addr(&to, slice, control),
            })
            .collect();
        match sendmmsg(&self.io, &mut messages, SendFlags::empty()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}
