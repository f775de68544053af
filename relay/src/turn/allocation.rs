//! One allocation: its relayed addresses, permissions and channels, each with the time at which it ends.
//!
//! Nothing here is used after its end, whether or not a timer has removed it: every question is asked with the time.

use super::ledger::Charge;
use super::permission::Reach;
use super::{FiveTuple, RelayId, SessionRecord, Usage};
use crate::stun::{ErrorCode, Family, TransactionId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// "The Permission Lifetime MUST be 300 seconds (= 5 minutes)" (RFC 8656 section 9).
pub(super) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// "A channel binding lasts for 10 minutes unless refreshed" (RFC 8656 section 12).
pub(super) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// For so long after its end a channel's number and peer stay reserved for each other. RFC 8656 section 12 makes clients wait
/// 5 minutes before they bind either anew; who does not wait would give one peer's late datagrams out as another's.
pub(super) const CHANNEL_REST: Duration = Duration::from_secs(300);

/// One client's allocation, with one relayed address or one of each family.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) session_id: u64,
    pub(super) user: Arc<str>,
    pub(super) client: FiveTuple,
    /// Whether `client` leads here. The stream of a mobile client may have closed.
    pub(super) is_attached: bool,
    pub(super) since_unix_s: u64,
    pub(super) relayed: [Option<Relayed>; 2],
    /// Of the Allocate that made it, so that its retransmission gets the same answer.
    pub(super) transaction: TransactionId,
    /// The family that an Allocate for both did not get, with the error code.
    pub(super) address_error: Option<(Family, ErrorCode)>,
    /// The reservation token that the Allocate got.
    pub(super) reservation: Option<[u8; 8]>,
    pub(super) mobility: Option<Mobility>,
    pub(super) usage: Usage,
    /// What it is charged to.
    pub(super) charge: Charge,
    /// The policy that its permissions were held to last, as [`Server`](super::Server) counts them.
    pub(super) judgement: u32,
    /// The heap entry that counts.
    pub(super) queued: Instant,
    /// By address.
    permissions: Vec<Permission>,
    /// By address and port of the peer.
    channels: Vec<Channel>,
    /// Number, and index into `channels`; by number.
    numbers: Vec<(u16, u16)>,
}

/// A relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) id: RelayId,
    /// As peers see it.
    pub(super) address: SocketAddr,
    pub(super) expires: Instant,
}

/// What an allocation whose client may move remembers (RFC 8016).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mobility {
    /// Count of the ticket that was given last.
    pub(super) ticket: u32,
    /// Whether the client has shown that it received that one. Until then the one before is good too: the answer with the
    /// new one may have been lost.
    pub(super) is_confirmed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Permission {
    ip: IpAddr,
    only_live_relayed: bool,
    expires: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Channel {
    peer: SocketAddr,
    number: u16,
    expires: Instant,
}

/// A permission that holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permitted {
    /// The address is the node's own: only live relayed addresses on it may be sent to.
    pub(super) only_live_relayed: bool,
}

/// Why a channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindError {
    /// The number is bound to another peer or the peer to another number, or was within [`CHANNEL_REST`].
    Conflict,
    /// The table is full.
    Full,
}

/// What begins an allocation.
pub(super) struct Beginning {
    pub(super) session_id: u64,
    pub(super) user: Arc<str>,
    pub(super) client: FiveTuple,
    pub(super) since_unix_s: u64,
    pub(super) relayed: [Option<Relayed>; 2],
    pub(super) transaction: TransactionId,
    pub(super) address_error: Option<(Family, ErrorCode)>,
    pub(super) reservation: Option<[u8; 8]>,
    pub(super) mobility: Option<Mobility>,
    pub(super) charge: Charge,
    pub(super) judgement: u32,
    pub(super) expires: Instant,
}

impl Allocation {
    pub(super) fn new(beginning: Beginning) -> Allocation {
        let Beginning { session_id, user, client, since_unix_s, relayed, .. } = beginning;
        let Beginning { transaction, address_error, reservation, mobility, charge, judgement, .. } =
            beginning;
        Allocation {
            session_id,
            user,
            client,
            is_attached: true,
            since_unix_s,
            relayed,
            transaction,
            address_error,
            reservation,
            mobility,
            usage: Usage::default(),
            charge,
            judgement,
            queued: beginning.expires,
            permissions: Vec::new(),
            channels: Vec::new(),
            numbers: Vec::new(),
        }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.relayed.iter().flatten().any(|relayed| now < relayed.expires)
    }

    /// The live relayed address of a family.
    pub(super) fn relayed(&self, now: Instant, family: Family) -> Option<&Relayed> {
        self.relayed.iter().flatten().find(|r| now < r.expires && Family::of(r.address.ip()) == family)
    }

    /// The permission for an address, if it holds now.
    pub(super) fn permitted(&self, now: Instant, ip: IpAddr) -> Option<Permitted> {
        let at = self.permissions.binary_search_by_key(&ip, |permission| permission.ip).ok()?;
        let permission = &self.permissions[at];
        (now < permission.expires).then_some(Permitted { only_live_relayed: permission.only_live_relayed })
    }

    /// The addresses that have a permission now.
    pub(super) fn permitted_ips(&self, now: Instant) -> impl Iterator<Item = IpAddr> + '_ {
        self.permissions
            .iter()
            .filter(move |permission| now < permission.expires)
            .map(|permission| permission.ip)
    }

    /// Whether permissions for all of these addresses, sorted and each once, fit into a table of `len_max`.
    pub(super) fn permissions_fit(&self, now: Instant, ips: &[IpAddr], len_max: usize) -> bool {
        let held = self.permitted_ips(now).filter(|ip| ips.binary_search(ip).is_err()).count();
        held + ips.len() <= len_max
    }

    /// Creates or refreshes a permission, and returns when it ends.
    pub(super) fn permit(&mut self, now: Instant, ip: IpAddr, only_live_relayed: bool) -> Instant {
        let expires = now + PERMISSION_LIFETIME;
        match self.permissions.binary_search_by_key(&ip, |permission| permission.ip) {
            Ok(at) => self.permissions[at] = Permission { ip, only_live_relayed, expires },
            Err(at) => {
                // What has ended makes room first, so that a full table of dead entries does not grow.
                let dead_before = self.permissions[..at].iter().filter(|p| p.expires <= now).count();
                self.permissions.retain(|permission| now < permission.expires);
                self.permissions.insert(at - dead_before, Permission { ip, only_live_relayed, expires });
            }
        }
        expires
    }

    /// Keeps of the permissions those that a policy gives, as it gives them. Channels stay: without a permission they lead
    /// nowhere.
    pub(super) fn hold_permissions(&mut self, judgement: u32, reach: impl Fn(IpAddr) -> Option<Reach>) {
        self.judgement = judgement;
        self.permissions.retain_mut(|permission| {
            let reach = reach(permission.ip);
            permission.only_live_relayed = reach == Some(Reach::OnlyLiveRelayed);
            reach.is_some()
        });
    }

    /// Where a channel leads, if it is bound and its peer has a permission.
    pub(super) fn channel(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let channel = self.channel_numbered(number)?;
        (now < channel.expires).then_some(channel.peer)
    }

    /// The channel that leads to a peer, if one is bound.
    pub(super) fn channel_to(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let channel = &self.channels[self.find_peer(peer).ok()?];
        (now < channel.expires).then_some(channel.number)
    }

    /// Whether a channel may be bound to a peer now.
    pub(super) fn may_bind(
        &self,
        now: Instant,
        number: u16,
        peer: SocketAddr,
        len_max: usize,
    ) -> Result<(), BindError> {
        let held = |channel: &Channel| now < channel.expires + CHANNEL_REST;
        let of_number = self.channel_numbered(number).filter(|channel| held(channel));
        let of_peer = self.find_peer(peer).ok().map(|at| &self.channels[at]).filter(|channel| held(channel));
        match (of_number, of_peer) {
            (None, None) if self.channels.iter().filter(|channel| held(channel)).count() >= len_max => {
                Err(BindError::Full)
            }
            (None, None) => Ok(()),
            (Some(one), Some(other)) if one == other => Ok(()),
            _ => Err(BindError::Conflict),
        }
    }

    /// Binds a channel that [`may_bind`](Allocation::may_bind) allows, or refreshes it. Returns when it ends.
    pub(super) fn bind(&mut self, now: Instant, number: u16, peer: SocketAddr) -> Instant {
        let expires = now + CHANNEL_LIFETIME;
        let channel = Channel { peer, number, expires };
        match self.find_peer(peer) {
            Ok(at) if self.channels[at].number == number => self.channels[at] = channel,
            _ => {
                self.drop_channels(|channel| channel.expires + CHANNEL_REST <= now);
                let at = self.find_peer(peer).unwrap_or_else(|at| at);
                self.channels.insert(at, channel);
                self.renumber();
            }
        }
        expires
    }

    /// Removes what has ended and returns when the next of what is left ends. At least one relayed address is live. The one that
    /// ended, if any, is handed to `close`.
    pub(super) fn expire(&mut self, now: Instant, close: impl FnOnce(RelayId)) -> Instant {
        let ended = self.relayed.iter_mut().find_map(|slot| slot.take_if(|relayed| relayed.expires <= now));
        if let Some(relayed) = ended {
            close(relayed.id);
            self.forget_families();
        }
        self.permissions.retain(|permission| now < permission.expires);
        self.drop_channels(|channel| channel.expires + CHANNEL_REST <= now);
        if self.permissions.is_empty() {
            self.permissions = Vec::new();
        }
        if self.channels.is_empty() {
            (self.channels, self.numbers) = (Vec::new(), Vec::new());
        }
        let relayed = self.relayed.iter().flatten().map(|relayed| relayed.expires);
        let permissions = self.permissions.iter().map(|permission| permission.expires);
        let channels = self.channels.iter().map(|channel| channel.expires + CHANNEL_REST);
        relayed.chain(permissions).chain(channels).min().unwrap_or(now + PERMISSION_LIFETIME)
    }

    /// What an operator sees of it.
    pub(super) fn record(&self, now: Instant) -> SessionRecord {
        let expires = self.relayed.iter().flatten().map(|relayed| relayed.expires).max();
        SessionRecord {
            id: self.session_id,
            user: Arc::clone(&self.user),
            client: self.client,
            relayed: self.relayed.iter().flatten().map(|relayed| relayed.address).collect(),
            since_unix_s: self.since_unix_s,
            remaining_s: expires.map_or(0, |expires| expires.saturating_duration_since(now).as_secs()),
            usage: self.usage,
            peers: self.permitted_ips(now).collect(),
        }
    }

    /// Removes the relayed address of a family, with its permissions and channels and no others (RFC 8656 section 8.1).
    pub(super) fn remove_family(&mut self, family: Family) -> Option<RelayId> {
        let of_family = |relayed: &mut Relayed| Family::of(relayed.address.ip()) == family;
        let removed = self.relayed.iter_mut().find_map(|relayed| relayed.take_if(of_family))?;
        self.forget_families();
        Some(removed.id)
    }

    /// Drops permissions and channels of families that have no relayed address any more.
    fn forget_families(&mut self) {
        let families = self.relayed.map(|relayed| relayed.map(|relayed| Family::of(relayed.address.ip())));
        let is_left = |ip: IpAddr| families.contains(&Some(Family::of(ip)));
        self.permissions.retain(|permission| is_left(permission.ip));
        self.drop_channels(|channel| !is_left(channel.peer.ip()));
    }

    fn drop_channels(&mut self, is_dropped: impl Fn(&Channel) -> bool) {
        let len = self.channels.len();
        self.channels.retain(|channel| !is_dropped(channel));
        if self.channels.len() < len {
            self.renumber();
        }
    }

    /// At most 4,096 entries, and only when a channel comes or goes.
    fn renumber(&mut self) {
        self.numbers.clear();
        self.numbers.extend((0u16..).zip(&self.channels).map(|(at, channel)| (channel.number, at)));
        self.numbers.sort_unstable();
    }

    fn channel_numbered(&self, number: u16) -> Option<&Channel> {
        let at = self.numbers.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        Some(&self.channels[usize::from(self.numbers[at].1)])
    }

    fn find_peer(&self, peer: SocketAddr) -> Result<usize, usize> {
        let key = (peer.ip(), peer.port());
        self.channels.binary_search_by_key(&key, |channel| (channel.peer.ip(), channel.peer.port()))
    }
}
