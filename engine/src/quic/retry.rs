//! Address validation by Retry (RFC 9000 section 8.1.2): a token that only this server can make, and that holds for
//! one address, one attempt and a short time.
//!
//! ```text
//! byte   0        1 .. 8             9          10 .. 10+n      the last 32
//!      +---------+------------------+----------+---------------+----------------------------------------+
//!      | version | issued, u64 LE s | n <= 20  | original dcid | BLAKE3 keyed hash                      |
//!      +---------+------------------+----------+---------------+----------------------------------------+
//! ```
//! The hash is over everything before it, the id that the Retry packet gave the client, and the client's address and port.

use std::net::{IpAddr, SocketAddr};

/// How long a token holds, seconds. A client answers a Retry at once; this leaves room for its losses.
const LIFETIME_S: u64 = 15;
const VERSION: u8 = 1;
const ID_LEN_MAX: usize = 20;
const MAC_LEN: usize = 32;
const HEAD_LEN: usize = 10;

/// Longest token, bytes.
pub const TOKEN_LEN_MAX: usize = HEAD_LEN + ID_LEN_MAX + MAC_LEN;

/// Makes and checks Retry tokens under one key, shared by the shards.
#[derive(Clone)]
pub struct RetryTokens {
    key: [u8; 32],
}

impl RetryTokens {
    /// Derives the key from the secret that connection ids are derived from too.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: blake3::derive_key("ioex 2026 quic retry token v1", secret) }
    }

    /// A token for a client at `from` whose first packet went to `original_id` (at most 20 bytes) and which is told to
    /// go on with `retry_id`. `now_s` is Unix time.
    pub fn issue(&self, from: SocketAddr, original_id: &[u8], retry_id: &[u8], now_s: u64) -> Vec<u8> {
        let mut token = Vec::with_capacity(TOKEN_LEN_MAX);
        token.push(VERSION);
        token.extend_from_slice(&now_s.to_le_bytes());
        token.push(u8::try_from(original_id.len()).expect("a connection id has at most 20 bytes"));
        token.extend_from_slice(original_id);
        let mac = self.mac(&token, from, retry_id);
        token.extend_from_slice(mac.as_bytes());
        token
    }

    /// The original destination id, if `token` was issued to `from` with `retry_id` within the last 15 seconds.
    pub fn verify<'a>(
        &self,
        token: &'a [u8],
        from: SocketAddr,
        retry_id: &[u8],
        now_s: u64,
    ) -> Option<&'a [u8]> {
        let (head, mac) = token.split_at_checked(token.len().checked_sub(MAC_LEN)?)?;
        let mac: [u8; MAC_LEN] = mac.try_into().ok()?;
        // `blake3::Hash` compares in constant time.
        if self.mac(head, from, retry_id) != blake3::Hash::from_bytes(mac) {
            return None;
        }
        let (fixed, original_id) = head.split_at_checked(HEAD_LEN)?;
        let issued_s = u64::from_le_bytes(fixed[1..9].try_into().ok()?);
        let fresh = issued_s <= now_s.saturating_add(1) && now_s <= issued_s.saturating_add(LIFETIME_S);
        (fixed[0] == VERSION && usize::from(fixed[9]) == original_id.len() && fresh).then_some(original_id)
    }

    fn mac(&self, head: &[u8], from: SocketAddr, retry_id: &[u8]) -> blake3::Hash {
        let ip = match from.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(head);
        hasher.update(&[u8::try_from(retry_id.len()).unwrap_or(u8::MAX)]);
        hasher.update(retry_id);
        hasher.update(&ip.octets());
        hasher.update(&from.port().to_le_bytes());
        hasher.finalize()
    }
}

impl std::fmt::Debug for RetryTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryTokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_for_its_client_only_and_not_for_long() {
        let tokens = RetryTokens::new(&[1; 32]);
        let from: SocketAddr = "192.0.2.7:4000".parse().unwrap();
        let token = tokens.issue(from, b"original", b"retry id", 1_000);
        assert!(token.len() <= TOKEN_LEN_MAX);
        assert_eq!(tokens.verify(&token, from, b"retry id", 1_000), Some(&b"original"[..]));
        assert_eq!(tokens.verify(&token, from, b"retry id", 1_015), Some(&b"original"[..]));
        // The same host over a dual-stack socket.
        assert!(
            tokens.verify(&token, "[::ffff:192.0.2.7]:4000".parse().unwrap(), b"retry id", 1_000).is_some()
        );

        assert_eq!(tokens.verify(&token, from, b"retry id", 1_016), None, "expired");
        assert_eq!(tokens.verify(&token, from, b"retry id", 900), None, "from the future");
        assert_eq!(tokens.verify(&token, from, b"retry iD", 1_000), None, "another attempt");
        assert_eq!(
            tokens.verify(&token, "192.0.2.7:4001".parse().unwrap(), b"retry id", 1_000),
            None,
            "another port"
        );
        assert_eq!(RetryTokens::new(&[2; 32]).verify(&token, from, b"retry id", 1_000), None, "another key");
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 1;
            assert_eq!(tokens.verify(&changed, from, b"retry id", 1_000), None, "byte {at}");
            assert_eq!(tokens.verify(&token[..at], from, b"retry id", 1_000), None, "cut at {at}");
        }
    }
}
