//! The STUN message: header, class and method, and the one walk over the attributes that everything else rests on
//! (RFC 8489 sections 5, 6.3 and 14).

use std::fmt;
use std::net::SocketAddr;

use super::address;
use super::attribute::{AttributeType, Attributes, Malformed, UnknownAttributes};
use super::integrity::{self, Integrity};

/// Bytes of the header of every message.
pub const HEADER_LEN: usize = 20;

/// The second four bytes of every message (RFC 8489 section 5).
pub(super) const MAGIC_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// What a message is for, two bits of its type (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Expects an answer.
    Request,
    /// Expects none, and never gets one.
    Indication,
    /// Answers a request that was done.
    Success,
    /// Answers a request that was refused.
    Error,
}

/// What a message asks for, twelve bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Which address does my packet come from (RFC 8489).
    Binding,
    /// Make a relayed address (RFC 8656 section 7).
    Allocate,
    /// Prolong, end or move an allocation (RFC 8656 section 8, RFC 8016).
    Refresh,
    /// Indication: data to a peer (RFC 8656 section 11).
    Send,
    /// Indication: data, or an ICMP error, from a peer (RFC 8656 section 11).
    Data,
    /// Let peers through (RFC 8656 section 10).
    CreatePermission,
    /// Give a peer a channel number (RFC 8656 section 12).
    ChannelBind,
    /// Anything else, at most 0xfff. This server does none of them.
    Other(u16),
}

/// The 96 bits that pair an answer with its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// A message that was checked: its attributes lie within it, and its FINGERPRINT, if it has one, is right. What its
/// attributes mean is checked when they are asked for; who sent it, by [`super::Authenticator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    transaction: TransactionId,
    /// Where the attributes that count end, in bytes from the start: at the first of the integrity attributes and
    /// FINGERPRINT. What follows an integrity attribute is not covered by it, and MUST be ignored.
    attributes_end: usize,
    /// Where MESSAGE-INTEGRITY starts, in bytes from the start of the message.
    integrity_at: Option<usize>,
    /// Where MESSAGE-INTEGRITY-SHA256 starts, and the length of its value.
    integrity_sha256_at: Option<(usize, usize)>,
    has_fingerprint: bool,
}

/// Why bytes are not a STUN message. RFC 8489 section 6.3: "If any errors are detected, the message is silently
/// discarded."
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than a header.
    #[error("{len} bytes are fewer than a STUN header's 20")]
    Short {
        /// How many bytes there are.
        len: usize,
    },
    /// The first two bits are not zero, or the cookie is missing: another protocol, or RFC 3489.
    #[error("not STUN: the first two bits or the magic cookie differ")]
    NotStun,
    /// The length field and the datagram disagree, or the length is no multiple of four.
    #[error("the length field says {stated} bytes of attributes, the datagram holds {actual}")]
    Length {
        /// What the field says.
        stated: usize,
        /// What follows the header.
        actual: usize,
    },
    /// An attribute reaches over the end of the message.
    #[error("attribute {attribute} at byte {at} ends behind the message")]
    Attribute {
        /// Which attribute.
        attribute: AttributeType,
        /// Its offset in the message, in bytes.
        at: usize,
    },
    /// An integrity attribute or FINGERPRINT has a length that its definition rules out.
    #[error("{attribute} has a value of {len} bytes")]
    TrailerLength {
        /// Which attribute.
        attribute: AttributeType,
        /// The length of its value, in bytes.
        len: usize,
    },
    /// The checksum differs: another protocol on the same port, or a damaged message.
    #[error("FINGERPRINT differs")]
    Fingerprint,
    /// Something follows FINGERPRINT, which must be the last attribute.
    #[error("{attribute} follows FINGERPRINT")]
    BehindFingerprint {
        /// What follows.
        attribute: AttributeType,
    },
}

impl<'a> Message<'a> {
    /// Reads one message that fills `bytes` exactly: one datagram, or one framed message of a stream.
    ///
    /// Takes time linear in the length, and touches the payload of a DATA attribute only if FINGERPRINT is present.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Short { len: bytes.len() };
        let (&[t0, t1, l0, l1], rest) = bytes.split_first_chunk::<4>().ok_or(short)?;
        let (cookie, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
        let (&transaction, body) = rest.split_first_chunk::<12>().ok_or(short)?;
        let message_type = u16::from_be_bytes([t0, t1]);
        if message_type & 0xc000 != 0 || *cookie != MAGIC_COOKIE {
            return Err(DecodeError::NotStun);
        }
        let stated = usize::from(u16::from_be_bytes([l0, l1]));
        if stated != body.len() || stated % 4 != 0 {
            return Err(DecodeError::Length { stated, actual: body.len() });
        }
        let mut message = Self {
            bytes,
            class: Class::of(message_type),
            method: Method::of(message_type),
            transaction: TransactionId(transaction),
            attributes_end: bytes.len(),
            integrity_at: None,
            integrity_sha256_at: None,
            has_fingerprint: false,
        };
        message.walk(body)?;
        Ok(message)
    }

    /// Checks that every attribute lies within the message, and notes where the trailer is: MESSAGE-INTEGRITY,
    /// MESSAGE-INTEGRITY-SHA256, FINGERPRINT, in this order, each optional.
    fn walk(&mut self, body: &'a [u8]) -> Result<(), DecodeError> {
        let mut attributes = Attributes::new(body);
        loop {
            let at = self.bytes.len() - attributes.rest_len();
            let Some((kind, value)) = attributes.next() else {
                return match attributes.cut() {
                    Some(attribute) => Err(DecodeError::Attribute { attribute, at }),
                    None => Ok(()),
                };
            };
            if self.has_fingerprint {
                return Err(DecodeError::BehindFingerprint { attribute: kind });
            }
            let bad_length = DecodeError::TrailerLength { attribute: kind, len: value.len() };
            match kind {
                // What stands behind an integrity attribute is not covered by it. MESSAGE-INTEGRITY-SHA256 and FINGERPRINT may
                // follow MESSAGE-INTEGRITY, FINGERPRINT alone MESSAGE-INTEGRITY-SHA256; the rest is passed over.
                AttributeType::MESSAGE_INTEGRITY
                    if self.integrity_at.is_none() && self.integrity_sha256_at.is_none() =>
                {
                    if value.len() != integrity::SHA1_LEN {
                        return Err(bad_length);
                    }
                    self.integrity_at = Some(at);
                    self.attributes_end = self.attributes_end.min(at);
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 if self.integrity_sha256_at.is_none() => {
                    if !integrity::sha256_len_is_valid(value.len()) {
                        return Err(bad_length);
                    }
                    self.integrity_sha256_at = Some((at, value.len()));
                    self.attributes_end = self.attributes_end.min(at);
                }
                AttributeType::FINGERPRINT => {
                    let stated = value.try_into().map(u32::from_be_bytes).map_err(|_| bad_length)?;
                    let covered = self.bytes.get(..at).unwrap_or_default();
                    if stated != integrity::fingerprint(covered) {
                        return Err(DecodeError::Fingerprint);
                    }
                    self.has_fingerprint = true;
                    self.attributes_end = self.attributes_end.min(at);
                }
                _ => {}
            }
        }
    }

    /// What the message is for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What it asks for, or answers.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What pairs an answer with it.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// The whole message, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it ends with a FINGERPRINT, which was then right. An answer to it should have one too.
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// Attributes in the order of the message, without the integrity attributes, FINGERPRINT and whatever a sender put
    /// behind them.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.bytes.get(HEADER_LEN..self.attributes_end).unwrap_or_default())
    }

    /// The first attribute of this type: "only the first occurrence needs to be processed" (RFC 8489 section 14).
    pub fn find(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// Attributes that a receiver must understand and this server does not: what a 420 lists.
    pub fn unknown_attributes(&self) -> UnknownAttributes {
        UnknownAttributes::of(self.attributes())
    }

    /// The first attribute of this type as text.
    pub fn text(&self, kind: AttributeType) -> Result<Option<&'a str>, Malformed> {
        let text = |value| std::str::from_utf8(value).map_err(|_| Malformed { attribute: kind });
        self.find(kind).map(text).transpose()
    }

    /// The first attribute of this type as an XORed transport address.
    pub fn xor_address(&self, kind: AttributeType) -> Result<Option<SocketAddr>, Malformed> {
        let address =
            |value| address::decode_xor(value, &self.transaction).ok_or(Malformed { attribute: kind });
        self.find(kind).map(address).transpose()
    }

    /// Every XOR-PEER-ADDRESS, in order. CreatePermission may have many, other messages one.
    pub fn peer_addresses(&self) -> impl Iterator<Item = Result<SocketAddr, Malformed>> + use<'a> {
        let transaction = self.transaction;
        self.attributes().filter(|(kind, _)| *kind == AttributeType::XOR_PEER_ADDRESS).map(
            move |(attribute, value)| address::decode_xor(value, &transaction).ok_or(Malformed { attribute }),
        )
    }

    /// DATA: what a Send indication carries.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.find(AttributeType::DATA)
    }

    /// LIFETIME, in seconds.
    pub fn lifetime_s(&self) -> Result<Option<u32>, Malformed> {
        Ok(self.fixed(AttributeType::LIFETIME)?.map(u32::from_be_bytes))
    }

    /// CHANNEL-NUMBER, in any range.
    pub fn channel_number(&self) -> Result<Option<u16>, Malformed> {
        Ok(self
            .fixed(AttributeType::CHANNEL_NUMBER)?
            .map(|[high, low, _, _]| u16::from_be_bytes([high, low])))
    }

    /// REQUESTED-TRANSPORT: the IP protocol's number, 17 for UDP.
    pub fn requested_transport(&self) -> Result<Option<u8>, Malformed> {
        Ok(self.fixed(AttributeType::REQUESTED_TRANSPORT)?.map(|[protocol, _, _, _]| protocol))
    }

    /// REQUESTED-ADDRESS-FAMILY as a number, which [`super::Family::from_code`] may not know.
    pub fn requested_family(&self) -> Result<Option<u8>, Malformed> {
        Ok(self.fixed(AttributeType::REQUESTED_ADDRESS_FAMILY)?.map(|[family, _, _, _]| family))
    }

    /// ADDITIONAL-ADDRESS-FAMILY as a number, which [`super::Family::from_code`] may not know.
    pub fn additional_family(&self) -> Result<Option<u8>, Malformed> {
        Ok(self.fixed(AttributeType::ADDITIONAL_ADDRESS_FAMILY)?.map(|[family, _, _, _]| family))
    }

    /// EVEN-PORT: whether the next port is to be reserved too (the R bit).
    pub fn even_port(&self) -> Result<Option<bool>, Malformed> {
        Ok(self.fixed(AttributeType::EVEN_PORT)?.map(|[flags]| flags & 0x80 != 0))
    }

    /// RESERVATION-TOKEN.
    pub fn reservation_token(&self) -> Result<Option<[u8; 8]>, Malformed> {
        self.fixed(AttributeType::RESERVATION_TOKEN)
    }

    /// Whether DONT-FRAGMENT is there.
    pub fn dont_fragment(&self) -> bool {
        self.find(AttributeType::DONT_FRAGMENT).is_some()
    }

    /// MOBILITY-TICKET (RFC 8016): empty where a client asks for one.
    pub fn mobility_ticket(&self) -> Option<&'a [u8]> {
        self.find(AttributeType::MOBILITY_TICKET)
    }

    /// An attribute whose value has one length.
    fn fixed<const N: usize>(&self, kind: AttributeType) -> Result<Option<[u8; N]>, Malformed> {
        let fixed = |value: &[u8]| value.try_into().map_err(|_| Malformed { attribute: kind });
        self.find(kind).map(fixed).transpose()
    }

    /// Which integrity attribute decides: the stronger one if both are there.
    pub fn integrity(&self) -> Option<Integrity> {
        match (self.integrity_sha256_at, self.integrity_at) {
            (Some(_), _) => Some(Integrity::Sha256),
            (None, Some(_)) => Some(Integrity::Sha1),
            (None, None) => None,
        }
    }

    /// Whether the integrity attribute that [`Self::integrity`] names is there and right under `key`, compared in
    /// constant time.
    ///
    /// `sha256_len_min` is the shortest MESSAGE-INTEGRITY-SHA256 that the usage takes, in bytes: TURN does not specify
    /// truncation, so its value must have all 32 (RFC 8489 section 14.6).
    pub fn verify_integrity(&self, key: &[u8], sha256_len_min: usize) -> bool {
        match (self.integrity_sha256_at, self.integrity_at) {
            (Some((_, len)), _) if len < sha256_len_min => false,
            (Some((at, len)), _) => integrity::verify(Integrity::Sha256, key, self.bytes, at, len),
            (None, Some(at)) => integrity::verify(Integrity::Sha1, key, self.bytes, at, integrity::SHA1_LEN),
            (None, None) => false,
        }
    }
}

impl Class {
    fn of(message_type: u16) -> Self {
        match message_type & 0x0110 {
            0x0000 => Self::Request,
            0x0010 => Self::Indication,
            0x0100 => Self::Success,
            _ => Self::Error,
        }
    }

    fn bits(self) -> u16 {
        match self {
            Self::Request => 0x0000,
            Self::Indication => 0x0010,
            Self::Success => 0x0100,
            Self::Error => 0x0110,
        }
    }

    /// The type field of a message: the method's bits around the class's.
    pub(super) fn with(self, method: Method) -> u16 {
        let method = method.code() & 0xfff;
        self.bits() | (method & 0x000f) | ((method & 0x0070) << 1) | ((method & 0x0f80) << 2)
    }
}

impl Method {
    fn of(message_type: u16) -> Self {
        let bits = message_type & 0x3eef;
        match (bits & 0x000f) | ((bits & 0x00e0) >> 1) | ((bits & 0x3e00) >> 2) {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }

    /// Its number in the registry of RFC 8489 section 18.2.
    pub fn code(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
