//! Blocks and receipts out of the JSON of Ethereum's nodes. What is rebuilt here is believed only when its
//! hash or root is the one in a verified header, so a field that is misread can do no harm.

use super::rpc::{decode_hex, quantity};
use alloy_primitives::{Address, B256, Bloom, U256};
use chain_lite::dpos::{Header, Log, Outcome, Receipt};
use serde_json::Value;

/// What a node's JSON lacks, or has in another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field `{0}` is missing or malformed")]
pub struct FieldError(pub &'static str);

/// The header of a block in RLP, as its hash covers it.
pub fn header_rlp(block: &Value) -> Result<Vec<u8>, FieldError> {
    let extra = bytes(block, "extraData")?;
    let bloom = Bloom::new(array(block, "logsBloom")?);
    let header = Header {
        parent_hash: hash(block, "parentHash")?,
        uncles_hash: hash(block, "sha3Uncles")?,
        coinbase: address(block, "miner")?,
        state_root: hash(block, "stateRoot")?,
        transactions_root: hash(block, "transactionsRoot")?,
        receipts_root: hash(block, "receiptsRoot")?,
        logs_bloom: &bloom,
        difficulty: word(block, "difficulty")?,
        number: number(block, "number")?,
        gas_limit: number(block, "gasLimit")?,
        gas_used: number(block, "gasUsed")?,
        time_s: number(block, "timestamp")?,
        extra: &extra,
        mix_hash: hash(block, "mixHash")?,
        nonce: array(block, "nonce")?,
        base_fee_wei: optional_number(block, "baseFeePerGas")?,
    };
    let mut out = Vec::with_capacity(700);
    header.encode(&mut out);
    Ok(out)
}

/// The receipts of a block as its trie holds them, in the order of the transactions.
pub fn receipts_rlp(receipts: &Value) -> Result<Vec<Vec<u8>>, FieldError> {
    receipts.as_array().ok_or(FieldError("result"))?.iter().map(receipt_rlp).collect()
}

fn receipt_rlp(receipt: &Value) -> Result<Vec<u8>, FieldError> {
    let kind = optional_number(receipt, "type")?.unwrap_or(0);
    let bloom = Bloom::new(array(receipt, "logsBloom")?);
    let outcome = match optional_number(receipt, "status")? {
        Some(1) => Outcome::Succeeded,
        Some(0) => Outcome::Failed,
        Some(_) => return Err(FieldError("status")),
        None => Outcome::StateRoot(hash(receipt, "root")?),
    };
    let entries = receipt.get("logs").and_then(Value::as_array).ok_or(FieldError("logs"))?;
    let data: Vec<_> = entries.iter().map(|entry| bytes(entry, "data")).collect::<Result<_, _>>()?;
    let logs = entries.iter().zip(&data).map(|(entry, data)| {
        let topics = entry.get("topics").and_then(Value::as_array).ok_or(FieldError("topics"))?;
        let topics = topics.iter().map(|topic| Some(B256::new(fixed(topic)?))).collect::<Option<_>>();
        Ok(Log { address: address(entry, "address")?, topics: topics.ok_or(FieldError("topics"))?, data })
    });
    let receipt = Receipt {
        kind: u8::try_from(kind).map_err(|_| FieldError("type"))?,
        outcome,
        cumulative_gas: number(receipt, "cumulativeGasUsed")?,
        bloom: &bloom,
        logs: logs.collect::<Result<_, _>>()?,
    };
    let mut out = Vec::new();
    receipt.encode(&mut out);
    Ok(out)
}

/// A list of byte strings: the nodes of a proof.
pub fn byte_strings(value: &Value, name: &'static str) -> Result<Vec<Vec<u8>>, FieldError> {
    let list = value.get(name).and_then(Value::as_array).ok_or(FieldError(name))?;
    list.iter().map(|item| item.as_str().and_then(decode_hex)).collect::<Option<_>>().ok_or(FieldError(name))
}

/// A number of up to 256 bits.
pub fn word(value: &Value, name: &'static str) -> Result<U256, FieldError> {
    let digits = value.get(name).and_then(Value::as_str).and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| U256::from_str_radix(digits, 16).ok()).ok_or(FieldError(name))
}

/// A number of up to 64 bits.
pub fn number(value: &Value, name: &'static str) -> Result<u64, FieldError> {
    optional_number(value, name)?.ok_or(FieldError(name))
}

/// A hash.
pub fn hash(value: &Value, name: &'static str) -> Result<B256, FieldError> {
    array(value, name).map(B256::new)
}

fn optional_number(value: &Value, name: &'static str) -> Result<Option<u64>, FieldError> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => quantity(value).map(Some).ok_or(FieldError(name)),
    }
}

fn address(value: &Value, name: &'static str) -> Result<Address, FieldError> {
    array(value, name).map(Address::new)
}

fn array<const N: usize>(value: &Value, name: &'static str) -> Result<[u8; N], FieldError> {
    value.get(name).and_then(fixed).ok_or(FieldError(name))
}

fn fixed<const N: usize>(value: &Value) -> Option<[u8; N]> {
    decode_hex(value.as_str()?)?.try_into().ok()
}

fn bytes(value: &Value, name: &'static str) -> Result<Vec<u8>, FieldError> {
    value.get(name).and_then(Value::as_str).and_then(decode_hex).ok_or(FieldError(name))
}
