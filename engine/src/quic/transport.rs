//! The QUIC transport's settings, with the arithmetic behind each.

use super::tls::{Tls, TlsError};
use relay::policy::Limits;

/// Largest datagram that is sent, bytes: an Ethernet frame of 1,500 less 40 of IPv6 and 8 of UDP. Reached by path MTU
/// discovery from 1,200 upwards. Forty-five of them fill a GSO batch of 65,507 bytes to 99.7 %.
pub const DATAGRAM_LEN_MAX: usize = 1_452;

/// Receive window of a stream at its start, bytes: a client uploads at 100 Mbit/s over 80 ms before quiche has widened
/// the window (it doubles while the client uses it up within two round trips).
const STREAM_WINDOW: u64 = 1 << 20;
/// The widest receive window of a stream: 500 Mbit/s over 64 ms. Only data with a gap before it waits in this memory,
/// for the service takes what is in order at once.
const STREAM_WINDOW_MAX: u64 = 4 << 20;
/// Receive window of a connection at its start: that of one stream and half of another.
const CONNECTION_WINDOW: u64 = STREAM_WINDOW + STREAM_WINDOW / 2;
/// The widest receive window of a connection, and so the most that a client can make one connection hold by leaving
/// gaps; a client must have uploaded several windows before it gets this far.
const CONNECTION_WINDOW_MAX: u64 = STREAM_WINDOW_MAX + STREAM_WINDOW_MAX / 2;
/// Receive window of a unidirectional stream: control and QPACK streams, which carry a few hundred bytes.
const UNI_STREAM_WINDOW: u64 = 16 << 10;
/// Unidirectional streams of a client: control, two of QPACK, and room for greasing.
const UNI_STREAMS_MAX: u64 = 8;

/// Connection ids that a client holds at a time: one in use, and three for addresses it moves to.
pub const CONNECTION_IDS_PER_CONNECTION: u64 = 4;

/// Probes of one size that must be lost before path MTU discovery takes the size for too large. Three: on a path that
/// loses 5 % of its datagrams a size that fits is given up once in 8,000 connections.
const MTU_PROBES_MAX: u8 = 3;

/// Stateless answers (version negotiation, Retry, reset) that wait for a send buffer. More are dropped: who asked asks
/// again.
pub const STATELESS_QUEUE_LEN: usize = 256;

/// Stateless answers a second and shard. Each is smaller than what provoked it, except a version negotiation,
/// which answers 1,200 bytes or more with at most 530; so reflecting them is worth nobody's while, and 10,000 a
/// second cost about a hundredth of a core.
pub const STATELESS_RATE_PER_S: u32 = 10_000;

/// The settings of connections, as far as they are not constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Largest datagram to send, bytes, 1,200 to 16,383.
    datagram_len_max: usize,
    idle_timeout_ms: u64,
    streams_per_connection_max: u64,
}

impl Transport {
    /// What the policy's bounds and the largest datagram to send (bytes, 1,200 to 16,383) come to.
    pub fn new(limits: &Limits, datagram_len_max: usize) -> Self {
        Self {
            datagram_len_max,
            idle_timeout_ms: limits.idle_timeout_ms.into(),
            streams_per_connection_max: limits.streams_per_connection_max.into(),
        }
    }

    /// The configuration of new connections.
    ///
    /// # Errors
    /// The certificate or key does not load.
    pub fn config(&self, tls: &Tls) -> Result<quiche::Config, ConfigError> {
        let mut config = quiche::Config::with_boring_ssl_ctx_builder(
            quiche::PROTOCOL_VERSION,
            tls.context(&self.remembered())?,
        )?;
        let protocols =
            [quiche::h3::APPLICATION_PROTOCOL, &[relay::mailbox::ALPN, relay::mailbox::HOP_ALPN]].concat();
        config.set_application_protos(&protocols)?;
        config.enable_early_data();
        config.set_max_idle_timeout(self.idle_timeout_ms);
        config.set_max_send_udp_payload_size(self.datagram_len_max);
        config.discover_pmtu(true);
        config.set_pmtud_max_probes(MTU_PROBES_MAX);
        config.set_initial_max_data(CONNECTION_WINDOW);
        config.set_initial_max_stream_data_bidi_remote(STREAM_WINDOW);
        // The server opens no bidirectional streams: HTTP/3 has none of that kind.
        config.set_initial_max_stream_data_bidi_local(0);
        config.set_initial_max_stream_data_uni(UNI_STREAM_WINDOW);
        config.set_max_stream_window(STREAM_WINDOW_MAX);
        config.set_max_connection_window(CONNECTION_WINDOW_MAX);
        config.set_initial_max_streams_bidi(self.streams_per_connection_max);
        config.set_initial_max_streams_uni(UNI_STREAMS_MAX);
        config.set_active_connection_id_limit(CONNECTION_IDS_PER_CONNECTION);
        config.set_cc_algorithm(quiche::CongestionControlAlgorithm::CUBIC);
        // quiche paces BBR only; with CUBIC it hands every packet out at once. That suits GSO: a batch of 45 leaves in
        // one call, and the kernel's fq queue discipline, where it is installed, spreads it on the wire.
        config.enable_pacing(false);
        Ok(config)
    }

    /// The settings that a client remembers beside a session ticket and goes by when it sends 0-RTT data; a server that
    /// accepts such data must not allow less than it did (RFC 9000 section 7.4.1).
    fn remembered(&self) -> [u8; 48] {
        let settings = [
            CONNECTION_WINDOW,
            STREAM_WINDOW,
            UNI_STREAM_WINDOW,
            self.streams_per_connection_max,
            UNI_STREAMS_MAX,
            CONNECTION_IDS_PER_CONNECTION,
        ];
        let mut out = [0; 48];
        for (bytes, setting) in out.chunks_exact_mut(8).zip(settings) {
            bytes.copy_from_slice(&setting.to_le_bytes());
        }
        out
    }
}

/// Why new connections cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// quiche refused a setting.
    #[error("quiche refuses the configuration: {0}")]
    Quic(#[from] quiche::Error),
}
