//! Finality certificates: read, written, verified, and what they do to a chain.

use alloy_primitives::B256;
use chain_lite::dpos::{
    Accepted, Certificate, CertificateError, HeaderChain, SEAL_LEN, SignedHeader, certificate_digest,
    threshold,
};

use crate::dpos::signing::{Arbitrator, Draft, NETWORK, NOW_S, addresses, arbitrators, begin, in_turn};

fn certificate(arbitrators: &[Arbitrator], signing: usize, number: u64, hash: B256) -> Certificate {
    let digest = certificate_digest(NETWORK.chain_id, number, &hash);
    let signatures =
        (0..).zip(arbitrators).take(signing).map(|(place, one)| (place, one.sign(digest))).collect();
    Certificate { number, hash, signers: arbitrators.len(), signatures }
}

#[test]
fn thirty_five_of_51_are_needed() {
    assert_eq!(threshold(51), 35);
    let arbitrators = arbitrators(51);
    let signers = addresses(&arbitrators);
    let hash = B256::repeat_byte(4);
    let enough = certificate(&arbitrators, 35, 7, hash);
    assert_eq!(enough.verify(NETWORK.chain_id, &signers), Ok(()));
    let few = certificate(&arbitrators, 34, 7, hash);
    assert_eq!(
        few.verify(NETWORK.chain_id, &signers),
        Err(CertificateError::TooFew { found: 34, needed: 35 })
    );
    assert_eq!(
        enough.verify(NETWORK.chain_id, &signers[..50]),
        Err(CertificateError::OtherSigners { expected: 50, found: 51 })
    );
    // Nor does it hold on another chain, at another height, or for another block.
    let forged = [
        (NETWORK.chain_id + 1, enough.clone()),
        (NETWORK.chain_id, Certificate { number: 8, ..enough.clone() }),
        (NETWORK.chain_id, Certificate { hash: B256::ZERO, ..enough }),
    ];
    for (chain_id, forged) in forged {
        let error = forged.verify(chain_id, &signers);
        assert!(matches!(error, Err(CertificateError::Signature { place: 0, .. })), "{error:?}");
    }
}

#[test]
fn one_signature_does_not_count_twice() {
    let arbitrators = arbitrators(51);
    let mut twice = certificate(&arbitrators, 35, 7, B256::ZERO);
    twice.signatures[1] = twice.signatures[0];
    let signers = addresses(&arbitrators);
    let expected = Err(CertificateError::Place { place: 0, signers: 51 });
    assert_eq!(twice.verify(NETWORK.chain_id, &signers), expected);
    twice.signatures[1].0 = 1;
    let error = twice.verify(NETWORK.chain_id, &signers);
    assert!(matches!(error, Err(CertificateError::Signature { place: 1, .. })), "{error:?}");
}

#[test]
fn what_is_written_is_read_and_every_flipped_bit_is_found() {
    let arbitrators = arbitrators(51);
    let signers = addresses(&arbitrators);
    let right = certificate(&arbitrators, 35, 7, B256::repeat_byte(4));
    let bytes = right.encode().expect("it is within its bounds");
    assert_eq!(bytes.len(), 43 + 7 + 35 * SEAL_LEN);
    assert_eq!(Certificate::decode(&bytes).as_ref(), Ok(&right));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let verdict = Certificate::decode(&flipped).and_then(|read| read.verify(NETWORK.chain_id, &signers));
        let fits = match bit / 8 {
            0 => matches!(verdict, Err(CertificateError::Version { .. })),
            1..41 => matches!(verdict, Err(CertificateError::Signature { .. })),
            41..43 => matches!(
                verdict,
                Err(CertificateError::Signers { .. }
                    | CertificateError::OtherSigners { .. }
                    | CertificateError::Length { .. }
                    | CertificateError::Place { .. })
            ),
            43..50 => {
                matches!(verdict, Err(CertificateError::Length { .. } | CertificateError::Place { .. }))
            }
            _ => matches!(verdict, Err(CertificateError::Signature { .. })),
        };
        assert!(fits, "bit {bit}: {verdict:?}");
    }
    for len in 0..bytes.len() {
        assert!(matches!(Certificate::decode(&bytes[..len]), Err(CertificateError::Length { .. })));
    }
}

/// A chain of 10 blocks in turn, and a branch of one block on block 5 that is not on it.
fn forked(arbitrators: &[Arbitrator]) -> (HeaderChain, SignedHeader) {
    let mut chain = begin(NETWORK, &addresses(arbitrators));
    for header in in_turn(&NETWORK, arbitrators, chain.tip(), 10) {
        let header = SignedHeader::read(&NETWORK, &header).expect("it holds by itself");
        chain.accept(header, NOW_S, &mut vec![]).expect("it holds");
    }
    let parent = chain.at_number(5).expect("it is there").clone();
    let side = Draft::on(&NETWORK, &parent, 1).sign(&arbitrators[40]);
    let side = SignedHeader::read(&NETWORK, &side).expect("it holds by itself");
    assert_eq!(chain.accept(side.clone(), NOW_S, &mut vec![]), Ok(Accepted::Aside));
    (chain, side)
}

#[test]
fn a_certified_block_is_settled_at_once() {
    let arbitrators = arbitrators(51);
    let (mut chain, side) = forked(&arbitrators);
    let block = chain.at_number(8).expect("it is there").clone();
    let mut settled = vec![];
    let right = certificate(&arbitrators, 40, 8, block.hash);
    assert_eq!(chain.finalise(&right, &mut settled), Ok(Accepted::Known));
    assert_eq!((chain.settled().number, chain.tip().number, settled.len()), (8, 10, 8));
    assert!(chain.get(&side.hash).is_none());
    assert_eq!(chain.finalise(&right, &mut settled), Ok(Accepted::Known));
    let unknown = certificate(&arbitrators, 40, 6, side.hash);
    assert_eq!(chain.finalise(&unknown, &mut settled), Err(CertificateError::UnknownBlock));
}

#[test]
fn a_certificate_decides_against_difficulty() {
    let arbitrators = arbitrators(51);
    let (mut chain, side) = forked(&arbitrators);
    let mut settled = vec![];
    let few = certificate(&arbitrators, 30, 6, side.hash);
    assert!(matches!(chain.finalise(&few, &mut settled), Err(CertificateError::TooFew { .. })));
    assert_eq!(chain.tip().number, 10);
    let right = certificate(&arbitrators, 35, 6, side.hash);
    let Ok(Accepted::Reorganised(change)) = chain.finalise(&right, &mut settled) else {
        panic!("it decides")
    };
    assert_eq!((change.fork_number, change.detached.len(), change.attached), (5, 5, vec![side.hash]));
    assert_eq!((chain.tip().hash, chain.len()), (side.hash, 1));
    assert_eq!(settled.last().map(|settled| settled.header.hash), Some(side.hash));
}
