//! The contracts: their artefacts are what their sources compile to, the codecs say what the compiler says, the
//! trees are those of OpenZeppelin, and everything that they promise holds on a real EVM, read back by proof.
//!
//! The compiler, the chain (anvil) and OpenZeppelin's trees come from npm: `.ci/setup test` installs them.

// Unlike chain-lite itself, these tests start programs and talk to them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod anvil;
mod artefact;
mod authorisations;
mod contributions;
mod gas;
mod node;
mod openzeppelin;

use alloy_primitives::keccak256;
use chain_lite::contracts::{B256, contributions::DayTree};

/// A made-up UID.
fn uid(number: u32) -> B256 {
    keccak256(number.to_be_bytes())
}

/// What a node of a made-up day did and gets: (workload in bytes, points).
fn work(number: u32) -> (u128, u128) {
    let gigabytes = u128::from(number % 97) + 1;
    (gigabytes * 1_000_000_000, gigabytes * 3)
}

/// UIDs of a made-up day in ascending order, each with its number.
fn sorted_uids(accounts: u32) -> Vec<(B256, u32)> {
    let mut uids: Vec<_> = (0..accounts).map(|number| (uid(number), number)).collect();
    uids.sort_unstable();
    uids
}

/// The tree of a made-up day.
fn day_tree(day: u32, uids: &[(B256, u32)]) -> DayTree {
    let entries = uids.iter().map(|&(uid, number)| {
        let (workload_bytes, points) = work(number);
        (uid, workload_bytes, points)
    });
    DayTree::new(day, entries).expect("a day")
}
