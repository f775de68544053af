//! Storage executors, control socket, TCP service, and the engine as a program.

mod control;
pub(crate) mod engine;
mod policy_change;
mod power_loss;
mod program;
mod storage;
mod store;
mod tcp;
mod upgrade;
mod upkeep;

use ::engine::limits::SharedPolicy;
use ::engine::storage::Lease;
use ::store::leases::{Leases, Now};
use ::store::{FileBackend, Hash, Options, Store};
use bytes::Bytes;
use relay::policy::Policy;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A lease that lasts longer than any test.
const LEASE: Lease = Lease { owner: [7; 32], ends_s: 1 << 40 };

/// The leases of a store, and a policy with the defaults.
pub(crate) fn leases_and_policy(store: &Store) -> (Arc<Leases>, Arc<SharedPolicy>) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let (leases, _) =
        Leases::open(store, [1; 32], Now { wall, mono: Duration::ZERO }).expect("leases that open");
    (Arc::new(leases), SharedPolicy::new(Policy::default()).expect("the defaults are valid"))
}

/// A store in a new directory, which goes when the test ends.
fn new_store(options: Options) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open_store(directory.path(), options);
    (directory, store)
}

fn open_store(directory: &std::path::Path, options: Options) -> Store {
    let backend = std::sync::Arc::new(FileBackend::new());
    Store::open(&directory.join("store"), options, backend).expect("a store that opens").0
}

/// A segment of `len` bytes that differs by `seed`, and its address.
fn segment(seed: u64, len: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (Hash::of(&bytes), Bytes::from(bytes))
}
