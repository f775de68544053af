//! Connections: whose they are, how many there may be, and how long they may take.

use super::token::{Token, with_token};
use crate::data_directory::DataDirectory;
use axum::Router;
use axum::middleware::from_fn_with_state;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are served at once on a socket; further ones wait.
const CONNECTIONS_MAX: usize = 64;

/// How long the head of a request may take, and how long a connection may be silent between two of them.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request, bytes, and what is read of a body at a time.
const BUFFER_LEN: usize = 16 << 10;

/// The wait after a connection could not be taken, for want of descriptors say.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Takes the socket's place. The caller supervises the data directory, so that a socket that is there is a dead one's.
///
/// # Errors
/// The socket cannot be made.
pub fn bind_unix(directory: &DataDirectory) -> io::Result<StdUnixListener> {
    let path = directory.api_socket();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody else gets into its directory (0700) meanwhile.
    let listener = StdUnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers this user and root until dropped; connections of others are closed.
///
/// # Errors
/// The socket cannot be used.
pub async fn serve_unix(listener: StdUnixListener, router: Router) -> io::Result<Infallible> {
    let listener = UnixListener::from_std(listener)?;
    serve(router, async || {
        let (stream, _) = listener.accept().await?;
        if is_owner(&stream) {
            return Ok(Some(stream));
        }
        tracing::warn!("another user's connection to the API's socket was closed");
        Ok(None)
    })
    .await
}

/// Answers over TCP whoever shows the token, until dropped.
///
/// # Errors
/// The socket cannot be used.
pub async fn serve_tcp(listener: StdTcpListener, router: Router, token: Token) -> io::Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    let router = router.layer(from_fn_with_state(token, with_token));
    serve(router, async || Ok(Some(listener.accept().await?.0))).await
}

/// Serves what is accepted; nothing is, where it is not to be served.
async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    router: Router,
    accept: impl AsyncFn() -> io::Result<Option<S>>,
) -> io::Result<Infallible> {
    let places = Places::new(CONNECTIONS_MAX);
    loop {
        let place = places.take().await?;
        match accept().await {
            Ok(Some(stream)) => drop(tokio::spawn(serve_one(TokioIo::new(stream), router.clone(), place))),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection to the API was not taken");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Connections that may still be taken.
struct Places(Arc<Semaphore>);

impl Places {
    fn new(count: usize) -> Places {
        Places(Arc::new(Semaphore::new(count)))
    }

    async fn take(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)
    }
}

fn is_owner(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn serve_one(io: impl Read + Write + Unpin, router: Router, place: OwnedSemaphorePermit) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_LEN);
    // A client that goes away amid its answer concerns nobody.
    let _ = http.serve_connection(io, TowerToHyperService::new(router)).await;
    drop(place);
}
