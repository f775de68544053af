//! What commands may ask of the DHT of a running node.
//!
//! ```text
//! GET    /dht                    the node's numbers
//! GET    /dht/records/UID        the newest record of a UID
//! PUT    /dht/record             sign and publish this node's own record now
//! GET    /dht/providers/LIST     UIDs that provide a content list
//! PUT    /dht/providers/LIST     announce this node as one, now and from now on
//! DELETE /dht/providers/LIST     announce it no more
//! ```

use super::node::{DhtError, Found, now_ms};
use super::record::Topic;
use super::running::{AnnounceError, RunningDht, parse_list, show_list};
use crate::local_api::{answer, problem};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, put};
use http::StatusCode;
use identity::Uid;
use serde_json::{Value, json};

/// The requests above, or an answer to all of them that says how to turn the DHT on.
pub fn router(dht: Option<RunningDht>) -> Router {
    let Some(dht) = dht else {
        let off = async || problem(StatusCode::NOT_FOUND, OFF);
        return Router::new()
            .route("/dht", axum::routing::any(off))
            .route("/dht/{*rest}", axum::routing::any(off));
    };
    Router::new()
        .route("/dht", get(stat))
        .route("/dht/records/{uid}", get(record))
        .route("/dht/record", put(publish))
        .route("/dht/providers/{list}", get(providers).put(announce).delete(renounce))
        .with_state(dht)
}

const OFF: &str = "this node is not part of a DHT; set dht.listen, such as listen = \"0.0.0.0:6881\" in [dht], and start it again";

async fn stat(State(dht): State<RunningDht>) -> Response {
    let (stat, published, lists) = match dht.stat().await {
        Ok(stat) => stat,
        Err(error) => return refuse(&error),
    };
    let dropped: serde_json::Map<_, _> =
        stat.dropped.iter().map(|(cause, n)| (cause.to_string(), json!(n))).collect();
    answer(&json!({
        "listens": dht.listens().to_string(),
        "id": stat.id.to_string(),
        "network": if dht.is_public() { "public" } else { "private" },
        "server": stat.is_server,
        "nodes": stat.nodes,
        "announcing_nodes": stat.announcing_nodes,
        "network_nodes_estimate": stat.network_nodes_estimate,
        "record": { "sequence_ms": published.sequence_ms, "problem": published.problem },
        "lists": lists,
        "datagrams": { "passed": stat.datagrams, "dropped": dropped },
    }))
}

async fn record(State(dht): State<RunningDht>, Path(uid): Path<String>) -> Response {
    let uid: Uid = match uid.parse() {
        Ok(uid) => uid,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("`{uid}` is not a UID: {error}")),
    };
    match dht.record_of(&uid).await {
        Ok(Some(found)) => answer(&show_record(&uid, &found)),
        Ok(None) => problem(StatusCode::NOT_FOUND, &format!("the DHT has no record of {uid}")),
        Err(error) => refuse(&error),
    }
}

async fn publish(State(dht): State<RunningDht>) -> Response {
    match dht.publish().await {
        Ok(sequence_ms) => answer(&json!({ "sequence_ms": sequence_ms })),
        Err(error) => refuse(&error),
    }
}

async fn providers(State(dht): State<RunningDht>, Path(list): Path<String>) -> Response {
    let Some(list) = parse_list(&list) else { return no_list(&list) };
    match dht.providers(Topic::List(list)).await {
        Ok(providers) if providers.is_empty() => {
            problem(StatusCode::NOT_FOUND, &format!("nobody announces the list {}", show_list(&list)))
        }
        Ok(providers) => {
            let providers: Vec<_> = providers.iter().map(Uid::to_string).collect();
            answer(&json!({ "list": show_list(&list), "providers": providers }))
        }
        Err(error) => refuse(&error),
    }
}

async fn announce(State(dht): State<RunningDht>, Path(list): Path<String>) -> Response {
    let Some(list) = parse_list(&list) else { return no_list(&list) };
    match dht.announce(list).await {
        Ok(()) => answer(&json!({ "list": show_list(&list), "announced": true })),
        Err(AnnounceError::Dht(error)) => refuse(&error),
        Err(error @ AnnounceError::TooMany) => problem(StatusCode::CONFLICT, &error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn renounce(State(dht): State<RunningDht>, Path(list): Path<String>) -> Response {
    let Some(list) = parse_list(&list) else { return no_list(&list) };
    match dht.renounce(list) {
        Ok(true) => answer(&json!({ "list": show_list(&list), "announced": false })),
        Ok(false) => problem(StatusCode::NOT_FOUND, "this node does not announce that list"),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn show_record(uid: &Uid, found: &Found) -> Value {
    let record = &found.record;
    let endpoints: Vec<_> = record
        .endpoints
        .iter()
        .map(
            |endpoint| json!({ "service": endpoint.service.name(), "address": endpoint.address.to_string() }),
        )
        .collect();
    json!({
        "uid": uid.to_string(),
        "sequence_ms": found.sequence_ms,
        "lifetime_s": record.lifetime_s,
        "over": found.is_over(now_ms()),
        "bootstrap_node": record.is_bootstrap_node,
        "endpoints": endpoints,
        "bootstrap_nodes": record.bootstrap_nodes.iter().map(Uid::to_string).collect::<Vec<_>>(),
    })
}

fn no_list(text: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, &format!("`{text}` is not the address of a list: 64 hexadecimal digits"))
}

fn refuse(error: &DhtError) -> Response {
    let status = match error {
        DhtError::Record { .. } => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &error.to_string())
}
