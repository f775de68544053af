//! Why something was not done, and how often what happened.

use super::Usage;
use super::ledger::QuotaExceeded;
use crate::stun::ErrorCode;

/// Why nothing was done with a message or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Neither STUN nor ChannelData, or its lengths disagree.
    Malformed,
    /// A response, an indication with nothing to do, or a method that no server handles: never answered.
    NotARequest,
    /// The rate limit of answers to strangers.
    StrangerLimit,
    /// A client whose address the policy denies.
    ClientDenied,
    /// Data of a five-tuple without an allocation, or of one that is gone.
    NoAllocation,
    /// The channel is not bound, or its binding has expired.
    NoChannel,
    /// There is no permission for the peer's address, or it has expired.
    NoPermission,
    /// The policy denies the peer, or its family is not the allocation's.
    PeerDenied,
    /// A token bucket of the user, the address or the node was empty.
    RateLimit,
    /// A peer's data for a mobile client whose stream has closed and that has not come back.
    ClientGone,
    /// No policy was put in force yet.
    NoPolicy,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Cause; 11] = [
        Cause::Malformed,
        Cause::NotARequest,
        Cause::StrangerLimit,
        Cause::ClientDenied,
        Cause::NoAllocation,
        Cause::NoChannel,
        Cause::NoPermission,
        Cause::PeerDenied,
        Cause::RateLimit,
        Cause::ClientGone,
        Cause::NoPolicy,
    ];

    /// The label of metrics and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::NotARequest => "not_a_request",
            Cause::StrangerLimit => "stranger_limit",
            Cause::ClientDenied => "client_denied",
            Cause::NoAllocation => "no_allocation",
            Cause::NoChannel => "no_channel",
            Cause::NoPermission => "no_permission",
            Cause::PeerDenied => "peer_denied",
            Cause::RateLimit => "rate_limit",
            Cause::ClientGone => "client_gone",
            Cause::NoPolicy => "no_policy",
        }
    }
}

/// What a server has counted since it began. All only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What was dropped, by [`Cause::ALL`]: messages of [`Server::handle_client`](super::Server::handle_client), and refusals of the fast path
    /// (packets where the call says how many).
    pub drops: [u64; Cause::ALL.len()],
    /// Success responses.
    pub successes: u64,
    /// Error responses, by [`Counters::ERROR_CODES`]; the last one counts any other code.
    pub errors: [u64; Counters::ERROR_CODES.len() + 1],
    /// Allocations refused, by [`QuotaExceeded::ALL`]; each is among the errors too.
    pub quotas: [u64; QuotaExceeded::ALL.len()],
    /// Allocations refused because the policy has expired; each is among the errors too.
    pub policy_expired: u64,
    /// Requests of users who are denied, and of users who are not among those allowed; each is among the errors too.
    pub users_refused: [u64; 2],
    /// What was admitted, of all sessions.
    pub usage: Usage,
}

impl Counters {
    /// The error codes that have a counter of their own.
    pub const ERROR_CODES: [u16; 13] = [400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 486, 508];

    pub(super) fn count_error(&mut self, code: ErrorCode) {
        let at = Counters::ERROR_CODES.iter().position(|&counted| counted == code.get());
        self.errors[at.unwrap_or(Counters::ERROR_CODES.len())] += 1;
    }
}
