//! Headers that are read many at once.

use chain_lite::dpos::{DecodeError, Header, Network, ReadError, Rule, SignedHeader, signer};

use crate::dpos::real::{GOERLI, RINKEBY, headers};
use crate::dpos::signing::{NETWORK, addresses, arbitrators, begin, in_turn};

/// Blocks of 51 arbitrators, every fiftieth with all of them in its extra data.
fn blocks(count: usize) -> (Network, Vec<Vec<u8>>) {
    let network = Network { epoch_blocks: 50, ..NETWORK };
    let arbitrators = arbitrators(51);
    let chain = begin(network, &addresses(&arbitrators));
    (network, in_turn(&network, &arbitrators, chain.tip(), count))
}

#[test]
fn many_at_once_are_read_as_their_fields_encoded_again() {
    let (network, ours) = blocks(300);
    let real = |name| headers(name).into_iter().skip(1).map(|(bytes, _)| bytes).collect::<Vec<_>>();
    for (network, all) in [(network, ours), (GOERLI, real("goerli")), (RINKEBY, real("rinkeby"))] {
        let read = SignedHeader::read_all(&network, &all).expect("headers that hold");
        assert_eq!(read.len(), all.len());
        for (read, bytes) in read.iter().zip(&all) {
            let header = Header::decode(bytes).expect("a header");
            assert_eq!((read.hash, Some(read.signer)), (header.hash(), signer(&header)), "{}", read.number);
            assert_eq!(SignedHeader::read(&network, bytes).as_ref(), Ok(read));
        }
    }
    assert_eq!(SignedHeader::read_all::<Vec<u8>>(&network, &[]), Ok(vec![]));
}

#[test]
fn the_error_is_that_of_the_first_header_that_does_not_hold() {
    let (network, all) = blocks(150);
    let without_seal = |bytes: &[u8]| {
        let header = Header::decode(bytes).expect("a header");
        let mut out = vec![];
        Header { extra: &[0; 97], ..header }.encode(&mut out);
        out
    };
    for at in [0, 1, 63, 64, 148] {
        let mut unsigned_first = all.clone();
        unsigned_first[at] = without_seal(&all[at]);
        unsigned_first[at + 1].pop();
        let Err(ReadError::Header(error)) = SignedHeader::read_all(&network, &unsigned_first) else {
            panic!("header {at} is not signed")
        };
        assert_eq!((error.number, error.rule), (at as u64 + 1, Rule::Signature));

        let mut cut_first = all.clone();
        cut_first[at].pop();
        cut_first[at + 1] = without_seal(&all[at + 1]);
        let error = SignedHeader::read_all(&network, &cut_first);
        assert!(matches!(error, Err(ReadError::Decode(DecodeError::Truncated { .. }))), "{at}: {error:?}");
    }
}
