//! What the white paper says about coins, as arithmetic: what a block brings, how a day's quota is split, when
//! locked coins come free, and what an account may withdraw.
//!
//! Everything is exact: amounts are whole units of 10^-8 coins, every split adds up to what was split, and no
//! sum wraps. Nothing here moves a coin or decides what a node has done. The tables: `chain-lite/docs/rewards.md`.

mod account;
mod coins;
pub mod emission;
mod plan;
mod quota;

pub use account::{Allocation, Credit, History, HistoryError, Statement, Withdrawal};
pub use coins::Coins;
pub use jiff::civil::Date;
pub use plan::{Lock, PlanShare, ScheduleError, Term};
pub use quota::{QuotaError, split};
