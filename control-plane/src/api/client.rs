//! The commands' end: asks the node that runs a data directory.

use crate::data_directory::DataDirectory;
use crate::exit::{Exit, Failure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// The longest answer that is read, bytes. The longest that there is lists 1,024 friends with 2 KiB each, escaped.
const ANSWER_LEN_MAX: usize = 16 << 20;

/// The longest event that is read, bytes: a message of 1,024 bytes, each escaped to six, and what stands around it.
const EVENT_LEN_MAX: usize = 64 << 10;

/// How long an answer is waited for: longer than the node takes at most.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What bodies are.
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// What stands for itself in a part of a path (RFC 3986 section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a running node did not do what a command asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody listens.
    #[error("no node runs in {root}; start it with `ioex up`, or name its directory with --data", root = .root.display())]
    NotRunning {
        /// The data directory.
        root: PathBuf,
    },
    /// Another user's process listens.
    #[error("{path} belongs to a process of user {user}, not to this user's node", path = .path.display())]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// That process's user.
        user: u32,
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

impl ApiError {
    /// The failure of a command.
    pub fn into_failure(self) -> Failure {
        let exit = match &self {
            ApiError::NotRunning { .. } => Exit::NotFound,
            ApiError::Refused { status, .. } => match *status {
                StatusCode::NOT_FOUND => Exit::NotFound,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
                StatusCode::FORBIDDEN => Exit::NotTrusted,
                StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
                StatusCode::BAD_GATEWAY => Exit::VerificationFailed,
                _ => Exit::Failed,
            },
            ApiError::Stranger { .. } | ApiError::Broken { .. } => Exit::Failed,
        };
        Failure::new(exit, self)
    }
}

/// Asks the running node. `target` is a path, with a query if need be; `body` is sent as JSON.
///
/// # Errors
/// [`ApiError`]
pub fn call(
    directory: &DataDirectory,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, ApiError> {
    let body = body.map(|body| (JSON, Bytes::from(body.to_string())));
    in_time(async {
        let answer = send(directory, method, target, body).await?;
        read(answer).await
    })
}

/// Posts the bytes of a file.
///
/// # Errors
/// [`ApiError`]
pub fn upload(directory: &DataDirectory, target: &str, bytes: Bytes) -> Result<Value, ApiError> {
    in_time(async {
        let answer = send(directory, Method::POST, target, Some((BYTES, bytes))).await?;
        read(answer).await
    })
}

/// Gets the bytes of a file, at most 16 MiB.
///
/// # Errors
/// [`ApiError`]
pub fn download(directory: &DataDirectory, target: &str) -> Result<Bytes, ApiError> {
    in_time(async {
        let answer = send(directory, Method::GET, target, None).await?;
        if !answer.status().is_success() {
            return Err(read(answer).await.err().unwrap_or_else(|| broken("it is no answer")));
        }
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await.map_err(broken)?;
        Ok(body.to_bytes())
    })
}

/// Follows server-sent events of the running node, and hands over what each brings until `each` wants no more, or the node ends.
///
/// # Errors
/// [`ApiError`]; the node has ended, if nothing else is wrong.
pub fn follow(
    directory: &DataDirectory,
    target: &str,
    each: &mut dyn FnMut(Value) -> io::Result<bool>,
) -> Result<(), ApiError> {
    runtime()?.block_on(async {
        let begun = tokio::time::timeout(ANSWER_TIMEOUT, send(directory, Method::GET, target, None)).await;
        let answer = begun.map_err(|_| late())??;
        if !answer.status().is_success() {
            return read(answer).await.map(drop);
        }
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            text.extend_from_slice(&data);
            while let Some(end) = text.windows(2).position(|end| end == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                if let Some(value) = event_data(&event)?
                    && !each(value).map_err(broken)?
                {
                    return Ok(());
                }
            }
            if text.len() > EVENT_LEN_MAX {
                return Err(broken(format!("an event of more than {EVENT_LEN_MAX} bytes")));
            }
        }
        Err(broken("it has ended"))
    })
}

/// A text as one part of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn in_time<T>(answered: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    runtime()?.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, answered).await.map_err(|_| late())? })
}

fn runtime() -> Result<tokio::runtime::Runtime, ApiError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)
}

async fn send(
    directory: &DataDirectory,
    method: Method,
    target: &str,
    body: Option<(&'static str, Bytes)>,
) -> Result<Response<Incoming>, ApiError> {
    let path = directory.api_socket();
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(ApiError::NotRunning { root: directory.root().into() });
        }
        Err(error) => return Err(broken(error)),
    };
    let user = stream.peer_cred().map_err(broken)?.uid();
    if user != rustix::process::geteuid().as_raw() && user != 0 {
        return Err(ApiError::Stranger { path, user });
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the runtime, or when the answer has been read.
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, "localhost");
    if let Some((kind, _)) = body {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let bytes = body.map(|(_, bytes)| bytes).unwrap_or_default();
    let request = request.body(Full::new(bytes)).map_err(broken)?;
    sender.send_request(request).await.map_err(broken)
}

async fn read(answer: Response<Incoming>) -> Result<Value, ApiError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await.map_err(broken)?;
    let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(broken)?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("it refused and did not say why").to_string();
    Err(ApiError::Refused { status, detail })
}

/// What an event brings; a comment brings nothing.
fn event_data(event: &[u8]) -> Result<Option<Value>, ApiError> {
    let data = event.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"data:"));
    data.map(serde_json::from_slice).transpose().map_err(broken)
}

fn broken(reason: impl Display) -> ApiError {
    ApiError::Broken { reason: reason.to_string() }
}

fn late() -> ApiError {
    broken(format!("none came within {} s", ANSWER_TIMEOUT.as_secs()))
}
