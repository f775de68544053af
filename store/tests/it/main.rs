//! Tests of the store through its public surface, on real files.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests use real files")]

mod crash;
mod damage;
mod disk_full;
mod erasure;
mod killed;
mod lists;
mod model;
mod packs;
mod power_loss;
mod residency;
mod roundtrip;
mod support;
