//! The policy in force, and which UIDs the node serves.

use super::request::{Json, Path};
use super::{Api, Problem};
use crate::engine_socket::EngineSocket;
use crate::policy_uids::{PolicyUids, PolicyUidsError, UidRule, configured, parse_uid};
use axum::extract::State;
use http::StatusCode;
use identity::Uid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(set, forget))
}

/// The policy of the engine.
#[derive(Serialize, ToSchema)]
struct Policy {
    /// Counts up with every change and renewal.
    generation: u64,
    /// From when on it has expired, seconds since 1970-01-01 UTC.
    valid_until_unix_s: u64,
    /// Whether it has: then nobody may log in, allocate or write.
    expired: bool,
    /// Whether only UIDs that are allowed are served.
    only_allowed: bool,
    /// UIDs with a rule, in order.
    uids: Vec<PolicyUid>,
}

/// A rule for a UID.
#[derive(Serialize, ToSchema)]
struct PolicyUid {
    uid: String,
    rule: Rule,
    /// Who says so: a command's rule goes over the configuration's.
    source: Source,
}

/// What holds for a UID.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Rule {
    Allow,
    Deny,
}

/// Where a rule comes from.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    Configuration,
    Command,
}

/// A rule to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRule {
    rule: Rule,
}

/// A change that is in force.
#[derive(Serialize, ToSchema)]
struct Changed {
    uid: String,
    /// The policy's generation with it.
    generation: u64,
}

/// The policy in force, and the UIDs with a rule
#[utoipa::path(get, path = "/v1/policy", tag = "policy", responses((status = 200, body = Policy)))]
async fn show(State(api): State<Api>) -> Result<Json<Policy>, Problem> {
    let status = api.ask_engine(EngineSocket::status).await?;
    let parts = api.parts();
    let commanded = PolicyUids::of(&parts.directory).load()?;
    let configured = configured(&parts.engine.policy.settings());
    let of_configuration = configured.iter().filter(|(uid, _)| !commanded.contains_key(*uid));
    let mut uids: Vec<PolicyUid> = of_configuration
        .map(|(uid, rule)| (uid, rule, Source::Configuration))
        .chain(commanded.iter().map(|(uid, rule)| (uid, rule, Source::Command)))
        .map(|(uid, rule, source)| PolicyUid { uid: uid.to_string(), rule: Rule::from(*rule), source })
        .collect();
    uids.sort_by(|one, other| one.uid.cmp(&other.uid));
    Ok(Json(Policy {
        generation: status.policy_generation,
        valid_until_unix_s: status.policy_valid_until_s,
        expired: status.policy_expired,
        only_allowed: uids.iter().any(|uid| matches!(uid.rule, Rule::Allow)),
        uids,
    }))
}

/// Allow or deny a UID, from now on and over restarts; sessions of one that is no longer served end at once
#[utoipa::path(put, path = "/v1/policy/uids/{uid}", tag = "policy", request_body = NewRule,
    params(("uid" = String, Path, description = "A UID or an address")),
    responses((status = 200, body = Changed)))]
async fn set(
    State(api): State<Api>,
    Path(who): Path<String>,
    Json(NewRule { rule }): Json<NewRule>,
) -> Result<Json<Changed>, Problem> {
    let uid = parse_uid(&who).map_err(Problem::bad_request)?;
    let parts = api.parts();
    PolicyUids::of(&parts.directory).set(uid, rule.into(), &parts.uid)?;
    api.put_in_force(uid).await
}

/// Take the rule that a command has made for a UID away
#[utoipa::path(delete, path = "/v1/policy/uids/{uid}", tag = "policy",
    params(("uid" = String, Path, description = "A UID or an address")),
    responses((status = 200, body = Changed)))]
async fn forget(State(api): State<Api>, Path(who): Path<String>) -> Result<Json<Changed>, Problem> {
    let uid = parse_uid(&who).map_err(Problem::bad_request)?;
    let parts = api.parts();
    if !PolicyUids::of(&parts.directory).forget(&uid)? {
        let detail = match configured(&parts.engine.policy.settings()).contains_key(&uid) {
            true => format!(
                "what holds for {uid} stands in the configuration, [policy]; change it there and reload"
            ),
            false => format!("there is no rule for {uid}"),
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    api.put_in_force(uid).await
}

impl Api {
    /// Has the engine be told.
    async fn put_in_force(&self, uid: Uid) -> Result<Json<Changed>, Problem> {
        let generation = self.parts().engine.policy.put_in_force().await.map_err(|reason| {
            let detail = format!("written down, but not in force yet: {reason}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        Ok(Json(Changed { uid: uid.to_string(), generation }))
    }
}

impl From<UidRule> for Rule {
    fn from(rule: UidRule) -> Rule {
        match rule {
            UidRule::Allow => Rule::Allow,
            UidRule::Deny => Rule::Deny,
        }
    }
}

impl From<Rule> for UidRule {
    fn from(rule: Rule) -> UidRule {
        match rule {
            Rule::Allow => UidRule::Allow,
            Rule::Deny => UidRule::Deny,
        }
    }
}

impl From<PolicyUidsError> for Problem {
    fn from(error: PolicyUidsError) -> Problem {
        let status = match &error {
            PolicyUidsError::Oneself { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            PolicyUidsError::TooMany { .. } => StatusCode::CONFLICT,
            PolicyUidsError::File(_) | PolicyUidsError::Line { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error)
    }
}
