//! What a shard of the mailbox counts.

/// Since the shard began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Logins whose signature held.
    pub logins: u64,
    /// Logins whose signature did not.
    pub logins_refused: u64,
    /// Sessions that ended because the same UID logged in again.
    pub displaced: u64,
    /// Sessions that were closed for a frame or an envelope that no peer may send.
    pub malformed: u64,
    /// Sessions that were closed because they do not read.
    pub slow: u64,
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
}
