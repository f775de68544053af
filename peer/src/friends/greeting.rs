//! What a friend request says: sealed to the UID that is asked (HPKE, RFC 9180), so that nodes on the way do not read it.

use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use identity::{SecretKey, Uid};
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay::mailbox::NodeAddress;

use super::body::{nodes_bytes, read_nodes, read_text, write_text};
use super::record::{GREETING_LEN_MAX, NAME_LEN_MAX};

type Kem25519 = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::AesGcm256;

const INFO: &[u8] = b"ioex friend request v1";
const ENC_LEN: usize = 32;

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// The name in the profile of who asks.
    pub(super) name: String,
    /// What they say.
    pub(super) text: String,
    /// Where they are.
    pub(super) nodes: Vec<NodeAddress>,
}

impl Greeting {
    /// Seals it from `sender` to `receiver`; `None` if the receiver's UID is no usable key.
    pub(super) fn seal(&self, sender: &Uid, receiver: &Uid) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(2 + self.name.len() + self.text.len());
        write_text(&mut plain, &self.name);
        write_text(&mut plain, &self.text);
        plain.extend_from_slice(&nodes_bytes(&self.nodes));
        let public = <Kem25519 as Kem>::PublicKey::from_bytes(&receiver.to_x25519()?).ok()?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).ok()?;
        let mut random = StdRng::from_seed(seed);
        let (enc, sealed) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem25519>(
            &OpModeS::Base,
            &public,
            INFO,
            &plain,
            sender.as_bytes(),
            &mut random,
        )
        .ok()?;
        Some([&enc.to_bytes()[..], &sealed].concat())
    }

    /// Opens what `sender` has sealed; `None` for anything else.
    pub(super) fn open(body: &[u8], sender: &Uid, key: &SecretKey) -> Option<Greeting> {
        let (enc, sealed) = body.split_first_chunk::<ENC_LEN>()?;
        let private = <Kem25519 as Kem>::PrivateKey::from_bytes(&*key.to_x25519()).ok()?;
        let enc = <Kem25519 as Kem>::EncappedKey::from_bytes(enc).ok()?;
        let plain = hpke::single_shot_open::<Aead, Kdf, Kem25519>(
            &OpModeR::Base,
            &private,
            &enc,
            INFO,
            sealed,
            sender.as_bytes(),
        )
        .ok()?;
        let mut rest = &plain[..];
        let name = read_text(&mut rest, NAME_LEN_MAX)?;
        let text = read_text(&mut rest, GREETING_LEN_MAX)?;
        Some(Greeting { name, text, nodes: read_nodes(rest)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_asked_reads_it_and_only_of_who_asks() {
        let (one, two, three) = (key(1), key(2), key(3));
        let node = NodeAddress::new(three.uid(), "192.0.2.1:4433".parse().unwrap());
        let greeting = Greeting { name: "One".into(), text: "hello".into(), nodes: vec![node] };
        let sealed = greeting.seal(&one.uid(), &two.uid()).unwrap();
        assert_eq!(Greeting::open(&sealed, &one.uid(), &two), Some(greeting.clone()));
        assert_eq!(Greeting::open(&sealed, &three.uid(), &two), None, "passed off as another's");
        assert_eq!(Greeting::open(&sealed, &one.uid(), &three), None, "opened by another");
        assert_eq!(Greeting::open(&sealed[..sealed.len() - 1], &one.uid(), &two), None);
        assert_ne!(
            greeting.seal(&one.uid(), &two.uid()).unwrap(),
            sealed,
            "each is sealed with a key of its own"
        );
        assert!(greeting.seal(&one.uid(), &Uid::from_bytes([0xff; 32])).is_none());
    }

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }
}
