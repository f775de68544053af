//! A peer that has logged in: whom it allows, and what it may still do.

use std::time::Instant;

use identity::Uid;

use super::node_address::NodeAddress;
use super::shard::MailboxLimits;
use crate::turn::rate::TokenBucket;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) uid: Uid,
    pub(super) nospam: [u8; 4],
    /// Whether it has been announced to the directory.
    pub(super) is_listening: bool,
    /// In order, each once.
    allowed: Vec<Uid>,
    sends: TokenBucket,
    requests_sent: TokenBucket,
    requests_received: TokenBucket,
    /// Credentials for the relay that it may ask for.
    relay_asks: TokenBucket,
    /// The other nodes that it has named last, the latest at the end.
    named: Vec<NodeAddress>,
    names: TokenBucket,
}

/// Nodes that a peer may name again and again.
const NAMED_MAX: usize = 32;

impl Member {
    pub(super) fn new(uid: Uid, nospam: [u8; 4], now: Instant, limits: &MailboxLimits) -> Member {
        Member {
            uid,
            nospam,
            is_listening: false,
            allowed: Vec::new(),
            sends: TokenBucket::new(now, limits.sends_burst),
            requests_sent: TokenBucket::new(now, limits.requests_burst * SECONDS_PER_MINUTE),
            requests_received: TokenBucket::new(now, limits.requests_burst * SECONDS_PER_MINUTE),
            relay_asks: TokenBucket::new(now, limits.requests_burst * SECONDS_PER_MINUTE),
            named: Vec::new(),
            names: TokenBucket::new(now, limits.nodes_burst),
        }
    }

    /// Allows them all, or says that there would be more than `max`.
    pub(super) fn allow(&mut self, uids: &[Uid], max: usize) -> bool {
        for uid in uids {
            if let Err(at) = self.allowed.binary_search(uid) {
                if self.allowed.len() >= max {
                    return false;
                }
                // Grown by what is needed: a peer's friends are few and change seldom.
                self.allowed.reserve_exact(1);
                self.allowed.insert(at, *uid);
            }
        }
        true
    }

    pub(super) fn forbid(&mut self, uids: &[Uid]) {
        for uid in uids {
            if let Ok(at) = self.allowed.binary_search(uid) {
                self.allowed.remove(at);
            }
        }
        self.allowed.shrink_to_fit();
    }

    pub(super) fn allows(&self, uid: &Uid) -> bool {
        self.allowed.binary_search(uid).is_ok()
    }

    /// Whether it may send one more envelope now.
    pub(super) fn may_send(&mut self, now: Instant, limits: &MailboxLimits) -> bool {
        self.sends.refill(now, limits.sends_per_s, limits.sends_burst);
        self.sends.take(1)
    }

    /// Whether it may have something passed on to this node now. Connecting to any number of addresses is not for peers to ask for.
    pub(super) fn may_name(&mut self, node: NodeAddress, now: Instant, limits: &MailboxLimits) -> bool {
        if let Some(at) = self.named.iter().position(|named| *named == node) {
            self.named[at..].rotate_left(1);
            return true;
        }
        self.names.refill(now, limits.nodes_per_s, limits.nodes_burst);
        if !self.names.take(1) {
            return false;
        }
        if self.named.len() == NAMED_MAX {
            self.named.remove(0);
        }
        self.named.reserve_exact(1);
        self.named.push(node);
        true
    }

    /// Whether it may send one more friend request now.
    pub(super) fn may_request(&mut self, now: Instant, limits: &MailboxLimits) -> bool {
        take_a_minute(&mut self.requests_sent, now, limits)
    }

    /// Whether it may ask for credentials of the relay now: as often as for friendship.
    pub(super) fn may_ask_relay(&mut self, now: Instant, limits: &MailboxLimits) -> bool {
        take_a_minute(&mut self.relay_asks, now, limits)
    }

    /// Whether it may get one more friend request now.
    pub(super) fn may_be_asked(&mut self, now: Instant, limits: &MailboxLimits) -> bool {
        take_a_minute(&mut self.requests_received, now, limits)
    }
}

/// A request costs sixty tokens, so that whole rates a minute are whole rates a second.
const SECONDS_PER_MINUTE: u64 = 60;

fn take_a_minute(bucket: &mut TokenBucket, now: Instant, limits: &MailboxLimits) -> bool {
    bucket.refill(now, limits.requests_per_min, limits.requests_burst * SECONDS_PER_MINUTE);
    bucket.take(SECONDS_PER_MINUTE)
}
