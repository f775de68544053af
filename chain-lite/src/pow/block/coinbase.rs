//! What a block may mint and to whom, as far as the block alone shows it.

use thiserror::Error;

use crate::Hash;
use crate::pow::block::amount::Amount;
use crate::pow::block::transaction::{COIN_ASSET, OutPoint, Transaction};
use crate::wallet::ProgramHash;

/// Blocks that must stand on a coinbase's block before a block can spend its outputs.
pub const COINBASE_MATURITY_BLOCKS: u32 = 100;

/// Height of the first block that may spend the outputs of a coinbase in the block at `height`: 100 blocks
/// stand between the two, one more than in Bitcoin.
pub fn matures_at(height: u32) -> u64 {
    u64::from(height) + u64::from(COINBASE_MATURITY_BLOCKS) + 1
}

/// What coinbases are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinbaseRules {
    /// What a block mints besides the fees of its transactions.
    pub subsidy: Amount,
    /// Who must get part of it, and how much at least. The miner takes the rest and the fees.
    pub arbitrators: Option<(ProgramHash, Amount)>,
    /// The asset that is minted.
    pub asset: Hash,
}

impl CoinbaseRules {
    /// The white paper's rules: 24 coins, of which at least 20 are for the arbitrators.
    pub const fn new(arbitrators: ProgramHash) -> CoinbaseRules {
        CoinbaseRules {
            subsidy: Amount::coins(24),
            arbitrators: Some((arbitrators, Amount::coins(20))),
            asset: COIN_ASSET,
        }
    }

    /// The rules of the last public node: 4 coins for the miner, nothing for the arbitrators.
    pub const DEPLOYED: CoinbaseRules =
        CoinbaseRules { subsidy: Amount::coins(4), arbitrators: None, asset: COIN_ASSET };

    /// Holds the first transaction of the block at `height` to the rules. `fees` are those of the block's
    /// other transactions. Without them the sum has a lower bound only: to know what a transaction pays as
    /// fee takes the transactions that its inputs name, which a light client need not have. Then
    /// [`Reward::fees`] is what the miner says.
    pub fn check(
        &self,
        coinbase: &Transaction<'_>,
        height: u32,
        fees: Option<Amount>,
    ) -> Result<Reward, CoinbaseError> {
        if !coinbase.is_coinbase() {
            return Err(CoinbaseError::Type { found: coinbase.payload().type_byte() });
        }
        let count = coinbase.inputs().len();
        match coinbase.inputs().next() {
            Some(input) if count == 1 && input.previous == OutPoint::NULL => {}
            Some(input) if count == 1 => return Err(CoinbaseError::Input { found: input.previous }),
            _ => return Err(CoinbaseError::Inputs { count }),
        }
        if coinbase.lock_time() != height {
            return Err(CoinbaseError::LockTime { height, found: coinbase.lock_time() });
        }
        let reward = self.sum(coinbase)?;
        match fees {
            Some(fees) if reward.fees != fees => {
                Err(CoinbaseError::Total { subsidy: self.subsidy, fees, found: reward.total })
            }
            None if reward.fees < Amount::default() => {
                Err(CoinbaseError::BelowSubsidy { subsidy: self.subsidy, found: reward.total })
            }
            _ => Ok(reward),
        }
    }

    fn sum(&self, coinbase: &Transaction<'_>) -> Result<Reward, CoinbaseError> {
        let (mut total, mut arbitrators) = (0_i64, 0_i64);
        for (output, paid) in (0..=u16::MAX).zip(coinbase.outputs()) {
            if paid.asset != self.asset {
                return Err(CoinbaseError::Asset { output, found: paid.asset });
            }
            if paid.value < Amount::default() {
                return Err(CoinbaseError::Negative { output, found: paid.value });
            }
            total = total.checked_add(paid.value.0).ok_or(CoinbaseError::Overflow { output })?;
            if self.arbitrators.is_some_and(|(account, _)| account == paid.recipient) {
                // At most the total, which fits.
                arbitrators += paid.value.0;
            }
        }
        if let Some((account, least)) = self.arbitrators
            && arbitrators < least.0
        {
            return Err(CoinbaseError::Arbitrators { account, least, found: Amount(arbitrators) });
        }
        // Both are at least zero, so that their difference fits.
        let fees = Amount(total - self.subsidy.0);
        Ok(Reward {
            total: Amount(total),
            arbitrators: Amount(arbitrators),
            miner: Amount(total - arbitrators),
            fees,
        })
    }
}

/// Who gets what from a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reward {
    /// All of it.
    pub total: Amount,
    /// What the arbitrators' account gets.
    pub arbitrators: Amount,
    /// What everybody else gets.
    pub miner: Amount,
    /// What is above the subsidy.
    pub fees: Amount,
}

/// Why a transaction cannot be the first of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CoinbaseError {
    /// It is of another type.
    #[error("a block's first transaction is a coinbase (type 0), not of type {found}")]
    Type {
        /// The type.
        found: u8,
    },
    /// It has no input or several.
    #[error("a coinbase has one input, not {count}")]
    Inputs {
        /// How many it has.
        count: usize,
    },
    /// It spends something.
    #[error("a coinbase spends nothing ({}), not {found}", OutPoint::NULL)]
    Input {
        /// What it spends.
        found: OutPoint,
    },
    /// Its lock time is not the block's height. Maturity counts from the lock time in the deployed nodes,
    /// which do not check it: with another one the outputs can be spent too early.
    #[error("the coinbase's lock time is {found}, the block's height is {height}")]
    LockTime {
        /// The block's height.
        height: u32,
        /// The lock time.
        found: u32,
    },
    /// It mints something else.
    #[error("output {output} of the coinbase is of asset {found}")]
    Asset {
        /// Number of the output.
        output: u16,
        /// Its asset.
        found: Hash,
    },
    /// It pays less than nothing.
    #[error("output {output} of the coinbase pays {found}")]
    Negative {
        /// Number of the output.
        output: u16,
        /// Its value.
        found: Amount,
    },
    /// The sum does not fit.
    #[error("with output {output} the coinbase pays more than {}", Amount(i64::MAX))]
    Overflow {
        /// Number of the output.
        output: u16,
    },
    /// The arbitrators get too little.
    #[error("the arbitrators' account {account} gets {found}, at least {least} are due")]
    Arbitrators {
        /// Their account.
        account: ProgramHash,
        /// What is due.
        least: Amount,
        /// What it gets.
        found: Amount,
    },
    /// The sum is not what is due.
    #[error("the coinbase pays {found}, {subsidy} and {fees} of fees are due")]
    Total {
        /// What a block mints.
        subsidy: Amount,
        /// The fees.
        fees: Amount,
        /// What it pays.
        found: Amount,
    },
    /// The sum is below what is due even without fees.
    #[error("the coinbase pays {found}, {subsidy} are due even without fees")]
    BelowSubsidy {
        /// What a block mints.
        subsidy: Amount,
        /// What it pays.
        found: Amount,
    },
}
