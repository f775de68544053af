//! The content service over TCP, for clients without UDP: HTTP/2 and HTTP/1.1 with TLS, read-only.
//!
//! The answers come from the same [`relay::content`] logic as those over HTTP/3, and every one tells the client by Alt-Svc
//! where HTTP/3 is to be had. Bodies are slices of the store's mappings, handed to TLS without a copy in between.
//! This service runs on threads of its own (tokio) and never on a shard's.

mod body;
mod content;
mod idle;
mod lists;
mod service;
mod tickets;
mod tls;

pub use content::Content;
pub use tls::{TcpTls, TlsError};

use crate::limits::{SharedPolicy, TCP_CONNECTIONS_MAX};
use crate::metrics::NodeCounters;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use idle::IdleTimeout;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Time between two tries to accept when the process is out of descriptors: not a busy loop, not a noticeable delay.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What the TCP service needs of the node.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// The certificate, reloadable.
    pub tls: Arc<TcpTls>,
    /// Limits that apply to new connections.
    pub policy: Arc<SharedPolicy>,
    /// Where the bytes come from.
    pub content: Arc<Content>,
    /// Counters of the node.
    pub counters: Arc<NodeCounters>,
    /// UDP port of HTTP/3, for Alt-Svc.
    pub http3_port: u16,
}

/// Serves connections of `listener` until `draining` turns true; then answers what is in flight and returns. The caller
/// bounds how long that may take.
pub async fn serve(listener: TcpListener, config: TcpConfig, mut draining: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    let router = service::router(&config, draining.clone());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Connections that have ended are collected, so that the set does not grow.
            Some(_) = connections.join_next() => continue,
            // The sender lives as long as the node; when it is gone, so is the node.
            _ = draining.wait_for(|draining| *draining) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                accept_failed(&error).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            config.counters.tcp_refused_limit.increment();
            continue;
        };
        config.counters.tcp_accepted.increment();
        let connection =
            Connection { stream, peer, place, router: router.clone(), draining: draining.clone() };
        connections.spawn(connection.run(config.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept_failed(error: &io::Error) {
    match error.kind() {
        // The client went away between SYN and accept.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
        _ => {
            tracing::warn!(%error, "no TCP connection is accepted; descriptors or memory may be short");
            tokio::time::sleep(ACCEPT_RETRY).await;
        }
    }
}

/// A connection from its first byte to its last.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: Router,
    draining: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, config: TcpConfig) {
        let Connection { stream, peer, place, router, mut draining } = self;
        let counters = Arc::clone(&config.counters);
        counters.tcp_connections.increment();
        let _open = Open { counters: Arc::clone(&counters), _place: place };
        let limits = config.policy.load().limits.clone();
        let handshake_timeout = Duration::from_millis(limits.handshake_timeout_ms.into());
        let idle_timeout = Duration::from_millis(limits.idle_timeout_ms.into());

        // Latency of small answers; large ones fill segments anyway.
        let _ = stream.set_nodelay(true);
        let stream = IdleTimeout::new(stream, idle_timeout, Arc::clone(&counters));
        let handshake = TlsAcceptor::from(config.tls.current()).accept(stream);
        let stream = match tokio::time::timeout(handshake_timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "TLS handshake failed");
                counters.tcp_refused_handshake.increment();
                return;
            }
            Err(_) => {
                counters.tcp_refused_slow_handshake.increment();
                return;
            }
        };

        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(handshake_timeout)
            // hyper answers 431 when a header does not fit; its smallest buffer is 8 KiB.
            .max_buf_size((limits.header_bytes_max as usize).max(8 << 10));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection_max)
            .max_header_list_size(limits.header_bytes_max)
            .max_send_buf_size(2 * crate::limits::TCP_CHUNK_LEN);
        let service = TowerToHyperService::new(router);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut told = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        tracing::debug!(%peer, error, "TCP connection ended");
                    }
                    return;
                }
                _ = draining.wait_for(|draining| *draining), if !told => {
                    told = true;
                    // GOAWAY over HTTP/2, `connection: close` over HTTP/1.1; what is in flight goes on.
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Counts a connection as long as it is open.
struct Open {
    counters: Arc<NodeCounters>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.tcp_connections.decrement();
    }
}
