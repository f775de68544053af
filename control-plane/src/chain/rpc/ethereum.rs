//! The methods of Ethereum's nodes that a light client needs.

use super::client::RpcError;
use super::endpoints::{Endpoint, Endpoints, Fault};
use super::mainchain::{decode_hex, lacking};
use crate::configuration::chain::{Address, show_hex};
use serde_json::{Value, json};

/// Bytes around a small answer.
const FRAME_LEN_MAX: usize = 4 << 10;

/// A header: the one of an epoch lists the arbitrators.
const HEADER_ANSWER_LEN_MAX: usize = 256 << 10;

/// Two hexadecimal digits a byte of the largest block, 8 MB, and as much again.
const BLOCK_ANSWER_LEN_MAX: usize = 32 << 20;

/// Proofs of an account and of the slots asked for.
const PROOF_ANSWER_LEN_MAX: usize = 4 << 20;

/// All receipts of a block, or logs of many.
const RECEIPTS_ANSWER_LEN_MAX: usize = 64 << 20;

/// One endpoint of the consortium chain.
#[derive(Clone, Copy, Debug)]
pub struct EthereumRpc<'a> {
    endpoints: &'a Endpoints,
    /// Who is asked.
    pub endpoint: &'a Endpoint,
}

impl<'a> EthereumRpc<'a> {
    /// Questions to `endpoint`.
    pub fn new(endpoints: &'a Endpoints, endpoint: &'a Endpoint) -> EthereumRpc<'a> {
        EthereumRpc { endpoints, endpoint }
    }

    /// The chain's number (EIP-155).
    pub async fn chain_id(&self) -> Result<u64, Fault> {
        let method = "eth_chainId";
        let answer = self.ask(method, json!([]), FRAME_LEN_MAX).await?;
        Ok(quantity(&answer).ok_or_else(|| self.malformed(method, "the answer is no number"))?)
    }

    /// The number of the last block that the endpoint says it has.
    pub async fn tip_number(&self) -> Result<u64, Fault> {
        let method = "eth_blockNumber";
        let answer = self.ask(method, json!([]), FRAME_LEN_MAX).await?;
        let number = quantity(&answer).ok_or_else(|| self.malformed(method, "the answer is no number"))?;
        self.endpoint.says_height(number);
        Ok(number)
    }

    /// The block at a number without its transactions, as the endpoint writes it.
    pub async fn block(&self, number: u64) -> Result<Value, Fault> {
        let answer = self
            .ask("eth_getBlockByNumber", json!([to_quantity(number), false]), RECEIPTS_ANSWER_LEN_MAX)
            .await;
        self.present(answer.map_err(lacking)?, || format!("block {number}"))
    }

    /// The header at a number in RLP, if the endpoint has the method for it.
    pub async fn raw_header(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let method = "debug_getRawHeader";
        let answer =
            self.ask(method, json!([to_quantity(number)]), HEADER_ANSWER_LEN_MAX).await.map_err(lacking)?;
        let answer = self.present(answer, || format!("block {number}"))?;
        self.bytes(method, &answer)
    }

    /// The block at a number in RLP: header, transactions, uncles.
    pub async fn raw_block(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let method = "debug_getRawBlock";
        let answer =
            self.ask(method, json!([to_quantity(number)]), BLOCK_ANSWER_LEN_MAX).await.map_err(lacking)?;
        let answer = self.present(answer, || format!("block {number}"))?;
        self.bytes(method, &answer)
    }

    /// An account with its proof and those of some of its slots, after block `number` (EIP-1186).
    pub async fn proof(&self, account: &Address, slots: &[[u8; 32]], number: u64) -> Result<Value, Fault> {
        let slots: Vec<_> = slots.iter().map(|slot| show_hex(slot)).collect();
        let params = json!([account.to_string(), slots, to_quantity(number)]);
        let answer = self.ask("eth_getProof", params, PROOF_ANSWER_LEN_MAX).await.map_err(lacking)?;
        self.present(answer, || format!("a proof of {account}"))
    }

    /// The receipts of all transactions of a block, in its order.
    pub async fn block_receipts(&self, number: u64) -> Result<Value, Fault> {
        let answer =
            self.ask("eth_getBlockReceipts", json!([to_quantity(number)]), RECEIPTS_ANSWER_LEN_MAX).await;
        self.present(answer.map_err(lacking)?, || format!("the receipts of block {number}"))
    }

    /// The receipt of a transaction, which says in which block it is.
    pub async fn transaction_receipt(&self, hash: &[u8; 32]) -> Result<Value, Fault> {
        let answer =
            self.ask("eth_getTransactionReceipt", json!([show_hex(hash)]), RECEIPTS_ANSWER_LEN_MAX).await;
        self.present(answer.map_err(lacking)?, || format!("transaction {}", show_hex(hash)))
    }

    /// The logs of a contract in a range of blocks, both ends included.
    pub async fn logs(&self, contract: &Address, from: u64, to: u64) -> Result<Value, Fault> {
        let filter = json!({ "address": contract.to_string(), "fromBlock": to_quantity(from), "toBlock": to_quantity(to) });
        self.ask("eth_getLogs", json!([filter]), RECEIPTS_ANSWER_LEN_MAX).await.map_err(lacking)
    }

    async fn ask(&self, method: &'static str, params: Value, bytes_max: usize) -> Result<Value, RpcError> {
        self.endpoints.ask(self.endpoint, method, params, bytes_max).await
    }

    fn bytes(&self, method: &'static str, answer: &Value) -> Result<Vec<u8>, Fault> {
        let bytes = answer.as_str().and_then(decode_hex);
        Ok(bytes.ok_or_else(|| self.malformed(method, "the answer is no bytes in hexadecimal"))?)
    }

    /// `null` stands for "there is none".
    fn present(&self, answer: Value, what: impl Fn() -> String) -> Result<Value, Fault> {
        if answer.is_null() { Err(Fault::Lacks(format!("{} is not there", what()))) } else { Ok(answer) }
    }

    fn malformed(&self, method: &'static str, reason: &str) -> RpcError {
        RpcError::Malformed { endpoint: self.endpoint.url.clone(), method, reason: reason.to_string() }
    }
}

/// A number as Ethereum's JSON writes it: `0x` and hexadecimal digits.
pub(crate) fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn to_quantity(number: u64) -> String {
    format!("{number:#x}")
}
