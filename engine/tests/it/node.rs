//! A real `ioex-engine` on loopback with a published file, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use identity::token::{self, Action, Claims, Scope};
use identity::{SecretKey, Uid, certificate};
use rcgen::PublicKeyData;
use relay::policy::{Decoder, FromEngine, Limits, Policy, ToEngine, encode_to_engine};
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
    /// Number of shards, a core each.
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
    node_uid: Uid,
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
            lease_expires_s: None,
        };
        token::to_text(&claims.sign(key))
    }

    /// The sum over the shards of a counter, given as the metrics endpoint names it: `name` or `label="value"` with it.
    pub fn counter(&self, name: &str, label: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).expect("connect to the metrics endpoint");
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics");
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with(name) && line.contains(label)).collect();
        assert!(!lines.is_empty(), "no metric {name} with {label}");
        lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// The engine's resident memory, without the pages of mapped packs.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Hands the engine a policy over its control socket, as `ioex up` does.
    pub fn set_policy(&self, settings: Settings) {
        let limits = Limits { retry_handshakes_min: settings.retry_above, ..Limits::default() };
        let policy = Policy {
            generation: 1,
            publishers: vec![*publisher().uid().as_bytes()],
            limits,
            ..Policy::default()
        };
        match self.ask(&ToEngine::SetPolicy(policy)) {
            FromEngine::PolicyApplied { generation: 1 } => {}
            other => panic!("the engine did not take the policy: {other:?}"),
        }
    }

    /// One question over the control socket and the first answer.
    pub fn ask(&self, message: &ToEngine) -> FromEngine {
        let path = self.folder.path().join("data/run/engine.sock");
        let mut stream = UnixStream::connect(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        stream.write_all(&encode_to_engine(message).expect("a frame")).expect("write");
        let mut decoder = Decoder::<FromEngine>::new();
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = decoder.next_message().expect("a valid frame") {
                return answer;
            }
            let len = stream.read(&mut buffer).expect("read");
            assert!(len > 0, "the engine closed the control socket without an answer");
            decoder.push(&buffer[..len]);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Identity and certificate as `ioex up` makes them.
fn lay_out_data_directory(data: &Path) -> Uid {
    let key = SecretKey::from_seed([2; 32]);
    for folder in ["identity", "tls"] {
        std::fs::create_dir_all(data.join(folder)).expect("create");
    }
    std::fs::write(data.join("identity/uid.pub"), format!("{}\n", key.uid())).expect("write the UID");
    let pair = rcgen::KeyPair::generate().expect("a P-256 key");
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a host name");
    let binding = certificate::extension_value(&key, &pair.subject_public_key_info());
    parameters
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(certificate::EXTENSION_OID, binding));
    let certificate = parameters.self_signed(&pair).expect("a certificate");
    std::fs::write(data.join("tls/cert.pem"), certificate.pem()).expect("write the certificate");
    let key_path = data.join("tls/key.pem");
    std::fs::write(&key_path, pair.serialize_pem()).expect("write the key");
    std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    key.uid()
}

/// Puts a file and its list into the store, before the engine takes it over.
fn publish(data: &Path, file: &[u8]) -> (Vec<Hash>, Hash) {
    let folder = data.join("store");
    let (store, _) =
        Store::open(&folder, Options::default(), Arc::new(FileBackend::new())).expect("an empty store");
    let segments: Vec<(Hash, &[u8])> = store::split::segments(file, store::SEGMENT_LEN_DEFAULT).collect();
    let list = ListBuilder {
        name: "firmware.img".to_owned(),
        version: (1, 0, 0),
        counter: 1,
        expires_s: 0,
        target: String::new(),
        file_hash: Some(Hash::of(file)),
        ..ListBuilder::plain(segments.iter().map(|(hash, bytes)| (*hash, bytes.len() as u32)))
    }
    .sign(&publisher())
    .expect("a list");
    let address = Hash::of(&list);
    let mut batch: Vec<_> =
        segments.iter().map(|(hash, bytes)| (*hash, bytes::Bytes::copy_from_slice(bytes))).collect();
    batch.push((address, list.into()));
    store.append(batch).expect("append");
    (segments.into_iter().map(|(hash, _)| hash).collect(), address)
}

/// Starts the engine and waits for its ready line.
fn spawn(data: &Path, settings: Settings) -> (Child, SocketAddr, SocketAddr) {
    let cores: Vec<String> = (0..settings.shards).map(|core| core.to_string()).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ioex-engine"))
        .arg("--data")
        .arg(data)
        .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json"])
        .args(["--driver", settings.driver, "--cores", &cores.join(",")])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the engine");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("standard output is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("the ready line");
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not ready: {e}: {line}"));
    let udp = ready["listeners"]
        .as_array()
        .expect("listeners")
        .iter()
        .find_map(|listener| listener.as_str()?.strip_prefix("udp://")?.parse().ok())
        .expect("a UDP listener");
    let metrics = ready["metrics"].as_str().expect("metrics").trim_start_matches("http://");
    let metrics = metrics.trim_end_matches("/metrics").parse().expect("an address");
    (child, udp, metrics)
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
