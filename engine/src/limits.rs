//! Every bound of the engine in one place, with its arithmetic.
//!
//! What an operator may change is in [`relay::policy::Limits`]; [`SharedPolicy`] hands it to the threads that enforce
//! it. What is constant stands here.

use relay::policy::{LimitError, Policy};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Requests that one shard may have with the storage executors. A cold segment of 1 MiB takes about 1 ms to read and
/// verify, so this is a quarter of a second of work; and 256 segments of 1 MiB are the most that one shard can pin by
/// appends that wait (the policy's `upload_bytes_in_flight_max` bounds it first where segments are larger).
pub const STORAGE_REQUESTS_PER_CLIENT: usize = 256;

/// Requests that wait in one lane (loads, appends) of the storage executors: 16 shards with all they may ask.
pub const STORAGE_QUEUE_LEN: usize = 16 * STORAGE_REQUESTS_PER_CLIENT;

/// When a shard tries again whose requests found the queue full of others': about the time of one load.
pub const STORAGE_RETRY: Duration = Duration::from_millis(1);

/// When a shard tries again to pass envelopes on to one whose mailbox was full: that one empties it every turn.
pub const MAIL_RETRY: Duration = Duration::from_millis(1);

/// Segments of one group commit. One sync costs 1 to 10 ms on the disks at hand; 64 segments share it, after which
/// the sync is less than a fifth of the time of writing them.
pub const COMMIT_SEGMENTS_MAX: usize = 64;

/// Bytes of one group commit: at 500 MB/s 64 ms, the longest that a segment waits for the group before it.
pub const COMMIT_BYTES_MAX: usize = 32 << 20;

/// Cold segments that are read at the same time. Solid-state disks reach their rate with 8 to 32 reads in flight; with
/// segments of 16 MiB this pins 256 MiB of page cache at most.
pub const LOADS_AT_ONCE: usize = 16;

/// Threads that load cold segments where glommio does not run. Each blocks on one read: two keep a disk busy while one
/// of them verifies.
pub const LOAD_THREADS: usize = 2;

/// How often leases that are over are looked for, and observed time is kept. Each look reads every lease: about a second
/// a million, in the share that upkeep has.
pub const LEASE_SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How often packs with dead space are looked for; each look walks the index, about 50 ms a million segments.
pub const COMPACT_LOOK_INTERVAL: Duration = Duration::from_secs(600);

/// How often the scrub's place is written down: a minute of reading is done again after a crash.
pub const SCRUB_KEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes that a step of scrub or compaction reads: some 10 ms of a disk's time, and one segment of the longest.
pub const UPKEEP_STEP_LEN: u64 = 4 << 20;

/// Nice value of the storage threads. The kernel gives a thread of nice 10 about a tenth of the time that a shard (nice
/// 0) gets when both want the same core, and all of it when the shard sleeps.
pub const STORAGE_NICE: i32 = 10;

/// Connections of the TCP service. Each costs about 100 KiB when it is busy (TLS records, HTTP/2 windows, one chunk a
/// stream): 100 MiB at this limit.
pub const TCP_CONNECTIONS_MAX: usize = 1_024;

/// Bytes that a body hands to the TLS layer at a time: four TLS records.
pub const TCP_CHUNK_LEN: usize = 64 << 10;

/// Bytes of a refused request's body that are read all the same: a segment of the usual length.
pub const TCP_DISCARD_LEN: usize = 1 << 20;

/// Time that this may take.
pub const TCP_DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Cold segments that TCP requests wait for at the same time; further requests wait for a permit.
pub const TCP_LOADS_MAX: usize = 64;

/// Bytes of opened lists that the TCP service keeps. A segment takes 40 bytes: 800,000 segments, or 800 GB of files.
pub const TCP_LISTS_BYTES_MAX: usize = 32 << 20;

/// Connections of the control socket: one control plane and a few commands of a person.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;

/// Time in which a frame must arrive completely once its first byte has, and in which an answer must be taken.
pub const CONTROL_FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two policies in force while changes come one after another; what comes meanwhile is one policy. Shards look once a turn
/// (a few hundred microseconds under load), and what they do for a new one is done at most a hundred times a second.
pub const POLICY_CHANGE_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The same for policies that take long to make ready: the longest that a change waits.
pub const POLICY_CHANGE_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Which part of the time the making of changed policies may take: the interval is so many times as long as the last one took.
pub const POLICY_CHANGE_PART: u32 = 100;

/// Time that changes of the policy are in force before they are written: one sync a second, however many there are.
pub const POLICY_KEEP_DELAY: Duration = Duration::from_secs(1);

/// Connections of the metrics endpoint: a few scrapers.
pub const METRICS_CONNECTIONS_MAX: usize = 8;

/// Time in which a scraper must send its next request; one that is silent gives its place back.
pub const METRICS_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of locked memory that the rings ask for before Linux 5.12, and that glommio checks for on every kernel. The soft
/// limit is raised to this at start, as far as the hard limit allows.
pub const LOCKED_MEMORY_BYTES: u64 = 8 << 20;

/// TCP and TLS streams of the relay, a shard. A stranger holds at most a message of 4 KiB that has not arrived completely and,
/// with TLS, about 40 KiB of handshake: 350 MiB at this limit, for [`RELAY_STREAM_OPENING`] at most.
pub const RELAY_STREAMS_MAX: usize = 8_192;

/// Streams that each of `shards` may have, where the process may open `open_files` files (`None`: any number): a quarter of them
/// for all shards together, so that clients that only connect leave enough for packs and for relayed sockets.
#[must_use]
pub fn relay_streams_max(open_files: Option<u64>, shards: usize) -> usize {
    let each = open_files.unwrap_or(u64::MAX) / 4 / shards.max(1) as u64;
    usize::try_from(each).unwrap_or(usize::MAX).clamp(1, RELAY_STREAMS_MAX)
}

/// Time in which a stream must bring its first whole message, TLS handshake included: five round trips of a client at the
/// far end of a slow path (a second each) and as much again. To hold all places of a shard without sending anything takes
/// 819 connections a second.
pub const RELAY_STREAM_OPENING: Duration = Duration::from_secs(10);

/// Time that a stream without an allocation may go without a whole message: coturn's, and twice the longest pause between
/// keep-alives that RFC 8656 section 3.8 has clients make for their NATs (half a minute).
pub const RELAY_STREAM_IDLE: Duration = Duration::from_secs(60);

/// Bytes of a message, while its stream has no allocation: a request with USERNAME (513), REALM and NONCE (763 each,
/// RFC 8489 section 14) and all that a client may add is below 3 KiB.
pub const RELAY_STRANGER_MESSAGE_LEN_MAX: usize = 4 << 10;

/// Unsent bytes of a stream above which what peers send is dropped, and requests are no longer read: two GSO batches, which at
/// 100 Mbit/s are 10 ms late. The kernel holds as much again ([`crate::driver::streams`]).
pub const RELAY_STREAM_UNSENT_MAX: usize = 128 << 10;

/// Unsent bytes of a stream above which it is closed: its client asks and does not read. Requests that were received before
/// reading stopped (64 chunks of 16 KiB) cannot all be answered in this.
pub const RELAY_STREAM_UNSENT_LIMIT: usize = 4 * RELAY_STREAM_UNSENT_MAX;

/// Unsent bytes of all streams of a shard above which what peers send is dropped: 512 clients that do not read.
pub const RELAY_STREAMS_UNSENT_MAX: usize = 64 << 20;

/// Time that the last answers on a stream have to leave.
pub const RELAY_STREAM_LINGER: Duration = Duration::from_secs(5);

/// Open files that the engine wants: sockets of the shards, packs, and every TCP connection, with room.
pub const OPEN_FILES: u64 = 4 * TCP_CONNECTIONS_MAX as u64 + 1_024;

/// Time that shards and services have beyond the drain time-out to close what is left.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// The policy in force, for every thread that enforces it. Shards keep a [`PolicyView`] and look once a turn.
pub struct SharedPolicy {
    /// Changes with every new policy. A view compares it before it takes the lock.
    revision: AtomicU64,
    current: Mutex<Arc<Policy>>,
    prepare: OnceLock<Prepare>,
}

/// Makes ready what shards need of a policy.
type Prepare = Box<dyn Fn(&Arc<Policy>) + Send + Sync>;

impl std::fmt::Debug for SharedPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedPolicy").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl SharedPolicy {
    /// Starts with `policy`.
    ///
    /// # Errors
    /// A limit is out of its range.
    pub fn new(policy: Policy) -> Result<Arc<SharedPolicy>, LimitError> {
        policy.check()?;
        let current = Mutex::new(Arc::new(policy));
        Ok(Arc::new(SharedPolicy { revision: AtomicU64::new(1), current, prepare: OnceLock::new() }))
    }

    /// Has `prepare` called with each new policy before it is in force, so that shards find ready what takes long. The first one
    /// counts.
    pub fn prepare_with(&self, prepare: impl Fn(&Arc<Policy>) + Send + Sync + 'static) {
        let _ = self.prepare.set(Box::new(prepare));
    }

    /// The policy in force.
    #[must_use]
    pub fn load(&self) -> Arc<Policy> {
        Arc::clone(&self.lock())
    }

    /// Puts `policy` in force. Every thread sees all of it or nothing of it.
    ///
    /// # Errors
    /// A limit is out of its range, or the generation is older than the one in force.
    pub fn replace(&self, policy: Policy) -> Result<(), PolicyError> {
        self.check(&policy)?;
        let policy = Arc::new(policy);
        if let Some(prepare) = self.prepare.get() {
            prepare(&policy);
        }
        let mut current = self.lock();
        check_generation(&policy, &current)?;
        *current = policy;
        self.revision.fetch_add(1, Release);
        Ok(())
    }

    /// What [`replace`](SharedPolicy::replace) would say.
    ///
    /// # Errors
    /// As [`replace`](SharedPolicy::replace).
    pub fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        policy.check()?;
        check_generation(policy, &self.lock())
    }

    /// A view for one thread.
    #[must_use]
    pub fn view(self: &Arc<Self>) -> PolicyView {
        let revision = self.revision.load(Acquire);
        PolicyView { shared: Arc::clone(self), revision, policy: self.load() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Policy>> {
        // Nobody panics between lock and unlock, and an Arc is never half replaced.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_generation(offered: &Policy, current: &Policy) -> Result<(), PolicyError> {
    if offered.generation < current.generation {
        return Err(PolicyError::Stale { offered: offered.generation, current: current.generation });
    }
    Ok(())
}

/// One thread's copy of the policy, refreshed when it changes.
#[derive(Debug)]
pub struct PolicyView {
    shared: Arc<SharedPolicy>,
    revision: u64,
    policy: Arc<Policy>,
}

impl PolicyView {
    /// The policy as of the last [`refresh`](PolicyView::refresh).
    #[inline]
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The same, to keep.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// Takes over a new policy, if there is one; says whether there was. Costs one load as long as nothing changes.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        let revision = self.shared.revision.load(Acquire);
        if revision == self.revision {
            return false;
        }
        self.revision = revision;
        self.policy = self.shared.load();
        true
    }
}

/// Why a policy was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A limit is out of its range.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Somebody offers a policy that has been replaced since.
    #[error("policy generation {offered} is older than generation {current}, which is in force")]
    Stale {
        /// The generation offered.
        offered: u64,
        /// The generation in force.
        current: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_files_for_others() {
        assert_eq!(relay_streams_max(Some(5_120), 2), 640);
        assert_eq!(relay_streams_max(Some(1 << 20), 4), RELAY_STREAMS_MAX);
        assert_eq!(relay_streams_max(None, 1), RELAY_STREAMS_MAX);
        assert_eq!(relay_streams_max(Some(8), 256), 1);
    }
}
