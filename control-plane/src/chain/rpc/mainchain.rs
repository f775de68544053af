//! The methods of the public chain's nodes that a light client needs. They know no request for headers alone:
//! a header comes at the front of its block.

use super::client::RpcError;
use super::endpoints::{Endpoint, Endpoints, Fault, Lie};
use crate::configuration::chain::parse_pow_hash;
use chain_lite::Hash;
use serde_json::{Value, json};

/// Bytes around a small answer.
const FRAME_LEN_MAX: usize = 4 << 10;

/// Two hexadecimal digits a byte of the largest block, 8,000,000 bytes, and of what its header carries.
const BLOCK_ANSWER_LEN_MAX: usize = 2 * (8_000_000 + (1 << 20)) + FRAME_LEN_MAX;

/// One endpoint of the public chain.
#[derive(Clone, Copy, Debug)]
pub struct MainChainRpc<'a> {
    endpoints: &'a Endpoints,
    /// Who is asked.
    pub endpoint: &'a Endpoint,
}

impl<'a> MainChainRpc<'a> {
    /// Questions to `endpoint`.
    pub fn new(endpoints: &'a Endpoints, endpoint: &'a Endpoint) -> MainChainRpc<'a> {
        MainChainRpc { endpoints, endpoint }
    }

    /// The height that the endpoint says its best branch has.
    pub async fn tip_height(&self) -> Result<u32, Fault> {
        let method = "getblockcount";
        let count = self.ask(method, json!([]), FRAME_LEN_MAX).await?;
        let height = count.as_u64().and_then(|count| u32::try_from(count.checked_sub(1)?).ok());
        let height = height.ok_or_else(|| self.malformed(method, "the answer is no number of blocks"))?;
        self.endpoint.says_height(u64::from(height));
        Ok(height)
    }

    /// The hash of the block at a height of the endpoint's best branch.
    pub async fn hash_at(&self, height: u32) -> Result<Hash, Fault> {
        let method = "getblockhash";
        let answer = self.ask(method, json!([height]), FRAME_LEN_MAX).await.map_err(lacking)?;
        let hash = answer.as_str().and_then(|text| parse_pow_hash(text).ok());
        Ok(hash.ok_or_else(|| self.malformed(method, "the answer is no block hash"))?)
    }

    /// A whole block as it is sent, which begins with a header of this hash.
    pub async fn block(&self, hash: &Hash) -> Result<Vec<u8>, Fault> {
        let method = "getblock";
        let answer =
            self.ask(method, json!([hash.to_string(), 0]), BLOCK_ANSWER_LEN_MAX).await.map_err(lacking)?;
        let bytes = answer.as_str().and_then(decode_hex);
        let bytes = bytes.ok_or_else(|| self.malformed(method, "the answer is no block in hexadecimal"))?;
        let found = bytes
            .first_chunk::<{ chain_lite::pow::BLOCK_HEADER_LEN }>()
            .map(|front| chain_lite::sha256d(front));
        if found != Some(*hash) {
            let found = found.map_or_else(|| "too few bytes".to_string(), |found| format!("block {found}"));
            return Err(Fault::lie(
                Lie::ForgedHeader,
                format_args!("asked for block {hash}, it sent {found}"),
            ));
        }
        Ok(bytes)
    }

    /// The hash of the block that holds a transaction, as the endpoint says.
    pub async fn block_of_transaction(&self, txid: &Hash) -> Result<Hash, Fault> {
        let method = "getrawtransaction";
        let answer =
            self.ask(method, json!([txid.to_string(), true]), BLOCK_ANSWER_LEN_MAX).await.map_err(lacking)?;
        let text = answer.get("blockhash").and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() {
            return Err(Fault::Lacks("the transaction is in no block yet".into()));
        }
        Ok(parse_pow_hash(text).map_err(|_| self.malformed(method, "the answer names no block"))?)
    }

    async fn ask(&self, method: &'static str, params: Value, bytes_max: usize) -> Result<Value, RpcError> {
        self.endpoints.ask(self.endpoint, method, params, bytes_max).await
    }

    fn malformed(&self, method: &'static str, reason: &str) -> RpcError {
        RpcError::Malformed { endpoint: self.endpoint.url.clone(), method, reason: reason.to_string() }
    }
}

/// A refusal of something that was asked for by its name is "I do not have it".
pub(super) fn lacking(error: RpcError) -> Fault {
    match error {
        RpcError::Refused { .. } if !error.is_unknown_method() => Fault::Lacks(error.to_string()),
        error => Fault::Rpc(error),
    }
}

/// Bytes in hexadecimal, with or without `0x`.
pub(crate) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? * 16 + digit(low)?).ok()).collect()
}
