//! Arbitrators with keys, and headers that they sign.

use alloy_primitives::{Address, B256, Bloom, U256, keccak256};
use chain_lite::dpos::{
    Checkpoint, EMPTY_UNCLES_HASH, FIRST_BASE_FEE_WEI, Header, HeaderChain, Network, SEAL_LEN, SignedHeader,
    VANITY_LEN, WINDOW_BLOCKS, ordered_root,
};
use secp256k1::ecdsa::RecoverableSignature;
use secp256k1::{Message, PublicKey, SecretKey};

/// The consortium chain with an id for tests.
pub const NETWORK: Network = Network::consortium(1_224);

/// When test chains begin, and a time at which nothing of them is in the future.
pub const GENESIS_TIME_S: u64 = 1_700_000_000;
pub const NOW_S: u64 = GENESIS_TIME_S + 100_000_000;

/// A key and its address.
#[derive(Clone, Copy)]
pub struct Arbitrator {
    pub key: SecretKey,
    pub address: Address,
}

impl Arbitrator {
    /// The arbitrator whose key is the hash of a name.
    pub fn named(name: &str) -> Arbitrator {
        let key = SecretKey::from_secret_bytes(keccak256(name).0).expect("a hash is a key");
        Arbitrator { key, address: address(&key) }
    }

    /// r, s and recovery id under a digest.
    pub fn sign(&self, digest: B256) -> [u8; SEAL_LEN] {
        let message = Message::from_digest(digest.0);
        let (id, compact) =
            RecoverableSignature::sign_ecdsa_recoverable(message, &self.key).serialize_compact();
        let mut seal = [0; SEAL_LEN];
        seal[..64].copy_from_slice(&compact);
        seal[64] = id.to_u8();
        seal
    }
}

fn address(key: &SecretKey) -> Address {
    Address::from_raw_public_key(&PublicKey::from_secret_key(key).serialize_uncompressed()[1..])
}

/// Arbitrators in the order of their addresses.
pub fn arbitrators(count: usize) -> Vec<Arbitrator> {
    let mut all: Vec<_> = (0..count).map(|place| Arbitrator::named(&format!("arbitrator {place}"))).collect();
    all.sort_unstable_by_key(|arbitrator| arbitrator.address);
    all
}

pub fn addresses(arbitrators: &[Arbitrator]) -> Vec<Address> {
    arbitrators.iter().map(|arbitrator| arbitrator.address).collect()
}

/// A header with everything that may be changed before it is signed.
#[derive(Clone)]
pub struct Draft {
    pub header: Header<'static>,
    pub signers: Vec<Address>,
}

impl Draft {
    /// The first block of a chain.
    pub fn genesis(network: &Network, signers: &[Address]) -> Draft {
        Draft {
            header: Header {
                parent_hash: B256::ZERO,
                uncles_hash: EMPTY_UNCLES_HASH,
                coinbase: Address::ZERO,
                state_root: B256::repeat_byte(7),
                transactions_root: ordered_root::<Vec<u8>>(&[]),
                receipts_root: B256::repeat_byte(9),
                logs_bloom: &Bloom::ZERO,
                difficulty: U256::ONE,
                number: 0,
                gas_limit: 8_000_000,
                gas_used: 0,
                time_s: GENESIS_TIME_S,
                extra: &[],
                mix_hash: B256::ZERO,
                nonce: [0; 8],
                base_fee_wei: network.has_base_fee(0).then_some(FIRST_BASE_FEE_WEI),
            },
            signers: signers.to_vec(),
        }
    }

    /// A block on top of another, signed by nobody yet.
    pub fn on(network: &Network, parent: &SignedHeader, difficulty: u64) -> Draft {
        let number = parent.number + 1;
        let mut draft = Draft::genesis(network, &[]);
        draft.header = Header {
            parent_hash: parent.hash,
            difficulty: U256::from(difficulty),
            number,
            gas_limit: parent.gas_limit,
            time_s: parent.time_s + network.period_s,
            // No gas is used: an eighth less than before.
            base_fee_wei: parent.base_fee_wei.map(|fee| fee - fee / 8),
            ..draft.header
        };
        draft
    }

    /// The header as sent, signed by `arbitrator`.
    pub fn sign(&self, arbitrator: &Arbitrator) -> Vec<u8> {
        let mut extra = self.extra();
        let header = Header { extra: &extra, ..self.header };
        let seal = arbitrator.sign(header.seal_hash().expect("the extra data has room for a seal"));
        let place = extra.len() - SEAL_LEN;
        extra[place..].copy_from_slice(&seal);
        encoded(&Header { extra: &extra, ..self.header })
    }

    /// The header as sent, with a seal of zeros.
    pub fn unsigned(&self) -> Vec<u8> {
        encoded(&Header { extra: &self.extra(), ..self.header })
    }

    fn extra(&self) -> Vec<u8> {
        let signers: Vec<u8> = self.signers.iter().flat_map(|signer| signer.0.0).collect();
        [&[0; VANITY_LEN][..], &signers, &[0; SEAL_LEN]].concat()
    }
}

pub fn encoded(header: &Header<'_>) -> Vec<u8> {
    let mut out = vec![];
    header.encode(&mut out);
    out
}

/// A chain of a genesis block that lists these signers, and that block's bytes.
pub fn begin(network: Network, signers: &[Address]) -> HeaderChain {
    begin_with(network, &Draft::genesis(&network, signers), WINDOW_BLOCKS)
}

pub fn begin_with(network: Network, genesis: &Draft, window: u64) -> HeaderChain {
    let bytes = genesis.unsigned();
    let header = Header::decode(&bytes).expect("a header");
    let checkpoint = Checkpoint {
        number: 0,
        hash: header.hash(),
        time_s: header.time_s,
        signers: genesis.signers.clone(),
    };
    HeaderChain::from_checkpoint(network, &checkpoint, &bytes, window, 5).expect("a checkpoint")
}

/// The bytes of `count` blocks on top of `parent`, each by who is in turn.
pub fn in_turn(
    network: &Network,
    arbitrators: &[Arbitrator],
    parent: &SignedHeader,
    count: usize,
) -> Vec<Vec<u8>> {
    let mut parent = parent.clone();
    (0..count)
        .map(|_| {
            let mut draft = Draft::on(network, &parent, 2);
            let number = draft.header.number;
            if network.is_epoch(number) {
                draft.signers = addresses(arbitrators);
            }
            let bytes = draft.sign(&arbitrators[number as usize % arbitrators.len()]);
            parent = SignedHeader::read(network, &bytes).expect("the header holds by itself");
            bytes
        })
        .collect()
}
