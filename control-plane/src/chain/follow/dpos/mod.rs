//! Following the consortium chain: headers by number, signers recovered on two threads, the tree and the fork
//! choice of `chain-lite`.

mod fetch;
mod open;
mod settings;

pub(crate) use fetch::fetch_header;
pub use settings::DposSettings;

use super::lag::{LAG_BLOCKS_MAX, Lag};
use super::{BATCHES_A_ROUND, FollowError, Round};
use crate::chain::headers::{DposRecord, HeaderFile, SignerTable};
use crate::chain::place::{ChainDirectory, FollowerLock, write_public};
use crate::chain::rpc::{Endpoint, Endpoints, EthereumRpc, Fault, Lie};
use alloy_primitives::{Address, Bloom, keccak256};
use chain_lite::dpos::{Header, HeaderChain, Network, Rule, SignedHeader};
use fetch::fetch_headers;
use open::{checkpoint_header, open_chain, open_files, wrong_checkpoint};
use serde_json::{Value, json};
use std::sync::Arc;

/// Headers that are asked for before what came is verified and kept; fewer than the window of the tree.
const BATCH_HEADERS: u64 = 256;

/// Settled blocks after which the place to go on from is written down again. As many headers, and a window of them,
/// are fetched twice after a restart.
const STATE_BLOCKS: u64 = 128;

/// The follower of the consortium chain.
#[derive(Debug)]
pub struct DposFollower {
    settings: DposSettings,
    directory: ChainDirectory,
    endpoints: Endpoints,
    network: Network,
    chain: HeaderChain,
    file: HeaderFile<DposRecord>,
    table: SignerTable,
    sources: Vec<Source>,
    /// Settled block of the state that is written down.
    state_number: u64,
    /// Blocks, by number, whose filter has a contract that is wanted, and that nobody has looked at.
    candidates: std::collections::BTreeSet<u64>,
}

#[derive(Debug)]
struct Source {
    endpoint: Arc<Endpoint>,
    /// Whether it has said that it is of this chain.
    is_of_chain: bool,
    lag: Lag,
}

impl DposFollower {
    /// Goes on from where the last follower wrote down to, or from the checkpoint, whose header the first endpoint
    /// that has it is asked for.
    pub async fn open(
        settings: &DposSettings,
        directory: &ChainDirectory,
        _lock: &FollowerLock,
    ) -> Result<DposFollower, FollowError> {
        let endpoints = Endpoints::new(&settings.endpoints).map_err(FollowError::Roots)?;
        let checkpoint = checkpoint_header(settings, directory, &endpoints).await?;
        let header = Header::decode(&checkpoint).map_err(|error| wrong_checkpoint(&error))?;
        let network = settings.network(&header);
        let (file, table) = open_files(settings, directory, &header)?;
        let chain = open_chain(settings, directory, &network, &header, &checkpoint, &file)?;
        let sources = endpoints.all().iter().map(|endpoint| Source {
            endpoint: Arc::clone(endpoint),
            is_of_chain: settings.chain_id == 0,
            lag: Lag::default(),
        });
        Ok(DposFollower {
            settings: settings.clone(),
            directory: directory.clone(),
            network,
            state_number: chain.settled().number,
            sources: sources.collect(),
            endpoints,
            chain,
            file,
            table,
            candidates: std::collections::BTreeSet::new(),
        })
    }

    /// Asks every endpoint for what it has beyond the best branch, verifies and keeps it.
    pub async fn round(&mut self, now_s: u64) -> Result<Round, FollowError> {
        let mut round = Round::default();
        for endpoint in self.endpoints.in_order() {
            let is_it = |source: &Source| Arc::ptr_eq(&source.endpoint, &endpoint);
            let Some(place) = self.sources.iter().position(is_it) else { continue };
            let outcome = self.take_from(place, now_s, &mut round).await?;
            round.end_turn(&endpoint, outcome);
        }
        let tip = self.chain.tip().number;
        self.sources.iter_mut().for_each(|source| source.lag.judge(&source.endpoint, tip));
        Ok(round)
    }

    /// The tree of headers above the settled one.
    pub fn chain(&self) -> &HeaderChain {
        &self.chain
    }

    /// The headers that are kept.
    pub fn file(&self) -> &HeaderFile<DposRecord> {
        &self.file
    }

    /// The endpoints and what is known of them.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Time of the block that is trusted: the checkpoint's, or that of the last block that was verified since.
    pub fn trusted_time_s(&self) -> u64 {
        let tip = self.file.tip().ok().flatten();
        tip.map_or(self.chain.tip().time_s, |(_, record)| record.time_s).max(self.chain.tip().time_s)
    }

    /// How many blocks a branch must be ahead until nobody turns back: more than half of the arbitrators stand on it.
    pub fn depth_blocks(&self) -> u64 {
        let signers =
            self.chain.snapshot(&self.chain.tip().hash).map_or(1, |snapshot| snapshot.signers().len());
        signers as u64 / 2 + 1
    }

    /// Blocks up to `last` whose filter has a contract that is wanted, the lowest first.
    pub fn candidates(&self, last: u64) -> Vec<u64> {
        self.candidates.range(..=last).copied().collect()
    }

    /// Forgets the candidates up to `last`, which have been looked at.
    pub fn looked_at(&mut self, last: u64) {
        self.candidates = self.candidates.split_off(&last.saturating_add(1));
    }

    /// What it has, for people and programs.
    pub fn to_json(&self) -> Value {
        let tip = self.chain.tip();
        let snapshot = self.chain.snapshot(&tip.hash);
        let signers = snapshot.as_ref().map_or(&[][..], |snapshot| snapshot.signers());
        json!({
            "number": tip.number,
            "hash": tip.hash.to_string(),
            "time_unix_s": tip.time_s,
            "settled_number": self.chain.settled().number,
            "signers": signers.len(),
            "schedule": {
                "period_s": self.network.period_s,
                "signers": signers.iter().map(Address::to_string).collect::<Vec<_>>(),
            },
            "endpoints": self.endpoints.to_json(),
        })
    }

    async fn take_from(
        &mut self,
        place: usize,
        now_s: u64,
        round: &mut Round,
    ) -> Result<Result<(), Fault>, FollowError> {
        let endpoint = Arc::clone(&self.sources[place].endpoint);
        let endpoints = self.endpoints.clone();
        let rpc = EthereumRpc::new(&endpoints, &endpoint);
        if !self.sources[place].is_of_chain {
            match rpc.chain_id().await {
                Ok(found) if found == self.settings.chain_id => self.sources[place].is_of_chain = true,
                Ok(found) => {
                    let detail =
                        format!("it is of chain {found}, chain.dpos_chain_id is {}", self.settings.chain_id);
                    return Ok(Err(Fault::lie(Lie::OtherChain, detail)));
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let (fork, last) = match self.fork_with(&rpc).await {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut next = fork + 1;
        let turn_end = last.min(fork.saturating_add(BATCHES_A_ROUND * BATCH_HEADERS));
        while next <= turn_end {
            let end = turn_end.min(next + BATCH_HEADERS - 1);
            let headers = match fetch_headers(&self.network, &rpc, next, end).await {
                Ok(headers) => headers,
                Err(fault) => return Ok(Err(fault)),
            };
            let taken = self.accept(headers, now_s);
            self.keep(round)?;
            if let Err(fault) = taken {
                return Ok(Err(fault));
            }
            next = end + 1;
        }
        if turn_end < last {
            round.more = true;
            return Ok(Ok(()));
        }
        Ok(self.judge_branch(&rpc, fork, last).await)
    }

    /// The highest block that the endpoint has in common with the best branch, and the last that it says it has.
    async fn fork_with(&self, rpc: &EthereumRpc<'_>) -> Result<(u64, u64), Fault> {
        let last = rpc.tip_number().await?;
        let settled = self.chain.settled().number;
        let mut number = self.chain.tip().number.min(last);
        let mut step = 1;
        loop {
            if number < settled {
                return Err(Fault::Lacks(format!("its last block is {last}, block {settled} is settled")));
            }
            let bytes = fetch_header(rpc, number).await?;
            let expected = self.chain.at_number(number).map(|header| header.hash).unwrap_or_default();
            let found = keccak256(&bytes);
            if found == expected {
                return Ok((number, last));
            }
            if number == settled {
                let detail = format!("its block {number} is {found}, the settled one is {expected}");
                return Err(Fault::lie(Lie::OtherFork, detail));
            }
            number = number.saturating_sub(step).max(settled);
            step *= 2;
        }
    }

    fn accept(&mut self, headers: Vec<SignedHeader>, now_s: u64) -> Result<(), Fault> {
        let mut settled = Vec::new();
        for header in headers {
            let number = header.number;
            let is_wanted =
                self.settings.contracts.iter().any(|contract| has_logs_of(&header.logs_bloom, contract));
            self.chain.accept(header, now_s, &mut settled).map_err(|error| match error.rule {
                // A node amid a reorganisation, or a wrong clock here.
                Rule::UnknownParent { .. } | Rule::InFuture { .. } => Fault::Lacks(error.to_string()),
                _ => Fault::lie(Lie::ForgedHeader, error),
            })?;
            if is_wanted {
                self.candidates.insert(number);
            }
        }
        Ok(())
    }

    /// Writes down what is new on the best branch.
    fn keep(&mut self, round: &mut Round) -> Result<(), FollowError> {
        let tip = self.chain.tip().number;
        let Some((kept_tip, _)) = self.file.tip()? else { return Ok(()) };
        let mut same = tip.min(kept_tip);
        while same > self.chain.settled().number
            && self.file.get(same)?.map(|record| record.hash)
                != self.chain.at_number(same).map(|header| header.hash.0)
        {
            same -= 1;
        }
        // What is kept beyond a tip that is on the same branch was verified before a restart.
        if same < tip {
            let rows_before = self.table.rows().len();
            let records = self.records(same + 1, tip)?;
            if self.table.rows().len() > rows_before {
                self.table.write(&self.directory)?;
            }
            self.file.replace_from(same + 1, &records)?;
            round.added += records.len() as u64;
            round.removed += kept_tip - same;
            if kept_tip > same {
                tracing::info!(
                    fork = same,
                    removed = kept_tip - same,
                    "the consortium chain was reorganised"
                );
            }
        }
        let settled = self.chain.settled().number;
        // Candidates live in memory: following must go on from below them.
        let is_free = self.candidates.first().is_none_or(|first| *first > settled);
        if settled >= self.state_number + STATE_BLOCKS && is_free {
            write_public(&self.directory.dpos_state(), &self.chain.state())?;
            self.state_number = settled;
        }
        Ok(())
    }

    fn records(&mut self, first: u64, last: u64) -> Result<Vec<DposRecord>, FollowError> {
        let mut records = Vec::new();
        for number in first..=last {
            let Some(header) = self.chain.at_number(number) else { break };
            let in_turn = self.chain.in_turn(&header.hash).unwrap_or(header.signer);
            records.push(DposRecord::of(header, in_turn, &mut self.table)?);
        }
        Ok(records)
    }

    /// Whether the endpoint's branch, which is in the tree now, is the best one.
    async fn judge_branch(&self, rpc: &EthereumRpc<'_>, fork: u64, last: u64) -> Result<(), Fault> {
        let tip = self.chain.tip().number;
        if fork >= last || tip.saturating_sub(fork) <= LAG_BLOCKS_MAX {
            return Ok(());
        }
        let found = keccak256(fetch_header(rpc, last).await?);
        if self.chain.is_best(&found) || self.chain.get(&found).is_none() {
            return Ok(());
        }
        let detail = format!(
            "it branches off at block {fork} and has {found} as block {last}; others have proved a better branch up to {tip}"
        );
        Err(Fault::lie(Lie::OtherFork, detail))
    }
}

/// Whether a block may have logs of a contract.
fn has_logs_of(bloom: &Bloom, contract: &Address) -> bool {
    bloom.contains_input(alloy_primitives::BloomInput::Raw(&contract[..]))
}
