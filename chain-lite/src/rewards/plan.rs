//! Who the planned coins are for, and when locked ones come free.

use jiff::ToSpan;
use jiff::civil::Date;
use thiserror::Error;

use super::Coins;

/// Shares of the planned coins that the white paper names. Team, consultants and whoever else share what is
/// left of the 97 % in the genesis block's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanShare {
    /// Angel investors, 5 %, locked by [`Lock::ANGEL`].
    Angel,
    /// Strategic investors, 5 %, locked by [`Lock::STRATEGIC`].
    Strategic,
    /// Sales, 20 %.
    Sales,
    /// Rewards of nodes, 35 %.
    NodeRewards,
    /// Promotion, 2 %.
    Promotion,
    /// All others in the genesis block, 30 %: the team ([`Lock::TEAM`]) and consultants ([`Lock::CONSULTANTS`])
    /// are among them.
    OtherGenesis,
    /// Not in the genesis block: what the first year's blocks release, 3 %.
    FirstYear,
}

impl PlanShare {
    /// All shares.
    pub const ALL: [PlanShare; 7] = [
        PlanShare::Angel,
        PlanShare::Strategic,
        PlanShare::Sales,
        PlanShare::NodeRewards,
        PlanShare::Promotion,
        PlanShare::OtherGenesis,
        PlanShare::FirstYear,
    ];

    /// Percent of [`Coins::PLANNED`].
    pub const fn percent(self) -> u32 {
        match self {
            PlanShare::Angel | PlanShare::Strategic => 5,
            PlanShare::Sales => 20,
            PlanShare::NodeRewards => 35,
            PlanShare::Promotion => 2,
            PlanShare::OtherGenesis => 30,
            PlanShare::FirstYear => 3,
        }
    }

    /// The share in coins.
    pub fn coins(self) -> Coins {
        Coins::PLANNED.fraction(u64::from(self.percent()), 100)
    }
}

/// A part of a locked amount, and how long it is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Calendar months from the lock's start to the day on which the part comes free.
    pub months: u8,
    /// Percent of the whole amount.
    pub percent: u8,
}

/// How an amount comes free: a part at the end of each term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    terms: &'static [Term],
}

/// Why there is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// The calendar ends on 9999-12-31.
    #[error("a lock from {start} has a term that ends after the year 9999")]
    Date {
        /// When the lock starts.
        start: Date,
    },
}

impl Lock {
    /// Angel investors: a year from the exchange listing, in four.
    pub const ANGEL: Lock = Lock::new(&[term(3, 25), term(6, 25), term(9, 25), term(12, 25)]);
    /// Strategic investors: as angel investors.
    pub const STRATEGIC: Lock = Lock::ANGEL;
    /// The team: two years in four terms.
    pub const TEAM: Lock = Lock::new(&[term(6, 25), term(12, 25), term(18, 25), term(24, 25)]);
    /// Consultants: nine months in three terms.
    pub const CONSULTANTS: Lock = Lock::new(&[term(3, 35), term(6, 35), term(9, 30)]);
    /// No lock: everything is free from the start.
    pub const NONE: Lock = Lock::new(&[term(0, 100)]);

    /// Terms in ascending order that are the whole amount together; anything else does not compile.
    const fn new(terms: &'static [Term]) -> Lock {
        let mut percent = 0;
        let mut index = 0;
        while index < terms.len() {
            assert!(index == 0 || terms[index].months > terms[index - 1].months);
            percent += terms[index].percent;
            index += 1;
        }
        assert!(percent == 100);
        Lock { terms }
    }

    /// The terms, in the order in which they end.
    pub fn terms(self) -> &'static [Term] {
        self.terms
    }

    /// When parts of `amount` come free, and how much each time. Each date is counted in calendar months from
    /// `start` itself; a month without that day ends the term on its last. The parts add up to `amount`: what a
    /// percentage leaves of a unit comes with the last.
    pub fn schedule(self, amount: Coins, start: Date) -> Result<Vec<(Date, Coins)>, ScheduleError> {
        let mut percent = 0;
        let mut free = Coins::ZERO;
        let part = |term: &Term| {
            percent += u64::from(term.percent);
            let until_now = amount.fraction(percent, 100);
            let part = until_now.checked_sub(free).expect("a larger percentage is a larger part");
            free = until_now;
            let date = start.checked_add(i32::from(term.months).months());
            Ok((date.map_err(|_| ScheduleError::Date { start })?, part))
        };
        self.terms.iter().map(part).collect()
    }

    /// What of `amount` is free on `date`.
    pub fn released(self, amount: Coins, start: Date, date: Date) -> Result<Coins, ScheduleError> {
        let schedule = self.schedule(amount, start)?;
        let parts = schedule.iter().filter(|(free_from, _)| *free_from <= date).map(|&(_, part)| part);
        Ok(Coins::checked_sum(parts).expect("parts of an amount are not more than it"))
    }
}

const fn term(months: u8, percent: u8) -> Term {
    Term { months, percent }
}
