//! Following the consortium chain: headers by number, signers recovered on two threads, the tree and the fork
//! choice of `chain-lite`.

use super::{BATCHES_A_ROUND, FollowError, LAG_BLOCKS_MAX, LAG_ROUNDS_MAX, Round, random, together};
use crate::chain::ethereum_json::header_rlp;
use crate::chain::headers::{DposRecord, HeaderFile, Page, SignerTable};
use crate::chain::place::{ChainDirectory, FollowerLock, read_if_any, write_public};
use crate::chain::rpc::{Endpoint, Endpoints, EthereumRpc, Fault, Lie};
use crate::configuration::Chain;
use crate::configuration::chain::{DposCheckpoint, EndpointUrl, show_hex};
use crate::data_directory::DataDirectoryError;
use alloy_primitives::{Address, B256, Bloom, keccak256};
use chain_lite::dpos::{
    Checkpoint, Header, HeaderChain, Network, Rule, SEAL_LEN, SignedHeader, VANITY_LEN, WINDOW_BLOCKS,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Headers that are asked for before what came is verified and kept; fewer than the window of the tree.
const BATCH_HEADERS: u64 = 256;

/// Headers that are asked for at once.
const REQUESTS_AT_ONCE: usize = 16;

/// Settled blocks after which the place to go on from is written down again. As many headers, and a window of them,
/// are fetched twice after a restart.
const STATE_BLOCKS: u64 = 128;

/// What the follower is set to.
#[derive(Clone, Debug)]
pub struct DposSettings {
    /// Whom to ask.
    pub endpoints: Vec<EndpointUrl>,
    /// The chain's number; 0 for whatever the endpoints say, since the checkpoint names the chain.
    pub chain_id: u64,
    /// Seconds between two blocks.
    pub period_s: u64,
    /// Blocks between two epoch blocks.
    pub epoch_blocks: u64,
    /// Where to begin.
    pub checkpoint: DposCheckpoint,
    /// The age from which a checkpoint is stale.
    pub stale_after_s: u64,
    /// Contracts whose events somebody wants: blocks whose filter has one of them are remembered.
    pub contracts: Vec<Address>,
    /// The wait between rounds.
    pub poll: Duration,
}

impl DposSettings {
    /// The settings in a configuration, which has been checked.
    pub fn of(settings: &Chain) -> DposSettings {
        let contracts = [settings.workload_contract, settings.authorisation_contract];
        DposSettings {
            endpoints: settings.dpos_endpoints.clone(),
            chain_id: settings.dpos_chain_id,
            period_s: settings.dpos_period_s,
            epoch_blocks: settings.dpos_epoch,
            checkpoint: settings.dpos_checkpoint.unwrap_or(DposCheckpoint { number: 0, hash: [0; 32] }),
            stale_after_s: settings.checkpoint_age_days_max * 86_400,
            contracts: contracts.into_iter().flatten().map(|address| Address::new(address.0)).collect(),
            poll: Duration::from_secs((settings.dpos_period_s / 2).clamp(1, 15)),
        }
    }

    /// The rules of the chain whose checkpoint has this header. The base fee is there from the beginning or never.
    fn network(&self, checkpoint: &Header<'_>) -> Network {
        Network {
            chain_id: self.chain_id,
            period_s: self.period_s,
            epoch_blocks: self.epoch_blocks,
            london_block: checkpoint.base_fee_wei.map(|_| 0),
            ..Network::consortium(self.chain_id)
        }
    }
}

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
    lag_rounds: u32,
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
            lag_rounds: 0,
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
        let due = self.endpoints.in_order();
        for place in 0..self.sources.len() {
            let endpoint = Arc::clone(&self.sources[place].endpoint);
            if !due.iter().any(|one| one.url == endpoint.url) {
                continue;
            }
            match self.take_from(place, now_s, &mut round).await? {
                Ok(()) => round.answered += 1,
                Err(fault) => {
                    endpoint.note(&fault);
                    if matches!(fault, Fault::Lie { .. } | Fault::Lacks(_)) {
                        round.answered += 1;
                    }
                    tracing::debug!(endpoint = %endpoint.url, %fault, "no headers");
                }
            }
        }
        self.judge_lag();
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
        let signers = self.chain.snapshot(&tip.hash).map_or(0, |snapshot| snapshot.signers().len());
        json!({
            "number": tip.number,
            "hash": tip.hash.to_string(),
            "time_unix_s": tip.time_s,
            "settled_number": self.chain.settled().number,
            "signers": signers,
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
            let headers = match self.fetch(&rpc, next, end).await {
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

    /// Headers from `first` to `last`, their signers recovered by two threads.
    async fn fetch(&self, rpc: &EthereumRpc<'_>, first: u64, last: u64) -> Result<Vec<SignedHeader>, Fault> {
        let numbers: Vec<_> = (first..=last).collect();
        let mut all = Vec::with_capacity(numbers.len());
        for some in numbers.chunks(REQUESTS_AT_ONCE) {
            for bytes in together(some.iter().map(|&number| fetch_header(rpc, number))).await {
                all.push(bytes?);
            }
        }
        let network = self.network;
        let behind = all.split_off(all.len() / 2);
        let threads = [all, behind]
            .map(|part| tokio::task::spawn_blocking(move || SignedHeader::read_all(&network, &part)));
        let mut headers = Vec::new();
        for thread in threads {
            // It does not panic, and is not cancelled.
            let part = thread.await.map_err(|error| Fault::Lacks(error.to_string()))?;
            headers.extend(part.map_err(|error| Fault::lie(Lie::ForgedHeader, error))?);
        }
        Ok(headers)
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

    fn judge_lag(&mut self) {
        let tip = self.chain.tip().number;
        for source in &mut self.sources {
            let Some(said) = source.endpoint.standing().last_word() else { continue };
            if said + LAG_BLOCKS_MAX >= tip {
                source.lag_rounds = 0;
                continue;
            }
            source.lag_rounds = source.lag_rounds.saturating_add(1);
            if source.lag_rounds == LAG_ROUNDS_MAX {
                let detail = format!("it says that its last block is {said}, others have proved {tip}");
                source.endpoint.note(&Fault::lie(Lie::WithheldHeaders, detail));
            }
        }
    }
}

/// The header at a number, as its hash covers it: raw if the endpoint gives it so, else rebuilt from the block's
/// JSON. What is neither is no header of the chain, whoever made it so.
pub async fn fetch_header(rpc: &EthereumRpc<'_>, number: u64) -> Result<Vec<u8>, Fault> {
    let bytes = match rpc.raw_header(number).await {
        Ok(bytes) => bytes,
        Err(Fault::Rpc(error)) if !error.is_unknown_method() => return Err(error.into()),
        Err(_) => {
            let block = rpc.block(number).await?;
            let bytes =
                header_rlp(&block).map_err(|error| Fault::Lacks(format!("block {number}: {error}")))?;
            let said = crate::chain::ethereum_json::hash(&block, "hash");
            if said != Ok(keccak256(&bytes)) {
                let detail = format!("the fields of its block {number} do not give the hash that it says");
                return Err(Fault::lie(Lie::ForgedHeader, detail));
            }
            bytes
        }
    };
    let header = Header::decode(&bytes).map_err(|error| Fault::lie(Lie::ForgedHeader, error))?;
    if header.number != number {
        let detail = format!("asked for block {number}, it sent block {}", header.number);
        return Err(Fault::lie(Lie::ForgedHeader, detail));
    }
    Ok(bytes)
}

/// Whether a block may have logs of a contract.
fn has_logs_of(bloom: &Bloom, contract: &Address) -> bool {
    bloom.contains_input(alloy_primitives::BloomInput::Raw(&contract[..]))
}

/// The checkpoint's header: the one that is kept, or somebody's, which the hash vouches for.
async fn checkpoint_header(
    settings: &DposSettings,
    directory: &ChainDirectory,
    endpoints: &Endpoints,
) -> Result<Vec<u8>, FollowError> {
    let DposCheckpoint { number, hash } = settings.checkpoint;
    let path = directory.dpos_checkpoint();
    if let Some(kept) = read_if_any(&path)?.filter(|kept| keccak256(kept) == B256::new(hash)) {
        return Ok(kept);
    }
    let fetched = endpoints.first("the header of chain.dpos_checkpoint", |endpoint| {
        let endpoints = endpoints.clone();
        async move {
            let bytes = fetch_header(&EthereumRpc::new(&endpoints, &endpoint), number).await?;
            let found = keccak256(&bytes);
            if found != B256::new(hash) {
                let detail = format!("its block {number} is {found}, the checkpoint is {}", show_hex(&hash));
                return Err(Fault::lie(Lie::OtherChain, detail));
            }
            Ok(bytes)
        }
    });
    let bytes = fetched.await?;
    write_public(&path, &bytes)?;
    Ok(bytes)
}

/// The files of the chain that has this checkpoint. A checkpoint among the headers that are kept changes nothing;
/// one that is not among them begins a new file.
fn open_files(
    settings: &DposSettings,
    directory: &ChainDirectory,
    checkpoint: &Header<'_>,
) -> Result<(HeaderFile<DposRecord>, SignerTable), FollowError> {
    let path = directory.dpos_headers();
    let DposCheckpoint { number, hash } = settings.checkpoint;
    if path.exists() {
        let (file, opened) = HeaderFile::<DposRecord>::open_to_write(&path)?;
        if opened.cut_bytes > 0 {
            tracing::warn!(path = %path.display(), opened.records, opened.cut_bytes, "cut behind the verified headers");
        }
        if file.get(number)?.is_some_and(|record| record.hash == hash) {
            return Ok((file, SignerTable::read(directory)?));
        }
        tracing::warn!(
            number,
            "the checkpoint is not among the kept headers of the consortium chain: beginning at it"
        );
    }
    let page = Page { anchor: hash, first: number, chain_id: settings.chain_id };
    let file = HeaderFile::create(&path, page)?;
    match std::fs::remove_file(directory.dpos_watched()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = directory.dpos_watched();
            return Err(DataDirectoryError::Write { path, source: error }.into());
        }
        _ => {}
    }
    let record = DposRecord {
        hash,
        state_root: checkpoint.state_root.0,
        receipts_root: checkpoint.receipts_root.0,
        time_s: checkpoint.time_s,
        signer: DposRecord::NO_SIGNER,
        in_turn: DposRecord::NO_SIGNER,
    };
    file.append(&[record])?;
    Ok((file, SignerTable::default()))
}

/// The tree from where the last follower wrote down to, if the headers up to there are kept, else from the
/// checkpoint.
fn open_chain(
    settings: &DposSettings,
    directory: &ChainDirectory,
    network: &Network,
    header: &Header<'_>,
    bytes: &[u8],
    file: &HeaderFile<DposRecord>,
) -> Result<HeaderChain, FollowError> {
    let seed = u64::from_le_bytes(random());
    if let Some(state) = read_if_any(&directory.dpos_state())? {
        match HeaderChain::resume(*network, &state, WINDOW_BLOCKS, seed) {
            Ok(chain) => {
                let settled = chain.settled();
                let is_kept = file.get(settled.number)?.is_some_and(|record| record.hash == settled.hash.0);
                if is_kept && settled.number >= settings.checkpoint.number {
                    return Ok(chain);
                }
            }
            Err(error) => tracing::warn!(%error, "following begins at the checkpoint again"),
        }
    }
    let signers =
        header.extra.get(VANITY_LEN..header.extra.len().saturating_sub(SEAL_LEN)).unwrap_or_default();
    let checkpoint = Checkpoint {
        number: settings.checkpoint.number,
        hash: B256::new(settings.checkpoint.hash),
        time_s: header.time_s,
        signers: signers.chunks_exact(20).map(Address::from_slice).collect(),
    };
    HeaderChain::from_checkpoint(*network, &checkpoint, bytes, WINDOW_BLOCKS, seed)
        .map_err(|error| wrong_checkpoint(&error))
}

fn wrong_checkpoint(error: &dyn std::fmt::Display) -> FollowError {
    FollowError::Settings(format!("chain.dpos_checkpoint: {error}"))
}
