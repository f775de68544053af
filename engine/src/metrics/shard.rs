//! What a shard counts.

use super::{Counter, Descriptor, Kind};

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
        /// Datagrams of that engine's connections dropped because it does not take them fast enough.
        datagrams_passing_full: counter "ioex_datagrams_dropped_total" [("cause", "passing_full")],
        /// Datagrams passed on to the engine that had the sockets before and finishes their connections.
        datagrams_passed_on: counter "ioex_datagrams_passed_on_total" [],
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
        /// Handshakes that resumed a session (among those completed).
        connections_resumed: counter "ioex_connections_resumed_total" [],
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
        /// Requests that came before the handshake was complete (0-RTT).
        requests_early: counter "ioex_requests_early_total" [],
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
        /// Uploads refused because the store has no room, with what is reserved.
        uploads_refused_space: counter "ioex_uploads_refused_total" [("cause", "store_bytes_max")],
        /// Uploads refused because their publisher's quota is used up.
        uploads_refused_quota: counter "ioex_uploads_refused_total" [("cause", "publisher_bytes_max")],
        /// Uploads refused because the policy has expired (among those refused).
        uploads_refused_policy_expired: counter "ioex_uploads_refused_total" [("cause", "policy_expired")],
        /// Uploads refused because their publisher's UID is denied (among those refused).
        uploads_refused_denied: counter "ioex_uploads_refused_total" [("cause", "uid_denied")],
        /// Uploads refused because their publisher's UID is not among those allowed (among those refused).
        uploads_refused_not_allowed: counter "ioex_uploads_refused_total" [("cause", "uid_not_allowed")],
        /// Requests refused because their fields were longer than allowed (among those refused).
        requests_refused_header: counter "ioex_requests_refused_total" [("cause", "header_bytes_max")],
        /// Requests refused because they were early data and not safe to repeat (among those refused).
        requests_refused_early: counter "ioex_requests_refused_total" [("cause", "early_data")],
        /// Requests refused because their connection made too many (among those refused).
        requests_refused_rate: counter "ioex_requests_refused_total" [("cause", "requests_per_s_max")],
        /// Times that an answer waited because its connection had as many bytes unacknowledged as it may.
        send_queue_full: counter "ioex_send_queue_full_total" [],
        /// Segments that were not in memory when they were asked for.
        segments_cold: counter "ioex_segments_cold_total" [],
        /// Requests to the storage executors that found their queue full.
        storage_stalled: counter "ioex_storage_queue_full_total" [],

        /// TURN allocations that live.
        relay_allocations: gauge "ioex_relay_allocations" [],
        /// Relayed sockets that are open: one or two an allocation.
        relay_sockets: gauge "ioex_relay_sockets" [],
        /// Relay ports that may be given to allocations now.
        relay_ports_free: gauge "ioex_relay_ports_free" [],
        /// Relay ports that turned out to be another program's when they were chosen.
        relay_ports_taken: counter "ioex_relay_ports_taken_total" [],
        /// Packets relayed from clients to peers.
        relay_to_peer_packets: counter "ioex_relay_packets_total" [("direction", "to_peer")],
        /// Packets relayed from peers to clients.
        relay_to_client_packets: counter "ioex_relay_packets_total" [("direction", "to_client")],
        /// Payload bytes relayed from clients to peers.
        relay_to_peer_bytes: counter "ioex_relay_bytes_total" [("direction", "to_peer")],
        /// Payload bytes relayed from peers to clients.
        relay_to_client_bytes: counter "ioex_relay_bytes_total" [("direction", "to_client")],
        /// STUN and TURN requests answered with success.
        relay_successes: counter "ioex_relay_answers_total" [("code", "success")],
        /// Requests refused as malformed.
        relay_errors_400: counter "ioex_relay_answers_total" [("code", "400")],
        /// Requests without valid credentials; each client's first one is among them.
        relay_errors_401: counter "ioex_relay_answers_total" [("code", "401")],
        /// Requests for a peer or from a client that the policy denies, or of a channel that is taken.
        relay_errors_403: counter "ioex_relay_answers_total" [("code", "403")],
        /// Requests for mobility where the policy forbids it.
        relay_errors_405: counter "ioex_relay_answers_total" [("code", "405")],
        /// Requests with an attribute that is not understood.
        relay_errors_420: counter "ioex_relay_answers_total" [("code", "420")],
        /// Requests that do not fit the state of the allocation.
        relay_errors_437: counter "ioex_relay_answers_total" [("code", "437")],
        /// Requests with a nonce that has grown old.
        relay_errors_438: counter "ioex_relay_answers_total" [("code", "438")],
        /// Requests for a family that the node relays nothing of.
        relay_errors_440: counter "ioex_relay_answers_total" [("code", "440")],
        /// Requests with the credentials of another user than the allocation's.
        relay_errors_441: counter "ioex_relay_answers_total" [("code", "441")],
        /// Requests for a transport other than UDP.
        relay_errors_442: counter "ioex_relay_answers_total" [("code", "442")],
        /// Requests for a peer of another family than the allocation's.
        relay_errors_443: counter "ioex_relay_answers_total" [("code", "443")],
        /// Allocations refused because the user or address has as many as it may, or has begun as many as it may.
        relay_errors_486: counter "ioex_relay_answers_total" [("code", "486")],
        /// Allocations refused because the node has as many as it may, no port is free, or it drains.
        relay_errors_508: counter "ioex_relay_answers_total" [("code", "508")],
        /// Requests refused with another code.
        relay_errors_other: counter "ioex_relay_answers_total" [("code", "other")],
        /// Allocations refused: the node has as many as it may.
        relay_quota_node: counter "ioex_relay_quota_hits_total" [("quota", "node")],
        /// Allocations refused: the user has as many as it may.
        relay_quota_user: counter "ioex_relay_quota_hits_total" [("quota", "user")],
        /// Allocations refused: the user has begun as many as it may in a minute.
        relay_quota_user_rate: counter "ioex_relay_quota_hits_total" [("quota", "user_per_min")],
        /// Allocations refused: the client's address has as many as it may.
        relay_quota_ip: counter "ioex_relay_quota_hits_total" [("quota", "ip")],
        /// Allocations refused: the policy has expired.
        relay_refused_policy_expired: counter "ioex_relay_allocations_refused_total" [("cause", "policy_expired")],
        /// Requests of users whose UID is denied.
        relay_users_denied: counter "ioex_relay_users_refused_total" [("cause", "denied")],
        /// Requests of users whose UID is not among those allowed.
        relay_users_not_allowed: counter "ioex_relay_users_refused_total" [("cause", "not_allowed")],
        /// Requests without proof of who sent them, as every client's first one is.
        relay_auth_no_integrity: counter "ioex_relay_auth_failures_total" [("cause", "no_integrity")],
        /// Requests that claim a proof but lack realm, nonce or user name.
        relay_auth_incomplete: counter "ioex_relay_auth_failures_total" [("cause", "incomplete")],
        /// Requests whose list of password algorithms is not the one that was offered.
        relay_auth_password_algorithms: counter "ioex_relay_auth_failures_total" [("cause", "password_algorithms")],
        /// Requests of users whom nobody knows.
        relay_auth_unknown_user: counter "ioex_relay_auth_failures_total" [("cause", "unknown_user")],
        /// Requests with credentials whose time is over.
        relay_auth_expired: counter "ioex_relay_auth_failures_total" [("cause", "expired")],
        /// Requests with a nonce that is too old or was never given to their address.
        relay_auth_stale_nonce: counter "ioex_relay_auth_failures_total" [("cause", "stale_nonce")],
        /// Requests with a wrong password, or changed on their way.
        relay_auth_wrong_integrity: counter "ioex_relay_auth_failures_total" [("cause", "wrong_integrity")],
        /// Dropped by the relay: neither STUN nor ChannelData, or cut short.
        relay_dropped_malformed: counter "ioex_relay_dropped_total" [("cause", "malformed")],
        /// Dropped: nothing that a server answers.
        relay_dropped_not_a_request: counter "ioex_relay_dropped_total" [("cause", "not_a_request")],
        /// Dropped: strangers of one network asked too often.
        relay_dropped_strangers: counter "ioex_relay_dropped_total" [("cause", "stranger_limit")],
        /// Dropped: the policy denies the client's address.
        relay_dropped_client_denied: counter "ioex_relay_dropped_total" [("cause", "client_denied")],
        /// Dropped: data of a client without an allocation.
        relay_dropped_no_allocation: counter "ioex_relay_dropped_total" [("cause", "no_allocation")],
        /// Dropped: data on a channel that is not bound.
        relay_dropped_no_channel: counter "ioex_relay_dropped_total" [("cause", "no_channel")],
        /// Dropped: data to or from a peer without a permission.
        relay_dropped_no_permission: counter "ioex_relay_dropped_total" [("cause", "no_permission")],
        /// Dropped: data to a peer that the policy denies.
        relay_dropped_peer_denied: counter "ioex_relay_dropped_total" [("cause", "peer_denied")],
        /// Dropped: a rate of the user, the address or the node was used up.
        relay_dropped_rate: counter "ioex_relay_dropped_total" [("cause", "rate_limit")],
        /// Dropped: data for a mobile client whose stream has closed and that has not come back.
        relay_dropped_client_gone: counter "ioex_relay_dropped_total" [("cause", "client_gone")],
        /// Dropped: the relay has no usable policy.
        relay_dropped_no_policy: counter "ioex_relay_dropped_total" [("cause", "no_policy")],
        /// Dropped: data to an address of this node that is no live relayed one any more.
        relay_dropped_not_live: counter "ioex_relay_dropped_total" [("cause", "not_live")],
        /// Dropped: data for a client on a stream that does not read fast enough, or many of them together do not.
        relay_dropped_slow_client: counter "ioex_relay_dropped_total" [("cause", "slow_client")],
        /// Dropped: with its header it is longer than a datagram can be.
        relay_dropped_too_long: counter "ioex_relay_dropped_total" [("cause", "too_long")],
        /// Dropped: all send buffers were in use.
        relay_dropped_no_buffer: counter "ioex_relay_dropped_total" [("cause", "send_buffers")],
        /// Dropped: the socket that it was to leave from is gone.
        relay_dropped_no_socket: counter "ioex_relay_dropped_total" [("cause", "no_socket")],
        /// Dropped: it belongs to another shard whose mailbox is full, or which does not want it.
        relay_dropped_hand_over: counter "ioex_relay_dropped_total" [("cause", "hand_over")],
        /// Clients of other shards' allocations whose datagrams reach this shard.
        relay_foreign_clients: gauge "ioex_relay_foreign_clients" [],
        /// Batches of such clients handed over to their shard.
        relay_handed_over: counter "ioex_relay_handed_over_total" [],
        /// TCP and TLS streams of the relay's clients.
        relay_streams: gauge "ioex_relay_streams" [],
        /// Streams accepted.
        relay_streams_accepted: counter "ioex_relay_streams_accepted_total" [],
        /// Streams closed at once because the shard had as many as it may.
        relay_streams_refused: counter "ioex_relay_streams_refused_total" [("cause", "shard")],
        /// Streams closed at once because their address held as many as it may.
        relay_streams_refused_by_address: counter "ioex_relay_streams_refused_total" [("cause", "ip")],
        /// Times that a stream was not read from until its client had taken its answers.
        relay_streams_paused: counter "ioex_relay_streams_paused_total" [],
        /// Streams that their clients closed.
        relay_streams_closed_by_client: counter "ioex_relay_streams_closed_total" [("cause", "client")],
        /// Streams that broke.
        relay_streams_closed_broken: counter "ioex_relay_streams_closed_total" [("cause", "broken")],
        /// Streams closed because what came on them is no TURN.
        relay_streams_closed_malformed: counter "ioex_relay_streams_closed_total" [("cause", "malformed")],
        /// Streams closed because TLS failed.
        relay_streams_closed_tls: counter "ioex_relay_streams_closed_total" [("cause", "tls")],
        /// Streams closed because no whole message came in time.
        relay_streams_closed_opening: counter "ioex_relay_streams_closed_total" [("cause", "opening_timeout")],
        /// Streams closed because they were silent and without an allocation.
        relay_streams_closed_idle: counter "ioex_relay_streams_closed_total" [("cause", "idle")],
        /// Streams closed because their clients did not read the answers.
        relay_streams_closed_not_read: counter "ioex_relay_streams_closed_total" [("cause", "not_read")],
        /// Streams closed because their session was ended, or the engine ends.
        relay_streams_closed_here: counter "ioex_relay_streams_closed_total" [("cause", "ended_here")],
        /// Ended sessions that were not logged because the log could not keep up.
        relay_sessions_unlogged: counter "ioex_relay_sessions_unlogged_total" [],
        /// Connections of the mailbox service that are open now, whether logged in or not.
        mailbox_sessions: gauge "ioex_mailbox_sessions" [],
        /// Logins that proved their UID.
        mailbox_logins: counter "ioex_mailbox_logins_total" [("result", "accepted")],
        /// Logins that did not.
        mailbox_logins_refused: counter "ioex_mailbox_logins_total" [("result", "refused")],
        /// Logins refused because the policy has expired.
        mailbox_logins_policy_expired: counter "ioex_mailbox_logins_total" [("result", "policy_expired")],
        /// Logins refused because their UID is denied.
        mailbox_logins_denied: counter "ioex_mailbox_logins_total" [("result", "denied")],
        /// Logins refused because their UID is not among those allowed.
        mailbox_logins_not_allowed: counter "ioex_mailbox_logins_total" [("result", "not_allowed")],
        /// Sessions closed, and logins refused, because their UID is not served.
        mailbox_denied: counter "ioex_mailbox_sessions_closed_total" [("cause", "uid_denied")],
        /// Sessions closed because their UID has logged in again.
        mailbox_displaced: counter "ioex_mailbox_sessions_closed_total" [("cause", "displaced")],
        /// Sessions closed because of what no peer may send.
        mailbox_malformed: counter "ioex_mailbox_sessions_closed_total" [("cause", "malformed")],
        /// Sessions closed because they did not read.
        mailbox_slow: counter "ioex_mailbox_sessions_closed_total" [("cause", "not_read")],
        /// Credentials for the relay that peers were issued.
        mailbox_relay_granted: counter "ioex_mailbox_relay_credentials_total" [("result", "issued")],
        /// Peers that asked for credentials and got none.
        mailbox_relay_not_granted: counter "ioex_mailbox_relay_credentials_total" [("result", "refused")],
        /// Envelopes passed on to their receivers.
        mailbox_delivered: counter "ioex_mailbox_envelopes_total" [("result", "delivered")],
        /// Envelopes to peers that are not connected.
        mailbox_offline: counter "ioex_mailbox_envelopes_total" [("result", "offline")],
        /// Envelopes from senders that their receivers do not allow.
        mailbox_refused: counter "ioex_mailbox_envelopes_total" [("result", "refused")],
        /// Friend requests to an address that was revoked, or guessed.
        mailbox_nospam_wrong: counter "ioex_mailbox_envelopes_total" [("result", "nospam_wrong")],
        /// Envelopes above a rate, or for a peer or a shard with a full queue.
        mailbox_busy: counter "ioex_mailbox_envelopes_total" [("result", "busy")],
        /// Envelopes for another node that is gone without an answer about them.
        mailbox_lost: counter "ioex_mailbox_envelopes_total" [("result", "lost")],
        /// Envelopes passed on to other nodes.
        mailbox_hops_sent: counter "ioex_mailbox_hops_total" [("direction", "sent")],
        /// Envelopes that other nodes have passed on to this one.
        mailbox_hops_received: counter "ioex_mailbox_hops_total" [("direction", "received")],
        /// Connections to other nodes that did not come about or broke, or at whose end was somebody else.
        mailbox_hops_failed: counter "ioex_mailbox_hop_failures_total" [("cause", "connection")],
        /// Envelopes to nodes at addresses that the policy does not let this one reach.
        mailbox_hops_denied: counter "ioex_mailbox_hop_failures_total" [("cause", "address_denied")],
        /// Envelopes of other nodes whose senders are not served here.
        mailbox_hops_sender_denied: counter "ioex_mailbox_hop_failures_total" [("cause", "sender_denied")],
        /// Connections of other nodes closed for an envelope that its sender has not signed.
        mailbox_hops_forged: counter "ioex_mailbox_hop_failures_total" [("cause", "forged")],
        /// Connections of other nodes closed because there were as many as may be.
        mailbox_hops_crowded: counter "ioex_mailbox_hop_failures_total" [("cause", "crowded")],
        /// Answers of other nodes about envelopes that they were not given.
        mailbox_hops_unexpected: counter "ioex_mailbox_hop_failures_total" [("cause", "unexpected_answer")],
    }
}
