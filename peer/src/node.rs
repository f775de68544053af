//! A node: its address, and the one connection to it, opened when it is first needed and again after it was
//! lost.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use identity::Uid;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinSet;

use crate::bounded;
use crate::client::{Client, ClientOptions};
use crate::node_url::NodeUrl;
use crate::trust::{self, IdentityMismatch, NodeVerifier, Refusal, TrustError};

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

pub(crate) type SendRequest = h3::client::SendRequest<bounded::OpenStreams, Bytes>;

/// An open HTTP/3 connection.
#[derive(Clone)]
pub(crate) struct Connection {
    quic: quinn::Connection,
    pub(crate) requests: SendRequest,
}

impl Node {
    pub(crate) fn new(client: Client, url: NodeUrl) -> Node {
        let pool = Mutex::new(Pool { connection: None, failure: None });
        let shared = NodeShared { client, url, tls: OnceCell::new(), attempts: AtomicU64::new(0), pool };
        Node { shared: Arc::new(shared) }
    }

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
        Ok(self.uid_over(&connection.quic))
    }

    /// The same, of who answers on this connection.
    pub(crate) fn uid_over(&self, quic: &quinn::Connection) -> Option<Uid> {
        self.shared.url.uid().copied().or_else(|| {
            let chain = quic.peer_identity()?.downcast::<Vec<CertificateDer>>().ok()?;
            trust::certificate_uid(chain.first()?).ok()
        })
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

    /// A new connection for the mailbox service, which shares nothing with that for content.
    pub(crate) async fn connect_mailbox(&self) -> Result<quinn::Connection, ConnectError> {
        let tls = self.shared.authenticate(relay::mailbox::ALPN).await?;
        self.shared.in_time(self.shared.dial(&tls)).await
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

/// How long an address gets before the next one is tried beside it (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl NodeShared {
    async fn connect(&self) -> Result<Connection, ConnectError> {
        self.in_time(async {
            let tls = self.tls.get_or_try_init(|| self.authenticate(b"h3")).await?;
            let quic = self.dial(tls).await?;
            open_http(quic).await.map_err(|e| handshake(&self.url, &e))
        })
        .await
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let timeout = self.client.options().connect_timeout;
        let timed_out = || ConnectError::Timeout { authority: self.url.authority(), timeout };
        tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Resolves the host and races its addresses with staggered starts; the first finished handshake wins.
    async fn dial(&self, tls: &NodeTls) -> Result<quinn::Connection, ConnectError> {
        let (client, url) = (&self.client, &self.url);
        let mut addresses = resolve(client, url).await?.into_iter().peekable();
        let mut attempts = JoinSet::new();
        let mut failure = None;
        loop {
            if let Some(address) = addresses.next() {
                let endpoint = client.endpoint();
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
                Ok(Ok(quic)) => return Ok(quic),
                Ok(Err(e)) => failure = Some(explain(url, &e, &tls.verifier)),
                Err(e) => failure = Some(handshake(url, &e)),
            }
        }
        Err(failure.unwrap_or_else(|| ConnectError::Resolve {
            host: url.host(),
            reason: "it has no address of a family this machine has".to_owned(),
        }))
    }

    async fn authenticate(&self, alpn: &[u8]) -> Result<NodeTls, ConnectError> {
        let (tls, verifier) = match self.url.uid() {
            Some(uid) => trust::pinned(*uid, alpn),
            None => trust::rooted(self.client.roots().await?, alpn),
        };
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| handshake(&self.url, &e))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.client.transport());
        Ok(NodeTls { config, verifier })
    }
}

async fn resolve(client: &Client, url: &NodeUrl) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(address) = url.address() {
        return Ok(vec![SocketAddr::new(address, url.port())]);
    }
    let failed = |reason: String| ConnectError::Resolve { host: url.host(), reason };
    let found = tokio::net::lookup_host((url.host(), url.port())).await.map_err(|e| failed(e.to_string()))?;
    let is_usable = |address: &SocketAddr| client.is_dual_stack() || matches!(address.ip(), IpAddr::V4(_));
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
        .build(bounded::Connection::new(quic.clone()))
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
        "nothing answered on {authority} (UDP) within {:.0} s; is the node up, and does a firewall let \
         UDP through?",
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
