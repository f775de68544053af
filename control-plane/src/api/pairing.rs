//! Pairing: devices of one person become friends by a code that one shows and the other is told.

use super::friends::{Friend, view};
use super::request::Json;
use super::{Api, Problem};
use axum::extract::State;
use http::StatusCode;
use peer::NodeUrl;
use peer::pairing::{
    Code, DefaultState, DefaultStatus, JoinError, OfferError, OfferState, OfferStatus, Pairing,
    VALID_DEFAULT, VALID_MAX, VALID_MIN, WRONG_GUESSES_MAX,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Nodes at which the other device is looked for.
const NODES_MAX: usize = 8;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(status, offer, withdraw)).routes(routes!(join))
}

/// A code that is to be drawn.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCode {
    /// How long it is valid, seconds; 300 if nothing is said.
    #[schema(minimum = 1, maximum = 3600)]
    valid_s: Option<u64>,
}

/// A code to be typed on the other device. Nothing else shows it.
#[derive(Serialize, ToSchema)]
struct OfferedCode {
    /// Twelve digits, hyphens between them. Whoever has it may become a friend.
    code: String,
    pairing: PairingStatus,
}

/// How the latest code stands.
#[derive(Serialize, ToSchema)]
struct PairingStatus {
    state: PairingState,
    /// The device that has come.
    uid: Option<String>,
    /// Whether that device has said that it keeps this one; if not, it will be asked.
    confirmed: Option<bool>,
    /// Why it led to nothing.
    reason: Option<String>,
    /// Wrong guesses so far.
    wrong_guesses: u32,
    /// Wrong guesses that end a code.
    wrong_guesses_max: u32,
    /// The node at which the other device is met.
    node: Option<String>,
    /// When the code expires.
    expires_unix_s: Option<u64>,
    /// How the code stands that this device was delivered with, if it was.
    default_code: Option<DefaultCodeStatus>,
}

/// How the code stands that a device was delivered with.
#[derive(Serialize, ToSchema)]
struct DefaultCodeStatus {
    state: DefaultCodeState,
    /// The node at which it waits.
    node: Option<String>,
    /// When it waits again.
    until_unix_s: Option<u64>,
    /// Wrong guesses since the start.
    wrong_guesses: u64,
}

/// What becomes of it: there is no mailbox at which it could wait; it waits for a first device; it rests, because it was guessed at too
/// often; a device of the owner's was kept, and it counts no more.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DefaultCodeState {
    Offline,
    Waiting,
    Resting,
    Used,
}

/// What has become of a code: there was none since the start; nobody has come yet; a device that knows it is written down; the two are
/// paired; nobody came in time; it was guessed at too often; somebody else waits with the same nameplate; its owner has taken it
/// back; it led to nothing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum PairingState {
    None,
    Waiting,
    Confirming,
    Paired,
    Expired,
    Guessed,
    Displaced,
    Withdrawn,
    Failed,
}

/// A code of another device's.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CodeOfOther {
    /// Twelve digits, or the twenty that a device was delivered with; hyphens and spaces do not matter.
    code: String,
    /// URLs of the nodes at which the other device may be, if it is not at this one's mailbox or at a bootstrap node that is known.
    #[serde(default)]
    #[schema(max_items = 8)]
    nodes: Vec<String>,
}

/// How the latest pairing code stands
#[utoipa::path(get, path = "/v1/pairing", tag = "pairing", responses((status = 200, body = PairingStatus)))]
async fn status(State(api): State<Api>) -> Result<Json<PairingStatus>, Problem> {
    let pairing = api.pairing()?;
    Ok(Json(PairingStatus::of(pairing, pairing.status())))
}

/// Draw a pairing code and wait with it for the other device; one that waits already is withdrawn
#[utoipa::path(post, path = "/v1/pairing", tag = "pairing", request_body = NewCode,
    responses((status = 200, body = OfferedCode)))]
async fn offer(State(api): State<Api>, Json(wish): Json<NewCode>) -> Result<Json<OfferedCode>, Problem> {
    let valid = wish.valid_s.map_or(VALID_DEFAULT, Duration::from_secs);
    if !(VALID_MIN..=VALID_MAX).contains(&valid) {
        let (min, max) = (VALID_MIN.as_secs(), VALID_MAX.as_secs());
        return Err(Problem::bad_request(format!("a code may be valid for {min} to {max} seconds")));
    }
    let pairing = api.pairing()?;
    let offered = pairing.offer(valid).await?;
    let code = offered.code.reveal().to_string();
    Ok(Json(OfferedCode { code, pairing: PairingStatus::of(pairing, Some(offered.status)) }))
}

/// Withdraw the pairing code that waits
#[utoipa::path(delete, path = "/v1/pairing", tag = "pairing", responses((status = 200, body = PairingStatus)))]
async fn withdraw(State(api): State<Api>) -> Result<Json<PairingStatus>, Problem> {
    let pairing = api.pairing()?;
    Ok(Json(PairingStatus::of(pairing, pairing.withdraw())))
}

/// Pair with the device that shows this code
#[utoipa::path(post, path = "/v1/pairing/join", tag = "pairing", request_body = CodeOfOther,
    responses((status = 200, body = Friend)))]
async fn join(State(api): State<Api>, Json(wish): Json<CodeOfOther>) -> Result<Json<Friend>, Problem> {
    let pairing = api.pairing()?;
    let code: Code = wish.code.parse().map_err(Problem::bad_request)?;
    if wish.nodes.len() > NODES_MAX {
        return Err(Problem::bad_request(format!("at most {NODES_MAX} nodes may be named")));
    }
    let nodes: Result<Vec<NodeUrl>, _> = wish.nodes.iter().map(|node| node.parse()).collect();
    let mut nodes = nodes.map_err(Problem::bad_request)?;
    if nodes.is_empty() {
        nodes = api.meeting_nodes()?;
    }
    let uid = pairing.join(&code, &nodes).await?;
    view(api.friends()?, uid).await
}

impl Api {
    fn pairing(&self) -> Result<&Pairing, Problem> {
        self.friends()?;
        self.parts().pairing.as_ref().ok_or_else(|| Problem::internal("there are friends, but no pairing"))
    }

    /// Where devices of the same owner may wait: at this one's mailbox, else at a bootstrap node that it knows, the nearest first.
    fn meeting_nodes(&self) -> Result<Vec<NodeUrl>, Problem> {
        let mut nodes: Vec<NodeUrl> = self.friends()?.at().into_iter().collect();
        let known = self.parts().bootstrap.overview().nodes;
        for url in
            known.iter().filter(|view| view.entry.measured.is_up()).filter_map(|view| view.entry.urls.first())
        {
            if nodes.iter().all(|node| node.uid() != url.uid()) && nodes.len() < NODES_MAX {
                nodes.push(url.clone());
            }
        }
        Ok(nodes)
    }
}

impl PairingStatus {
    /// Of the latest code, and of the one that the device was delivered with.
    fn of(pairing: &Pairing, status: Option<OfferStatus>) -> PairingStatus {
        let mut shown = PairingStatus {
            state: PairingState::None,
            uid: None,
            confirmed: None,
            reason: None,
            wrong_guesses: 0,
            wrong_guesses_max: WRONG_GUESSES_MAX,
            node: None,
            expires_unix_s: None,
            default_code: pairing.default_status().map(DefaultCodeStatus::from),
        };
        let Some(OfferStatus { state, wrong_guesses, node, expires_unix_s }) = status else { return shown };
        shown.state = match state {
            OfferState::Waiting => PairingState::Waiting,
            OfferState::Confirming { uid } => {
                shown.uid = Some(uid.to_string());
                PairingState::Confirming
            }
            OfferState::Paired { uid, is_confirmed } => {
                shown.uid = Some(uid.to_string());
                shown.confirmed = Some(is_confirmed);
                PairingState::Paired
            }
            OfferState::Expired => PairingState::Expired,
            OfferState::Guessed => PairingState::Guessed,
            OfferState::Displaced => PairingState::Displaced,
            OfferState::Withdrawn => PairingState::Withdrawn,
            OfferState::Failed { reason } => {
                shown.reason = Some(reason);
                PairingState::Failed
            }
        };
        shown.wrong_guesses = wrong_guesses;
        shown.node = Some(node.to_string());
        shown.expires_unix_s = Some(expires_unix_s);
        shown
    }
}

impl From<DefaultStatus> for DefaultCodeStatus {
    fn from(status: DefaultStatus) -> DefaultCodeStatus {
        let (state, node, until_unix_s) = match status.state {
            DefaultState::Offline => (DefaultCodeState::Offline, None, None),
            DefaultState::Waiting { node } => (DefaultCodeState::Waiting, Some(node.to_string()), None),
            DefaultState::Resting { until_unix_s } => (DefaultCodeState::Resting, None, Some(until_unix_s)),
            DefaultState::Used => (DefaultCodeState::Used, None, None),
        };
        DefaultCodeStatus { state, node, until_unix_s, wrong_guesses: status.wrong_guesses }
    }
}

impl From<OfferError> for Problem {
    fn from(error: OfferError) -> Problem {
        let status = match &error {
            OfferError::NotConnected | OfferError::Mailbox { .. } | OfferError::Silent { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            OfferError::Crowded { .. } => StatusCode::CONFLICT,
            OfferError::Client(_) | OfferError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error)
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Problem {
        let status = match error {
            JoinError::NobodyWaits { .. } => StatusCode::NOT_FOUND,
            JoinError::WrongCode => StatusCode::FORBIDDEN,
            JoinError::NotTheOther => StatusCode::BAD_GATEWAY,
            JoinError::CodeEnded => StatusCode::GONE,
            JoinError::NotTaken => StatusCode::CONFLICT,
            JoinError::Oneself { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            JoinError::NoAnswer { .. } | JoinError::Mailbox(_) => StatusCode::SERVICE_UNAVAILABLE,
            JoinError::Client(_) | JoinError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            JoinError::Friend(error) => return Problem::from(error),
            JoinError::Ended(ended) => return Problem::from(ended),
        };
        Problem::new(status, error)
    }
}
