//! What is counted beside the shards.

use super::{Descriptor, Kind, SharedCounter};

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

        /// Leases that their owners ended.
        leases_ended: counter "ioex_leases_ended_total" [],
        /// Segments that the sweep deleted since their leases were over.
        segments_swept: counter "ioex_segments_swept_total" [],
        /// Packs rewritten to give the space of dead segments back.
        packs_compacted: counter "ioex_packs_compacted_total" [],
        /// Bytes that this gave back.
        compacted_bytes: counter "ioex_compacted_bytes_total" [],
        /// Bytes that the scrub has read and verified.
        scrubbed_bytes: counter "ioex_scrubbed_bytes_total" [],
        /// Damaged places that the scrub has found.
        scrub_damage: counter "ioex_scrub_damage_total" [],

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
        /// Changes of few entries that are in force.
        policies_changed: counter "ioex_policy_changes_total" [("result", "applied")],
        /// Changes of few entries refused because they were made for another generation, or led out of a limit's range.
        policies_change_rejected: counter "ioex_policy_changes_total" [("result", "rejected")],
        /// Entries added or removed by such changes.
        policy_edits: counter "ioex_policy_edits_total" [],
        /// Reloads of the certificate that succeeded.
        certificate_reloads: counter "ioex_certificate_reloads_total" [("result", "loaded")],
        /// Reloads of the certificate that failed; the old one stays in use.
        certificate_reloads_failed: counter "ioex_certificate_reloads_total" [("result", "failed")],
    }
}
