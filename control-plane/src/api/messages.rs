//! Messages to friends, and those that came.

use super::request::{Json, Query};
use super::{Api, Problem};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use http::{HeaderMap, StatusCode};
use peer::friends::{self, FriendView, Friends, Outcome, SendError};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Messages in one answer, if the request does not say how many, and at most.
const PAGE_LEN: usize = 100;
const PAGE_LEN_MAX: usize = 1_000;

/// The time without a message after which a reader is told that the node is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send)).routes(routes!(inbox)).routes(routes!(follow))
}

/// A message to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    /// A friend's UID, address or label.
    to: String,
    /// 1 to 1,024 bytes.
    #[schema(min_length = 1, max_length = 1024)]
    text: String,
}

/// How it went: delivered (the receiver has signed a receipt, and keeps the message), the receiver is offline, refused it, is busy,
/// or nobody knows, for no receipt has come within 10 s.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    Delivered,
    Offline,
    Refused,
    Busy,
    Unknown,
}

impl From<Outcome> for Delivery {
    fn from(outcome: Outcome) -> Delivery {
        match outcome {
            Outcome::Delivered(_) => Delivery::Delivered,
            Outcome::Offline => Delivery::Offline,
            Outcome::Refused => Delivery::Refused,
            Outcome::Busy => Delivery::Busy,
            Outcome::Unknown => Delivery::Unknown,
        }
    }
}

/// Counts what became of a message or a file.
pub(super) fn count(api: &Api, outcome: Outcome) {
    api.0.sent.0[Delivery::from(outcome) as usize].fetch_add(1, Relaxed);
}

/// How many went how, since the start.
#[derive(Default)]
pub(super) struct SentCounters([AtomicU64; 5]);

impl Api {
    /// How many messages went how, since the start.
    pub(super) fn sent(&self) -> [(&'static str, u64); 5] {
        let names = ["delivered", "offline", "refused", "busy", "unknown"];
        let counts = &self.0.sent.0;
        std::array::from_fn(|i| (names[i], counts[i].load(Relaxed)))
    }
}

/// What became of a message.
#[derive(Serialize, ToSchema)]
struct Sent {
    status: Delivery,
    /// Of one that was delivered: when it was sent, microseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    time_us: Option<u64>,
    /// Of one that was delivered: what the receipt is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    envelope_blake3: Option<String>,
}

/// A message that came.
#[derive(Serialize, ToSchema)]
struct Message {
    /// Counts up with every message.
    number: u64,
    /// The sender's UID.
    from: String,
    /// The sender's label, if it has one.
    label: Option<String>,
    /// When it was sent by the sender's clock, microseconds since 1970-01-01 UTC.
    sent_unix_us: u64,
    /// What it says; empty if it is a file.
    text: String,
    /// The file, if it is one: GET /v1/inbox/{number}/file has its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    file: Option<File>,
}

/// A file that came.
#[derive(Serialize, ToSchema)]
struct File {
    /// What its sender calls it: no path, but nothing to be trusted either.
    name: String,
    len_bytes: u32,
    /// BLAKE3 of its bytes.
    blake3: String,
}

/// Messages, the oldest first.
#[derive(Serialize, ToSchema)]
struct Inbox {
    messages: Vec<Message>,
}

/// Which messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Those with a number above this.
    #[serde(default)]
    after: u64,
    /// At most so many.
    #[serde(default = "page_len")]
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
}

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Beginning {
    /// Messages with a number above this; the header Last-Event-ID goes before it.
    #[serde(default)]
    after: u64,
}

fn page_len() -> usize {
    PAGE_LEN
}

/// Send a message to a friend, and wait until it is known how that went
#[utoipa::path(post, path = "/v1/messages", tag = "messages", request_body = NewMessage,
    responses((status = 200, body = Sent)))]
async fn send(State(api): State<Api>, Json(message): Json<NewMessage>) -> Result<Json<Sent>, Problem> {
    let outcome = api.friends()?.send(message.to, message.text).await?;
    count(&api, outcome);
    let receipt = match outcome {
        Outcome::Delivered(receipt) => Some(receipt),
        _ => None,
    };
    Ok(Json(Sent {
        status: outcome.into(),
        time_us: receipt.map(|receipt| receipt.time_us),
        envelope_blake3: receipt.map(|receipt| blake3::Hash::from_bytes(receipt.hash).to_string()),
    }))
}

/// Messages that came, the latest 10,000 are kept
#[utoipa::path(get, path = "/v1/inbox", tag = "messages", params(Page), responses((status = 200, body = Inbox)))]
async fn inbox(State(api): State<Api>, Query(page): Query<Page>) -> Result<Json<Inbox>, Problem> {
    if !(1..=PAGE_LEN_MAX).contains(&page.limit) {
        return Err(Problem::bad_request(format!("limit is {}; it may be 1 to {PAGE_LEN_MAX}", page.limit)));
    }
    let messages = read(api.friends()?, page.after, page.limit).await?;
    Ok(Json(Inbox { messages }))
}

/// The same, and those that will come, as server-sent events: the id is the message's number, the data the message
#[utoipa::path(get, path = "/v1/inbox/events", tag = "messages", params(Beginning),
    responses((status = 200, description = "Events until the client goes away", body = String,
        content_type = "text/event-stream")))]
async fn follow(
    State(api): State<Api>,
    Query(from): Query<Beginning>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let friends = api.friends()?.clone();
    let after = match headers.get("last-event-id") {
        Some(id) => {
            let number = id.to_str().ok().and_then(|id| id.parse().ok());
            number.ok_or_else(|| Problem::bad_request("Last-Event-ID is no number of a message"))?
        }
        None => from.after,
    };
    let latest = friends.watch().await?;
    let follower = Follower { friends, after, latest, page: VecDeque::new() };
    let events = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        let number = message.number.to_string();
        // Texts and numbers always become JSON.
        let data = serde_json::to_string(&message).unwrap_or_default();
        Some((Ok(Event::default().id(number).data(data)), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL)))
}

/// Somebody who reads along.
struct Follower {
    friends: Friends,
    /// The number of the last message that was read.
    after: u64,
    latest: watch::Receiver<u64>,
    page: VecDeque<Message>,
}

impl Follower {
    /// The next message, as soon as there is one; `None` when the node ends.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.page.pop_front() {
                self.after = message.number;
                return Some(message);
            }
            // Seen before it is read: what comes meanwhile changes it again.
            self.latest.borrow_and_update();
            let page = read(&self.friends, self.after, PAGE_LEN).await;
            self.page = page
                .inspect_err(|problem| tracing::warn!(?problem, "the inbox is not followed"))
                .ok()?
                .into();
            if self.page.is_empty() {
                self.latest.changed().await.ok()?;
            }
        }
    }
}

async fn read(friends: &Friends, after: u64, count: usize) -> Result<Vec<Message>, Problem> {
    let messages = friends.inbox(after, count).await?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let known = friends.list().await?;
    Ok(messages.into_iter().map(|message| show(message, &known)).collect())
}

fn show(message: friends::Message, known: &[FriendView]) -> Message {
    let label = known.iter().find(|view| view.uid == message.from).map(|view| view.friend.label.clone());
    Message {
        number: message.number,
        from: message.from.to_string(),
        label: label.filter(|label| !label.is_empty()),
        sent_unix_us: message.id,
        text: message.text,
        file: message.file.map(|file| File {
            name: file.name,
            len_bytes: file.len,
            blake3: blake3::Hash::from_bytes(file.hash).to_string(),
        }),
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Problem {
        let status = match &error {
            SendError::Empty
            | SendError::TooLong { .. }
            | SendError::FileTooLong { .. }
            | SendError::FileName { .. }
            | SendError::BadAddress { .. }
            | SendError::Oneself { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            SendError::NotFriend { .. } => StatusCode::FORBIDDEN,
            SendError::Waiting { .. } | SendError::FileUnderWay { .. } | SendError::FilesUnderWay => {
                StatusCode::TOO_MANY_REQUESTS
            }
            SendError::NotConnected { .. } | SendError::Ended(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error)
    }
}
