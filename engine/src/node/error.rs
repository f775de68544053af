//! Why a node does not start, or does not go on.

use super::files::FileError;
use super::process::CoresError;
use super::relay::RelayError;
use super::shards::ShardsError;
use super::sockets::ListenError;
use super::upgrade::UpgradeError;
use crate::control::{self, PolicyFileError};
use crate::quic::TlsError;
use crate::{storage, tcp};
use std::io;
use std::net::SocketAddr;
use store::OpenError;
use store::leases::LeaseError;

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of the data directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The last policy.
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The leases on what it holds.
    #[error(transparent)]
    Leases(#[from] LeaseError),
    /// The storage executors.
    #[error(transparent)]
    Storage(#[from] storage::StartError),
    /// An executor of storage ended although nobody told it to.
    #[error(
        "a storage executor has ended, so nothing can be stored or read from disk; the log says why; start again"
    )]
    StorageEnded,
    /// The certificate, as HTTP/3 takes it.
    #[error("DIR/tls: {0}")]
    QuicTls(#[from] TlsError),
    /// The certificate, as the TCP service takes it.
    #[error(transparent)]
    TcpTls(#[from] tcp::TlsError),
    /// The choice of cores.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// A socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A shard.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// The engine that runs does not hand over.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The sockets cannot be kept for an engine that takes over.
    #[error("the sockets cannot be kept for an upgrade: {0}")]
    Share(io::Error),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::ListenError),
    /// The metrics endpoint.
    #[error("cannot serve metrics on {addr}: {source}")]
    Metrics {
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Threads, epoll or signal handlers of the services.
    #[error("the services do not start: {0}")]
    Runtime(io::Error),
}
