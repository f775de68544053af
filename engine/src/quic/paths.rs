//! Which path a connection uses, and what was in flight on those that its client has left.
//!
//! quiche keeps loss recovery apart for each path. What was in flight on a path when the client left it is found lost
//! only by an acknowledgement of a later packet of that same path; but nothing later is sent there, and its probe
//! time-outs send the same two packets again and again. A client that changes networks loses whatever was under way to
//! its old address, so the transfer would stand still. So the left path is probed once more, and the probe (a
//! PATH_CHALLENGE, which any path may carry) is sent to where the client is now: its acknowledgement tells quiche at once
//! what was lost.

use super::buf::QuicConnection;
use std::net::{IpAddr, SocketAddr};

/// A local and a remote address.
type Path = (SocketAddr, SocketAddr);

/// Left paths that are remembered: as many as a client has connection ids to move with.
const LEFT_MAX: usize = 4;

/// The paths of a connection, as far as sending needs to know them.
#[derive(Debug)]
pub(super) struct Paths {
    active: Path,
    /// Paths that the client has left, oldest first.
    left: Vec<Path>,
}

impl Paths {
    /// A connection that was opened over this path.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { active: (local, remote), left: Vec::new() }
    }

    /// The client has moved to a path that is validated. Has quiche probe the one that it left.
    pub(super) fn migrated(&mut self, quic: &mut QuicConnection, local: SocketAddr, remote: SocketAddr) {
        let left = std::mem::replace(&mut self.active, (local, remote));
        self.left.retain(|path| *path != self.active && *path != left);
        if left == self.active {
            return;
        }
        if self.left.len() == LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push(left);
        // It fails where quiche has forgotten the path; then nothing is in flight there either.
        let _ = quic.probe_path(left.0, left.1);
    }

    /// Where the client is.
    pub(super) fn remote(&self) -> IpAddr {
        self.active.1.ip()
    }

    /// The addresses to send a packet of this path with.
    pub(super) fn redirect(&self, local: SocketAddr, remote: SocketAddr) -> Path {
        if self.left.contains(&(local, remote)) { self.active } else { (local, remote) }
    }
}
