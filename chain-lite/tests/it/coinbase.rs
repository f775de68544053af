//! What a block may mint and to whom.

use chain_lite::Hash;
use chain_lite::pow::{
    Amount, COIN_ASSET, CoinbaseError, CoinbaseRules, Input, OutPoint, Output, Payload, Reward, Transaction,
    matures_at,
};
use chain_lite::wallet::{Draft, ProgramHash};

const ARBITRATORS: ProgramHash = ProgramHash([0x12; 21]);
const MINER: ProgramHash = ProgramHash([0x21; 21]);
const HEIGHT: u32 = 4_321;

const RULES: CoinbaseRules = CoinbaseRules::new(ARBITRATORS);

#[test]
fn twenty_four_coins_are_minted_and_twenty_are_the_arbitrators() {
    let due = coinbase(&[(ARBITRATORS, 20.0), (MINER, 4.0)]);
    let reward = Reward {
        total: Amount::coins(24),
        arbitrators: Amount::coins(20),
        miner: Amount::coins(4),
        fees: Amount(0),
    };
    assert_eq!(check(&due, Some(0.0)), Ok(reward));
    assert_eq!(check(&due, None), Ok(reward));

    let with_fees = coinbase(&[(MINER, 4.5), (ARBITRATORS, 12.0), (ARBITRATORS, 8.0)]);
    let reward = Reward {
        total: Amount(2_450_000_000),
        miner: Amount(450_000_000),
        fees: Amount(50_000_000),
        ..reward
    };
    assert_eq!(check(&with_fees, Some(0.5)), Ok(reward));
    assert_eq!(check(&with_fees, None), Ok(reward));

    // The arbitrators may get the miner's part too.
    assert!(check(&coinbase(&[(ARBITRATORS, 24.0)]), Some(0.0)).is_ok());
}

#[test]
fn a_coin_too_many_or_too_few_is_found() {
    let total = |fees: f64, found: f64| CoinbaseError::Total {
        subsidy: Amount::coins(24),
        fees: amount(fees),
        found: amount(found),
    };
    let greedy = coinbase(&[(ARBITRATORS, 20.0), (MINER, 4.00000001)]);
    assert_eq!(check(&greedy, Some(0.0)), Err(total(0.0, 24.00000001)));
    assert_eq!(check(&greedy, Some(0.5)), Err(total(0.5, 24.00000001)));
    // Without the fees it looks as if there were some.
    assert_eq!(check(&greedy, None).map(|reward| reward.fees), Ok(Amount(1)));

    let few = coinbase(&[(ARBITRATORS, 20.0), (MINER, 3.99999999)]);
    assert_eq!(check(&few, Some(0.0)), Err(total(0.0, 23.99999999)));
    let error = CoinbaseError::BelowSubsidy { subsidy: Amount::coins(24), found: amount(23.99999999) };
    assert_eq!(check(&few, None), Err(error));

    let robbed = coinbase(&[(ARBITRATORS, 19.99999999), (MINER, 4.00000001)]);
    let error = CoinbaseError::Arbitrators {
        account: ARBITRATORS,
        least: Amount::coins(20),
        found: amount(19.99999999),
    };
    assert_eq!(check(&robbed, Some(0.0)), Err(error));
    assert_eq!(check(&robbed, None), Err(error));
}

#[test]
fn the_last_public_node_mints_four_coins() {
    let raw = encode(&coinbase(&[(MINER, 4.25)]));
    let transaction = Transaction::decode(&raw).expect("well-formed");
    let reward = CoinbaseRules::DEPLOYED.check(&transaction, HEIGHT, Some(amount(0.25)));
    assert_eq!(reward.map(|reward| (reward.arbitrators, reward.miner)), Ok((Amount(0), amount(4.25))));
}

#[test]
fn what_is_no_coinbase_is_named() {
    let good = coinbase(&[(ARBITRATORS, 20.0), (MINER, 4.0)]);
    let draft = Draft { payload: Payload::Transfer, ..good.clone() };
    assert_eq!(check(&draft, None), Err(CoinbaseError::Type { found: 2 }));
    let draft = Draft { inputs: vec![], ..good.clone() };
    assert_eq!(check(&draft, None), Err(CoinbaseError::Inputs { count: 0 }));
    let draft = Draft { inputs: good.inputs.repeat(2), ..good.clone() };
    assert_eq!(check(&draft, None), Err(CoinbaseError::Inputs { count: 2 }));
    let found = OutPoint { transaction: Hash::ZERO, output: 0 };
    let draft = Draft { inputs: vec![Input { previous: found, sequence: 0 }], ..good.clone() };
    assert_eq!(check(&draft, None), Err(CoinbaseError::Input { found }));
    let draft = Draft { lock_time: 0, ..good.clone() };
    assert_eq!(check(&draft, None), Err(CoinbaseError::LockTime { height: HEIGHT, found: 0 }));
    let mut draft = good.clone();
    draft.outputs[1].asset = Hash([1; 32]);
    assert_eq!(check(&draft, None), Err(CoinbaseError::Asset { output: 1, found: Hash([1; 32]) }));
    // The sum is right: the deployed nodes take this.
    let draft = coinbase(&[(ARBITRATORS, 20.0), (MINER, 5.0), (MINER, -1.0)]);
    assert_eq!(check(&draft, None), Err(CoinbaseError::Negative { output: 2, found: Amount::coins(-1) }));
    let mut draft = good;
    draft.outputs[1].value = Amount(i64::MAX);
    assert_eq!(check(&draft, None), Err(CoinbaseError::Overflow { output: 1 }));
}

#[test]
fn a_hundred_blocks_stand_between_a_coinbase_and_who_spends_it() {
    assert_eq!(matures_at(0), 101);
    assert_eq!(matures_at(u32::MAX), 4_294_967_396);
}

fn coinbase(paid: &[(ProgramHash, f64)]) -> Draft<'static> {
    let outputs = paid.iter().map(|(recipient, coins)| Output {
        asset: COIN_ASSET,
        value: amount(*coins),
        output_lock: 0,
        recipient: *recipient,
    });
    Draft {
        payload: Payload::Coinbase { data: b"miner" },
        payload_version: 4,
        attributes: vec![],
        inputs: vec![Input { previous: OutPoint::NULL, sequence: u32::MAX }],
        outputs: outputs.collect(),
        lock_time: HEIGHT,
    }
}

fn check(draft: &Draft<'_>, fees: Option<f64>) -> Result<Reward, CoinbaseError> {
    let raw = encode(draft);
    RULES.check(&Transaction::decode(&raw).expect("well-formed"), HEIGHT, fees.map(amount))
}

fn encode(draft: &Draft<'_>) -> Vec<u8> {
    draft.sign(&[]).expect("nobody has to sign")
}

fn amount(coins: f64) -> Amount {
    Amount((coins * 1e8).round() as i64)
}
