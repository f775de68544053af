//! A JSON-RPC server whose answers a test writes.

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::routing::post;
use control_plane::configuration::chain::EndpointUrl;
use http::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a server answers: a result, an error with its number, or bytes of its own.
pub enum Answer {
    Result(Value),
    Error(i64, &'static str),
    Raw(StatusCode, Vec<u8>),
}

/// A server on loopback that lives as long as this process.
pub struct RpcServer {
    pub address: SocketAddr,
}

impl RpcServer {
    /// Starts a server on a thread of its own, so that tests of any kind can ask it.
    pub fn start(answer: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> RpcServer {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let answer = Arc::new(answer);
        let handle = move |body: Bytes| {
            let answer = Arc::clone(&answer);
            // Answers may wait for another server's.
            async move { tokio::task::spawn_blocking(move || respond(&*answer, &body)).await.unwrap() }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().route("/", post(handle))).await.unwrap();
            });
        });
        RpcServer { address }
    }

    pub fn url(&self) -> EndpointUrl {
        format!("http://{}", self.address).parse().unwrap()
    }
}

fn respond(answer: &dyn Fn(&str, &Value) -> Answer, body: &[u8]) -> axum::response::Response {
    let request: Value = serde_json::from_slice(body).unwrap();
    let (method, params, id) = (request["method"].as_str().unwrap(), &request["params"], &request["id"]);
    assert_eq!(request["jsonrpc"], "2.0");
    match answer(method, params) {
        Answer::Result(result) => {
            json!({ "jsonrpc": "2.0", "id": id, "result": result, "error": null }).to_string().into_response()
        }
        Answer::Error(code, message) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
                .to_string()
                .into_response()
        }
        Answer::Raw(status, bytes) => (status, bytes).into_response(),
    }
}
