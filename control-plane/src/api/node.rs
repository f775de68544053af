//! How the node is.

use super::request::Json;
use super::{Api, Problem};
use crate::build_facts;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use axum::extract::State;
use http::StatusCode;
use relay::policy::Status;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(node))
}

/// How the node is.
#[derive(Serialize, ToSchema)]
struct Node {
    /// Its UID.
    uid: String,
    /// Of `ioex`.
    version: &'static str,
    /// The process of `ioex up`.
    pid: u32,
    /// Seconds since `ioex up` was started.
    uptime_s: u64,
    /// The data directory.
    data: String,
    /// The data plane, if it answers.
    engine: Option<Engine>,
    /// Why it does not answer, if so.
    engine_problem: Option<String>,
    mailbox: MailboxState,
    /// Where the DHT listens, ADDRESS:PORT (UDP), if this node is part of one.
    dht: Option<String>,
}

/// The data plane.
#[derive(Serialize, ToSchema)]
struct Engine {
    pid: u32,
    version: String,
    /// io_uring or epoll.
    driver: String,
    /// What it listens on, as `udp://ADDRESS:PORT` and `tcp://ADDRESS:PORT`.
    listeners: Vec<String>,
    /// Where the relay listens, as `turn:ADDRESS:PORT?transport=udp` (RFC 7065).
    relay: Vec<String>,
    uptime_s: u64,
    policy_generation: u64,
    /// From when on the policy has expired, seconds since 1970: the control plane renews it long before.
    policy_valid_until_s: u64,
    /// Whether it has: then nobody may log in, allocate or write.
    policy_expired: bool,
    /// Whether it takes no connections any more.
    draining: bool,
    store_bytes: u64,
    store_segments: u64,
}

/// Whether friends reach this node: it has no mailbox, has a session there, or tries to get one.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MailboxState {
    Off,
    Connected,
    Connecting,
}

/// How the node is
#[utoipa::path(get, path = "/v1/node", tag = "node", responses((status = 200, body = Node)))]
async fn node(State(api): State<Api>) -> Result<Json<Node>, Problem> {
    let parts = api.parts();
    let (engine, engine_problem) = match api.ask_engine(EngineSocket::status).await {
        Ok(status) => (Some(Engine::from(status)), None),
        Err(problem) => (None, Some(problem.detail().to_string())),
    };
    let mailbox = match &parts.friends {
        None => MailboxState::Off,
        // A service that has ended has no session either.
        Some(_) if api.mailbox().await.is_ok_and(|mailbox| mailbox.connected) => MailboxState::Connected,
        Some(_) => MailboxState::Connecting,
    };
    Ok(Json(Node {
        uid: parts.uid.to_string(),
        version: build_facts::VERSION,
        pid: std::process::id(),
        uptime_s: parts.since.elapsed().as_secs(),
        data: parts.directory.root().display().to_string(),
        engine,
        engine_problem,
        mailbox,
        dht: parts.dht.as_ref().map(|dht| dht.listens().to_string()),
    }))
}

impl Api {
    /// Asks the engine, on a thread that may wait; a few at a time.
    pub(super) async fn ask_engine<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut EngineSocket) -> Result<T, EngineSocketError> + Send + 'static,
    ) -> Result<T, Problem> {
        // It is never closed.
        let _turn = self.0.engine_turns.acquire().await.map_err(Problem::internal)?;
        let path = self.parts().directory.engine_socket();
        let answer = tokio::task::spawn_blocking(move || {
            EngineSocket::connect(&path).and_then(|mut engine| question(&mut engine))
        });
        let answer = answer.await.map_err(Problem::internal)?;
        answer.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error))
    }
}

impl From<Status> for Engine {
    fn from(status: Status) -> Engine {
        Engine {
            pid: status.pid,
            version: status.version,
            driver: status.driver,
            listeners: status.listeners,
            relay: status.relay,
            uptime_s: status.uptime_s,
            policy_generation: status.policy_generation,
            policy_valid_until_s: status.policy_valid_until_s,
            policy_expired: status.policy_expired,
            draining: status.draining,
            store_bytes: status.store_bytes,
            store_segments: status.store_segments,
        }
    }
}
