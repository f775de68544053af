//! Tests of the store through its public surface, on real files.

mod roundtrip;
mod support;
