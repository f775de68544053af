//! What a Clique chain is set to, and the rules that need no more than a header and its parent.

use alloy_primitives::{Address, U256};

use crate::dpos::header::{EMPTY_UNCLES_HASH, Header, NONCE_AUTHORISE, NONCE_DROP, SEAL_LEN, VANITY_LEN};
use crate::dpos::rule::{HeaderField, Rule};

/// Arbitrators of the consortium chain.
pub const ARBITRATORS: usize = 51;

/// The least gas limit of a block (`params.MinGasLimit` of geth).
pub const GAS_LIMIT_MIN: u64 = 5_000;

/// The highest gas limit of a block: 2^63 - 1.
pub const GAS_LIMIT_MAX: u64 = i64::MAX as u64;

/// Base fee of the first block with one: 1 gwei (EIP-1559).
pub const FIRST_BASE_FEE_WEI: u64 = 1_000_000_000;

/// The settings of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// EIP-155 chain id; certificates are bound to it.
    pub chain_id: u64,
    /// Seconds from a block to the next, at least.
    pub period_s: u64,
    /// Blocks from one list of signers to the next; votes are forgotten there.
    pub epoch_blocks: u64,
    /// First block with a base fee, if there is to be one.
    pub london_block: Option<u64>,
    /// How many seconds a block may be ahead of this machine's clock.
    pub future_s_max: u64,
}

impl Network {
    /// The consortium chain as the white paper has it: a block every 30 s. `chain_id` is the operator's choice.
    pub const fn consortium(chain_id: u64) -> Network {
        Network { chain_id, period_s: 30, epoch_blocks: 30_000, london_block: Some(0), future_s_max: 15 }
    }

    /// Whether the block at this height carries the list of signers.
    pub const fn is_epoch(&self, number: u64) -> bool {
        number.is_multiple_of(self.epoch_blocks)
    }

    /// Whether the block at this height has a base fee.
    pub fn has_base_fee(&self, number: u64) -> bool {
        self.london_block.is_some_and(|london| number >= london)
    }

    /// The rules about a header by itself, in the order in which geth asks them.
    pub(super) fn check_form(&self, header: &Header<'_>) -> Result<(), Rule> {
        let epoch = self.is_epoch(header.number);
        if epoch && header.coinbase != Address::ZERO {
            return Err(Rule::EpochVote { coinbase: header.coinbase });
        }
        let voted = header.nonce == NONCE_AUTHORISE;
        if !voted && header.nonce != NONCE_DROP || epoch && voted {
            return Err(Rule::Nonce { found: header.nonce });
        }
        let Some(signers_len) = header.extra.len().checked_sub(VANITY_LEN + SEAL_LEN) else {
            return Err(Rule::ExtraShort { len: header.extra.len() });
        };
        if epoch && !signers_len.is_multiple_of(20) || !epoch && signers_len != 0 {
            return Err(Rule::ExtraSigners { len: signers_len });
        }
        if !header.mix_hash.is_zero() {
            return Err(Rule::Fixed { field: HeaderField::MixHash });
        }
        if header.uncles_hash != EMPTY_UNCLES_HASH {
            return Err(Rule::Fixed { field: HeaderField::UnclesHash });
        }
        if header.number > 0 && header.difficulty != U256::ONE && header.difficulty != U256::from(2) {
            return Err(Rule::Difficulty { found: header.difficulty });
        }
        if header.gas_limit > GAS_LIMIT_MAX || header.gas_used > header.gas_limit {
            return Err(Rule::GasUsed { used: header.gas_used, limit: header.gas_limit });
        }
        if header.base_fee_wei.is_some() != self.has_base_fee(header.number) {
            return Err(Rule::BaseFeePresence { expected: self.has_base_fee(header.number) });
        }
        Ok(())
    }

    /// The rules about gas that a child of `parent` must keep.
    pub(super) fn check_gas(&self, parent: &Gas, child: &Gas, number: u64) -> Result<(), Rule> {
        let first_with_fee = self.london_block == Some(number);
        // EIP-1559 doubles the limit once, so that its target is what the limit was.
        let limit = if first_with_fee { parent.limit.saturating_mul(2) } else { parent.limit };
        let (change, bound) = (limit.abs_diff(child.limit), limit / 1_024);
        if change >= bound || child.limit < GAS_LIMIT_MIN {
            return Err(Rule::GasLimit { parent: limit, found: child.limit });
        }
        if let Some(found) = child.base_fee_wei {
            let expected = parent.next_base_fee_wei();
            if found != expected {
                return Err(Rule::BaseFee { expected, found });
            }
        }
        Ok(())
    }
}

/// What a block says about gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gas {
    pub limit: u64,
    pub used: u64,
    pub base_fee_wei: Option<u64>,
}

impl Gas {
    /// The base fee of the block that follows (EIP-1559): an eighth up or down as the gas used is above or below
    /// half the limit.
    fn next_base_fee_wei(&self) -> u64 {
        let Some(fee) = self.base_fee_wei else { return FIRST_BASE_FEE_WEI };
        let target = u128::from((self.limit / 2).max(1));
        let used = u128::from(self.used);
        let change = used.abs_diff(target) * u128::from(fee) / target / 8;
        if used > target {
            // Above 2^64 wei a gas nothing can be paid; a header cannot say it either.
            u64::try_from(u128::from(fee) + change.max(1)).unwrap_or(u64::MAX)
        } else {
            fee - change as u64
        }
    }
}
