//! Another implementation of the protocol (npm's bittorrent-dht) reads, writes and serves.

use super::{address, joined, key, network, node};
use control_plane::dht::{Node, RECORD_SALT, Record};
use n0_mainline::MutableItem;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The other implementation, about to do this.
pub(crate) fn script(arguments: &[&str]) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules: PathBuf = here.join("../target/node/node_modules");
    assert!(modules.join("bittorrent-dht").exists(), "bittorrent-dht is missing; run: .ci/setup test");
    let mut command = Command::new("node");
    command.arg(here.join("tests/clients/bittorrent_dht.mjs")).arg(modules).args(arguments);
    command
}

async fn run(arguments: Vec<String>) -> Value {
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        script(&arguments).output().unwrap()
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON object: {text}"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the other implementation finds under a key.
async fn read(through: &Node, number: u8) -> Value {
    let target = MutableItem::target_from_key(key(number).uid().as_bytes(), Some(RECORD_SALT));
    let salt = String::from_utf8(RECORD_SALT.to_vec()).unwrap();
    run(vec!["get".into(), through.port().to_string(), target.to_string(), salt]).await
}

/// What it says of storing a record under a key, signed by `signer`'s.
async fn write(through: &Node, number: u8, sequence: i64, record: &Record, signer: u8) -> Value {
    let salt = String::from_utf8(RECORD_SALT.to_vec()).unwrap();
    let arguments = [
        "put".into(),
        through.port().to_string(),
        hex(key(number).seed()),
        salt,
        sequence.to_string(),
        hex(&record.encode()),
        hex(key(signer).seed()),
    ];
    run(arguments.to_vec()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_what_we_write_and_we_read_what_it_writes() {
    let nodes = network(8).await;
    let record = Record { lifetime_s: 60, ..Record::default() };
    let sequence = nodes[2].put(&key(1), &record).await.unwrap();
    let read_item = read(&nodes[5], 1).await;
    assert_eq!(read_item["v"], hex(&record.encode()), "{read_item}");
    assert_eq!(
        (read_item["seq"].as_i64(), &read_item["k"]),
        (Some(sequence), &hex(key(1).uid().as_bytes()).into())
    );

    let theirs = Record { lifetime_s: 61, ..Record::default() };
    let written = write(&nodes[1], 2, 7, &theirs, 2).await;
    assert!(written["error"].is_null() && written["count"].as_u64() > Some(0), "{written}");
    let found = nodes[6].get(&key(2).uid()).await.unwrap().expect("it was written");
    assert_eq!((found.sequence_ms, found.record), (7, theirs.clone()));

    // A sequence number that goes back, and a record signed by another's key, are refused by every node.
    let older = write(&nodes[1], 2, 6, &record, 2).await;
    assert!(older["error"].as_str().is_some_and(|error| error.contains("302")), "{older}");
    let forged = write(&nodes[1], 2, 8, &record, 3).await;
    assert!(
        !forged["error"].is_null() && forged["count"].as_u64().is_none_or(|count| count == 0),
        "{forged}"
    );
    let found = nodes[3].get(&key(2).uid()).await.unwrap().unwrap();
    assert_eq!((found.sequence_ms, found.record), (7, theirs));
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Standard input ends with it, and so does the server.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_our_nodes() {
    // It needs a first node to know, which will not be there when it matters.
    let first = node(&[], |_| {}).await;
    let port = first.port().to_string();
    let mut server =
        script(&["serve", &port]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Server).unwrap();
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let theirs: Value = serde_json::from_str(&line).unwrap();
    drop(first);
    let client =
        node(&[format!("127.0.0.1:{}", theirs["port"])], |settings| settings.is_server = false).await;
    joined(&client).await;
    let record = Record { lifetime_s: 62, ..Record::default() };
    client.put(&key(4), &record).await.unwrap();
    let other = node(&[format!("127.0.0.1:{}", theirs["port"])], |settings| settings.is_server = false).await;
    joined(&other).await;
    assert_eq!(other.get(&key(4).uid()).await.unwrap().map(|found| found.record), Some(record));
    assert_ne!(address(&client), address(&other));
}
