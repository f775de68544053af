//! Bootstrap nodes and the peers of this node.

use super::request::Json;
use super::{Api, Problem};
use crate::bootstrap::{AddError, Origin, Overview, View};
use axum::extract::State;
use http::StatusCode;
use identity::Uid;
use peer::NodeUrl;
use peer::friends::{Connection, FriendView, Friends};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(add))
        .routes(routes!(peers))
        .routes(routes!(relay))
}

/// The bootstrap nodes that are known.
#[derive(Serialize, ToSchema)]
struct BootstrapNodes {
    /// The URL of the node at whose mailbox this node has its session.
    at: Option<String>,
    /// UIDs of those where it would go next, best first.
    spares: Vec<String>,
    /// Those that cost least first.
    nodes: Vec<BootstrapNode>,
}

/// A bootstrap node, and what was measured of it.
#[derive(Serialize, ToSchema)]
struct BootstrapNode {
    uid: String,
    /// The one that answered last first.
    urls: Vec<String>,
    /// found: by its announcement in the DHT; added: by this node's owner.
    origin: &'static str,
    /// current, spare, or neither.
    #[serde(rename = "use")]
    used_as: Option<&'static str>,
    /// Whether it answers.
    up: bool,
    /// Mean round trip.
    round_trip_ms: Option<f64>,
    /// Share of probes without an answer, 0 to 1.
    loss: f64,
    /// Open connections of those that it may have, as it says.
    load_percent: Option<u8>,
    /// Of its program, as it says.
    version: Option<String>,
    /// When it answered last, seconds since 1970-01-01 UTC.
    answered_s: Option<u64>,
    /// When it was announced or added last, seconds since 1970-01-01 UTC.
    seen_s: u64,
}

/// A node to be kept.
#[derive(Deserialize, ToSchema)]
struct BootstrapUrl {
    /// Its URL, with its UID.
    #[schema(example = "https://UID@relay.example.com:4433")]
    url: String,
}

/// A node that is kept.
#[derive(Serialize, ToSchema)]
struct BootstrapAdded {
    uid: String,
    url: String,
}

/// Bootstrap nodes, and friends' connections.
#[derive(Serialize, ToSchema)]
struct Peers {
    node: PeerSession,
    /// UIDs of the nodes where this one would go next, best first.
    spares: Vec<String>,
    nodes: Vec<BootstrapNode>,
    friends: Vec<FriendConnection>,
}

/// Credentials for the relay of the node at whose mailbox this node is (TURN, RFC 8656), under this node's UID.
#[derive(Serialize, ToSchema)]
struct PeerRelay {
    /// The URL of that node.
    node: Option<String>,
    /// `EXPIRY:UID`.
    username: String,
    password: String,
    /// When they expire by that node's clock, seconds since 1970-01-01 UTC. They are renewed long before.
    expires_unix_s: u64,
    /// Where the relay is (RFC 7065).
    uris: Vec<String>,
}

/// This node's session at a mailbox.
#[derive(Serialize, ToSchema)]
struct PeerSession {
    connected: bool,
    /// The node's URL, if it has one.
    url: Option<String>,
    /// Why it has none.
    reason: Option<String>,
}

/// A friend, and whether it is connected.
#[derive(Serialize, ToSchema)]
struct FriendConnection {
    uid: String,
    /// The name that this node gives it; may be empty.
    label: String,
    /// The name that it gives itself; may be empty.
    name: String,
    connected: bool,
}

/// The bootstrap nodes that are known, and the one that this node uses
#[utoipa::path(get, path = "/v1/bootstrap", tag = "bootstrap", responses((status = 200, body = BootstrapNodes)))]
async fn list(State(api): State<Api>) -> Json<BootstrapNodes> {
    let overview = api.parts().bootstrap.overview();
    Json(BootstrapNodes {
        at: overview.at.as_ref().map(ToString::to_string),
        spares: overview.spares.iter().map(ToString::to_string).collect(),
        nodes: nodes(&overview),
    })
}

/// Keep a bootstrap node, and probe it soon
#[utoipa::path(post, path = "/v1/bootstrap/nodes", tag = "bootstrap", request_body = BootstrapUrl,
    responses((status = 200, body = BootstrapAdded)))]
async fn add(
    State(api): State<Api>,
    Json(BootstrapUrl { url }): Json<BootstrapUrl>,
) -> Result<Json<BootstrapAdded>, Problem> {
    let parsed: NodeUrl = url.parse().map_err(Problem::bad_request)?;
    let uid = api.parts().bootstrap.add(parsed)?;
    Ok(Json(BootstrapAdded { uid: uid.to_string(), url }))
}

/// Bootstrap nodes and the connections of friends
#[utoipa::path(get, path = "/v1/peers", tag = "bootstrap", responses((status = 200, body = Peers)))]
async fn peers(State(api): State<Api>) -> Json<Peers> {
    let overview = api.parts().bootstrap.overview();
    let (node, friends) = match &api.parts().friends {
        Some(friends) => connections(friends).await,
        None => (not_connected(OFF.into()), Vec::new()),
    };
    let spares = overview.spares.iter().map(ToString::to_string).collect();
    Json(Peers { node, spares, nodes: nodes(&overview), friends })
}

/// Credentials for the relay of the node at whose mailbox this node is, which that node has issued to this node's UID
#[utoipa::path(get, path = "/v1/peers/relay", tag = "bootstrap", responses((status = 200, body = PeerRelay)))]
async fn relay(State(api): State<Api>) -> Result<Json<PeerRelay>, Problem> {
    let friends = api.friends()?;
    let node = friends.node().borrow().as_ref().map(ToString::to_string);
    let credentials = friends.relay().borrow().clone().ok_or_else(|| {
        let none = "the node at whose mailbox this one is has issued no credentials for a relay: it has none, or there is no session";
        Problem::new(StatusCode::NOT_FOUND, none)
    })?;
    Ok(Json(PeerRelay {
        node,
        username: credentials.username,
        password: credentials.password,
        expires_unix_s: credentials.expires_s,
        uris: credentials.uris,
    }))
}

const OFF: &str = "this node has no mailbox; set peer.mailbox, such as mailbox = \"auto\" in [peer]";

async fn connections(friends: &Friends) -> (PeerSession, Vec<FriendConnection>) {
    let (Ok(status), Ok(list)) = (friends.status().await, friends.list().await) else {
        return (not_connected("the node ends".into()), Vec::new());
    };
    let node = match status.connection {
        Connection::Connected { node } => PeerSession { connected: true, url: Some(node), reason: None },
        Connection::Connecting { reason } => not_connected(reason),
        Connection::Displaced => not_connected("the same identity is used elsewhere".into()),
    };
    let friend = |view: FriendView| FriendConnection {
        uid: view.uid.to_string(),
        label: view.friend.label,
        name: view.friend.profile.name,
        connected: view.is_connected,
    };
    (node, list.into_iter().map(friend).collect())
}

fn not_connected(reason: String) -> PeerSession {
    PeerSession { connected: false, url: None, reason: Some(reason) }
}

fn nodes(overview: &Overview) -> Vec<BootstrapNode> {
    let at = overview.at.as_ref().and_then(NodeUrl::uid);
    overview.nodes.iter().map(|view| show(view, at, &overview.spares)).collect()
}

fn show(View { uid, entry }: &View, at: Option<&Uid>, spares: &[Uid]) -> BootstrapNode {
    let measured = &entry.measured;
    BootstrapNode {
        uid: uid.to_string(),
        urls: entry.urls.iter().map(ToString::to_string).collect(),
        origin: match entry.origin {
            Origin::Found => "found",
            Origin::Added => "added",
        },
        used_as: match at {
            Some(at) if at == uid => Some("current"),
            _ if spares.contains(uid) => Some("spare"),
            _ => None,
        },
        up: measured.is_up(),
        round_trip_ms: measured.round_trip_ms,
        loss: measured.loss,
        load_percent: measured.load_percent,
        version: measured.version.clone(),
        answered_s: measured.answered_s,
        seen_s: entry.seen_s,
    }
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Problem {
        Problem::bad_request(error)
    }
}
