//! The committed artefacts against the compiler, and the codecs against the artefacts.

use std::sync::LazyLock;

use alloy_primitives::{hex, keccak256};
use chain_lite::contracts::{Address, B256, U256, authorisations, contributions};
use serde_json::{Value, json};

use crate::node;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contracts");

/// An artefact as committed.
pub struct Artefact {
    pub bytecode: Vec<u8>,
    pub json: Value,
}

pub static CONTRIBUTIONS: LazyLock<Artefact> = LazyLock::new(|| Artefact::load("Contributions"));
pub static AUTHORISATIONS: LazyLock<Artefact> = LazyLock::new(|| Artefact::load("Authorisations"));

impl Artefact {
    fn load(name: &str) -> Artefact {
        let text = std::fs::read_to_string(format!("{FOLDER}/artefacts/{name}.json")).expect("an artefact");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let bytecode = hex::decode(json["bytecode"].as_str().expect("code")).expect("hexadecimal digits");
        Artefact { bytecode, json }
    }

    /// Canonical signatures of all functions, events or errors.
    pub fn signatures(&self, kind: &str) -> Vec<String> {
        let entries =
            self.json["abi"].as_array().expect("a list").iter().filter(|entry| entry["type"] == kind);
        entries
            .map(|entry| format!("{}{}", entry["name"].as_str().expect("a name"), types(&entry["inputs"])))
            .collect()
    }

    /// The code on the chain, with the immutable value that the constructor was given.
    pub fn deployed(&self, immutable: U256) -> Vec<u8> {
        let code = self.json["deployedBytecode"].as_str().expect("code");
        let mut code = hex::decode(code).expect("hexadecimal digits");
        for places in self.json["immutableReferences"].as_array().expect("a list") {
            for place in places.as_array().expect("a list") {
                let start = usize::try_from(place["start"].as_u64().expect("a number")).expect("a place");
                code[start..start + 32].copy_from_slice(&immutable.to_be_bytes::<32>());
            }
        }
        code
    }
}

fn types(inputs: &Value) -> String {
    let inputs = inputs.as_array().expect("inputs").iter();
    let names = inputs.map(|input| {
        let name = input["type"].as_str().expect("a type");
        match name.strip_prefix("tuple") {
            Some(array) => format!("{}{array}", types(&input["components"])),
            None => name.to_owned(),
        }
    });
    format!("({})", names.collect::<Vec<_>>().join(","))
}

/// Code, ABI, layout, settings and source hash: every byte of both files.
#[test]
fn the_artefacts_are_what_the_sources_compile_to() {
    let compiled = node::run("contracts/compile.mjs", &Value::Null);
    for (name, artefact) in [("Contributions", &*CONTRIBUTIONS), ("Authorisations", &*AUTHORISATIONS)] {
        let difference = compiled[name]
            .as_object()
            .expect("an artefact")
            .iter()
            .find(|(key, value)| artefact.json[key.as_str()] != **value);
        assert_eq!(difference, None, "{name}.json; run compile.mjs --write");
        assert_eq!(compiled[name].as_object().map(|o| o.len()), artefact.json.as_object().map(|o| o.len()));
    }
}

/// Every event of the contracts, by its topic.
#[test]
fn the_events_are_those_of_the_compiler() {
    let topics = |artefact: &Artefact| {
        let mut topics: Vec<_> = artefact.signatures("event").iter().map(keccak256).collect();
        topics.sort_unstable();
        topics
    };
    use chain_lite::contracts::EventError;
    for topic in topics(&CONTRIBUTIONS) {
        let decoded = contributions::Event::decode(&[topic], &[]);
        assert!(matches!(decoded, Err(EventError::Malformed { .. })), "{topic}: {decoded:?}");
        assert_eq!(authorisations::Event::decode(&[topic], &[]), Err(EventError::Topic { topic }));
    }
    for topic in topics(&AUTHORISATIONS) {
        let decoded = authorisations::Event::decode(&[topic], &[]);
        assert!(matches!(decoded, Err(EventError::Malformed { .. })), "{topic}: {decoded:?}");
        assert_eq!(contributions::Event::decode(&[topic], &[]), Err(EventError::Topic { topic }));
    }
    assert!(topics(&CONTRIBUTIONS).contains(&contributions::Event::CLAIMED));
    assert!(topics(&AUTHORISATIONS).contains(&authorisations::Event::DOWNLOADED));
    assert_eq!(contributions::Event::decode(&[], &[]), Err(EventError::NoTopic));
}

/// Every function that changes something, and no other, is known to the codecs; none moves points.
#[test]
fn the_calls_are_those_of_the_compiler() {
    use chain_lite::contracts::CallError;
    let known = |artefact: &Artefact, decode: &dyn Fn(&[u8]) -> Option<CallError>| {
        for function in artefact.json["abi"].as_array().expect("a list") {
            if function["type"] != "function" {
                continue;
            }
            let signature =
                format!("{}{}", function["name"].as_str().expect("a name"), types(&function["inputs"]));
            let selector = &keccak256(&signature)[..4];
            let changes = function["stateMutability"] == "nonpayable";
            let found = !matches!(decode(selector), Some(CallError::Selector { .. }));
            assert_eq!(found, changes, "{signature}");
            let moves = ["transfer", "approve", "permit"].iter().any(|word| signature.starts_with(word));
            assert!(!moves && function["stateMutability"] != "payable", "{signature}");
        }
    };
    known(&CONTRIBUTIONS, &|data| contributions::Call::decode(data).err());
    known(&AUTHORISATIONS, &|data| authorisations::Call::decode(data).err());
    assert_eq!(contributions::Call::decode(&[1, 2]), Err(CallError::TooShort { found: 2 }));
}

/// Where light clients read: changing it is changing the interface.
#[test]
fn the_storage_layout_is_locked() {
    let fields = |variables: &Value| {
        let variables = variables.as_array().expect("a list").iter();
        variables.map(|v| json!([v["label"], v["slot"], v["offset"], v["bytes"]])).collect::<Vec<_>>()
    };
    let layout = &CONTRIBUTIONS.json["storageLayout"];
    assert_eq!(
        json!(fields(&layout["storage"])),
        json!([
            ["owner", 0, 0, 20],
            ["pendingOwner", 1, 0, 20],
            ["reporter", 2, 0, 20],
            ["pendingReporter", 3, 0, 20],
            ["dayOf", 4, 0, 32],
            ["accountOf", 5, 0, 32],
            ["claimedDays", 6, 0, 32],
        ])
    );
    assert_eq!(
        json!(fields(&layout["structs"]["struct Contributions.Day"])),
        json!([
            ["root", 0, 0, 32],
            ["points", 1, 0, 16],
            ["claimed", 1, 16, 16],
            ["workload", 2, 0, 16],
            ["finalAt", 2, 16, 8],
            ["accounts", 2, 24, 4],
        ])
    );
    assert_eq!(
        json!(fields(&layout["structs"]["struct Contributions.Account"])),
        json!([["points", 0, 0, 16], ["workload", 0, 16, 16]])
    );
    let layout = &AUTHORISATIONS.json["storageLayout"];
    assert_eq!(json!(fields(&layout["storage"])), json!([["offerOf", 0, 0, 32], ["grantOf", 1, 0, 32]]));
    assert_eq!(
        json!(fields(&layout["structs"]["struct Authorisations.Offer"])),
        json!([["product", 0, 0, 32], ["version", 1, 0, 8], ["offeredAt", 1, 8, 8]])
    );
    assert_eq!(
        json!(fields(&layout["structs"]["struct Authorisations.Grant"])),
        json!([["until", 0, 0, 8], ["downloads", 0, 8, 4], ["account", 0, 12, 20]])
    );
}

/// The words of a struct, packed by hand.
#[test]
fn words_are_read_where_the_layout_says() {
    let word = |text: &str| text.parse::<U256>().expect("a word");
    let account = contributions::Account::from_word(word(
        "0x00000000000000000000000000000002_00000000000000000000000000000001".replace('_', "").as_str(),
    ));
    assert_eq!((account.points, account.workload_bytes), (1, 2));
    assert_eq!(contributions::PostedDay::from_words([U256::ZERO, U256::MAX, U256::MAX]), None);
    let day = contributions::PostedDay::from_words([
        U256::from(7),
        word("0x0000000000000000000000000000000400000000000000000000000000000003"),
        // Four bytes are unused, then accounts, the time, the workload.
        word("0x00000000000000070000000000000006_00000000000000000000000000000005".replace('_', "").as_str()),
    ]);
    let day = day.expect("a day");
    assert_eq!((day.root, day.points, day.claimed_points), (B256::with_last_byte(7), 3, 4));
    assert_eq!((day.workload_bytes, day.final_at_s, day.accounts), (5, 6, 7));
    assert!(!day.is_final(5) && day.is_final(6));
    let grant = authorisations::Grant::from_word(word(
        "0x0303030303030303030303030303030303030303_00000002_0000000000000001".replace('_', "").as_str(),
    ));
    assert_eq!(grant, authorisations::Grant { until_s: 1, downloads: 2, account: Address::repeat_byte(3) });
    assert!(grant.stands(0) && !grant.stands(1));
    assert_eq!(authorisations::Offer::from_words([U256::MAX, U256::MAX >> 192]), None);
}
