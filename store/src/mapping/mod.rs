//! Memory-mapped files, and what happens when one shrinks under its mapping.

/// Installs the SIGBUS handler of this process, once; later calls do nothing. [`Store::open`](crate::Store::open)
/// does so itself.
pub fn install_sigbus_handler() {
    todo!()
}

/// Counts the faults on store mappings that were survived. One relaxed atomic load: look at it each turn.
pub fn sigbus_generation() -> u64 {
    todo!()
}
