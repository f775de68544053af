//! A TURN client that makes load, written on other people's codec (turn-types) so that it checks the relay as it measures.
//!
//! Participants: `message` builds requests and reads answers; `flows` holds the allocations, each with a socket of its own,
//! and the peer that all of them talk to; `closed_loop` keeps a relay busy, `open_loop` sends at a fixed rate and
//! measures delay; `uclient` runs coturn's own client and reads what it says. All of it is one thread.

pub mod closed_loop;
pub mod flows;
pub mod message;
pub mod open_loop;
pub mod setup;
pub mod uclient;

/// Payload bytes of every datagram that is relayed.
pub const PAYLOAD_LEN: usize = 1_200;

/// Bytes before the payload in a ChannelData message (RFC 8656 section 12.4).
pub const CHANNEL_HEADER_LEN: usize = 4;

/// Bytes of a ChannelData message; no padding over UDP, and none needed.
pub const CHANNEL_DATA_LEN: usize = CHANNEL_HEADER_LEN + PAYLOAD_LEN;

/// Datagrams of a full GSO batch: 54 x 1,204 = 65,016 bytes, the most that fits the 65,507 of one UDP send.
pub const BATCH_DATAGRAMS: usize = 54;

/// The channel that every allocation binds to the peer. The number means something within one allocation only.
pub const CHANNEL: u16 = 0x4000;

/// Who a client says it is.
#[derive(Clone, Debug)]
pub struct Credential {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}
