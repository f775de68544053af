//! Connections that this node makes to others: of the mailbox service, over the sockets and in the turns of all others.

use super::connection::{Connection, Dialled};
use super::endpoint::{Endpoint, new_id};
use crate::driver::{Ecn, RecvMeta, SocketIndex};
use crate::http::ConnectionRef;
use identity::{Uid, certificate};
use quiche::ConnectionId as QuicId;
use relay::mailbox::{HOP_ALPN, LINK_IDLE, LINK_TIMEOUT, NodeAddress};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use x509_parser::der_parser::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the other may send without being read: answers about envelopes, of at most 76 bytes each.
const WINDOW: u64 = 64 << 10;

/// The settings of such connections. Who answers is looked at when the handshake is complete, in which it proves that the
/// certificate is its own.
pub(super) fn config() -> Result<quiche::Config, quiche::Error> {
    let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION)?;
    config.set_application_protos(&[HOP_ALPN])?;
    config.verify_peer(false);
    config.set_max_idle_timeout(LINK_IDLE.as_millis() as u64);
    config.set_initial_max_data(WINDOW);
    config.set_initial_max_stream_data_bidi_local(WINDOW);
    config.set_disable_active_migration(true);
    Ok(config)
}

impl Endpoint {
    /// Begins the connections that the mailbox service wants.
    pub(super) fn dial_nodes(&mut self, now: Instant) {
        while let Some(node) = self.mail.poll_dial() {
            let connection = self.dial(now, &node);
            self.mail.dialled(&node, connection);
        }
    }

    fn dial(&mut self, now: Instant, node: &NodeAddress) -> Option<ConnectionRef> {
        let to = node.address();
        let (socket, local) = socket_for(&self.listeners, to)?;
        if self.draining || self.connections.len() >= self.content.limits().connections_max as usize {
            return None;
        }
        let id = new_id(&self.keys, self.shard, self.shard_count, &self.ids);
        let scid = QuicId::from_ref(id.as_bytes());
        let quic =
            match quiche::connect_with_buffer_factory(None, &scid, local, to, &mut self.dialling_config) {
                Ok(quic) => quic,
                Err(error) => {
                    tracing::warn!(%error, "no connection to another node could be made");
                    return None;
                }
            };
        let serial = self.next_serial;
        self.next_serial += 1;
        let path = RecvMeta { socket, from: to, to: local, segment_len: 1, len: 0, ecn: Ecn::default() };
        let mut connection = Connection::new(quic, serial, id, &[], &path, now + LINK_TIMEOUT);
        connection.dialled = Some(Dialled { node: *node.uid(), local });
        connection.is_mail = true;
        let key = self.connections.insert(connection);
        self.ids.insert(id, key);
        self.handshakes += 1;
        self.live += 1;
        self.counters.connections_open.set(self.live as u64);
        if let Some(connection) = self.connections.get_mut(key) {
            Self::enqueue(&mut self.ready, connection, key);
        }
        Some(ConnectionRef { key, serial })
    }

    /// The handshake with another node is complete.
    pub(super) fn establish_link(&mut self, key: usize, node: &Uid) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let uid = connection.quic.peer_cert().and_then(certificate_uid);
        if uid != Some(*node) {
            tracing::debug!(%node, found = ?uid, "another node answers, or none");
        }
        self.mail.linked(ConnectionRef { key, serial: connection.serial }, uid == Some(*node));
    }
}

/// The socket from which `to` can be reached, and the address that a connection from there counts as its own: all zero where the
/// kernel chooses it.
fn socket_for(listeners: &[SocketAddr], to: SocketAddr) -> Option<(SocketIndex, SocketAddr)> {
    let speaks = |listener: &SocketAddr| {
        listener.is_ipv4() == to.is_ipv4() || to.is_ipv4() && listener.ip().is_unspecified()
    };
    let reaches = |listener: &SocketAddr| {
        listener.ip().is_unspecified() || listener.ip().is_loopback() == to.ip().is_loopback()
    };
    let fits = |(_, listener): &(SocketIndex, &SocketAddr)| speaks(listener) && reaches(listener);
    let (socket, listener) = listeners.iter().enumerate().find(fits)?;
    let local = if listener.is_ipv4() == to.is_ipv4() {
        *listener
    } else {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listener.port())
    };
    Some((socket, local))
}

/// The UID that a certificate (DER) is bound to, if it is.
fn certificate_uid(der: &[u8]) -> Option<Uid> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let extension = parsed.get_extension_unique(&Oid::from(certificate::EXTENSION_OID).ok()?).ok()??;
    certificate::verify_extension(extension.value, parsed.tbs_certificate.subject_pki.raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listeners: &[&str], to: &str) -> Option<(usize, String)> {
        let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        let (socket, local) = socket_for(&listeners, to.parse().unwrap())?;
        Some((socket, local.to_string()))
    }

    #[test]
    fn a_socket_that_reaches_the_other_is_chosen() {
        let both = ["127.0.0.1:1", "192.0.2.1:2", "[2001:db8::1]:3"];
        assert_eq!(chosen(&both, "127.0.0.9:7"), Some((0, "127.0.0.1:1".into())));
        assert_eq!(chosen(&both, "198.51.100.1:7"), Some((1, "192.0.2.1:2".into())));
        assert_eq!(chosen(&both, "[2001:db8::2]:7"), Some((2, "[2001:db8::1]:3".into())));
        assert_eq!(chosen(&["[::]:4"], "198.51.100.1:7"), Some((0, "0.0.0.0:4".into())));
        assert_eq!(chosen(&["[::]:4"], "[2001:db8::2]:7"), Some((0, "[::]:4".into())));
        assert_eq!(chosen(&["0.0.0.0:4"], "[2001:db8::2]:7"), None);
        assert_eq!(chosen(&["[2001:db8::1]:3"], "198.51.100.1:7"), None);
    }
}
