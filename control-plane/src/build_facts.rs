//! Facts of this build, for `ioex --version`.

/// The version alone.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version with commit, compiler, target and profile.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit   ",
    env!("IOEX_BUILD_COMMIT"),
    "\ncompiler ",
    env!("IOEX_BUILD_COMPILER"),
    "\ntarget   ",
    env!("IOEX_BUILD_TARGET"),
    "\nprofile  ",
    env!("IOEX_BUILD_PROFILE"),
);
