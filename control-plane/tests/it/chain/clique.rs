//! Following a Clique chain that a real node mines: headers, a contract's storage and logs, the watch, the explorer;
//! and liars in front of that node.

use super::clique_node::{CHAIN_ID, CliqueNode, forward};
use super::rpc_server::{Answer, RpcServer};
use crate::node::{json as parse, on};
use crate::program::err;
use alloy_primitives::{Address, B256, hex};
use chain_lite::contracts::authorisations::{Call, Receiver};
use control_plane::chain::follow::{DposFollower, DposSettings, now_s};
use control_plane::chain::place::ChainDirectory;
use control_plane::chain::prove;
use control_plane::chain::rpc::{Endpoints, Lie};
use control_plane::configuration::chain::{DposCheckpoint, EndpointUrl};
use control_plane::data_directory::DataDirectory;
use control_plane::node_identity::NodeIdentity;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The contract of content authorisation as it is deployed.
const AUTHORISATIONS: &str = include_str!("../../../../chain-lite/contracts/artefacts/Authorisations.json");

/// The contract of workload and contribution as it is deployed.
const CONTRIBUTIONS: &str = include_str!("../../../../chain-lite/contracts/artefacts/Contributions.json");

/// What makes the contract of an artefact; the constructor's arguments belong behind it.
fn code(artefact: &str) -> Vec<u8> {
    let artefact: Value = serde_json::from_str(artefact).unwrap();
    hex::decode(artefact["bytecode"].as_str().unwrap()).unwrap()
}

/// The end of the test's grant: the year 2100 is beyond what the contract grants, so it is a year from now.
fn until_s() -> u64 {
    now_s() + 365 * 86_400
}

fn settings(checkpoint: DposCheckpoint, endpoints: &[EndpointUrl], contracts: &[Address]) -> DposSettings {
    DposSettings {
        endpoints: endpoints.to_vec(),
        chain_id: CHAIN_ID,
        period_s: 1,
        epoch_blocks: 30_000,
        checkpoint,
        stale_after_s: 14 * 86_400,
        contracts: contracts.to_vec(),
        poll: Duration::from_secs(1),
    }
}

/// A proxy in front of a node that changes what it likes: `lie` is given the method, its parameters and the node's
/// whole answer.
fn proxy(port: u16, lie: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static) -> EndpointUrl {
    RpcServer::start(move |method, params| {
        let mut answer = forward(port, method, params);
        lie(method, params, &mut answer["result"]);
        match answer["error"].as_object() {
            Some(error) => Answer::Error(error["code"].as_i64().unwrap_or(0), "the node refuses"),
            None => Answer::Result(answer["result"].take()),
        }
    })
    .url()
}

/// Turns one hexadecimal digit of a text into another.
fn flip(text: &mut Value, at: usize) {
    let mut digits = text.as_str().unwrap().to_string().into_bytes();
    digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
    *text = json!(String::from_utf8(digits).unwrap());
}

#[test]
fn a_real_clique_chain_is_followed_and_liars_in_front_of_it_are_named() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::create_dir(home.join("node")).unwrap();
    let mut node = CliqueNode::start(&home.join("node"));
    let genesis = node.ask("eth_getBlockByNumber", &json!(["0x0", false]));
    let hash: B256 = genesis["hash"].as_str().unwrap().parse().unwrap();
    let checkpoint = DposCheckpoint { number: 0, hash: hash.0 };

    // A contract, with a grant for this node and one for another.
    let data = DataDirectory::prepare(&home.join("data")).unwrap();
    let uid = NodeIdentity::load_or_create(&data).unwrap().0.uid();
    let deployed = node.send(None, &code(AUTHORISATIONS));
    let contract: Address = deployed["contractAddress"].as_str().unwrap().parse().unwrap();
    let list = B256::repeat_byte(0x4c);
    node.send(Some(contract), &Call::Offer { list, product: B256::repeat_byte(1), version: 7 }.encode());
    let receivers = [B256::new(*uid.as_bytes()), B256::repeat_byte(0x99)];
    let receivers = receivers.map(|uid| Receiver { uid, account: Address::ZERO }).to_vec();
    let granted = node.send(Some(contract), &Call::Grant { list, receivers, until_s: until_s() }.encode());

    // And one that counts what nodes contribute: owner, reporter and most points a day.
    let owner = node.arbitrator().into_word();
    let arguments = [owner, owner, B256::with_last_byte(100)].concat();
    let deployed = node.send(None, &[code(CONTRIBUTIONS), arguments].concat());
    let contributions: Address = deployed["contractAddress"].as_str().unwrap().parse().unwrap();

    commands_follow_watch_and_prove(home, &node, checkpoint, contract, list, &granted);
    points_are_proved(home, &node, checkpoint, contributions, &uid.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(liars_are_named(&home.join("second"), &node, checkpoint, contract));
}

/// `ioex chain` with the settings of the node's chain.
fn chain(
    home: &Path,
    node: &CliqueNode,
    checkpoint: DposCheckpoint,
    contract: Address,
    arguments: &[&str],
) -> Command {
    let mut command = on(home, "chain");
    command
        .args(arguments)
        .env("IOEX_CHAIN_DPOS_ENDPOINTS", node.url().as_str())
        .env("IOEX_CHAIN_DPOS_CHAIN_ID", CHAIN_ID.to_string())
        .env("IOEX_CHAIN_DPOS_PERIOD_S", "1")
        .env("IOEX_CHAIN_DPOS_CHECKPOINT", checkpoint.to_string())
        .env("IOEX_CHAIN_AUTHORISATION_CONTRACT", contract.to_string())
        .env("IOEX_CHAIN_EXPLORER", "127.0.0.1:0");
    command
}

fn commands_follow_watch_and_prove(
    home: &Path,
    node: &CliqueNode,
    checkpoint: DposCheckpoint,
    contract: Address,
    list: B256,
    granted: &Value,
) {
    let ask = |arguments: &[&str]| chain(home, node, checkpoint, contract, arguments).output().unwrap();
    let start = || {
        let mut command = chain(home, node, checkpoint, contract, &["follow", "--json"]);
        let mut follow = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
        (follow, lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()))
    };
    let (mut follow, mut events) = start();
    let mut url = String::new();
    // The event of the grant comes last: explorer and checkpoint come before it.
    let event = loop {
        let event = events.next().expect("it follows until it is killed");
        match event["event"].as_str().unwrap() {
            "chain_explorer" => url = event["url"].as_str().unwrap().to_string(),
            // The genesis block of this test is years old.
            "chain_checkpoint_stale" => {
                assert!(event["checkpoint"].as_str().unwrap().contains("stale: "), "{event}");
            }
            "chain_event" => break event,
            other => assert!(matches!(other, "chain_followed" | "chain_problem"), "{event}"),
        }
    };
    assert_eq!((&event["of"], &event["list"]), (&json!("granted"), &json!(hex::encode(list))));
    assert_eq!(event["block_hash"], granted["blockHash"]);
    let number = event["block"].as_u64().unwrap();

    explorer_shows_what_is_kept(&url, node, granted, number);
    follow.kill().unwrap();
    follow.wait().unwrap();
    let text = std::fs::read_to_string(home.join("data/chain/events.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1, "the other node's grant does not concern this one: {text}");

    // After kill -9 it goes on, and tells nothing twice.
    let before = parse(&ask(&["status", "--json"]))["dpos"]["tip"]["number"].as_u64().unwrap();
    node.wait_for_block(before + 4);
    let (mut follow, events) = start();
    let started = Instant::now();
    while parse(&ask(&["status", "--json"]))["dpos"]["tip"]["number"].as_u64().unwrap() < before + 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not go on behind block {before}");
        std::thread::sleep(Duration::from_millis(100));
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(events.into_iter().all(|event| event["event"] != "chain_event"));
    assert_eq!(std::fs::read_to_string(home.join("data/chain/events.jsonl")).unwrap(), text);

    let header = parse(&ask(&["header", "dpos", &number.to_string(), "--json"]));
    assert_eq!(header["hash"], granted["blockHash"]);
    assert_eq!(header["signer"], json!(node.arbitrator().to_string()));
    let by_hash = parse(&ask(&["header", "dpos", granted["blockHash"].as_str().unwrap(), "--json"]));
    assert_eq!(by_hash, header);

    let txid = granted["transactionHash"].as_str().unwrap();
    let proven = parse(&ask(&["verify-tx", "dpos", txid, "--json"]));
    assert_eq!(
        (&proven["verified"], &proven["succeeded"], &proven["logs"]),
        (&json!(true), &json!(true), &json!(2))
    );
    assert_eq!(proven["block"]["hash"], granted["blockHash"]);
    let unknown = ask(&["verify-tx", "dpos", &"ab".repeat(32)]);
    assert_eq!(unknown.status.code(), Some(3), "{}", err(&unknown));

    let owner = node.arbitrator().to_string();
    let balance = parse(&ask(&["balance", &owner, "--json"]));
    let tip = format!("{:#x}", balance["block"]["number"].as_u64().unwrap());
    let said = node.ask("eth_getBalance", &json!([owner, tip]));
    let said =
        alloy_primitives::U256::from_str_radix(said.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    assert_eq!(balance["balance_wei"], json!(said.to_string()));
    let nobody = parse(&ask(&["balance", "0x00000000000000000000000000000000000000aa", "--json"]));
    assert_eq!((&nobody["balance_wei"], &nobody["verified"]), (&json!("0"), &json!(true)));

    let uid = parse(&on(home, "id").arg("--json").output().unwrap())["uid"].as_str().unwrap().to_string();
    let list = hex::encode(list);
    let yes = ask(&["authorised", &uid, &list, "--publisher", &owner, "--json"]);
    let answer = parse(&yes);
    assert_eq!((&answer["authorised"], &answer["downloads"]), (&json!(true), &json!(0)));
    assert!(answer["until_unix_s"].as_u64().unwrap() > now_s() + 364 * 86_400, "{answer}");
    let no = ask(&["authorised", &uid, &"00".repeat(32), "--publisher", &owner, "--json"]);
    assert_eq!(no.status.code(), Some(7), "{}", err(&no));
    let points = ask(&["points", &uid]);
    assert_eq!(points.status.code(), Some(2), "{}", err(&points));
}

/// Nobody can claim before a day's corrections are over, so a young contract's answer is none, by proof.
fn points_are_proved(
    home: &Path,
    node: &CliqueNode,
    checkpoint: DposCheckpoint,
    contract: Address,
    uid: &str,
) {
    let ask = |workload_contract: Address| {
        let mut points = chain(home, node, checkpoint, contract, &["points", uid, "--json"]);
        points.env("IOEX_CHAIN_WORKLOAD_CONTRACT", workload_contract.to_string()).output().unwrap()
    };
    let answer = parse(&ask(contract));
    assert_eq!((&answer["verified"], &answer["uid"]), (&json!(true), &json!(uid)), "{answer}");
    assert_eq!((&answer["points"], &answer["workload_bytes"]), (&json!("0"), &json!("0")), "{answer}");
    let nothing_there = ask(Address::repeat_byte(0xaa));
    assert_eq!(nothing_there.status.code(), Some(3), "{}", err(&nothing_there));
}

fn explorer_shows_what_is_kept(url: &str, node: &CliqueNode, granted: &Value, number: u64) {
    let port = url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let get = |path: &str| -> (u16, Value) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    };
    let (status, document) = get("/openapi.json");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    // Every path that the document names answers.
    for path in document["paths"].as_object().unwrap().keys() {
        let path = path
            .replace("{chain}", "dpos")
            .replace("{block}", &number.to_string())
            .replace("{txid}", granted["transactionHash"].as_str().unwrap());
        let (status, body) = get(&path);
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (_, header) = get(&format!("/chain/dpos/headers/{number}"));
    assert_eq!(header["hash"], granted["blockHash"]);
    let (_, turns) = get("/chain/dpos/turns?from=1&count=3");
    assert_eq!(turns["turns"].as_array().unwrap().len(), 3);
    assert_eq!(turns["turns"][0]["in_turn"], json!(node.arbitrator().to_string()));
    assert_eq!(turns["missed"], json!({}));
    let (_, next) = get("/chain/dpos/turns/next?count=2");
    let after = next["after"].as_u64().unwrap();
    assert!(after >= number, "{next}");
    assert_eq!(next["turns"].as_array().unwrap().len(), 2);
    for (turn, ahead) in next["turns"].as_array().unwrap().iter().zip(1..) {
        assert_eq!(turn["number"], json!(after + ahead));
        assert_eq!(turn["in_turn"], json!(node.arbitrator().to_string()));
    }
    let (status, problem) = get("/chain/dpos/headers/999999");
    assert_eq!((status, &problem["status"]), (404, &json!(404)));
    let (status, _) = get("/chain/btc/headers");
    assert_eq!(status, 404);
}

async fn liars_are_named(home: &Path, node: &CliqueNode, checkpoint: DposCheckpoint, contract: Address) {
    let directory = ChainDirectory::of(&DataDirectory::existing(home));
    let lock = directory.lock().unwrap();
    let port = node.url().as_str().rsplit_once(':').unwrap().1.parse().unwrap();
    let frozen = node.block_number();
    let richer = |_: &str, _: &Value, result: &mut Value| {
        if result.get("balance").is_some() {
            result["balance"] = json!("0xffffffffffffffffffff");
        }
    };
    let forging = |_: &str, _: &Value, result: &mut Value| {
        if result.get("accountProof").is_some() {
            flip(&mut result["accountProof"][0], 40);
        }
    };
    let withholding = move |method: &str, _: &Value, result: &mut Value| {
        if method == "eth_blockNumber" {
            *result = json!(format!("{frozen:#x}"));
        }
    };
    // Headers that nobody signed: a state root of its own.
    let unsigned = |method: &str, params: &Value, result: &mut Value| {
        if method == "debug_getRawHeader" && params[0] != "0x0" {
            flip(result, 200);
        }
    };
    // Another chain from its first block on.
    let forking = |method: &str, _: &Value, result: &mut Value| {
        if method == "debug_getRawHeader" {
            flip(result, 200);
        }
    };
    // No raw headers: they are rebuilt from blocks.
    let plain = RpcServer::start(move |method, params| match method {
        "debug_getRawHeader" => Answer::Error(-32601, "the method does not exist"),
        _ => Answer::Result(forward(port, method, params)["result"].take()),
    });
    let urls = [
        proxy(port, richer),
        proxy(port, forging),
        proxy(port, withholding),
        proxy(port, unsigned),
        proxy(port, forking),
        plain.url(),
    ];
    let settings = settings(checkpoint, &urls, &[contract]);
    let mut follower = DposFollower::open(&settings, &directory, &lock).await.unwrap();
    // The grant was long ago by now: its block is a candidate for whoever watches.
    for _ in 0..3 {
        node.wait_for_block(frozen + 8);
        follower.round(now_s()).await.unwrap();
    }
    let tip = follower.chain().tip().clone();
    let block = node.ask("eth_getBlockByNumber", &json!([format!("{:#x}", tip.number), false]));
    assert_eq!(block["hash"], json!(tip.hash.to_string()));
    assert!(!follower.candidates(tip.number).is_empty());

    let endpoints = follower.endpoints();
    let lie = |place: usize| endpoints.all()[place].standing().last_lie.clone().map(|(kind, ..)| kind);
    let kinds: Vec<_> = (0..6).map(lie).collect();
    let expected =
        [None, None, Some(Lie::WithheldHeaders), Some(Lie::ForgedHeader), Some(Lie::OtherFork), None];
    assert_eq!(kinds, expected, "{}", endpoints.to_json());

    // Proofs: the liars are asked first, as nothing is known of anybody, and the honest one answers in the end.
    let against = prove::last_header(follower.file()).unwrap();
    let owner = control_plane::configuration::chain::Address(node.arbitrator().0.0);
    let endpoints = Endpoints::new(&[urls[0].clone(), urls[1].clone(), urls[5].clone()]).unwrap();
    let proven = prove::account(&endpoints, against, owner, &[]).await.unwrap();
    assert!(proven.account.nonce >= 3 && proven.endpoint == urls[5]);
    let lie = |place: usize| endpoints.all()[place].standing().last_lie.clone().map(|(kind, ..)| kind);
    assert_eq!([0, 1, 2].map(lie), [Some(Lie::WrongValue), Some(Lie::ForgedProof), None]);
    // Those who lied come after the one who did not.
    assert_eq!(endpoints.in_order()[0].url, urls[5]);
    // With liars alone there is no answer, and all are named.
    let endpoints = Endpoints::new(&urls[..2]).unwrap();
    let error = prove::account(&endpoints, against, owner, &[]).await.unwrap_err().to_string();
    assert!(urls[..2].iter().all(|url| error.contains(url.as_str())), "{error}");
}
