//! Counters of a shard, each by cause, written by its own thread only and read by anyone.
//!
//! A shard counts with a plain load and a plain store: no read-modify-write, no lock prefix, no line shared with
//! another writer. Readers (the metrics endpoint, the control socket) see values that may be a moment old. What
//! several threads count together, the storage executors and the TCP service, uses [`SharedCounter`].
//!
//! To add a counter, add a line to the structure it belongs to and count; the Prometheus text follows by itself.
//! Fields of one family (one name, several causes) stand next to each other: Prometheus wants them in one group.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Makes a structure of counters, the table of what they mean, and the way from one to the other.
macro_rules! counters {
    (
        $(#[doc = $doc:literal])*
        pub struct $struct:ident of $cell:ident {
            $( #[doc = $help:literal] $field:ident: $kind:ident $name:literal [$(($label:literal, $value:literal)),*], )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $struct {
            $( #[doc = $help] pub $field: $cell, )*
        }

        impl $struct {
            /// What the fields mean, in the order of the structure.
            pub const DESCRIPTORS: &'static [Descriptor] = &[
                $( Descriptor {
                    name: $name,
                    kind: counters!(@kind $kind),
                    labels: &[$(($label, $value)),*],
                    help: $help,
                }, )*
            ];

            /// The value of the `i`-th field of [`Self::DESCRIPTORS`]; zero beyond the last.
            #[must_use]
            pub fn value(&self, i: usize) -> u64 {
                let cells: [&$cell; Self::DESCRIPTORS.len()] = [$( &self.$field, )*];
                cells.get(i).map_or(0, |cell| cell.get())
            }
        }
    };
    (@kind counter) => { Kind::Counter };
    (@kind gauge) => { Kind::Gauge };
}

counters! {
    /// What a shard counts. Aligned to two cache lines, so that no other writer shares a line with it.
    pub struct ShardCounters of Counter {
        /// Turns of the shard's loop.
        turns: counter "ioex_turns_total" [],
        /// Nanoseconds in which the shard was awake.
        busy_ns: counter "ioex_busy_nanoseconds_total" [],

        /// Datagrams that arrived.
        datagrams_received: counter "ioex_datagrams_received_total" [],
        /// Bytes of UDP payload that arrived.
        datagram_bytes_received: counter "ioex_datagram_bytes_received_total" [],
        /// GRO batches that arrived; datagrams divided by batches is the batching in.
        batches_received: counter "ioex_batches_received_total" [],
        /// Datagrams sent.
        datagrams_sent: counter "ioex_datagrams_sent_total" [],
        /// Bytes of UDP payload sent.
        datagram_bytes_sent: counter "ioex_datagram_bytes_sent_total" [],
        /// GSO batches sent; datagrams divided by batches is the batching out.
        batches_sent: counter "ioex_batches_sent_total" [],

        /// System calls of the driver.
        syscalls: counter "ioex_syscalls_total" [],
        /// Times that another thread woke the shard.
        wakes: counter "ioex_wakes_total" [],
        /// Batches dropped because they did not fit a buffer.
        receive_dropped_truncated: counter "ioex_receive_dropped_total" [("cause", "truncated")],
        /// Datagrams dropped that carry nothing, and batches whose description could not be read.
        receive_dropped_malformed: counter "ioex_receive_dropped_total" [("cause", "malformed")],
        /// Datagrams that the kernel dropped because the socket's receive buffer was full.
        receive_dropped_socket_buffer: counter "ioex_receive_dropped_total" [("cause", "socket_buffer")],
        /// Receive calls that failed.
        receive_errors: counter "ioex_receive_errors_total" [],
        /// Times that datagrams waited because all receive buffers were in use.
        receive_buffers_exhausted: counter "ioex_receive_buffers_exhausted_total" [],
        /// Batches that the kernel would not segment, sent as single datagrams instead.
        gso_refused: counter "ioex_gso_refused_total" [],
        /// Batches that waited because the socket's send buffer was full.
        send_blocked: counter "ioex_send_blocked_total" [],
        /// Times that no send buffer was free.
        send_buffers_exhausted: counter "ioex_send_buffers_exhausted_total" [],
        /// Datagrams lost because the device's queue or the kernel's memory was full.
        send_dropped_no_buffers: counter "ioex_send_dropped_total" [("cause", "no_buffers")],
        /// Datagrams lost because they were longer than the path or the protocol allows.
        send_dropped_too_long: counter "ioex_send_dropped_total" [("cause", "too_long")],
        /// Datagrams lost because no route leads there.
        send_dropped_unreachable: counter "ioex_send_dropped_total" [("cause", "unreachable")],
        /// Datagrams lost because a firewall or the kernel forbids it.
        send_dropped_forbidden: counter "ioex_send_dropped_total" [("cause", "forbidden")],
        /// Datagrams lost for another cause.
        send_dropped_other: counter "ioex_send_dropped_total" [("cause", "other")],

        /// Datagrams dropped that are cut short or have no header.
        datagrams_malformed: counter "ioex_datagrams_dropped_total" [("cause", "malformed")],
        /// Datagrams dropped that belong to no connection and open none.
        datagrams_unknown: counter "ioex_datagrams_dropped_total" [("cause", "unknown")],
        /// Datagrams dropped whose connection id was made by a process of another key generation.
        datagrams_other_generation: counter "ioex_datagrams_dropped_total" [("cause", "other_generation")],
        /// Datagrams that broke the protocol and so closed their connection.
        datagrams_rejected: counter "ioex_datagrams_dropped_total" [("cause", "protocol")],
        /// Datagrams of another shard's connection dropped because too many waited to be handed over.
        datagrams_hand_over_full: counter "ioex_datagrams_dropped_total" [("cause", "hand_over_full")],
        /// Datagrams handed over to the shard that owns their connection.
        datagrams_handed_over: counter "ioex_datagrams_handed_over_total" [],

        /// Version negotiation packets made.
        version_negotiations: counter "ioex_stateless_answers_total" [("kind", "version_negotiation")],
        /// Retry packets made.
        retries_sent: counter "ioex_stateless_answers_total" [("kind", "retry")],
        /// Stateless resets made.
        resets_sent: counter "ioex_stateless_answers_total" [("kind", "reset")],
        /// Stateless answers not sent because of their rate or number.
        stateless_suppressed: counter "ioex_stateless_suppressed_total" [],
        /// Tokens in first packets that were not ours, or not any more.
        tokens_rejected: counter "ioex_tokens_rejected_total" [],

        /// Connections that are open now, their handshakes included.
        connections_open: gauge "ioex_connections" [],
        /// First packets that opened a connection.
        connections_accepted: counter "ioex_connections_accepted_total" [],
        /// Handshakes that were completed.
        connections_established: counter "ioex_connections_established_total" [],
        /// First packets dropped because the bound of connections was reached.
        refused_connections_max: counter "ioex_connections_refused_total" [("cause", "connections_max")],
        /// First packets dropped because the bound of handshakes in flight was reached.
        refused_handshakes_max: counter "ioex_connections_refused_total" [("cause", "handshakes_max")],
        /// First packets dropped because the node shuts down.
        refused_draining: counter "ioex_connections_refused_total" [("cause", "draining")],
        /// Connections that were closed for the last time by this side, for whatever reason.
        connections_closed: counter "ioex_connections_ended_total" [("cause", "closed_here")],
        /// Connections that the client closed.
        connections_closed_by_peer: counter "ioex_connections_ended_total" [("cause", "closed_by_client")],
        /// Connections that fell silent.
        connections_idle_timeout: counter "ioex_connections_ended_total" [("cause", "idle_timeout")],
        /// Handshakes given up because they took too long (among those closed here).
        connections_handshake_timeout: counter "ioex_connections_failed_total" [("cause", "handshake_timeout")],
        /// Connections closed because stored bytes could not be read while they were sent (among those closed here).
        connections_mapping_fault: counter "ioex_connections_failed_total" [("cause", "mapping_fault")],
        /// Connections closed because of an HTTP/3 error (among those closed here).
        connections_http_error: counter "ioex_connections_failed_total" [("cause", "http_error")],
        /// Connections closed because they aborted more requests than they finished (among those closed here).
        connections_rapid_reset: counter "ioex_connections_failed_total" [("cause", "rapid_reset")],
        /// Connections that moved to another address.
        paths_migrated: counter "ioex_paths_total" [("result", "migrated")],
        /// New addresses of clients that did not prove to be theirs.
        paths_failed: counter "ioex_paths_total" [("result", "failed_validation")],

        /// Requests.
        requests: counter "ioex_requests_total" [],
        /// Requests for content that the node does not hold.
        requests_not_found: counter "ioex_requests_failed_total" [("cause", "not_found")],
        /// Requests answered with a problem document other than for content that is not held.
        requests_refused: counter "ioex_requests_failed_total" [("cause", "refused")],
        /// Requests that the client aborted, or that had to be aborted.
        requests_aborted: counter "ioex_requests_failed_total" [("cause", "aborted")],
        /// Requests aborted because no byte moved for the stall time-out (among those aborted).
        requests_stalled: counter "ioex_requests_stalled_total" [],
        /// Answers whose content could not be had to the end.
        bodies_unavailable: counter "ioex_bodies_unavailable_total" [],
        /// Bytes of bodies handed to QUIC.
        body_bytes: counter "ioex_body_bytes_total" [],
        /// Bytes of streams sent, and so copied out of the mapping, once more, of connections that have ended.
        stream_bytes_retransmitted: counter "ioex_stream_bytes_retransmitted_total" [],
        /// Bytes of uploads taken in.
        upload_bytes: counter "ioex_upload_bytes_total" [],
        /// Uploads that became durable.
        uploads_stored: counter "ioex_uploads_stored_total" [],
        /// Uploads refused because others hold the memory for them.
        uploads_refused_memory: counter "ioex_uploads_refused_total" [("cause", "upload_bytes_in_flight_max")],
        /// Segments that were not in memory when they were asked for.
        segments_cold: counter "ioex_segments_cold_total" [],
        /// Requests to the storage executors that found their queue full.
        storage_stalled: counter "ioex_storage_queue_full_total" [],
    }
}

counters! {
    /// What the whole process counts beside its shards; several threads write it.
    pub struct NodeCounters of SharedCounter {
        /// Segments that the storage executors loaded from disk and verified.
        storage_loads: counter "ioex_storage_loads_total" [("result", "loaded")],
        /// Segments asked for that the store does not hold.
        storage_loads_absent: counter "ioex_storage_loads_total" [("result", "absent")],
        /// Segments that could not be read or did not verify.
        storage_loads_failed: counter "ioex_storage_loads_total" [("result", "failed")],
        /// Segments that became durable.
        storage_appends: counter "ioex_storage_appends_total" [("result", "stored")],
        /// Segments that the store held already.
        storage_appends_existing: counter "ioex_storage_appends_total" [("result", "existing")],
        /// Segments refused because the store or its file system is full.
        storage_appends_full: counter "ioex_storage_appends_total" [("result", "full")],
        /// Segments that the disk did not take.
        storage_appends_failed: counter "ioex_storage_appends_total" [("result", "failed")],
        /// Group commits; appends divided by commits is how many segments share one sync.
        storage_commits: counter "ioex_storage_commits_total" [],

        /// TCP connections that are open now.
        tcp_connections: gauge "ioex_tcp_connections" [],
        /// TCP connections accepted.
        tcp_accepted: counter "ioex_tcp_accepted_total" [],
        /// TCP connections closed at once because the limit was reached.
        tcp_refused_limit: counter "ioex_tcp_refused_total" [("cause", "connections_max")],
        /// TCP connections whose TLS handshake failed.
        tcp_refused_handshake: counter "ioex_tcp_refused_total" [("cause", "handshake")],
        /// TCP connections whose TLS handshake took too long.
        tcp_refused_slow_handshake: counter "ioex_tcp_refused_total" [("cause", "handshake_timeout")],
        /// Requests over TCP answered with a status below 400.
        tcp_requests_answered: counter "ioex_tcp_requests_total" [("result", "answered")],
        /// Requests over TCP answered with a problem document.
        tcp_requests_problem: counter "ioex_tcp_requests_total" [("result", "problem")],
        /// Bytes of bodies handed to TCP connections.
        tcp_body_bytes: counter "ioex_tcp_body_bytes_total" [],
        /// TCP connections ended because the client took no byte for the write time-out.
        tcp_slow_clients: counter "ioex_tcp_slow_clients_total" [],

        /// Connections of the control socket refused because the peer is neither the same user nor root.
        control_refused_user: counter "ioex_control_refused_total" [("cause", "user")],
        /// Connections of the control socket closed at once because the limit was reached.
        control_refused_limit: counter "ioex_control_refused_total" [("cause", "connections_max")],
        /// Connections of the control socket ended by bytes that are no frame of the protocol.
        control_refused_frame: counter "ioex_control_refused_total" [("cause", "frame")],
        /// Connections of the control socket ended because a frame did not arrive in time.
        control_refused_timeout: counter "ioex_control_refused_total" [("cause", "timeout")],
        /// Policies applied.
        policies_applied: counter "ioex_policies_total" [("result", "applied")],
        /// Policies refused because a limit was out of its range or the generation was old.
        policies_rejected: counter "ioex_policies_total" [("result", "rejected")],
        /// Reloads of the certificate that succeeded.
        certificate_reloads: counter "ioex_certificate_reloads_total" [("result", "loaded")],
        /// Reloads of the certificate that failed; the old one stays in use.
        certificate_reloads_failed: counter "ioex_certificate_reloads_total" [("result", "failed")],
    }
}

/// A number with one writer: the thread that owns it. Anyone may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this: a second writer would lose counts (nothing worse).
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one; see [`Counter::add`].
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value as of a moment ago.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number with several writers.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one from a gauge.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows (Prometheus `counter`).
    Counter,
    /// Goes up and down (Prometheus `gauge`).
    Gauge,
}

/// What Prometheus is told of a number.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Metric family.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Labels that tell the members of a family apart, mostly one, `cause` or `result`.
    pub labels: &'static [(&'static str, &'static str)],
    /// One line for people: the field's documentation.
    pub help: &'static str,
}

/// A number that is computed when somebody asks, such as the bytes that the store holds.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its value.
    pub value: u64,
}

/// Every number of the node as `name{labels}` with its value, for the policy socket's status.
pub fn samples(
    shards: &[Arc<ShardCounters>],
    node: &NodeCounters,
    computed: &[Sample],
) -> Vec<(String, u64)> {
    let mut text = Vec::new();
    visit(shards, node, computed, |descriptor, shard, value| {
        let mut series = String::from(descriptor.name);
        write_labels(&mut series, descriptor.labels, shard);
        text.push((series, value));
    });
    text
}

/// Every number of the node in the Prometheus text format, version 0.0.4.
pub fn render(shards: &[Arc<ShardCounters>], node: &NodeCounters, computed: &[Sample]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let mut family = "";
    visit(shards, node, computed, |descriptor, shard, value| {
        if family != descriptor.name {
            family = descriptor.name;
            let kind = match descriptor.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {family} {}\n# TYPE {family} {kind}", descriptor.help.trim());
        }
        text.push_str(descriptor.name);
        write_labels(&mut text, descriptor.labels, shard);
        let _ = writeln!(text, " {value}");
    });
    text
}

/// Calls `each` for every number, members of a family one after the other.
fn visit(
    shards: &[Arc<ShardCounters>],
    node: &NodeCounters,
    computed: &[Sample],
    mut each: impl FnMut(&Descriptor, Option<usize>, u64),
) {
    for (i, descriptor) in ShardCounters::DESCRIPTORS.iter().enumerate() {
        for (shard, counters) in shards.iter().enumerate() {
            each(descriptor, Some(shard), counters.value(i));
        }
    }
    for (i, descriptor) in NodeCounters::DESCRIPTORS.iter().enumerate() {
        each(descriptor, None, node.value(i));
    }
    for sample in computed {
        each(&sample.descriptor, None, sample.value);
    }
}

fn write_labels(text: &mut String, labels: &[(&str, &str)], shard: Option<usize>) {
    if labels.is_empty() && shard.is_none() {
        return;
    }
    let mut separator = '{';
    if let Some(shard) = shard {
        let _ = write!(text, "{separator}shard=\"{shard}\"");
        separator = ',';
    }
    for (name, value) in labels {
        let _ = write!(text, "{separator}{name}=\"{value}\"");
        separator = ',';
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn families_are_contiguous_and_series_unique() {
        let mut series = HashSet::new();
        let mut closed = HashSet::new();
        let mut family = "";
        for descriptor in ShardCounters::DESCRIPTORS.iter().chain(NodeCounters::DESCRIPTORS) {
            assert!(series.insert((descriptor.name, descriptor.labels)), "{descriptor:?} stands twice");
            if descriptor.name != family {
                closed.insert(family);
                family = descriptor.name;
                assert!(!closed.contains(family), "{family} is torn into two groups");
            }
            let total = descriptor.name.ends_with("_total");
            assert_eq!(
                total,
                descriptor.kind == Kind::Counter,
                "{}: counters end in _total",
                descriptor.name
            );
        }
    }

    #[test]
    fn text_has_every_shard_and_one_header_a_family() {
        let shards = [Arc::new(ShardCounters::default()), Arc::new(ShardCounters::default())];
        shards[1].datagrams_sent.add(40);
        shards[1].datagrams_sent.increment();
        let node = NodeCounters::default();
        node.storage_appends_full.increment();
        let store = Sample {
            descriptor: Descriptor {
                name: "ioex_store_bytes",
                kind: Kind::Gauge,
                labels: &[],
                help: " Held.",
            },
            value: 7,
        };
        let text = render(&shards, &node, &[store]);
        assert!(text.contains("ioex_datagrams_sent_total{shard=\"0\"} 0\n"));
        assert!(text.contains("ioex_datagrams_sent_total{shard=\"1\"} 41\n"));
        assert!(text.contains("ioex_storage_appends_total{result=\"full\"} 1\n"));
        assert!(text.contains("# TYPE ioex_store_bytes gauge\nioex_store_bytes 7\n"));
        assert_eq!(text.matches("# TYPE ioex_storage_appends_total ").count(), 1);
    }
}
