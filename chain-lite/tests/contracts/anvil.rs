//! A chain of its own for each test, and what it says, checked against its roots.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use alloy_primitives::{Bloom, hex, keccak256};
use chain_lite::contracts::{Address, B256, U256};
use chain_lite::dpos::{Account, Log, Outcome, Receipt, ordered_root, verify_account, verify_storage};
use serde_json::{Value, json};

use crate::artefact::Artefact;
use crate::node;

/// The first day of the chains: their clock starts 100 seconds into it.
pub const FIRST_DAY: u32 = 20_000;
/// Seconds in a day.
pub const DAY_S: u64 = 86_400;

/// A running anvil with the rules of London, which is what a Clique chain runs.
pub struct Chain {
    process: Child,
    url: String,
    agent: ureq::Agent,
    /// Accounts that the node signs for.
    pub accounts: Vec<Address>,
}

/// A contract on the chain.
pub struct Deployed {
    pub address: Address,
    pub gas: u64,
    artefact: &'static Artefact,
}

/// A transaction that succeeded.
pub struct Sent {
    pub gas: u64,
    /// (topics, data) of its logs, which are in the block's receipts root.
    pub logs: Vec<(Vec<B256>, Vec<u8>)>,
}

/// What a contract refused with: the name of its error.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Shorthand for [`Refused`].
pub fn refused<T>(error: &str) -> Result<T, Refused> {
    Err(Refused(error.to_owned()))
}

impl Chain {
    pub fn start() -> Chain {
        let start = u64::from(FIRST_DAY) * DAY_S + 100;
        let mut process = Command::new(executable())
            .args(["--port", "0", "--host", "127.0.0.1", "--hardfork", "london"])
            .args(["--timestamp", &start.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let address = loop {
            let line = lines.next().expect("anvil says where it listens").expect("text");
            if let Some(address) = line.strip_prefix("Listening on ") {
                break address.to_owned();
            }
        };
        // It logs every request; a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let agent = ureq::Agent::new_with_defaults();
        let mut chain = Chain { process, url: format!("http://{address}"), agent, accounts: vec![] };
        let accounts = chain.rpc("eth_accounts", &json!([])).expect("accounts");
        chain.accounts = serde_strings(&accounts).map(|text| text.parse().expect("an address")).collect();
        chain
    }

    /// Asks the node; an error is the node's error object.
    pub fn rpc(&self, method: &str, params: &Value) -> Result<Value, Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let response = self.agent.post(&self.url).content_type("application/json").send(request.to_string());
        let body = response.expect("the node answers").body_mut().read_to_string().expect("text");
        let mut answer: Value = serde_json::from_str(&body).expect("JSON");
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Creates a contract. `arguments` are ABI-encoded.
    pub fn deploy(&self, from: Address, artefact: &'static Artefact, arguments: &[u8]) -> Deployed {
        let data = [&artefact.bytecode[..], arguments].concat();
        let transaction = json!({ "from": from.to_string(), "data": hex::encode_prefixed(data) });
        let receipt = self.mined(&transaction).expect("the transaction is mined");
        assert_eq!(receipt["status"], "0x1");
        let address = text(&receipt["contractAddress"]).parse().expect("an address");
        Deployed { address, gas: quantity(&receipt["gasUsed"]), artefact }
    }

    /// Sends a transaction to a contract. Its logs are checked against the block's receipts root.
    pub fn send(&self, from: Address, to: &Deployed, data: &[u8]) -> Result<Sent, Refused> {
        let transaction = json!({ "from": from.to_string(), "to": to.address.to_string(), "data": hex::encode_prefixed(data) });
        let receipt = self.mined(&transaction).expect("the transaction is mined");
        if receipt["status"] != "0x1" {
            // A failed transaction says nothing; the same call at the same block does.
            let call = self.rpc("eth_call", &json!([transaction, receipt["blockNumber"]]));
            return Err(to.refusal(&call.expect_err("it fails again")));
        }
        Ok(Sent { gas: quantity(&receipt["gasUsed"]), logs: self.verified_logs(&receipt, to.address) })
    }

    /// Calls a contract without a transaction.
    pub fn call(&self, to: &Deployed, data: &[u8]) -> Result<Vec<u8>, Refused> {
        let call = json!({ "to": to.address.to_string(), "data": hex::encode_prefixed(data) });
        let answer = self.rpc("eth_call", &json!([call, "latest"])).map_err(|error| to.refusal(&error))?;
        Ok(hex::decode(text(&answer)).expect("hexadecimal digits"))
    }

    /// Sets the time of the next block; blocks behind it follow the wall clock from there.
    pub fn set_time(&self, time_s: u64) {
        self.rpc("evm_setNextBlockTimestamp", &json!([time_s])).expect("a time ahead");
        self.rpc("evm_mine", &json!([])).expect("a block");
    }

    /// Time of the latest block, Unix seconds.
    pub fn time_s(&self) -> u64 {
        quantity(&self.rpc("eth_getBlockByNumber", &json!(["latest", false])).expect("a block")["timestamp"])
    }

    /// The account of a contract, verified against the latest block's state root.
    pub fn account(&self, contract: &Deployed) -> Account {
        self.proof(contract, &[]).0
    }

    /// Words of storage, verified against the latest block's state root.
    pub fn words<const N: usize>(&self, contract: &Deployed, slots: [B256; N]) -> [U256; N] {
        let (account, proofs) = self.proof(contract, &slots);
        std::array::from_fn(|index| {
            verify_storage(&account.storage_root, &slots[index], &proofs[index]).expect("the slot is proved")
        })
    }

    /// The verified account, and the proofs of its slots, which are not.
    pub fn proof(&self, contract: &Deployed, slots: &[B256]) -> (Account, Vec<Vec<Vec<u8>>>) {
        let block = self.rpc("eth_getBlockByNumber", &json!(["latest", false])).expect("a block");
        // The state root of anvil's block 0 is not that of its state.
        assert_ne!(quantity(&block["number"]), 0);
        let keys: Vec<_> = slots.iter().map(B256::to_string).collect();
        let params = json!([contract.address.to_string(), keys, block["number"]]);
        let proof = self.rpc("eth_getProof", &params).expect("a proof");
        let state_root = text(&block["stateRoot"]).parse().expect("a hash");
        let account = verify_account(&state_root, &contract.address, &nodes(&proof["accountProof"]));
        let account = account.expect("the account is proved").expect("the contract is there");
        let slots = proof["storageProof"].as_array().expect("proofs").iter();
        (account, slots.map(|slot| nodes(&slot["proof"])).collect())
    }

    /// Sends a transaction and waits for its receipt.
    fn mined(&self, transaction: &Value) -> Result<Value, Value> {
        let hash = self.rpc("eth_sendTransaction", &json!([transaction]))?;
        for _ in 0..1_000 {
            let receipt = self.rpc("eth_getTransactionReceipt", &json!([hash])).expect("an answer");
            if !receipt.is_null() {
                return Ok(receipt);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("transaction {hash} is not mined");
    }

    /// The logs of a receipt, if it is the only one of its block and that block's receipts root holds it.
    fn verified_logs(&self, receipt: &Value, contract: Address) -> Vec<(Vec<B256>, Vec<u8>)> {
        let logs = receipt["logs"].as_array().expect("logs").iter().map(|log| {
            assert_eq!(text(&log["address"]).parse(), Ok(contract));
            let topics = serde_strings(&log["topics"]).map(|topic| topic.parse().expect("a topic")).collect();
            (topics, hex::decode(text(&log["data"])).expect("hexadecimal digits"))
        });
        let logs: Vec<(Vec<B256>, Vec<u8>)> = logs.collect();
        let bloom: Bloom = text(&receipt["logsBloom"]).parse().expect("a filter");
        let mut encoded = vec![];
        let log = |(topics, data): &'_ (Vec<B256>, Vec<u8>)| (topics.clone(), data.clone());
        let copies: Vec<_> = logs.iter().map(log).collect();
        Receipt {
            kind: u8::try_from(quantity(&receipt["type"])).expect("a kind"),
            outcome: Outcome::Succeeded,
            cumulative_gas: quantity(&receipt["cumulativeGasUsed"]),
            bloom: &bloom,
            logs: copies
                .iter()
                .map(|(topics, data)| Log { address: contract, topics: topics.clone(), data })
                .collect(),
        }
        .encode(&mut encoded);
        let block =
            self.rpc("eth_getBlockByNumber", &json!([receipt["blockNumber"], false])).expect("a block");
        assert_eq!(ordered_root(&[encoded]).to_string(), block["receiptsRoot"]);
        logs
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Deployed {
    /// The name of the error with which the contract refused.
    fn refusal(&self, error: &Value) -> Refused {
        let data = error["data"].as_str().unwrap_or_default();
        let selector = hex::decode(data).ok().and_then(|bytes| bytes.first_chunk::<4>().copied());
        let Some(selector) = selector else { return Refused(error["message"].to_string()) };
        let named = self
            .artefact
            .signatures("error")
            .into_iter()
            .find(|signature| keccak256(signature)[..4] == selector);
        let name = named.map(|signature| signature[..signature.find('(').expect("a signature")].to_owned());
        Refused(name.unwrap_or_else(|| format!("unknown error {data}")))
    }
}

/// The program itself: npm's wrapper would outlive it, or the other way round.
fn executable() -> PathBuf {
    let folder = node::modules().join("@foundry-rs");
    let entries =
        folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}; run .ci/setup test", folder.display()));
    let programs = entries.map(|entry| entry.expect("an entry").path().join("bin/anvil"));
    programs.into_iter().find(|path| path.is_file()).expect("a package of anvil for this machine")
}

fn nodes(value: &Value) -> Vec<Vec<u8>> {
    serde_strings(value).map(|node| hex::decode(node).expect("hexadecimal digits")).collect()
}

fn serde_strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().expect("a list").iter().map(text)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(text(value).trim_start_matches("0x"), 16).expect("a quantity")
}
