//! Attribute types and the iterator over attributes (RFC 8489 section 14, RFC 8656 section 18, RFC 8016 section 3).

use std::fmt;

/// The type of an attribute. Types below 0x8000 must be understood by the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($constant:ident = $code:literal, $name:literal, $understood:literal;)*) => {
        impl AttributeType {
            $(
                #[doc = $name]
                pub const $constant: Self = Self($code);
            )*

            /// Its name in the registry, if this server knows it.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// Whether a request may have it: what is not understood and below 0x8000 is answered with 420.
            pub fn is_understood(self) -> bool {
                match self.0 {
                    $($code => $understood,)*
                    _ => false,
                }
            }
        }
    };
}

// RFC 5780's CHANGE-REQUEST is known by name only: this server has no second address, and section 7.2 of that RFC
// wants the 420 that says so. The same holds for RFC 7635's ACCESS-TOKEN and RFC 6062's CONNECTION-ID.
attribute_types! {
    MAPPED_ADDRESS = 0x0001, "MAPPED-ADDRESS", true;
    CHANGE_REQUEST = 0x0003, "CHANGE-REQUEST", false;
    USERNAME = 0x0006, "USERNAME", true;
    MESSAGE_INTEGRITY = 0x0008, "MESSAGE-INTEGRITY", true;
    ERROR_CODE = 0x0009, "ERROR-CODE", true;
    UNKNOWN_ATTRIBUTES = 0x000a, "UNKNOWN-ATTRIBUTES", true;
    CHANNEL_NUMBER = 0x000c, "CHANNEL-NUMBER", true;
    LIFETIME = 0x000d, "LIFETIME", true;
    XOR_PEER_ADDRESS = 0x0012, "XOR-PEER-ADDRESS", true;
    DATA = 0x0013, "DATA", true;
    REALM = 0x0014, "REALM", true;
    NONCE = 0x0015, "NONCE", true;
    XOR_RELAYED_ADDRESS = 0x0016, "XOR-RELAYED-ADDRESS", true;
    REQUESTED_ADDRESS_FAMILY = 0x0017, "REQUESTED-ADDRESS-FAMILY", true;
    EVEN_PORT = 0x0018, "EVEN-PORT", true;
    REQUESTED_TRANSPORT = 0x0019, "REQUESTED-TRANSPORT", true;
    DONT_FRAGMENT = 0x001a, "DONT-FRAGMENT", true;
    ACCESS_TOKEN = 0x001b, "ACCESS-TOKEN", false;
    MESSAGE_INTEGRITY_SHA256 = 0x001c, "MESSAGE-INTEGRITY-SHA256", true;
    PASSWORD_ALGORITHM = 0x001d, "PASSWORD-ALGORITHM", true;
    USERHASH = 0x001e, "USERHASH", true;
    XOR_MAPPED_ADDRESS = 0x0020, "XOR-MAPPED-ADDRESS", true;
    RESERVATION_TOKEN = 0x0022, "RESERVATION-TOKEN", true;
    CONNECTION_ID = 0x002a, "CONNECTION-ID", false;
    ADDITIONAL_ADDRESS_FAMILY = 0x8000, "ADDITIONAL-ADDRESS-FAMILY", true;
    ADDRESS_ERROR_CODE = 0x8001, "ADDRESS-ERROR-CODE", true;
    PASSWORD_ALGORITHMS = 0x8002, "PASSWORD-ALGORITHMS", true;
    ALTERNATE_DOMAIN = 0x8003, "ALTERNATE-DOMAIN", true;
    ICMP = 0x8004, "ICMP", true;
    SOFTWARE = 0x8022, "SOFTWARE", true;
    ALTERNATE_SERVER = 0x8023, "ALTERNATE-SERVER", true;
    FINGERPRINT = 0x8028, "FINGERPRINT", true;
    MOBILITY_TICKET = 0x8030, "MOBILITY-TICKET", true;
}

impl AttributeType {
    /// Whether a receiver that does not know the type must refuse the message.
    pub fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

/// An attribute that this server knows, with a value that its definition rules out: answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{attribute} has a malformed value")]
pub struct Malformed {
    /// Which attribute.
    pub attribute: AttributeType,
}

/// Attributes of a message, in order: type and value, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Over the bytes behind a message's header.
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Bytes that were not read yet.
    pub(super) fn rest_len(&self) -> usize {
        self.rest.len()
    }

    /// After the iterator has ended: the type of an attribute that reaches over the end, if one does.
    pub(super) fn cut(&self) -> Option<AttributeType> {
        let &[high, low, ..] = self.rest else { return None };
        Some(AttributeType(u16::from_be_bytes([high, low])))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[t0, t1, l0, l1], behind) = self.rest.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let value = behind.get(..len)?;
        self.rest = behind.get(len.next_multiple_of(4)..)?;
        Some((AttributeType(u16::from_be_bytes([t0, t1])), value))
    }
}

/// The types that a 420 lists, each once, at most [`Self::COUNT_MAX`] of them: enough for a client to see what is
/// wrong, and a bound for the answer's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnknownAttributes {
    types: [u16; Self::COUNT_MAX],
    count: usize,
}

impl UnknownAttributes {
    /// Most types that one answer lists.
    pub const COUNT_MAX: usize = 8;

    pub(super) fn of(attributes: Attributes<'_>) -> Self {
        let mut unknown = Self::default();
        for (kind, _) in attributes {
            let is_new = !unknown.as_slice().contains(&kind.0);
            if kind.is_comprehension_required() && !kind.is_understood() && is_new {
                let Some(slot) = unknown.types.get_mut(unknown.count) else { break };
                *slot = kind.0;
                unknown.count += 1;
            }
        }
        unknown
    }

    /// Whether every attribute that had to be understood is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The types, in the order of the message.
    pub fn as_slice(&self) -> &[u16] {
        self.types.get(..self.count).unwrap_or_default()
    }
}
