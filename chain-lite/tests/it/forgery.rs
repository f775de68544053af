//! Blocks that are made up from other people's work.

use chain_lite::pow::{BlockHeader, Header, Mode, Network, ProofError, Target};
use chain_lite::sha256d;

use crate::mining::{Proof, genesis, next};
use crate::{bytes, vectors};

/// What the original light clients check of a proof: that the parent's hash meets the block's bits.
fn original_light_client_accepts(header: &Header<'_>) -> bool {
    Target::from_bits(header.block.bits).is_ok_and(|target| target.is_met_by(&header.proof.parent.hash()))
}

#[test]
fn a_block_that_borrows_a_real_bitcoin_header_fails() {
    for parent in bitcoin_headers() {
        let mut proof = Proof::naming(forged().hash());
        proof.parent = parent;
        let encoded = proof.header_of(&forged());
        let header = Header::decode(&encoded).expect("well-formed");
        assert!(original_light_client_accepts(&header), "the attack would not work at all");
        for mode in [Mode::Strict, Mode::Deployed] {
            let expected = header.proof.parent.merkle_root();
            let computed = sha256d(&proof.coinbase);
            assert_eq!(
                header.check_proof(Network::MAIN.chain_id, mode),
                Err(ProofError::CoinbaseBranch { expected, computed })
            );
        }
    }
}

#[test]
fn a_block_that_borrows_the_coinbase_as_well_fails() {
    let vectors = vectors(include_str!("../vectors/bitcoin.json"));
    let mut proof = Proof::naming(forged().hash());
    proof.coinbase = bytes(&vectors["coinbase_1_hex"]);
    proof.parent = bitcoin_headers()[0];
    let encoded = proof.header_of(&forged());
    let header = Header::decode(&encoded).expect("well-formed");
    assert!(original_light_client_accepts(&header));
    for mode in [Mode::Strict, Mode::Deployed] {
        let error = header.check_proof(Network::MAIN.chain_id, mode);
        assert_eq!(error, Err(ProofError::MagicMissing { script_len: 7 }));
    }
}

#[test]
fn the_work_for_one_block_is_no_work_for_another() {
    let block = bytes(&vectors(include_str!("../vectors/pow_block_10000.json"))["block_hex"]);
    let (real, _) = Header::decode_front(&block).expect("a real block");
    let stolen = Header { block: BlockHeader { bits: real.block.bits, ..forged() }, ..real };
    assert!(original_light_client_accepts(&stolen));
    for mode in [Mode::Strict, Mode::Deployed] {
        let error = stolen.check_proof(6, mode);
        assert_eq!(error, Err(ProofError::RootMissing { expected: stolen.block.hash() }));
    }
}

#[test]
fn a_transaction_that_anybody_can_pay_for_is_no_coinbase() {
    // The second transaction of a block: its sender chose the script, and paid a fee instead of doing the
    // work.
    let block = BlockHeader { bits: Target::LIMIT.to_bits(), ..forged() };
    let mut proof = Proof::naming(block.hash());
    proof.coinbase_branch = vec![[3; 32]];
    proof.coinbase_index = 1;
    proof.seal();
    proof.work(Target::from_bits(block.bits).expect("a target"));
    let encoded = proof.header_of(&block);
    let header = Header::decode(&encoded).expect("well-formed");
    header.check_proof(Network::MAIN.chain_id, Mode::Deployed).expect("the deployed nodes do not look");
    assert_eq!(
        header.check_proof(Network::MAIN.chain_id, Mode::Strict),
        Err(ProofError::CoinbaseIndex { found: 1 })
    );
}

#[test]
fn a_coinbase_without_inputs_fails() {
    let mut proof = Proof::with_script(&[]);
    proof.coinbase = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    proof.seal();
    let encoded = proof.header_of(&forged());
    let header = Header::decode(&encoded).expect("well-formed");
    for mode in [Mode::Strict, Mode::Deployed] {
        assert_eq!(header.check_proof(Network::MAIN.chain_id, mode), Err(ProofError::NoInput));
    }
}

fn forged() -> BlockHeader {
    next(&genesis(&Network::MAIN), 120, Network::MAIN.first_bits, 0)
}

fn bitcoin_headers() -> Vec<[u8; 80]> {
    let vectors = vectors(include_str!("../vectors/bitcoin.json"));
    let headers: Vec<_> = vectors["headers_hex"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|header| bytes(header).try_into().expect("80 bytes"))
        .collect();
    assert_eq!(headers.len(), 12);
    headers
}
