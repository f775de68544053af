//! The exchange between the device that shows a code (the host) and the one on which it is typed (the guest): pure, bodies in and
//! bodies out. Drawn in `peer/docs/pairing.md`.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use identity::{Address, Domain, SecretKey, Signature, Uid};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::body::{SHARE_LEN, Sealed, TAG_LEN};
use super::code::Code;
use crate::friends::{Device, NAME_LEN_MAX, nodes_bytes, read_nodes, read_text, write_text};

const KEYS_CONTEXT: &str = "ioex pairing v1 keys";
const GUEST: &[u8] = b"ioex pairing v1 guest\0";
const HOST: &[u8] = b"ioex pairing v1 host\0";

/// What the crate puts in front of a share to say whose it is.
const GUEST_SIDE: u8 = b'A';
const HOST_SIDE: u8 = b'B';

/// Each key seals one card only, so the nonce may be constant.
const NONCE: [u8; 12] = [0; 12];
const GCM_TAG_LEN: usize = 16;
const SIGNATURE_LEN: usize = 64;

/// What both know of an exchange before anything is proved: who meets, and the shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transcript {
    guest: Uid,
    host: Uid,
    guest_share: [u8; SHARE_LEN],
    host_share: [u8; SHARE_LEN],
}

#[derive(Clone, Copy)]
enum Side {
    Guest = 0,
    Host = 1,
}

/// The keys of an exchange.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Keys {
    guest_confirms: [u8; 32],
    host_confirms: [u8; 32],
    guest_seals: [u8; 32],
    host_seals: [u8; 32],
}

/// An exchange as the guest has begun it.
pub(super) struct Knocking {
    pake: Spake2<Ed25519Group>,
    guest: Uid,
    host: Uid,
    share: [u8; SHARE_LEN],
}

/// An exchange in which both have the other's share.
pub(super) struct Exchange {
    keys: Keys,
    transcript: Transcript,
}

impl Knocking {
    /// Begins, between the guest's session, of UID `guest`, and the meeting's, `host`. `None` if the share has an unknown form.
    pub(super) fn begin(code: &Code, guest: Uid, host: Uid) -> Option<Knocking> {
        let [password, guest_id, host_id] = inputs(code, &guest, &host);
        let started =
            Spake2::start_a(&Password::new(password), &Identity::new(&guest_id), &Identity::new(&host_id));
        Knocking::of(started, guest, host)
    }

    fn of((pake, message): (Spake2<Ed25519Group>, Vec<u8>), guest: Uid, host: Uid) -> Option<Knocking> {
        Some(Knocking { pake, guest, host, share: message.get(1..)?.try_into().ok()? })
    }

    /// What the host is sent.
    pub(super) fn share(&self) -> [u8; SHARE_LEN] {
        self.share
    }

    /// The host has answered with its share; `None` if it is none.
    pub(super) fn finish(self, host_share: [u8; SHARE_LEN]) -> Option<Exchange> {
        let Knocking { pake, guest, host, share } = self;
        let secret = pake.finish(&[&[HOST_SIDE], host_share.as_slice()].concat()).ok()?;
        let transcript = Transcript { guest, host, guest_share: share, host_share };
        Some(Exchange { keys: Keys::of(secret), transcript })
    }
}

impl Exchange {
    /// The host's end: a guest has sent its share. `None` if it is none. The share to answer with comes back, too.
    pub(super) fn answer(
        code: &Code,
        guest: Uid,
        host: Uid,
        guest_share: [u8; SHARE_LEN],
    ) -> Option<(Exchange, [u8; SHARE_LEN])> {
        let [password, guest_id, host_id] = inputs(code, &guest, &host);
        let started =
            Spake2::start_b(&Password::new(password), &Identity::new(&guest_id), &Identity::new(&host_id));
        Exchange::of(started, guest, host, guest_share)
    }

    fn of(
        (pake, message): (Spake2<Ed25519Group>, Vec<u8>),
        guest: Uid,
        host: Uid,
        guest_share: [u8; SHARE_LEN],
    ) -> Option<(Exchange, [u8; SHARE_LEN])> {
        let host_share: [u8; SHARE_LEN] = message.get(1..)?.try_into().ok()?;
        let secret = pake.finish(&[&[GUEST_SIDE], guest_share.as_slice()].concat()).ok()?;
        let transcript = Transcript { guest, host, guest_share, host_share };
        Some((Exchange { keys: Keys::of(secret), transcript }, host_share))
    }

    /// The share that the guest began with.
    pub(super) fn guest_share(&self) -> &[u8; SHARE_LEN] {
        &self.transcript.guest_share
    }

    /// The share that the host has answered with.
    pub(super) fn host_share(&self) -> [u8; SHARE_LEN] {
        self.transcript.host_share
    }

    /// The guest's proof that it knows the code, and who it is; `None` if the name is too long.
    pub(super) fn prove(&self, key: &SecretKey, device: &Device) -> Option<Sealed> {
        self.seal(Side::Guest, key, device)
    }

    /// Who the guest is; `None` if it does not know the code, or has no right to this address.
    pub(super) fn check_proof(&self, proof: &Sealed) -> Option<Device> {
        self.open(Side::Guest, proof)
    }

    /// The host's proof that it knows the code, and who it is; `None` if the name is too long.
    pub(super) fn confirm(&self, key: &SecretKey, device: &Device) -> Option<Sealed> {
        self.seal(Side::Host, key, device)
    }

    /// Who the host is; `None` if it does not know the code, or has no right to this address.
    pub(super) fn check_done(&self, done: &Sealed) -> Option<Device> {
        self.open(Side::Host, done)
    }

    /// The guest's word that it keeps the host.
    pub(super) fn kept(&self) -> [u8; TAG_LEN] {
        *blake3::keyed_hash(&self.keys.guest_confirms, b"kept").as_bytes()
    }

    /// Whether it is that.
    pub(super) fn check_kept(&self, tag: &[u8; TAG_LEN]) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::keyed_hash(&self.keys.guest_confirms, b"kept") == *tag
    }

    fn seal(&self, side: Side, key: &SecretKey, device: &Device) -> Option<Sealed> {
        if device.name.len() > NAME_LEN_MAX {
            return None;
        }
        let signature = key.sign(Domain::Pairing, &self.transcript.signed(side, &device.address));
        let mut bytes = [device.address.to_bytes().as_slice(), &signature.0].concat();
        write_text(&mut bytes, &device.name);
        bytes.extend_from_slice(&nodes_bytes(&device.nodes));
        let (confirms, seals) = self.keys.of_side(side);
        let cipher = Aes256Gcm::new(seals.into());
        let tag = cipher.encrypt_inout_detached(&NONCE.into(), &[], bytes.as_mut_slice().into()).ok()?;
        bytes.extend_from_slice(&tag);
        Some(Sealed { tag: tag_of(confirms, &bytes).into(), card: bytes })
    }

    fn open(&self, side: Side, sealed: &Sealed) -> Option<Device> {
        let (confirms, seals) = self.keys.of_side(side);
        // Compares in constant time. AES-GCM alone would not commit to the key.
        if tag_of(confirms, &sealed.card) != sealed.tag {
            return None;
        }
        let (card, tag) = sealed.card.split_last_chunk::<GCM_TAG_LEN>()?;
        let mut bytes = card.to_vec();
        let cipher = Aes256Gcm::new(seals.into());
        cipher.decrypt_inout_detached(&NONCE.into(), &[], bytes.as_mut_slice().into(), tag.into()).ok()?;
        let (address, rest) = bytes.split_first_chunk()?;
        let (signature, mut rest) = rest.split_first_chunk::<SIGNATURE_LEN>()?;
        let address = Address::from_bytes(address).ok()?;
        let signed = self.transcript.signed(side, &address);
        address.uid.verify(Domain::Pairing, &signed, &Signature(*signature)).ok()?;
        let name = read_text(&mut rest, NAME_LEN_MAX)?;
        Some(Device { address, name, nodes: read_nodes(rest)? })
    }
}

impl Transcript {
    /// What a device signs with the key of its UID.
    fn signed(&self, side: Side, address: &Address) -> Vec<u8> {
        let Transcript { guest, host, guest_share, host_share } = self;
        let nospam = address.nospam.as_slice();
        [&[side as u8], guest.as_bytes().as_slice(), host.as_bytes(), guest_share, host_share, nospam]
            .concat()
    }
}

impl Keys {
    /// From what SPAKE2 gives: a hash over the code, who meets, the shares and the point.
    fn of(mut secret: Vec<u8>) -> Keys {
        let mut bytes = [0; 128];
        blake3::Hasher::new_derive_key(KEYS_CONTEXT).update(&secret).finalize_xof().fill(&mut bytes);
        secret.zeroize();
        let mut keys = Keys {
            guest_confirms: [0; 32],
            host_confirms: [0; 32],
            guest_seals: [0; 32],
            host_seals: [0; 32],
        };
        keys.guest_confirms.copy_from_slice(&bytes[..32]);
        keys.host_confirms.copy_from_slice(&bytes[32..64]);
        keys.guest_seals.copy_from_slice(&bytes[64..96]);
        keys.host_seals.copy_from_slice(&bytes[96..]);
        bytes.zeroize();
        keys
    }

    fn of_side(&self, side: Side) -> (&[u8; 32], &[u8; 32]) {
        match side {
            Side::Guest => (&self.guest_confirms, &self.guest_seals),
            Side::Host => (&self.host_confirms, &self.host_seals),
        }
    }
}

/// Password and identities, as they go into the exchange.
fn inputs(code: &Code, guest: &Uid, host: &Uid) -> [Vec<u8>; 3] {
    [code.password().to_vec(), [GUEST, guest.as_bytes()].concat(), [HOST, host.as_bytes()].concat()]
}

fn tag_of(confirms: &[u8; 32], card: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(confirms, &[b"card", card].concat())
}

#[cfg(test)]
mod tests {
    use super::super::body::Body;
    use super::*;
    use rand_core::{CryptoRng, Error, RngCore};
    use relay::mailbox::NodeAddress;
    use serde_json::Value;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }

    fn card(n: u8) -> Device {
        let node = NodeAddress::new(key(n + 100).uid(), "[2001:db8::1]:4433".parse().unwrap());
        Device {
            address: Address { uid: key(n).uid(), nospam: [n; 4] },
            name: "a name".into(),
            nodes: vec![node; usize::from(n % 2)],
        }
    }

    fn code(text: &str) -> Code {
        text.parse().unwrap()
    }

    /// An exchange of a guest, whose session is number 7, and a host, with these codes.
    fn exchanged(guest_code: &Code, host_code: &Code) -> (Exchange, Exchange) {
        let (guest, host) = (key(7).uid(), host_code.meeting().key.uid());
        let knocking = Knocking::begin(guest_code, guest, host).unwrap();
        let (at_host, share) = Exchange::answer(host_code, guest, host, knocking.share()).unwrap();
        (knocking.finish(share).unwrap(), at_host)
    }

    const RIGHT: &str = "4821-5073-3960";
    const WRONG: &str = "4821-5073-3971";

    #[test]
    fn two_with_the_same_code_learn_who_the_other_is() {
        let (guest, host) = exchanged(&code(RIGHT), &code(RIGHT));
        let proof = guest.prove(&key(1), &card(1)).unwrap();
        assert_eq!(host.check_proof(&proof), Some(card(1)));
        let done = host.confirm(&key(2), &card(2)).unwrap();
        assert_eq!(guest.check_done(&done), Some(card(2)));
        assert!(host.check_kept(&guest.kept()));
        // Neither passes for the other's.
        assert_eq!(guest.check_done(&proof), None);
        assert_eq!(host.check_proof(&done), None);
        assert!(!host.check_kept(&[0; TAG_LEN]));
    }

    #[test]
    fn another_code_proves_nothing_either_way() {
        let (guest, host) = exchanged(&code(WRONG), &code(RIGHT));
        assert_eq!(host.check_proof(&guest.prove(&key(1), &card(1)).unwrap()), None);
        assert_eq!(guest.check_done(&host.confirm(&key(2), &card(2)).unwrap()), None);
        assert!(!host.check_kept(&guest.kept()));
    }

    #[test]
    fn a_byte_that_is_changed_on_the_way_breaks_the_exchange() {
        let (guest, host) = exchanged(&code(RIGHT), &code(RIGHT));
        let proof = guest.prove(&key(1), &card(1)).unwrap();
        for at in 0..proof.card.len() {
            let mut changed = proof.clone();
            changed.card[at] ^= 1;
            assert_eq!(host.check_proof(&changed), None, "byte {at}");
        }
        for at in 0..TAG_LEN {
            let mut changed = proof.clone();
            changed.tag[at] ^= 0x80;
            assert_eq!(host.check_proof(&changed), None, "byte {at} of the tag");
        }
        for share in [[0; SHARE_LEN], [0xff; SHARE_LEN]] {
            let (session, meeting) = (key(7).uid(), key(8).uid());
            let answered = Exchange::answer(&code(RIGHT), session, meeting, share);
            let other = answered.map(|(exchange, _)| exchange.check_proof(&proof));
            assert!(matches!(other, None | Some(None)));
        }
    }

    /// A node in the middle has an exchange of its own with either, and passes on what fits neither.
    #[test]
    fn whoever_stands_in_between_without_the_code_passes_nothing_on() {
        let (guest_session, host_uid) = (key(7).uid(), code(RIGHT).meeting().key.uid());
        let knocking = Knocking::begin(&code(RIGHT), guest_session, host_uid).unwrap();
        // To the guest it plays the host, to the host a guest, with a code that it has guessed.
        let (to_guest, share) =
            Exchange::answer(&code(WRONG), guest_session, host_uid, knocking.share()).unwrap();
        let guest = knocking.finish(share).unwrap();
        let own = Knocking::begin(&code(WRONG), key(9).uid(), host_uid).unwrap();
        let (host, share) = Exchange::answer(&code(RIGHT), key(9).uid(), host_uid, own.share()).unwrap();
        let to_host = own.finish(share).unwrap();
        let proof = guest.prove(&key(1), &card(1)).unwrap();
        assert_eq!(to_guest.check_proof(&proof), None);
        assert_eq!(host.check_proof(&proof), None);
        assert_eq!(host.check_proof(&to_host.prove(&key(9), &card(9)).unwrap()), None);
        assert_eq!(guest.check_done(&to_guest.confirm(&key(9), &card(9)).unwrap()), None);
    }

    #[test]
    fn shares_are_bound_to_the_sessions_that_they_came_in() {
        let host_uid = code(RIGHT).meeting().key.uid();
        let knocking = Knocking::begin(&code(RIGHT), key(7).uid(), host_uid).unwrap();
        // Passed on under another session's name.
        let (host, share) = Exchange::answer(&code(RIGHT), key(9).uid(), host_uid, knocking.share()).unwrap();
        let guest = knocking.finish(share).unwrap();
        assert_eq!(host.check_proof(&guest.prove(&key(1), &card(1)).unwrap()), None);
    }

    #[test]
    fn nobody_who_knows_the_code_passes_as_a_uid_that_is_anothers() {
        let (guest, host) = exchanged(&code(RIGHT), &code(RIGHT));
        assert_eq!(host.check_proof(&guest.prove(&key(1), &card(2)).unwrap()), None);
        let long = Device { name: "n".repeat(NAME_LEN_MAX + 1), ..card(1) };
        assert!(guest.prove(&key(1), &long).is_none());
    }

    /// Hands out one scalar, as 64 bytes.
    struct Chosen([u8; 32]);

    impl RngCore for Chosen {
        fn next_u32(&mut self) -> u32 {
            unreachable!("scalars are filled in")
        }

        fn next_u64(&mut self) -> u64 {
            unreachable!("scalars are filled in")
        }

        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            bytes.fill(0);
            bytes[..32].copy_from_slice(&self.0);
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    impl CryptoRng for Chosen {}

    #[test]
    fn an_independent_implementation_says_the_same_bytes() {
        let vector: Value = serde_json::from_str(include_str!("../../tests/vectors/pairing.json")).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap().to_owned();
        let bytes = |name: &str| -> Vec<u8> {
            let text = text(name);
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let array = |name: &str| -> [u8; 32] { bytes(name).try_into().unwrap() };
        let code = code(&text("code"));
        let meeting = code.meeting();
        assert_eq!(
            (*meeting.key.seed(), meeting.nospam.to_vec()),
            (array("meeting_seed"), bytes("meeting_nospam"))
        );
        let (guest, host) = (SecretKey::from_seed(array("guest_session_seed")).uid(), meeting.key.uid());
        let [password, guest_id, host_id] = inputs(&code, &guest, &host);
        let (password, guest_id, host_id) =
            (Password::new(password), Identity::new(&guest_id), Identity::new(&host_id));
        let started = Spake2::start_a_with_rng(&password, &guest_id, &host_id, Chosen(array("guest_scalar")));
        let knocking = Knocking::of(started, guest, host).unwrap();
        assert_eq!(Body::Knock(knocking.share()).to_bytes(), bytes("knock"));
        let started = Spake2::start_b_with_rng(&password, &guest_id, &host_id, Chosen(array("host_scalar")));
        let (at_host, share) = Exchange::of(started, guest, host, knocking.share()).unwrap();
        assert_eq!(Body::Offer(share).to_bytes(), bytes("offer"));
        let at_guest = knocking.finish(share).unwrap();
        let card = |side: &str| {
            let key = SecretKey::from_seed(array(&format!("{side}_seed")));
            let nospam = bytes(&format!("{side}_nospam")).try_into().unwrap();
            let nodes = vector[format!("{side}_nodes")].as_array().unwrap();
            let nodes = nodes.iter().map(|node| node.as_str().unwrap().parse().unwrap()).collect();
            let address = Address { uid: key.uid(), nospam };
            (Device { address, name: text(&format!("{side}_name")), nodes }, key)
        };
        let ((guest_card, guest_key), (host_card, host_key)) = (card("guest"), card("host"));
        let proof = at_guest.prove(&guest_key, &guest_card).unwrap();
        assert_eq!(at_host.check_proof(&proof), Some(guest_card));
        assert_eq!(Body::Proof(proof).to_bytes(), bytes("proof"));
        let done = at_host.confirm(&host_key, &host_card).unwrap();
        assert_eq!(at_guest.check_done(&done), Some(host_card));
        assert_eq!(Body::Done(done).to_bytes(), bytes("done"));
        assert_eq!(Body::Kept(at_guest.kept()).to_bytes(), bytes("kept"));
    }
}
