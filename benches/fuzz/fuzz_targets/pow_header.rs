//! A header of the public chain from somebody unknown: reading, writing back, and the proof of work in both
//! modes.
#![no_main]

use chain_lite::Hash;
use chain_lite::pow::{Accepted, BlockHeader, Header, HeaderChain, Mode, Network};
use libfuzzer_sys::fuzz_target;

/// Chain id of the seeds that are real blocks.
const RECORDED_CHAIN_ID: u32 = 6;

const GENESIS: BlockHeader = BlockHeader {
    version: 0,
    previous: Hash::ZERO,
    merkle_root: Hash([7; 32]),
    time_s: Network::REG.genesis_time_s,
    bits: Network::REG.genesis_bits,
    nonce: 2_083_236_893,
    height: 0,
};

fuzz_target!(|data: &[u8]| {
    let Ok((header, len)) = Header::decode_front(data) else { return };
    let mut written = Vec::new();
    header.encode(&mut written);
    assert_eq!(written, data[..len]);
    for chain_id in [RECORDED_CHAIN_ID, Network::MAIN.chain_id] {
        let strict = header.check_proof(chain_id, Mode::Strict);
        let deployed = header.check_proof(chain_id, Mode::Deployed);
        assert!(strict.is_err() || strict == deployed);
    }
    place(&header);
});

/// In a tree of its own, on a genesis block that one of the seeds is mined on: it is kept only if everything
/// holds.
fn place(header: &Header<'_>) {
    let mut chain =
        HeaderChain::new(Network::REG, Mode::Strict, GENESIS, vec![], 0).expect("a genesis block");
    let accepted = chain.accept(header, u64::from(GENESIS.time_s));
    assert_eq!(accepted.is_ok(), chain.len() == 2);
    match accepted {
        Ok(_) => assert_eq!(chain.accept(header, 0), Ok(Accepted::Known)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
