//! The relay, as the engine says it is.

use super::request::{Json, Query};
use super::{Api, Problem};
use axum::extract::State;
use http::StatusCode;
use relay::policy::RelaySession;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Sessions in one answer, if the request does not say how many, and at most.
const SESSIONS: usize = 1_000;
const SESSIONS_MAX: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(sessions))
}

/// Sessions of the relay, the oldest first.
#[derive(Serialize, ToSchema)]
struct Sessions {
    /// How many there are.
    count: usize,
    sessions: Vec<Session>,
}

/// One allocation.
#[derive(Serialize, ToSchema)]
struct Session {
    /// 16 hexadecimal digits; the first four are the shard.
    id: String,
    user: String,
    /// udp, tcp or tls.
    transport: String,
    /// Where the client is now, ADDRESS:PORT.
    client: String,
    /// Where it sent to.
    server: String,
    /// Its relayed addresses as peers see them.
    relayed: Vec<String>,
    since_unix_s: u64,
    /// Seconds until it ends if it is not refreshed.
    remaining_s: u64,
    to_peer: Traffic,
    to_client: Traffic,
    /// Addresses of peers that have a permission now; at most 64.
    peers: Vec<String>,
    /// How many have one.
    peers_count: u32,
}

/// What went one way.
#[derive(Serialize, ToSchema)]
struct Traffic {
    packets: u64,
    /// Payload.
    bytes: u64,
}

/// How many.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Limit {
    /// At most so many, the oldest.
    #[serde(default = "sessions_default")]
    #[param(minimum = 0, maximum = 10000, default = 1000)]
    limit: usize,
}

fn sessions_default() -> usize {
    SESSIONS
}

/// Sessions (allocations), the oldest first
#[utoipa::path(get, path = "/v1/relay/sessions", tag = "relay", params(Limit),
    responses((status = 200, body = Sessions)))]
async fn sessions(State(api): State<Api>, Query(query): Query<Limit>) -> Result<Json<Sessions>, Problem> {
    if query.limit > SESSIONS_MAX {
        return Err(Problem::bad_request(format!("limit is {}; at most {SESSIONS_MAX}", query.limit)));
    }
    let sessions = api.ask_engine(|engine| {
        if engine.status()?.relay.is_empty() {
            return Ok(None);
        }
        let mut sessions = Vec::new();
        engine.relay_sessions(&mut |page| sessions.extend(page))?;
        Ok(Some(sessions))
    });
    let Some(mut sessions) = sessions.await? else {
        let off = "this node has no relay; set relay.listen, such as listen = [\"[::]:3478\"] in [relay], and start it again";
        return Err(Problem::new(StatusCode::NOT_FOUND, off));
    };
    sessions.sort_by_key(|session| (session.since_unix_s, session.id));
    let count = sessions.len();
    Ok(Json(Sessions {
        count,
        sessions: sessions.into_iter().take(query.limit).map(Session::from).collect(),
    }))
}

impl From<RelaySession> for Session {
    fn from(session: RelaySession) -> Session {
        let texts = |addresses: Vec<_>| addresses.iter().map(std::net::SocketAddr::to_string).collect();
        Session {
            id: format!("{:016x}", session.id),
            user: session.user,
            transport: session.transport,
            client: session.client.to_string(),
            server: session.server.to_string(),
            relayed: texts(session.relayed),
            since_unix_s: session.since_unix_s,
            remaining_s: session.remaining_s,
            to_peer: Traffic { packets: session.to_peer_packets, bytes: session.to_peer_bytes },
            to_client: Traffic { packets: session.to_client_packets, bytes: session.to_client_bytes },
            peers: session.peers.iter().map(ToString::to_string).collect(),
            peers_count: session.peers_count,
        }
    }
}
