//! What the load client and the reference sender share of quiche: configuration, zero-copy buffers, GSO batches.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use quiche::{BufFactory, Config, Connection};

/// Bytes of a full datagram (UDP payload): Ethernet's 1,500 less IPv6 and UDP headers.
pub const DATAGRAM_LEN: usize = 1_452;

/// Datagrams of a full GSO batch: 45 x 1,452 = 65,340 bytes, the most that fits the 65,507 of one UDP send.
pub const BATCH_SEGMENTS: usize = 45;

/// Bytes of a buffer that holds one GSO batch.
pub const BATCH_LEN: usize = BATCH_SEGMENTS * DATAGRAM_LEN;

/// Application protocol of the reference sender without HTTP: one line asks for a range, the stream answers with it.
pub const RAW_ALPN: &[u8] = b"perf-raw";

/// Bytes of the connection ids that both ends choose.
pub const CONNECTION_ID_LEN: usize = 16;

/// Idle time-out of both ends, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 30_000;

/// Makes quiche keep what it sends in reference-counted [`Bytes`].
#[derive(Clone, Debug, Default)]
pub struct SharedBytes;

impl BufFactory for SharedBytes {
    type Buf = Bytes;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(buf: &[u8]) -> Bytes {
        Bytes::copy_from_slice(buf)
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Vec<u8> {
        buf.to_vec()
    }
}

/// The connection type used throughout.
pub type Quic = Connection<SharedBytes>;

/// Settings that both ends have in common.
///
/// `window_bytes` is the flow-control window of the connection and of each stream, and is not tuned upwards by
/// quiche, so that every subject in a comparison sends against the same window.
fn common(alpn: &[&[u8]], window_bytes: u64) -> anyhow::Result<Config> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    config.set_application_protos(alpn)?;
    config.set_max_idle_timeout(IDLE_TIMEOUT_MS);
    config.set_max_recv_udp_payload_size(DATAGRAM_LEN);
    config.set_max_send_udp_payload_size(DATAGRAM_LEN);
    config.set_initial_max_data(2 * window_bytes);
    config.set_max_connection_window(2 * window_bytes);
    config.set_initial_max_stream_data_bidi_local(window_bytes);
    config.set_initial_max_stream_data_bidi_remote(window_bytes);
    config.set_max_stream_window(window_bytes);
    config.set_initial_max_stream_data_uni(1 << 20);
    config.set_initial_max_streams_bidi(1_000);
    config.set_initial_max_streams_uni(16);
    config.set_cc_algorithm(quiche::CongestionControlAlgorithm::CUBIC);
    config.enable_pacing(false);
    config.grease(false);
    Ok(config)
}

/// Configuration of the reference sender.
pub fn server_config(
    certificate: &Path,
    key: &Path,
    alpn: &[&[u8]],
    window_bytes: u64,
) -> anyhow::Result<Config> {
    let mut config = common(alpn, window_bytes)?;
    let path = |p: &Path| p.to_str().map(str::to_owned).context("certificate paths are UTF-8");
    config.load_cert_chain_from_pem_file(&path(certificate)?).context("loading the certificate")?;
    config.load_priv_key_from_pem_file(&path(key)?).context("loading the private key")?;
    Ok(config)
}

/// Configuration of the load client. It does not verify the server's certificate: every server runs on loopback with
/// a certificate that this program made, and verification happens once a connection, outside what is measured.
pub fn client_config(alpn: &[u8], window_bytes: u64) -> anyhow::Result<Config> {
    let mut config = common(&[alpn], window_bytes)?;
    config.verify_peer(false);
    Ok(config)
}

/// A batch of datagrams for one destination, at the start of the buffer it was written to.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Destination.
    pub to: SocketAddr,
    /// Bytes of all datagrams together.
    pub len: usize,
    /// Bytes of every datagram but the last, which may be shorter.
    pub segment_len: usize,
    /// How many datagrams.
    pub datagrams: usize,
}

/// Writes the connection's next packets to `buffer` (at least [`BATCH_LEN`] bytes): as many full datagrams as a GSO
/// batch takes, closed early by the first shorter one. `None` when the connection has nothing to send.
pub fn fill_batch(quic: &mut Quic, buffer: &mut [u8]) -> anyhow::Result<Option<Batch>> {
    let mut batch: Option<Batch> = None;
    loop {
        let start = batch.map_or(0, |b| b.len);
        let (len, info) = match quic.send(&mut buffer[start..start + DATAGRAM_LEN]) {
            Ok(sent) => sent,
            Err(quiche::Error::Done) => return Ok(batch),
            Err(e) => return Err(e).context("quiche could not make a packet"),
        };
        let b = batch.get_or_insert(Batch { to: info.to, len: 0, segment_len: len, datagrams: 0 });
        b.len += len;
        b.datagrams += 1;
        if len < DATAGRAM_LEN || b.datagrams == BATCH_SEGMENTS {
            return Ok(batch);
        }
    }
}

/// A random connection id.
pub fn random_connection_id() -> anyhow::Result<quiche::ConnectionId<'static>> {
    let mut id = vec![0; CONNECTION_ID_LEN];
    getrandom::fill(&mut id).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(quiche::ConnectionId::from_vec(id))
}
