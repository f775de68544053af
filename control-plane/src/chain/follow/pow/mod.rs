//! Following the public chain: the two-phase header sync of `chain-lite`, one for each endpoint, fed by height and
//! hash, as its nodes are asked.

mod open;

use super::lag::{LAG_BLOCKS_MAX, Lag};
use super::{BATCHES_A_ROUND, FollowError, Round, random};
use crate::chain::headers::{HeaderFile, Page, PowRecord};
use crate::chain::place::{ChainDirectory, FollowerLock};
use crate::chain::rpc::{Endpoint, Endpoints, Fault, Lie, MainChainRpc};
use crate::configuration::Chain;
use crate::configuration::chain::{EndpointUrl, PowNetwork};
use chain_lite::Hash;
use chain_lite::pow::{
    BlockHeader, BlockId, Checkpoint, Header, HeaderChain, HeaderSync, Network, Rule, Step, SyncError,
    SyncSettings,
};
use futures_util::future::join_all;
use open::{fetch_genesis, open_file, restore};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Headers that are asked for before what came is verified and kept. Each comes with its whole block.
const BATCH_HEADERS: u32 = 256;

/// Blocks that are asked for at once.
const REQUESTS_AT_ONCE: usize = 8;

/// What the follower is set to.
#[derive(Clone, Debug)]
pub struct PowSettings {
    /// Whom to ask.
    pub endpoints: Vec<EndpointUrl>,
    /// What headers are held to.
    pub network: Network,
    /// Hash of the genesis block.
    pub genesis: Hash,
    /// Blocks that are known to be on the chain.
    pub checkpoints: Vec<Checkpoint>,
    /// The wait between rounds.
    pub poll: Duration,
}

impl PowSettings {
    /// The settings in a configuration, which has been checked.
    pub fn of(settings: &Chain) -> PowSettings {
        let (network, poll_s) = match settings.pow_network {
            PowNetwork::Main => (Network::MAIN, 20),
            PowNetwork::Test => (Network::TEST, 5),
            PowNetwork::Reg => (Network::REG, 1),
        };
        PowSettings {
            endpoints: settings.pow_endpoints.clone(),
            network,
            genesis: settings.pow_genesis.unwrap_or(Hash::ZERO),
            checkpoints: settings
                .pow_checkpoint
                .iter()
                .map(|known| Checkpoint { height: known.height, hash: known.hash })
                .collect(),
            poll: Duration::from_secs(poll_s),
        }
    }
}

/// The follower of the public chain.
#[derive(Debug)]
pub struct PowFollower {
    endpoints: Endpoints,
    chain: HeaderChain,
    file: HeaderFile<PowRecord>,
    sources: Vec<Source>,
}

/// One endpoint and how far its headers are known.
#[derive(Debug)]
struct Source {
    endpoint: Arc<Endpoint>,
    sync: HeaderSync,
    lag: Lag,
}

impl PowFollower {
    /// Goes on from the headers that are kept, or from the genesis block, which the first endpoint that has it
    /// is asked for.
    pub async fn open(
        settings: &PowSettings,
        directory: &ChainDirectory,
        _lock: &FollowerLock,
    ) -> Result<PowFollower, FollowError> {
        let endpoints = Endpoints::new(&settings.endpoints).map_err(FollowError::Roots)?;
        let file = match open_file(settings, directory)? {
            Some(file) => file,
            None => {
                let genesis = fetch_genesis(&endpoints, settings.genesis).await?;
                let page = Page { anchor: settings.genesis.0, first: 0, chain_id: 0 };
                let file = HeaderFile::create(&directory.pow_headers(), page)?;
                file.append(&[PowRecord::of(&genesis)])?;
                file
            }
        };
        let chain = restore(settings, &file)?;
        let sources = endpoints.all().iter().map(|endpoint| Source {
            endpoint: Arc::clone(endpoint),
            sync: HeaderSync::new(SyncSettings::default(), random()),
            lag: Lag::default(),
        });
        let sources = sources.collect();
        Ok(PowFollower { endpoints, chain, file, sources })
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
        let tip = u64::from(self.chain.tip().height);
        self.sources.iter_mut().for_each(|source| source.lag.judge(&source.endpoint, tip));
        Ok(round)
    }

    /// The best branch.
    pub fn chain(&self) -> &HeaderChain {
        &self.chain
    }

    /// The endpoints and what is known of them.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What it has, for people and programs.
    pub fn to_json(&self) -> Value {
        let tip = self.chain.tip();
        json!({
            "height": tip.height,
            "hash": self.chain.tip_hash().to_string(),
            "time_unix_s": tip.time_s,
            "work": self.chain.work().to_string(),
            "endpoints": self.endpoints.to_json(),
        })
    }

    /// Follows one endpoint until it has no more, or others must have their turn.
    async fn take_from(
        &mut self,
        place: usize,
        now_s: u64,
        round: &mut Round,
    ) -> Result<Result<(), Fault>, FollowError> {
        let endpoint = Arc::clone(&self.sources[place].endpoint);
        let endpoints = self.endpoints.clone();
        let rpc = MainChainRpc::new(&endpoints, &endpoint);
        let height = match rpc.tip_height().await {
            Ok(height) => height,
            Err(fault) => return Ok(Err(fault)),
        };
        for _ in 0..BATCHES_A_ROUND {
            let locator = self.sources[place].sync.locator(&self.chain);
            let start = match common_block(&rpc, &locator, height).await {
                Ok(Some(start)) => start,
                Ok(None) => {
                    let genesis = self.chain.at_height(0).map(BlockHeader::hash).unwrap_or_default();
                    let detail = format!("it has none of our blocks, nor genesis block {genesis}");
                    return Ok(Err(Fault::lie(Lie::OtherChain, detail)));
                }
                Err(fault) => return Ok(Err(fault)),
            };
            let last = height.min(start.height.saturating_add(BATCH_HEADERS));
            let bytes = match fetch_headers(&rpc, start.height + 1, last).await {
                Ok(bytes) => bytes,
                Err(fault) => return Ok(Err(fault)),
            };
            let mut headers = Vec::with_capacity(bytes.len());
            for bytes in &bytes {
                match Header::decode_front(bytes) {
                    Ok((header, _)) => headers.push(header),
                    Err(error) => return Ok(Err(Fault::lie(Lie::ForgedHeader, error))),
                }
            }
            let taken = self.sources[place].sync.take(&mut self.chain, &headers, last < height, now_s);
            self.keep(round)?;
            match taken {
                Ok(Step::Ask(_)) => {}
                Ok(Step::CaughtUp) => {
                    let last = headers.last().map_or(start.hash, |header| header.block.hash());
                    return Ok(self.judge_side_branch(last, height));
                }
                Ok(Step::TooLittleWork { found, required }) => {
                    return Ok(self.judge_weak_branch(
                        start,
                        height,
                        &found.to_string(),
                        &required.to_string(),
                    ));
                }
                Err(error) => return Ok(Err(fault_of(&error))),
            }
        }
        round.more = true;
        Ok(Ok(()))
    }

    /// A branch that is not worth keeping: of a node that is a few blocks behind, or of one that would have us on
    /// another fork.
    fn judge_weak_branch(
        &self,
        start: BlockId,
        height: u32,
        found: &str,
        required: &str,
    ) -> Result<(), Fault> {
        // The source is asked block by block: `start` is the last one that it shares with the best branch, or the
        // last of a download that has come to its end.
        let fork = match self.chain.is_best(&start.hash) {
            true => start.height,
            false => 0,
        };
        if u64::from(self.chain.tip().height.saturating_sub(fork)) <= LAG_BLOCKS_MAX {
            return Ok(());
        }
        let detail = format!(
            "its branch up to height {height} has work {found}, {required} is needed and proved by others"
        );
        Err(Fault::lie(Lie::OtherFork, detail))
    }

    /// A branch that was taken in and is not the best: as above.
    fn judge_side_branch(&self, last: Hash, height: u32) -> Result<(), Fault> {
        let mut fork = last;
        let mut fork_height = height;
        while let Some(block) = self.chain.get(&fork).filter(|_| !self.chain.is_best(&fork)) {
            fork = block.previous;
            fork_height = block.height.saturating_sub(1);
        }
        let tip = self.chain.tip().height;
        if fork == last || u64::from(tip.saturating_sub(fork_height)) <= LAG_BLOCKS_MAX {
            return Ok(());
        }
        let detail = format!(
            "it branches off at height {fork_height} and has block {last} at height {height}; \
             others have proved more work up to height {tip}"
        );
        Err(Fault::lie(Lie::OtherFork, detail))
    }

    fn keep(&mut self, round: &mut Round) -> Result<(), FollowError> {
        let Some(changes) = self.chain.take_changes() else { return Ok(()) };
        let records: Vec<_> = self.chain.best_above(changes.kept.height).map(PowRecord::of).collect();
        self.file.replace_from(u64::from(changes.kept.height) + 1, &records)?;
        round.added += u64::from(changes.connected);
        round.removed += u64::from(changes.disconnected);
        if changes.disconnected > 0 {
            tracing::info!(
                fork_height = changes.kept.height,
                disconnected = changes.disconnected,
                connected = changes.connected,
                "the public chain was reorganised"
            );
        }
        Ok(())
    }
}

/// The first block of the locator that the endpoint has on its best branch.
async fn common_block(
    rpc: &MainChainRpc<'_>,
    locator: &[BlockId],
    height: u32,
) -> Result<Option<BlockId>, Fault> {
    for id in locator.iter().filter(|id| id.height <= height) {
        if rpc.hash_at(id.height).await? == id.hash {
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// Headers as they are sent, from `first` to `last`, both included, with what follows them cut off.
async fn fetch_headers(rpc: &MainChainRpc<'_>, first: u32, last: u32) -> Result<Vec<Vec<u8>>, Fault> {
    let heights: Vec<_> = (first..=last).collect();
    let mut headers = Vec::with_capacity(heights.len());
    for some in heights.chunks(REQUESTS_AT_ONCE) {
        let fetched = some.iter().map(|&height| async move {
            let hash = rpc.hash_at(height).await?;
            let mut block = rpc.block(&hash).await?;
            let (_, len) =
                Header::decode_front(&block).map_err(|error| Fault::lie(Lie::ForgedHeader, error))?;
            block.truncate(len);
            block.shrink_to_fit();
            Ok::<_, Fault>(block)
        });
        for header in join_all(fetched).await {
            headers.push(header?);
        }
    }
    Ok(headers)
}

/// Headers that do not hold are a lie, but for what may be a node amid a reorganisation or a wrong clock here.
fn fault_of(error: &SyncError) -> Fault {
    match error {
        SyncError::NotContinuous { .. } | SyncError::Unconnected { .. } => {
            Fault::Lacks(format!("{error}; it may be amid a reorganisation"))
        }
        SyncError::Header(header) if matches!(header.rule, Rule::InFuture { .. }) => {
            Fault::Lacks(error.to_string())
        }
        SyncError::Withheld { .. } => Fault::lie(Lie::WithheldHeaders, error),
        _ => Fault::lie(Lie::ForgedHeader, error),
    }
}
