//! For whoever keeps the node running: whether it lives, and whether it serves.

use super::request::Json;
use super::{Api, Problem};
use crate::engine_socket::EngineSocket;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(healthy)).routes(routes!(ready))
}

/// The control plane lives.
#[derive(Serialize, ToSchema)]
struct Healthy {
    healthy: bool,
}

/// The data plane serves.
#[derive(Serialize, ToSchema)]
struct Ready {
    ready: bool,
}

/// Whether the control plane lives: if this is not answered, start it again
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = Healthy)))]
async fn healthy() -> Json<Healthy> {
    Json(Healthy { healthy: true })
}

/// Whether the data plane serves: its engine answers, listens, does not drain, and its policy has not expired; else 503
#[utoipa::path(get, path = "/readyz", tag = "operation", responses((status = 200, body = Ready)))]
async fn ready(State(api): State<Api>) -> Result<Json<Ready>, Problem> {
    let status = api.ask_engine(EngineSocket::status).await?;
    let not_yet = |detail: &str| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    if status.draining {
        return not_yet("the engine drains, and takes no connections any more");
    }
    if status.listeners.is_empty() || status.policy_generation == 0 {
        return not_yet("the engine has just been started, and does not listen yet");
    }
    if status.policy_expired {
        return not_yet("the engine's policy has expired and was not renewed; the log of `ioex up` says why");
    }
    Ok(Json(Ready { ready: true }))
}
