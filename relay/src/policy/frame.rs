//! Frames of the policy socket: a 16-byte header and an rkyv archive, checked before it is believed.

use std::marker::PhantomData;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::{FromEngine, Imported, Policy, Status, ToEngine};

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"IOXP";

/// The contract's version. Any change of a message, or of how rkyv lays it out, is a new one.
pub const VERSION: u16 = 6;

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 16;

/// The longest payload in bytes: the longest content address list (16 MiB), and room for what surrounds it.
pub const PAYLOAD_LEN_MAX: usize = (16 << 20) + 4096;

/// Encodes one frame towards the engine.
pub fn encode_to_engine(message: &ToEngine) -> Result<Vec<u8>, FrameError> {
    encode(message)
}

/// Encodes one frame from the engine.
pub fn encode_from_engine(message: &FromEngine) -> Result<Vec<u8>, FrameError> {
    encode(message)
}

/// Takes the bytes of a stream in any pieces and gives its messages. Holds no socket.
///
/// A header is checked as soon as its 16 bytes are there, so that nothing is allocated for a length that no frame has.
/// After an error the stream cannot be read on: the same error comes again, and the connection is to be closed.
#[derive(Debug)]
pub struct Decoder<M> {
    /// Bytes of the frame that is arriving, and of those behind it.
    pending: Vec<u8>,
    failed: Option<FrameError>,
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Decoder<M> {
    /// A decoder at the start of a stream.
    pub fn new() -> Decoder<M> {
        Decoder { pending: Vec::new(), failed: None, message: PhantomData }
    }

    /// Takes the next bytes of the stream. Call [`Decoder::next_message`] until it gives none before pushing more, so
    /// that at most one frame and one piece are held.
    pub fn push(&mut self, bytes: &[u8]) {
        // What follows an error is not looked at, so it is not kept.
        if self.failed.is_none() {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// The next whole message, or none until more bytes arrive.
    pub fn next_message(&mut self) -> Result<Option<M>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.take_message().inspect_err(|error| {
            self.pending = Vec::new();
            self.failed = Some(error.clone());
        })
    }

    /// Checks that the stream ended between two frames.
    pub fn finish(&self) -> Result<(), FrameError> {
        match (&self.failed, self.pending.len()) {
            (Some(error), _) => Err(error.clone()),
            (None, 0) => Ok(()),
            (None, len) => Err(FrameError::Truncated { len }),
        }
    }

    fn take_message(&mut self) -> Result<Option<M>, FrameError> {
        let Some(header) = self.pending.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::read(header)?;
        if !M::has_kind(header.kind) {
            return Err(FrameError::Kind { kind: header.kind });
        }
        let frame_len = HEADER_LEN + header.payload_len;
        if self.pending.len() < frame_len {
            return Ok(None);
        }
        let frame = &self.pending[..frame_len];
        if header.checksum != checksum(frame) {
            return Err(FrameError::Checksum { kind: header.kind });
        }
        // rkyv reads in place and wants its own alignment, which the stream's buffer does not have.
        let mut payload = AlignedVec::<16>::with_capacity(header.payload_len);
        payload.extend_from_slice(&frame[HEADER_LEN..]);
        let message = M::read(header.kind, &payload).ok_or(FrameError::Payload { kind: header.kind })?;
        self.pending.drain(..frame_len);
        // One large list must not keep its memory for the life of the connection.
        self.pending.shrink_to(64 << 10);
        Ok(Some(message))
    }
}

impl<M: Message> Default for Decoder<M> {
    fn default() -> Decoder<M> {
        Decoder::new()
    }
}

struct Header {
    kind: u16,
    payload_len: usize,
    checksum: u32,
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Result<Header, FrameError> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, l0, l1, l2, l3, c0, c1, c2, c3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let payload_len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if payload_len > PAYLOAD_LEN_MAX {
            return Err(FrameError::PayloadLen { len: payload_len });
        }
        let kind = u16::from_le_bytes([k0, k1]);
        Ok(Header { kind, payload_len, checksum: u32::from_le_bytes([c0, c1, c2, c3]) })
    }
}

/// CRC-32C of the frame without the checksum's own four bytes. Against torn files and mistakes, not against malice.
fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), &frame[HEADER_LEN..])
}

fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let (kind, payload) = message.write();
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(FrameError::PayloadLen { len: payload.len() });
    }
    let payload_len = payload.len() as u32;
    let mut frame = Vec::with_capacity(HEADER_LEN + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(&payload_len.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&payload);
    let checksum = checksum(&frame);
    frame[12..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

/// A direction of the policy socket: [`ToEngine`] or [`FromEngine`].
pub trait Message: Sized + sealed::Codec {}

impl Message for ToEngine {}
impl Message for FromEngine {}

mod sealed {
    use rkyv::util::AlignedVec;

    /// How a direction's messages become kind and payload. Only this crate implements it.
    pub trait Codec: Sized {
        /// Whether this direction has messages of `kind`.
        fn has_kind(kind: u16) -> bool;
        /// The message's kind and archived payload.
        fn write(&self) -> (u16, AlignedVec<16>);
        /// The message, if the payload validates.
        fn read(kind: u16, payload: &AlignedVec<16>) -> Option<Self>;
    }
}

mod kind {
    pub(super) const SET_POLICY: u16 = 0x0001;
    pub(super) const STATUS: u16 = 0x0002;
    pub(super) const IMPORT: u16 = 0x0003;
    pub(super) const PUT_LIST: u16 = 0x0004;
    pub(super) const DRAIN: u16 = 0x0005;
    pub(super) const RELAY_SESSIONS: u16 = 0x0006;
    pub(super) const RELAY_KICK: u16 = 0x0007;
    pub(super) const RELAY_DRAIN: u16 = 0x0008;
    pub(super) const STORE: u16 = 0x0009;
    pub(super) const CHANGE_POLICY: u16 = 0x000A;

    pub(super) const POLICY_APPLIED: u16 = 0x8001;
    pub(super) const REJECTED: u16 = 0x8002;
    pub(super) const STATUS_IS: u16 = 0x8003;
    pub(super) const IMPORT_PROGRESS: u16 = 0x8004;
    pub(super) const IMPORTED: u16 = 0x8005;
    pub(super) const LIST_STORED: u16 = 0x8006;
    pub(super) const DRAINING: u16 = 0x8007;
    pub(super) const RELAY_SESSIONS_ARE: u16 = 0x8008;
    pub(super) const RELAY_KICKED: u16 = 0x8009;
    pub(super) const STORE_SAYS: u16 = 0x800A;
}

impl sealed::Codec for ToEngine {
    fn has_kind(kind: u16) -> bool {
        (kind::SET_POLICY..=kind::CHANGE_POLICY).contains(&kind)
    }

    fn write(&self) -> (u16, AlignedVec<16>) {
        match self {
            ToEngine::SetPolicy(policy) => (kind::SET_POLICY, archive(policy)),
            ToEngine::Status => (kind::STATUS, AlignedVec::new()),
            ToEngine::Import { segment_len } => (kind::IMPORT, archive(segment_len)),
            ToEngine::PutList(list) => (kind::PUT_LIST, archive(list)),
            ToEngine::Drain => (kind::DRAIN, AlignedVec::new()),
            ToEngine::RelaySessions => (kind::RELAY_SESSIONS, AlignedVec::new()),
            ToEngine::RelayKick(selector) => (kind::RELAY_KICK, archive(selector)),
            ToEngine::RelayDrain { draining } => (kind::RELAY_DRAIN, archive(draining)),
            ToEngine::Store(request) => (kind::STORE, archive(request)),
            ToEngine::ChangePolicy(change) => (kind::CHANGE_POLICY, archive(change)),
        }
    }

    fn read(kind: u16, payload: &AlignedVec<16>) -> Option<ToEngine> {
        match kind {
            kind::SET_POLICY => unarchive::<Policy>(payload).map(ToEngine::SetPolicy),
            kind::STATUS => payload.is_empty().then_some(ToEngine::Status),
            kind::IMPORT => unarchive(payload).map(|segment_len| ToEngine::Import { segment_len }),
            kind::PUT_LIST => unarchive(payload).map(ToEngine::PutList),
            kind::DRAIN => payload.is_empty().then_some(ToEngine::Drain),
            kind::RELAY_SESSIONS => payload.is_empty().then_some(ToEngine::RelaySessions),
            kind::RELAY_KICK => unarchive(payload).map(ToEngine::RelayKick),
            kind::RELAY_DRAIN => unarchive(payload).map(|draining| ToEngine::RelayDrain { draining }),
            kind::STORE => unarchive(payload).map(ToEngine::Store),
            kind::CHANGE_POLICY => unarchive(payload).map(ToEngine::ChangePolicy),
            _ => None,
        }
    }
}

impl sealed::Codec for FromEngine {
    fn has_kind(kind: u16) -> bool {
        (kind::POLICY_APPLIED..=kind::STORE_SAYS).contains(&kind)
    }

    fn write(&self) -> (u16, AlignedVec<16>) {
        match self {
            FromEngine::PolicyApplied { generation } => (kind::POLICY_APPLIED, archive(generation)),
            FromEngine::Rejected { reason } => (kind::REJECTED, archive(reason)),
            FromEngine::Status(status) => (kind::STATUS_IS, archive(status)),
            FromEngine::ImportProgress { bytes, total } => {
                (kind::IMPORT_PROGRESS, archive(&(*bytes, *total)))
            }
            FromEngine::Imported(imported) => (kind::IMPORTED, archive(imported)),
            FromEngine::ListStored { hash } => (kind::LIST_STORED, archive(hash)),
            FromEngine::Draining => (kind::DRAINING, AlignedVec::new()),
            FromEngine::RelaySessions(sessions) => (kind::RELAY_SESSIONS_ARE, archive(sessions)),
            FromEngine::RelayKicked { count } => (kind::RELAY_KICKED, archive(count)),
            FromEngine::Store(answer) => (kind::STORE_SAYS, archive(answer)),
        }
    }

    fn read(kind: u16, payload: &AlignedVec<16>) -> Option<FromEngine> {
        match kind {
            kind::POLICY_APPLIED => {
                unarchive(payload).map(|generation| FromEngine::PolicyApplied { generation })
            }
            kind::REJECTED => unarchive(payload).map(|reason| FromEngine::Rejected { reason }),
            kind::STATUS_IS => unarchive::<Status>(payload).map(FromEngine::Status),
            kind::IMPORT_PROGRESS => unarchive::<(u64, Option<u64>)>(payload)
                .map(|(bytes, total)| FromEngine::ImportProgress { bytes, total }),
            kind::IMPORTED => unarchive::<Imported>(payload).map(FromEngine::Imported),
            kind::LIST_STORED => unarchive(payload).map(|hash| FromEngine::ListStored { hash }),
            kind::DRAINING => payload.is_empty().then_some(FromEngine::Draining),
            kind::RELAY_SESSIONS_ARE => unarchive(payload).map(FromEngine::RelaySessions),
            kind::RELAY_KICKED => unarchive(payload).map(|count| FromEngine::RelayKicked { count }),
            kind::STORE_SAYS => unarchive(payload).map(FromEngine::Store),
            _ => None,
        }
    }
}

fn archive<T>(value: &T) -> AlignedVec<16>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec<16>, ArenaHandle<'a>, Failure>>,
{
    rkyv::to_bytes::<Failure>(value)
        .expect("integers, byte strings and texts always archive into growing memory")
}

fn unarchive<T>(payload: &AlignedVec<16>) -> Option<T>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, Failure>> + Deserialize<T, HighDeserializer<Failure>>,
{
    rkyv::from_bytes::<T, Failure>(payload).ok()
}

/// Why a stream is not one of policy frames. The connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are others.
    #[error("the stream does not begin with \"IOXP\": another program is at the other end of the socket")]
    Magic,
    /// Another version of the contract.
    #[error(
        "the other side speaks policy socket version {found}, this one {VERSION}; run the same release on both"
    )]
    Version {
        /// The version in the header.
        found: u16,
    },
    /// A kind that this direction does not have.
    #[error("no message of kind {kind:#06x} goes in this direction")]
    Kind {
        /// The kind in the header.
        kind: u16,
    },
    /// A payload longer than any.
    #[error("a payload of {len} bytes is longer than the {PAYLOAD_LEN_MAX} allowed")]
    PayloadLen {
        /// The length in bytes.
        len: usize,
    },
    /// The checksum does not fit.
    #[error("the checksum of a message of kind {kind:#06x} does not fit; the bytes were damaged or cut")]
    Checksum {
        /// The kind in the header.
        kind: u16,
    },
    /// The payload is not a valid archive of its kind.
    #[error("the payload of a message of kind {kind:#06x} is not valid")]
    Payload {
        /// The kind in the header.
        kind: u16,
    },
    /// The stream ended within a frame.
    #[error("the stream ended {len} bytes into a frame")]
    Truncated {
        /// How many bytes of the frame arrived.
        len: usize,
    },
}
