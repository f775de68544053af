//! The HTTP/3 client: one UDP socket for all nodes, and how patient and how generous it is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, IdleTimeout, VarInt};
use rustls::client::WebPkiServerVerifier;
use tokio::sync::OnceCell;

pub use crate::node::{ConnectError, Node};
use crate::node_url::NodeUrl;
use crate::trust::{self, Authorities, TrustError};

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
    /// How long a node may take to verify and durably store a segment it has received.
    pub store_timeout: Duration,
    /// Flow-control window of one stream in bytes. 16 MiB carries 1 Gbit/s over 130 ms on a single stream.
    pub stream_window_bytes: u32,
    /// Flow-control window of one connection in bytes: also the bound on what the client buffers for it
    /// unread.
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
            store_timeout: Duration::from_secs(60),
            stream_window_bytes: 16 << 20,
            connection_window_bytes: 32 << 20,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// How long goodbyes may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

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
    /// A client with a UDP socket of its own, for both address families where the system has them. Must be
    /// called within a tokio runtime.
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
        Node::new(self.clone(), url)
    }

    /// The options the client was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Whether IPv6 can be used beside IPv4.
    pub(crate) fn is_dual_stack(&self) -> bool {
        self.shared.is_dual_stack
    }

    pub(crate) fn transport(&self) -> Arc<quinn::TransportConfig> {
        self.shared.transport.clone()
    }

    /// What vouches for nodes without a pin, loaded when the first of them is connected to.
    pub(crate) async fn roots(&self) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
        let load = async || {
            let authorities = self.shared.options.authorities.clone();
            let loading = tokio::task::spawn_blocking(move || trust::load_roots(&authorities));
            loading.await.map_err(|e| TrustError::NoSystemRoots { reason: e.to_string() })?
        };
        self.shared.roots.get_or_try_init(load).await.cloned()
    }

    /// Closes every connection and waits until each has said goodbye to its node: three round trips, and at most
    /// a second, for a handshake that nobody answers knows no round trip. Call it when all is done, so that nodes need not
    /// wait for idle time-outs. Requests that still run fail, and later ones too.
    pub async fn wait_closed(&self) {
        // H3_NO_ERROR (RFC 9114 section 8.1).
        self.shared.endpoint.close(VarInt::from_u32(0x100), b"");
        let idle = tokio::time::timeout(FAREWELL_MAX, self.shared.endpoint.wait_idle()).await;
        if idle.is_err() {
            tracing::debug!("not every node has acknowledged the goodbye");
        }
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
