//! Tests of the store through its public surface, on real files.

mod crash;
mod damage;
mod disk;
mod lists;
mod packs;
mod roundtrip;
mod support;
