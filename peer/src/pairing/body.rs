//! Bodies of envelopes among two that pair. Drawn in `peer/docs/pairing.md`.

/// Length of a share, and of a tag: bytes.
pub(super) const SHARE_LEN: usize = 32;
pub(super) const TAG_LEN: usize = 32;

const KNOCK: u8 = 0x01;
const OFFER: u8 = 0x02;
const PROOF: u8 = 0x03;
const DONE: u8 = 0x04;
const KEPT: u8 = 0x05;
const ENDED: u8 = 0x06;

/// What two that pair say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// The guest's share. In an envelope of kind request; all others are messages.
    Knock([u8; SHARE_LEN]),
    /// The host's.
    Offer([u8; SHARE_LEN]),
    /// The guest knows the code, and says who it is.
    Proof(Sealed),
    /// So does the host; it has written the guest down.
    Done(Sealed),
    /// The guest has written the host down, too.
    Kept([u8; TAG_LEN]),
    /// Nothing will come of this exchange.
    Ended(Refusal),
}

/// A card, encrypted, and the tag over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) tag: [u8; TAG_LEN],
    pub(super) card: Vec<u8>,
}

/// Why nothing comes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Refusal {
    /// The proof does not hold: the code was another.
    WrongCode = 1,
    /// The code was used, or guessed at too often.
    CodeEnded = 2,
    /// The host cannot take this guest.
    NotTaken = 3,
}

impl Body {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Body::Knock(share) => [&[KNOCK], share.as_slice()].concat(),
            Body::Offer(share) => [&[OFFER], share.as_slice()].concat(),
            Body::Proof(sealed) => [&[PROOF], sealed.tag.as_slice(), &sealed.card].concat(),
            Body::Done(sealed) => [&[DONE], sealed.tag.as_slice(), &sealed.card].concat(),
            Body::Kept(tag) => [&[KEPT], tag.as_slice()].concat(),
            Body::Ended(refusal) => vec![ENDED, *refusal as u8],
        }
    }

    /// Reads a body; `None` for what is none of this version.
    pub(super) fn parse(bytes: &[u8]) -> Option<Body> {
        let (kind, rest) = bytes.split_first()?;
        let sealed = || {
            let (tag, card) = rest.split_first_chunk()?;
            Some(Sealed { tag: *tag, card: card.to_vec() })
        };
        match *kind {
            KNOCK => Some(Body::Knock(rest.try_into().ok()?)),
            OFFER => Some(Body::Offer(rest.try_into().ok()?)),
            PROOF => sealed().map(Body::Proof),
            DONE => sealed().map(Body::Done),
            KEPT => Some(Body::Kept(rest.try_into().ok()?)),
            ENDED => match rest {
                [1] => Some(Body::Ended(Refusal::WrongCode)),
                [2] => Some(Body::Ended(Refusal::CodeEnded)),
                [3] => Some(Body::Ended(Refusal::NotTaken)),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bodies_come_back() {
        let sealed = Sealed { tag: [3; TAG_LEN], card: vec![4; 120] };
        for body in [
            Body::Knock([1; SHARE_LEN]),
            Body::Offer([2; SHARE_LEN]),
            Body::Proof(sealed.clone()),
            Body::Done(sealed),
            Body::Kept([5; TAG_LEN]),
            Body::Ended(Refusal::WrongCode),
            Body::Ended(Refusal::CodeEnded),
            Body::Ended(Refusal::NotTaken),
        ] {
            assert_eq!(Body::parse(&body.to_bytes()), Some(body));
        }
        assert_eq!(Body::parse(&[ENDED, 4]), None);
        assert_eq!(Body::parse(&[KNOCK; 34]), None);
    }

    proptest! {
        #[test]
        fn what_anybody_sends_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(body) = Body::parse(&bytes) {
                prop_assert_eq!(body.to_bytes(), bytes);
            }
        }
    }
}
