//! STUN (RFC 8489) as a TURN server (RFC 8656) with mobility (RFC 8016) needs it: messages are read in place and
//! written into the caller's buffer, requests are authenticated with long-term credentials.
//!
//! **Participants.** A client that knows a user name and a password, and this server, which knows keys derived from
//! them. `turn` decides what a request does; this module decides only whether the bytes are STUN and who sent them.
//!
//! **Goals.** Total on hostile input: no byte sequence panics, and every bound is checked by a slice operation that
//! returns an option. No state before authentication: the nonce proves itself ([`Nonces`]). No allocation for a
//! message that is read or written. An answer to somebody who has proved nothing is at most 3.5 times as long as the
//! request ([`stranger_reply_bytes_max`]).
//!
//! **Not here.** ChannelData (four bytes, which belong to the relay path), transactions and retransmission (a server
//! has none), short-term credentials (ICE's, not TURN's), RFC 3489 without the magic cookie.
//!
//! # Why a codec of its own
//!
//! `stun-types` 2.0 and `turn-types` 0.7 were read first. Three things rule them out here: a key can only be made from a
//! password that the program keeps, whereas this server stores keys alone; a key is a `Vec` and two mutexes behind
//! `Arc`, and reading a message enters a `tracing` span, which a Send indication would pay for each packet (94 ns against
//! 34, without a subscriber); and the server's half of RFC 8489 section 9.2.4 (security features in the nonce,
//! PASSWORD-ALGORITHMS, USERHASH) would be ours in any case. What is left of them is the walk over attributes, which is
//! one screen ([`Message::decode`]). The hashes, the checksum and string preparation are the kept crates'.

mod address;
mod attribute;
mod authenticate;
mod credentials;
mod integrity;
mod message;
mod nonce;
mod writer;

pub use address::Family;
pub use attribute::{AttributeType, Attributes, Malformed, UnknownAttributes};
pub use authenticate::{AuthCounts, AuthError, Authenticated, Authenticator, Expiry};
pub use credentials::{Credentials, CredentialsError, StaticUser, UserKeys, rest_password, user_hash};
pub use integrity::{Integrity, Key, PasswordAlgorithm, ReplyKey};
pub use message::{Class, DecodeError, HEADER_LEN, Message, Method, TransactionId};
pub use nonce::{NONCE_LEN, Nonces};
pub use writer::{ErrorCode, NoRoom, Writer, data_indication_header};

/// Length that an answer to somebody who has not proved that the source address is theirs may have at most, for a
/// request of `request_len` bytes: 3.5 times. Datagrams only; a stream's handshake has proved the address.
///
/// Give the reply's writer a buffer cut to this length, and what is too long does not get written.
pub const fn stranger_reply_bytes_max(request_len: usize) -> usize {
    request_len.saturating_mul(7) / 2
}
