//! A chain that is followed for long: what is settled, what is kept, and how it goes on after a restart.

use alloy_primitives::{Address, B256};
use chain_lite::dpos::{Accepted, HeaderChain, Network, Rule, Settled, SignedHeader, StateError, TWINS_MAX};

use crate::dpos::signing::{
    Arbitrator, Draft, NETWORK, NOW_S, addresses, arbitrators, begin, begin_with, in_turn,
};

const WINDOW: u64 = 16;

fn follow(chain: &mut HeaderChain, headers: &[Vec<u8>]) -> Vec<Settled> {
    let mut settled = vec![];
    for header in headers {
        let header = SignedHeader::read(chain.network(), header).expect("it holds by itself");
        assert_eq!(chain.accept(header, NOW_S, &mut settled), Ok(Accepted::Extended));
    }
    settled
}

/// A network with short epochs, its arbitrators, and a chain of some blocks with what was settled.
fn followed(blocks: usize) -> (Network, Vec<Arbitrator>, HeaderChain, Vec<Settled>) {
    let network = Network { epoch_blocks: 50, ..NETWORK };
    let arbitrators = arbitrators(51);
    let genesis = Draft::genesis(&network, &addresses(&arbitrators));
    let mut chain = begin_with(network, &genesis, WINDOW);
    let headers = in_turn(&network, &arbitrators, chain.tip(), blocks);
    let settled = follow(&mut chain, &headers);
    (network, arbitrators, chain, settled)
}

#[test]
fn what_outgrows_the_window_is_settled_once_and_in_order() {
    let (.., chain, settled) = followed(200);
    assert_eq!(chain.len() as u64, WINDOW + 1);
    assert_eq!(chain.settled().number, 200 - WINDOW);
    let numbers: Vec<_> = settled.iter().map(|settled| settled.header.number).collect();
    assert_eq!(numbers, (1..=200 - WINDOW).collect::<Vec<_>>());
    assert!(settled.iter().all(|settled| settled.in_turn == settled.header.signer));
    assert!(settled.windows(2).all(|two| two[1].header.parent_hash == two[0].header.hash));
}

#[test]
fn nothing_branches_off_below_what_is_settled() {
    let (network, arbitrators, mut chain, settled) = followed(40);
    let below = &settled[settled.len() - 3].header;
    let late = Draft::on(&network, below, 1).sign(&arbitrators[(below.number as usize + 30) % 51]);
    let header = SignedHeader::read(&network, &late).expect("it holds by itself");
    let error = chain.accept(header, NOW_S, &mut vec![]).expect_err("it is too late");
    assert_eq!(error.rule, Rule::Settled { settled: chain.settled().number });
}

#[test]
fn side_branches_go_when_their_root_is_settled() {
    let (network, arbitrators, mut chain, _) = followed(40);
    let fork = chain.at_number(30).expect("within the window").clone();
    let mut side = Draft::on(&network, &fork, 1);
    side.header.state_root = B256::ZERO;
    let side = SignedHeader::read(&network, &side.sign(&arbitrators[50])).expect("it holds");
    let hash = side.hash;
    assert_eq!(chain.accept(side, NOW_S, &mut vec![]), Ok(Accepted::Aside));
    let headers = in_turn(&network, &arbitrators, chain.tip(), 6);
    follow(&mut chain, &headers);
    assert!(chain.get(&hash).is_some(), "its root is just at the edge");
    let headers = in_turn(&network, &arbitrators, chain.tip(), 1);
    follow(&mut chain, &headers);
    assert_eq!(chain.settled().number, 31);
    assert!(chain.get(&hash).is_none());
    assert_eq!(chain.len() as u64, WINDOW + 1);
}

#[test]
fn one_signer_cannot_fill_the_tree() {
    let (network, arbitrators, mut chain, _) = followed(40);
    let liar = &arbitrators[(40 + 1 + 20) % 51];
    let before = chain.len();
    let mut last = B256::ZERO;
    for salt in 0..50 {
        // In a place where the liar's blocks have lost already.
        let parent = chain.at_number(38).expect("within the window").clone();
        let mut draft = Draft::on(&network, &parent, 1);
        draft.header.state_root = B256::with_last_byte(salt);
        let header = SignedHeader::read(&network, &draft.sign(liar)).expect("it holds by itself");
        last = header.hash;
        assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Aside));
    }
    assert_eq!(chain.len(), before + TWINS_MAX);
    assert!(chain.get(&last).is_some(), "the newest is kept");
}

#[test]
fn a_long_branch_of_little_difficulty_does_not_displace_a_short_one_of_more() {
    let arbitrators = arbitrators(51);
    let mut chain = begin(NETWORK, &addresses(&arbitrators));
    let genesis = chain.tip().clone();
    let short = in_turn(&NETWORK, &arbitrators, &genesis, 20);
    follow(&mut chain, &short);
    let tip = chain.tip().hash;
    // 40 blocks out of turn are as difficult as 20 in turn: the shorter stays, and 41 displace it.
    let mut parent = genesis;
    for number in 1..=41_usize {
        let draft = Draft::on(&NETWORK, &parent, 1);
        let header =
            SignedHeader::read(&NETWORK, &draft.sign(&arbitrators[(number + 25) % 51])).expect("it holds");
        parent = header.clone();
        let accepted = chain.accept(header, NOW_S, &mut vec![]).expect("it holds");
        match accepted {
            Accepted::Aside => assert!(number <= 40 && chain.tip().hash == tip),
            Accepted::Reorganised(change) => {
                assert_eq!((number, change.detached.len(), change.attached.len()), (41, 20, 41));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(chain.tip().hash, parent.hash);
}

#[test]
fn a_chain_goes_on_from_its_state_with_votes_and_recent_signers() {
    let (network, arbitrators, mut chain, _) = followed(50);
    // A vote that is open when the state is written.
    let mut draft = Draft::on(&network, chain.tip(), 2);
    draft.header.coinbase = Address::repeat_byte(9);
    draft.header.nonce = [0xff; 8];
    let mut headers = vec![draft.sign(&arbitrators[0])];
    let vote = SignedHeader::read(&network, &headers[0]).expect("it holds by itself");
    headers.extend(in_turn(&network, &arbitrators, &vote, 30));
    follow(&mut chain, &headers);

    let state = chain.state();
    let mut resumed = HeaderChain::resume(network, &state, WINDOW, 77).expect("its own state");
    assert_eq!(resumed.settled(), chain.settled());
    assert_eq!(resumed.snapshot(&resumed.tip().hash), chain.snapshot(&chain.settled().hash));
    assert_eq!(resumed.state(), state);
    let first = (resumed.tip().number - 50) as usize;
    follow(&mut resumed, &headers[first..]);
    assert_eq!(resumed.tip(), chain.tip());
    assert_eq!(resumed.snapshot(&resumed.tip().hash), chain.snapshot(&chain.tip().hash));

    for place in 0..state.len() {
        let mut damaged = state.clone();
        damaged[place] ^= 1;
        let error = HeaderChain::resume(network, &damaged, WINDOW, 0).expect_err("damage is found");
        assert_eq!(error, if place < 8 { StateError::NoState } else { StateError::Damaged });
        assert!(HeaderChain::resume(network, &state[..place], WINDOW, 0).is_err());
    }
    let other = Network { chain_id: 1, ..network };
    assert_eq!(
        HeaderChain::resume(other, &state, WINDOW, 0).map(|chain| chain.len()),
        Err(StateError::OtherChain { expected: 1, found: 1_224 })
    );
}

#[test]
fn who_missed_a_turn_is_said_of_what_is_settled() {
    let arbitrators = arbitrators(51);
    let genesis = Draft::genesis(&NETWORK, &addresses(&arbitrators));
    let mut chain = begin_with(NETWORK, &genesis, 1);
    let late = Draft::on(&NETWORK, chain.tip(), 1).sign(&arbitrators[30]);
    let mut settled = follow(&mut chain, &[late]);
    let next = in_turn(&NETWORK, &arbitrators, chain.tip(), 1);
    settled.extend(follow(&mut chain, &next));
    assert_eq!(settled[0].header.signer, arbitrators[30].address);
    assert_eq!(settled[0].in_turn, arbitrators[1].address);
}
