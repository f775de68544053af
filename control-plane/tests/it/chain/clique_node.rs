//! A real node that mines a Clique chain: npm `@ethereumjs/client`.

use alloy_primitives::{Address, B256, keccak256};
use control_plane::configuration::chain::EndpointUrl;
use secp256k1::ecdsa::RecoverableSignature;
use secp256k1::{Message, PublicKey, SecretKey};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The chain's number.
pub const CHAIN_ID: u64 = 1224;

/// How long a node may take until it answers, and a block until it is there; a busy machine takes half a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// Gas price of the test's transactions: above any base fee of so empty a chain.
const GAS_PRICE_WEI: u64 = 20_000_000_000;

/// A running node, the only signer of its chain.
pub struct CliqueNode {
    process: Child,
    port: u16,
    key: SecretKey,
    nonce: u64,
}

impl CliqueNode {
    /// Starts a node that mines a block every second. What it needs is installed by `.ci/setup test`.
    pub fn start(directory: &Path) -> CliqueNode {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = tests.join("../target/clique-node/node_modules").canonicalize().unwrap_or_default();
        let program = modules.join("@ethereumjs/client/dist/esm/bin/cli.js");
        assert!(program.exists(), "{} is missing; run: .ci/setup test", program.display());
        let key = SecretKey::from_secret_bytes(keccak256("arbitrator").0).unwrap();
        let write = |name: &str, content: &str| -> PathBuf {
            let path = directory.join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let genesis = write("genesis.json", &genesis(&address(&key)).to_string());
        let secret = write("key", &alloy_primitives::hex::encode(key.to_secret_bytes()));
        let [port, peers] = free_ports();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let process = Command::new("node")
            .arg("--import")
            .arg(tests.join("tests/clients/clique_transactions.mjs"))
            .env("NODE_MODULES", modules)
            .arg(program)
            .arg(format!("--gethGenesis={}", genesis.display()))
            .arg(format!("--unlock={}", secret.display()))
            .arg(format!("--dataDir={}", directory.join("data").display()))
            .args(["--mine", "--rpc", "--rpcAddr=127.0.0.1", "--extIP=127.0.0.1", "--isSingleNode=true"])
            .args(["--discDns=false", "--discV4=false", "--minPeers=0", "--saveReceipts=true"])
            .arg(format!("--rpcPort={port}"))
            .arg(format!("--port={peers}"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("node is installed by .ci/setup test");
        let node = CliqueNode { process, port, key, nonce: 0 };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "the node's log: {}", log_of(directory));
            std::thread::sleep(Duration::from_millis(50));
        }
        node.wait_for_block(2);
        node
    }

    pub fn url(&self) -> EndpointUrl {
        format!("http://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// The only arbitrator, who owns all there is.
    pub fn arbitrator(&self) -> Address {
        address(&self.key)
    }

    /// The result of a request, as the node gives it.
    pub fn ask(&self, method: &str, params: &Value) -> Value {
        forward(self.port, method, params)["result"].clone()
    }

    pub fn block_number(&self) -> u64 {
        let answer = self.ask("eth_blockNumber", &json!([]));
        u64::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    pub fn wait_for_block(&self, number: u64) {
        let started = Instant::now();
        while self.block_number() < number {
            assert!(started.elapsed() < PATIENCE, "no block {number}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a transaction of the arbitrator, to a contract or to make one, and waits until it is in a block.
    pub fn send(&mut self, to: Option<Address>, data: &[u8]) -> Value {
        let signed = self.sign(to, data);
        let sent = forward(
            self.port,
            "eth_sendRawTransaction",
            &json!([alloy_primitives::hex::encode_prefixed(&signed)]),
        );
        let hash = sent["result"].clone();
        assert!(hash.is_string(), "{sent}");
        self.nonce += 1;
        let started = Instant::now();
        loop {
            let receipt = self.ask("eth_getTransactionReceipt", &json!([hash]));
            if !receipt.is_null() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return receipt;
            }
            assert!(started.elapsed() < PATIENCE, "transaction {hash} is in no block");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A transaction from before there were types, signed for this chain (EIP-155).
    fn sign(&self, to: Option<Address>, data: &[u8]) -> Vec<u8> {
        let to = to.map_or_else(Vec::new, |to| to.to_vec());
        let fields = |v: u64, [r, s]: [&[u8]; 2]| {
            let mut payload = Vec::new();
            use alloy_rlp::Encodable;
            self.nonce.encode(&mut payload);
            GAS_PRICE_WEI.encode(&mut payload);
            6_000_000_u64.encode(&mut payload);
            to.as_slice().encode(&mut payload);
            0_u64.encode(&mut payload);
            data.encode(&mut payload);
            v.encode(&mut payload);
            // Numbers, which have no zeros in front.
            for number in [r, s] {
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                number[zeros..].encode(&mut payload);
            }
            let mut out = Vec::new();
            alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
            out.extend_from_slice(&payload);
            out
        };
        let digest = keccak256(fields(CHAIN_ID, [&[], &[]]));
        let message = Message::from_digest(digest.0);
        let (id, signature) =
            RecoverableSignature::sign_ecdsa_recoverable(message, &self.key).serialize_compact();
        let (r, s) = signature.split_at(32);
        fields(35 + 2 * CHAIN_ID + u64::from(id.to_u8()), [r, s])
    }
}

impl Drop for CliqueNode {
    fn drop(&mut self) {
        // It is killed in a test that may have failed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks the node at a port over plain HTTP/1.1, by hand: proxies of the tests pass answers on as they are.
pub fn forward(port: u16, method: &str, params: &Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        stream,
        "POST / HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").expect("an HTTP answer").1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn genesis(signer: &Address) -> Value {
    let extra = [&[0; 32][..], &signer[..], &[0; 65]].concat();
    let zero = B256::ZERO.to_string();
    let mut config = json!({ "chainId": CHAIN_ID, "clique": { "period": 1, "epoch": 30_000 } });
    for fork in [
        "homestead",
        "eip150",
        "eip155",
        "eip158",
        "byzantium",
        "constantinople",
        "petersburg",
        "istanbul",
        "berlin",
        "london",
    ] {
        config[format!("{fork}Block")] = json!(0);
    }
    json!({
        "config": config,
        "nonce": "0x0",
        "timestamp": "0x65000000",
        "extraData": alloy_primitives::hex::encode_prefixed(extra),
        "gasLimit": "0x1c9c380",
        "baseFeePerGas": "0x3b9aca00",
        "difficulty": "0x1",
        "mixHash": zero,
        "coinbase": Address::ZERO.to_string(),
        "alloc": { alloy_primitives::hex::encode(signer): { "balance": "0x56bc75e2d63100000" } },
        "number": "0x0",
        "gasUsed": "0x0",
        "parentHash": zero,
    })
}

fn address(key: &SecretKey) -> Address {
    Address::from_raw_public_key(&PublicKey::from_secret_key(key).serialize_uncompressed()[1..])
}

/// Two ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn log_of(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("log")).unwrap_or_default()
}
