//! The Authorization field of a PUT, POST or DELETE, and what its token allows.

use std::sync::Arc;

use identity::Uid;
use identity::token::{self, Action, Claims};

use super::Problem;
use crate::policy::Policy;

/// Tokens that a connection keeps: one for each of a few lists or actions that a client works on side by side.
const TOKENS_KEPT_MAX: usize = 8;

/// By what a token is judged.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Seconds since 1970-01-01 UTC.
    pub now_s: u64,
    /// The node's own UID.
    pub node: &'a Uid,
    /// Whom the node trusts, and what it has revoked.
    pub policy: &'a Arc<Policy>,
    /// Whether somebody owns a lease here: who was taken out of the publishers may still give up what is his.
    pub is_owner: &'a dyn Fn(&Uid) -> bool,
}

impl Rules<'_> {
    /// Whether the issuer may have this done.
    fn trust(&self, claims: &Claims) -> bool {
        let issuer = claims.issuer.as_bytes();
        match claims.action {
            Action::Put => self.policy.trusts(issuer),
            Action::Delete => self.policy.trusts(issuer) || (self.is_owner)(&claims.issuer),
        }
    }

    fn have_revoked(&self, claims: &Claims) -> bool {
        self.policy.has_revoked(claims.issuer.as_bytes(), &claims.token_id, claims.not_before_s)
    }

    /// Whether a token whose signature is verified counts.
    fn take(&self, claims: &Claims) -> bool {
        self.now_s >= claims.not_before_s
            && self.trust(claims)
            && self.policy.uids.admit(claims.issuer.as_bytes()).is_ok()
            && !self.have_revoked(claims)
    }
}

/// The tokens that a connection has brought, each verified once. What comes again is found by its text, and counts as long
/// as the policy that it was judged by is in force (this one, not another of the same generation, which an operator may
/// have put in its place) and it has not expired; under another policy its issuer is judged again.
#[derive(Debug, Default)]
pub struct Tokens {
    accepted: Vec<Accepted>,
    /// Which one the next token replaces, once there are [`TOKENS_KEPT_MAX`].
    oldest: usize,
}

#[derive(Debug)]
struct Accepted {
    text: Vec<u8>,
    policy: Arc<Policy>,
    claims: Claims,
}

impl Tokens {
    /// What a token says, if it is accepted; else 401. `text` is what [`super::Action::Put`],
    /// [`super::Action::Lease`] or [`super::Action::Delete`] carries.
    ///
    /// Under a policy that has expired no token counts: 503, for the token may be a good one.
    pub fn admit(&mut self, text: &[u8], rules: &Rules<'_>) -> Result<&Claims, Problem> {
        if rules.policy.has_expired(rules.now_s) {
            return Err(Problem::policy_expired());
        }
        let known = self.accepted.iter().position(|accepted| accepted.text == text);
        if let Some(known) = known {
            let Accepted { policy, claims, .. } = &mut self.accepted[known];
            // A token that has just ended is judged again: it may count for a moment more, or the answer says why not. Another
            // policy may think otherwise of the issuer, not of the signature.
            let is_current = Arc::ptr_eq(policy, rules.policy);
            if rules.now_s < claims.expires_s && (is_current || rules.take(claims)) {
                if !is_current {
                    *policy = Arc::clone(rules.policy);
                }
                return Ok(&self.accepted[known].claims);
            }
        }
        let claims = verify(text, rules)?;
        let accepted = Accepted { text: text.to_vec(), policy: Arc::clone(rules.policy), claims };
        let at = match known {
            Some(known) => known,
            None if self.accepted.len() < TOKENS_KEPT_MAX => self.accepted.len(),
            None => {
                self.oldest = (self.oldest + 1) % TOKENS_KEPT_MAX;
                self.oldest
            }
        };
        if at == self.accepted.len() {
            self.accepted.push(accepted);
        } else {
            self.accepted[at] = accepted;
        }
        Ok(&self.accepted[at].claims)
    }
}

/// Verifies a token, signature included: 401 says why it is not accepted.
fn verify(text: &[u8], rules: &Rules<'_>) -> Result<Claims, Problem> {
    let claims = token::from_text(text)
        .and_then(|bytes| token::verify(&bytes, rules.now_s, rules.node, |claims| rules.trust(claims)))
        .map_err(|error| Problem::invalid_token(format!("{error}.")))?;
    if let Err(refusal) = rules.policy.uids.admit(claims.issuer.as_bytes()) {
        return Err(Problem::uid_refused(refusal));
    }
    if rules.have_revoked(&claims) {
        return Err(Problem::invalid_token("The token has been revoked; ask its issuer for a new one."));
    }
    Ok(claims)
}

/// Checks that a token allows `action` on the content with this BLAKE3 address and length in bytes: else 403.
/// `list_names(list)` asks whether a list that the node holds names the address.
pub fn permit(
    claims: &Claims,
    action: Action,
    hash: &[u8; 32],
    len: u64,
    list_names: impl FnOnce(&[u8; 32]) -> bool,
) -> Result<(), Problem> {
    claims
        .permits_listed(action, hash, len, list_names)
        .map_err(|denied| Problem::forbidden(format!("{denied}.")))
}

/// The token's text in `Bearer <token>` (RFC 6750 section 2.1; the scheme's name is case-insensitive).
pub(super) fn bearer(field: Option<&[u8]>) -> Result<&[u8], Problem> {
    const SCHEME: &[u8] = b"Bearer";
    let field = field.ok_or_else(Problem::token_required)?;
    let token = match field.split_at_checked(SCHEME.len()) {
        Some((scheme, [b' ', token @ ..])) if scheme.eq_ignore_ascii_case(SCHEME) => token,
        _ => return Err(Problem::token_required()),
    };
    // RFC 9110 section 11.4 lets more than one space stand there.
    let start = token.iter().position(|byte| *byte != b' ').unwrap_or(token.len());
    let token = &token[start..];
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if token.is_empty() || token.len() > token::TOKEN_TEXT_LEN_MAX || !token.iter().all(is_token_byte) {
        let most = token::TOKEN_TEXT_LEN_MAX;
        return Err(Problem::invalid_token(format!(
            "A token's text is 1 to {most} characters of base64url without padding."
        )));
    }
    Ok(token)
}
