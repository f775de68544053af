//! The way of datagrams from an engine that has taken the sockets over to the one that had them before and still finishes its
//! connections: a pair of connected Unix sockets (SOCK_SEQPACKET), one pair a shard, a batch a message.
//!
//! ```text
//! byte   0            1     2 .. 5               6 .. 30           31 .. 55          56 ..
//!      +------------+-----+--------------------+-----------------+-----------------+-----------+
//!      | socket     | ECN | segment length, LE | from            | to              | datagrams |
//!      +------------+-----+--------------------+-----------------+-----------------+-----------+
//! address: family (4 or 6), IP (16, an IPv4 address in the first 4), port LE (2), scope LE (4), zero (2)
//! ```

use crate::driver::{Ecn, RECV_BUFFER_LEN, RecvMeta};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;

const ADDRESS_LEN: usize = 25;
const HEADER_LEN: usize = 6 + 2 * ADDRESS_LEN;

/// Bytes asked for as send buffer: some full GRO batches. The kernel cuts it to `net.core.wmem_max`.
const BUFFER_BYTES: usize = 1 << 20;

/// One end of the way.
#[derive(Debug)]
pub struct Passage(OwnedFd);

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It is on its way.
    Sent,
    /// There is no room for it.
    Full,
    /// Nobody is at the other end any more.
    Ended,
}

impl Passage {
    /// Both ends.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(Passage, Passage)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for end in [&a, &b] {
            // With less, more is dropped when both processes are busy; QUIC sends it again.
            let _ = sockopt::set_socket_send_buffer_size(end, BUFFER_BYTES);
        }
        Ok((Passage(a), Passage(b)))
    }

    /// Sends a batch; never waits.
    #[must_use]
    pub fn send(&self, meta: &RecvMeta, bytes: &[u8]) -> Passed {
        let Ok(socket) = u8::try_from(meta.socket) else { return Passed::Full };
        let mut message = Vec::with_capacity(HEADER_LEN + bytes.len());
        let ecn = match meta.ecn {
            Ecn::NotEct => 0,
            Ecn::Ect1 => 1,
            Ecn::Ect0 => 2,
            Ecn::Ce => 3,
        };
        message.extend([socket, ecn]);
        message.extend(u32::try_from(meta.segment_len).unwrap_or(u32::MAX).to_le_bytes());
        message.extend(encode(meta.from));
        message.extend(encode(meta.to));
        message.extend_from_slice(bytes);
        match send(&self.0, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => Passed::Sent,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Passed::Ended,
            Err(_) => Passed::Full,
        }
    }

    /// Waits for the next batch; `None` when the other end is closed. What is no batch is passed over.
    pub fn receive(&self) -> Option<(RecvMeta, Vec<u8>)> {
        let mut message = vec![0; HEADER_LEN + RECV_BUFFER_LEN];
        loop {
            let len = match recv(&self.0, &mut message[..], RecvFlags::empty()) {
                Ok((_, 0)) => return None,
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            if let Some(batch) = message.get(..len).and_then(decode) {
                return Some(batch);
            }
        }
    }
}

impl From<OwnedFd> for Passage {
    fn from(socket: OwnedFd) -> Passage {
        Passage(socket)
    }
}

impl From<Passage> for OwnedFd {
    fn from(passage: Passage) -> OwnedFd {
        passage.0
    }
}

fn decode(message: &[u8]) -> Option<(RecvMeta, Vec<u8>)> {
    let (header, bytes) = message.split_first_chunk::<HEADER_LEN>()?;
    let ecn = match header[1] {
        1 => Ecn::Ect1,
        2 => Ecn::Ect0,
        3 => Ecn::Ce,
        _ => Ecn::NotEct,
    };
    let segment_len = u32::from_le_bytes(header[2..6].try_into().ok()?) as usize;
    let from = decode_address(header[6..6 + ADDRESS_LEN].try_into().ok()?)?;
    let to = decode_address(header[6 + ADDRESS_LEN..].try_into().ok()?)?;
    if segment_len == 0 || bytes.is_empty() {
        return None;
    }
    let meta = RecvMeta { socket: header[0].into(), from, to, segment_len, len: bytes.len(), ecn };
    Some((meta, bytes.to_vec()))
}

fn encode(address: SocketAddr) -> [u8; ADDRESS_LEN] {
    let mut out = [0; ADDRESS_LEN];
    match address {
        SocketAddr::V4(v4) => {
            out[0] = 4;
            out[1..5].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            out[0] = 6;
            out[1..17].copy_from_slice(&v6.ip().octets());
            out[19..23].copy_from_slice(&v6.scope_id().to_le_bytes());
        }
    }
    out[17..19].copy_from_slice(&address.port().to_le_bytes());
    out
}

fn decode_address(bytes: &[u8; ADDRESS_LEN]) -> Option<SocketAddr> {
    let port = u16::from_le_bytes([bytes[17], bytes[18]]);
    match bytes[0] {
        4 => {
            let octets: [u8; 4] = bytes[1..5].try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        6 => {
            let octets: [u8; 16] = bytes[1..17].try_into().ok()?;
            let scope = u32::from_le_bytes(bytes[19..23].try_into().ok()?);
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_pass_whole_and_the_end_is_seen() {
        let (near, far) = Passage::pair().unwrap();
        let addresses = ["192.0.2.1:4433", "[2001:db8::7]:1", "[fe80::1%3]:65535"];
        for (index, from) in addresses.iter().enumerate() {
            let meta = RecvMeta {
                socket: index,
                from: from.parse().unwrap(),
                to: "127.0.0.1:9".parse().unwrap(),
                segment_len: 1_200,
                len: 60_001,
                ecn: Ecn::Ce,
            };
            let bytes = vec![index as u8; meta.len];
            assert_eq!(near.send(&meta, &bytes), Passed::Sent);
            let (got, got_bytes) = far.receive().unwrap();
            assert_eq!(format!("{got:?}"), format!("{meta:?}"));
            assert_eq!(got_bytes, bytes);
        }
        drop(far);
        let meta = RecvMeta {
            socket: 0,
            from: addresses[0].parse().unwrap(),
            to: addresses[0].parse().unwrap(),
            segment_len: 1,
            len: 1,
            ecn: Ecn::NotEct,
        };
        assert_eq!(near.send(&meta, &[1]), Passed::Ended);
        assert!(near.receive().is_none());
        for damaged in [&[][..], &[0; HEADER_LEN], &[9; HEADER_LEN + 1]] {
            assert!(decode(damaged).is_none(), "{damaged:?}");
        }
    }
}
