//! The token that a request over TCP must show (RFC 6750): `DIR/api/token`, mode 0600.

use super::Problem;
use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use std::path::PathBuf;

/// Bytes of a new token, before it is written as hexadecimal digits.
const NEW_LEN: usize = 32;

/// The shortest token that is taken, bytes as written.
const LEN_MIN: usize = 32;

/// The hash of the token: two hashes are compared in constant time, and say nothing of what was hashed.
#[derive(Clone, Copy, Debug)]
pub struct Token(blake3::Hash);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    /// It can be guessed.
    #[error("the token in {path} has {len} bytes; at least {LEN_MIN}. Remove the file and start again, and it is made anew", path = .path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Its length, bytes.
        len: usize,
    },
    /// The kernel gives no random bytes.
    #[error("no random bytes for a token: {0}")]
    Random(getrandom::Error),
}

impl Token {
    /// The token of a data directory, which is made if there is none.
    ///
    /// # Errors
    /// [`TokenError`]
    pub fn load_or_create(directory: &DataDirectory) -> Result<Token, TokenError> {
        let path = directory.api_token();
        if let Some(text) = read_secret(&path)? {
            let text = text.trim();
            if text.len() < LEN_MIN {
                return Err(TokenError::Short { path, len: text.len() });
            }
            return Ok(Token(blake3::hash(text.as_bytes())));
        }
        let mut bytes = zeroize::Zeroizing::new([0; NEW_LEN]);
        getrandom::fill(&mut *bytes).map_err(TokenError::Random)?;
        let text = zeroize::Zeroizing::new(blake3::Hash::from_bytes(*bytes).to_string());
        write_whole(&path, format!("{}\n", *text).as_bytes(), 0o600)?;
        Ok(Token(blake3::hash(text.as_bytes())))
    }

    fn is_shown(self, headers: &HeaderMap) -> bool {
        let credentials = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = credentials.and_then(|text| text.split_once(' '));
        shown.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && blake3::hash(token.trim().as_bytes()) == self.0
        })
    }
}

/// Lets through who shows the token.
pub async fn with_token(State(token): State<Token>, request: Request, next: Next) -> Response {
    if token.is_shown(request.headers()) {
        return next.run(request).await;
    }
    let detail = "over TCP a request shows the token in api/token of the node's data directory: Authorization: Bearer TOKEN";
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"ioex\"")];
    (challenge, Problem::new(StatusCode::UNAUTHORIZED, detail)).into_response()
}
