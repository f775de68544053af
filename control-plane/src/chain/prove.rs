//! Answers with proofs: endpoints are asked, and what they say is given on only when it leads to a header that
//! was verified and kept.

use super::ethereum_json::{FieldError, byte_strings, number, receipts_rlp, word};
use super::follow::fetch_header;
use super::headers::{DposRecord, HeaderFile, HeaderFileError};
use super::rpc::{Endpoints, EthereumRpc, Fault, Lie, NoneAnswered};
use crate::configuration::chain::{Address, EndpointUrl};
use alloy_primitives::{B256, U256, keccak256};
use chain_lite::dpos::{
    Account, Header, Outcome, Receipt, ordered_root, verify_account, verify_receipts, verify_storage,
};
use serde_json::Value;

/// Why there is no proven answer.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No endpoint gave one; each one's words are in it.
    #[error(transparent)]
    NoneAnswered(#[from] NoneAnswered),
    /// The headers cannot be read.
    #[error(transparent)]
    Headers(#[from] HeaderFileError),
    /// No header is kept to compare with.
    #[error(
        "no verified headers of the {chain} chain are kept here yet; follow it first with `ioex up` or `ioex chain follow`"
    )]
    NoHeaders {
        /// `pow` or `dpos`.
        chain: &'static str,
    },
}

/// A header of the consortium chain that an answer was proved against.
#[derive(Clone, Copy, Debug)]
pub struct Against {
    /// Its number.
    pub number: u64,
    /// What is kept of it.
    pub record: DposRecord,
}

/// Slots of a contract's storage, and what they hold.
pub type SlotValues = Vec<(B256, U256)>;

/// An account and slots of it, as they were after a block.
#[derive(Clone, Debug)]
pub struct ProvenAccount {
    /// The block.
    pub against: Against,
    /// The account; [`Account::EMPTY`] if the proof shows that there is none.
    pub account: Account,
    /// The slots that were asked for, and what they hold.
    pub slots: SlotValues,
    /// Nodes of the account's proof.
    pub proof_nodes: usize,
    /// Who gave the proof.
    pub endpoint: EndpointUrl,
}

/// A transaction of the consortium chain and what came of it.
#[derive(Clone, Debug)]
pub struct ProvenTransaction {
    /// Its block.
    pub against: Against,
    /// Its place in the block, from 0.
    pub index: usize,
    /// Its bytes, as they were signed.
    pub bytes: Vec<u8>,
    /// Its receipt as the block's trie holds it.
    pub receipt: Vec<u8>,
    /// Blocks from its own to the last that is kept.
    pub confirmations: u64,
    /// Who gave block and receipts.
    pub endpoint: EndpointUrl,
}

impl ProvenTransaction {
    /// Whether it did what it was to do; `None` if the chain does not say so.
    pub fn has_succeeded(&self) -> Option<bool> {
        // It has been read once already.
        match Receipt::decode(&self.receipt).ok()?.outcome {
            Outcome::Succeeded => Some(true),
            Outcome::Failed => Some(false),
            Outcome::StateRoot(_) => None,
        }
    }
}

/// The last kept header of the consortium chain.
pub fn last_header(file: &HeaderFile<DposRecord>) -> Result<Against, ProveError> {
    let tip = file.tip()?.ok_or(ProveError::NoHeaders { chain: "dpos" })?;
    Ok(Against { number: tip.0, record: tip.1 })
}

/// An account and some of its slots (EIP-1186).
pub async fn account(
    endpoints: &Endpoints,
    against: Against,
    address: Address,
    slots: &[B256],
) -> Result<ProvenAccount, ProveError> {
    let what = format!("a proof of {address} after block {}", against.number);
    let answer = endpoints.first(&what, |endpoint| {
        let endpoints = endpoints.clone();
        let slots = slots.to_vec();
        async move {
            let rpc = EthereumRpc::new(&endpoints, &endpoint);
            let keys: Vec<_> = slots.iter().map(|slot| slot.0).collect();
            let answer = rpc.proof(&address, &keys, against.number).await?;
            match check_account(&answer, &against, address, &slots) {
                Ok((account, slots, proof_nodes)) => {
                    Ok(ProvenAccount { against, account, slots, proof_nodes, endpoint: endpoint.url.clone() })
                }
                Err(fault) => Err(unless_on_another_branch(&rpc, &against, fault).await),
            }
        }
    });
    Ok(answer.await?)
}

/// All receipts of a block, as its trie holds them.
pub async fn receipts(
    endpoints: &Endpoints,
    against: Against,
) -> Result<(Vec<Vec<u8>>, EndpointUrl), ProveError> {
    let what = format!("the receipts of block {}", against.number);
    let answer = endpoints.first(&what, |endpoint| {
        let endpoints = endpoints.clone();
        async move {
            let rpc = EthereumRpc::new(&endpoints, &endpoint);
            Ok((block_receipts(&rpc, &against).await?, endpoint.url.clone()))
        }
    });
    Ok(answer.await?)
}

/// A transaction of the consortium chain: its block's whole body against the header's root, and all receipts
/// against theirs.
pub async fn transaction(
    endpoints: &Endpoints,
    file: &HeaderFile<DposRecord>,
    txid: B256,
) -> Result<ProvenTransaction, ProveError> {
    let tip = last_header(file)?.number;
    let what = format!("transaction {txid}");
    let answer = endpoints.first(&what, |endpoint| {
        let endpoints = endpoints.clone();
        async move {
            let rpc = EthereumRpc::new(&endpoints, &endpoint);
            let said = rpc.transaction_receipt(&txid.0).await?;
            let number = number(&said, "blockNumber").map_err(misread)?;
            let record = file.get(number).map_err(|error| Fault::Lacks(error.to_string()))?;
            let record = record.ok_or_else(|| {
                Fault::Lacks(format!("block {number}, which it names, is not among the verified headers"))
            })?;
            let against = Against { number, record };
            let body = rpc.raw_block(number).await?;
            let items = match block_body(&body, &against) {
                Ok(items) => items,
                Err(fault) => return Err(unless_on_another_branch(&rpc, &against, fault).await),
            };
            let Some(index) = items.iter().position(|item| keccak256(item) == txid) else {
                let detail = format!("it says that transaction {txid} is in block {number}, which it is not");
                return Err(Fault::lie(Lie::WrongValue, detail));
            };
            let mut receipts = block_receipts(&rpc, &against).await?;
            if index >= receipts.len() {
                return Err(Fault::Lacks(format!("block {number} has fewer receipts than transactions")));
            }
            Ok(ProvenTransaction {
                against,
                index,
                bytes: items[index].clone(),
                receipt: receipts.swap_remove(index),
                confirmations: tip.saturating_sub(number) + 1,
                endpoint: endpoint.url.clone(),
            })
        }
    });
    Ok(answer.await?)
}

fn check_account(
    answer: &Value,
    against: &Against,
    address: Address,
    slots: &[B256],
) -> Result<(Account, SlotValues, usize), Fault> {
    let forged = |error| {
        Fault::lie(Lie::ForgedProof, format_args!("of {address} after block {}: {error}", against.number))
    };
    let nodes = byte_strings(answer, "accountProof").map_err(misread)?;
    let root = B256::new(against.record.state_root);
    let account = verify_account(&root, &address.0.into(), &nodes).map_err(forged)?.unwrap_or(Account::EMPTY);
    let wrong = |name: &str, said: &dyn std::fmt::Display, proven: &dyn std::fmt::Display| {
        let detail = format!("it says that {name} of {address} is {said}, its own proof shows {proven}");
        Err(Fault::lie(Lie::WrongValue, detail))
    };
    let said = word(answer, "balance").map_err(misread)?;
    if said != account.balance_wei {
        return wrong("the balance", &said, &account.balance_wei);
    }
    let said = number(answer, "nonce").map_err(misread)?;
    if said != account.nonce {
        return wrong("the nonce", &said, &account.nonce);
    }
    let entries = answer.get("storageProof").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut values = Vec::with_capacity(slots.len());
    for (place, slot) in slots.iter().enumerate() {
        let entry = entries.get(place).ok_or_else(|| Fault::Lacks(format!("no proof of slot {slot}")))?;
        let nodes = byte_strings(entry, "proof").map_err(misread)?;
        let value = match account.storage_root == Account::EMPTY.storage_root && nodes.is_empty() {
            // Nodes send no proof of what is not in an empty trie.
            true => U256::ZERO,
            false => verify_storage(&account.storage_root, slot, &nodes).map_err(forged)?,
        };
        let said = word(entry, "value").map_err(misread)?;
        if said != value {
            return wrong(&format!("slot {slot}"), &said, &value);
        }
        values.push((*slot, value));
    }
    Ok((account, values, nodes.len()))
}

async fn block_receipts(rpc: &EthereumRpc<'_>, against: &Against) -> Result<Vec<Vec<u8>>, Fault> {
    let answer = rpc.block_receipts(against.number).await?;
    let receipts = receipts_rlp(&answer).map_err(misread)?;
    let root = B256::new(against.record.receipts_root);
    match verify_receipts(&root, &receipts) {
        Ok(_) => Ok(receipts),
        Err(error) => {
            let fault =
                Fault::lie(Lie::ForgedProof, format_args!("receipts of block {}: {error}", against.number));
            Err(unless_on_another_branch(rpc, against, fault).await)
        }
    }
}

/// The transactions of a block as they were signed, if the block is the one that is kept.
fn block_body(bytes: &[u8], against: &Against) -> Result<Vec<Vec<u8>>, Fault> {
    let forged =
        |detail: String| Fault::lie(Lie::ForgedProof, format_args!("block {}: {detail}", against.number));
    let malformed = |error: alloy_rlp::Error| forged(error.to_string());
    let mut rest = bytes;
    let mut body = alloy_rlp::Header::decode_bytes(&mut rest, true).map_err(malformed)?;
    let whole = body;
    alloy_rlp::Header::decode_bytes(&mut body, true).map_err(malformed)?;
    let header = &whole[..whole.len() - body.len()];
    let found = keccak256(header);
    if found.0 != against.record.hash {
        return Err(forged(format!("it is {found}, the verified one is {}", B256::new(against.record.hash))));
    }
    let root = Header::decode(header).map_err(|error| forged(error.to_string()))?.transactions_root;
    let mut list = alloy_rlp::Header::decode_bytes(&mut body, true).map_err(malformed)?;
    let mut items = Vec::new();
    while let Some(first) = list.first() {
        let item = match first {
            // A transaction from before there were types is a list, and stands as it is.
            0xc0.. => {
                let start = list;
                alloy_rlp::Header::decode_bytes(&mut list, true).map_err(malformed)?;
                &start[..start.len() - list.len()]
            }
            _ => alloy_rlp::Header::decode_bytes(&mut list, false).map_err(malformed)?,
        };
        items.push(item.to_vec());
    }
    let found = ordered_root(&items);
    if found != root {
        return Err(forged(format!("its transactions have root {found}, the header's is {root}")));
    }
    Ok(items)
}

/// An endpoint whose block of this number is another one proves nothing about ours, and need not be lying.
async fn unless_on_another_branch(rpc: &EthereumRpc<'_>, against: &Against, fault: Fault) -> Fault {
    match fetch_header(rpc, against.number).await {
        Ok(bytes) if keccak256(&bytes).0 == against.record.hash => fault,
        Ok(_) => Fault::Lacks(format!("its block {} is on another branch", against.number)),
        Err(other) => other,
    }
}

fn misread(error: FieldError) -> Fault {
    Fault::Lacks(error.to_string())
}
