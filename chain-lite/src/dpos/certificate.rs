//! Finality certificates: signatures of two thirds of the arbitrators under one block, beside the header and not in
//! it. Chains without them work as well; with one, a block is final at once.

use alloy_primitives::{Address, B256, keccak256};
use thiserror::Error;

use crate::dpos::header::SEAL_LEN;
use crate::dpos::signed::recover;

/// What is hashed before anything else, so that no other signature can pass for one under a certificate.
pub const CERTIFICATE_DOMAIN: &[u8; 32] = b"ioex finality certificate v1\0\0\0\0";

/// The first byte of an encoded certificate.
pub const CERTIFICATE_VERSION: u8 = 1;

/// How many signers a certificate may speak of.
pub const CERTIFICATE_SIGNERS_MAX: usize = 1_024;

const HEAD_LEN: usize = 1 + 8 + 32 + 2;

/// How many signatures make a block final: more than two thirds, 35 of 51.
pub const fn threshold(signers: usize) -> usize {
    signers * 2 / 3 + 1
}

/// What each signer of a certificate signs.
pub fn certificate_digest(chain_id: u64, number: u64, hash: &B256) -> B256 {
    let parts = [&CERTIFICATE_DOMAIN[..], &chain_id.to_be_bytes(), &number.to_be_bytes(), &hash[..]];
    keccak256(parts.concat())
}

/// Signatures under one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The block's height.
    pub number: u64,
    /// The block's hash.
    pub hash: B256,
    /// How many could sign it: bits beyond are refused.
    pub signers: usize,
    /// Place among the block's signers, ascending, and the signature: r, s, recovery id.
    pub signatures: Vec<(u16, [u8; SEAL_LEN])>,
}

impl Certificate {
    /// Reads a certificate that fills `bytes`. What is allocated is at most as long as they are.
    pub fn decode(bytes: &[u8]) -> Result<Certificate, CertificateError> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() else {
            return Err(CertificateError::Length { len: bytes.len(), expected: HEAD_LEN });
        };
        let [version, head @ ..] = head;
        if *version != CERTIFICATE_VERSION {
            return Err(CertificateError::Version { found: *version });
        }
        let (number, head) = head.split_first_chunk().expect("the head is long enough");
        let (hash, signers) = head.split_first_chunk().expect("the head is long enough");
        let signers = usize::from(u16::from_be_bytes(signers.try_into().expect("two bytes are left")));
        if signers == 0 || signers > CERTIFICATE_SIGNERS_MAX {
            return Err(CertificateError::Signers { found: signers });
        }
        let Some((bitmap, seals)) = rest.split_at_checked(signers.div_ceil(8)) else {
            let expected = HEAD_LEN + signers.div_ceil(8);
            return Err(CertificateError::Length { len: bytes.len(), expected });
        };
        let set = |place: usize| bitmap[place / 8] & 1 << (place % 8) != 0;
        if let Some(place) = (signers..bitmap.len() * 8).find(|&place| set(place)) {
            return Err(CertificateError::Place { place, signers });
        }
        let places: Vec<u16> = (0..signers).filter(|&place| set(place)).map(|place| place as u16).collect();
        let (seals, odd) = seals.as_chunks::<SEAL_LEN>();
        if !odd.is_empty() || seals.len() != places.len() {
            let expected = HEAD_LEN + bitmap.len() + places.len() * SEAL_LEN;
            return Err(CertificateError::Length { len: bytes.len(), expected });
        }
        let signatures = places.into_iter().zip(seals.iter().copied()).collect();
        Ok(Certificate { number: u64::from_be_bytes(*number), hash: B256::new(*hash), signers, signatures })
    }

    /// The certificate as it is sent. Fails where [`Self::decode`] would.
    pub fn encode(&self) -> Result<Vec<u8>, CertificateError> {
        if self.signers == 0 || self.signers > CERTIFICATE_SIGNERS_MAX {
            return Err(CertificateError::Signers { found: self.signers });
        }
        self.check_places()?;
        let mut out = vec![CERTIFICATE_VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.hash[..]);
        out.extend_from_slice(&(self.signers as u16).to_be_bytes());
        let bitmap = out.len();
        out.resize(bitmap + self.signers.div_ceil(8), 0);
        for &(place, _) in &self.signatures {
            out[bitmap + usize::from(place) / 8] |= 1 << (place % 8);
        }
        self.signatures.iter().for_each(|(_, seal)| out.extend_from_slice(seal));
        Ok(out)
    }

    /// Whether enough of `signers`, who could sign the block, did. Costs a recovery a signature, about 2 ms for 35.
    pub fn verify(&self, chain_id: u64, signers: &[Address]) -> Result<(), CertificateError> {
        if self.signers != signers.len() {
            return Err(CertificateError::OtherSigners { expected: signers.len(), found: self.signers });
        }
        self.check_places()?;
        let needed = threshold(signers.len());
        if self.signatures.len() < needed {
            return Err(CertificateError::TooFew { found: self.signatures.len(), needed });
        }
        let digest = certificate_digest(chain_id, self.number, &self.hash);
        for &(place, seal) in &self.signatures {
            let expected = signers[usize::from(place)];
            let found = recover(digest, &seal);
            if found != Some(expected) {
                return Err(CertificateError::Signature { place, expected, found });
            }
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), CertificateError> {
        let mut least = 0;
        for &(place, _) in &self.signatures {
            let place = usize::from(place);
            if place < least || place >= self.signers {
                return Err(CertificateError::Place { place, signers: self.signers });
            }
            least = place + 1;
        }
        Ok(())
    }
}

/// Why a certificate proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Its length is not what it must be by its own fields.
    #[error("the certificate has {len} bytes, it must have {expected}")]
    Length {
        /// Its length.
        len: usize,
        /// What it must be, or be at least.
        expected: usize,
    },
    /// Its format is not known.
    #[error("the certificate's version is {found}, only 1 is known")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It speaks of nobody or of too many.
    #[error("the certificate speaks of {found} signers, from 1 to 1024 may be")]
    Signers {
        /// Of how many.
        found: usize,
    },
    /// A place beyond the last signer, or not above the one before it.
    #[error("place {place} is beyond the {signers} signers or out of order")]
    Place {
        /// The place.
        place: usize,
        /// How many signers there are.
        signers: usize,
    },
    /// It is for another number of signers than the block has.
    #[error("the certificate speaks of {found} signers, the block has {expected}")]
    OtherSigners {
        /// The block's.
        expected: usize,
        /// The certificate's.
        found: usize,
    },
    /// Not enough have signed.
    #[error("{found} signatures, {needed} make a block final")]
    TooFew {
        /// How many have signed.
        found: usize,
        /// How many must.
        needed: usize,
    },
    /// A signature is not that of the signer in its place.
    #[error("the signature in place {place} is not {expected}'s")]
    Signature {
        /// The place.
        place: u16,
        /// Whose it must be.
        expected: Address,
        /// Whose it is, if anybody's: also what a signature under another block or chain looks like.
        found: Option<Address>,
    },
    /// The block is not in the tree. Ask for its header.
    #[error("the block of the certificate is not known")]
    UnknownBlock,
}
