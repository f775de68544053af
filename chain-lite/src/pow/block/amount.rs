//! Amounts of coins: whole numbers of the hundred-millionth part.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Smallest units of one coin: amounts have 8 decimals.
pub const UNITS_PER_COIN: i64 = 100_000_000;

const DECIMALS: usize = 8;

/// A number of hundred-millionths of a coin. On the wire it has a sign, so that hostile bytes may hold a
/// negative one. As text it is a decimal number of coins: `24`, `0.0001`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i64);

impl Amount {
    /// So many whole coins, which must be below 92,233,720,368.
    pub const fn coins(coins: i64) -> Amount {
        Amount(coins * UNITS_PER_COIN)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.0.unsigned_abs();
        let (coins, rest) = (units / UNITS_PER_COIN.unsigned_abs(), units % UNITS_PER_COIN.unsigned_abs());
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{coins}")?;
        if rest > 0 {
            write!(f, ".{}", format!("{rest:08}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// There is something else than digits and one point between digits.
    #[error("an amount is written as digits, with a point before the decimals: 12.5")]
    Form,
    /// There are more decimals than the chain has.
    #[error("an amount has at most {DECIMALS} decimals, not {found}")]
    Decimals {
        /// How many there are.
        found: usize,
    },
    /// The amount does not fit 64 bits.
    #[error("an amount is at most {}", Amount(i64::MAX))]
    TooLarge,
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Amount, AmountError> {
        let (coins, decimals) = match text.split_once('.') {
            Some((_, "")) => return Err(AmountError::Form),
            Some((coins, decimals)) => (coins, decimals),
            None => (text, ""),
        };
        if coins.is_empty() || !coins.bytes().chain(decimals.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(AmountError::Form);
        }
        if decimals.len() > DECIMALS {
            return Err(AmountError::Decimals { found: decimals.len() });
        }
        let units = format!("{coins}{decimals:0<DECIMALS$}");
        units.parse().map(Amount).map_err(|_| AmountError::TooLarge)
    }
}
