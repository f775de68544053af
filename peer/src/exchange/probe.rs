//! Asking a node how it is: the cheapest request there is, which needs no credential.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use relay::content::{HEALTH_PATH, LOAD_FIELD, VERSION_FIELD};
use tokio::time::Instant;

use super::ExchangeError;
use crate::node::Node;

/// Longest text that is taken for a version.
const VERSION_LEN_MAX: usize = 32;

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// From the request to its answer, on a connection that was open: a round trip, and what the node takes to answer.
    pub round_trip: Duration,
    /// Open connections in percent of those that it may have, 0 to 100, if it says so.
    pub load_percent: Option<u8>,
    /// The version of its program, if it says so.
    pub version: Option<String>,
}

impl Node {
    /// Asks the node how it is (`GET /healthz`), over the open connection or a new one.
    ///
    /// # Errors
    /// [`ExchangeError`]: no answer, or one that is not 200, as of a node that drains.
    pub async fn probe(&self) -> Result<Health, ExchangeError> {
        // The handshake is not part of what is measured.
        self.connection().await?;
        let asked = Instant::now();
        let path = std::str::from_utf8(HEALTH_PATH).unwrap_or("/healthz");
        let mut exchange = self.start_at(Method::GET, path, HeaderMap::new()).await?;
        exchange.finish().await?;
        let response = exchange.response().await?;
        let round_trip = asked.elapsed();
        if response.status() != StatusCode::OK {
            let problem = exchange.problem(response.status(), response.headers()).await;
            return Err(ExchangeError::Status { problem });
        }
        let field = |name: &str| response.headers().get(name)?.to_str().ok();
        let is_plain = |text: &&str| {
            text.len() <= VERSION_LEN_MAX
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+".contains(&b))
        };
        Ok(Health {
            round_trip,
            load_percent: field(LOAD_FIELD).and_then(|text| text.parse().ok()).map(|load: u8| load.min(100)),
            version: field(VERSION_FIELD).filter(is_plain).map(str::to_owned),
        })
    }
}
