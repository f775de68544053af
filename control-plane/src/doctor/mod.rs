//! What this machine offers the engine: each fact, what it costs to lack it, and the command that mends it.
//!
//! Gathering ([`Facts`]) and judging ([`judge`]) are apart: judging is a pure function, so that machines that
//! nobody has at hand can be judged in tests.

mod checks;
mod facts;
mod relay;
mod table;

pub use checks::{Check, Status, judge};
pub use facts::{Facts, Finding, Nic, Probe};
pub use relay::RelayFacts;
pub use table::{to_json, to_table};
