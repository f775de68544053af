//! Session tickets of TLS over TCP, under the node's own keys, so that they too outlive the process.

use crate::quic::{Seal, TICKET_LIFETIME_S};
use boring::symm::{Cipher, decrypt_aead, encrypt_aead};
use rustls::server::ProducesTickets;

const NAME_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// Seals tickets with AES-256-GCM: name of the key, nonce, ciphertext, tag. The nonces are random; a key is replaced
/// long before 2^32 tickets, up to which that is safe (NIST SP 800-38D section 8.3).
pub(super) struct Tickets {
    /// Newest first.
    seals: Vec<Seal>,
}

impl Tickets {
    pub(super) fn new(seals: Vec<Seal>) -> Tickets {
        Tickets { seals }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.seals.is_empty()
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let seal = self.seals.first()?;
        let (mut nonce, mut tag) = ([0; NONCE_LEN], [0; TAG_LEN]);
        getrandom::fill(&mut nonce).ok()?;
        let cipher = Cipher::aes_256_gcm();
        let sealed =
            encrypt_aead(cipher, &seal.cipher_key, Some(&nonce), &seal.name, plain, &mut tag).ok()?;
        Some([&seal.name[..], &nonce, &sealed, &tag].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN)?;
        let (sealed, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_LEN)?)?;
        let seal = self.seals.iter().find(|seal| seal.name == name)?;
        decrypt_aead(Cipher::aes_256_gcm(), &seal.cipher_key, Some(nonce), name, sealed, tag).ok()
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("seals", &self.seals.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::TicketKeys;

    #[test]
    fn tickets_of_older_keys_are_opened_and_damaged_ones_are_not() {
        let before = Tickets::new(TicketKeys::new([1; 32], vec![]).seals("tcp", &[]));
        let after = Tickets::new(TicketKeys::new([2; 32], vec![[1; 32]]).seals("tcp", &[]));
        let later = Tickets::new(TicketKeys::new([3; 32], vec![[2; 32]]).seals("tcp", &[]));
        let ticket = before.encrypt(b"a session").unwrap();
        assert_eq!(after.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(later.decrypt(&ticket), None);
        assert_ne!(
            after.encrypt(b"a session").unwrap()[..NAME_LEN],
            ticket[..NAME_LEN],
            "the newest key seals"
        );
        for at in 0..ticket.len() {
            let mut damaged = ticket.clone();
            damaged[at] ^= 1;
            assert_eq!(before.decrypt(&damaged), None, "byte {at}");
            assert_eq!(before.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        let elsewhere =
            Tickets::new(TicketKeys::new([1; 32], vec![]).seals("tcp", &[b"another certificate"]));
        assert_eq!(elsewhere.decrypt(&ticket), None);
    }
}
