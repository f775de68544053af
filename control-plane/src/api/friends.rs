//! Friends, and what they see of this node.

use super::request::{Json, Path};
use super::{Api, Problem};
use crate::node_identity::IdentityFiles;
use axum::extract::State;
use http::StatusCode;
use identity::{Address, Uid};
use peer::friends::{self, Connection, FriendError, FriendView, Friends, NodeAddressError, ServiceEnded};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(one, label, remove))
        .routes(routes!(accept))
        .routes(routes!(decline))
        .routes(routes!(profile, set_profile))
        .routes(routes!(reload_address))
}

/// This node at its mailbox, and everybody of whom something is known.
#[derive(Serialize, ToSchema)]
struct FriendList {
    node: Mailbox,
    friends: Vec<Friend>,
}

/// This node as its friends see it.
#[derive(Serialize, ToSchema)]
pub(super) struct Mailbox {
    uid: String,
    /// What others need to ask for friendship.
    address: String,
    /// Whether it has a session at a mailbox.
    pub(super) connected: bool,
    /// The mailbox's node.
    mailbox: Option<String>,
    /// Why there is no session.
    reason: Option<String>,
    profile: Profile,
    pub(super) counters: Counters,
}

/// Counted since the start.
#[derive(Serialize, ToSchema)]
pub(super) struct Counters {
    /// Messages that were received and kept.
    pub(super) received: u64,
    /// Messages that came again.
    pub(super) repeated: u64,
    /// Messages that were sent, and whose receipt came.
    pub(super) delivered: u64,
    /// Requests that were taken.
    pub(super) requests: u64,
    /// Requests that were dropped because as many as may be wait for a decision.
    pub(super) requests_dropped: u64,
    /// Requests of those who were declined before.
    pub(super) requests_declined: u64,
    /// Envelopes that the mailbox has dropped.
    pub(super) dropped: u64,
    /// Bodies that are none of this protocol, or that do not open.
    pub(super) malformed: u64,
    /// Bodies that make no sense as things stand with their sender.
    pub(super) unexpected: u64,
    /// Files that were not taken because as many as may be were on their way.
    pub(super) files_refused: u64,
    /// Envelopes of friends above what one may send.
    pub(super) flooded: u64,
    /// Messages that could not be written down, and were not acknowledged.
    pub(super) unsaved: u64,
}

/// Somebody of whom something is known.
#[derive(Serialize, ToSchema)]
pub(super) struct Friend {
    uid: String,
    standing: Standing,
    /// Since when it stands so.
    since_unix_s: u64,
    connected: bool,
    /// The name that this node gives it; empty for none.
    label: String,
    notes: String,
    /// What the request said.
    greeting: String,
    profile: Profile,
    /// Whether its address has another nospam value by now.
    address_revoked: bool,
    /// Whether it is a device of the same owner, paired by a code.
    own_device: bool,
    /// The nodes at whose mailboxes it says that it is, UID@ADDRESS:PORT.
    nodes: Vec<String>,
}

/// How this node stands with somebody: it has asked, is asked, they are friends, the other has declined, or has ended it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Asked,
    Asking,
    Friend,
    Declined,
    Ended,
}

/// What somebody says about themself to friends.
#[derive(Serialize, ToSchema)]
struct Profile {
    name: String,
    description: String,
    presence: Presence,
}

/// Whether somebody wants to be written to.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Presence {
    None,
    Away,
    Busy,
}

/// A request for friendship.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewFriend {
    /// Their address.
    address: String,
    /// What the request says, at most 255 bytes.
    #[serde(default)]
    #[schema(max_length = 255)]
    greeting: String,
    /// The nodes at whose mailboxes they are, UID@ADDRESS:PORT, if that is known and another than this node's.
    #[serde(default)]
    #[schema(max_items = 4)]
    nodes: Vec<String>,
}

/// What this node says of a friend to itself; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLabel {
    /// A name, at most 63 bytes; empty for none.
    #[schema(max_length = 63)]
    label: Option<String>,
    /// At most 1,024 bytes.
    #[schema(max_length = 1024)]
    notes: Option<String>,
}

/// What friends are to see; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProfile {
    /// At most 63 bytes.
    #[schema(max_length = 63)]
    name: Option<String>,
    /// At most 127 bytes.
    #[schema(max_length = 127)]
    description: Option<String>,
    presence: Option<Presence>,
}

/// Whose request was declined.
#[derive(Serialize, ToSchema)]
struct Declined {
    uid: String,
    declined: bool,
}

/// Who is no friend any more.
#[derive(Serialize, ToSchema)]
struct Removed {
    uid: String,
    removed: bool,
}

/// Where others ask for friendship.
#[derive(Serialize, ToSchema)]
struct OwnAddress {
    address: String,
}

/// Friends, open requests, and the mailbox
#[utoipa::path(get, path = "/v1/friends", tag = "friends", responses((status = 200, body = FriendList)))]
async fn list(State(api): State<Api>) -> Result<Json<FriendList>, Problem> {
    let node = api.mailbox().await?;
    let friends = api.friends()?.list().await?;
    Ok(Json(FriendList { node, friends: friends.into_iter().map(Friend::from).collect() }))
}

/// Ask somebody to be a friend, or accept if they have asked
#[utoipa::path(post, path = "/v1/friends", tag = "friends", request_body = NewFriend,
    responses((status = 200, body = Friend)))]
async fn add(State(api): State<Api>, Json(wish): Json<NewFriend>) -> Result<Json<Friend>, Problem> {
    let NewFriend { address, greeting, nodes } = wish;
    let address: Address =
        address.parse().map_err(|error| Problem::bad_request(format!("`{address}`: {error}")))?;
    let nodes: Result<Vec<_>, NodeAddressError> = nodes.iter().map(|node| node.parse()).collect();
    let nodes = nodes.map_err(Problem::bad_request)?;
    let friends = api.friends()?;
    friends.add_at(address, greeting, nodes).await?;
    view(friends, address.uid).await
}

/// One of them
#[utoipa::path(get, path = "/v1/friends/{who}", tag = "friends",
    params(("who" = String, Path, description = "A UID, an address or a label")),
    responses((status = 200, body = Friend)))]
async fn one(State(api): State<Api>, Path(who): Path<String>) -> Result<Json<Friend>, Problem> {
    let friends = api.friends()?;
    let uid = resolve(friends, who).await?;
    view(friends, uid).await
}

/// Name a friend, or note something about one
#[utoipa::path(patch, path = "/v1/friends/{who}", tag = "friends", request_body = NewLabel,
    params(("who" = String, Path, description = "A UID, an address or a label")),
    responses((status = 200, body = Friend)))]
async fn label(
    State(api): State<Api>,
    Path(who): Path<String>,
    Json(wish): Json<NewLabel>,
) -> Result<Json<Friend>, Problem> {
    let friends = api.friends()?;
    let uid = resolve(friends, who).await?;
    friends.label(uid, wish.label, wish.notes).await?;
    view(friends, uid).await
}

/// End a friendship, or withdraw a request
#[utoipa::path(delete, path = "/v1/friends/{who}", tag = "friends",
    params(("who" = String, Path, description = "A UID, an address or a label")),
    responses((status = 200, body = Removed)))]
async fn remove(State(api): State<Api>, Path(who): Path<String>) -> Result<Json<Removed>, Problem> {
    let friends = api.friends()?;
    let uid = resolve(friends, who).await?;
    friends.remove(uid).await?;
    Ok(Json(Removed { uid: uid.to_string(), removed: true }))
}

/// Accept a request
#[utoipa::path(post, path = "/v1/friends/{who}/accept", tag = "friends",
    params(("who" = String, Path, description = "A UID, an address or a label")),
    responses((status = 200, body = Friend)))]
async fn accept(State(api): State<Api>, Path(who): Path<String>) -> Result<Json<Friend>, Problem> {
    let friends = api.friends()?;
    let uid = resolve(friends, who).await?;
    friends.accept(uid).await?;
    view(friends, uid).await
}

/// Decline a request, and those that will come of the same UID
#[utoipa::path(post, path = "/v1/friends/{who}/decline", tag = "friends",
    params(("who" = String, Path, description = "A UID, an address or a label")),
    responses((status = 200, body = Declined)))]
async fn decline(State(api): State<Api>, Path(who): Path<String>) -> Result<Json<Declined>, Problem> {
    let friends = api.friends()?;
    let uid = resolve(friends, who).await?;
    friends.decline(uid).await?;
    Ok(Json(Declined { uid: uid.to_string(), declined: true }))
}

/// What friends see of this node
#[utoipa::path(get, path = "/v1/profile", tag = "friends", responses((status = 200, body = Profile)))]
async fn profile(State(api): State<Api>) -> Result<Json<Profile>, Problem> {
    Ok(Json(api.mailbox().await?.profile))
}

/// Change it
#[utoipa::path(patch, path = "/v1/profile", tag = "friends", request_body = NewProfile,
    responses((status = 200, body = Profile)))]
async fn set_profile(State(api): State<Api>, Json(wish): Json<NewProfile>) -> Result<Json<Profile>, Problem> {
    let friends = api.friends()?;
    let old = friends.status().await?.profile;
    let new = friends::Profile {
        name: wish.name.unwrap_or_else(|| old.name.clone()),
        description: wish.description.unwrap_or_else(|| old.description.clone()),
        presence: wish.presence.map_or(old.presence, friends::Presence::from),
    };
    if new != old {
        friends.set_profile(new.clone()).await?;
    }
    Ok(Json(new.into()))
}

/// Take over the nospam value in the data directory, which `ioex id new-nospam` has changed
#[utoipa::path(post, path = "/v1/address/reload", tag = "friends", responses((status = 200, body = OwnAddress)))]
async fn reload_address(State(api): State<Api>) -> Result<Json<OwnAddress>, Problem> {
    let directory = api.parts().directory.clone();
    let files = tokio::task::spawn_blocking(move || IdentityFiles::load(&directory)).await;
    let files = files.map_err(Problem::internal)?.map_err(Problem::internal)?;
    if let Some(friends) = &api.parts().friends {
        friends.set_nospam(files.nospam).await?;
    }
    Ok(Json(OwnAddress { address: files.address().to_string() }))
}

impl Api {
    /// This node at its mailbox.
    pub(super) async fn mailbox(&self) -> Result<Mailbox, Problem> {
        let status = self.friends()?.status().await?;
        let (connected, mailbox, reason) = match status.connection {
            Connection::Connected { node } => (true, Some(node), None),
            Connection::Connecting { reason } => (false, None, Some(reason)),
            Connection::Displaced => {
                (false, None, Some("the same identity has logged in elsewhere, later".into()))
            }
        };
        let uid = status.address.uid.to_string();
        Ok(Mailbox {
            uid,
            address: status.address.to_string(),
            connected,
            mailbox,
            reason,
            profile: status.profile.into(),
            counters: status.counters.into(),
        })
    }
}

async fn resolve(friends: &Friends, who: String) -> Result<Uid, Problem> {
    let name = format!("`{who}` is no UID, no address and no friend's label");
    friends.resolve(who).await?.map_err(|reason| Problem::bad_request(format!("{name}: {reason}")))
}

pub(super) async fn view(friends: &Friends, uid: Uid) -> Result<Json<Friend>, Problem> {
    match friends.view(uid).await? {
        Some(view) => Ok(Json(view.into())),
        None => Err(FriendError::Unknown { uid }.into()),
    }
}

impl From<FriendView> for Friend {
    fn from(FriendView { uid, friend, is_connected }: FriendView) -> Friend {
        Friend {
            uid: uid.to_string(),
            standing: match friend.standing {
                friends::Standing::Asked => Standing::Asked,
                friends::Standing::Asking => Standing::Asking,
                friends::Standing::Friend => Standing::Friend,
                friends::Standing::Declined => Standing::Declined,
                friends::Standing::Ended => Standing::Ended,
            },
            since_unix_s: friend.since_s,
            connected: is_connected,
            label: friend.label,
            notes: friend.notes,
            greeting: friend.greeting,
            profile: friend.profile.into(),
            address_revoked: friend.is_address_revoked,
            own_device: friend.is_own_device,
            nodes: friend.nodes.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<friends::Profile> for Profile {
    fn from(profile: friends::Profile) -> Profile {
        let presence = match profile.presence {
            friends::Presence::None => Presence::None,
            friends::Presence::Away => Presence::Away,
            friends::Presence::Busy => Presence::Busy,
        };
        Profile { name: profile.name, description: profile.description, presence }
    }
}

impl From<Presence> for friends::Presence {
    fn from(presence: Presence) -> friends::Presence {
        match presence {
            Presence::None => friends::Presence::None,
            Presence::Away => friends::Presence::Away,
            Presence::Busy => friends::Presence::Busy,
        }
    }
}

impl From<friends::Counters> for Counters {
    fn from(counters: friends::Counters) -> Counters {
        Counters {
            received: counters.received,
            repeated: counters.repeated,
            delivered: counters.delivered,
            requests: counters.requests,
            requests_dropped: counters.requests_dropped,
            requests_declined: counters.requests_declined,
            dropped: counters.dropped,
            malformed: counters.malformed,
            unexpected: counters.unexpected,
            files_refused: counters.files_refused,
            flooded: counters.flooded,
            unsaved: counters.unsaved,
        }
    }
}

impl From<FriendError> for Problem {
    fn from(error: FriendError) -> Problem {
        let status = match &error {
            // Understood, and not possible as things stand.
            FriendError::TooLong(_)
            | FriendError::Oneself { .. }
            | FriendError::Unusable { .. }
            | FriendError::Already { .. }
            | FriendError::NotAsking { .. }
            | FriendError::LabelTaken { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            FriendError::Unknown { .. } => StatusCode::NOT_FOUND,
            FriendError::TooMany => StatusCode::CONFLICT,
            FriendError::Book(_) => StatusCode::INTERNAL_SERVER_ERROR,
            FriendError::Ended(ended) => return Problem::from(*ended),
        };
        Problem::new(status, error)
    }
}

impl From<ServiceEnded> for Problem {
    fn from(error: ServiceEnded) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}
