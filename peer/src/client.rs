//! The HTTP/3 client: one UDP socket, and one connection for each node, opened when it is first needed and again
//! after it was lost.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use identity::Uid;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, IdleTimeout, VarInt};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinSet;

use crate::node_url::NodeUrl;
use crate::trust::{self, Authorities, IdentityMismatch, NodeVerifier, Refusal, TrustError};

/// How a [`Client`] connects. The defaults suit a device on the public Internet.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// What vouches for nodes whose URL pins no UID.
    pub authorities: Authorities,
    /// How long name resolution and the handshake with one node may take.
    pub connect_timeout: Duration,
    /// A connection on which nothing arrives for so long is lost.
    pub idle_timeout: Duration,
    /// How often an otherwise silent connection is kept alive; below half of `idle_timeout`.
    pub keep_alive_interval: Duration,
    /// A transfer that moves no byte for so long has failed (its connection may well live on).
    pub stall_timeout: Duration,
    /// Flow-control window of one stream in bytes. 16 MiB carries 1 Gbit/s over 130 ms on a single stream.
    pub stream_window_bytes: u32,
    /// Flow-control window of one connection in bytes: also the bound on what the client buffers for it unread.
    pub connection_window_bytes: u32,
    /// The UDP socket's buffers in bytes, as far as the system allows. 4 MiB is 30 ms at 1 Gbit/s.
    pub socket_buffer_bytes: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            authorities: Authorities::System,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            stream_window_bytes: 16 << 20,
            connection_window_bytes: 32 << 20,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No UDP socket.
    #[error("no UDP socket can be opened: {0}")]
    Socket(#[source] std::io::Error),
    /// A number in the options is out of range.
    #[error("the idle time-out of {0:?} is longer than QUIC can say")]
    IdleTimeout(Duration),
}

/// Why no connection to a node could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The host name has no address.
    #[error("the name {host} cannot be resolved: {reason}; check the spelling and this machine's DNS")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nothing answered in time.
    #[error(
        "nothing answered on {authority} (UDP) within {:.0} s; is the node up, and does a firewall let UDP through?",
        timeout.as_secs_f32()
    )]
    Timeout {
        /// Where.
        authority: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The node is not who the URL says.
    #[error("{authority} is not the node asked for: {mismatch}")]
    Identity {
        /// Where.
        authority: String,
        /// What does not fit.
        mismatch: IdentityMismatch,
    },
    /// The certificates to trust could not be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The certificate is not vouched for by the CA file or the system's roots.
    #[error(
        "{authority} shows a certificate that is not trusted ({reason}); pin the node's UID \
         (https://UID@{authority}) or name its CA with --ca"
    )]
    Untrusted {
        /// Where.
        authority: String,
        /// What the check said.
        reason: String,
    },
    /// Something answers, but the handshake failed.
    #[error("{authority} answers, but the handshake failed: {reason}")]
    Handshake {
        /// Where.
        authority: String,
        /// What failed.
        reason: String,
    },
}

impl ConnectError {
    /// Whether trying again cannot help, because the node or the configuration would have to change first.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            ConnectError::Identity { .. } | ConnectError::Trust(_) | ConnectError::Untrusted { .. }
        )
    }
}

/// Connects to nodes. Cheap to clone; all clones share one UDP socket.
#[derive(Clone)]
pub struct Client {
    shared: Arc<ClientShared>,
}

struct ClientShared {
    endpoint: Endpoint,
    is_dual_stack: bool,
    transport: Arc<quinn::TransportConfig>,
    options: ClientOptions,
    /// What vouches for nodes without a pin, loaded when the first of them is connected to.
    roots: OnceCell<Arc<WebPkiServerVerifier>>,
}

impl Client {
    /// A client with a UDP socket of its own, for both address families where the system has them. Must be called
    /// within a tokio runtime.
    pub fn new(options: ClientOptions) -> Result<Client, ClientError> {
        let (socket, is_dual_stack) = bind(options.socket_buffer_bytes).map_err(ClientError::Socket)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
            .map_err(ClientError::Socket)?;
        let transport = Arc::new(transport(&options)?);
        Ok(Client {
            shared: Arc::new(ClientShared {
                endpoint,
                is_dual_stack,
                transport,
                options,
                roots: OnceCell::new(),
            }),
        })
    }

    /// A handle to the node at `url`. Nothing is sent before the first request.
    pub fn node(&self, url: NodeUrl) -> Node {
        Node {
            shared: Arc::new(NodeShared {
                client: self.clone(),
                url,
                tls: OnceCell::new(),
                pool: Mutex::new(Pool { connection: None, failure: None }),
                attempts: AtomicU64::new(0),
            }),
        }
    }

    /// The options the client was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// Waits until every connection has said goodbye to its node; at most three round trips each. Call it before a
    /// program ends, so that nodes need not wait for idle time-outs.
    pub async fn wait_closed(&self) {
        self.shared.endpoint.wait_idle().await;
    }
}

/// One node and the connection to it, if there is one. Clones share the connection.
#[derive(Clone)]
pub struct Node {
    shared: Arc<NodeShared>,
}

struct NodeShared {
    client: Client,
    url: NodeUrl,
    tls: OnceCell<NodeTls>,
    /// How many attempts to connect have ended: tells a waiter that the one it waited for has failed.
    attempts: AtomicU64,
    pool: Mutex<Pool>,
}

/// How a node is authenticated. Kept as long as its handle, so that reconnecting can resume the TLS session.
struct NodeTls {
    config: quinn::ClientConfig,
    verifier: Arc<NodeVerifier>,
}

struct Pool {
    connection: Option<Connection>,
    failure: Option<ConnectError>,
}

pub(crate) type SendRequest = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// An open HTTP/3 connection.
#[derive(Clone)]
pub(crate) struct Connection {
    quic: quinn::Connection,
    pub(crate) requests: SendRequest,
}

impl Node {
    /// Where the node is.
    pub fn url(&self) -> &NodeUrl {
        &self.shared.url
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        self.shared.client.options()
    }

    /// The node's identity: the pinned one, else what its certificate is bound to (its CA vouches for the
    /// certificate), else none.
    pub async fn uid(&self) -> Result<Option<Uid>, ConnectError> {
        if let Some(uid) = self.shared.url.uid() {
            return Ok(Some(*uid));
        }
        let connection = self.connection().await?;
        let chain = connection.quic.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer>>().ok());
        Ok(chain.and_then(|chain| trust::certificate_uid(chain.first()?).ok()))
    }

    /// The open connection, or a new one. Callers that wait for the same attempt share its outcome.
    pub(crate) async fn connection(&self) -> Result<Connection, ConnectError> {
        let seen = self.shared.attempts.load(Ordering::Acquire);
        let mut pool = self.shared.pool.lock().await;
        if let Some(open) = &pool.connection
            && open.quic.close_reason().is_none()
        {
            return Ok(open.clone());
        }
        if self.shared.attempts.load(Ordering::Acquire) != seen
            && let Some(failure) = &pool.failure
        {
            return Err(failure.clone());
        }
        pool.connection = None;
        let outcome = self.shared.connect().await;
        self.shared.attempts.fetch_add(1, Ordering::Release);
        match outcome {
            Ok(open) => {
                pool.failure = None;
                pool.connection = Some(open.clone());
                Ok(open)
            }
            Err(failure) => {
                tracing::debug!(node = %self.shared.url, error = %failure, "cannot connect");
                pool.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// Makes later requests use a new connection, because this one takes no more of them (GOAWAY).
    pub(crate) async fn retire(&self, connection: &Connection) {
        let mut pool = self.shared.pool.lock().await;
        if pool.connection.as_ref().is_some_and(|open| open.quic.stable_id() == connection.quic.stable_id()) {
            pool.connection = None;
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.shared.url)
    }
}

/// A socket for both families, or for IPv4 alone where there is no IPv6.
fn bind(buffer_bytes: usize) -> std::io::Result<(std::net::UdpSocket, bool)> {
    use socket2::{Domain, Protocol, Socket, Type};
    let open = |domain, address: SocketAddr| -> std::io::Result<Socket> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let (socket, is_dual_stack) = match open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into()) {
        Ok(socket) => (socket, true),
        Err(_) => (open(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into())?, false),
    };
    // The system caps both at its own maximum; less than asked for costs speed, not correctness.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    Ok((socket.into(), is_dual_stack))
}

fn transport(options: &ClientOptions) -> Result<quinn::TransportConfig, ClientError> {
    let idle = IdleTimeout::try_from(options.idle_timeout)
        .map_err(|_| ClientError::IdleTimeout(options.idle_timeout))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(options.keep_alive_interval))
        .stream_receive_window(VarInt::from_u32(options.stream_window_bytes))
        .receive_window(VarInt::from_u32(options.connection_window_bytes))
        .send_window(u64::from(options.connection_window_bytes))
        // A server opens control and QPACK streams only; pushes and datagrams are not used.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(16))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

/// How long an address gets before the next one is tried beside it (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl NodeShared {
    async fn connect(&self) -> Result<Connection, ConnectError> {
        let timeout = self.client.options().connect_timeout;
        let timed_out = || ConnectError::Timeout { authority: self.url.authority(), timeout };
        tokio::time::timeout(timeout, self.connect_any()).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Resolves the host and races its addresses with staggered starts; the first finished handshake wins.
    async fn connect_any(&self) -> Result<Connection, ConnectError> {
        let (client, url) = (&self.client, &self.url);
        let tls = self.tls.get_or_try_init(|| self.authenticate()).await?;
        let mut addresses = resolve(client, url).await?.into_iter().peekable();
        let mut attempts = JoinSet::new();
        let mut failure = None;
        loop {
            if let Some(address) = addresses.next() {
                let endpoint = &client.shared.endpoint;
                match endpoint.connect_with(tls.config.clone(), address, &url.host()) {
                    Ok(connecting) => drop(attempts.spawn(connecting)),
                    Err(e) => failure = Some(handshake(url, &e)),
                }
            }
            let ended = tokio::select! {
                Some(ended) = attempts.join_next() => ended,
                () = tokio::time::sleep(ATTEMPT_DELAY), if addresses.peek().is_some() => continue,
                else => break,
            };
            match ended {
                Ok(Ok(quic)) => return open_http(quic).await.map_err(|e| handshake(url, &e)),
                Ok(Err(e)) => failure = Some(explain(url, &e, &tls.verifier)),
                Err(e) => failure = Some(handshake(url, &e)),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Resolve {
            host: url.host(),
            reason: "it has no address of a family this machine has".to_owned(),
        }))
    }

    async fn authenticate(&self) -> Result<NodeTls, ConnectError> {
        let (tls, verifier) = match self.url.uid() {
            Some(uid) => trust::pinned(*uid),
            None => {
                let shared = &self.client.shared;
                let load = async || {
                    let authorities = shared.options.authorities.clone();
                    let loading = tokio::task::spawn_blocking(move || trust::load_roots(&authorities));
                    loading.await.map_err(|e| handshake(&self.url, &e))?.map_err(ConnectError::from)
                };
                trust::rooted(shared.roots.get_or_try_init(load).await?.clone())
            }
        };
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| handshake(&self.url, &e))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.client.shared.transport.clone());
        Ok(NodeTls { config, verifier })
    }
}

async fn resolve(client: &Client, url: &NodeUrl) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = url.address() {
        return Ok(vec![SocketAddr::new(address, url.port())]);
    }
    let failed = |reason: String| ConnectError::Resolve { host: url.host(), reason };
    let found = tokio::net::lookup_host((url.host(), url.port())).await.map_err(|e| failed(e.to_string()))?;
    let is_usable =
        |address: &SocketAddr| client.shared.is_dual_stack || matches!(address.ip(), IpAddr::V4(_));
    let (v6, v4): (Vec<_>, Vec<_>) = found.filter(is_usable).partition(SocketAddr::is_ipv6);
    // Families alternate, so that a broken one costs a single delay (RFC 8305 section 4).
    let mut alternating = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        let before = alternating.len();
        alternating.extend(v6.next());
        alternating.extend(v4.next());
        if alternating.len() == before {
            break;
        }
    }
    if alternating.is_empty() {
        return Err(failed("it has no address of a family this machine has".to_owned()));
    }
    Ok(alternating)
}

async fn open_http(quic: quinn::Connection) -> Result<Connection, h3::error::ConnectionError> {
    let (mut driver, requests) = h3::client::builder()
        .max_field_section_size(16 << 10)
        .send_grease(false)
        .build(h3_quinn::Connection::new(quic.clone()))
        .await?;
    // Ends by itself: when the node closes the connection, or when the last request handle is dropped.
    tokio::spawn(async move {
        let end = driver.wait_idle().await;
        tracing::debug!(reason = %end, "HTTP/3 connection ended");
    });
    Ok(Connection { quic, requests })
}

fn handshake(url: &NodeUrl, error: &dyn fmt::Display) -> ConnectError {
    ConnectError::Handshake { authority: url.authority(), reason: error.to_string() }
}

fn explain(url: &NodeUrl, error: &quinn::ConnectionError, verifier: &NodeVerifier) -> ConnectError {
    let authority = url.authority();
    match verifier.take_refusal() {
        Some(Refusal::Identity(mismatch)) => ConnectError::Identity { authority, mismatch },
        Some(Refusal::Untrusted(reason)) => ConnectError::Untrusted { authority, reason: reason.to_string() },
        None => ConnectError::Handshake { authority, reason: error.to_string() },
    }
}
