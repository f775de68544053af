//! What following the consortium chain costs: headers with their signers recovered, beside the recovery alone, and
//! storage proofs of eight nodes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::thread;

use alloy_primitives::{Address, B256, Bloom, U256, keccak256};
use alloy_trie::proof::ProofRetainer;
use alloy_trie::{HashBuilder, Nibbles};
use chain_lite::dpos::{
    ARBITRATORS, Accepted, Checkpoint, EMPTY_UNCLES_HASH, FIRST_BASE_FEE_WEI, Header, HeaderChain, Network,
    SEAL_LEN, Settled, SignedHeader, VANITY_LEN, verify_storage,
};
use control_plane::chain::headers::{DposRecord, SignerTable};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};

const NETWORK: Network = Network::consortium(1);

/// Seconds since 1970 of the genesis block.
const GENESIS_TIME_S: u64 = 1_700_000_000;

/// Nodes of the storage proofs that are measured.
const PROOF_NODES: usize = 8;

/// A chain on a genesis block with 51 signers: what to begin with, and headers as they are sent.
pub struct Chain {
    checkpoint: Checkpoint,
    genesis: Vec<u8>,
    headers: Vec<Vec<u8>>,
}

/// Blocks in turn on a genesis block, signed.
pub fn chain(count: usize) -> Chain {
    let mut keys: Vec<_> = (1..=ARBITRATORS as u8)
        .map(|number| {
            let key = SecretKey::from_secret_bytes([number; 32]).expect("the number is a key");
            let public = PublicKey::from_secret_key(&key).serialize_uncompressed();
            (Address::from_raw_public_key(&public[1..]), key)
        })
        .collect();
    keys.sort_unstable_by_key(|(address, _)| *address);
    let signers: Vec<_> = keys.iter().map(|(address, _)| *address).collect();
    let bloom = Bloom::ZERO;
    let extra = |signers: &[Address], seal: &[u8]| {
        [&[0; VANITY_LEN], signers.iter().flat_map(|one| one.0.0).collect::<Vec<_>>().as_slice(), seal]
            .concat()
    };
    let mut header = Header {
        parent_hash: B256::ZERO,
        uncles_hash: EMPTY_UNCLES_HASH,
        coinbase: Address::ZERO,
        state_root: B256::repeat_byte(1),
        transactions_root: B256::repeat_byte(2),
        receipts_root: B256::repeat_byte(3),
        logs_bloom: &bloom,
        difficulty: U256::from(2),
        number: 0,
        gas_limit: 8_000_000,
        gas_used: 4_000_000,
        time_s: GENESIS_TIME_S,
        extra: &[],
        mix_hash: B256::ZERO,
        nonce: [0; 8],
        base_fee_wei: Some(FIRST_BASE_FEE_WEI),
    };
    let genesis_extra = extra(&signers, &[0; SEAL_LEN]);
    let first = Header { extra: &genesis_extra, ..header };
    let checkpoint = Checkpoint { number: 0, hash: first.hash(), time_s: first.time_s, signers };
    let mut genesis = vec![];
    first.encode(&mut genesis);
    header.parent_hash = checkpoint.hash;
    let headers = (1..=count as u64)
        .map(|number| {
            header.number = number;
            header.time_s += NETWORK.period_s;
            let unsigned = extra(&[], &[0; SEAL_LEN]);
            let digest = Header { extra: &unsigned, ..header }.seal_hash().expect("there is room for a seal");
            let key = &keys[number as usize % ARBITRATORS].1;
            let seal = extra(&[], &sign(digest, key));
            let sealed = Header { extra: &seal, ..header };
            let mut encoded = vec![];
            sealed.encode(&mut encoded);
            header.parent_hash = sealed.hash();
            encoded
        })
        .collect();
    Chain { checkpoint, genesis, headers }
}

fn sign(digest: B256, key: &SecretKey) -> [u8; SEAL_LEN] {
    let signature = RecoverableSignature::sign_ecdsa_recoverable(Message::from_digest(digest.0), key);
    let (id, compact) = signature.serialize_compact();
    let mut seal = [0; SEAL_LEN];
    seal[..64].copy_from_slice(&compact);
    seal[64] = id.to_u8();
    seal
}

/// From bytes to a tip, with every rule.
pub fn chain_work(chain: &Chain) -> u64 {
    let mut tree = HeaderChain::from_checkpoint(NETWORK, &chain.checkpoint, &chain.genesis, 1_024, 1)
        .expect("the checkpoint fits");
    let mut settled = vec![];
    for batch in chain.headers.chunks(BATCH_HEADERS) {
        for header in SignedHeader::read_all(&NETWORK, black_box(batch)).expect("the headers hold") {
            let accepted = tree.accept(header, u64::MAX / 2, &mut settled);
            assert_eq!(accepted, Ok(Accepted::Extended));
        }
        settled.clear();
    }
    tree.tip().number
}

/// Headers that a node takes in at once.
const BATCH_HEADERS: usize = 256;

/// From bytes to a tip, with every rule, as a node that follows the chain does: of each batch two threads read one
/// half each, then one thread places all of it, and makes the records of what is settled.
pub fn two_threads_work(chain: &Chain) -> Vec<DposRecord> {
    // A window as small as a batch, so that there are records of short chains too.
    let mut tree = HeaderChain::from_checkpoint(NETWORK, &chain.checkpoint, &chain.genesis, 256, 1)
        .expect("the checkpoint fits");
    let read = |part| SignedHeader::read_all(&NETWORK, part).expect("the headers hold");
    let (mut settled, mut table, mut records) = (vec![], SignerTable::default(), vec![]);
    for batch in chain.headers.chunks(BATCH_HEADERS) {
        let (ahead, behind) = batch.split_at(batch.len() / 2);
        let (ahead, behind) = thread::scope(|scope| {
            let behind = scope.spawn(|| read(behind));
            (read(ahead), behind.join().expect("the headers hold"))
        });
        for header in ahead.into_iter().chain(behind) {
            let accepted = tree.accept(header, u64::MAX / 2, &mut settled);
            assert_eq!(accepted, Ok(Accepted::Extended));
        }
        records.extend(settled.drain(..).map(|Settled { header, in_turn }| {
            DposRecord::of(&header, in_turn, &mut table).expect("there are few signers")
        }));
    }
    records
}

/// The part of a header that needs no other: one thread's share.
pub fn read_work(chain: &Chain) -> usize {
    let headers = SignedHeader::read_all(&NETWORK, black_box(&chain.headers)).expect("the headers hold");
    headers.iter().filter(|header| header.difficulty == 2).count()
}

/// The same headers read before.
pub fn read(chain: Chain) -> (Chain, Vec<SignedHeader>) {
    let headers = SignedHeader::read_all(&NETWORK, &chain.headers).expect("the headers hold");
    (chain, headers)
}

/// The part of a header that follows the one before: serial.
pub fn place_work((chain, headers): &(Chain, Vec<SignedHeader>)) -> u64 {
    let mut tree = HeaderChain::from_checkpoint(NETWORK, &chain.checkpoint, &chain.genesis, 1_024, 1)
        .expect("the checkpoint fits");
    let mut settled = vec![];
    for header in headers {
        let accepted = tree.accept(header.clone(), u64::MAX / 2, &mut settled);
        assert_eq!(accepted, Ok(Accepted::Extended));
        settled.clear();
    }
    tree.tip().number
}

/// Digests and signatures: what is recovered of the headers of a chain.
pub fn signatures(count: usize) -> Vec<(B256, [u8; SEAL_LEN])> {
    let signature = |encoded: &Vec<u8>| {
        let header = Header::decode(encoded).expect("the header is well-formed");
        let digest = header.seal_hash().expect("it has a seal");
        (digest, *header.extra.last_chunk().expect("it has a seal"))
    };
    chain(count).headers.iter().map(signature).collect()
}

/// Bare ecrecover with libsecp256k1, as the judge of [`chain_work`]: from digest and signature to a key.
pub fn ecrecover_work(signatures: &Vec<(B256, [u8; SEAL_LEN])>) -> usize {
    let recover = |(digest, seal): &(B256, [u8; SEAL_LEN])| {
        let id = RecoveryId::try_from(i32::from(seal[64])).expect("an id");
        let signature = RecoverableSignature::from_compact(&seal[..64], id).expect("a signature");
        signature.recover_ecdsa(Message::from_digest(digest.0)).expect("a key")
    };
    for signature in signatures {
        black_box(recover(signature));
    }
    signatures.len()
}

/// A storage root, a slot, and the eight nodes that lead to it.
pub struct StorageProof {
    root: B256,
    slot: B256,
    nodes: Vec<Vec<u8>>,
}

/// A slot whose path has seven full branches and a leaf, as in a storage of many millions of slots: each branch has
/// 16 children, of which all but the slot's way are neighbours that only their first bytes tell apart.
pub fn storage_proof() -> StorageProof {
    let slot = B256::repeat_byte(5);
    let path = keccak256(slot);
    let nibbles = Nibbles::unpack(path);
    let mut leaves = BTreeMap::from([(path, U256::from(7))]);
    for depth in 0..PROOF_NODES - 1 {
        for nibble in 0..16 {
            let mut key = path;
            let byte = &mut key.0[depth / 2];
            *byte = if depth % 2 == 0 { nibble << 4 | *byte & 0x0f } else { *byte & 0xf0 | nibble };
            if nibbles.get(depth) != Some(nibble) {
                leaves.insert(key, U256::from(1_u64 << 40 | u64::from(nibble)));
            }
        }
    }
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![nibbles]));
    for (key, value) in &leaves {
        builder.add_leaf(Nibbles::unpack(key), &alloy_rlp::encode(value));
    }
    let root = builder.root();
    let nodes = builder.take_proof_nodes().into_nodes_sorted();
    let nodes: Vec<_> = nodes.into_iter().map(|(_, node)| node.to_vec()).collect();
    assert_eq!(nodes.len(), PROOF_NODES);
    assert!(nodes[..PROOF_NODES - 1].iter().all(|node| node.len() > 500), "the branches are full");
    StorageProof { root, slot, nodes }
}

/// From nodes to the number in the slot.
pub fn storage_proof_work(proof: &StorageProof) -> U256 {
    verify_storage(&proof.root, &proof.slot, &proof.nodes).expect("the proof is right")
}

/// The same by alloy, which is given the number to expect.
pub fn alloy_proof_work(proof: &(StorageProof, Vec<alloy_primitives::Bytes>)) -> bool {
    let (proof, nodes) = proof;
    let key = Nibbles::unpack(keccak256(proof.slot));
    let expected = alloy_rlp::encode(U256::from(7));
    alloy_trie::proof::verify_proof(proof.root, key, Some(expected), nodes).is_ok()
}

/// The proof as alloy takes it.
pub fn alloy_proof() -> (StorageProof, Vec<alloy_primitives::Bytes>) {
    let proof = storage_proof();
    let nodes = proof.nodes.iter().cloned().map(alloy_primitives::Bytes::from).collect();
    (proof, nodes)
}
