//! Writing messages into a buffer of the caller's, attribute by attribute, without allocation.

use std::net::SocketAddr;

use super::address::{self, Family};
use super::attribute::{AttributeType, UnknownAttributes};
use super::integrity::{self, Integrity, ReplyKey, SHA1_LEN, SHA256_LEN};
use super::message::{Class, HEADER_LEN, MAGIC_COOKIE, Message, Method, TransactionId};

/// The number in ERROR-CODE: 300 to 699.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(u16);

impl ErrorCode {
    /// Ask another server.
    pub const TRY_ALTERNATE: Self = Self(300);
    /// The request is malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// Credentials are missing or wrong.
    pub const UNAUTHENTICATED: Self = Self(401);
    /// The server will not do this for this client.
    pub const FORBIDDEN: Self = Self(403);
    /// Mobility is not offered (RFC 8016).
    pub const MOBILITY_FORBIDDEN: Self = Self(405);
    /// An attribute that must be understood is not.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// There is no allocation, or there is one already.
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// The nonce has expired: try again with the new one.
    pub const STALE_NONCE: Self = Self(438);
    /// The address family is not offered.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// The credentials are not those that the allocation was made with.
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// Only UDP is relayed.
    pub const UNSUPPORTED_TRANSPORT_PROTOCOL: Self = Self(442);
    /// A peer's address has another family than the relayed address.
    pub const PEER_ADDRESS_FAMILY_MISMATCH: Self = Self(443);
    /// The user's, the address's or the node's share is used up.
    pub const ALLOCATION_QUOTA_REACHED: Self = Self(486);
    /// The server failed; the client may try again.
    pub const SERVER_ERROR: Self = Self(500);
    /// No port or no memory is left.
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);

    /// The number, 300 to 699.
    pub fn get(self) -> u16 {
        self.0
    }

    /// Hundreds and the rest, as attributes hold them.
    fn class_and_number(self) -> [u8; 2] {
        // Both fit: every code is a constant of this file.
        [(self.0 / 100) as u8, (self.0 % 100) as u8]
    }
}

/// The buffer is too short for the message, or the message longer than STUN can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not fit in its buffer")]
pub struct NoRoom;

/// A message that is being written. An attribute that does not fit is remembered, and [`Self::finish`] says so, so that
/// callers write a message without a question mark a line.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    transaction: TransactionId,
    has_room: bool,
}

impl<'a> Writer<'a> {
    /// Starts a message at the start of `out`.
    pub fn new(out: &'a mut [u8], class: Class, method: Method, transaction: TransactionId) -> Self {
        let mut writer = Self { out, len: 0, transaction, has_room: true };
        writer.push(&class.with(method).to_be_bytes());
        writer.push(&[0, 0]);
        writer.push(&MAGIC_COOKIE);
        writer.push(&transaction.0);
        writer
    }

    /// Starts the success response to a request.
    pub fn success(out: &'a mut [u8], request: &Message<'_>) -> Self {
        Self::new(out, Class::Success, request.method(), request.transaction())
    }

    /// Starts the error response to a request: header and ERROR-CODE without a reason phrase.
    pub fn error(out: &'a mut [u8], request: &Message<'_>, code: ErrorCode) -> Self {
        let mut writer = Self::new(out, Class::Error, request.method(), request.transaction());
        let [class, number] = code.class_and_number();
        writer.attribute(AttributeType::ERROR_CODE, &[0, 0, class, number]);
        writer
    }

    /// Any attribute, padded with zeros.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(value.len()) else {
            self.has_room = false;
            return self;
        };
        self.push(&kind.0.to_be_bytes());
        self.push(&len.to_be_bytes());
        self.push(value);
        self.push(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
        self
    }

    /// An address, XORed: XOR-MAPPED-ADDRESS, XOR-RELAYED-ADDRESS, XOR-PEER-ADDRESS.
    pub fn xor_address(&mut self, kind: AttributeType, address: SocketAddr) -> &mut Self {
        let mut value = [0; address::VALUE_LEN_MAX];
        let len = address::encode_xor(address, &self.transaction, &mut value);
        self.attribute(kind, &value[..len])
    }

    /// LIFETIME, in seconds.
    pub fn lifetime_s(&mut self, seconds: u32) -> &mut Self {
        self.attribute(AttributeType::LIFETIME, &seconds.to_be_bytes())
    }

    /// UNKNOWN-ATTRIBUTES of a 420.
    pub fn unknown_attributes(&mut self, unknown: &UnknownAttributes) -> &mut Self {
        let mut value = [0; 2 * UnknownAttributes::COUNT_MAX];
        for (slot, kind) in value.chunks_exact_mut(2).zip(unknown.as_slice()) {
            slot.copy_from_slice(&kind.to_be_bytes());
        }
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &value[..2 * unknown.as_slice().len()])
    }

    /// ADDRESS-ERROR-CODE: why one of two requested families was not given (RFC 8656 section 18.12).
    pub fn address_error(&mut self, family: Family, code: ErrorCode) -> &mut Self {
        let [class, number] = code.class_and_number();
        self.attribute(AttributeType::ADDRESS_ERROR_CODE, &[family.code(), 0, class, number])
    }

    /// ICMP: an error that a peer's network sent (RFC 8656 section 18.13). `data` is the MTU of "too big", else 0.
    pub fn icmp(&mut self, kind: u8, code: u8, data: u32) -> &mut Self {
        // Seven bits of type, nine of code; error types of ICMP and ICMPv6 are below 128.
        let [high, low] = ((u16::from(kind & 0x7f) << 9) | u16::from(code)).to_be_bytes();
        let [d0, d1, d2, d3] = data.to_be_bytes();
        self.attribute(AttributeType::ICMP, &[0, 0, high, low, d0, d1, d2, d3])
    }

    /// The integrity attribute over everything written so far. Only FINGERPRINT may follow.
    pub fn integrity(&mut self, reply_key: &ReplyKey) -> &mut Self {
        self.integrity_with(reply_key.integrity, reply_key.key.as_bytes())
    }

    /// As [`Self::integrity`], with a key of any length.
    pub fn integrity_with(&mut self, integrity: Integrity, key: &[u8]) -> &mut Self {
        let (kind, len) = match integrity {
            Integrity::Sha1 => (AttributeType::MESSAGE_INTEGRITY, SHA1_LEN),
            Integrity::Sha256 => (AttributeType::MESSAGE_INTEGRITY_SHA256, SHA256_LEN),
        };
        let mac = integrity::mac(integrity, key, self.written(), len);
        self.attribute(kind, &mac[..len])
    }

    /// FINGERPRINT over everything written so far. Nothing may follow.
    pub fn fingerprint(&mut self) -> &mut Self {
        let fingerprint = integrity::fingerprint(self.written());
        self.attribute(AttributeType::FINGERPRINT, &fingerprint.to_be_bytes())
    }

    /// The finished answer to `request`: protected with the key of its sender, if that was proved, and with a FINGERPRINT
    /// if the request has one.
    pub fn seal(mut self, request: &Message<'_>, reply_key: Option<&ReplyKey>) -> Result<&'a [u8], NoRoom> {
        if let Some(reply_key) = reply_key {
            self.integrity(reply_key);
        }
        if request.has_fingerprint() {
            self.fingerprint();
        }
        self.finish()
    }

    /// The finished message.
    pub fn finish(self) -> Result<&'a [u8], NoRoom> {
        let len = self.len.checked_sub(HEADER_LEN).and_then(|len| u16::try_from(len).ok()).ok_or(NoRoom)?;
        if !self.has_room {
            return Err(NoRoom);
        }
        let message = self.out.get_mut(..self.len).ok_or(NoRoom)?;
        message.get_mut(2..4).ok_or(NoRoom)?.copy_from_slice(&len.to_be_bytes());
        Ok(message)
    }

    fn written(&self) -> &[u8] {
        self.out.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.out.get_mut(self.len..end) {
            Some(slot) if self.has_room => {
                slot.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.has_room = false,
        }
    }
}

/// Writes what stands before the payload of a Data indication: header, XOR-PEER-ADDRESS and the head of DATA. Returns how
/// many bytes that is: 36 for an IPv4 peer, 48 for an IPv6 peer.
///
/// The payload of `payload_len` bytes follows, and zeros up to a multiple of four. No room if `out` is shorter or the
/// payload longer than a datagram holds.
pub fn data_indication_header(
    out: &mut [u8],
    transaction: TransactionId,
    peer: SocketAddr,
    payload_len: usize,
) -> Result<usize, NoRoom> {
    let payload_field = u16::try_from(payload_len).map_err(|_| NoRoom)?;
    let mut writer = Writer::new(out, Class::Indication, Method::Data, transaction);
    writer.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
    writer.push(&AttributeType::DATA.0.to_be_bytes());
    writer.push(&payload_field.to_be_bytes());
    let header_len = writer.len;
    let counted = header_len.saturating_sub(HEADER_LEN) + payload_len.next_multiple_of(4);
    let counted = u16::try_from(counted).map_err(|_| NoRoom)?;
    if !writer.has_room {
        return Err(NoRoom);
    }
    out.get_mut(2..4).ok_or(NoRoom)?.copy_from_slice(&counted.to_be_bytes());
    Ok(header_len)
}
