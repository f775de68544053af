//! A real `ioex-engine` on loopback with a published file, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use identity::SecretKey;
use identity::token::{self, Action, Claims, Scope};
use serde_json::Value;
use store::list::ListBuilder;
use store::{FileBackend, Hash, Options, Store};

/// Every test of behaviour runs over both.
pub const DRIVERS: [&str; 2] = ["uring", "epoll"];

/// How a node is started.
#[derive(Clone, Copy)]
pub struct Settings {
    /// `--driver`.
    pub driver: &'static str,
    /// Number of shards; they share the machine's cores if there are fewer.
    pub shards: usize,
    /// Handshakes in flight above which newcomers are sent a Retry.
    pub retry_above: u32,
    /// Length of the published file.
    pub file_len: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { driver: "epoll", shards: 1, retry_above: 1_000, file_len: (9 << 20) + 4_321 }
    }
}

/// A running node. Killed when dropped.
pub struct Node {
    /// Where it serves, QUIC and TCP alike.
    pub address: SocketAddr,
    child: Child,
    metrics: SocketAddr,
    folder: tempfile::TempDir,
    file: Arc<Vec<u8>>,
    segments: Vec<Hash>,
    list: Hash,
    node_uid: identity::Uid,
}

impl Node {
    /// Makes a data directory with an identity, a certificate and a published file, and starts the engine on it.
    pub fn start(settings: Settings) -> Node {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let node_uid = lay_out_data_directory(&data);
        let file = Arc::new(noise(settings.file_len as u64, settings.file_len));
        let (segments, list) = publish(&data, &file);
        let (child, address, metrics) = spawn(&data, settings);
        let node = Node { address, child, metrics, folder, file, segments, list, node_uid };
        node.set_policy(settings);
        node
    }

    /// The published file.
    pub fn published(&self) -> &[u8] {
        &self.file
    }

    /// Its segments' addresses, in order.
    pub fn segments(&self) -> &[Hash] {
        &self.segments
    }

    /// The address of its list.
    pub fn list(&self) -> Hash {
        self.list
    }

    /// A path for a test's own file.
    pub fn scratch(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    /// Reads a test's own file and removes it, so that no later check can take it for its own.
    pub fn read_scratch(&self, name: &str) -> Vec<u8> {
        let path = self.scratch(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        std::fs::remove_file(&path).expect("remove");
        bytes
    }

    /// A token that lets its bearer PUT `hash`.
    pub fn token(&self, hash: &Hash) -> String {
        self.token_by(&publisher(), hash)
    }

    /// The same, signed by somebody whom the node does not trust.
    pub fn token_of_a_stranger(&self, hash: &Hash) -> String {
        self.token_by(&SecretKey::from_seed([99; 32]), hash)
    }

    fn token_by(&self, key: &SecretKey, hash: &Hash) -> String {
        let now_s = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
        let claims = Claims {
            issuer: key.uid(),
            subject: key.uid(),
            audience: self.node_uid,
            not_before_s: now_s - 60,
            expires_s: now_s + 600,
            token_id: [3; 16],
            action: Action::Put,
            scope: Scope::Hash(hash.0),
            bytes_max: None,
        };
        token::to_text(&claims.sign(key))
    }

    /// The sum of a counter over its labels, as the metrics endpoint gives it.
    pub fn counter(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).expect("connect to the metrics endpoint");
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics");
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| line[name.len()..].starts_with(['{', ' ']))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    }

    /// The engine's resident memory, without the pages of mapped packs.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// The engine's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the engine to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("wait for the engine")
    }

    fn set_policy(&self, settings: Settings) {
        use relay::policy::{Limits, Policy};
        let limits = Limits { retry_handshakes_min: settings.retry_above, ..Limits::default() };
        let policy = Policy { generation: 1, publishers: vec![*publisher().uid().as_bytes()], limits };
        let _ = policy;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key that publishes in tests.
pub fn publisher() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

/// Bytes that no compressor shrinks, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[5; 32]).update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs one of `tests/clients/` with the interpreter that `make setup` made, and gives the JSON that it prints.
pub fn python(script: &str, arguments: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let interpreter = std::env::var_os("IOEX_TEST_PYTHON")
        .map_or_else(|| root.join("target/python/bin/python"), PathBuf::from);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let out = Command::new(&interpreter)
        .arg(&script)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", interpreter.display()));
    assert!(
        out.status.success(),
        "{} {arguments:?} failed: {}",
        script.display(),
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("the client prints JSON")
}
