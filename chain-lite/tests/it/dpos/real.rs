//! Real headers of Goerli and Rinkeby.

use alloy_primitives::{Address, B256, Bloom, U256, address};
use chain_lite::dpos::{
    Accepted, Checkpoint, EMPTY_UNCLES_HASH, Header, HeaderChain, Network, SignedHeader, WINDOW_BLOCKS,
    signer,
};
use serde_json::Value;

use crate::dpos::signing::encoded;
use crate::{bytes, vectors};

/// Goerli and Rinkeby: a block every 15 seconds, no base fee in these blocks.
pub const GOERLI: Network = Network {
    chain_id: 5,
    period_s: 15,
    epoch_blocks: 30_000,
    london_block: Some(5_062_605),
    future_s_max: 0,
};
pub const RINKEBY: Network = Network { chain_id: 4, london_block: Some(8_897_988), ..GOERLI };

const GOERLI_SIGNER: Address = address!("0xe0a2bd4258d2768837baa26a28fe71dc079f84c7");

/// The headers of a list as sent, each with the hash that it is known by.
pub fn headers(list: &str) -> Vec<(Vec<u8>, Option<B256>)> {
    let file = vectors(include_str!("../../vectors/clique.json"));
    let list = file[list].as_array().expect("a list of headers");
    list.iter().map(|entry| (header(entry), entry.get("hash").map(hash))).collect()
}

fn header(entry: &Value) -> Vec<u8> {
    let number = |name: &str| entry[name].as_u64().expect("a number");
    let empty_root = chain_lite::dpos::ordered_root::<Vec<u8>>(&[]);
    encoded(&Header {
        parent_hash: hash(&entry["parent_hash"]),
        uncles_hash: EMPTY_UNCLES_HASH,
        coinbase: Address::from_slice(&prefixed(&entry["coinbase"])),
        state_root: hash(&entry["state_root"]),
        transactions_root: empty_root,
        receipts_root: empty_root,
        logs_bloom: &Bloom::ZERO,
        difficulty: U256::from(number("difficulty")),
        number: number("number"),
        gas_limit: number("gas_limit"),
        gas_used: 0,
        time_s: number("time_s"),
        extra: &prefixed(&entry["extra"]),
        mix_hash: B256::ZERO,
        nonce: prefixed(&entry["nonce"]).try_into().expect("eight bytes"),
        base_fee_wei: None,
    })
}

fn hash(value: &Value) -> B256 {
    B256::from_slice(&prefixed(value))
}

/// The bytes of a hexadecimal text with 0x in front.
pub fn prefixed(value: &Value) -> Vec<u8> {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x")).expect("a text that begins with 0x");
    bytes(&Value::from(text))
}

#[test]
fn the_hashes_are_those_that_the_networks_know() {
    for (bytes, known) in ["goerli", "rinkeby"].into_iter().flat_map(headers) {
        let header = Header::decode(&bytes).expect("a real header");
        if let Some(known) = known {
            assert_eq!(header.hash(), known, "block {}", header.number);
        }
    }
}

#[test]
fn the_first_blocks_follow_from_their_genesis_blocks() {
    for (network, list) in [(GOERLI, "goerli"), (RINKEBY, "rinkeby")] {
        let headers = headers(list);
        let mut chain = begin(network, &headers[0].0);
        for (bytes, known) in &headers[1..] {
            let header = SignedHeader::read(&network, bytes).expect("a real header");
            assert!(known.is_none_or(|known| known == header.hash));
            let (time_s, hash) = (header.time_s, header.hash);
            assert_eq!(chain.accept(header, time_s, &mut vec![]), Ok(Accepted::Extended));
            assert_eq!(chain.in_turn(&hash), Some(chain.tip().signer), "these signers kept their turns");
        }
        assert_eq!(chain.tip().number as usize, headers.len() - 1);
    }
}

#[test]
fn the_signers_of_goerlis_votes_are_known() {
    // As in py-evm's tests: this signer made them.
    let votes = headers("goerli_votes");
    let vote = Header::decode(&votes[1].0).expect("a real header");
    assert_eq!(signer(&vote), Some(GOERLI_SIGNER));
    let read = SignedHeader::read(&GOERLI, &votes[0].0).expect("a real header");
    assert!(read.authorise);
    assert_eq!(read.coinbase, address!("0x000000568b9b5a365eaa767d42e74ed88915c204"));
}

/// A chain on a real genesis block.
pub fn begin(network: Network, genesis: &[u8]) -> HeaderChain {
    let header = Header::decode(genesis).expect("a real header");
    let (signers, _) = header.extra[32..header.extra.len() - 65].as_chunks::<20>();
    let checkpoint = Checkpoint {
        number: 0,
        hash: header.hash(),
        time_s: header.time_s,
        signers: signers.iter().copied().map(Address::new).collect(),
    };
    HeaderChain::from_checkpoint(network, &checkpoint, genesis, WINDOW_BLOCKS, 1).expect("a checkpoint")
}
