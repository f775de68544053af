//! The nonce that proves itself: no table, no state for a client that has not authenticated yet.
//!
//! ```text
//! 36 characters:  "obMatJos2"   security features   base64url of 17 bytes, 23 characters
//!                 9             4                   issued_s (4, big endian) | MAC (13)
//! ```
//!
//! The MAC is HMAC-SHA256 over the features, the time and the client's address and port, cut to 104 bits. Its key is derived
//! from the servers' common key for each hour, so that all shards agree without talking and no key signs for longer. The
//! address is in it so that a request seen on the way is of no use from elsewhere, and because RFC 8489 section 9.2.4 asks
//! for it: "The server MUST NOT choose the same NONCE for two requests unless they have the same source IP address and
//! port." A client whose address changes is told 438 and the new nonce.
//!
//! 36 characters are what leaves a 401 with a realm of 12 bytes at 96 bytes: 3.5 times the 28 bytes of the shortest
//! Allocate are 98.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::ZeroizeOnDrop;

/// Bytes of a nonce, all of them ASCII.
pub const NONCE_LEN: usize = 36;

/// RFC 8489 section 9.2: what tells that the next four characters are security features.
const COOKIE: &[u8; 9] = b"obMatJos2";

/// Bit 0 of the security features: PASSWORD-ALGORITHMS was sent with the nonce. Bits are counted from the rightmost. The
/// text of RFC 8489 section 18.1 counts from the leftmost, but its own vector (appendix B.1, whose "AAAC" announces
/// USERHASH), the erratum and the clients in use (libjuice) count this way; whoever counts the other way sees bits
/// without a meaning.
const PASSWORD_ALGORITHMS: u32 = 1 << 0;

/// Bit 1: USERHASH may be sent in USERNAME's place.
const USERNAME_ANONYMITY: u32 = 1 << 1;

/// A key of the MAC serves nonces of one hour.
const EPOCH_S: u64 = 3600;

/// How far a nonce may come from the future: the clock of the machine may be set back a little.
const AHEAD_S_MAX: i32 = 60;

/// Bytes behind the features: the time and the MAC.
const PROOF_LEN: usize = 4 + 13;

/// What the server offers beside RFC 5389, told in the nonce, where nobody on the way can take it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Features {
    /// PASSWORD-ALGORITHMS comes with the nonce.
    pub(super) password_algorithms: bool,
    /// USERHASH is understood.
    pub(super) userhash: bool,
}

/// Makes and checks nonces.
#[derive(ZeroizeOnDrop)]
pub struct Nonces {
    key: [u8; 32],
    /// The key of the epoch that was used last; most nonces are of this hour.
    epoch_key: [u8; 32],
    epoch: u64,
    /// How old a nonce may grow.
    #[zeroize(skip)]
    pub(super) lifetime_s: u64,
}

impl Nonces {
    /// `key` is the secret that all shards of the node share; a nonce is good for `lifetime_s` seconds: an hour at most, as
    /// RFC 8656 section 5 has it.
    pub fn new(key: [u8; 32], lifetime_s: u64) -> Self {
        let epoch_key = epoch_key(&key, 0);
        Self { key, epoch_key, epoch: 0, lifetime_s }
    }

    /// A nonce for the client at `client`, made at `now_s`, in seconds since 1970.
    pub(super) fn issue(&mut self, now_s: u64, client: SocketAddr, features: Features) -> [u8; NONCE_LEN] {
        // The field wraps in 2106; `is_valid` takes the difference, which bears that.
        let issued = (now_s as u32).to_be_bytes();
        let mut proof = [0; PROOF_LEN];
        proof[..4].copy_from_slice(&issued);
        if let Some(mac) = self.mac(now_s / EPOCH_S, issued, client, features) {
            proof[4..].copy_from_slice(&mac.finalize().into_bytes()[..PROOF_LEN - 4]);
        }
        let mut nonce = [0; NONCE_LEN];
        nonce[..9].copy_from_slice(COOKIE);
        nonce[9..13].copy_from_slice(&features.encode());
        let written = URL_SAFE_NO_PAD.encode_slice(proof, &mut nonce[13..]);
        debug_assert_eq!(written, Ok(NONCE_LEN - 13), "17 bytes are 23 characters");
        nonce
    }

    /// Whether this server made the nonce for this client and these features, and not too long ago.
    pub(super) fn is_valid(
        &mut self,
        nonce: &[u8],
        now_s: u64,
        client: SocketAddr,
        features: Features,
    ) -> bool {
        let Some(rest) = nonce.strip_prefix(COOKIE) else { return false };
        let Some(rest) = rest.strip_prefix(&features.encode()) else { return false };
        let mut proof = [0; PROOF_LEN];
        if URL_SAFE_NO_PAD.decode_slice(rest, &mut proof) != Ok(PROOF_LEN) {
            return false;
        }
        let [i0, i1, i2, i3, stated @ ..] = proof;
        let issued = [i0, i1, i2, i3];
        let age_s = (now_s as u32).wrapping_sub(u32::from_be_bytes(issued)).cast_signed();
        let issued_s = now_s.saturating_add_signed(-i64::from(age_s));
        if age_s < -AHEAD_S_MAX || issued_s.saturating_add(self.lifetime_s) <= now_s {
            return false;
        }
        self.mac(issued_s / EPOCH_S, issued, client, features)
            .is_some_and(|mac| mac.verify_truncated_left(&stated).is_ok())
    }

    fn mac(
        &mut self,
        epoch: u64,
        issued: [u8; 4],
        client: SocketAddr,
        features: Features,
    ) -> Option<Hmac<Sha256>> {
        if self.epoch != epoch {
            self.epoch_key = epoch_key(&self.key, epoch);
            self.epoch = epoch;
        }
        let ip = match client.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.epoch_key).ok()?;
        Some(
            mac.chain_update(features.encode())
                .chain_update(issued)
                .chain_update(ip.octets())
                .chain_update(client.port().to_be_bytes()),
        )
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonces").field("lifetime_s", &self.lifetime_s).finish_non_exhaustive()
    }
}

impl Features {
    /// What a nonce says that the server which made it offers: nothing, if the cookie is missing.
    pub(super) fn of(nonce: &[u8]) -> Self {
        let mut bits = [0; 3];
        let encoded = nonce.strip_prefix(COOKIE).and_then(|rest| rest.get(..4)).unwrap_or_default();
        match STANDARD.decode_slice(encoded, &mut bits) {
            Ok(3) => {
                let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
                Self {
                    password_algorithms: bits & PASSWORD_ALGORITHMS != 0,
                    userhash: bits & USERNAME_ANONYMITY != 0,
                }
            }
            _ => Self::default(),
        }
    }

    /// Three bytes of bits in base64: four characters.
    fn encode(self) -> [u8; 4] {
        let mut bits = 0;
        if self.password_algorithms {
            bits |= PASSWORD_ALGORITHMS;
        }
        if self.userhash {
            bits |= USERNAME_ANONYMITY;
        }
        let [_, b0, b1, b2] = bits.to_be_bytes();
        let mut encoded = [0; 4];
        let written = STANDARD.encode_slice([b0, b1, b2], &mut encoded);
        debug_assert_eq!(written, Ok(4), "three bytes are four characters");
        encoded
    }
}

/// The key of one hour.
fn epoch_key(key: &[u8; 32], epoch: u64) -> [u8; 32] {
    // HMAC takes keys of every length: the other arm is never taken.
    let Ok(mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else { return *key };
    mac.chain_update(b"ioex stun nonce").chain_update(epoch.to_be_bytes()).finalize().into_bytes().into()
}
