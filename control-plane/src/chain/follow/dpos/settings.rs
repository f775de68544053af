//! What the follower of the consortium chain is set to.

use crate::configuration::Chain;
use crate::configuration::chain::{DposCheckpoint, EndpointUrl};
use alloy_primitives::Address;
use chain_lite::dpos::{Header, Network};
use std::time::Duration;

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
    pub(super) fn network(&self, checkpoint: &Header<'_>) -> Network {
        Network {
            chain_id: self.chain_id,
            period_s: self.period_s,
            epoch_blocks: self.epoch_blocks,
            london_block: checkpoint.base_fee_wei.map(|_| 0),
            ..Network::consortium(self.chain_id)
        }
    }
}
