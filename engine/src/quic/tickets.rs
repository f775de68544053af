//! Session tickets: what a client shows to resume (RFC 8446 section 4.6.1). The server keeps nothing; a ticket is sealed
//! under keys that all shards share and that outlive the process.

use super::endpoint::fill_random;
use boring::error::ErrorStack;
use boring::hash::MessageDigest;
use boring::hmac::HmacCtxRef;
use boring::ssl::{SslContextBuilder, TicketKeyCallbackResult};
use boring::symm::{Cipher, CipherCtxRef};

/// How long a session may be resumed, seconds: two days, BoringSSL's bound for sessions with a new key exchange. A secret must
/// be known for that long after the last ticket was sealed under it.
pub const TICKET_LIFETIME_S: u32 = 172_800;

/// Secrets of one node's tickets: new tickets are sealed under the newest, tickets of the older ones are still opened.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys {
    newest: [u8; 32],
    older: Vec<[u8; 32]>,
}

impl TicketKeys {
    /// The secret that is in use, and those that were before it.
    #[must_use]
    pub fn new(newest: [u8; 32], older: Vec<[u8; 32]>) -> TicketKeys {
        TicketKeys { newest, older }
    }

    /// The keys of one service, newest first. Whatever a session depends on belongs into `bound_to`: where it differs,
    /// tickets are not known, and clients shake hands anew.
    pub(crate) fn seals(&self, service: &str, bound_to: &[&[u8]]) -> Vec<Seal> {
        let secrets = std::iter::once(&self.newest).chain(&self.older);
        secrets.map(|secret| Seal::derive(secret, service, bound_to)).collect()
    }
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKeys").field("older", &self.older.len()).finish_non_exhaustive()
    }
}

/// What one secret comes to for one service.
pub(crate) struct Seal {
    /// Stands in the ticket in clear, so that the seal is found again.
    pub(crate) name: [u8; 16],
    pub(crate) cipher_key: [u8; 32],
    mac_key: [u8; 32],
}

impl Seal {
    fn derive(secret: &[u8; 32], service: &str, bound_to: &[&[u8]]) -> Seal {
        let mut hasher = blake3::Hasher::new_derive_key("ioex 2026 tls session ticket v2");
        hasher.update(secret);
        for part in std::iter::once(service.as_bytes()).chain(bound_to.iter().copied()) {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut seal = Seal { name: [0; 16], cipher_key: [0; 32], mac_key: [0; 32] };
        let mut out = hasher.finalize_xof();
        out.fill(&mut seal.name);
        out.fill(&mut seal.cipher_key);
        out.fill(&mut seal.mac_key);
        seal
    }
}

/// Has a BoringSSL context seal and open tickets with `seals`, newest first: AES-256-CBC and HMAC-SHA256, the construction
/// of RFC 5077 section 4. ([`quiche::Config::set_ticket_key`] takes a single key: at each change of it all sessions would
/// be lost.)
pub(super) fn install(context: &mut SslContextBuilder, seals: Vec<Seal>) {
    let callback = move |_: &_,
                         name: &mut [u8; 16],
                         iv: &mut [u8; 16],
                         cipher: &mut CipherCtxRef,
                         mac: &mut HmacCtxRef,
                         is_sealing: bool| {
        let result = if is_sealing {
            seal_ticket(&seals, name, iv, cipher, mac)
        } else {
            open_ticket(&seals, name, iv, cipher, mac)
        };
        result.unwrap_or(TicketKeyCallbackResult::Error)
    };
    // SAFETY: the callback must set name, IV, cipher and MAC when it seals, and the latter two when it opens and says
    // Success; `seal_ticket` and `open_ticket` do, or say Error or Noop.
    unsafe { context.set_ticket_key_callback(callback) };
}

fn seal_ticket(
    seals: &[Seal],
    name: &mut [u8; 16],
    iv: &mut [u8; 16],
    cipher: &mut CipherCtxRef,
    mac: &mut HmacCtxRef,
) -> Result<TicketKeyCallbackResult, ErrorStack> {
    let Some(seal) = seals.first() else { return Ok(TicketKeyCallbackResult::Noop) };
    *name = seal.name;
    fill_random(iv);
    cipher.init_encrypt(&Cipher::aes_256_cbc(), &seal.cipher_key, iv)?;
    mac.init(&seal.mac_key, &MessageDigest::sha256())?;
    Ok(TicketKeyCallbackResult::Success)
}

fn open_ticket(
    seals: &[Seal],
    name: &[u8; 16],
    iv: &[u8; 16],
    cipher: &mut CipherCtxRef,
    mac: &mut HmacCtxRef,
) -> Result<TicketKeyCallbackResult, ErrorStack> {
    let Some(at) = seals.iter().position(|seal| seal.name == *name) else {
        return Ok(TicketKeyCallbackResult::Noop);
    };
    mac.init(&seals[at].mac_key, &MessageDigest::sha256())?;
    cipher.init_decrypt(&Cipher::aes_256_cbc(), &seals[at].cipher_key, iv)?;
    Ok(if at == 0 { TicketKeyCallbackResult::Success } else { TicketKeyCallbackResult::DecryptSuccessRenew })
}
