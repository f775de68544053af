//! A node of the public chain as far as a light client asks it, over blocks that the test has mined: honest, or lying
//! in whatever way a test wants.

use super::mining::{genesis, mine, next};
use super::rpc_server::{Answer, RpcServer};
use chain_lite::Hash;
use chain_lite::pow::{BlockHeader, Header, Network};
use control_plane::configuration::chain::EndpointUrl;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A real block whose transactions the mined blocks borrow.
const REAL_BLOCK: &str = include_str!("../../../../chain-lite/tests/vectors/pow_block_10000.json");

/// The easiest bits.
pub const BITS: u32 = 0x207f_ffff;

/// A block as it is sent, with its header.
#[derive(Clone)]
pub struct Mined {
    pub header: BlockHeader,
    pub bytes: Vec<u8>,
}

impl Mined {
    /// A block with the work that its bits ask for and without transactions: a header is all that is asked of it.
    pub fn new(header: BlockHeader) -> Mined {
        Mined { header, bytes: mine(&header) }
    }

    pub fn genesis(network: &Network) -> Mined {
        let header = genesis(network);
        // Nobody mined it: its proof of work is never looked at.
        Mined { header, bytes: super::mining::Proof::naming(header.hash()).header_of(&header) }
    }
}

/// Blocks on top of the last, each so many seconds after the one before.
pub fn grow(blocks: &mut Vec<Mined>, count: usize, after_s: u32, salt: u32) {
    for _ in 0..count {
        let before = blocks.last().expect("there is a genesis block").header;
        blocks.push(Mined::new(next(&before, after_s, BITS, salt)));
    }
}

/// A block with the transactions of a real one, and their hashes.
pub fn with_transactions(before: &BlockHeader) -> (Mined, Vec<Hash>) {
    let vector: Value = serde_json::from_str(REAL_BLOCK).unwrap();
    let real = alloy_primitives::hex::decode(vector["block_hex"].as_str().unwrap()).unwrap();
    let (header, len) = Header::decode_front(&real).unwrap();
    let hashes = chain_lite::pow::Block::decode(&real).unwrap().hashes();
    let block = BlockHeader { merkle_root: header.block.merkle_root, ..next(before, 120, BITS, 5) };
    let mut mined = Mined::new(block);
    mined.bytes.extend_from_slice(&real[len..]);
    (mined, hashes)
}

/// What a node says.
#[derive(Clone)]
pub struct Node {
    pub blocks: Arc<Mutex<Vec<Mined>>>,
    /// Transactions and the blocks that they are said to be in.
    pub transactions: Arc<Mutex<Vec<(Hash, Hash)>>>,
}

impl Node {
    pub fn new(blocks: Vec<Mined>) -> Node {
        Node { blocks: Arc::new(Mutex::new(blocks)), transactions: Arc::default() }
    }

    pub fn serve(&self) -> EndpointUrl {
        let node = self.clone();
        RpcServer::start(move |method, params| node.answer(method, params)).url()
    }

    fn answer(&self, method: &str, params: &Value) -> Answer {
        let blocks = self.blocks.lock().unwrap();
        match method {
            "getblockcount" => Answer::Result(json!(blocks.len())),
            "getblockhash" => match blocks.get(params[0].as_u64().unwrap() as usize) {
                Some(block) => Answer::Result(json!(block.header.hash().to_string())),
                None => Answer::Error(-32602, ""),
            },
            "getblock" => {
                assert_eq!(params[1], 0);
                let hash = params[0].as_str().unwrap();
                match blocks.iter().find(|block| block.header.hash().to_string() == hash) {
                    Some(block) => Answer::Result(json!(alloy_primitives::hex::encode(&block.bytes))),
                    None => Answer::Error(44003, ""),
                }
            }
            "getrawtransaction" => {
                let known = self.transactions.lock().unwrap();
                match known.iter().find(|(hash, _)| hash.to_string() == params[0].as_str().unwrap()) {
                    Some((_, block)) => Answer::Result(json!({ "blockhash": block.to_string() })),
                    None => Answer::Error(44001, "cannot find transaction in blockchain and transactionpool"),
                }
            }
            _ => Answer::Error(-32601, "method not found"),
        }
    }
}
