//! Why something was not done, and how often what happened.

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
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Cause; 9] = [
        Cause::Malformed,
        Cause::NotARequest,
        Cause::StrangerLimit,
        Cause::ClientDenied,
        Cause::NoAllocation,
        Cause::NoChannel,
        Cause::NoPermission,
        Cause::PeerDenied,
        Cause::RateLimit,
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
        }
    }
}

/// What a server has counted since it began. All but `allocations` only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// What was dropped, by [`Cause::ALL`]: messages of [`Server::handle_client`](super::Server::handle_client), and refusals of the fast path
    /// (packets where the call says how many).
    pub drops: [u64; Cause::ALL.len()],
    /// Success responses.
    pub successes: u64,
    /// Error responses, by [`Counters::ERROR_CODES`]; the last one counts any other code.
    pub errors: [u64; Counters::ERROR_CODES.len() + 1],
    /// Allocations that live.
    pub allocations: u64,
    /// Packets from clients to peers that were admitted.
    pub to_peer_packets: u64,
    /// Their payload bytes.
    pub to_peer_bytes: u64,
    /// Packets from peers to clients that were admitted.
    pub to_client_packets: u64,
    /// Their payload bytes.
    pub to_client_bytes: u64,
}

impl Counters {
    /// The error codes that have a counter of their own.
    pub const ERROR_CODES: [u16; 15] =
        [400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 486, 500, 508, 300];
}
