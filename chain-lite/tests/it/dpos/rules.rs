//! Each rule broken by itself, on a chain of 51 arbitrators.

use alloy_primitives::{Address, B256, U256};
use chain_lite::dpos::{
    Accepted, Checkpoint, CheckpointError, FIRST_BASE_FEE_WEI, Freshness, Header, HeaderChain, HeaderField,
    Network, ReadError, Rule, STALE_AFTER_S, SignedHeader, WINDOW_BLOCKS,
};

use crate::dpos::signing::{
    Arbitrator, Draft, GENESIS_TIME_S, NETWORK, NOW_S, addresses, arbitrators, begin, begin_with, in_turn,
};

/// What becomes of block 1 if `change` is made to it before it is signed.
fn broken(change: impl FnOnce(&mut Draft)) -> Rule {
    let arbitrators = arbitrators(51);
    let chain = begin(NETWORK, &addresses(&arbitrators));
    let mut draft = Draft::on(&NETWORK, chain.tip(), 2);
    change(&mut draft);
    rule(&NETWORK, &chain, &draft.sign(&arbitrators[1]))
}

fn rule(network: &Network, chain: &HeaderChain, bytes: &[u8]) -> Rule {
    let verdict = SignedHeader::read(network, bytes)
        .and_then(|header| Ok(chain.clone().accept(header, NOW_S, &mut vec![])?));
    match verdict {
        Err(ReadError::Header(error)) => error.rule,
        other => panic!("a rule was broken: {other:?}"),
    }
}

#[test]
fn a_header_shows_by_itself_that_it_breaks_a_rule() {
    assert_eq!(broken(|draft| draft.header.nonce = [1; 8]), Rule::Nonce { found: [1; 8] });
    assert_eq!(broken(|draft| draft.signers = vec![Address::ZERO]), Rule::ExtraSigners { len: 20 });
    assert_eq!(
        broken(|draft| draft.header.mix_hash = B256::repeat_byte(1)),
        Rule::Fixed { field: HeaderField::MixHash }
    );
    assert_eq!(
        broken(|draft| draft.header.uncles_hash = B256::ZERO),
        Rule::Fixed { field: HeaderField::UnclesHash }
    );
    assert_eq!(
        broken(|draft| draft.header.difficulty = U256::from(3)),
        Rule::Difficulty { found: U256::from(3) }
    );
    assert_eq!(
        broken(|draft| draft.header.gas_used = 8_000_001),
        Rule::GasUsed { used: 8_000_001, limit: 8_000_000 }
    );
    assert_eq!(broken(|draft| draft.header.base_fee_wei = None), Rule::BaseFeePresence { expected: true });
}

#[test]
fn an_extra_too_short_has_no_signature() {
    let draft = Draft::on(&NETWORK, begin(NETWORK, &addresses(&arbitrators(3))).tip(), 2);
    let mut bytes = vec![];
    Header { extra: &[0; 96], ..draft.header }.encode(&mut bytes);
    let Err(ReadError::Header(error)) = SignedHeader::read(&NETWORK, &bytes) else { panic!("too short") };
    assert_eq!(error.rule, Rule::ExtraShort { len: 96 });
}

#[test]
fn a_header_must_follow_its_parent() {
    let parent = B256::repeat_byte(3);
    assert_eq!(broken(|draft| draft.header.parent_hash = parent), Rule::UnknownParent { parent });
    assert_eq!(broken(|draft| draft.header.number = 2), Rule::Number { expected: 1 });
    let least_s = GENESIS_TIME_S + 30;
    assert_eq!(
        broken(|draft| draft.header.time_s = least_s - 1),
        Rule::TooSoon { least_s, found_s: least_s - 1 }
    );
    let limit_s = NOW_S + NETWORK.future_s_max;
    assert_eq!(
        broken(|draft| draft.header.time_s = limit_s + 1),
        Rule::InFuture { limit_s, found_s: limit_s + 1 }
    );
}

#[test]
fn gas_follows_from_the_parent() {
    let far = 8_000_000 + 8_000_000 / 1_024;
    assert_eq!(
        broken(|draft| draft.header.gas_limit = far),
        Rule::GasLimit { parent: 8_000_000, found: far }
    );
    assert_eq!(
        broken(|draft| draft.header.base_fee_wei = Some(FIRST_BASE_FEE_WEI)),
        Rule::BaseFee { expected: 875_000_000, found: FIRST_BASE_FEE_WEI }
    );
}

#[test]
fn the_base_fee_follows_the_gas_used() {
    // The vectors of EIP-1559 in geth's `CalcBaseFee` test: a limit of 20,000,000 and a fee of 1 gwei.
    for (used, fee_wei) in
        [(10_000_000, 1_000_000_000), (9_000_000, 987_500_000), (11_000_000, 1_012_500_000)]
    {
        let arbitrators = arbitrators(3);
        let mut genesis = Draft::genesis(&NETWORK, &addresses(&arbitrators));
        genesis.header.gas_limit = 20_000_000;
        genesis.header.gas_used = used;
        let mut chain = begin_with(NETWORK, &genesis, WINDOW_BLOCKS);
        let mut draft = Draft::on(&NETWORK, chain.tip(), 2);
        draft.header.base_fee_wei = Some(fee_wei);
        let header = SignedHeader::read(&NETWORK, &draft.sign(&arbitrators[1])).expect("it holds by itself");
        assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Extended), "{used} gas used");
    }
}

#[test]
fn a_chain_without_base_fee_gets_one_where_london_begins() {
    let network = Network { london_block: Some(2), ..NETWORK };
    let arbitrators = arbitrators(3);
    let mut chain = begin(network, &addresses(&arbitrators));
    for header in in_turn(&network, &arbitrators, chain.tip(), 1) {
        let header = SignedHeader::read(&network, &header).expect("it holds by itself");
        assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Extended));
    }
    let mut draft = Draft::on(&network, chain.tip(), 2);
    draft.header.base_fee_wei = Some(FIRST_BASE_FEE_WEI);
    let same_limit = rule(&network, &chain, &draft.sign(&arbitrators[2]));
    assert_eq!(same_limit, Rule::GasLimit { parent: 16_000_000, found: 8_000_000 });
    draft.header.gas_limit = 16_000_000;
    let header = SignedHeader::read(&network, &draft.sign(&arbitrators[2])).expect("it holds by itself");
    assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Extended));
}

#[test]
fn only_arbitrators_sign_each_in_its_turn() {
    let arbitrators = arbitrators(51);
    let chain = begin(NETWORK, &addresses(&arbitrators));
    let stranger = Arbitrator::named("stranger");
    let draft = Draft::on(&NETWORK, chain.tip(), 2);
    assert_eq!(
        rule(&NETWORK, &chain, &draft.sign(&stranger)),
        Rule::Unauthorised { signer: stranger.address }
    );
    assert_eq!(rule(&NETWORK, &chain, &draft.sign(&arbitrators[2])), Rule::Turn { expected: 1, found: 2 });
    let draft = Draft::on(&NETWORK, chain.tip(), 1);
    assert_eq!(rule(&NETWORK, &chain, &draft.sign(&arbitrators[1])), Rule::Turn { expected: 2, found: 1 });
}

#[test]
fn an_arbitrator_signs_one_of_26_blocks() {
    let arbitrators = arbitrators(51);
    let mut chain = begin(NETWORK, &addresses(&arbitrators));
    for header in in_turn(&NETWORK, &arbitrators, chain.tip(), 26) {
        let early = Draft::on(&NETWORK, chain.tip(), 1).sign(&arbitrators[1]);
        if chain.tip().number > 0 {
            let expected = Rule::SignedRecently { signer: arbitrators[1].address, last: 1, again: 27 };
            assert_eq!(rule(&NETWORK, &chain, &early), expected);
        }
        let header = SignedHeader::read(&NETWORK, &header).expect("it holds by itself");
        chain.accept(header, NOW_S, &mut vec![]).expect("it holds");
    }
    let again = Draft::on(&NETWORK, chain.tip(), 1).sign(&arbitrators[1]);
    let header = SignedHeader::read(&NETWORK, &again).expect("it holds by itself");
    assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Extended));
}

#[test]
fn an_epoch_block_lists_who_may_sign() {
    let network = Network { epoch_blocks: 2, ..NETWORK };
    let arbitrators = arbitrators(5);
    let mut chain = begin(network, &addresses(&arbitrators));
    let first = Draft::on(&network, chain.tip(), 2).sign(&arbitrators[1]);
    chain
        .accept(SignedHeader::read(&network, &first).expect("it holds by itself"), NOW_S, &mut vec![])
        .expect("it holds");
    let mut draft = Draft::on(&network, chain.tip(), 2);
    draft.signers = addresses(&arbitrators[..4]);
    let fewer = rule(&network, &chain, &draft.sign(&arbitrators[2]));
    assert_eq!(fewer, Rule::EpochSigners { expected: 5, found: 4 });
    draft.signers = addresses(&arbitrators);
    draft.signers.swap(0, 1);
    let unsorted = rule(&network, &chain, &draft.sign(&arbitrators[2]));
    assert_eq!(unsorted, Rule::EpochSigners { expected: 5, found: 5 });
    draft.header.coinbase = Address::repeat_byte(1);
    let votes = rule(&network, &chain, &draft.sign(&arbitrators[2]));
    assert_eq!(votes, Rule::EpochVote { coinbase: Address::repeat_byte(1) });
}

#[test]
fn a_checkpoint_is_what_it_says_or_no_beginning() {
    let network = Network { epoch_blocks: 4, ..NETWORK };
    let arbitrators = arbitrators(5);
    let chain = begin(network, &addresses(&arbitrators));
    let headers = in_turn(&network, &arbitrators, chain.tip(), 4);
    let epoch = SignedHeader::read(&network, &headers[3]).expect("it holds by itself");
    let right =
        Checkpoint { number: 4, hash: epoch.hash, time_s: epoch.time_s, signers: addresses(&arbitrators) };
    let start = |checkpoint: &Checkpoint, header: &[u8]| {
        HeaderChain::from_checkpoint(network, checkpoint, header, 8, 0).map(|chain| chain.tip().number)
    };
    assert_eq!(start(&right, &headers[3]), Ok(4));
    let other = SignedHeader::read(&network, &headers[2]).expect("it holds by itself");
    assert_eq!(
        start(&right, &headers[2]),
        Err(CheckpointError::Hash { expected: right.hash, found: other.hash })
    );
    assert_eq!(
        start(&Checkpoint { number: 3, ..right.clone() }, &headers[2]),
        Err(CheckpointError::NoEpoch { number: 3, epoch_blocks: 4 })
    );
    assert_eq!(
        start(&Checkpoint { number: 8, ..right.clone() }, &headers[3]),
        Err(CheckpointError::Number { expected: 8, found: 4 })
    );
    assert_eq!(
        start(&Checkpoint { time_s: 1, ..right.clone() }, &headers[3]),
        Err(CheckpointError::Time { expected_s: 1, found_s: right.time_s })
    );
    assert_eq!(
        start(&Checkpoint { signers: vec![], ..right.clone() }, &headers[3]),
        Err(CheckpointError::Signers { expected: 0, found: 5 })
    );
    assert!(matches!(start(&right, &[0xc0]), Err(CheckpointError::Header(ReadError::Decode(_)))));
}

#[test]
fn a_checkpoints_age_is_said() {
    let checkpoint = Checkpoint { number: 0, hash: B256::ZERO, time_s: 1_000, signers: vec![] };
    assert_eq!(checkpoint.freshness(1_000 + STALE_AFTER_S), Freshness::Fresh { age_s: STALE_AFTER_S });
    let stale = checkpoint.freshness(1_000 + 86_400 * 41 + 5);
    assert_eq!(stale, Freshness::Stale { days: 41, limit_s: STALE_AFTER_S });
    assert!(stale.to_string().starts_with("stale: 41 days old"));
    assert_eq!(checkpoint.freshness(900), Freshness::Ahead { by_s: 100 });
    assert_eq!(checkpoint.freshness(1_000 + 7_260).to_string(), "fresh: 2 h 1 min old");
}
