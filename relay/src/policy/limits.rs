//! Every bound that the control plane sets for the engine, with its arithmetic.

use rkyv::{Archive, Deserialize, Serialize};

/// Bounds of the engine. `Default` gives values for a production server; [`Limits::check`] holds each to its range.
///
/// "A shard" is one thread on one core; a node has as many as it has cores.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Limits {
    /// QUIC connections open at once, a shard. 10,000 on each of 32 cores are 320,000 devices at once: one million
    /// devices in waves of a third. Above it new connections are refused.
    pub connections_max: u32,
    /// Connections whose handshake is not complete, a shard. 10 s of handshake time-out at 400 new connections a second
    /// are 4,000. Above it Initials are dropped, which the sender repeats.
    pub handshakes_max: u32,
    /// Handshakes in flight from which a new client must first prove its address with a Retry (RFC 9000 section 8.1.2),
    /// a shard. A sixteenth of `handshakes_max`, so that spoofed Initials never fill it. 0: always.
    pub retry_handshakes_min: u32,
    /// After this long an incomplete handshake is dropped. 10 s bear three lost flights (1 + 2 + 4 s).
    pub handshake_timeout_ms: u32,
    /// After this long without a packet a connection is dropped. 30 s, below the 30 s to 2 min in which NATs forget UDP.
    pub idle_timeout_ms: u32,
    /// After this long without progress a response's or upload's stream is reset, while its connection lives. Twice the
    /// idle time-out, so that a path that comes back in time loses nothing.
    pub stall_timeout_ms: u32,
    /// Requests open at once, a connection. RFC 9114 section 6.1 asks for at least 100.
    pub streams_per_connection_max: u32,
    /// Requests a second, a connection, averaged over one second. A device that reads 1 MiB segments at 10 Gbit/s makes
    /// 1,200; small ranges make more. Above it requests get 503.
    pub requests_per_s_max: u32,
    /// Bytes of a request's header section, uncompressed as RFC 9114 section 4.2.2 counts (32 a field on top). A token's
    /// text is at most 684, browsers send about 2,000; 16 KiB leave room. Above it requests get 431.
    pub header_bytes_max: u32,
    /// Bytes of responses handed to QUIC and not yet acknowledged, a connection. They are slices of mapped packs, not
    /// memory, yet a retransmission touches them again. 4 MiB carry 335 Mbit/s over 100 ms.
    pub send_queue_bytes_max: u32,
    /// Bytes of uploads held in memory until they are verified and durable, the node. 256 MiB are 16 of the largest
    /// segments (16 MiB) or 256 usual ones (1 MiB). Above it PUT gets 503 with retry-after.
    pub upload_bytes_in_flight_max: u64,
    /// Payload bytes in the store, the node. 1 TiB; the file system's own end usually comes first. Above it PUT gets 507.
    /// 0: the node stores nothing, and says so (403).
    pub store_bytes_max: u64,
    /// Bytes of segments on which one publisher has leases or for which it has reserved room, the node. The largest number:
    /// no quota unless the operator sets one. Above it PUT gets 507.
    pub publisher_bytes_max: u64,
    /// How long an upload may take from its first byte to its last, for which room in the store is reserved. 600 s carry
    /// the largest segment (16 MiB) at 224 kbit/s. After it PUT gets 408.
    pub reservation_timeout_ms: u32,
    /// Life of a lease whose token names no end. 90 days.
    pub lease_default_s: u32,
    /// How long a segment is kept after its last lease is over. A week in which an owner who was late comes back.
    pub lease_grace_s: u32,
    /// Time in which everything in the store is read once and verified; 0: never. 30 days: 1 TiB is 424 kB/s.
    pub scrub_period_s: u32,
    /// Most of a core's and of the disk's time that scrub and compaction take together, in percent. At 500 MB/s, 5 % are
    /// 25 MB/s, 60 times what the scrub of 1 TiB in 30 days needs.
    pub upkeep_share_percent: u32,
    /// Dead share of a pack from which it is rewritten, in percent. At 50 % each byte given back costs one byte of writing.
    pub compact_dead_percent: u32,
    /// How long a drain waits for what is in flight. 30 s: a 1 MiB segment at 280 kbit/s.
    pub drain_timeout_ms: u32,
}

/// The longest time that a limit in seconds may be.
const YEARS_10_S: u64 = 10 * 365 * 86_400;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 10_000,
            handshakes_max: 4_096,
            retry_handshakes_min: 4_096 / 16,
            handshake_timeout_ms: 10_000,
            idle_timeout_ms: 30_000,
            stall_timeout_ms: 2 * 30_000,
            streams_per_connection_max: 128,
            requests_per_s_max: 10_000,
            header_bytes_max: 16 << 10,
            send_queue_bytes_max: 4 << 20,
            upload_bytes_in_flight_max: 256 << 20,
            store_bytes_max: 1 << 40,
            publisher_bytes_max: 1 << 60,
            reservation_timeout_ms: 600_000,
            lease_default_s: 90 * 86_400,
            lease_grace_s: 7 * 86_400,
            scrub_period_s: 30 * 86_400,
            upkeep_share_percent: 5,
            compact_dead_percent: 50,
            drain_timeout_ms: 30_000,
        }
    }
}

impl Limits {
    /// Name, value, least and most of every bound, for checks, messages and documents. Names are those of the fields.
    pub fn ranges(&self) -> [(&'static str, u64, u64, u64); 20] {
        let millis = |value: u32, min: u64, max_s: u64| (u64::from(value), min, max_s * 1000);
        let named = |name, (value, min, max)| (name, value, min, max);
        [
            ("connections_max", u64::from(self.connections_max), 1, 1_000_000),
            ("handshakes_max", u64::from(self.handshakes_max), 1, 1_000_000),
            ("retry_handshakes_min", u64::from(self.retry_handshakes_min), 0, 1_000_000),
            named("handshake_timeout_ms", millis(self.handshake_timeout_ms, 500, 60)),
            named("idle_timeout_ms", millis(self.idle_timeout_ms, 1_000, 600)),
            named("stall_timeout_ms", millis(self.stall_timeout_ms, 1_000, 3_600)),
            ("streams_per_connection_max", u64::from(self.streams_per_connection_max), 1, 10_000),
            ("requests_per_s_max", u64::from(self.requests_per_s_max), 1, 1_000_000),
            ("header_bytes_max", u64::from(self.header_bytes_max), 1 << 10, 1 << 20),
            ("send_queue_bytes_max", u64::from(self.send_queue_bytes_max), 64 << 10, 1 << 30),
            ("upload_bytes_in_flight_max", self.upload_bytes_in_flight_max, 16 << 20, 1 << 40),
            ("store_bytes_max", self.store_bytes_max, 0, 1 << 60),
            ("publisher_bytes_max", self.publisher_bytes_max, 1 << 20, 1 << 60),
            named("reservation_timeout_ms", millis(self.reservation_timeout_ms, 1_000, 86_400)),
            ("lease_default_s", u64::from(self.lease_default_s), 1, YEARS_10_S),
            ("lease_grace_s", u64::from(self.lease_grace_s), 0, YEARS_10_S),
            ("scrub_period_s", u64::from(self.scrub_period_s), 0, YEARS_10_S),
            ("upkeep_share_percent", u64::from(self.upkeep_share_percent), 1, 100),
            ("compact_dead_percent", u64::from(self.compact_dead_percent), 1, 100),
            named("drain_timeout_ms", millis(self.drain_timeout_ms, 0, 3_600)),
        ]
    }

    /// Checks that every bound is in its range, and that those that depend on each other fit.
    pub fn check(&self) -> Result<(), LimitError> {
        for (name, value, min, max) in self.ranges() {
            if !(min..=max).contains(&value) {
                return Err(LimitError::Range { name, value, min, max });
            }
        }
        let at_most = [
            (("handshakes_max", self.handshakes_max), ("connections_max", self.connections_max)),
            (("retry_handshakes_min", self.retry_handshakes_min), ("handshakes_max", self.handshakes_max)),
        ];
        for ((name, value), (bound_name, bound)) in at_most {
            if value > bound {
                return Err(LimitError::Order { name, value: value.into(), bound_name, bound: bound.into() });
            }
        }
        Ok(())
    }
}

/// Which bound is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A value is outside its own range.
    #[error("{name} is {value}; allowed are {min} to {max}")]
    Range {
        /// The bound's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// A value is above one that must contain it.
    #[error("{name} is {value}, above {bound_name}, which is {bound}; lower the first or raise the second")]
    Order {
        /// The bound's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The name of the bound above it.
        bound_name: &'static str,
        /// That bound's value.
        bound: u64,
    },
    /// A value that no number bounds.
    #[error("{name} cannot be used: {reason}")]
    Unusable {
        /// What it is.
        name: &'static str,
        /// Why not.
        reason: &'static str,
    },
}
