//! A fixed quota split by contribution.

use ruint::aliases::U256;
use thiserror::Error;

use super::Coins;

/// Why a quota was not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// Nobody contributed anything, so there is nobody to give to.
    #[error("{nodes} nodes, and none of them contributed anything")]
    NoContribution {
        /// How many nodes there are.
        nodes: usize,
    },
    /// The contributions together do not fit 128 bits.
    #[error("the contributions of {nodes} nodes do not fit 128 bits together")]
    Overflow {
        /// How many nodes there are.
        nodes: usize,
    },
}

/// Splits `quota` in proportion to `contributions`, by the largest remainder: each gets its share rounded
/// down, and the units that are left go, one each, to those from whom the most was cut off. The parts add up to
/// the quota to the last unit. Between equal remainders the one that comes first wins, so who calls this
/// must have an order of its own: ascending UIDs, as in a day's tree.
///
/// 48 bytes a node are held while it runs.
pub fn split(quota: Coins, contributions: &[u128]) -> Result<Vec<Coins>, QuotaError> {
    let nodes = contributions.len();
    let sum = contributions.iter().try_fold(0_u128, |sum, &contribution| sum.checked_add(contribution));
    let sum = sum.ok_or(QuotaError::Overflow { nodes })?;
    if sum == 0 {
        return Err(QuotaError::NoContribution { nodes });
    }
    let (quota_wide, sum_wide) = (U256::from(quota.units()), U256::from(sum));
    let mut parts = Vec::with_capacity(nodes);
    let mut remainders = Vec::with_capacity(nodes);
    let mut left = quota.units();
    for (index, &contribution) in contributions.iter().enumerate() {
        // 64 bits by 128 bits fit.
        let (part, remainder) = (quota_wide * U256::from(contribution)).div_rem(sum_wide);
        let part: u64 = part.to();
        left -= part;
        parts.push(part);
        remainders.push((remainder.to::<u128>(), index));
    }
    // What is left is the remainders' sum divided by `sum`, so fewer units than there are remainders above
    // zero: who contributed nothing gets nothing.
    let winners = usize::try_from(left).expect("fewer units are left than there are nodes");
    if winners > 0 {
        let largest_first = |a: &(u128, usize), b: &(u128, usize)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        let (chosen, last, _) = remainders.select_nth_unstable_by(winners - 1, largest_first);
        for &mut (_, index) in chosen.iter_mut().chain([last]) {
            parts[index] += 1;
        }
    }
    Ok(parts.into_iter().map(Coins::from_units).collect())
}
