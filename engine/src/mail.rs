//! The mailbox service: peers on connections of ALPN `ioex-mailbox/1` reach each other through [`relay::mailbox`], which
//! decides; here its bytes come off streams and go onto them. Nodes among themselves use `ioex-hop/1`. (`crate::mailbox` is something else: the queues between shards.)

use crate::http::ConnectionRef;
use crate::metrics::ShardCounters;
use crate::quic::QuicConnection;
use relay::mailbox::{
    ALPN, Close, EXPORTER_LABEL, EXPORTER_LEN, HOP_ALPN, Mailbox, MailboxOptions, NodeAddress, SessionId,
};
use relay::policy::Policy;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use relay::mailbox::Command;

/// The stream on which everything stands: the client's first bidirectional one (RFC 9000 section 2.1).
const STREAM: u64 = 0;

/// Bytes that are read at a time.
const CHUNK_LEN: usize = 16 << 10;

/// The node goes away; the peer is to connect elsewhere.
const GOING_AWAY: u64 = 0x0;

/// A shard's part of the mailbox service.
#[derive(Debug)]
pub struct Mail {
    mailbox: Mailbox,
    /// Where streams are read into.
    chunk: Box<[u8]>,
}

impl Mail {
    /// A service without sessions.
    #[must_use]
    pub fn new(now: Instant, options: MailboxOptions) -> Self {
        Self { mailbox: Mailbox::new(now, options), chunk: vec![0; CHUNK_LEN].into() }
    }

    /// Whether a connection whose handshake is complete is for this service.
    #[must_use]
    pub fn is_for(quic: &QuicConnection) -> bool {
        quic.application_proto() == ALPN || Mail::is_hop(quic)
    }

    /// Whether it is one between nodes.
    #[must_use]
    pub fn is_hop(quic: &QuicConnection) -> bool {
        quic.application_proto() == HOP_ALPN
    }

    /// Holds logins and addresses of other nodes to this policy from now on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.mailbox.set_policy(policy);
    }

    /// Another node has connected, from `source`.
    pub fn open_visitor(&mut self, now: Instant, connection: ConnectionRef, source: IpAddr) {
        self.mailbox.open_visitor(now, id(connection), source);
    }

    /// The next node to connect to; [`Mail::dialled`] is to follow.
    pub fn poll_dial(&mut self) -> Option<NodeAddress> {
        self.mailbox.poll_dial()
    }

    /// A connection to `node` has been begun, or cannot be.
    pub fn dialled(&mut self, node: &NodeAddress, connection: Option<ConnectionRef>) {
        self.mailbox.dialled(node, connection.map(id));
    }

    /// The handshake with another node is complete; whether it has proved to be the one that was named.
    pub fn linked(&mut self, connection: ConnectionRef, is_the_node: bool) {
        self.mailbox.linked(id(connection), is_the_node);
    }

    /// Begins a session; closes the connection where TLS exports nothing to sign.
    pub fn open(&mut self, quic: &mut QuicConnection, connection: ConnectionRef) {
        let mut exported = [0; EXPORTER_LEN];
        let tls: &mut boring::ssl::SslRef = quic.as_mut();
        match tls.export_keying_material(&mut exported, EXPORTER_LABEL, None) {
            Ok(()) => self.mailbox.open(id(connection), exported),
            Err(error) => {
                tracing::warn!(%error, "a connection exports no keying material, so nobody can log in over it");
                close(quic, Close::LoginRefused as u64);
            }
        }
    }

    /// Takes what has arrived on a connection.
    pub fn receive(&mut self, now: Instant, quic: &mut QuicConnection, connection: ConnectionRef) {
        if !quic.is_readable() {
            return;
        }
        if quic.readable().any(|stream| stream != STREAM) {
            return close(quic, Close::Malformed as u64);
        }
        // Ends when the stream is empty, which flow control sees to: nothing arrives meanwhile.
        loop {
            match quic.stream_recv(STREAM, &mut self.chunk) {
                Ok((len, is_end)) => {
                    self.mailbox.receive(now, unix_time_us(), id(connection), &self.chunk[..len]);
                    if is_end {
                        return close(quic, GOING_AWAY);
                    }
                    if len == 0 {
                        return;
                    }
                }
                Err(quiche::Error::Done | quiche::Error::InvalidStreamState(_)) => return,
                // The peer has reset its stream: there is nothing more to say.
                Err(_) => return close(quic, GOING_AWAY),
            }
        }
    }

    /// Writes what a session has to say, as far as there is room, or closes its connection if the session is over.
    pub fn send(&mut self, quic: &mut QuicConnection, connection: ConnectionRef) {
        let id = id(connection);
        if let Some(why) = self.mailbox.closing(id) {
            return close(quic, why as u64);
        }
        while !self.mailbox.unsent(id).is_empty() {
            match quic.stream_send(STREAM, self.mailbox.unsent(id), false) {
                Ok(0) | Err(quiche::Error::Done) => return,
                Ok(len) => self.mailbox.sent(id, len),
                // The peer does not want to read any more.
                Err(_) => return close(quic, GOING_AWAY),
            }
        }
    }

    /// Closes a connection that has not logged in in time.
    pub fn expect_login(&self, quic: &mut QuicConnection, connection: ConnectionRef) {
        if !self.mailbox.is_logged_in(id(connection)) {
            close(quic, Close::LoginRefused as u64);
        }
    }

    /// Tells a peer to go elsewhere, for the node ends.
    pub fn go_away(quic: &mut QuicConnection) {
        close(quic, GOING_AWAY);
    }

    /// A connection has ended.
    pub fn end(&mut self, connection: ConnectionRef) {
        self.mailbox.end(id(connection));
    }

    /// Does what another shard asks for.
    pub fn obey(&mut self, now: Instant, command: Command) {
        self.mailbox.obey(now, unix_time_us(), command);
    }

    /// The next connection that has something to send or is to be closed.
    pub fn poll_waking(&mut self) -> Option<ConnectionRef> {
        self.mailbox.poll_waking().map(|id| ConnectionRef { key: id.slot, serial: id.serial })
    }

    /// The next command for another shard, and which.
    pub fn poll_post(&mut self) -> Option<(usize, Command)> {
        self.mailbox.poll_post()
    }

    /// A command whose shard has no room for it now.
    pub fn put_back(&mut self, shard: usize, command: Command) {
        self.mailbox.put_back(shard, command);
    }

    /// Whether commands for other shards wait.
    #[must_use]
    pub fn has_posts(&self) -> bool {
        self.mailbox.has_posts()
    }

    /// Publishes what was counted.
    pub fn count(&self, counters: &ShardCounters) {
        let counted = self.mailbox.counters();
        counters.mailbox_sessions.set(self.mailbox.sessions() as u64);
        counters.mailbox_logins.set(counted.logins);
        counters.mailbox_logins_refused.set(counted.logins_refused);
        counters.mailbox_logins_policy_expired.set(counted.logins_policy_expired);
        counters.mailbox_logins_denied.set(counted.logins_denied);
        counters.mailbox_logins_not_allowed.set(counted.logins_not_allowed);
        counters.mailbox_denied.set(counted.denied);
        counters.mailbox_hops_sender_denied.set(counted.hops_sender_denied);
        counters.mailbox_relay_granted.set(counted.relay_granted);
        counters.mailbox_relay_not_granted.set(counted.relay_not_granted);
        counters.mailbox_displaced.set(counted.displaced);
        counters.mailbox_malformed.set(counted.malformed);
        counters.mailbox_slow.set(counted.slow);
        counters.mailbox_delivered.set(counted.delivered);
        counters.mailbox_offline.set(counted.offline);
        counters.mailbox_refused.set(counted.refused);
        counters.mailbox_nospam_wrong.set(counted.nospam_wrong);
        counters.mailbox_busy.set(counted.busy);
        counters.mailbox_lost.set(counted.lost);
        counters.mailbox_hops_sent.set(counted.hops_sent);
        counters.mailbox_hops_received.set(counted.hops_received);
        counters.mailbox_hops_failed.set(counted.hops_failed);
        counters.mailbox_hops_denied.set(counted.hops_denied);
        counters.mailbox_hops_forged.set(counted.hops_forged);
        counters.mailbox_hops_crowded.set(counted.hops_crowded);
        counters.mailbox_hops_unexpected.set(counted.hops_unexpected);
    }
}

fn id(connection: ConnectionRef) -> SessionId {
    SessionId { slot: connection.key, serial: connection.serial }
}

/// Closes with a code of the service; that it fails means that the connection is closed already.
fn close(quic: &mut QuicConnection, code: u64) {
    let _ = quic.close(true, code, b"");
}

fn unix_time_us() -> u64 {
    // Before 1970 a peer that goes by this clock finds every envelope out of time, which is true.
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
