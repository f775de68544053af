//! Tests of the store through its public surface, on real files.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests use real files")]

mod crash;
mod damage;
mod deletion;
mod disk_full;
mod erasure;
mod killed;
mod leases;
mod lists;
mod model;
mod outboards;
mod outer_lists;
mod packs;
mod pipeline;
mod power_loss;
mod private_lists;
mod residency;
mod roundtrip;
mod support;
