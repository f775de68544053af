//! The Clique chain of `@ethereumjs/blockchain` (npm) and this one, on the same headers.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use alloy_primitives::{Address, B256, hex};
use chain_lite::dpos::{Accepted, Checkpoint, Header, HeaderChain, Network, SignedHeader, WINDOW_BLOCKS};
use serde_json::{Value, json};

use crate::dpos::real::prefixed;
use crate::dpos::signing::{Arbitrator, Draft, NETWORK, NOW_S, addresses, arbitrators, begin};
use crate::vectors;

/// Headers that `tests/node/clique.mjs mine` made: 51 signers, 30 seconds, 60 blocks, some out of turn.
fn mined() -> Value {
    vectors(include_str!("../../vectors/clique_51.json"))
}

#[test]
fn a_chain_of_51_signers_made_by_ethereumjs_holds() {
    holds(&mined(), 60);
}

#[test]
fn ethereumjs_makes_a_chain_that_holds_over_an_epoch() {
    let request =
        json!({ "chainId": NETWORK.chain_id, "period": 30, "epoch": 40, "signers": 51, "blocks": 90 });
    let network = Network { epoch_blocks: 40, ..NETWORK };
    follow(network, &node("mine", &request), 90);
}

/// Each header of a chain of ours, and what may be wrong with one at its height, is judged alike. The judge knows
/// neither forks nor the future, so that nothing of those is asked.
#[test]
fn ethereumjs_judges_alike() {
    let arbitrators = arbitrators(51);
    let stranger = Arbitrator::named("stranger");
    let mut chain = begin(NETWORK, &addresses(&arbitrators));
    let genesis = Draft::genesis(&NETWORK, &addresses(&arbitrators)).unsigned();
    let mut headers = vec![];
    let mut verdicts = vec![];
    for number in 1..=40_usize {
        let on = |difficulty: u64| Draft::on(&NETWORK, chain.tip(), difficulty);
        let other = &arbitrators[(number + 20) % 51];
        let mut early = on(2);
        early.header.time_s -= 1;
        let mut gas = on(2);
        gas.header.gas_limit += gas.header.gas_limit / 1_024;
        let mut fee = on(2);
        fee.header.base_fee_wei = Some(1);
        let mut height = on(2);
        height.header.number += 51;
        let mut mix = on(2);
        mix.header.mix_hash = B256::repeat_byte(1);
        let mut orphan = on(2);
        orphan.header.parent_hash = B256::repeat_byte(1);
        let signer = &arbitrators[number % 51];
        // Who signed the block before may not sign; of the genesis block, nobody did.
        let before = arbitrators.iter().find(|one| one.address == chain.tip().signer).unwrap_or(&stranger);
        let candidates = [
            early.sign(signer),
            gas.sign(signer),
            fee.sign(signer),
            height.sign(signer),
            mix.sign(signer),
            orphan.sign(signer),
            on(2).sign(&stranger),
            on(2).sign(other),
            on(1).sign(signer),
            on(1).sign(before),
            // And the one that holds: out of turn every tenth time.
            if number % 10 == 0 { on(1).sign(other) } else { on(2).sign(signer) },
        ];
        for candidate in candidates {
            let verdict = SignedHeader::read(&NETWORK, &candidate).map_err(|error| error.to_string());
            let verdict = verdict.and_then(|header| {
                let signer = header.signer;
                let accepted = chain.accept(header, NOW_S, &mut vec![]).map_err(|error| error.to_string())?;
                assert_eq!(accepted, Accepted::Extended);
                Ok(signer)
            });
            headers.push(hex::encode_prefixed(&candidate));
            verdicts.push(verdict);
        }
    }
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_ok()).count(), 40);
    let request = json!({
        "chainId": NETWORK.chain_id,
        "period": 30,
        "epoch": NETWORK.epoch_blocks,
        "genesis": hex::encode_prefixed(&genesis),
        "headers": headers,
    });
    let theirs = node("judge", &request);
    let theirs = theirs.as_array().expect("a list of verdicts");
    assert_eq!(theirs.len(), verdicts.len());
    for (place, (ours, theirs)) in verdicts.iter().zip(theirs).enumerate() {
        let same = match ours {
            Ok(signer) => prefixed(&theirs["signer"]) == signer.0.0,
            Err(_) => theirs.get("error").is_some(),
        };
        assert!(same, "header {place}: {ours:?} here, {theirs} there");
    }
}

fn holds(mined: &Value, blocks: u64) {
    follow(NETWORK, mined, blocks);
}

fn follow(network: Network, mined: &Value, blocks: u64) {
    let genesis = prefixed(&mined["genesis"]);
    let header = Header::decode(&genesis).expect("a header");
    let (signers, _) = header.extra[32..header.extra.len() - 65].as_chunks::<20>();
    let checkpoint = Checkpoint {
        number: 0,
        hash: header.hash(),
        time_s: header.time_s,
        signers: signers.iter().copied().map(Address::new).collect(),
    };
    assert_eq!(checkpoint.signers.len(), 51);
    let mut chain =
        HeaderChain::from_checkpoint(network, &checkpoint, &genesis, WINDOW_BLOCKS, 1).expect("a checkpoint");
    for header in mined["headers"].as_array().expect("a list of headers") {
        let header = SignedHeader::read(&network, &prefixed(header)).expect("it holds by itself");
        assert_eq!(chain.accept(header, NOW_S, &mut vec![]), Ok(Accepted::Extended));
    }
    assert_eq!(chain.tip().number, blocks);
}

/// What `tests/node/clique.mjs` answers to a request.
fn node(task: &str, request: &Value) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let packages =
        env::var_os("NODE_PATH").map_or_else(|| root.join("target/node/node_modules"), PathBuf::from);
    assert!(
        packages.join("@ethereumjs/blockchain").is_dir(),
        "@ethereumjs/blockchain is not in {}: run `.ci/setup test`",
        packages.display()
    );
    let mut child = Command::new("node")
        .arg(root.join("chain-lite/tests/node/clique.mjs"))
        .arg(task)
        .env("NODE_PATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed by `.ci/setup test`");
    child.stdin.take().expect("it is piped").write_all(request.to_string().as_bytes()).expect("node reads");
    let output = child.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node says why above");
    serde_json::from_slice(&output.stdout).expect("the script answers in JSON")
}
