//! What following the public chain costs: a header read and weighed by itself, headers linked as rust-bitcoin links
//! Bitcoin's, and headers taken into a tree, with their proofs and without.

use std::hint::black_box;

use bitcoin::hashes::Hash as _;

use chain_lite::pow::{Accepted, BlockHeader, Header, HeaderChain, Mode, Network, Target, Work};
use chain_lite::{Hash, sha256d};

/// Hashes from the coinbase to the Merkle root of a Bitcoin block of about 4,000 transactions.
const COINBASE_BRANCH_LEN: u8 = 12;

/// Hashes from a block to the root of the chains that a large pool mines at once.
const AUX_BRANCH_LEN: u8 = 4;

/// The 84 bytes of a header of the main network.
pub fn block_header() -> [u8; 84] {
    BlockHeader { bits: Network::MAIN.first_bits, ..genesis() }.to_bytes()
}

/// From bytes to hash and work, as of a header whose proof was checked before.
pub fn block_header_work(bytes: &[u8; 84]) -> (Hash, Work) {
    let block = BlockHeader::from_bytes(bytes);
    let target = Target::from_bits(block.bits).expect("the bits are a target");
    (block.hash(), target.work())
}

/// The headers of a chain on [`genesis`], as they are sent.
pub fn headers(count: usize) -> Vec<Vec<u8>> {
    let mut before = genesis();
    (0..count)
        .map(|_| {
            before = BlockHeader {
                previous: before.hash(),
                time_s: before.time_s + 120,
                bits: Network::REG.first_bits,
                height: before.height + 1,
                ..before
            };
            mine(&before)
        })
        .collect()
}

/// Takes the headers into a tree: from bytes to a tip, with every rule.
pub fn headers_work(headers: &Vec<Vec<u8>>) -> Work {
    let mut chain =
        HeaderChain::new(Network::REG, Mode::Strict, genesis(), vec![], 1).expect("a genesis block");
    for encoded in headers {
        let header = Header::decode(black_box(encoded)).expect("the header is well-formed");
        assert_eq!(chain.accept(&header, super::NOW_S), Ok(Accepted::Extended));
    }
    chain.work()
}

/// The 84 bytes of the headers of a main network on [`genesis`], with its retargets, without proofs.
pub fn block_headers(count: usize) -> Vec<[u8; 84]> {
    let network = Network::MAIN;
    let mut blocks = vec![genesis()];
    for height in 1..=count {
        let before = blocks[height - 1];
        let bits = match u32::try_from(height).expect("a height has 32 bits") {
            1 => network.first_bits,
            height if network.retargets_at(height) => {
                let first = blocks[(height - network.retarget_blocks) as usize];
                network.retarget(before.bits, first.time_s, before.time_s)
            }
            _ => before.bits,
        };
        let (previous, time_s, height) = (before.hash(), before.time_s + 120, before.height + 1);
        blocks.push(BlockHeader { previous, time_s, bits, height, ..before });
    }
    blocks[1..].iter().map(BlockHeader::to_bytes).collect()
}

/// Reads, links, hashes and weighs headers: what [`bitcoin_headers_work`] does.
pub fn linked_headers_work(headers: &[[u8; 84]]) -> Work {
    let mut previous = genesis().hash();
    headers.iter().fold(Work::ZERO, |sum, bytes| {
        let block = BlockHeader::from_bytes(black_box(bytes));
        assert_eq!(block.previous, previous, "the headers follow each other");
        previous = block.hash();
        sum.plus(Target::from_bits(block.bits).expect("the bits are a target").work())
    })
}

/// Takes stored headers into a tree: reads and links them, and asks every rule but the proof.
pub fn restored_headers_work(headers: &[[u8; 84]]) -> Work {
    let mut chain =
        HeaderChain::new(Network::MAIN, Mode::Strict, genesis(), vec![], 1).expect("a genesis block");
    let blocks = headers.iter().map(|bytes| BlockHeader::from_bytes(black_box(bytes)));
    chain.restore(blocks).expect("the headers hold");
    chain.work()
}

/// Bitcoin's headers at heights 1 to 1,111, which the tests of `chain-lite` have too.
pub fn bitcoin_headers() -> Vec<[u8; 80]> {
    let bytes = include_bytes!("../../chain-lite/tests/vectors/bitcoin_headers_1_to_1111.bin");
    bytes.as_chunks().0.to_vec()
}

/// Reads, links, hashes and weighs headers with rust-bitcoin.
pub fn bitcoin_headers_work(headers: &[[u8; 80]]) -> bitcoin::Work {
    let none = bitcoin::Work::from_le_bytes([0; 32]);
    let mut previous = bitcoin::BlockHash::from_slice(&headers[0][4..36]).expect("a hash has 32 bytes");
    headers.iter().fold(none, |sum, bytes| {
        let header: bitcoin::block::Header =
            bitcoin::consensus::deserialize(black_box(bytes)).expect("80 bytes are a header");
        assert_eq!(header.prev_blockhash, previous, "the headers follow each other");
        previous = header.block_hash();
        sum + header.work()
    })
}

fn genesis() -> BlockHeader {
    BlockHeader {
        version: 0,
        previous: Hash::ZERO,
        merkle_root: Hash([7; 32]),
        time_s: Network::REG.genesis_time_s,
        bits: Network::REG.genesis_bits,
        nonce: 0,
        height: 0,
    }
}

/// A whole header of `block` whose parent is one of a large pool.
fn mine(block: &BlockHeader) -> Vec<u8> {
    let slot = slot(Network::REG.chain_id) % (1 << AUX_BRANCH_LEN);
    let root = climb(block.hash().reversed(), AUX_BRANCH_LEN, slot).reversed();
    let script = [
        b"\x03\x10\x27\x08/pool/\xfa\xbemm",
        &root.0[..],
        &[1 << AUX_BRANCH_LEN, 0, 0, 0],
        &[0; 4],
        &[0; 24],
    ]
    .concat();
    let script_len = u8::try_from(script.len()).expect("it is short");
    let coinbase = [&[1, 0, 0, 0, 1], &[0; 32][..], &[0xff; 4], &[script_len], &script, &[0xff; 4]].concat();
    let outputs = [&[2][..], &[9; 8], &[25], &[0x51; 25], &[0; 8], &[38], &[0x6a; 38], &[0; 4]].concat();
    let coinbase = [coinbase, outputs].concat();
    let merkle_root = climb(sha256d(&coinbase), COINBASE_BRANCH_LEN, 0);
    let mut parent = [0; 80];
    parent[3] = 0x20;
    parent[36..68].copy_from_slice(&merkle_root.0);
    let target = Target::from_bits(block.bits).expect("the bits are a target");
    while !target.is_met_by(&sha256d(&parent)) {
        parent[76] += 1;
    }
    let mut out = block.to_bytes().to_vec();
    out.extend(coinbase);
    out.extend([0; 32]);
    for (len, index) in [(COINBASE_BRANCH_LEN, 0), (AUX_BRANCH_LEN, slot)] {
        out.push(len);
        out.extend((0..len).flat_map(|step| [step; 32]));
        out.extend(index.to_le_bytes());
    }
    out.extend(parent);
    out.push(1);
    out
}

fn climb(leaf: Hash, len: u8, index: u32) -> Hash {
    let branch: Vec<_> = (0..len).map(|step| [step; 32]).collect();
    chain_lite::pow::merkle::root(leaf, &branch, index)
}

/// Namecoin's slot of a chain, with nonce 0.
fn slot(chain_id: u32) -> u32 {
    let step = |seed: u32| seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
    step(step(0).wrapping_add(chain_id))
}
