//! The API of a running node: HTTP/1.1 with JSON on the Unix socket `run/api.sock`, for whoever owns the data directory and for
//! root. The commands use it, and so may anybody else; where `[api] listen` is set, also over TCP to
//! whoever shows the token. `/openapi.json` says what there is, `control-plane/docs/api.md` how to
//! begin.
//!
//! A request is one function with its description above it (`#[utoipa::path]`), and its name in the `routes()` of its module:
//! from that the router and the document are both made. Whatever fails is answered with a [`Problem`].

mod bootstrap;
pub mod client;
mod dht;
mod document;
mod files;
mod friends;
mod health;
mod messages;
mod metrics;
mod node;
mod pairing;
mod policy;
mod problem;
mod prometheus;
mod relay;
mod request;
mod server;
mod token;

pub use problem::Problem;
pub use server::{bind_unix, serve_tcp, serve_unix};
pub use token::{Token, TokenError};

use crate::bootstrap::Bootstrap;
use crate::data_directory::DataDirectory;
use crate::dht::RunningDht;
use crate::engine_history::EngineHistory;
use crate::policy_link::PolicyLink;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::StatusCode;
use identity::Uid;
use peer::friends::Friends;
use peer::pairing::Pairing;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;

/// The longest body of a request but a file, bytes. A message of 1,024 bytes has at most six times as many as JSON.
pub const REQUEST_LEN_MAX: usize = 64 << 10;

/// How long a request may take, from its first byte to the first of its answer: a message waits 10 s for its receipt, and a lookup
/// in the DHT for nodes that are gone.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(50);

/// Questions to the engine that may be open at once: it serves a few connections, and commands want theirs.
const ENGINE_TURNS: usize = 2;

/// What the API is about: the parts of a running node. Clones are of the same one.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// Questions to the engine that may be open at once.
    engine_turns: Semaphore,
    sent: messages::SentCounters,
    files: files::Files,
}

/// The parts of a running node.
pub struct Parts {
    /// Who it is.
    pub uid: Uid,
    /// Where it keeps its things.
    pub directory: DataDirectory,
    /// Its friends, if it has a mailbox.
    pub friends: Option<Friends>,
    /// Its pairing codes, if it has friends.
    pub pairing: Option<Pairing>,
    /// Its part of the DHT, if it has one.
    pub dht: Option<RunningDht>,
    /// Its engine's supervisor.
    pub engine: EngineLink,
    /// The bootstrap nodes that it knows.
    pub bootstrap: Bootstrap,
    /// When it was started.
    pub since: Instant,
}

/// What the supervisor of the engine is to the API.
#[derive(Clone, Debug)]
pub struct EngineLink {
    /// What has become of its engines.
    pub history: Arc<EngineHistory>,
    /// The way to have a change of the policy put in force.
    pub policy: PolicyLink,
}

impl Api {
    /// The API of these parts.
    pub fn new(parts: Parts) -> Api {
        Api(Arc::new(Shared {
            parts,
            engine_turns: Semaphore::new(ENGINE_TURNS),
            sent: Default::default(),
            files: Default::default(),
        }))
    }

    /// Everything that may be asked.
    pub fn router(self) -> Router {
        let (router, _) = routes().split_for_parts();
        router
            .fallback(async || {
                Problem::new(StatusCode::NOT_FOUND, "there is no such path; see /openapi.json")
            })
            .method_not_allowed_fallback(async || {
                Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "this path has no such method; see /openapi.json",
                )
            })
            .layer(DefaultBodyLimit::max(REQUEST_LEN_MAX))
            .layer(from_fn(in_time))
            .with_state(self)
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn friends(&self) -> Result<&Friends, Problem> {
        let off = "this node has no mailbox, and so no friends; start it with: ioex up --mailbox URL";
        self.parts().friends.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, off))
    }

    fn dht(&self) -> Result<&RunningDht, Problem> {
        let off = "this node is not part of a DHT; set dht.listen, such as listen = \"0.0.0.0:6881\" in [dht], and start it again";
        self.parts().dht.as_ref().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, off))
    }
}

/// What each module answers.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::frame())
        .merge(document::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(node::routes())
        .merge(friends::routes())
        .merge(messages::routes())
        .merge(files::routes())
        .merge(dht::routes())
        .merge(relay::routes())
        .merge(policy::routes())
        .merge(bootstrap::routes())
        .merge(pairing::routes())
}

async fn in_time(request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("there was no answer within {} s", REQUEST_TIMEOUT.as_secs());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
        }
    }
}
