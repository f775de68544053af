//! Long-term credentials, the server's half (RFC 8489 section 9.2.4): who sent a request, or the exact answer why not.

use std::net::SocketAddr;

use super::attribute::AttributeType;
use super::credentials::{Claim, Credentials};
use super::integrity::{Integrity, PasswordAlgorithm, ReplyKey, SHA256_LEN};
use super::message::Message;
use super::nonce::{Features, Nonces};
use super::writer::{ErrorCode, Writer};

/// Value of PASSWORD-ALGORITHMS, the preferred first: SHA-256, MD5, both without parameters (RFC 8489 section 14.11).
const PASSWORD_ALGORITHMS: [u8; 8] =
    [0, PasswordAlgorithm::Sha256.code() as u8, 0, 0, 0, PasswordAlgorithm::Md5.code() as u8, 0, 0];

/// Checks who sent a request, and writes the answers to those who did not prove it. One a shard; the nonces of all
/// shards that were made with one key are good for each.
#[derive(Debug)]
pub struct Authenticator {
    nonces: Nonces,
    counts: AuthCounts,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated<'a> {
    /// The user: the name of a static user; of a user name `expiry:name` what follows the expiry (all of it, if nothing
    /// does), so that one user counts as one whenever the credentials were made.
    pub user: &'a str,
    /// What protects the answer.
    pub reply_key: ReplyKey,
    /// When the credentials expire, in seconds since 1970; never for a static user.
    pub expires_s: Option<u64>,
}

/// Whether expired credentials are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// They are: for whatever starts a session.
    Enforced,
    /// They are not: for requests on a live allocation of the same user. The expiry says until when a session may begin;
    /// a call that is longer than its credentials goes on.
    Waived,
}

/// Why a request is not authenticated, in the order of the checks: that of RFC 8489 section 9.2.4, but for the nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// No integrity attribute, as in every first request.
    #[error("the request has no integrity attribute")]
    NoIntegrity,
    /// An integrity attribute, but no REALM, no NONCE, or neither USERNAME nor USERHASH.
    #[error("the request lacks REALM, NONCE, or USERNAME and USERHASH")]
    Incomplete,
    /// PASSWORD-ALGORITHMS is not the list that was sent, or PASSWORD-ALGORITHM is not on it: somebody on the way
    /// bids the algorithm down.
    #[error("PASSWORD-ALGORITHM and PASSWORD-ALGORITHMS are not what was offered")]
    PasswordAlgorithms,
    /// Nobody has this name, or the realm is another.
    #[error("no such user in this realm")]
    UnknownUser,
    /// The credentials' time is over.
    #[error("the credentials have expired")]
    Expired,
    /// The nonce is too old, of another server, or was given to another address.
    #[error("the nonce is stale")]
    StaleNonce,
    /// The integrity attribute does not match: a wrong password, or a message that was changed.
    #[error("the integrity attribute does not match")]
    WrongIntegrity,
}

/// How often requests were authenticated, and why others were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthCounts {
    /// Requests whose sender was proved.
    pub authenticated: u64,
    refused: [u64; AuthError::ALL.len()],
}

impl Authenticator {
    /// With the nonces of this node.
    pub fn new(nonces: Nonces) -> Self {
        Self { nonces, counts: AuthCounts::default() }
    }

    /// A nonce is good for `lifetime_s` seconds from now on, those that are out there too.
    pub fn set_nonce_lifetime_s(&mut self, lifetime_s: u64) {
        self.nonces.lifetime_s = lifetime_s;
    }

    /// Who sent `message`, a request from `client` that arrived at `now_s`, in seconds since 1970. The error is what
    /// [`Self::refuse`] answers.
    pub fn authenticate<'a>(
        &mut self,
        message: &Message<'a>,
        credentials: &'a Credentials,
        now_s: u64,
        client: SocketAddr,
        expiry: Expiry,
    ) -> Result<Authenticated<'a>, AuthError> {
        let checked = self.check(message, credentials, now_s, client, expiry);
        match &checked {
            Ok(_) => self.counts.authenticated += 1,
            Err(error) => self.counts.refused[*error as usize] += 1,
        }
        checked
    }

    fn check<'a>(
        &mut self,
        message: &Message<'a>,
        credentials: &'a Credentials,
        now_s: u64,
        client: SocketAddr,
        expiry: Expiry,
    ) -> Result<Authenticated<'a>, AuthError> {
        message.integrity().ok_or(AuthError::NoIntegrity)?;
        let realm = message.find(AttributeType::REALM).ok_or(AuthError::Incomplete)?;
        let nonce = message.find(AttributeType::NONCE).ok_or(AuthError::Incomplete)?;
        let user_name = message.find(AttributeType::USERNAME);
        let user_hash = message.find(AttributeType::USERHASH);
        if user_name.is_none() && user_hash.is_none() {
            return Err(AuthError::Incomplete);
        }
        let chosen = password_algorithm(message, nonce)?;
        let algorithm = chosen.unwrap_or(PasswordAlgorithm::Md5);
        let claim = match (user_name, user_hash) {
            (Some(name), _) => std::str::from_utf8(name).ok().and_then(|name| credentials.claim(name)),
            (None, hash) => credentials.claim_hash(hash.unwrap_or_default()),
        };
        let claim =
            claim.filter(|_| realm == credentials.realm().as_bytes()).ok_or(AuthError::UnknownUser)?;
        let (user, expires_s) = match claim {
            Claim::Static(user) => (user.name.as_str(), None),
            Claim::Rest { user_name, name: "", expires_s } => (user_name, Some(expires_s)),
            Claim::Rest { name, expires_s, .. } => (name, Some(expires_s)),
        };
        if expiry == Expiry::Enforced && expires_s.is_some_and(|expires_s| expires_s <= now_s) {
            return Err(AuthError::Expired);
        }
        // The RFC looks at the nonce after the integrity attribute. Before it, a flood from addresses that are not the
        // sender's costs one MAC a packet instead of some for each secret, and the two orders differ only for a request
        // where both are wrong: it gets 438 first and 401 then.
        if !self.nonces.is_valid(nonce, now_s, client, credentials.features()) {
            return Err(AuthError::StaleNonce);
        }
        let key = credentials
            .find_key(claim, algorithm, |key| message.verify_integrity(key.as_bytes(), SHA256_LEN))
            .ok_or(AuthError::WrongIntegrity)?;
        // RFC 8489 section 9.2.4: "Any response generated by the server MUST include the MESSAGE-INTEGRITY-SHA256 attribute
        // [...] unless the request was processed as though PASSWORD-ALGORITHM was MD5 (because the request contained neither
        // PASSWORD-ALGORITHMS nor PASSWORD-ALGORITHM)."
        let integrity = if chosen.is_some() { Integrity::Sha256 } else { Integrity::Sha1 };
        Ok(Authenticated { user, reply_key: ReplyKey { key, integrity }, expires_s })
    }

    /// Writes the answer to a request that was not authenticated at the start of `out`: 400 alone, 401 and 438 with
    /// REALM, a new NONCE and PASSWORD-ALGORITHMS, none with a reason phrase, SOFTWARE or an integrity attribute.
    ///
    /// Cut `out` to [`super::stranger_reply_bytes_max`] for datagrams. A challenge that does not fit becomes a 400; none
    /// is written if that does not fit either.
    pub fn refuse<'o>(
        &mut self,
        message: &Message<'_>,
        error: AuthError,
        credentials: &Credentials,
        now_s: u64,
        client: SocketAddr,
        out: &'o mut [u8],
    ) -> Option<&'o [u8]> {
        let code = error.code();
        let len = match code {
            ErrorCode::BAD_REQUEST => None,
            _ => {
                let features = credentials.features();
                let mut writer = Writer::error(out, message, code);
                writer.attribute(AttributeType::REALM, credentials.realm().as_bytes());
                writer.attribute(AttributeType::NONCE, &self.nonces.issue(now_s, client, features));
                if features.password_algorithms {
                    writer.attribute(AttributeType::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS);
                }
                writer.seal(message, None).ok().map(<[u8]>::len)
            }
        };
        match len {
            Some(len) => out.get(..len),
            None => Writer::error(out, message, ErrorCode::BAD_REQUEST).seal(message, None).ok(),
        }
    }

    /// What was counted since the start.
    pub fn counts(&self) -> &AuthCounts {
        &self.counts
    }
}

/// The algorithm that the request names for its key; none where it leaves that to the server, which means MD5.
///
/// The client repeats the list that it saw, under the integrity attribute, so that nobody on the way can take the better
/// algorithm off it unseen. A list that is missing is taken with SHA-256, which nothing could have been bid down to: RFC
/// 8489 section 9.2.3.2 lets later requests go without it.
fn password_algorithm(message: &Message<'_>, nonce: &[u8]) -> Result<Option<PasswordAlgorithm>, AuthError> {
    let list = message.find(AttributeType::PASSWORD_ALGORITHMS);
    let chosen = message.find(AttributeType::PASSWORD_ALGORITHM);
    if !Features::of(nonce).password_algorithms || (list.is_none() && chosen.is_none()) {
        return Ok(None);
    }
    // Neither algorithm has parameters.
    let chosen = match chosen {
        Some(&[high, low, 0, 0]) => PasswordAlgorithm::from_code(u16::from_be_bytes([high, low])),
        _ => None,
    };
    match (list, chosen) {
        (Some(list), Some(chosen)) if list == PASSWORD_ALGORITHMS => Ok(Some(chosen)),
        (None, Some(PasswordAlgorithm::Sha256)) => Ok(Some(PasswordAlgorithm::Sha256)),
        _ => Err(AuthError::PasswordAlgorithms),
    }
}

impl AuthError {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::NoIntegrity,
        Self::Incomplete,
        Self::PasswordAlgorithms,
        Self::UnknownUser,
        Self::Expired,
        Self::StaleNonce,
        Self::WrongIntegrity,
    ];

    /// The code of the answer.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Incomplete | Self::PasswordAlgorithms => ErrorCode::BAD_REQUEST,
            Self::NoIntegrity | Self::UnknownUser | Self::Expired | Self::WrongIntegrity => {
                ErrorCode::UNAUTHENTICATED
            }
            Self::StaleNonce => ErrorCode::STALE_NONCE,
        }
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoIntegrity => "no_integrity",
            Self::Incomplete => "incomplete",
            Self::PasswordAlgorithms => "password_algorithms",
            Self::UnknownUser => "unknown_user",
            Self::Expired => "expired",
            Self::WrongIntegrity => "wrong_integrity",
            Self::StaleNonce => "stale_nonce",
        }
    }
}

impl AuthCounts {
    /// How often requests were refused for this cause.
    pub fn refused(&self, error: AuthError) -> u64 {
        self.refused[error as usize]
    }
}
