//! What was verified, over HTTP, for people and programs on this machine: headers, transactions by proof, the
//! arbitrators' schedule and who missed a turn. Read-only; `openapi.json` beside this file says what there is.
//!
//! It reads the files as any other process may, and asks endpoints for proofs, so a request can cost a block's
//! download: it listens where the configuration says, and nowhere without that.

use super::place::ChainDirectory;
use super::rpc::Endpoints;
use super::view::{self, Chain as Which, View};
use crate::configuration::Chain;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

const OPENAPI: &str = include_str!("openapi.json");

/// Most headers or turns in one answer.
const ROWS_MAX: u64 = 1_000;

/// Headers or turns in one answer, if the request does not say how many.
const ROWS_DEFAULT: u64 = 20;

/// Requests for proofs that are under way at once; further ones wait.
const PROOFS_AT_ONCE: usize = 4;

struct Explorer {
    directory: ChainDirectory,
    pow: Endpoints,
    dpos: Endpoints,
    proofs: tokio::sync::Semaphore,
}

/// Answers requests until dropped; never, if the configuration names no address.
pub async fn serve(
    settings: &Chain,
    directory: &ChainDirectory,
    listening: impl FnOnce(SocketAddr),
) -> io::Result<Infallible> {
    let Some(address) = settings.explorer else { return std::future::pending().await };
    let listener = tokio::net::TcpListener::bind(address).await?;
    listening(listener.local_addr()?);
    let explorer = Explorer {
        directory: directory.clone(),
        pow: Endpoints::new(&settings.pow_endpoints)?,
        dpos: Endpoints::new(&settings.dpos_endpoints)?,
        proofs: tokio::sync::Semaphore::new(PROOFS_AT_ONCE),
    };
    let router = Router::new()
        .route("/", get(openapi))
        .route("/openapi.json", get(openapi))
        .route("/chain/status", get(status))
        .route("/chain/{chain}/headers", get(headers))
        .route("/chain/{chain}/headers/{block}", get(one_header))
        .route("/chain/{chain}/transactions/{txid}", get(transaction))
        .route("/chain/dpos/turns", get(turns))
        .route("/chain/dpos/turns/next", get(turns_to_come))
        .with_state(Arc::new(explorer));
    axum::serve(listener, router).await?;
    // axum serves until it is dropped.
    std::future::pending().await
}

/// A range of blocks, counted back from the last if no first is given.
#[derive(Deserialize)]
struct Range {
    from: Option<u64>,
    count: Option<u64>,
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn status(State(explorer): State<Arc<Explorer>>) -> Response {
    answer(view::status(&explorer.directory))
}

async fn headers(
    State(explorer): State<Arc<Explorer>>,
    Path(chain): Path<String>,
    Query(range): Query<Range>,
) -> Response {
    let Ok(chain) = chain.parse() else { return unknown_chain(&chain) };
    answer(View::open(&explorer.directory, chain).and_then(|view| {
        let (from, count) = bounds(&view, &range)?;
        Ok(json!({ "headers": view.headers(from, count)? }))
    }))
}

async fn one_header(
    State(explorer): State<Arc<Explorer>>,
    Path((chain, block)): Path<(String, String)>,
) -> Response {
    let Ok(chain) = chain.parse() else { return unknown_chain(&chain) };
    answer(View::open(&explorer.directory, chain).and_then(|view| view.header(&block)))
}

async fn turns(State(explorer): State<Arc<Explorer>>, Query(range): Query<Range>) -> Response {
    answer(View::open(&explorer.directory, Which::Dpos).and_then(|view| {
        let (from, count) = bounds(&view, &range)?;
        view.turns(from, count)
    }))
}

async fn turns_to_come(State(explorer): State<Arc<Explorer>>, Query(range): Query<Range>) -> Response {
    answer(view::turns_to_come(&explorer.directory, range.count.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX)))
}

async fn transaction(
    State(explorer): State<Arc<Explorer>>,
    Path((chain, txid)): Path<(String, String)>,
) -> Response {
    let Ok(chain) = chain.parse() else { return unknown_chain(&chain) };
    // It is never closed.
    let Ok(_place) = explorer.proofs.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    answer(view::transaction(&explorer.directory, &explorer.pow, &explorer.dpos, chain, &txid).await)
}

fn bounds(view: &View, range: &Range) -> Result<(u64, u64), view::ViewError> {
    let count = range.count.unwrap_or(ROWS_DEFAULT).min(ROWS_MAX);
    let last = view.last()?;
    Ok((range.from.unwrap_or((last + 1).saturating_sub(count)), count))
}

fn answer(outcome: Result<Value, view::ViewError>) -> Response {
    match outcome {
        Ok(value) => ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response(),
        Err(error) => problem(error.status(), &error.to_string()),
    }
}

fn unknown_chain(name: &str) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("`{name}` is no chain; chains are pow and dpos"))
}

/// RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
