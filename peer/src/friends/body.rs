//! Bodies of envelopes among friends, and what is inside sealed ones. Drawn in `peer/docs/friends.md`.

use super::bulk::{FILE_LEN_MAX, FILE_NAME_LEN_MAX, Offer, PART_LEN, name_fault};
use super::record::{DESCRIPTION_LEN_MAX, NAME_LEN_MAX, NODES_MAX, Presence, Profile};
use relay::mailbox::{MESSAGE_LEN_MAX, NODE_ADDRESS_LEN, NodeAddress};

/// Length of the first message of a Noise NN handshake: an X25519 key.
pub(super) const HELLO_LEN: usize = 32;
/// Length of the second: an X25519 key and a tag.
pub(super) const ANSWER_LEN: usize = 32 + 16;
/// Length of the name of a session, and of what an answer repeats of its hello.
pub(super) const NAME_LEN: usize = 8;

const ACCEPT: u8 = 0x01;
const DECLINE: u8 = 0x02;
const END: u8 = 0x03;
const HELLO: u8 = 0x11;
const ANSWER: u8 = 0x12;
const SEALED: u8 = 0x13;
const LOST: u8 = 0x14;

/// The body of an envelope of kind message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// You have asked; we are friends.
    Accept {
        /// Where the sender is.
        nodes: Vec<NodeAddress>,
    },
    /// You have asked; no.
    Decline,
    /// We are friends no more.
    End,
    /// The first message of a handshake.
    Hello {
        /// The handshake's message.
        noise: &'a [u8; HELLO_LEN],
        /// Where the sender is.
        nodes: Vec<NodeAddress>,
    },
    /// The second.
    Answer {
        /// The first bytes of the hello that is answered.
        hello: [u8; NAME_LEN],
        /// The handshake's message.
        noise: &'a [u8; ANSWER_LEN],
        /// Where the sender is.
        nodes: Vec<NodeAddress>,
    },
    /// Something that only the two know.
    Sealed {
        /// Which session.
        session: [u8; NAME_LEN],
        /// Which of the sender's messages in it, from 0.
        counter: u64,
        /// The content, encrypted, and its tag.
        ciphertext: &'a [u8],
    },
    /// A sealed body could not be opened: its session is not known here. It is to be sent again in another.
    Lost {
        /// Which session.
        session: [u8; NAME_LEN],
    },
}

impl<'a> Body<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Body::Accept { nodes } => [vec![ACCEPT], nodes_bytes(nodes)].concat(),
            Body::Decline => vec![DECLINE],
            Body::End => vec![END],
            Body::Hello { noise, nodes } => [&[HELLO], noise.as_slice(), &nodes_bytes(nodes)].concat(),
            Body::Answer { hello, noise, nodes } => {
                [&[ANSWER], hello.as_slice(), noise.as_slice(), &nodes_bytes(nodes)].concat()
            }
            Body::Sealed { session, counter, ciphertext } => {
                [&[SEALED], session.as_slice(), &counter.to_le_bytes(), ciphertext].concat()
            }
            Body::Lost { session } => [&[LOST], session.as_slice()].concat(),
        }
    }

    /// Reads a body; `None` for what is no body of this version.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Body<'a>> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            ACCEPT => Some(Body::Accept { nodes: read_nodes(rest)? }),
            DECLINE | END if !rest.is_empty() => None,
            DECLINE => Some(Body::Decline),
            END => Some(Body::End),
            HELLO => {
                let (noise, nodes) = rest.split_first_chunk()?;
                Some(Body::Hello { noise, nodes: read_nodes(nodes)? })
            }
            ANSWER => {
                let (hello, rest) = rest.split_first_chunk()?;
                let (noise, nodes) = rest.split_first_chunk()?;
                Some(Body::Answer { hello: *hello, noise, nodes: read_nodes(nodes)? })
            }
            SEALED => {
                let (session, rest) = rest.split_first_chunk()?;
                let (counter, ciphertext) = rest.split_first_chunk()?;
                Some(Body::Sealed { session: *session, counter: u64::from_le_bytes(*counter), ciphertext })
            }
            LOST => Some(Body::Lost { session: rest.try_into().ok()? }),
            _ => None,
        }
    }
}

const TEXT: u8 = 0x01;
const PROFILE: u8 = 0x02;
const LEAVING: u8 = 0x03;
const OFFER: u8 = 0x04;
const PART: u8 = 0x05;
const KEPT: u8 = 0x06;
const REFUSED: u8 = 0x07;

/// What a sealed body holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A message.
    Text {
        /// Its name among the sender's; ids rise.
        id: u64,
        /// What it says: 1 to [`MESSAGE_LEN_MAX`] bytes.
        text: String,
    },
    /// I am here, and this is who I am.
    Profile(Profile),
    /// I am about to leave.
    Leaving,
    /// I have a file for you.
    Offer(Offer),
    /// A part of it.
    Part {
        /// The file.
        id: u64,
        /// Which part, from 0.
        index: u32,
        /// Its bytes: 1 to [`PART_LEN`].
        data: Vec<u8>,
    },
    /// I keep so much of a file.
    Kept {
        /// The file.
        id: u64,
        /// So many parts, from the first.
        parts: u32,
        /// Whether the next did not come, though later ones did.
        is_gap: bool,
    },
    /// I do not take this file, or not so.
    Refused {
        /// The file.
        id: u64,
        /// Why.
        reason: Refusal,
    },
}

/// Why a file, or a part of it, is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Refusal {
    /// As many files as may be are on their way here.
    Busy = 1,
    /// It was not offered, or that is forgotten.
    Unknown = 2,
    /// All parts are there, and are not the file.
    Damaged = 3,
}

impl Content {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Content::Text { id, text } => [&[TEXT], id.to_le_bytes().as_slice(), text.as_bytes()].concat(),
            Content::Profile(profile) => {
                let mut bytes = vec![PROFILE, profile.presence as u8];
                write_text(&mut bytes, &profile.name);
                write_text(&mut bytes, &profile.description);
                bytes
            }
            Content::Leaving => vec![LEAVING],
            Content::Offer(Offer { id, len, hash, name }) => {
                let mut bytes = [&[OFFER], id.to_le_bytes().as_slice(), &len.to_le_bytes(), hash].concat();
                write_text(&mut bytes, name);
                bytes
            }
            Content::Part { id, index, data } => {
                [&[PART], id.to_le_bytes().as_slice(), &index.to_le_bytes(), data].concat()
            }
            Content::Kept { id, parts, is_gap } => {
                [&[KEPT], id.to_le_bytes().as_slice(), &parts.to_le_bytes(), &[u8::from(*is_gap)]].concat()
            }
            Content::Refused { id, reason } => {
                [&[REFUSED], id.to_le_bytes().as_slice(), &[*reason as u8]].concat()
            }
        }
    }

    /// Reads a content; `None` for what is none of this version.
    pub(super) fn parse(bytes: &[u8]) -> Option<Content> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            TEXT => {
                let (id, text) = rest.split_first_chunk()?;
                let is_fit = (1..=MESSAGE_LEN_MAX).contains(&text.len());
                let text = String::from_utf8(text.to_vec()).ok().filter(|_| is_fit)?;
                Some(Content::Text { id: u64::from_le_bytes(*id), text })
            }
            PROFILE => {
                let (presence, mut rest) = rest.split_first()?;
                let presence = match presence {
                    0 => Presence::None,
                    1 => Presence::Away,
                    2 => Presence::Busy,
                    _ => return None,
                };
                let name = read_text(&mut rest, NAME_LEN_MAX)?;
                let description = read_text(&mut rest, DESCRIPTION_LEN_MAX)?;
                rest.is_empty().then_some(Content::Profile(Profile { name, description, presence }))
            }
            LEAVING => rest.is_empty().then_some(Content::Leaving),
            OFFER => {
                let (id, rest) = take_u64(rest)?;
                let (len, rest) = take_u32(rest)?;
                let (hash, mut rest) = rest.split_first_chunk()?;
                let name = read_text(&mut rest, FILE_NAME_LEN_MAX)?;
                let is_fit = rest.is_empty()
                    && (1..=FILE_LEN_MAX).contains(&(len as usize))
                    && name_fault(&name).is_none();
                is_fit.then_some(Content::Offer(Offer { id, len, hash: *hash, name }))
            }
            PART => {
                let (id, rest) = take_u64(rest)?;
                let (index, data) = take_u32(rest)?;
                let is_fit = (1..=PART_LEN).contains(&data.len());
                is_fit.then(|| Content::Part { id, index, data: data.to_vec() })
            }
            KEPT => {
                let (id, rest) = take_u64(rest)?;
                let (parts, rest) = take_u32(rest)?;
                let is_gap = match rest {
                    [0] => false,
                    [1] => true,
                    _ => return None,
                };
                Some(Content::Kept { id, parts, is_gap })
            }
            REFUSED => {
                let (id, rest) = take_u64(rest)?;
                let reason = match rest {
                    [1] => Refusal::Busy,
                    [2] => Refusal::Unknown,
                    [3] => Refusal::Damaged,
                    _ => return None,
                };
                Some(Content::Refused { id, reason })
            }
            _ => None,
        }
    }
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk().map(|(chunk, rest)| (u64::from_le_bytes(*chunk), rest))
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(chunk, rest)| (u32::from_le_bytes(*chunk), rest))
}

/// Where somebody is, 50 bytes a node.
pub(crate) fn nodes_bytes(nodes: &[NodeAddress]) -> Vec<u8> {
    nodes.iter().flat_map(NodeAddress::to_bytes).collect()
}

/// Reads as many as there are; `None` for more than there may be.
pub(crate) fn read_nodes(bytes: &[u8]) -> Option<Vec<NodeAddress>> {
    let (nodes, rest) = bytes.as_chunks::<NODE_ADDRESS_LEN>();
    (rest.is_empty() && nodes.len() <= NODES_MAX).then(|| nodes.iter().map(NodeAddress::from_bytes).collect())
}

/// Appends a text of at most 255 bytes, its length first.
pub(crate) fn write_text(bytes: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= 255, "its length was checked when it was set");
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes a text of at most `max` bytes off the front.
pub(crate) fn read_text(bytes: &mut &[u8], max: usize) -> Option<String> {
    let (len, rest) = bytes.split_first()?;
    let len = usize::from(*len);
    let text = rest.get(..len).filter(|_| len <= max)?;
    *bytes = &rest[len..];
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bodies_and_contents_come_back() {
        let (hello, noise) = ([7; HELLO_LEN], [8; ANSWER_LEN]);
        let (session, counter) = ([9; NAME_LEN], 5);
        let uid = identity::Uid::from_bytes([6; 32]);
        let nodes: Vec<_> = ["192.0.2.1:4433", "[2001:db8::1]:7"]
            .map(|address| NodeAddress::new(uid, address.parse().unwrap()))
            .into();
        let none = Vec::new;
        for body in [
            Body::Accept { nodes: none() },
            Body::Accept { nodes: nodes.clone() },
            Body::Decline,
            Body::End,
            Body::Hello { noise: &hello, nodes: none() },
            Body::Hello { noise: &hello, nodes: nodes.clone() },
            Body::Answer { hello: [1; NAME_LEN], noise: &noise, nodes: none() },
            Body::Answer { hello: [1; NAME_LEN], noise: &noise, nodes: nodes.clone() },
            Body::Sealed { session, counter, ciphertext: b"x" },
            Body::Lost { session },
        ] {
            let bytes = body.to_bytes();
            assert_eq!(Body::parse(&bytes).as_ref(), Some(&body));
            if !matches!(body, Body::Sealed { .. }) {
                assert_eq!(Body::parse(&[&bytes[..], &[0]].concat()), None, "{body:?}");
                assert_eq!(Body::parse(&bytes[..bytes.len() - 1]), None, "{body:?}");
            }
        }
        let five = [nodes.clone(), nodes.clone(), vec![nodes[0]]].concat();
        assert_eq!(Body::parse(&Body::Accept { nodes: five }.to_bytes()), None);
        let profile =
            Profile { name: "n".repeat(63), description: "d".repeat(127), presence: Presence::Busy };
        for content in [
            Content::Text { id: 3, text: "é".repeat(512) },
            Content::Profile(profile),
            Content::Profile(Profile::default()),
            Content::Leaving,
            offer(1, "n"),
            offer(FILE_LEN_MAX as u32, &"n".repeat(255)),
            Content::Part { id: 3, index: 4_748, data: vec![5; PART_LEN] },
            Content::Kept { id: 3, parts: 4_747, is_gap: true },
            Content::Refused { id: 3, reason: Refusal::Busy },
            Content::Refused { id: 3, reason: Refusal::Damaged },
        ] {
            assert_eq!(Content::parse(&content.to_bytes()), Some(content));
        }
        for content in [
            offer(0, "empty"),
            offer(FILE_LEN_MAX as u32 + 1, "long"),
            offer(1, "../escape"),
            offer(1, ".."),
            offer(1, ""),
            offer(1, "line\nbreak"),
            Content::Part { id: 3, index: 0, data: vec![] },
            Content::Part { id: 3, index: 0, data: vec![5; PART_LEN + 1] },
        ] {
            assert_eq!(Content::parse(&content.to_bytes()), None, "{content:?}");
        }
        let longest = Content::Part { id: 3, index: 0, data: vec![5; PART_LEN] }.to_bytes();
        let sealed = Body::Sealed { session, counter, ciphertext: &[&longest[..], &[0; 16]].concat() };
        assert!(sealed.to_bytes().len() <= relay::mailbox::BODY_LEN_MAX);
        let long = Profile { name: "n".repeat(64), ..Profile::default() };
        assert_eq!(Content::parse(&Content::Profile(long).to_bytes()), None);
        for text in [String::new(), "x".repeat(1_025)] {
            assert_eq!(Content::parse(&Content::Text { id: 3, text }.to_bytes()), None);
        }
    }

    fn offer(len: u32, name: &str) -> Content {
        Content::Offer(Offer { id: 3, len, hash: [4; 32], name: name.into() })
    }

    proptest! {
        #[test]
        fn what_anybody_sends_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(body) = Body::parse(&bytes) {
                prop_assert_eq!(body.to_bytes(), &bytes[..]);
            }
            if let Some(content) = Content::parse(&bytes) {
                prop_assert_eq!(content.to_bytes(), bytes);
            }
        }
    }
}
