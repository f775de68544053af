//! A session of two friends: Noise NN (revision 34), whose handshake messages travel in signed envelopes, and a new key after
//! every message.
//!
//! The envelopes' signatures prove who has sent which ephemeral key, as in SIGMA; the prologue ties both UIDs to the
//! handshake, so that a third cannot pass a message of it on as its own. No key of a UID takes part, so one that is stolen later
//! opens nothing that was said before.

use identity::Uid;
use relay::mailbox::NodeAddress;

use super::body::{ANSWER_LEN, Body, HELLO_LEN, NAME_LEN};

const PATTERN: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"ioex friends session v1\0";
const TAG_LEN: usize = 16;

/// Messages of the other that may be missing in front of one: more than may be under way. Each costs a change of key.
const SKIPPED_MAX: u64 = 1_024;

/// After so many messages a session is to be followed by another.
pub(super) const SEALED_MAX: u64 = 1_024;

/// A handshake that this side has begun.
pub(super) struct Hello {
    noise: snow::HandshakeState,
    message: [u8; HELLO_LEN],
}

impl Hello {
    /// Begins a handshake.
    pub(super) fn begin(own: &Uid, other: &Uid) -> Option<Hello> {
        let mut noise = builder(&prologue(own, other))?.build_initiator().ok()?;
        // The crate wants room for a tag, which a message without a key does not have.
        let mut buffer = [0; HELLO_LEN + TAG_LEN];
        let len = noise.write_message(&[], &mut buffer).ok()?;
        let message = buffer[..len].try_into().ok()?;
        Some(Hello { noise, message })
    }

    /// What is to be sent by somebody who is at `nodes`.
    pub(super) fn body(&self, nodes: &[NodeAddress]) -> Body<'_> {
        Body::Hello { noise: &self.message, nodes: nodes.to_vec() }
    }

    /// What an answer to it repeats.
    pub(super) fn name(&self) -> [u8; NAME_LEN] {
        name(&self.message)
    }

    /// The other's answer has come.
    pub(super) fn finish(mut self, answer: &[u8; ANSWER_LEN]) -> Option<Session> {
        self.noise.read_message(answer, &mut []).ok()?;
        Session::new(self.noise)
    }
}

/// Answers the other's hello: the session, and the answer's body by somebody who is at `nodes`.
pub(super) fn answer(
    own: &Uid,
    other: &Uid,
    hello: &[u8; HELLO_LEN],
    nodes: &[NodeAddress],
) -> Option<(Session, Vec<u8>)> {
    let mut noise = builder(&prologue(other, own))?.build_responder().ok()?;
    noise.read_message(hello, &mut []).ok()?;
    let mut message = [0; ANSWER_LEN];
    let len = noise.write_message(&[], &mut message).ok()?;
    let body = Body::Answer { hello: name(hello), noise: &message, nodes: nodes.to_vec() }.to_bytes();
    (len == ANSWER_LEN).then_some((Session::new(noise)?, body))
}

/// Keys that both sides have, and nobody else.
pub(super) struct Session {
    id: [u8; NAME_LEN],
    noise: snow::TransportState,
}

impl Session {
    fn new(noise: snow::HandshakeState) -> Option<Session> {
        let id = name(noise.get_handshake_hash());
        Some(Session { id, noise: noise.into_transport_mode().ok()? })
    }

    /// Its name, which both sides know.
    pub(super) fn id(&self) -> [u8; NAME_LEN] {
        self.id
    }

    /// How many messages this side has sealed.
    pub(super) fn sealed(&self) -> u64 {
        self.noise.sending_nonce()
    }

    /// Seals a content, then forgets the key. `None` only if the content is longer than Noise allows.
    pub(super) fn seal(&mut self, content: &[u8]) -> Option<Vec<u8>> {
        let counter = self.noise.sending_nonce();
        let mut ciphertext = vec![0; content.len() + TAG_LEN];
        let len = self.noise.write_message(content, &mut ciphertext).ok()?;
        self.noise.rekey_outgoing();
        Some(Body::Sealed { session: self.id, counter, ciphertext: &ciphertext[..len] }.to_bytes())
    }

    /// Opens the other's message of this number, then forgets the key. Those in front of it that have not come are not opened any
    /// more. `None` ends the session: the other has sealed something else.
    pub(super) fn open(&mut self, counter: u64, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let skipped = counter.checked_sub(self.noise.receiving_nonce())?;
        if skipped > SKIPPED_MAX {
            return None;
        }
        (0..skipped).for_each(|_| self.noise.rekey_incoming());
        self.noise.set_receiving_nonce(counter);
        let mut content = vec![0; ciphertext.len()];
        let len = self.noise.read_message(ciphertext, &mut content).ok()?;
        self.noise.rekey_incoming();
        content.truncate(len);
        Some(content)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:02x?})", self.id)
    }
}

fn builder(prologue: &[u8]) -> Option<snow::Builder<'_>> {
    snow::Builder::new(PATTERN.parse().ok()?).prologue(prologue).ok()
}

fn prologue(initiator: &Uid, responder: &Uid) -> Vec<u8> {
    [PROLOGUE, initiator.as_bytes(), responder.as_bytes()].concat()
}

fn name(bytes: &[u8]) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    name.copy_from_slice(&bytes[..NAME_LEN]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u8) -> Uid {
        identity::SecretKey::from_seed([n; 32]).uid()
    }

    fn answer_of(body: &[u8]) -> [u8; ANSWER_LEN] {
        match Body::parse(body) {
            Some(Body::Answer { noise, .. }) => *noise,
            body => panic!("{body:?}"),
        }
    }

    fn pair() -> (Session, Session) {
        let hello = Hello::begin(&uid(1), &uid(2)).unwrap();
        let (session, body) = answer(&uid(2), &uid(1), &hello.message, &[]).unwrap();
        (hello.finish(&answer_of(&body)).unwrap(), session)
    }

    fn opened(session: &mut Session, body: &[u8]) -> Option<Vec<u8>> {
        match Body::parse(body) {
            Some(Body::Sealed { session: id, counter, ciphertext }) => {
                assert_eq!(id, session.id);
                session.open(counter, ciphertext)
            }
            body => panic!("{body:?}"),
        }
    }

    #[test]
    fn both_ways_in_order_over_gaps_and_each_once() {
        let (mut one, mut two) = pair();
        assert_eq!(one.id(), two.id());
        let bodies: Vec<_> = (0..6u8).map(|n| one.seal(&[n; 1_033]).unwrap()).collect();
        assert!(bodies.iter().all(|body| body.len() <= relay::mailbox::BODY_LEN_MAX));
        assert_eq!(opened(&mut two, &bodies[0]), Some(vec![0; 1_033]));
        assert_eq!(opened(&mut two, &bodies[4]), Some(vec![4; 1_033]), "three are missing");
        assert_eq!(opened(&mut two, &bodies[4]), None, "once");
        assert_eq!(opened(&mut two, &bodies[5]), Some(vec![5; 1_033]));
        let body = two.seal(b"back").unwrap();
        assert_eq!(opened(&mut one, &body), Some(b"back".to_vec()));
    }

    #[test]
    fn a_key_that_was_used_is_gone() {
        let (mut one, mut two) = pair();
        let body = one.seal(b"said before").unwrap();
        assert!(opened(&mut two, &body).is_some());
        // Whoever takes the receiver's memory now has this state. Winding its counter back does not bring the key back.
        let Some(Body::Sealed { counter, ciphertext, .. }) = Body::parse(&body) else { panic!("{body:?}") };
        two.noise.set_receiving_nonce(counter);
        assert_eq!(two.open(counter, ciphertext), None);
    }

    #[test]
    fn what_is_not_the_others_does_not_open() {
        let (mut one, mut two) = pair();
        let mut body = one.seal(b"text").unwrap();
        *body.last_mut().unwrap() ^= 1;
        assert_eq!(opened(&mut two, &body), None);
        let (_, mut two) = pair();
        assert_eq!(two.open(SKIPPED_MAX + 1, &[0; 20]), None, "too far ahead");
        assert_eq!(two.open(0, &[0; 3]), None, "shorter than a tag");
    }

    #[test]
    fn a_third_cannot_pass_a_handshake_on_as_its_own() {
        // Number 3 takes the hello of 1 and sends it to 2 under its own name; the answer is of no use to 1.
        let hello = Hello::begin(&uid(1), &uid(2)).unwrap();
        let (_, body) = answer(&uid(2), &uid(3), &hello.message, &[]).unwrap();
        assert!(hello.finish(&answer_of(&body)).is_none());
    }
}
