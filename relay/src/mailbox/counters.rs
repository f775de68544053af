//! What a shard of the mailbox counts.

/// Since the shard began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Logins whose signature held.
    pub logins: u64,
    /// Logins whose signature did not.
    pub logins_refused: u64,
    /// Logins refused because the policy has expired.
    pub logins_policy_expired: u64,
    /// Logins of UIDs that are denied.
    pub logins_denied: u64,
    /// Logins of UIDs that are not among those allowed.
    pub logins_not_allowed: u64,
    /// Sessions and logins that ended because their UID is not served.
    pub denied: u64,
    /// Envelopes that other nodes have passed on, of senders that are not served here.
    pub hops_sender_denied: u64,
    /// Sessions that ended because the same UID logged in again.
    pub displaced: u64,
    /// Sessions that were closed for a frame or an envelope that no peer may send.
    pub malformed: u64,
    /// Sessions that were closed because they do not read.
    pub slow: u64,
    /// Credentials for the relay that were issued.
    pub relay_granted: u64,
    /// Peers that asked for them and got none.
    pub relay_not_granted: u64,
    /// Envelopes that were written to their receiver's session.
    pub delivered: u64,
    /// Envelopes to peers that are not connected.
    pub offline: u64,
    /// Envelopes from UIDs that their receiver does not allow.
    pub refused: u64,
    /// Friend requests with a wrong nospam value.
    pub nospam_wrong: u64,
    /// Envelopes above a rate or into a full queue.
    pub busy: u64,
    /// Envelopes whose receiver's node is gone without an answer about them.
    pub lost: u64,
    /// Envelopes that were passed on to other nodes.
    pub hops_sent: u64,
    /// Envelopes that other nodes have passed on to this one, and that their senders have signed.
    pub hops_received: u64,
    /// Connections to other nodes that did not come about, broke, or led to somebody else.
    pub hops_failed: u64,
    /// Envelopes to nodes at addresses that this one does not reach.
    pub hops_denied: u64,
    /// Connections of other nodes that were closed for an envelope that its sender has not signed.
    pub hops_forged: u64,
    /// Connections of other nodes that were closed because there were as many as may be.
    pub hops_crowded: u64,
    /// Answers of other nodes about envelopes that they were not given.
    pub hops_unexpected: u64,
}
