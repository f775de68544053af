//! Transactions of the public chain, proved by the blocks that hold them: its nodes give no shorter proof.

use super::headers::{HeaderFile, HeaderFileError, PowRecord};
use super::prove::ProveError;
use super::rpc::{Endpoint, Endpoints, Fault, Lie, MainChainRpc};
use crate::configuration::chain::EndpointUrl;
use chain_lite::Hash;
use chain_lite::pow::{Block, Transaction, merkle};
use serde_json::{Value, json};
use std::sync::Arc;

/// A transaction of the public chain.
#[derive(Clone, Debug)]
pub struct ProvenPayment {
    /// Height of its block.
    pub height: u32,
    /// What is kept of its header.
    pub record: PowRecord,
    /// Its place in the block, from 0; the first is the coinbase.
    pub index: usize,
    /// How many transactions the block has.
    pub transactions: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Blocks from its own to the last that is kept.
    pub confirmations: u64,
    /// Who gave the block.
    pub endpoint: EndpointUrl,
}

impl ProvenPayment {
    /// What was proved, with what the transaction pays.
    pub fn to_json(&self, txid: Hash) -> Value {
        let transaction = Transaction::decode(&self.bytes).ok();
        let outputs: Vec<_> = transaction
            .iter()
            .flat_map(|transaction| transaction.outputs())
            .map(|output| json!({ "to": output.recipient.to_string(), "value": output.value.to_string() }))
            .collect();
        json!({
            "verified": true,
            "transaction": txid.to_string(),
            "block": {
                "height": self.height, "hash": self.record.hash.to_string(), "time_unix_s": self.record.time_s,
            },
            "index": self.index,
            "transactions": self.transactions,
            "bytes": self.bytes.len(),
            "outputs": outputs,
            "confirmations": self.confirmations,
            "endpoint": self.endpoint.as_str(),
        })
    }
}

/// A transaction of the public chain: all of its block's transactions against the header's Merkle root.
pub async fn payment(
    endpoints: &Endpoints,
    file: &HeaderFile<PowRecord>,
    txid: Hash,
) -> Result<ProvenPayment, ProveError> {
    let (tip, _) = file.tip()?.ok_or(ProveError::NoHeaders { chain: "pow" })?;
    let what = format!("transaction {txid}");
    let answer = endpoints.first(&what, |endpoint| {
        let endpoints = endpoints.clone();
        async move { check_payment(&endpoints, &endpoint, file, txid, tip).await }
    });
    Ok(answer.await?)
}

async fn check_payment(
    endpoints: &Endpoints,
    endpoint: &Arc<Endpoint>,
    file: &HeaderFile<PowRecord>,
    txid: Hash,
    tip: u64,
) -> Result<ProvenPayment, Fault> {
    let rpc = MainChainRpc::new(endpoints, endpoint);
    let hash = rpc.block_of_transaction(&txid).await?;
    let kept = |error: HeaderFileError| Fault::Lacks(error.to_string());
    let Some(height) = file.find(&hash.0).map_err(kept)? else {
        return Err(Fault::Lacks(format!("block {hash}, which it names, is not among the verified headers")));
    };
    let record =
        file.get(height).map_err(kept)?.ok_or_else(|| Fault::Lacks("reorganised meanwhile".into()))?;
    let bytes = rpc.block(&hash).await?;
    let block = Block::decode(&bytes).map_err(|error| Fault::lie(Lie::ForgedProof, error))?;
    // What it holds must be what the header names, whose hash was compared when it came in. Whether each transaction
    // keeps the rules is for those who mined on top of it.
    let found = merkle::tree_root(&block.hashes()).map(|(root, _)| root);
    if found != Some(record.merkle_root) {
        let found = found.map_or_else(|| "none".to_string(), |root| root.to_string());
        let detail = format!(
            "transactions of block {hash} have Merkle root {found}, its header's is {}",
            record.merkle_root
        );
        return Err(Fault::lie(Lie::ForgedProof, detail));
    }
    let transactions = block.transactions();
    let Some(index) = transactions.iter().position(|transaction| transaction.hash() == txid) else {
        let detail = format!("it says that transaction {txid} is in block {hash}, which it is not");
        return Err(Fault::lie(Lie::WrongValue, detail));
    };
    let mut bytes = Vec::new();
    transactions[index].encode(&mut bytes);
    Ok(ProvenPayment {
        // Heights of the public chain have 32 bits.
        height: height as u32,
        record,
        index,
        transactions: transactions.len(),
        bytes,
        confirmations: tip.saturating_sub(height) + 1,
        endpoint: endpoint.url.clone(),
    })
}
