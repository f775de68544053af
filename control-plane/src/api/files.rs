//! Files to friends, and those that came.

use super::messages::{Delivery, count};
use super::request::{Json, Path, Query};
use super::{Api, Problem};
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use peer::friends::{FILE_LEN_MAX, FileTransfer};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Files of which it is known how they went: the oldest is forgotten first.
const TRANSFERS_MAX: usize = 100;

/// Files that are taken in or given out at once, 5 MiB each.
const TURNS: usize = 4;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send)).routes(routes!(look)).routes(routes!(content))
}

/// Files that are or were on their way to friends, the newest last.
pub(super) struct Files {
    transfers: Mutex<VecDeque<FileTransfer>>,
    turns: Semaphore,
}

impl Default for Files {
    fn default() -> Files {
        Files { transfers: Mutex::default(), turns: Semaphore::new(TURNS) }
    }
}

impl Files {
    fn keep(&self, transfer: FileTransfer) {
        // Whoever panicked has left whole transfers.
        let mut transfers = self.transfers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        transfers.push_back(transfer);
        let excess = transfers.len().saturating_sub(TRANSFERS_MAX);
        transfers.drain(..excess);
    }

    fn get(&self, id: u64) -> Option<FileTransfer> {
        let transfers = self.transfers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        transfers.iter().find(|transfer| transfer.id == id).cloned()
    }
}

/// To whom a file goes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Receiver {
    /// A friend's UID, address or label.
    to: String,
    /// What the friend sees as its name: 1 to 255 bytes, without slashes, backslashes and control characters.
    #[param(min_length = 1, max_length = 255)]
    name: String,
}

/// A file that is or was on its way to a friend.
#[derive(Serialize, ToSchema)]
struct Transfer {
    /// What to ask for.
    id: u64,
    /// The friend's UID.
    to: String,
    /// What the friend sees as its name.
    name: String,
    len_bytes: u64,
    /// So much of it the friend keeps, from the first byte.
    kept_bytes: u64,
    /// How it went, once that is known; null as long as it is under way.
    status: Option<Delivery>,
}

impl From<FileTransfer> for Transfer {
    fn from(transfer: FileTransfer) -> Transfer {
        let progress = *transfer.progress.borrow();
        // The service has ended, and with it the transfer.
        let is_lost = progress.outcome.is_none() && transfer.progress.has_changed().is_err();
        let status = if is_lost { Some(Delivery::Unknown) } else { progress.outcome.map(Delivery::from) };
        Transfer {
            id: transfer.id,
            to: transfer.to.to_string(),
            name: transfer.name,
            len_bytes: transfer.len,
            kept_bytes: progress.kept,
            status,
        }
    }
}

/// Begin to send a file of 1 byte to 5 MiB to a friend; how far it is says GET /v1/files/{id}
#[utoipa::path(post, path = "/v1/files", tag = "messages", params(Receiver),
    request_body(content = String, description = "The file's bytes", content_type = "application/octet-stream"),
    responses((status = 202, body = Transfer)))]
async fn send(
    State(api): State<Api>,
    Query(receiver): Query<Receiver>,
    body: Body,
) -> Result<(StatusCode, Json<Transfer>), Problem> {
    let friends = api.friends()?;
    let _turn = api.0.files.turns.acquire().await.map_err(Problem::internal)?;
    let bytes = to_bytes(body, FILE_LEN_MAX).await.map_err(|_| {
        let detail =
            format!("the file has more than {FILE_LEN_MAX} bytes (5 MiB), or was not sent to its end");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    let transfer = friends.send_file(receiver.to, receiver.name, bytes).await?;
    api.0.files.keep(transfer.clone());
    let (counted, ended) = (api.clone(), transfer.clone());
    tokio::spawn(async move { count(&counted, ended.outcome().await) });
    Ok((StatusCode::ACCEPTED, Json(transfer.into())))
}

/// How far a file is on its way to a friend; the last 100 are remembered
#[utoipa::path(get, path = "/v1/files/{id}", tag = "messages",
    params(("id" = u64, Path, description = "What POST /v1/files gave")),
    responses((status = 200, body = Transfer)))]
async fn look(State(api): State<Api>, Path(id): Path<u64>) -> Result<Json<Transfer>, Problem> {
    api.friends()?;
    let none = || Problem::new(StatusCode::NOT_FOUND, format!("no file {id} is or was on its way"));
    api.0.files.get(id).map(|transfer| Json(transfer.into())).ok_or_else(none)
}

/// The file that a message is
#[utoipa::path(get, path = "/v1/inbox/{number}/file", tag = "messages",
    params(("number" = u64, Path, description = "The message's number")),
    responses((status = 200, description = "The file's bytes, verified", body = String,
        content_type = "application/octet-stream")))]
async fn content(State(api): State<Api>, Path(number): Path<u64>) -> Result<Response, Problem> {
    let friends = api.friends()?;
    let _turn = api.0.files.turns.acquire().await.map_err(Problem::internal)?;
    let none = || {
        let detail = format!("message {number} is no file, or one that is not kept any more");
        Problem::new(StatusCode::NOT_FOUND, detail)
    };
    let (_, bytes) = friends.file(number).await?.ok_or_else(none)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}
