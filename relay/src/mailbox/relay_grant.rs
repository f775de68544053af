//! Credentials for the node's relay, which a peer that has logged in may ask for: a user name `expiry:UID` and its password, as in
//! the TURN REST convention (draft-uberti-behave-turn-rest-00). Whoever allocates with them counts as that UID.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use identity::Uid;
use zeroize::Zeroizing;

use crate::stun::rest_password;

/// Bytes of a password: base64 of an HMAC-SHA1.
pub const RELAY_PASSWORD_LEN: usize = 28;

/// Bytes of a grant: expiry, password, three addresses with port.
pub(super) const GRANT_LEN: usize = 8 + RELAY_PASSWORD_LEN + 3 * PLACE_LEN;

const PLACE_LEN: usize = 16 + 2;

/// Where a node's relay listens. The unspecified address (`0.0.0.0`, `::`) stands for where the peer has reached the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayPlaces {
    /// TURN over UDP.
    pub udp: Option<SocketAddr>,
    /// TURN over TCP.
    pub tcp: Option<SocketAddr>,
    /// TURN over TLS on TCP.
    pub tls: Option<SocketAddr>,
}

/// With these a peer may begin sessions at the relay until they expire; sessions that have begun go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayGrant {
    /// Seconds since 1970-01-01 UTC.
    pub expires_s: u64,
    /// Visible ASCII.
    password: [u8; RELAY_PASSWORD_LEN],
    /// Where the relay listens.
    pub places: RelayPlaces,
}

/// Why there are no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum NoRelay {
    /// The node has no relay.
    #[error("the node has no relay")]
    Off = 1,
    /// Its relay serves users with a password of their own alone.
    #[error("the node's relay issues no credentials")]
    NotIssued = 2,
    /// The peer has asked too often.
    #[error("asked too often; ask again in a minute")]
    Busy = 3,
    /// The node's policy has expired.
    #[error("the node's policy has expired")]
    PolicyExpired = 4,
    /// The relay takes no new sessions.
    #[error("the node's relay takes no new sessions")]
    Draining = 5,
}

impl RelayPlaces {
    /// Their URIs (RFC 7065), with `node` in place of the unspecified address.
    #[must_use]
    pub fn uris(&self, node: IpAddr) -> Vec<String> {
        let at = |place: SocketAddr| {
            let ip = if place.ip().is_unspecified() { node.to_canonical() } else { place.ip() };
            SocketAddr::new(ip, place.port())
        };
        let uri = |scheme: &str, place: Option<SocketAddr>, transport: &str| {
            place.map(|place| format!("{scheme}:{}?transport={transport}", at(place)))
        };
        let all = [uri("turn", self.udp, "udp"), uri("turn", self.tcp, "tcp"), uri("turns", self.tls, "tcp")];
        all.into_iter().flatten().collect()
    }
}

impl RelayGrant {
    /// Credentials of `uid`, made with a secret of the relay.
    #[must_use]
    pub fn issue(secret: &[u8], uid: &Uid, expires_s: u64, places: RelayPlaces) -> RelayGrant {
        let mut password = [b'='; RELAY_PASSWORD_LEN];
        let made = rest_password(secret, &user_name(uid, expires_s));
        password.iter_mut().zip(made.bytes()).for_each(|(byte, made)| *byte = made);
        RelayGrant { expires_s, password, places }
    }

    /// USERNAME of the UID that the grant is for.
    #[must_use]
    pub fn user_name(&self, uid: &Uid) -> String {
        user_name(uid, self.expires_s)
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> Zeroizing<String> {
        Zeroizing::new(self.password.iter().map(|byte| char::from(*byte)).collect())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.expires_s.to_le_bytes());
        out.extend_from_slice(&self.password);
        let RelayPlaces { udp, tcp, tls } = self.places;
        for place in [udp, tcp, tls] {
            let (ip, port) = place.map_or((Ipv6Addr::UNSPECIFIED, 0), |place| match place.ip() {
                // Both unspecified addresses mean the same.
                ip if ip.is_unspecified() => (Ipv6Addr::UNSPECIFIED, place.port()),
                IpAddr::V4(ip) => (ip.to_ipv6_mapped(), place.port()),
                IpAddr::V6(ip) => (ip, place.port()),
            });
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
    }

    pub(super) fn read(bytes: &[u8; GRANT_LEN]) -> Option<RelayGrant> {
        let (expires_s, rest) = bytes.split_first_chunk::<8>()?;
        let (password, mut rest) = rest.split_first_chunk::<RELAY_PASSWORD_LEN>()?;
        let mut places = [None; 3];
        for place in &mut places {
            let (ip, after) = rest.split_first_chunk::<16>()?;
            let (port, after) = after.split_first_chunk::<2>()?;
            let (ip, port) = (Ipv6Addr::from(*ip), u16::from_le_bytes(*port));
            // One of IPv4 has one spelling, and nowhere has one too.
            if port == 0 && !ip.is_unspecified() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_unspecified())
            {
                return None;
            }
            *place = (port != 0).then(|| SocketAddr::new(IpAddr::V6(ip).to_canonical(), port));
            rest = after;
        }
        if !password.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let [udp, tcp, tls] = places;
        let places = RelayPlaces { udp, tcp, tls };
        Some(RelayGrant { expires_s: u64::from_le_bytes(*expires_s), password: *password, places })
    }
}

impl fmt::Debug for RelayGrant {
    /// Whoever has the password can log in, so it is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayGrant")
            .field("expires_s", &self.expires_s)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl NoRelay {
    pub(super) fn from_byte(byte: u8) -> Option<NoRelay> {
        let all =
            [NoRelay::Off, NoRelay::NotIssued, NoRelay::Busy, NoRelay::PolicyExpired, NoRelay::Draining];
        all.into_iter().find(|reason| *reason as u8 == byte)
    }
}

fn user_name(uid: &Uid, expires_s: u64) -> String {
    format!("{expires_s}:{uid}")
}
