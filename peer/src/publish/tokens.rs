//! Capability tokens for the nodes that are published to: signed here, one a node, renewed before they run
//! out.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid};

use super::error::PublishError;

/// How long a token lives: long enough for the retries of one segment, short enough to be worthless soon.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Made out this much earlier, for nodes whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// The current token for one node.
pub(crate) struct NodeToken {
    audience: Uid,
    text: Arc<str>,
    renew_at_s: u64,
    /// When leases end that it gives; `None`: as the node does it.
    lease_expires_s: Option<u64>,
}

impl NodeToken {
    pub(crate) fn new(
        key: &SecretKey,
        audience: Uid,
        lease_expires_s: Option<u64>,
    ) -> Result<NodeToken, PublishError> {
        let mut token = NodeToken { audience, text: "".into(), renew_at_s: 0, lease_expires_s };
        token.current(key)?;
        Ok(token)
    }

    /// The token's text, renewed when half of its life is over.
    pub(crate) fn current(&mut self, key: &SecretKey) -> Result<Arc<str>, PublishError> {
        let now_s = now_s();
        if now_s >= self.renew_at_s {
            let mut token_id = [0; 16];
            getrandom::fill(&mut token_id).map_err(|e| PublishError::Random(e.to_string()))?;
            let claims = Claims {
                issuer: key.uid(),
                subject: key.uid(),
                audience: self.audience,
                not_before_s: now_s.saturating_sub(BACKDATED.as_secs()),
                expires_s: now_s + LIFETIME.as_secs(),
                token_id,
                action: Action::Put,
                scope: Scope::Any,
                bytes_max: Some(u64::from(store::SEGMENT_LEN_MAX)),
                lease_expires_s: self.lease_expires_s,
            };
            self.text = token::to_text(&claims.sign(key)).into();
            self.renew_at_s = now_s + LIFETIME.as_secs() / 2;
        }
        Ok(self.text.clone())
    }
}

fn now_s() -> u64 {
    // Before 1970 no token can be right; the node's answer says so.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
