//! Following the public chain: honest nodes and liars, reorganisations, restarts, and the commands over what is kept.

use super::main_chain::{BITS, Mined, Node, grow, with_transactions};
use super::mining::next;
use crate::node::{json as parse, on};
use crate::program::{err, out};
use chain_lite::Hash;
use chain_lite::pow::Network;
use control_plane::chain::follow::{PowFollower, PowSettings, now_s};
use control_plane::chain::headers::{HeaderFile, PowRecord};
use control_plane::chain::place::{ChainDirectory, FollowerLock};
use control_plane::chain::rpc::Lie;
use control_plane::configuration::chain::EndpointUrl;
use control_plane::data_directory::DataDirectory;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A network whose difficulty follows the blocks, for branches of different work.
const QUICK: Network = Network {
    name: "quick",
    retarget_blocks: 10,
    retarget_timespan_s: 1_000,
    retargets: true,
    first_bits: BITS,
    ..Network::MAIN
};

fn settings(network: Network, genesis: Hash, endpoints: &[EndpointUrl]) -> PowSettings {
    PowSettings {
        endpoints: endpoints.to_vec(),
        network,
        genesis,
        checkpoints: Vec::new(),
        poll: Duration::from_secs(1),
    }
}

fn place(home: &Path) -> (ChainDirectory, FollowerLock) {
    let directory = ChainDirectory::of(&DataDirectory::existing(&home.join("data")));
    let lock = directory.lock().unwrap();
    (directory, lock)
}

fn kept(directory: &ChainDirectory) -> Vec<PowRecord> {
    HeaderFile::open_to_read(&directory.pow_headers()).unwrap().unwrap().range(0, 1 << 20).unwrap()
}

fn hashes(blocks: &[Mined]) -> Vec<Hash> {
    blocks.iter().map(|block| block.header.hash()).collect()
}

fn kept_hashes(directory: &ChainDirectory) -> Vec<Hash> {
    kept(directory).iter().map(|record| record.hash).collect()
}

/// Which lie an endpoint was caught at last, and how often it lied.
fn caught(follower: &PowFollower, place: usize) -> (Option<Lie>, u64) {
    let standing = follower.endpoints().all()[place].standing().clone();
    (standing.last_lie.map(|(kind, ..)| kind), standing.lies)
}

#[tokio::test]
async fn an_honest_node_is_followed_reorganised_and_restarted() {
    let home = tempfile::tempdir().unwrap();
    let (directory, lock) = place(home.path());
    let mut blocks = vec![Mined::genesis(&Network::REG)];
    grow(&mut blocks, 600, 120, 1);
    let node = Node::new(blocks.clone());
    let settings_live = settings(Network::REG, blocks[0].header.hash(), &[node.serve()]);
    let mut follower = PowFollower::open(&settings_live, &directory, &lock).await.unwrap();
    let round = follower.round(now_s()).await.unwrap();
    assert_eq!((round.answered, round.added, round.removed), (1, 600, 0));
    assert_eq!(kept_hashes(&directory), hashes(&blocks));

    // Twenty blocks are replaced by forty.
    let mut other = blocks[..=580].to_vec();
    grow(&mut other, 40, 120, 2);
    *node.blocks.lock().unwrap() = other.clone();
    let round = follower.round(now_s()).await.unwrap();
    assert_eq!((round.added, round.removed), (40, 20));
    assert_eq!(kept_hashes(&directory), hashes(&other));
    assert_eq!(caught(&follower, 0), (None, 0));
    let work = follower.chain().work();
    drop(follower);

    // Nobody is asked for what is kept.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = [format!("http://{closed}").parse().unwrap()];
    let settings_dead = settings(Network::REG, blocks[0].header.hash(), &dead);
    let mut follower = PowFollower::open(&settings_dead, &directory, &lock).await.unwrap();
    assert_eq!((follower.chain().tip(), follower.chain().work()), (&other[620].header, work));
    let round = follower.round(now_s()).await.unwrap();
    assert_eq!(round.answered, 0);

    // Another genesis block is another chain, and nothing of this one is lost for it.
    let error = PowFollower::open(&settings(Network::REG, Hash([1; 32]), &dead), &directory, &lock)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("chain.pow_genesis"), "{error}");
    assert_eq!(kept(&directory).len(), 621);
}

#[tokio::test]
async fn liars_are_caught_and_named_and_an_honest_minority_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let (directory, lock) = place(home.path());
    let mut blocks = vec![Mined::genesis(&Network::REG)];
    grow(&mut blocks, 120, 120, 1);
    let honest = Node::new(blocks.clone());
    let withholding = Node::new(blocks[..=60].to_vec());
    let mut fork = blocks[..=30].to_vec();
    grow(&mut fork, 70, 120, 2);
    let forking = Node::new(fork);
    // The proof of work of another block.
    let mut forged = blocks.clone();
    let block = next(&blocks[120].header, 120, BITS, 3);
    let other = Mined::new(next(&blocks[120].header, 120, BITS, 4));
    let mut bytes = other.bytes.clone();
    bytes[..84].copy_from_slice(&block.to_bytes());
    forged.push(Mined { header: block, bytes });
    let forging = Node::new(forged);
    // A chain of its own.
    let mut foreign = vec![Mined { header: next(&blocks[3].header, 1, BITS, 9), ..blocks[0].clone() }];
    let header = foreign[0].header.to_bytes();
    foreign[0].bytes[..84].copy_from_slice(&header);
    let foreign = Node::new(foreign);
    // A header that is another than its hash says. Like the one before, it is of a block that nobody else has proved:
    // what is proved is not asked for again, so only who happens to be asked before the honest node could be caught
    // by a lie about that.
    let mut swapped = blocks.clone();
    grow(&mut swapped, 1, 120, 5);
    swapped[121].bytes = blocks[120].bytes.clone();
    let swapping = Node::new(swapped);

    let nodes = [&swapping, &withholding, &forking, &forging, &foreign, &honest];
    let urls: Vec<_> = nodes.iter().map(|node| node.serve()).collect();
    let settings = settings(Network::REG, blocks[0].header.hash(), &urls);
    let mut follower = PowFollower::open(&settings, &directory, &lock).await.unwrap();
    for _ in 0..3 {
        follower.round(now_s()).await.unwrap();
    }
    assert_eq!(follower.chain().tip(), &blocks[120].header);
    assert_eq!(kept_hashes(&directory), hashes(&blocks));
    let kinds: Vec<_> = (0..6).map(|place| caught(&follower, place).0).collect();
    let expected = [
        Some(Lie::ForgedHeader),
        Some(Lie::WithheldHeaders),
        Some(Lie::OtherFork),
        Some(Lie::ForgedHeader),
        Some(Lie::OtherChain),
        None,
    ];
    assert_eq!(kinds, expected);
    // Whoever has lied is asked last from now on.
    assert_eq!(follower.endpoints().in_order()[0].url, urls[5]);
    let said = follower.to_json()["endpoints"].to_string();
    assert!(said.contains("it says that its last block is 60, others have proved 120"), "{said}");

    // For headers too: the honest node has proved the next block before the first liar is asked for it, so its copy,
    // which is no header at all, is never seen.
    grow(&mut blocks, 1, 120, 1);
    let mut garbled = blocks.clone();
    garbled[121].bytes.clear();
    *honest.blocks.lock().unwrap() = blocks.clone();
    *swapping.blocks.lock().unwrap() = garbled;
    let lies = caught(&follower, 0).1;
    follower.round(now_s()).await.unwrap();
    assert_eq!(follower.chain().tip(), &blocks[121].header);
    assert_eq!(caught(&follower, 0), (Some(Lie::ForgedHeader), lies));
}

#[tokio::test]
async fn a_flood_of_low_work_headers_moves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (directory, lock) = place(home.path());
    // Blocks in haste, four times as hard after each ten: 42 blocks have more work than 1,500 easy ones.
    let mut hasty = vec![Mined::genesis(&QUICK)];
    let mut bits = BITS;
    for height in 1..=42_u32 {
        if height.is_multiple_of(10) {
            bits = QUICK.retarget(bits, 0, 9);
        }
        let before = hasty.last().unwrap().header;
        hasty.push(Mined::new(next(&before, 1, bits, 1)));
    }
    let mut easy = vec![Mined::genesis(&QUICK)];
    grow(&mut easy, 1_500, 150, 2);
    let urls = [Node::new(easy).serve(), Node::new(hasty.clone()).serve()];
    let settings = settings(QUICK, hasty[0].header.hash(), &urls);
    let mut follower = PowFollower::open(&settings, &directory, &lock).await.unwrap();
    for _ in 0..2 {
        follower.round(now_s()).await.unwrap();
    }
    assert_eq!(follower.chain().tip(), &hasty[42].header);
    assert_eq!(kept_hashes(&directory), hashes(&hasty));
    let (kind, lies) = caught(&follower, 0);
    assert!(kind == Some(Lie::OtherFork) && lies >= 1, "{kind:?}");
    assert_eq!(caught(&follower, 1), (None, 0));
}

/// `ioex chain` with the settings of a chain that the nodes at `urls` have.
fn chain(home: &Path, genesis: Hash, urls: &str, arguments: &[&str]) -> Command {
    let mut command = on(home, "chain");
    command
        .args(arguments)
        .env("IOEX_CHAIN_POW_NETWORK", "reg")
        .env("IOEX_CHAIN_POW_GENESIS", genesis.to_string())
        .env("IOEX_CHAIN_POW_ENDPOINTS", urls);
    command
}

#[test]
fn commands_show_what_is_kept_and_prove_transactions() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let off = on(home, "chain").arg("status").output().unwrap();
    assert_eq!(off.status.code(), Some(0));
    assert!(err(&off).contains("no chain is configured; `ioex chain --help`"), "{}", err(&off));
    let off = on(home, "chain").args(["header", "pow", "1"]).output().unwrap();
    assert_eq!(off.status.code(), Some(3), "{}", err(&off));

    let mut blocks = vec![Mined::genesis(&Network::REG)];
    grow(&mut blocks, 20, 120, 1);
    let (block, transactions) = with_transactions(&blocks[20].header);
    let block_hash = block.header.hash();
    blocks.push(block);
    grow(&mut blocks, 4, 120, 1);
    let genesis = blocks[0].header.hash();
    let node = Node::new(blocks.clone());
    *node.transactions.lock().unwrap() = transactions.iter().map(|hash| (*hash, block_hash)).collect();
    // It swears that the transactions are in another block, and that one is in a block that is not.
    let lying = Node::new(blocks.clone());
    let elsewhere = blocks[3].header.hash();
    let invented = Hash([0x77; 32]);
    *lying.transactions.lock().unwrap() =
        transactions.iter().map(|hash| (*hash, elsewhere)).chain([(invented, block_hash)]).collect();
    let urls = format!("{},{}", lying.serve(), node.serve());

    let mut follow = chain(home, genesis, &urls, &["follow", "--json"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(follow.stdout.take().unwrap()).lines();
    let status = loop {
        let status = parse(&chain(home, genesis, &urls, &["status", "--json"]).output().unwrap());
        if status["pow"]["tip"]["height"] == 25 && !status["pow"]["followed"].is_null() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status["following"], true);
    // Two followers would write over each other.
    let second = chain(home, genesis, &urls, &["follow"]).output().unwrap();
    assert!(err(&second).contains("already follows the chains"), "{}", err(&second));
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(events.next().is_none_or(|line| line.unwrap().starts_with('{')));

    let header = parse(&chain(home, genesis, &urls, &["header", "pow", "21", "--json"]).output().unwrap());
    assert_eq!(header["hash"], block_hash.to_string());
    assert_eq!((&header["height"], &header["confirmations"]), (&21.into(), &5.into()));
    let by_hash = parse(
        &chain(home, genesis, &urls, &["header", "pow", &block_hash.to_string(), "--json"]).output().unwrap(),
    );
    assert_eq!(by_hash, header);
    for (block, code) in [("26", 3), (invented.to_string().as_str(), 3), ("zz", 2)] {
        let output = chain(home, genesis, &urls, &["header", "pow", block]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{block}: {}", err(&output));
    }

    let txid = transactions.last().unwrap().to_string();
    let proven =
        parse(&chain(home, genesis, &urls, &["verify-tx", "pow", &txid, "--json"]).output().unwrap());
    assert_eq!((&proven["verified"], &proven["block"]["height"]), (&true.into(), &21.into()));
    assert_eq!((&proven["confirmations"], &proven["transactions"]), (&5.into(), &transactions.len().into()));
    assert!(!proven["outputs"].as_array().unwrap().is_empty(), "{proven}");
    // Only the liar has heard of it.
    let output = chain(home, genesis, &urls, &["verify-tx", "pow", &invented.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(err(&output).contains("which it is not"), "{}", err(&output));
    let unknown = Hash([0x78; 32]).to_string();
    let output = chain(home, genesis, &urls, &["verify-tx", "pow", &unknown]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));

    let text = out(&chain(home, genesis, &urls, &["status"]).output().unwrap());
    assert!(text.contains("public chain (pow)\n  verified   block 25 "), "{text}");
    assert!(text.contains("consortium chain (dpos): off"), "{text}");
    assert!(text.contains("following: no"), "{text}");

    let up = crate::node::Node::up(home, &[]);
    let metrics = crate::api::get(home, "/metrics").body;
    assert!(metrics.contains("ioex_chain_height{chain=\"pow\"} 25\n"), "{metrics}");
    let age =
        metrics.lines().find_map(|line| line.strip_prefix("ioex_chain_tip_age_seconds{chain=\"pow\"} "));
    let age_s: u64 = age.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
    let tip = parse(&chain(home, genesis, &urls, &["header", "pow", "25", "--json"]).output().unwrap());
    assert!(
        age_s.abs_diff(now_s().saturating_sub(tip["time_unix_s"].as_u64().unwrap())) <= 60,
        "{age_s}: {tip}"
    );
    up.end();
}
