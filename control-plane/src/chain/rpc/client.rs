//! One request, one answer: sizes, times, ids and errors of JSON-RPC.

use crate::configuration::chain::EndpointUrl;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take: nodes look for a block's receipts in seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How many characters of an endpoint's own message are shown.
const MESSAGE_LEN_MAX: usize = 200;

/// Why there is no answer. Every variant says whose, and to what.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection, or it broke.
    #[error("{endpoint}: {method}: {reason}")]
    Unreachable {
        /// Who was asked.
        endpoint: EndpointUrl,
        /// What was asked.
        method: &'static str,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("{endpoint}: {method}: no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut {
        /// Who was asked.
        endpoint: EndpointUrl,
        /// What was asked.
        method: &'static str,
    },
    /// More bytes than such an answer can have.
    #[error("{endpoint}: {method}: the answer is longer than {bytes_max} bytes")]
    TooLong {
        /// Who was asked.
        endpoint: EndpointUrl,
        /// What was asked.
        method: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// Not an answer of JSON-RPC, or not to this request.
    #[error("{endpoint}: {method}: {reason}")]
    Malformed {
        /// Who was asked.
        endpoint: EndpointUrl,
        /// What was asked.
        method: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The endpoint says no.
    #[error("{endpoint}: {method}: it answers: {message} ({code})")]
    Refused {
        /// Who was asked.
        endpoint: EndpointUrl,
        /// What was asked.
        method: &'static str,
        /// The number of the error.
        code: i64,
        /// What it says, cut to 200 characters.
        message: String,
    },
}

impl RpcError {
    /// Whether the endpoint does not know the method at all.
    pub fn is_unknown_method(&self) -> bool {
        // JSON-RPC 2.0, section 5.1; what else is spoken says so in words.
        match self {
            RpcError::Refused { code: -32601, .. } => true,
            RpcError::Refused { message, .. } => message.contains("not found") && message.contains("method"),
            _ => false,
        }
    }
}

/// Asks endpoints; connections are kept.
#[derive(Debug)]
pub struct RpcClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    next_id: AtomicU64,
}

impl RpcClient {
    /// A client that trusts the system's certificate authorities for `https`.
    pub fn new() -> io::Result<RpcClient> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_native_roots()?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(8).build(connector);
        Ok(RpcClient { http, next_id: AtomicU64::new(1) })
    }

    /// The result that `endpoint` gives, `null` included, of at most `bytes_max` bytes with its frame.
    pub async fn call(
        &self,
        endpoint: &EndpointUrl,
        method: &'static str,
        params: Value,
        bytes_max: usize,
    ) -> Result<Value, RpcError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let asked = self.post(endpoint, method, body.to_string(), bytes_max);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked)
            .await
            .map_err(|_| RpcError::TimedOut { endpoint: endpoint.clone(), method })??;
        read(endpoint, method, id, &answer)
    }

    async fn post(
        &self,
        endpoint: &EndpointUrl,
        method: &'static str,
        body: String,
        bytes_max: usize,
    ) -> Result<Answer, RpcError> {
        let unreachable =
            |reason: String| RpcError::Unreachable { endpoint: endpoint.clone(), method, reason };
        let request = Request::builder()
            .method(Method::POST)
            .uri(endpoint.as_str())
            // The nodes of the public chain compare the whole field with this.
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| unreachable(causes(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                RpcError::TooLong { endpoint: endpoint.clone(), method, bytes_max }
            } else {
                unreachable(causes(error.as_ref()))
            }
        })?;
        Ok(Answer { status, body: body.to_bytes() })
    }
}

struct Answer {
    status: http::StatusCode,
    body: Bytes,
}

/// The result within an answer. Errors may come with any HTTP status and without an id, as the nodes of the
/// public chain send them; a result must bear the request's.
fn read(endpoint: &EndpointUrl, method: &'static str, id: u64, answer: &Answer) -> Result<Value, RpcError> {
    let malformed = |reason: String| RpcError::Malformed { endpoint: endpoint.clone(), method, reason };
    let mut parsed = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(Value::Object(parsed)) => parsed,
        _ if !answer.status.is_success() => {
            return Err(malformed(format!("HTTP status {}", answer.status)));
        }
        Ok(_) => return Err(malformed("the answer is no JSON object".into())),
        Err(error) => return Err(malformed(format!("the answer is no JSON: {error}"))),
    };
    if let Some(error) = parsed.get("error").filter(|error| !error.is_null()) {
        return Err(RpcError::Refused {
            endpoint: endpoint.clone(),
            method,
            code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
            message: shown(error.get("message").unwrap_or(error)),
        });
    }
    if parsed.get("id").and_then(Value::as_u64) != Some(id) {
        return Err(malformed(format!("the answer is not to request {id}")));
    }
    parsed.remove("result").ok_or_else(|| malformed("the answer has neither a result nor an error".into()))
}

/// An endpoint's words, which must not move the terminal's cursor or fill a log.
fn shown(message: &Value) -> String {
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_string);
    text.chars().take(MESSAGE_LEN_MAX).flat_map(char::escape_debug).collect()
}

/// An error with what lies beneath it: the outermost of hyper's says only that something failed.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
