//! What `ioex up` does beside the engine and the chains, on a thread of its own: the DHT, bootstrap nodes, and the API.

use crate::api::{self, Api, EngineLink, Parts};
use crate::bootstrap::Bootstrap;
use crate::configuration::Configuration;
use crate::console::Console;
use crate::data_directory::DataDirectory;
use crate::default_code::{self, DefaultCodeError};
use crate::dht;
use crate::node_identity::NodeIdentity;
use peer::friends::Friends;
use peer::pairing::Pairing;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

/// What runs.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    /// Where the DHT listens, if this node is part of one.
    pub dht: Option<SocketAddrV4>,
    /// Where the API answers over TCP, if it does.
    pub api: Option<SocketAddr>,
}

/// Why they do not run.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The API's socket.
    #[error("cannot listen on {path}: {source}", path = .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The API over TCP.
    #[error("the API cannot listen on {listen}: {source}; choose another port in api.listen")]
    Api {
        /// Where it should.
        listen: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// What the API is protected with.
    #[error(transparent)]
    Token(#[from] api::TokenError),
    /// The DHT.
    #[error("the DHT cannot listen on {listen} (UDP): {source}; choose another port in dht.listen")]
    Dht {
        /// Where it should.
        listen: SocketAddrV4,
        /// Why not.
        source: io::Error,
    },
    /// The pairing code that this device was delivered with.
    #[error(transparent)]
    PairingCode(#[from] DefaultCodeError),
    /// A thread or its runtime.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Starts them, until the process ends; what they write is safe at any moment. The caller supervises the data directory.
pub fn start(
    configuration: &Configuration,
    directory: &DataDirectory,
    identity: &NodeIdentity,
    friends: Option<Friends>,
    bootstrap: Bootstrap,
    engine: EngineLink,
    console: Console,
) -> Result<Services, ServicesError> {
    let listener = api::bind_unix(directory)
        .map_err(|source| ServicesError::Socket { path: directory.api_socket(), source })?;
    let tcp = configuration.api.listen.map(|listen| TcpApi::bind(listen, directory)).transpose()?;
    let tcp_listens = tcp.as_ref().map(|tcp| tcp.listens);
    let settings = dht::RunningDhtSettings::of(configuration, directory, identity.key.clone());
    let pairing = friends.clone().map(|friends| Pairing::new(identity.key.clone(), friends));
    let waiting = wait_with_default_code(configuration, pairing.clone())?;
    let (uid, directory, since) = (identity.uid(), directory.clone(), Instant::now());
    let (started, outcome) = mpsc::sync_channel(1);
    let run = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return started.send(Err(ServicesError::Thread(error))).unwrap_or_default(),
        };
        runtime.block_on(async {
            let dht = match settings {
                Some(settings) => {
                    let listen = settings.listen;
                    match dht::RunningDht::start(settings).await {
                        Ok(dht) => Some(dht),
                        Err(source) => {
                            let error = Err(ServicesError::Dht { listen, source });
                            return started.send(error).unwrap_or_default();
                        }
                    }
                }
                None => None,
            };
            // The other end waits for exactly this.
            let _ = started.send(Ok(Services { dht: dht.as_ref().map(dht::RunningDht::listens), api: tcp_listens }));
            let parts = Parts {
                uid,
                directory,
                friends,
                pairing,
                dht: dht.clone(),
                engine,
                bootstrap: bootstrap.clone(),
                since,
            };
            let router = Api::new(parts).router();
            let over_tcp = async {
                match tcp {
                    Some(tcp) => api::serve_tcp(tcp.listener, router.clone(), tcp.token).await,
                    None => std::future::pending().await,
                }
            };
            let searching = bootstrap.run(dht.clone());
            let dht = async {
                match dht {
                    Some(dht) => dht.run(console).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = api::serve_unix(listener, router.clone()) => tracing::error!(?outcome, "the API has ended"),
                outcome = over_tcp => tracing::error!(?outcome, "the API over TCP has ended"),
                () = dht => {}
                () = searching => {}
                () = waiting => {}
            }
        });
    };
    std::thread::Builder::new().name("services".into()).spawn(run).map_err(ServicesError::Thread)?;
    outcome.recv().unwrap_or_else(|_| Err(ServicesError::Thread(io::Error::other("it ended at once"))))
}

/// Waits with the code that this device was delivered with, if there is one; never ends.
fn wait_with_default_code(
    configuration: &Configuration,
    pairing: Option<Pairing>,
) -> Result<impl Future<Output = ()> + Send + 'static, DefaultCodeError> {
    let code = configuration.friends.pairing_code.as_deref().map(default_code::read).transpose()?;
    Ok(async move {
        if let (Some(pairing), Some(code)) = (pairing, code)
            && let Err(error) = pairing.wait_with_default(code).await
        {
            tracing::warn!(%error, "the pairing code of this device waits no more");
        }
        std::future::pending::<()>().await;
    })
}

/// The API over TCP, bound.
struct TcpApi {
    listener: TcpListener,
    listens: SocketAddr,
    token: api::Token,
}

impl TcpApi {
    fn bind(listen: SocketAddr, directory: &DataDirectory) -> Result<TcpApi, ServicesError> {
        let token = api::Token::load_or_create(directory)?;
        let bind = || {
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            let listens = listener.local_addr()?;
            Ok((listener, listens))
        };
        let (listener, listens) = bind().map_err(|source| ServicesError::Api { listen, source })?;
        if !listens.ip().is_loopback() {
            tracing::warn!(%listens, "the API and its token are not encrypted; let a proxy with TLS stand in front");
        }
        Ok(TcpApi { listener, listens, token })
    }
}
