//! What the control plane sets for the relay (STUN and TURN), and what it may ask about its sessions.

use super::cidr::Cidr;
use super::limits::LimitError;
use crate::stun::Credentials;
use rkyv::{Archive, Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The most static users that a policy can name: 65,536 of 100 bytes are 6.5 MiB.
pub const RELAY_USERS_MAX: usize = 1 << 16;

/// The most prefixes in one list. Lists are looked through by bisection: 16 comparisons at this length.
pub const RELAY_PREFIXES_MAX: usize = 1 << 16;

/// The most secrets of the TURN REST convention: one in use, one on its way out, and room for other issuers.
pub const RELAY_SECRETS_MAX: usize = Credentials::SECRETS_MAX;

/// Bytes of the longest user name (RFC 8489 section 14.3: fewer than 509).
pub const RELAY_USER_LEN_MAX: usize = 508;

/// Bytes of the longest realm: with more a 401 could not stay within 3.5 times the shortest Allocate. From 13 bytes on the relay
/// offers MD5 keys alone, for the same reason.
pub const RELAY_REALM_LEN_MAX: usize = 24;

/// Who may use the relay, to reach whom, and how much. The default lets nobody in: it has no user and no secret.
///
/// Everything here may change while the relay runs, without dropping a session.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RelayPolicy {
    /// Sent as REALM (RFC 8489 section 14.9): 1 to 24 visible ASCII characters but `"`, `\\` and `:`. The keys of static users contain it: with another realm they no longer fit.
    pub realm: String,
    /// Users with a fixed password, each name once.
    pub users: Vec<RelayUser>,
    /// Secrets of the TURN REST convention, each of 1 to 256 bytes; a user name of the form `expiry:name` is tried with all of them.
    pub rest_secrets: Vec<Vec<u8>>,
    /// Whether clients may move to another address (RFC 8016).
    pub mobility: bool,
    /// Clients in these prefixes may use the relay; with none, all may. See [`crate::turn::access::AccessList`].
    pub client_allow: Vec<Cidr>,
    /// Clients in these prefixes may not, whatever `client_allow` says.
    pub client_deny: Vec<Cidr>,
    /// Peers in these prefixes may be reached although a default denies them.
    pub peer_allow: Vec<Cidr>,
    /// Peers in these prefixes may not be reached, whatever `peer_allow` says.
    pub peer_deny: Vec<Cidr>,
    /// The bounds.
    pub limits: RelayLimits,
    /// Refuse new allocations, keep those that live.
    pub draining: bool,
}

impl std::fmt::Debug for RelayPolicy {
    /// Whoever has a secret can make credentials, so there is none in any log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayPolicy")
            .field("realm", &self.realm)
            .field("users", &self.users)
            .field("rest_secrets", &self.rest_secrets.len())
            .field("mobility", &self.mobility)
            .field("client_allow", &self.client_allow)
            .field("client_deny", &self.client_deny)
            .field("peer_allow", &self.peer_allow)
            .field("peer_deny", &self.peer_deny)
            .field("limits", &self.limits)
            .field("draining", &self.draining)
            .finish()
    }
}

/// A user with a fixed password, of which only the keys are known.
#[derive(Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RelayUser {
    /// Its name: 1 to 508 bytes, as the client sends it (after OpaqueString, RFC 8265), without colon.
    pub name: String,
    /// MD5(name ":" realm ":" password), RFC 8489 section 18.5.1.1.
    pub key_md5: [u8; 16],
    /// SHA-256(name ":" realm ":" password), RFC 8489 section 18.5.1.2.
    pub key_sha256: [u8; 32],
}

impl std::fmt::Debug for RelayUser {
    /// Whoever has the keys can log in, so they are in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Bounds of the relay. 0 in a quota or a rate means without bound.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RelayLimits {
    /// Allocations of the node. 100,000 idle ones take about 100 MiB of the program's memory, and a socket each.
    pub allocations_max: u32,
    /// Allocations of a user, the node. A browser makes one a network interface and server: 16 allow four of them in four calls.
    pub allocations_per_user_max: u32,
    /// Allocations that a user may begin in a minute, the node; as many at once. A port rests for five minutes after its
    /// allocation, so a user who begins and ends them all the time holds five times this beside those that live: 60 are 2 % of
    /// an address's ports, and one a second is more than any client needs that loses its network now and then.
    pub allocations_per_min_per_user: u32,
    /// Allocations of a client address (IPv6: of its /64), the node. An office behind one address has many people: no bound.
    pub allocations_per_ip_max: u32,
    /// TCP and TLS streams of a client address (IPv6: of its /64), the node; one that has closed counts for five seconds more. So an
    /// address has at most 102 TLS handshakes a second made for it at 512, which is an office of hundreds on networks without UDP.
    pub streams_per_ip_max: u32,
    /// Payload bytes a second that the node relays, both directions together.
    pub bytes_per_s: u64,
    /// Payload bytes a second of a user, both directions together, the node.
    pub bytes_per_s_per_user: u64,
    /// Payload bytes a second of a client address (IPv6: of its /64), both directions together, the node.
    pub bytes_per_s_per_ip: u64,
    /// Answers a second to requests without valid credentials, a /24 (IPv6: a /48), the node: each shard gives its part, rounded up.
    /// Each client needs one or two when it begins: 256 let 128 clients a second begin behind one provider's address; a
    /// victim of spoofing gets 30 kB/s.
    pub strangers_per_s: u32,
    /// Lifetime of an allocation whose client does not ask for one. RFC 8656 section 3.2 gives 600 s.
    pub lifetime_default_s: u32,
    /// The longest lifetime that a client gets. RFC 8656 section 7.2 recommends 3,600 s.
    pub lifetime_max_s: u32,
    /// Age at which a nonce is stale. RFC 8656 section 5 recommends at most an hour.
    pub nonce_lifetime_s: u32,
    /// Lifetime of the credentials that peers are issued at the mailbox. A session that has begun goes on after it; who is denied loses it
    /// at once. An hour: what is stolen is of no use for long, and 20,000 peers ask six times a second.
    pub credential_lifetime_s: u32,
    /// Permissions an allocation. A client in a call needs one a candidate address of the other side, some tens.
    pub permissions_max: u32,
    /// Channels an allocation. There are 4,096 numbers (0x4000 to 0x4fff, RFC 8656 section 12).
    pub channels_max: u32,
}

impl Default for RelayLimits {
    fn default() -> RelayLimits {
        RelayLimits {
            allocations_max: 100_000,
            allocations_per_user_max: 16,
            allocations_per_min_per_user: 60,
            allocations_per_ip_max: 0,
            streams_per_ip_max: 512,
            bytes_per_s: 0,
            bytes_per_s_per_user: 0,
            bytes_per_s_per_ip: 0,
            strangers_per_s: 256,
            lifetime_default_s: 600,
            lifetime_max_s: 3_600,
            nonce_lifetime_s: 3_600,
            credential_lifetime_s: 3_600,
            permissions_max: 128,
            channels_max: 128,
        }
    }
}

impl RelayLimits {
    /// Name, value, least and most of every bound, as [`Limits::ranges`](super::Limits::ranges).
    pub fn ranges(&self) -> [(&'static str, u64, u64, u64); 15] {
        let count = u64::from;
        [
            ("allocations_max", count(self.allocations_max), 0, 10_000_000),
            ("allocations_per_user_max", count(self.allocations_per_user_max), 0, 10_000_000),
            ("allocations_per_min_per_user", count(self.allocations_per_min_per_user), 0, 10_000_000),
            ("allocations_per_ip_max", count(self.allocations_per_ip_max), 0, 10_000_000),
            ("streams_per_ip_max", count(self.streams_per_ip_max), 0, 10_000_000),
            ("bytes_per_s", self.bytes_per_s, 0, RATE_MAX),
            ("bytes_per_s_per_user", self.bytes_per_s_per_user, 0, RATE_MAX),
            ("bytes_per_s_per_ip", self.bytes_per_s_per_ip, 0, RATE_MAX),
            ("strangers_per_s", count(self.strangers_per_s), 1, 1_000_000),
            ("lifetime_default_s", count(self.lifetime_default_s), 30, 86_400),
            ("lifetime_max_s", count(self.lifetime_max_s), 30, 86_400),
            ("nonce_lifetime_s", count(self.nonce_lifetime_s), 60, 86_400),
            ("credential_lifetime_s", count(self.credential_lifetime_s), 1, 86_400),
            ("permissions_max", count(self.permissions_max), 1, 4_096),
            ("channels_max", count(self.channels_max), 1, 4_096),
        ]
    }

    fn check(&self) -> Result<(), LimitError> {
        for (name, value, min, max) in self.ranges() {
            if !(min..=max).contains(&value) {
                return Err(LimitError::Range { name, value, min, max });
            }
        }
        if self.lifetime_default_s > self.lifetime_max_s {
            return Err(LimitError::Order {
                name: "lifetime_default_s",
                value: self.lifetime_default_s.into(),
                bound_name: "lifetime_max_s",
                bound: self.lifetime_max_s.into(),
            });
        }
        Ok(())
    }
}

/// 1 TB/s: above any network interface there is, and far from where the arithmetic of token buckets would overflow.
const RATE_MAX: u64 = 1_000_000_000_000;

impl Default for RelayPolicy {
    fn default() -> RelayPolicy {
        RelayPolicy {
            realm: "ioex".into(),
            users: Vec::new(),
            rest_secrets: Vec::new(),
            mobility: true,
            client_allow: Vec::new(),
            client_deny: Vec::new(),
            peer_allow: Vec::new(),
            peer_deny: Vec::new(),
            limits: RelayLimits::default(),
            draining: false,
        }
    }
}

impl RelayPolicy {
    /// Whether the four lists of prefixes are those of `other`.
    #[must_use]
    pub fn has_prefixes_of(&self, other: &RelayPolicy) -> bool {
        self.client_allow == other.client_allow
            && self.client_deny == other.client_deny
            && self.peer_allow == other.peer_allow
            && self.peer_deny == other.peer_deny
    }

    /// Checks every bound and the length of every list, name and secret.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn check(&self) -> Result<(), LimitError> {
        let within = |name, len: usize, min: usize, max: usize| {
            if (min..=max).contains(&len) {
                return Ok(());
            }
            let [value, min, max] = [len, min, max].map(|n| n as u64);
            Err(LimitError::Range { name, value, min, max })
        };
        within("relay realm length", self.realm.len(), 1, RELAY_REALM_LEN_MAX)?;
        if !self.realm.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\:".contains(&byte)) {
            let reason = "it must be visible ASCII without space, quote, backslash and colon";
            return Err(LimitError::Unusable { name: "relay realm", reason });
        }
        within("relay users", self.users.len(), 0, RELAY_USERS_MAX)?;
        for user in &self.users {
            within("relay user name length", user.name.len(), 1, RELAY_USER_LEN_MAX)?;
        }
        let mut names: Vec<&str> = self.users.iter().map(|user| user.name.as_str()).collect();
        names.sort_unstable();
        if names.array_windows().any(|[one, next]| one == next) {
            return Err(LimitError::Unusable { name: "relay users", reason: "two of them have one name" });
        }
        within("relay secrets", self.rest_secrets.len(), 0, RELAY_SECRETS_MAX)?;
        for secret in &self.rest_secrets {
            within("relay secret length", secret.len(), 1, 256)?;
        }
        let lists = [
            ("relay client_allow", &self.client_allow),
            ("relay client_deny", &self.client_deny),
            ("relay peer_allow", &self.peer_allow),
            ("relay peer_deny", &self.peer_deny),
        ];
        for (name, list) in lists {
            within(name, list.len(), 0, RELAY_PREFIXES_MAX)?;
            for prefix in list {
                within(name, usize::from(prefix.prefix_len()), 0, prefix.address_bits().into())?;
            }
        }
        self.limits.check()
    }
}

/// The most sessions in one answer: with all their peers and the longest names they take 2 MiB, and a shard copies that many
/// out in about a millisecond.
pub const RELAY_SESSIONS_PER_FRAME_MAX: usize = 1_000;

/// The most peers that are listed for a session.
pub const RELAY_PEERS_LISTED_MAX: usize = 64;

/// Some of the relay's sessions, in no particular order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RelaySessions {
    /// At most [`RELAY_SESSIONS_PER_FRAME_MAX`] of them. What begins or ends while they are gathered may be missing.
    pub sessions: Vec<RelaySession>,
    /// Whether these are the last ones, which makes the answer final.
    pub is_last: bool,
}

/// One allocation, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RelaySession {
    /// Names the session as long as the engine's process lives: the shard in the upper 16 bits, a count below.
    pub id: u64,
    /// The user whose credentials opened it.
    pub user: String,
    /// What carries the client's messages: `udp`, `tcp` or `tls`.
    pub transport: String,
    /// Where the client is now.
    pub client: SocketAddr,
    /// Where it sent to.
    pub server: SocketAddr,
    /// Its relayed addresses as peers see them: one, or one of each family.
    pub relayed: Vec<SocketAddr>,
    /// When it began, seconds since 1970-01-01 UTC.
    pub since_unix_s: u64,
    /// Seconds until it ends if it is not refreshed.
    pub remaining_s: u64,
    /// Packets from the client to peers.
    pub to_peer_packets: u64,
    /// Their payload bytes.
    pub to_peer_bytes: u64,
    /// Packets from peers to the client.
    pub to_client_packets: u64,
    /// Their payload bytes.
    pub to_client_bytes: u64,
    /// The addresses of peers that have a permission now, at most [`RELAY_PEERS_LISTED_MAX`] of them.
    pub peers: Vec<IpAddr>,
    /// How many there are.
    pub peers_count: u32,
}

/// Which sessions to end.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RelaySelector {
    /// Those of a user.
    User(String),
    /// The one of this id.
    Id(u64),
}
