//! Frames: what stands on the one stream of a mailbox connection, or of a connection between nodes, in both directions.

use identity::{Signature, Uid};

use super::envelope::ENVELOPE_LEN_MAX;
use super::node_address::{NODE_ADDRESS_LEN, NodeAddress};
use super::relay_grant::{GRANT_LEN, NoRelay, RelayGrant};

/// UIDs in one frame, at most.
pub const UIDS_PER_FRAME_MAX: usize = 40;

/// The longest payload, bytes: an envelope, and where it is to go.
pub const PAYLOAD_LEN_MAX: usize = NODE_ADDRESS_LEN + ENVELOPE_LEN_MAX;

const HEADER_LEN: usize = 3;
const UID_LEN: usize = identity::UID_LEN;
const _: () = assert!(UIDS_PER_FRAME_MAX * UID_LEN <= ENVELOPE_LEN_MAX);

const LOGIN: u8 = 0x01;
const ALLOW: u8 = 0x02;
const FORBID: u8 = 0x03;
const SEND: u8 = 0x04;
const NOSPAM: u8 = 0x05;
const LISTEN: u8 = 0x06;
const SEND_VIA: u8 = 0x07;
const ASK_RELAY: u8 = 0x08;
const WELCOME: u8 = 0x11;
const DELIVER: u8 = 0x12;
const STATUS: u8 = 0x13;
const RELAY: u8 = 0x14;
const NO_RELAY: u8 = 0x15;
const FORWARD: u8 = 0x21;
const REFUSED: u8 = 0x22;
const TAKEN: u8 = 0x23;

/// A frame. Envelopes are bytes whose form is checked by whoever uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Peer: I am `uid`, and here is a signature over what this connection exports.
    Login {
        /// Who.
        uid: Uid,
        /// The nospam value of its address.
        nospam: [u8; 4],
        /// The proof.
        signature: Signature,
    },
    /// Peer: take envelopes from these for me, too.
    Allow(Vec<Uid>),
    /// Peer: take none from these any more.
    Forbid(Vec<Uid>),
    /// Peer: pass this envelope on.
    Send(Box<[u8]>),
    /// Peer: pass this envelope on to the node at which its receiver is.
    SendVia {
        /// Which node.
        node: NodeAddress,
        /// The envelope.
        envelope: Box<[u8]>,
    },
    /// Peer: the nospam value of my address is another now.
    Nospam([u8; 4]),
    /// Peer: I am ready to receive.
    Listen,
    /// Peer: I want credentials for the relay.
    AskRelay,
    /// Node: with these you may begin sessions at the relay.
    Relay(RelayGrant),
    /// Node: there are none for you now.
    NoRelay(NoRelay),
    /// Node: others reach you now.
    Welcome {
        /// The node's clock, microseconds since 1970.
        time_us: u64,
        /// UIDs that may be allowed at a time.
        allowed_max: u32,
    },
    /// Node: an envelope for you.
    Deliver(Box<[u8]>),
    /// Node: the envelope that you signed at `time_us` for `receiver` was not passed on.
    Status {
        /// Whom it was for.
        receiver: Uid,
        /// Its time.
        time_us: u64,
        /// Why not.
        status: Status,
    },
    /// Node to node: an envelope for a peer of yours, from one of mine.
    Forward(Box<[u8]>),
    /// Node to node: that envelope was not passed on.
    Refused {
        /// Who has signed it.
        sender: Uid,
        /// Whom it was for.
        receiver: Uid,
        /// Its time.
        time_us: u64,
        /// Why not.
        status: Status,
    },
    /// Node to node: so many of the envelopes that came over this connection were dealt with.
    Taken(u64),
}

/// Why an envelope was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// The receiver is not connected here.
    Offline = 1,
    /// The receiver does not take envelopes from this sender.
    Refused = 2,
    /// The address in the request has been revoked: its nospam value is not the receiver's.
    NospamWrong = 3,
    /// Above a rate, or the receiver does not read fast enough. It may be sent again later.
    Busy = 4,
    /// The receiver's node is gone without having said that it has the envelope: nobody knows.
    Lost = 5,
}

impl Status {
    fn from_byte(byte: u8) -> Option<Status> {
        let all = [Status::Offline, Status::Refused, Status::NospamWrong, Status::Busy, Status::Lost];
        all.into_iter().find(|status| *status as u8 == byte)
    }
}

impl Frame {
    /// Appends the frame: length of the payload, type, payload. Lists of UIDs above [`UIDS_PER_FRAME_MAX`] and envelopes above
    /// [`ENVELOPE_LEN_MAX`] are the caller's error; a reader refuses them.
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        let kind = match self {
            Frame::Login { uid, nospam, signature } => {
                out.extend_from_slice(uid.as_bytes());
                out.extend_from_slice(nospam);
                out.extend_from_slice(&signature.0);
                LOGIN
            }
            Frame::Allow(uids) | Frame::Forbid(uids) => {
                uids.iter().for_each(|uid| out.extend_from_slice(uid.as_bytes()));
                if matches!(self, Frame::Allow(_)) { ALLOW } else { FORBID }
            }
            Frame::Send(envelope) => {
                out.extend_from_slice(envelope);
                SEND
            }
            Frame::SendVia { node, envelope } => {
                out.extend_from_slice(&node.to_bytes());
                out.extend_from_slice(envelope);
                SEND_VIA
            }
            Frame::Nospam(nospam) => {
                out.extend_from_slice(nospam);
                NOSPAM
            }
            Frame::Listen => {
                out.push(0);
                LISTEN
            }
            Frame::AskRelay => {
                out.push(0);
                ASK_RELAY
            }
            Frame::Relay(grant) => {
                grant.write(out);
                RELAY
            }
            Frame::NoRelay(reason) => {
                out.push(*reason as u8);
                NO_RELAY
            }
            Frame::Welcome { time_us, allowed_max } => {
                out.extend_from_slice(&time_us.to_le_bytes());
                out.extend_from_slice(&allowed_max.to_le_bytes());
                WELCOME
            }
            Frame::Deliver(envelope) => {
                out.extend_from_slice(envelope);
                DELIVER
            }
            Frame::Status { receiver, time_us, status } => {
                out.extend_from_slice(receiver.as_bytes());
                out.extend_from_slice(&time_us.to_le_bytes());
                out.push(*status as u8);
                STATUS
            }
            Frame::Forward(envelope) => {
                out.extend_from_slice(envelope);
                FORWARD
            }
            Frame::Refused { sender, receiver, time_us, status } => {
                out.extend_from_slice(sender.as_bytes());
                out.extend_from_slice(receiver.as_bytes());
                out.extend_from_slice(&time_us.to_le_bytes());
                out.push(*status as u8);
                REFUSED
            }
            Frame::Taken(count) => {
                out.extend_from_slice(&count.to_le_bytes());
                TAKEN
            }
        };
        let len = (out.len() - at - HEADER_LEN) as u16;
        out[at..at + 2].copy_from_slice(&len.to_le_bytes());
        out[at + 2] = kind;
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Frame, FrameError> {
        let wrong = FrameError::Payload { kind, len: payload.len() };
        let exactly = |len| if payload.len() == len { Ok(()) } else { Err(wrong) };
        let frame = match kind {
            LOGIN => {
                exactly(UID_LEN + 4 + 64)?;
                Frame::Login {
                    uid: uid(payload),
                    nospam: array(&payload[32..]),
                    signature: Signature(array(&payload[36..])),
                }
            }
            ALLOW | FORBID => {
                if !payload.len().is_multiple_of(UID_LEN) || payload.len() > UIDS_PER_FRAME_MAX * UID_LEN {
                    return Err(wrong);
                }
                let uids = payload.chunks_exact(UID_LEN).map(uid).collect();
                if kind == ALLOW { Frame::Allow(uids) } else { Frame::Forbid(uids) }
            }
            SEND | DELIVER | FORWARD if payload.len() > ENVELOPE_LEN_MAX => return Err(wrong),
            SEND => Frame::Send(payload.into()),
            SEND_VIA => {
                let (node, envelope) = payload.split_first_chunk().ok_or(wrong)?;
                if envelope.is_empty() {
                    return Err(wrong);
                }
                Frame::SendVia { node: NodeAddress::from_bytes(node), envelope: envelope.into() }
            }
            NOSPAM => {
                exactly(4)?;
                Frame::Nospam(array(payload))
            }
            LISTEN => {
                if payload != [0] {
                    return Err(wrong);
                }
                Frame::Listen
            }
            ASK_RELAY => {
                if payload != [0] {
                    return Err(wrong);
                }
                Frame::AskRelay
            }
            RELAY => {
                exactly(GRANT_LEN)?;
                Frame::Relay(RelayGrant::read(&array(payload)).ok_or(wrong)?)
            }
            NO_RELAY => {
                exactly(1)?;
                Frame::NoRelay(NoRelay::from_byte(payload[0]).ok_or(wrong)?)
            }
            WELCOME => {
                exactly(12)?;
                Frame::Welcome {
                    time_us: u64::from_le_bytes(array(payload)),
                    allowed_max: u32::from_le_bytes(array(&payload[8..])),
                }
            }
            DELIVER => Frame::Deliver(payload.into()),
            STATUS => {
                exactly(UID_LEN + 8 + 1)?;
                let status = Status::from_byte(payload[40]).ok_or(wrong)?;
                let time_us = u64::from_le_bytes(array(&payload[32..]));
                Frame::Status { receiver: uid(payload), time_us, status }
            }
            FORWARD => Frame::Forward(payload.into()),
            REFUSED => {
                exactly(2 * UID_LEN + 8 + 1)?;
                let status = Status::from_byte(payload[72]).ok_or(wrong)?;
                let time_us = u64::from_le_bytes(array(&payload[64..]));
                Frame::Refused { sender: uid(payload), receiver: uid(&payload[32..]), time_us, status }
            }
            TAKEN => {
                exactly(8)?;
                Frame::Taken(u64::from_le_bytes(array(payload)))
            }
            _ => return Err(FrameError::Kind { kind }),
        };
        Ok(frame)
    }
}

/// Cuts a stream into frames. It holds at most one frame that has not arrived completely, and nothing between frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    held: Vec<u8>,
}

impl FrameReader {
    /// The next frame, and `input` without what was taken. `None` when `input` is used up.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read on then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            let whole = match self.held.get(..HEADER_LEN) {
                Some(header) => HEADER_LEN + payload_len(header)?,
                None => HEADER_LEN,
            };
            if whole > HEADER_LEN && self.held.len() == whole {
                // The memory is given back: most sessions are silent most of the time.
                let held = std::mem::take(&mut self.held);
                return Frame::parse(held[2], &held[HEADER_LEN..]).map(Some);
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(input.len().min(whole - self.held.len()));
            self.held.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// Bytes of a frame that has not arrived completely.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// No frame is empty, so that a whole header always lacks something.
fn payload_len(header: &[u8]) -> Result<usize, FrameError> {
    let len = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let is_right = (1..=PAYLOAD_LEN_MAX).contains(&len);
    if is_right { Ok(len) } else { Err(FrameError::Payload { kind: header[2], len }) }
}

fn uid(bytes: &[u8]) -> Uid {
    Uid::from_bytes(array(bytes))
}

/// The first `N` bytes of a slice that has as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Why a stream holds no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No known type.
    #[error("type {kind:#04x} of frames is not known")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// A payload that its type does not have.
    #[error("a frame of type {kind:#04x} with a payload of {len} bytes, or with a value that is not known")]
    Payload {
        /// Which.
        kind: u8,
        /// Bytes of the payload.
        len: usize,
    },
}
