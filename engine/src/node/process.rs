//! What the engine does to its own process before it starts: resource limits and the choice of cores.

use super::cores::Cores;
use crate::cid::SHARDS_MAX;
use crate::limits::{LOCKED_MEMORY_BYTES, OPEN_FILES};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises soft limits as far as needed and allowed. Where the hard limit is lower, what needs more says so itself.
/// `relay_sockets`: how many sockets the relay's ports have room for. Fewer are no fault, only fewer allocations.
pub(super) fn raise_limits(relay_sockets: u64) {
    raise(Resource::Memlock, LOCKED_MEMORY_BYTES, LOCKED_MEMORY_BYTES, "locked memory, bytes");
    raise(Resource::Nofile, OPEN_FILES, OPEN_FILES + relay_sockets, "open files");
}

/// Has the kernel give this process small pages alone. The allocator asks for huge ones, and a relay's tables grow a little with
/// every allocation: with pages of 2 MiB, 5,000 of them took four times the memory that they use.
pub(super) fn take_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
}

fn raise(resource: Resource, needed: u64, wanted: u64, what: &str) {
    let limit = getrlimit(resource);
    // `None` is no limit.
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let to = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
    if to > current && setrlimit(resource, Rlimit { current: Some(to), maximum: limit.maximum }).is_ok() {
        tracing::debug!(what, from = current, to, "soft limit raised");
    }
    if to < needed {
        tracing::warn!(what, limit = to, wanted = needed, "the hard limit is low; see `ioex doctor`");
    }
}

/// The cores of the shards: those asked for, or all that this process may run on.
pub(super) fn choose_cores(asked: Option<&Cores>) -> Result<Cores, CoresError> {
    let allowed = Cores::allowed().map_err(CoresError::Affinity)?;
    let cores = match asked {
        None => allowed,
        Some(cores) => match cores.beyond(&allowed) {
            Some(beyond) => return Err(CoresError::NotAllowed { beyond, allowed }),
            None => cores.clone(),
        },
    };
    match cores.numbers().len() {
        count @ 1..=SHARDS_MAX => Ok(cores).inspect(|_| tracing::debug!(count, "shards")),
        count => Err(CoresError::Count { count }),
    }
}

/// Why shards cannot run on these cores.
#[derive(Debug, thiserror::Error)]
pub enum CoresError {
    /// The kernel does not say where this process may run.
    #[error("the kernel does not say on which cores this process may run: {0}")]
    Affinity(io::Error),
    /// Some cores do not exist or are not allowed.
    #[error(
        "cores {beyond} cannot be used, allowed are {allowed} (see `taskset -p` and the cgroup's cpuset)"
    )]
    NotAllowed {
        /// Those that were asked for in vain.
        beyond: Cores,
        /// Those that this process may use.
        allowed: Cores,
    },
    /// None, or more than a connection id can tell apart.
    #[error("{count} shards are not possible, 1 to {SHARDS_MAX} are; choose cores with --cores")]
    Count {
        /// How many were asked for.
        count: usize,
    },
}
