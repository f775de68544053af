//! What is kept and what can be proved, as the commands and the explorer show it: JSON, with the same names in both.

use super::follow::now_s;
use super::headers::{DposRecord, HeaderFile, HeaderFileError, PowRecord, SignerTable};
use super::payment;
use super::place::{ChainDirectory, read_if_any};
use super::prove::{self, Against, ProveError};
use super::rpc::Endpoints;
use crate::configuration::chain::{Address, parse_hex, parse_pow_hash, show_hex};
use crate::exit::Exit;
use alloy_primitives::{B256, U256};
use chain_lite::Hash;
use chain_lite::contracts::{authorisations, contributions};
use chain_lite::dpos::Receipt;
use http::StatusCode;
use serde_json::{Value, json};
use std::str::FromStr;

/// One of the two chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// The public chain.
    Pow,
    /// The consortium chain.
    Dpos,
}

impl FromStr for Chain {
    type Err = String;

    fn from_str(text: &str) -> Result<Chain, String> {
        match text {
            "pow" => Ok(Chain::Pow),
            "dpos" => Ok(Chain::Dpos),
            _ => Err(format!("`{text}` is no chain; chains are pow and dpos")),
        }
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// What was asked for is no height, hash or the like.
    #[error("{0}")]
    Question(String),
    /// It is not among what is kept.
    #[error("{0}")]
    NotFound(String),
    /// No proof.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// Headers cannot be read.
    #[error(transparent)]
    Headers(#[from] HeaderFileError),
    /// Something else cannot be read.
    #[error("{0}")]
    Files(String),
    /// The configuration lacks something.
    #[error("{0}")]
    Off(String),
}

impl ViewError {
    /// The exit code of a command that ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            ViewError::Question(_) | ViewError::Off(_) => Exit::Usage,
            ViewError::NotFound(_) | ViewError::Prove(ProveError::NoHeaders { .. }) => Exit::NotFound,
            // Who lies proves nothing about what is so; who says that there is none may be right.
            ViewError::Prove(ProveError::NoneAnswered(none)) if none.is_lie() => Exit::VerificationFailed,
            ViewError::Prove(ProveError::NoneAnswered(none)) if none.is_lacking() => Exit::NotFound,
            ViewError::Prove(ProveError::NoneAnswered(_)) => Exit::Unreachable,
            ViewError::Prove(ProveError::Headers(_)) | ViewError::Headers(_) | ViewError::Files(_) => {
                Exit::Failed
            }
        }
    }

    /// The HTTP status of an answer with it.
    pub fn status(&self) -> StatusCode {
        match self.exit() {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::NotFound => StatusCode::NOT_FOUND,
            Exit::VerificationFailed | Exit::Unreachable => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The kept headers of one chain.
#[derive(Debug)]
pub enum View {
    /// Of the public chain.
    Pow(HeaderFile<PowRecord>),
    /// Of the consortium chain, and who signed them.
    Dpos(HeaderFile<DposRecord>, SignerTable),
}

impl View {
    /// Opens what is kept, beside a process that may be adding to it.
    pub fn open(directory: &ChainDirectory, chain: Chain) -> Result<View, ViewError> {
        match chain {
            Chain::Pow => Ok(View::Pow(pow_file(directory)?)),
            Chain::Dpos => {
                let file = dpos_file(directory)?;
                let signers =
                    SignerTable::read(directory).map_err(|error| ViewError::Files(error.to_string()))?;
                Ok(View::Dpos(file, signers))
            }
        }
    }

    /// The height of the last header.
    pub fn last(&self) -> Result<u64, ViewError> {
        match self {
            View::Pow(file) => file.tip()?.map(|tip| tip.0).ok_or_else(|| no_headers("pow")),
            View::Dpos(file, _) => file.tip()?.map(|tip| tip.0).ok_or_else(|| no_headers("dpos")),
        }
    }

    /// Headers from a height on, fewer where the file ends.
    pub fn headers(&self, from: u64, count: u64) -> Result<Vec<Value>, ViewError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(match self {
            View::Pow(file) => {
                let before = from.checked_sub(1).map(|before| file.get(before)).transpose()?.flatten();
                let mut previous = before.map_or(Hash::ZERO, |record| record.hash);
                let mut rows = Vec::new();
                for (height, record) in (from..).zip(file.range(from, count)?) {
                    rows.push(pow_header(height, previous, &record));
                    previous = record.hash;
                }
                rows
            }
            View::Dpos(file, signers) => {
                let records = file.range(from, count)?;
                (from..).zip(&records).map(|(number, record)| dpos_header(number, record, signers)).collect()
            }
        })
    }

    /// A header by height or hash.
    pub fn header(&self, block: &str) -> Result<Value, ViewError> {
        let height = match block.parse() {
            Ok(height) => Some(height),
            Err(_) => {
                let wrong =
                    |_| ViewError::Question(format!("`{block}` is neither a height nor a block hash"));
                match self {
                    View::Pow(file) => file.find(&parse_pow_hash(block).map_err(wrong)?.0)?,
                    View::Dpos(file, _) => file.find(&parse_hex(block).map_err(wrong)?)?,
                }
            }
        };
        let found = height.map(|height| self.headers(height, 1)).transpose()?.and_then(|mut rows| rows.pop());
        let mut header = found.ok_or_else(|| {
            let last =
                self.last().map_or_else(|error| error.to_string(), |last| format!("the last is {last}"));
            ViewError::NotFound(format!("block {block} is not among the verified headers; {last}"))
        })?;
        let height = height.unwrap_or_default();
        header["confirmations"] = json!(self.last()?.saturating_sub(height) + 1);
        Ok(header)
    }

    /// Whose turn the blocks of a range were, and who missed theirs.
    pub fn turns(&self, from: u64, count: u64) -> Result<Value, ViewError> {
        let View::Dpos(file, signers) = self else {
            return Err(ViewError::Question("the public chain has no turns".into()));
        };
        let records = file.range(from, usize::try_from(count).unwrap_or(usize::MAX))?;
        let mut missed = std::collections::BTreeMap::<String, u64>::new();
        let mut rows = Vec::new();
        for (number, record) in (from..).zip(&records) {
            let Some(in_turn) = signers.get(record.in_turn) else { continue };
            let signer = signers.get(record.signer).map(|signer| signer.to_string());
            if record.is_turn_missed() {
                *missed.entry(in_turn.to_string()).or_default() += 1;
            }
            rows.push(json!({
                "number": number, "time_unix_s": record.time_s, "in_turn": in_turn.to_string(), "signer": signer,
                "missed": record.is_turn_missed(),
            }));
        }
        Ok(json!({ "turns": rows, "missed": missed }))
    }
}

/// Whose turns the next `count` blocks are and when, if nobody is voted in or out before them: the order that the
/// process that follows has last written down.
pub fn turns_to_come(directory: &ChainDirectory, count: u64) -> Result<Value, ViewError> {
    let said = said(directory)?;
    let dpos = &said["dpos"];
    let (Some(last), Some(time_s), Some(period_s), Some(signers)) = (
        dpos["number"].as_u64(),
        dpos["time_unix_s"].as_u64(),
        dpos["schedule"]["period_s"].as_u64(),
        dpos["schedule"]["signers"].as_array().filter(|signers| !signers.is_empty()),
    ) else {
        return Err(ViewError::NotFound(format!("the consortium chain was not followed yet; {TURN_ON}")));
    };
    let turn = |ahead: u64| {
        let number = last.saturating_add(ahead);
        // As `chain_lite::dpos::Snapshot::in_turn`; less than the number of signers, so a usize.
        let place = (number % signers.len() as u64) as usize;
        json!({
            "number": number,
            "time_unix_s": time_s.saturating_add(ahead.saturating_mul(period_s)),
            "in_turn": signers[place],
        })
    };
    Ok(json!({ "after": last, "turns": (1..=count).map(turn).collect::<Vec<_>>() }))
}

/// What is kept, and what the process that follows has last said.
pub fn status(directory: &ChainDirectory) -> Result<Value, ViewError> {
    let said = said(directory)?;
    let kept = |chain: Chain, name: &str| -> Result<Value, ViewError> {
        let view = match View::open(directory, chain) {
            Ok(view) => view,
            Err(ViewError::Prove(ProveError::NoHeaders { .. })) => return Ok(Value::Null),
            Err(error) => return Err(error),
        };
        let last = view.last()?;
        let mut tip = view.headers(last, 1)?.pop().unwrap_or(Value::Null);
        let time_s = tip["time_unix_s"].as_u64().unwrap_or(0);
        tip["age_s"] = json!(now_s().saturating_sub(time_s));
        let (first, records) = match &view {
            View::Pow(file) => (file.page().first, file.len()?),
            View::Dpos(file, _) => (file.page().first, file.len()?),
        };
        Ok(json!({
            "tip": tip, "first_height": first, "headers": records,
            "followed": said[name], "problem": said[format!("{name}_problem")],
        }))
    };
    Ok(json!({
        "pow": kept(Chain::Pow, "pow")?,
        "dpos": kept(Chain::Dpos, "dpos")?,
        "following": directory.is_followed(),
        "said_unix_s": said["unix_s"],
        "problems": { "pow": said["pow_problem"], "dpos": said["dpos_problem"] },
    }))
}

/// What the process that follows has last written down; null before that.
fn said(directory: &ChainDirectory) -> Result<Value, ViewError> {
    let said = read_if_any(&directory.status()).map_err(|error| ViewError::Files(error.to_string()))?;
    Ok(said.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null))
}

/// A transaction of either chain, by proof.
pub async fn transaction(
    directory: &ChainDirectory,
    pow: &Endpoints,
    dpos: &Endpoints,
    chain: Chain,
    txid: &str,
) -> Result<Value, ViewError> {
    let wrong = |_| ViewError::Question(format!("`{txid}` is no transaction hash: 64 hexadecimal digits"));
    match chain {
        Chain::Pow => {
            let hash = parse_pow_hash(txid).map_err(wrong)?;
            expect_endpoints(pow, "pow")?;
            let proven = payment::payment(pow, &pow_file(directory)?, hash).await?;
            Ok(proven.to_json(hash))
        }
        Chain::Dpos => {
            let hash = B256::new(parse_hex(txid).map_err(wrong)?);
            expect_endpoints(dpos, "dpos")?;
            let proven = prove::transaction(dpos, &dpos_file(directory)?, hash).await?;
            let logs = Receipt::decode(&proven.receipt).map_or(0, |receipt| receipt.logs.len());
            Ok(json!({
                "verified": true,
                "transaction": hash.to_string(),
                "block": against(&proven.against),
                "index": proven.index,
                "bytes": proven.bytes.len(),
                "succeeded": proven.has_succeeded(),
                "logs": logs,
                "confirmations": proven.confirmations,
                "endpoint": proven.endpoint.as_str(),
            }))
        }
    }
}

/// An account of the consortium chain and one slot of it, by proof.
pub async fn account(
    directory: &ChainDirectory,
    endpoints: &Endpoints,
    address: Address,
    slots: &[B256],
) -> Result<Value, ViewError> {
    let proven = account_at_tip(directory, endpoints, address, slots).await?;
    let slots: Vec<_> = proven
        .slots
        .iter()
        .map(|(slot, value)| json!({ "slot": slot.to_string(), "value": B256::from(*value).to_string() }))
        .collect();
    Ok(json!({
        "verified": true,
        "address": address.to_string(),
        "balance_wei": proven.account.balance_wei.to_string(),
        "nonce": proven.account.nonce,
        "code_hash": proven.account.code_hash.to_string(),
        "storage_root": proven.account.storage_root.to_string(),
        "slots": slots,
        "proof_nodes": proven.proof_nodes,
        "block": against(&proven.against),
        "endpoint": proven.endpoint.as_str(),
    }))
}

/// What a UID has accumulated, from the contract's storage.
pub async fn points(
    directory: &ChainDirectory,
    endpoints: &Endpoints,
    contract: Address,
    uid: identity::Uid,
) -> Result<Value, ViewError> {
    let slot = contributions::account_slot(B256::new(*uid.as_bytes()));
    let proven = account_at_tip(directory, endpoints, contract, &[slot]).await?;
    expect_code(&proven, contract)?;
    let account = contributions::Account::from_word(word(&proven));
    Ok(json!({
        "verified": true,
        "uid": uid.to_string(),
        "points": account.points.to_string(),
        "workload_bytes": account.workload_bytes.to_string(),
        "contract": contract.to_string(),
        "block": against(&proven.against),
        "endpoint": proven.endpoint.as_str(),
    }))
}

/// Whether a receiver may have a list of a publisher, from the contract's storage, at the time of the last block.
pub async fn authorised(
    directory: &ChainDirectory,
    endpoints: &Endpoints,
    contract: Address,
    publisher: Address,
    uid: identity::Uid,
    list: B256,
) -> Result<Value, ViewError> {
    let slot = authorisations::grant_slot(publisher.0.into(), list, B256::new(*uid.as_bytes()));
    let proven = account_at_tip(directory, endpoints, contract, &[slot]).await?;
    expect_code(&proven, contract)?;
    let grant = authorisations::Grant::from_word(word(&proven));
    Ok(json!({
        "verified": true,
        "authorised": grant.stands(proven.against.record.time_s),
        "uid": uid.to_string(),
        "list": alloy_primitives::hex::encode(list),
        "publisher": publisher.to_string(),
        "until_unix_s": grant.until_s,
        "downloads": grant.downloads,
        "account": grant.account.to_string(),
        "contract": contract.to_string(),
        "block": against(&proven.against),
        "endpoint": proven.endpoint.as_str(),
    }))
}

async fn account_at_tip(
    directory: &ChainDirectory,
    endpoints: &Endpoints,
    address: Address,
    slots: &[B256],
) -> Result<prove::ProvenAccount, ViewError> {
    let file = dpos_file(directory)?;
    expect_endpoints(endpoints, "dpos")?;
    Ok(prove::account(endpoints, prove::last_header(&file)?, address, slots).await?)
}

/// An address without code has no storage, and its zeros are no answer of a contract.
fn expect_code(proven: &prove::ProvenAccount, contract: Address) -> Result<(), ViewError> {
    if proven.account.code_hash == chain_lite::dpos::EMPTY_CODE_HASH {
        let number = proven.against.number;
        return Err(ViewError::NotFound(format!("there is no contract at {contract} after block {number}")));
    }
    Ok(())
}

fn word(proven: &prove::ProvenAccount) -> U256 {
    proven.slots.first().map_or(U256::ZERO, |(_, value)| *value)
}

fn against(against: &Against) -> Value {
    json!({
        "number": against.number,
        "hash": show_hex(&against.record.hash),
        "time_unix_s": against.record.time_s,
    })
}

fn pow_header(height: u64, previous: Hash, record: &PowRecord) -> Value {
    json!({
        "height": height,
        "hash": record.hash.to_string(),
        "previous": previous.to_string(),
        "merkle_root": record.merkle_root.to_string(),
        "time_unix_s": record.time_s,
        "bits": format!("{:08x}", record.bits),
        "nonce": record.nonce,
        "version": record.version,
    })
}

fn dpos_header(number: u64, record: &DposRecord, signers: &SignerTable) -> Value {
    let name = |row: u16| signers.get(row).map(|address| address.to_string());
    json!({
        "number": number,
        "hash": show_hex(&record.hash),
        "state_root": show_hex(&record.state_root),
        "receipts_root": show_hex(&record.receipts_root),
        "time_unix_s": record.time_s,
        "signer": name(record.signer),
        "in_turn": name(record.in_turn),
    })
}

fn pow_file(directory: &ChainDirectory) -> Result<HeaderFile<PowRecord>, ViewError> {
    HeaderFile::open_to_read(&directory.pow_headers())?.ok_or_else(|| no_headers("pow"))
}

fn dpos_file(directory: &ChainDirectory) -> Result<HeaderFile<DposRecord>, ViewError> {
    HeaderFile::open_to_read(&directory.dpos_headers())?.ok_or_else(|| no_headers("dpos"))
}

fn no_headers(chain: &'static str) -> ViewError {
    ProveError::NoHeaders { chain }.into()
}

fn expect_endpoints(endpoints: &Endpoints, chain: &str) -> Result<(), ViewError> {
    if endpoints.all().is_empty() {
        return Err(ViewError::Off(format!("nobody to ask: set chain.{chain}_endpoints; {TURN_ON}")));
    }
    Ok(())
}

/// How the light client is turned on.
pub const TURN_ON: &str = "`ioex chain --help` shows what [chain] of the configuration needs";
