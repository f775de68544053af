//! Why a token is not accepted, and why an accepted one does not allow a request.

use super::{LIFETIME_S_MAX, TOKEN_LEN_MAX, TOKEN_TEXT_LEN_MAX};
use crate::uid::{SignatureError, Uid};

/// Why a token is not accepted. None of these says what the right token would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty or longer than any token.
    #[error("a token has 1 to {TOKEN_LEN_MAX} bytes, this one has {len}")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// The text is empty or longer than any token's.
    #[error("a token's text has 1 to {TOKEN_TEXT_LEN_MAX} characters, this one has {len}")]
    TextLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The text is not base64url without padding.
    #[error("the token's text is not base64url without padding (RFC 4648 section 5)")]
    NotBase64,
    /// Not a tagged `COSE_Sign1` with an attached payload.
    #[error(
        "the token is not a COSE_Sign1 structure with tag 18 and an attached payload (RFC 9052 section 4.2)"
    )]
    NotCose,
    /// Another algorithm than EdDSA, or none.
    #[error("the token's algorithm is not EdDSA (-8), the only one accepted")]
    Algorithm,
    /// It lists critical headers; version 1 has none.
    #[error("the token has critical headers, of which token v1 knows none")]
    CriticalHeader,
    /// A header other than the algorithm.
    #[error("the token has a header other than the protected algorithm")]
    UnknownHeader,
    /// The payload is not a CWT claims set.
    #[error("the token's payload is not a CWT claims set (RFC 8392)")]
    NotClaims,
    /// A claim is missing or has another type or range.
    #[error("the token's claim {name} is missing or malformed")]
    Claim {
        /// Its name.
        name: &'static str,
    },
    /// A claim that version 1 does not have. It may restrict the token, so it cannot be passed over.
    #[error("the token has claim {label}, which token v1 does not have")]
    UnknownClaim {
        /// Its label.
        label: i64,
    },
    /// The signature has another length than Ed25519's.
    #[error("the token's signature has {len} bytes, not 64")]
    SignatureLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The same claims have another, canonical encoding.
    #[error("the token is not in deterministic encoding (RFC 8949 section 4.2.1)")]
    NotCanonical,
    /// It ends before it starts, or lives too long.
    #[error(
        "the token lives from {not_before_s} to {expires_s}; more than 0 and at most {LIFETIME_S_MAX} seconds are accepted"
    )]
    Lifetime {
        /// Its start.
        not_before_s: u64,
        /// Its end.
        expires_s: u64,
    },
    /// Its start lies ahead.
    #[error("the token counts from {not_before_s}, now is {now_s}; check both clocks")]
    NotYet {
        /// Its start.
        not_before_s: u64,
        /// The verifier's time.
        now_s: u64,
    },
    /// Its end has passed.
    #[error("the token counted until {expires_s}, now is {now_s}; ask for a new one")]
    Expired {
        /// Its end.
        expires_s: u64,
        /// The verifier's time.
        now_s: u64,
    },
    /// It is for another node.
    #[error("the token is for node {audience}")]
    OtherAudience {
        /// The node it is for.
        audience: Uid,
    },
    /// The node does not take tokens of this issuer.
    #[error(
        "the node does not trust the token's issuer {issuer}; its operator can add that UID to the publishers"
    )]
    UntrustedIssuer {
        /// The issuer.
        issuer: Uid,
    },
    /// The signature does not fit.
    #[error("the token's signature is wrong: {0}")]
    Signature(#[from] SignatureError),
}

/// Why a valid token does not allow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is for another action.
    #[error("the token does not allow this action")]
    Action,
    /// It is for another content address.
    #[error("the token is for another content address")]
    OtherHash,
    /// It is for a list that does not name this address, as far as the node knows the list.
    #[error(
        "the token is for a list which this node does not hold, or which does not name this address; put the list first"
    )]
    NotListed,
    /// The body is longer than it allows.
    #[error("the body has {len} bytes, the token allows {bytes_max}")]
    TooLong {
        /// The body's length in bytes.
        len: u64,
        /// The most that the token allows.
        bytes_max: u64,
    },
}
