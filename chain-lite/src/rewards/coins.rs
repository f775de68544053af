//! Amounts of the coin.

use std::fmt;

/// An amount in units of 10^-8 coins. All coins that are planned are 2 * 10^16 units, so 64 bits hold any sum
/// of real amounts; a sum that they do not hold is an error of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coins(u64);

impl Coins {
    /// Nothing.
    pub const ZERO: Coins = Coins(0);
    /// Units in a coin.
    pub const UNITS_PER_COIN: u64 = 100_000_000;
    /// All coins that are planned: 200,000,000.
    pub const PLANNED: Coins = Coins::whole(200_000_000);

    /// So many units of 10^-8 coins.
    pub const fn from_units(units: u64) -> Coins {
        Coins(units)
    }

    /// So many coins.
    pub const fn whole(coins: u32) -> Coins {
        // 2^32 * 10^8 is below 2^59.
        Coins(coins as u64 * Coins::UNITS_PER_COIN)
    }

    /// Units of 10^-8 coins.
    pub const fn units(self) -> u64 {
        self.0
    }

    /// The sum, if it fits.
    pub fn checked_add(self, other: Coins) -> Option<Coins> {
        self.0.checked_add(other.0).map(Coins)
    }

    /// The difference, if it is not negative.
    pub fn checked_sub(self, other: Coins) -> Option<Coins> {
        self.0.checked_sub(other.0).map(Coins)
    }

    /// So many times the amount, if that fits.
    pub fn checked_mul(self, times: u64) -> Option<Coins> {
        self.0.checked_mul(times).map(Coins)
    }

    /// `numerator / denominator` of the amount, rounded down to whole units.
    ///
    /// # Panics
    /// If the fraction is above one, or its denominator zero.
    pub(super) fn fraction(self, numerator: u64, denominator: u64) -> Coins {
        assert!(
            numerator <= denominator && denominator > 0,
            "{numerator}/{denominator} is no part of a whole"
        );
        let units = u128::from(self.0) * u128::from(numerator) / u128::from(denominator);
        Coins(u64::try_from(units).expect("a part of 64 bits fits 64 bits"))
    }

    /// The sum of amounts, if it fits.
    pub fn checked_sum(amounts: impl IntoIterator<Item = Coins>) -> Option<Coins> {
        amounts.into_iter().try_fold(Coins::ZERO, Coins::checked_add)
    }
}

/// Eight decimals, as `24.00000000`.
impl fmt::Display for Coins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08}", self.0 / Coins::UNITS_PER_COIN, self.0 % Coins::UNITS_PER_COIN)
    }
}
