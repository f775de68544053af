//! The role of a node: what it is for, as a set of defaults. Whatever the file, the environment or a flag says goes over them.

use super::keys::{Configuration, words};
use super::peer::MailboxNode;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The port on which servers of the DHT are found unless they say otherwise, as BitTorrent's.
const DHT_PORT: u16 = 6881;

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Introduces peers to each other and relays between them; stores nothing.
    Bootstrap,
    /// A device with friends that stores for others, too.
    Peer,
    /// A device with friends that stores nothing for others.
    Phone,
    /// A specific peer node: splits, encrypts and places publishers' files.
    Spn,
    /// Stores and serves what publishers send.
    Cache,
}

words!(Role { Bootstrap = "bootstrap", Peer = "peer", Phone = "phone", Spn = "spn", Cache = "cache" });

impl Role {
    /// The defaults of a node in this role:
    ///
    /// ```text
    ///             DHT                     stores   relays   mailbox
    /// bootstrap   server, announced       no       yes
    /// peer        client                  yes      no       auto
    /// phone       client                  no       no       auto
    /// spn         server                  yes      no       auto
    /// cache       server                  yes      no
    /// ```
    pub fn defaults(self) -> Configuration {
        let mut configuration = Configuration::default();
        configuration.node.role = Some(self);
        let is_server = matches!(self, Role::Bootstrap | Role::Spn | Role::Cache);
        configuration.dht.server = is_server;
        // Who only asks need not be found, and takes any port.
        let port = if is_server { DHT_PORT } else { 0 };
        configuration.dht.listen = Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
        configuration.dht.bootstrap_node = self == Role::Bootstrap;
        if matches!(self, Role::Bootstrap | Role::Phone) {
            configuration.limits.store_bytes_max = 0;
        }
        if self == Role::Bootstrap {
            const STUN_PORT: u16 = 3478;
            configuration.relay.listen = vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, STUN_PORT))];
        }
        if matches!(self, Role::Peer | Role::Phone | Role::Spn) {
            configuration.peer.mailbox = MailboxNode::Auto;
        }
        configuration
    }
}
