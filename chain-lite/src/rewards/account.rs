//! What an account earned, what of it is free, and what it may withdraw.

use jiff::ToSpan;
use jiff::civil::Date;
use thiserror::Error;

use super::{Coins, Lock, ScheduleError};

/// Coins that were allotted to an account under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// How much.
    pub amount: Coins,
    /// How it comes free.
    pub lock: Lock,
    /// When the lock starts: the exchange listing for investors. `None` while that has no date; nothing comes
    /// free until it has one.
    pub start: Option<Date>,
}

/// What a day of work brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The day on which the work was done (UTC).
    pub day: Date,
    /// The account's part of that day's quota.
    pub amount: Coins,
}

/// Coins that an account took out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// When.
    pub date: Date,
    /// How much.
    pub amount: Coins,
}

/// Everything that made an account what it is, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What it was allotted.
    pub allocations: Vec<Allocation>,
    /// What it worked for.
    pub credits: Vec<Credit>,
    /// What it took out.
    pub withdrawals: Vec<Withdrawal>,
}

/// An account on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// What was allotted to it, and what days that are over brought.
    pub earned: Coins,
    /// What of that is free.
    pub released: Coins,
    /// What it took out.
    pub withdrawn: Coins,
    /// What it may take out now.
    pub available: Coins,
}

/// Why a history is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HistoryError {
    /// The amounts together are more than 64 bits hold.
    #[error("the sum of {what} until {date} does not fit 64 bits")]
    Overflow {
        /// What was summed.
        what: &'static str,
        /// The day of the statement.
        date: Date,
    },
    /// More was taken out than was free on that day.
    #[error("until {date}, {withdrawn} coins were withdrawn and {released} were free")]
    Overdrawn {
        /// The first day on which it does not hold.
        date: Date,
        /// What was taken out until then.
        withdrawn: Coins,
        /// What was free until then.
        released: Coins,
    },
    /// A lock has no schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// Days from a day of work to the first on which its coins are free: the root of a day is posted when it is
/// over, and final a day later.
const CREDIT_DELAY_DAYS: i32 = 2;

impl History {
    /// The account at the end of `date`. Every withdrawal until then must have been covered when it was made,
    /// not only by what came free since.
    pub fn statement(&self, date: Date) -> Result<Statement, HistoryError> {
        let mut withdrawals: Vec<_> = self.withdrawals.iter().filter(|taken| taken.date <= date).collect();
        withdrawals.sort_unstable_by_key(|taken| taken.date);
        let mut withdrawn = Coins::ZERO;
        for group in withdrawals.chunk_by(|a, b| a.date == b.date) {
            let overflow = HistoryError::Overflow { what: "withdrawals", date };
            let taken = Coins::checked_sum(group.iter().map(|taken| taken.amount)).ok_or(overflow)?;
            withdrawn = withdrawn.checked_add(taken).ok_or(overflow)?;
            let (date, released) = (group[0].date, self.released(group[0].date)?);
            if withdrawn > released {
                return Err(HistoryError::Overdrawn { date, withdrawn, released });
            }
        }
        let released = self.released(date)?;
        let available =
            released.checked_sub(withdrawn).ok_or(HistoryError::Overdrawn { date, withdrawn, released })?;
        Ok(Statement { earned: self.earned(date)?, released, withdrawn, available })
    }

    /// Allocations, and credits of days before `date`.
    fn earned(&self, date: Date) -> Result<Coins, HistoryError> {
        let allotted = self.allocations.iter().map(|allocation| allocation.amount);
        let worked = self.credits.iter().filter(|credit| credit.day < date).map(|credit| credit.amount);
        Coins::checked_sum(allotted.chain(worked)).ok_or(HistoryError::Overflow { what: "earnings", date })
    }

    /// What of it is free on `date`.
    fn released(&self, date: Date) -> Result<Coins, HistoryError> {
        let overflow = HistoryError::Overflow { what: "earnings", date };
        let mut released = Coins::ZERO;
        for &Allocation { amount, lock, start } in &self.allocations {
            let Some(start) = start else { continue };
            released = released.checked_add(lock.released(amount, start, date)?).ok_or(overflow)?;
        }
        // A credit whose days run past the calendar is never free.
        let free = |credit: &&Credit| {
            credit.day.checked_add(CREDIT_DELAY_DAYS.days()).is_ok_and(|free_from| free_from <= date)
        };
        let worked = Coins::checked_sum(self.credits.iter().filter(free).map(|credit| credit.amount));
        released.checked_add(worked.ok_or(overflow)?).ok_or(overflow)
    }
}
