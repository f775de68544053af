//! What a server of the consortium chain sends: headers, against alloy's reading of them; certificates, receipts,
//! the nodes of proofs, and one's own state.
#![no_main]

use alloy_consensus::Header as AlloyHeader;
use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::Decodable;
use chain_lite::dpos::{
    Certificate, DecodeError, Header, HeaderChain, Network, Receipt, SignedHeader, signer,
    verify_account, verify_storage, verify_trie,
};
use libfuzzer_sys::fuzz_target;

const NETWORK: Network = Network::consortium(1_224);

fuzz_target!(|data: &[u8]| {
    header(data);
    certificate(data);
    receipt(data);
    proof(data);
    stored(data);
});

fn header(data: &[u8]) {
    let mut rest = data;
    let alloy = AlloyHeader::decode(&mut rest).ok().filter(|_| rest.is_empty());
    match (Header::decode(data), alloy) {
        (Ok(header), Some(alloy)) => {
            let fields = (
                (header.parent_hash, header.uncles_hash, header.coinbase, header.state_root),
                (header.transactions_root, header.receipts_root, *header.logs_bloom, header.difficulty),
                (header.number, header.gas_limit, header.gas_used, header.time_s),
                (header.extra, header.mix_hash, header.nonce, header.base_fee_wei),
            );
            let theirs = (
                (alloy.parent_hash, alloy.ommers_hash, alloy.beneficiary, alloy.state_root),
                (alloy.transactions_root, alloy.receipts_root, alloy.logs_bloom, alloy.difficulty),
                (alloy.number, alloy.gas_limit, alloy.gas_used, alloy.timestamp),
                (&alloy.extra_data[..], alloy.mix_hash, alloy.nonce.0, alloy.base_fee_per_gas),
            );
            assert_eq!(fields, theirs);
            assert_eq!(header.hash(), keccak256(data));
            assert_eq!(header.hash(), alloy.hash_slow());
        }
        (Err(_), None) => {}
        // Clique has no field behind the base fee.
        (Err(DecodeError::TooMany { max: 16, .. }), Some(alloy)) => assert!(alloy.withdrawals_root.is_some()),
        (Err(DecodeError::TooLong { .. }), Some(_)) => {}
        (ours, theirs) => panic!("{ours:?} here, {theirs:?} there"),
    }
    // What was signed is taken from the bytes here, and from the fields there.
    if let Ok(read) = SignedHeader::read(&NETWORK, data) {
        let header = Header::decode(data).expect("it was read");
        assert_eq!((read.hash, Some(read.signer)), (header.hash(), signer(&header)));
    }
}

fn certificate(data: &[u8]) {
    if let Ok(read) = Certificate::decode(data) {
        assert_eq!(read.encode().as_deref(), Ok(data));
        // Nobody's key is behind a zero address.
        assert!(read.verify(1, &vec![Address::ZERO; read.signers]).is_err());
    }
}

fn receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::decode(data) {
        let mut written = vec![];
        receipt.encode(&mut written);
        assert_eq!(written, data);
        receipt.computed_bloom();
    }
}

/// Nodes with two bytes of length in front. The first is its own root, and each node that follows stands where it
/// may be reached only if the one before names it.
fn proof(data: &[u8]) {
    let mut nodes = vec![];
    let mut rest = data;
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
        let (node, behind) = behind.split_at(len);
        nodes.push(node);
        rest = behind;
    }
    let Some(first) = nodes.first() else { return };
    let root = keccak256(first);
    let _ = verify_trie(&root, &data[..data.len().min(4)], &nodes);
    let _ = verify_storage(&root, &B256::ZERO, &nodes);
    let _ = verify_account(&root, &Address::ZERO, &nodes);
}

fn stored(data: &[u8]) {
    let _ = HeaderChain::resume(NETWORK, data, 8, 0);
}
