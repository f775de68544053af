//! Tests of the store through its public surface, on real files.

mod crash;
mod damage;
mod disk;
mod disk_full;
mod lists;
mod model;
mod packs;
mod residency;
mod roundtrip;
mod support;
