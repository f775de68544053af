//! Verified headers on disk: two files of fixed-width records that any process may read by position while the
//! one that follows the chains appends to them.
//!
//! Nothing is written here that was not verified before. What a crash left half-written is cut off when the
//! writer opens the file, so that it always ends with a verified prefix of the chain. The format is drawn in
//! `control-plane/docs/chain.md`.

mod dpos;
mod file;
mod pow;
mod signers;

pub use dpos::DposRecord;
pub use file::{HeaderFile, HeaderFileError, Opened, PAGE_LEN, Page, Record};
pub use pow::PowRecord;
pub use signers::{SignerTable, SignersError};
