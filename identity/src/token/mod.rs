//! Capability token v1: what lets its holder PUT to a node, or DELETE what its issuer has placed there.
//!
//! A CBOR Web Token (RFC 8392) in a `COSE_Sign1` (RFC 9052) with EdDSA over Ed25519, carried in HTTP as
//! `authorization: Bearer <base64url without padding>` (RFC 6750). Drawn in `identity/docs/token.md`.
//!
//! A node that verifies is strict: one algorithm, no header it does not know, no claim it does not know (an unknown
//! claim may be a restriction), one encoding (RFC 8949 section 4.2.1), bounded size before any parsing. What this crate
//! cannot know (whom a node trusts, which tokens it has revoked, which deletions it has carried out) is the node's to ask.

mod error;

pub use error::{Denied, TokenError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::cbor::value::Value;
use coset::cwt::{ClaimName, ClaimsSet, Timestamp};
use coset::{CborSerializable, CoseSign1, Header, ProtectedHeader, TaggedCborSerializable, iana};

use crate::key::{Domain, SecretKey, Signature};
use crate::uid::Uid;

/// The longest token in bytes. The longest that v1 can say has 330: three UIDs of 47 (141), two times of 10 (20), id 18,
/// action 6, scope 41, largest body and lease end 14 each (28), and 76 around them (tag, array, headers, map and byte
/// string heads, signature).
pub const TOKEN_LEN_MAX: usize = 512;

/// The longest text of a token: four base64url characters for every three bytes.
pub const TOKEN_TEXT_LEN_MAX: usize = TOKEN_LEN_MAX.div_ceil(3) * 4;

/// How far the verifier's clock may be off, in seconds: a token counts this long before its start and after its end.
pub const CLOCK_LEEWAY_S: u64 = 60;

/// The longest life of a token in seconds (31 days). Longer ones are refused: a node remembers revoked tokens and used
/// deletions only as long as they could count.
pub const LIFETIME_S_MAX: u64 = 31 * 24 * 3600;

/// Claim label of the action: unsigned integer, 1 = PUT, 2 = DELETE. Labels below -65536 are for private use (RFC 8392 section 9.1).
pub const CLAIM_ACTION: i64 = -65537;
/// Claim label of the scope: an array `[0]` (any), `[1, bstr(32)]` (hash) or `[2, bstr(32)]` (list).
pub const CLAIM_SCOPE: i64 = -65538;
/// Claim label of the largest body in bytes: unsigned integer; absent means that the node's own bounds alone hold.
pub const CLAIM_BYTES_MAX: i64 = -65539;
/// Claim label of the lease's end: seconds since 1970-01-01 UTC, unsigned integer; absent means the node's usual lease.
/// In tokens for PUT alone.
pub const CLAIM_LEASE_END: i64 = -65540;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Store a segment: the issuer becomes the owner of a lease on it.
    Put,
    /// End the issuer's own lease on a segment. Never of any content, and never a lease of somebody else's.
    Delete,
}

/// Which content a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Any content.
    Any,
    /// One content address (BLAKE3).
    Hash([u8; 32]),
    /// A content address list, by the address of its document, and the segments it names.
    List([u8; 32]),
}

/// What a token says. Made by an issuer, believed only after [`verify`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claims {
    /// Who signed (`iss`, base58). A node asks whether it trusts this UID.
    pub issuer: Uid,
    /// For whom it was made (`sub`, base58); may be the issuer itself.
    pub subject: Uid,
    /// The node that may accept it (`aud`, base58).
    pub audience: Uid,
    /// When it starts to count (`nbf`), in seconds since 1970-01-01 UTC.
    pub not_before_s: u64,
    /// When it no longer counts (`exp`), in seconds since 1970-01-01 UTC.
    pub expires_s: u64,
    /// Sixteen bytes that tell this token from others of its issuer (`cti`), for logs.
    pub token_id: [u8; 16],
    /// What it allows.
    pub action: Action,
    /// On which content.
    pub scope: Scope,
    /// The largest body of one request in bytes.
    pub bytes_max: Option<u64>,
    /// Until when what is put is to be kept, in seconds since 1970-01-01 UTC.
    pub lease_expires_s: Option<u64>,
}

impl Claims {
    /// Signs the claims with the issuer's key and gives the token's bytes. `key` must be the issuer's, and the times
    /// in order, or no one will accept the token: [`verify`] says which rule it breaks.
    pub fn sign(&self, key: &SecretKey) -> Vec<u8> {
        let mut token = self.unsigned();
        token.signature = key.sign_raw(&token.tbs_data(&external_data())).0.to_vec();
        encode(token)
    }

    /// Whether the token allows `action` on the content with this BLAKE3 address and length in bytes. A token for a
    /// list allows the list's document here; for its segments see [`Claims::permits_listed`].
    pub fn permits(&self, action: Action, hash: &[u8; 32], len: u64) -> Result<(), Denied> {
        self.permits_listed(action, hash, len, |_| false)
    }

    /// As [`Claims::permits`]; `list_names(list)` says whether the verified list with that address names `hash`.
    pub fn permits_listed(
        &self,
        action: Action,
        hash: &[u8; 32],
        len: u64,
        list_names: impl FnOnce(&[u8; 32]) -> bool,
    ) -> Result<(), Denied> {
        if self.action != action {
            return Err(Denied::Action);
        }
        match &self.scope {
            Scope::Any => {}
            Scope::Hash(allowed) if allowed == hash => {}
            Scope::Hash(_) => return Err(Denied::OtherHash),
            Scope::List(list) if list == hash || list_names(list) => {}
            Scope::List(_) => return Err(Denied::NotListed),
        }
        match self.bytes_max {
            Some(bytes_max) if len > bytes_max => Err(Denied::TooLong { len, bytes_max }),
            _ => Ok(()),
        }
    }

    /// The one encoding of these claims, with an empty signature.
    fn unsigned(&self) -> CoseSign1 {
        let scope = match &self.scope {
            Scope::Any => vec![Value::from(SCOPE_ANY)],
            Scope::Hash(hash) => vec![Value::from(SCOPE_HASH), Value::Bytes(hash.to_vec())],
            Scope::List(list) => vec![Value::from(SCOPE_LIST), Value::Bytes(list.to_vec())],
        };
        let action = match self.action {
            Action::Put => ACTION_PUT,
            Action::Delete => ACTION_DELETE,
        };
        let mut private = vec![
            (ClaimName::PrivateUse(CLAIM_ACTION), Value::from(action)),
            (ClaimName::PrivateUse(CLAIM_SCOPE), Value::Array(scope)),
        ];
        if let Some(bytes_max) = self.bytes_max {
            private.push((ClaimName::PrivateUse(CLAIM_BYTES_MAX), Value::from(bytes_max)));
        }
        if let Some(lease_expires_s) = self.lease_expires_s {
            private.push((ClaimName::PrivateUse(CLAIM_LEASE_END), Value::from(lease_expires_s)));
        }
        let claims = ClaimsSet {
            issuer: Some(self.issuer.to_string()),
            subject: Some(self.subject.to_string()),
            audience: Some(self.audience.to_string()),
            // Times past i64 exist in no clock; they are held to the last one that the library can write.
            expiration_time: Some(Timestamp::WholeSeconds(i64::try_from(self.expires_s).unwrap_or(i64::MAX))),
            not_before: Some(Timestamp::WholeSeconds(i64::try_from(self.not_before_s).unwrap_or(i64::MAX))),
            issued_at: None,
            cwt_id: Some(self.token_id.to_vec()),
            rest: private,
        };
        let header =
            Header { alg: Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)), ..Header::default() };
        CoseSign1 {
            protected: ProtectedHeader { original_data: None, header },
            unprotected: Header::default(),
            payload: Some(claims.to_vec().expect("integers, texts and bytes always encode")),
            signature: Vec::new(),
        }
    }
}

const ACTION_PUT: u64 = 1;
const ACTION_DELETE: u64 = 2;
const SCOPE_ANY: u64 = 0;
const SCOPE_HASH: u64 = 1;
const SCOPE_LIST: u64 = 2;

/// Checks a token: its size, form, algorithm, times (with [`CLOCK_LEEWAY_S`]), that it is for `audience`, that its
/// issuer is trusted, and the issuer's signature, which is checked last because it costs most. `is_trusted` gets claims
/// that nobody has vouched for yet; it says whether this issuer may have this action at all.
///
/// `now_s` is in seconds since 1970-01-01 UTC. Never panics, whatever the bytes.
pub fn verify(
    token: &[u8],
    now_s: u64,
    audience: &Uid,
    is_trusted: impl FnOnce(&Claims) -> bool,
) -> Result<Claims, TokenError> {
    if token.is_empty() || token.len() > TOKEN_LEN_MAX {
        return Err(TokenError::Length { len: token.len() });
    }
    let parsed = CoseSign1::from_tagged_slice(token).map_err(|_| TokenError::NotCose)?;
    check_headers(&parsed)?;
    let payload = parsed.payload.as_deref().ok_or(TokenError::NotCose)?;
    let claims = read_claims(ClaimsSet::from_slice(payload).map_err(|_| TokenError::NotClaims)?)?;
    let signature: [u8; 64] = parsed
        .signature
        .as_slice()
        .try_into()
        .map_err(|_| TokenError::SignatureLength { len: parsed.signature.len() })?;

    // What these claims encode to must be what came: no second spelling of a token, no duplicate or reordered claim.
    let mut canonical = claims.unsigned();
    let signed = canonical.tbs_data(&external_data());
    canonical.signature = signature.to_vec();
    if encode(canonical) != token {
        return Err(TokenError::NotCanonical);
    }

    check_times(&claims, now_s)?;
    if claims.audience != *audience {
        return Err(TokenError::OtherAudience { audience: claims.audience });
    }
    if !is_trusted(&claims) {
        return Err(TokenError::UntrustedIssuer { issuer: claims.issuer });
    }
    claims.issuer.verify_raw(&signed, &Signature(signature))?;
    Ok(claims)
}

/// The text of a token for `authorization: Bearer`: base64url without padding (RFC 4648 section 5).
pub fn to_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// The bytes of a token's text. Bounded before decoding; padding, white space and stray trailing bits are refused.
pub fn from_text(text: &[u8]) -> Result<Vec<u8>, TokenError> {
    if text.is_empty() || text.len() > TOKEN_TEXT_LEN_MAX {
        return Err(TokenError::TextLength { len: text.len() });
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::NotBase64)
}

/// What the signature covers besides protected header and payload (`external_aad`, RFC 9052 section 4.4): the domain.
///
/// The signed bytes begin with 0x84 and so are never `domain string || 0x00 || message` of another domain, which
/// begins with a letter; and a COSE token that someone signs for another use lacks this external data.
fn external_data() -> Vec<u8> {
    Domain::Token.separated(&[])
}

fn encode(token: CoseSign1) -> Vec<u8> {
    token.to_tagged_vec().expect("byte strings and integers always encode")
}

/// Exactly `{1: -8}` protected and nothing unprotected.
fn check_headers(token: &CoseSign1) -> Result<(), TokenError> {
    let header = &token.protected.header;
    if !header.crit.is_empty() {
        return Err(TokenError::CriticalHeader);
    }
    if header.alg != Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)) {
        return Err(TokenError::Algorithm);
    }
    let known = Header { alg: header.alg.clone(), ..Header::default() };
    if *header != known || !token.unprotected.is_empty() {
        return Err(TokenError::UnknownHeader);
    }
    Ok(())
}

fn check_times(claims: &Claims, now_s: u64) -> Result<(), TokenError> {
    let Claims { not_before_s, expires_s, .. } = *claims;
    let lifetime_s = expires_s.checked_sub(not_before_s).filter(|lifetime_s| *lifetime_s > 0);
    if lifetime_s.is_none_or(|lifetime_s| lifetime_s > LIFETIME_S_MAX) {
        return Err(TokenError::Lifetime { not_before_s, expires_s });
    }
    if now_s.saturating_add(CLOCK_LEEWAY_S) < not_before_s {
        return Err(TokenError::NotYet { not_before_s, now_s });
    }
    if now_s >= expires_s.saturating_add(CLOCK_LEEWAY_S) {
        return Err(TokenError::Expired { expires_s, now_s });
    }
    Ok(())
}

fn read_claims(set: ClaimsSet) -> Result<Claims, TokenError> {
    if set.issued_at.is_some() {
        return Err(TokenError::UnknownClaim { label: iana::CwtClaimName::Iat as i64 });
    }
    let mut action = None;
    let mut scope = None;
    let mut bytes_max = None;
    let mut lease_expires_s = None;
    for (name, value) in set.rest {
        match name {
            ClaimName::PrivateUse(CLAIM_ACTION) => action = Some(read_action(&value)?),
            ClaimName::PrivateUse(CLAIM_SCOPE) => scope = Some(read_scope(&value)?),
            ClaimName::PrivateUse(CLAIM_BYTES_MAX) => {
                bytes_max = Some(read_u64(&value).ok_or(TokenError::Claim { name: "bytes_max" })?);
            }
            ClaimName::PrivateUse(CLAIM_LEASE_END) => {
                lease_expires_s = Some(read_u64(&value).ok_or(TokenError::Claim { name: "lease end" })?);
            }
            ClaimName::PrivateUse(label) => return Err(TokenError::UnknownClaim { label }),
            ClaimName::Assigned(label) => return Err(TokenError::UnknownClaim { label: label as i64 }),
            ClaimName::Text(_) => return Err(TokenError::Claim { name: "with a text label" }),
        }
    }
    let action = action.ok_or(TokenError::Claim { name: "action" })?;
    let scope = scope.ok_or(TokenError::Claim { name: "scope" })?;
    if action == Action::Delete && scope == Scope::Any {
        return Err(TokenError::Claim { name: "scope" });
    }
    if action == Action::Delete && lease_expires_s.is_some() {
        return Err(TokenError::Claim { name: "lease end" });
    }
    Ok(Claims {
        issuer: read_uid(set.issuer, "iss")?,
        subject: read_uid(set.subject, "sub")?,
        audience: read_uid(set.audience, "aud")?,
        not_before_s: read_time(set.not_before.as_ref(), "nbf")?,
        expires_s: read_time(set.expiration_time.as_ref(), "exp")?,
        token_id: set.cwt_id.and_then(|id| id.try_into().ok()).ok_or(TokenError::Claim { name: "cti" })?,
        action,
        scope,
        bytes_max,
        lease_expires_s,
    })
}

fn read_uid(text: Option<String>, name: &'static str) -> Result<Uid, TokenError> {
    text.and_then(|text| text.parse().ok()).ok_or(TokenError::Claim { name })
}

fn read_time(time: Option<&Timestamp>, name: &'static str) -> Result<u64, TokenError> {
    match time {
        Some(Timestamp::WholeSeconds(seconds)) => {
            u64::try_from(*seconds).map_err(|_| TokenError::Claim { name })
        }
        _ => Err(TokenError::Claim { name }),
    }
}

fn read_u64(value: &Value) -> Option<u64> {
    value.as_integer().and_then(|integer| u64::try_from(integer).ok())
}

fn read_action(value: &Value) -> Result<Action, TokenError> {
    match read_u64(value) {
        Some(ACTION_PUT) => Ok(Action::Put),
        Some(ACTION_DELETE) => Ok(Action::Delete),
        _ => Err(TokenError::Claim { name: "action" }),
    }
}

fn read_scope(value: &Value) -> Result<Scope, TokenError> {
    let malformed = TokenError::Claim { name: "scope" };
    let Some(items) = value.as_array() else { return Err(malformed) };
    let kind = items.first().and_then(read_u64);
    let address =
        |item: &Value| item.as_bytes().and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    match (kind, items.len(), items.get(1).and_then(address)) {
        (Some(SCOPE_ANY), 1, None) => Ok(Scope::Any),
        (Some(SCOPE_HASH), 2, Some(hash)) => Ok(Scope::Hash(hash)),
        (Some(SCOPE_LIST), 2, Some(list)) => Ok(Scope::List(list)),
        _ => Err(malformed),
    }
}
