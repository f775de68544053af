//! What an operator asks of a node's store. The holder of segments sees opaque names, sizes and ends of leases; whose files
//! they belong to is not known here.

use rkyv::{Archive, Deserialize, Serialize};

/// The most segments in one answer: 48 KiB of addresses and as much beside them, gathered in a few milliseconds.
pub const STORE_SEGMENTS_PER_FRAME_MAX: usize = 1_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Figures. Answered by [`StoreAnswer::Stat`].
    Stat,
    /// What is held. Answered by [`StoreAnswer::Segments`], as many as it takes.
    List,
    /// Delete a segment whose leases are all over. Answered by [`StoreAnswer::Done`], or refused.
    Remove {
        /// Its address.
        hash: [u8; 32],
    },
    /// Delete every segment whose leases are all over, whatever the grace, then compact. Answered by
    /// [`StoreAnswer::Progress`] now and then, and [`StoreAnswer::Done`].
    Collect {
        /// Believe the machine's clock at once, where it has jumped ahead of what the node has lived through.
        accept_clock: bool,
    },
    /// Read everything from the disk, and quarantine what does not verify. Answered by [`StoreAnswer::Progress`] now and
    /// then, and [`StoreAnswer::Done`].
    Verify,
    /// Rewrite packs of which a share is dead, and give their space back. Answered by [`StoreAnswer::Progress`] now and
    /// then, and [`StoreAnswer::Done`].
    Compact {
        /// Packs whose dead share is at least this, in percent, 1 to 100.
        dead_percent_min: u8,
    },
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StoreAnswer {
    /// Figures.
    Stat(Box<StoreStat>),
    /// Some of what is held, in the order of the addresses.
    Segments {
        /// At most [`STORE_SEGMENTS_PER_FRAME_MAX`].
        segments: Vec<StoreSegment>,
        /// Whether these are the last ones, which makes the answer final.
        is_last: bool,
    },
    /// It goes on. Not final.
    Progress {
        /// Bytes that are done.
        bytes: u64,
        /// Bytes in all, as far as is known now.
        total: u64,
    },
    /// It is done.
    Done(StoreDone),
}

/// A segment that is held.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StoreSegment {
    /// Its address.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub len: u32,
    /// How many owners have a lease on it, over or not.
    pub leases: u32,
    /// When the last of them ends, in seconds since 1970-01-01 UTC; none: never, the node keeps it for itself.
    pub ends_s: Option<u64>,
}

/// What an operation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StoreDone {
    /// Segments deleted (or verified).
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs rewritten or removed.
    pub packs: u64,
    /// Bytes given back to the file system.
    pub bytes_freed: u64,
    /// What was found damaged, and is not served any more; of a compaction: what went with its pack.
    pub damage: Vec<StoreDamage>,
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StoreDamage {
    /// File and offset, and what is wrong, for a person.
    pub text: String,
    /// The segment, where it is known.
    pub hash: Option<[u8; 32]>,
}

/// Figures of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StoreStat {
    /// Segments held.
    pub segments: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of all packs, dead ones and framing included.
    pub pack_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Most bytes that all packs may take.
    pub bytes_max: u64,
    /// Bytes that uploads under way have reserved.
    pub reserved_bytes: u64,
    /// Leases, over or not.
    pub leases: u64,
    /// Each owner with a lease (the zero UID: nobody), with how many and their bytes.
    pub owners: Vec<([u8; 32], u64, u64)>,
    /// Most bytes that one publisher may have leases on.
    pub publisher_bytes_max: u64,
    /// Segments whose leases are all over, and which the next sweep or `gc` deletes.
    pub over_segments: u64,
    /// Their bytes.
    pub over_bytes: u64,
    /// The time that leases go by, in seconds since 1970-01-01 UTC.
    pub observed_s: u64,
    /// Seconds by which the machine's clock is ahead of that, and not yet believed.
    pub clock_ahead_s: u64,
    /// Bytes that the running scrub has read, of `live_bytes`.
    pub scrub_bytes: u64,
    /// When the last whole scrub ended, in seconds since 1970-01-01 UTC; none yet.
    pub scrub_completed_s: Option<u64>,
    /// Damaged places known; the bytes are left where they are until their pack is compacted.
    pub damage: Vec<StoreDamage>,
}
