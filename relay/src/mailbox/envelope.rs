//! The envelope: what one peer sends another, signed by the sender; its body is the peers' own.

use identity::{Domain, SecretKey, Signature, SignatureError, Uid};

/// The longest message that people or programs send, bytes.
pub const MESSAGE_LEN_MAX: usize = 1_024;

/// The longest body, bytes: a message, encrypted, with room for what its encryption adds.
pub const BODY_LEN_MAX: usize = MESSAGE_LEN_MAX + 128;

/// The longest envelope, bytes.
pub const ENVELOPE_LEN_MAX: usize = HEADER_LEN + BODY_LEN_MAX + SIGNATURE_LEN;

/// Length of a receipt: time 8, hash 32. The body of its envelope is one or more.
pub const RECEIPT_LEN: usize = 8 + 32;

/// Receipts in one envelope, at most.
pub const RECEIPTS_MAX: usize = BODY_LEN_MAX / RECEIPT_LEN;

const VERSION: u8 = 1;
const NOSPAM: usize = 4;
const TIME: usize = 8;
const SENDER: usize = 16;
const RECEIVER: usize = 48;
const HEADER_LEN: usize = 80;
const SIGNATURE_LEN: usize = 64;

/// What an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// From one friend to another.
    Message = 0,
    /// A friend request, which passes by the receiver's nospam value.
    Request = 1,
    /// The receiver of an envelope says that it has it.
    Receipt = 2,
}

/// An envelope whose form was checked. Its signature was not: see [`Envelope::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    kind: Kind,
}

/// Makes an envelope. `nospam` is that of the receiver's address in a request, and zeros else; `time_us` (microseconds since
/// 1970) is above that of every envelope that this key has signed before.
///
/// # Errors
/// [`EnvelopeError::Body`] if the body is longer than [`BODY_LEN_MAX`].
pub fn sign(
    key: &SecretKey,
    kind: Kind,
    receiver: &Uid,
    nospam: [u8; 4],
    time_us: u64,
    body: &[u8],
) -> Result<Box<[u8]>, EnvelopeError> {
    if body.len() > BODY_LEN_MAX {
        return Err(EnvelopeError::Body { len: body.len() });
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len() + SIGNATURE_LEN);
    bytes.extend_from_slice(&[VERSION, kind as u8]);
    bytes.extend_from_slice(&(body.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&nospam);
    bytes.extend_from_slice(&time_us.to_le_bytes());
    bytes.extend_from_slice(key.uid().as_bytes());
    bytes.extend_from_slice(receiver.as_bytes());
    bytes.extend_from_slice(body);
    let signature = key.sign(Domain::Envelope, &bytes);
    bytes.extend_from_slice(&signature.0);
    Ok(bytes.into_boxed_slice())
}

impl<'a> Envelope<'a> {
    /// Checks the form of `bytes`, which are one envelope.
    ///
    /// # Errors
    /// [`EnvelopeError`]
    pub fn parse(bytes: &'a [u8]) -> Result<Envelope<'a>, EnvelopeError> {
        let wrong_len = EnvelopeError::Length { len: bytes.len() };
        let header = bytes.get(..HEADER_LEN).ok_or(wrong_len)?;
        if header[0] != VERSION {
            return Err(EnvelopeError::Version { version: header[0] });
        }
        let kind = match header[1] {
            0 => Kind::Message,
            1 => Kind::Request,
            2 => Kind::Receipt,
            kind => return Err(EnvelopeError::Kind { kind }),
        };
        let body_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
        if body_len > BODY_LEN_MAX {
            return Err(EnvelopeError::Body { len: body_len });
        }
        if bytes.len() != HEADER_LEN + body_len + SIGNATURE_LEN {
            return Err(wrong_len);
        }
        let envelope = Envelope { bytes, kind };
        if kind != Kind::Request && envelope.nospam() != [0; 4] {
            return Err(EnvelopeError::Nospam);
        }
        if kind == Kind::Receipt && (body_len == 0 || !body_len.is_multiple_of(RECEIPT_LEN)) {
            return Err(EnvelopeError::Body { len: body_len });
        }
        Ok(envelope)
    }

    /// Checks that the sender signed it.
    ///
    /// # Errors
    /// It did not, or its UID is no usable key.
    pub fn verify(&self) -> Result<(), SignatureError> {
        let (signed, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_LEN);
        let signature = Signature(array(signature));
        self.sender().verify(Domain::Envelope, signed, &signature)
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who says that it sent it.
    #[must_use]
    pub fn sender(&self) -> Uid {
        Uid::from_bytes(array(&self.bytes[SENDER..]))
    }

    /// Whom it is for.
    #[must_use]
    pub fn receiver(&self) -> Uid {
        Uid::from_bytes(array(&self.bytes[RECEIVER..]))
    }

    /// The nospam value of a request.
    #[must_use]
    pub fn nospam(&self) -> [u8; 4] {
        array(&self.bytes[NOSPAM..])
    }

    /// When it was signed, microseconds since 1970; its name among the envelopes of its sender.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        u64::from_le_bytes(array(&self.bytes[TIME..]))
    }

    /// The body, 0 to [`BODY_LEN_MAX`] bytes.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..self.bytes.len() - SIGNATURE_LEN]
    }

    /// What the receiver's receipt of it says.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt { time_us: self.time_us(), hash: *blake3::hash(self.bytes).as_bytes() }
    }
}

/// In the body of a receipt's envelope: which envelope was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its time.
    pub time_us: u64,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

impl Receipt {
    /// The 40 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECEIPT_LEN] {
        let mut bytes = [0; RECEIPT_LEN];
        bytes[..8].copy_from_slice(&self.time_us.to_le_bytes());
        bytes[8..].copy_from_slice(&self.hash);
        bytes
    }

    /// Reads the body of an envelope of [`Kind::Receipt`].
    pub fn all(bytes: &[u8]) -> impl Iterator<Item = Receipt> + '_ {
        let receipts = bytes.chunks_exact(RECEIPT_LEN);
        receipts.map(|bytes| Receipt { time_us: u64::from_le_bytes(array(bytes)), hash: array(&bytes[8..]) })
    }
}

/// The first `N` bytes of a slice that has as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Why bytes are no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are fewer or more than the header says.
    #[error("an envelope of {len} bytes is cut or has more behind it")]
    Length {
        /// How many there are.
        len: usize,
    },
    /// Another version.
    #[error("version {version} of envelopes is not known, only {VERSION}")]
    Version {
        /// Which.
        version: u8,
    },
    /// No known kind.
    #[error("kind {kind} of envelopes is not known")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// The body is too long, or not as long as its kind has it.
    #[error("a body of {len} bytes; at most {BODY_LEN_MAX}, and a multiple of {RECEIPT_LEN} for receipts")]
    Body {
        /// Its length, bytes.
        len: usize,
    },
    /// Only requests have a nospam value.
    #[error("an envelope that is no request has a nospam value")]
    Nospam,
}
