//! The Authorization field of a PUT, and what its token allows.

use identity::Uid;
use identity::token::{self, Action, Claims};

use super::Problem;

/// Verifies the token of a PUT and that it allows this body: 401 for a token that is not accepted, 403 for one that does
/// not allow this content.
///
/// `token_text` is what [`super::Action::Put`] carries; `now_s` is in seconds since 1970-01-01 UTC; `node` is the node's own
/// UID; `is_publisher` asks the policy; `list_names(list, hash)` asks whether a list that the node holds names the hash.
pub fn authorize(
    token_text: &[u8],
    hash: &[u8; 32],
    len: u64,
    now_s: u64,
    node: &Uid,
    is_publisher: impl Fn(&Uid) -> bool,
    list_names: impl FnOnce(&[u8; 32], &[u8; 32]) -> bool,
) -> Result<Claims, Problem> {
    let claims = token::from_text(token_text)
        .and_then(|bytes| token::verify(&bytes, now_s, node, is_publisher))
        .map_err(|error| Problem::invalid_token(format!("{error}.")))?;
    claims
        .permits_listed(Action::Put, hash, len, |list| list_names(list, hash))
        .map_err(|denied| Problem::forbidden(format!("{denied}.")))?;
    Ok(claims)
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
