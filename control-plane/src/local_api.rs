//! The socket over which commands speak to the `ioex up` that runs a data directory: HTTP/1.1 with JSON on a Unix socket that
//! only its owner reaches (its directory has mode 0700, and callers are asked who they are besides).

use crate::data_directory::DataDirectory;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// Longest answer that a command reads.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a command waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a running node did not do what a command asked for.
#[derive(Debug, thiserror::Error)]
pub enum LocalApiError {
    /// Nobody listens.
    #[error("no node runs in {root}; start it with `ioex up`, or name its directory with --data")]
    NotRunning {
        /// The data directory.
        root: String,
    },
    /// The node said no, and why.
    #[error("{detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The reason, for people.
        detail: String,
    },
    /// The connection broke, or what came is no answer of this program.
    #[error("the running node gave no answer: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
}

/// Takes the socket's place. The caller supervises the data directory, so that a socket that is there is a dead one's.
pub fn bind(directory: &DataDirectory) -> io::Result<StdUnixListener> {
    let path = directory.local_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdUnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers commands until dropped.
pub async fn serve(listener: StdUnixListener, router: Router) -> io::Result<()> {
    let router =
        router.fallback(async || problem(StatusCode::NOT_FOUND, "the running node knows no such request"));
    axum::serve(Owners(UnixListener::from_std(listener)?), router).await
}

/// Asks the running node. `target` is a path, with a query if need be; `body` is sent as JSON.
pub fn call(
    directory: &DataDirectory,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, LocalApiError> {
    let broken = |error: &dyn std::fmt::Display| LocalApiError::Broken { reason: error.to_string() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| broken(&error))?;
    runtime.block_on(async {
        match tokio::time::timeout(ANSWER_TIMEOUT, ask(directory, method, target, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(broken(&format!("none came within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    })
}

async fn ask(
    directory: &DataDirectory,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, LocalApiError> {
    let broken = |error: &dyn std::fmt::Display| LocalApiError::Broken { reason: error.to_string() };
    let stream = match UnixStream::connect(directory.local_socket()).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(LocalApiError::NotRunning { root: directory.root().display().to_string() });
        }
        Err(error) => return Err(broken(&error)),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "ioex")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default()))
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| broken(&error))?;
    connection.abort();
    let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|error| broken(&error))?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("the running node refused").to_string();
    Err(LocalApiError::Refused { status, detail })
}

/// An answer.
pub fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// RFC 9457.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// Connections of this user and of root; others are closed.
struct Owners(UnixListener);

impl Listener for Owners {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        let own = rustix::process::geteuid().as_raw();
        loop {
            let (stream, address) = Listener::accept(&mut self.0).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own || peer.uid() == 0 => return (stream, address),
                _ => tracing::warn!("another user's connection to the local socket was closed"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
