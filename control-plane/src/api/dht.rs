//! The distributed hash table, as this node sees it.

use super::request::{Json, Path};
use super::{Api, Problem};
use crate::bootstrap::content_urls;
use crate::dht::{AnnounceError, DhtError, Found, Topic, now_ms, parse_list, show_list};
use axum::extract::State;
use http::StatusCode;
use identity::Uid;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(stat))
        .routes(routes!(record))
        .routes(routes!(publish))
        .routes(routes!(providers, announce, renounce))
        .routes(routes!(holders))
}

/// The node's numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct DhtStat {
    /// Where it listens, ADDRESS:PORT (UDP).
    listens: String,
    /// Its id, which is drawn anew at each start.
    id: String,
    network: Network,
    /// Whether it answers others, or only asks.
    server: bool,
    /// Nodes in its routing table.
    pub(super) nodes: usize,
    /// Of these, those that keep announcements.
    pub(super) announcing_nodes: usize,
    /// How many nodes the network has, as its lookups suggest.
    pub(super) network_nodes_estimate: usize,
    pub(super) record: Publication,
    /// Lists that this node announces.
    pub(super) lists: usize,
    pub(super) datagrams: Datagrams,
}

/// Which network it is part of.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Network {
    Public,
    Private,
}

/// What became of this node's own record.
#[derive(Serialize, ToSchema)]
pub(super) struct Publication {
    /// The sequence number of what was taken last: milliseconds since 1970-01-01 UTC.
    pub(super) sequence_ms: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub(super) problem: Option<String>,
}

/// Datagrams, since the start.
#[derive(Serialize, ToSchema)]
pub(super) struct Datagrams {
    pub(super) passed: u64,
    /// How many were dropped, by cause.
    pub(super) dropped: BTreeMap<&'static str, u64>,
}

/// What a UID says of itself.
#[derive(Serialize, ToSchema)]
struct Record {
    uid: String,
    /// When it said so, milliseconds since 1970-01-01 UTC by its own clock.
    sequence_ms: i64,
    lifetime_s: u32,
    /// Whether it no longer holds.
    over: bool,
    bootstrap_node: bool,
    endpoints: Vec<Endpoint>,
    /// UIDs of the bootstrap nodes at which it is reached.
    bootstrap_nodes: Vec<String>,
}

/// Where a service is reached.
#[derive(Serialize, ToSchema)]
struct Endpoint {
    service: &'static str,
    /// ADDRESS:PORT (UDP).
    address: String,
}

/// A record that was taken.
#[derive(Serialize, ToSchema)]
struct Published {
    sequence_ms: i64,
}

/// Who provides a list.
#[derive(Serialize, ToSchema)]
struct Providers {
    list: String,
    /// UIDs.
    providers: Vec<String>,
}

/// Who holds a list and can be reached.
#[derive(Serialize, ToSchema)]
struct Holders {
    list: String,
    /// Those that announced it last first.
    holders: Vec<Holder>,
}

/// One of them.
#[derive(Serialize, ToSchema)]
struct Holder {
    uid: String,
    /// Where its own record says that it is.
    urls: Vec<String>,
}

/// Whether this node announces a list.
#[derive(Serialize, ToSchema)]
struct Announced {
    list: String,
    announced: bool,
}

/// The node's numbers
#[utoipa::path(get, path = "/v1/dht", tag = "dht", responses((status = 200, body = DhtStat)))]
async fn stat(State(api): State<Api>) -> Result<Json<DhtStat>, Problem> {
    Ok(Json(api.dht_stat().await?))
}

/// The newest record of a UID
#[utoipa::path(get, path = "/v1/dht/records/{uid}", tag = "dht",
    params(("uid" = String, Path, description = "A UID")), responses((status = 200, body = Record)))]
async fn record(State(api): State<Api>, Path(uid): Path<String>) -> Result<Json<Record>, Problem> {
    let dht = api.dht()?;
    let uid: Uid =
        uid.parse().map_err(|error| Problem::bad_request(format!("`{uid}` is not a UID: {error}")))?;
    match dht.record_of(&uid).await? {
        Some(found) => Ok(Json(show(&uid, &found))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("the DHT has no record of {uid}"))),
    }
}

/// Sign and publish this node's own record now
#[utoipa::path(put, path = "/v1/dht/record", tag = "dht", responses((status = 200, body = Published)))]
async fn publish(State(api): State<Api>) -> Result<Json<Published>, Problem> {
    Ok(Json(Published { sequence_ms: api.dht()?.publish().await? }))
}

/// UIDs that provide a content list
#[utoipa::path(get, path = "/v1/dht/providers/{list}", tag = "dht",
    params(("list" = String, Path, description = "The list's address, 64 hexadecimal digits")),
    responses((status = 200, body = Providers)))]
async fn providers(State(api): State<Api>, Path(list): Path<String>) -> Result<Json<Providers>, Problem> {
    let dht = api.dht()?;
    let list = address(&list)?;
    let providers = dht.providers(Topic::List(list)).await?;
    if providers.is_empty() {
        let detail = format!("nobody announces the list {}", show_list(&list));
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    let providers = providers.iter().map(Uid::to_string).collect();
    Ok(Json(Providers { list: show_list(&list), providers }))
}

/// UIDs that provide a content list and can be reached, with their URLs
#[utoipa::path(get, path = "/v1/dht/holders/{list}", tag = "dht",
    params(("list" = String, Path, description = "The list's address, 64 hexadecimal digits")),
    responses((status = 200, body = Holders)))]
async fn holders(State(api): State<Api>, Path(list): Path<String>) -> Result<Json<Holders>, Problem> {
    let dht = api.dht()?;
    let list = address(&list)?;
    let holder = |(uid, found): (Uid, Found)| Holder {
        uid: uid.to_string(),
        urls: content_urls(&uid, &found).iter().map(ToString::to_string).collect(),
    };
    let holders = dht.holders(list).await?.into_iter().map(holder).collect();
    Ok(Json(Holders { list: show_list(&list), holders }))
}

/// Announce this node as one, now and from now on
#[utoipa::path(put, path = "/v1/dht/providers/{list}", tag = "dht",
    params(("list" = String, Path, description = "The list's address, 64 hexadecimal digits")),
    responses((status = 200, body = Announced)))]
async fn announce(State(api): State<Api>, Path(list): Path<String>) -> Result<Json<Announced>, Problem> {
    let dht = api.dht()?;
    let list = address(&list)?;
    dht.announce(list).await?;
    Ok(Json(Announced { list: show_list(&list), announced: true }))
}

/// Announce it no more
#[utoipa::path(delete, path = "/v1/dht/providers/{list}", tag = "dht",
    params(("list" = String, Path, description = "The list's address, 64 hexadecimal digits")),
    responses((status = 200, body = Announced)))]
async fn renounce(State(api): State<Api>, Path(list): Path<String>) -> Result<Json<Announced>, Problem> {
    let dht = api.dht()?;
    let list = address(&list)?;
    if !dht.renounce(list)? {
        return Err(Problem::new(StatusCode::NOT_FOUND, "this node does not announce that list"));
    }
    Ok(Json(Announced { list: show_list(&list), announced: false }))
}

impl Api {
    /// The node's numbers.
    pub(super) async fn dht_stat(&self) -> Result<DhtStat, Problem> {
        let dht = self.dht()?;
        let (stat, published, lists) = dht.stat().await?;
        Ok(DhtStat {
            listens: dht.listens().to_string(),
            id: stat.id.to_string(),
            network: if dht.is_public() { Network::Public } else { Network::Private },
            server: stat.is_server,
            nodes: stat.nodes,
            announcing_nodes: stat.announcing_nodes,
            network_nodes_estimate: stat.network_nodes_estimate,
            record: Publication { sequence_ms: published.sequence_ms, problem: published.problem },
            lists,
            datagrams: Datagrams { passed: stat.datagrams, dropped: stat.dropped.into_iter().collect() },
        })
    }
}

fn address(text: &str) -> Result<[u8; 32], Problem> {
    parse_list(text).ok_or_else(|| {
        Problem::bad_request(format!("`{text}` is not the address of a list: 64 hexadecimal digits"))
    })
}

fn show(uid: &Uid, found: &Found) -> Record {
    let record = &found.record;
    let endpoint = |endpoint: &crate::dht::Endpoint| Endpoint {
        service: endpoint.service.name(),
        address: endpoint.address.to_string(),
    };
    Record {
        uid: uid.to_string(),
        sequence_ms: found.sequence_ms,
        lifetime_s: record.lifetime_s,
        over: found.is_over(now_ms()),
        bootstrap_node: record.is_bootstrap_node,
        endpoints: record.endpoints.iter().map(endpoint).collect(),
        bootstrap_nodes: record.bootstrap_nodes.iter().map(Uid::to_string).collect(),
    }
}

impl From<DhtError> for Problem {
    fn from(error: DhtError) -> Problem {
        let status = match error {
            DhtError::Record { .. } => StatusCode::BAD_GATEWAY,
            DhtError::Ended | DhtError::Alone | DhtError::NotTaken { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error)
    }
}

impl From<AnnounceError> for Problem {
    fn from(error: AnnounceError) -> Problem {
        match error {
            AnnounceError::Dht(error) => error.into(),
            AnnounceError::TooMany => Problem::new(StatusCode::CONFLICT, error),
            AnnounceError::NotKept(_) => Problem::internal(error),
        }
    }
}
