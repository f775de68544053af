//! An engine that takes the place of a running one: what both serve, store and leave alone meanwhile.

use super::engine::{Engine, data_directory, start_in_vain, wait_until};
use super::segment;
use crate::shard::Remote;
use identity::SecretKey;
use identity::token::{self, Action, Claims, Scope};
use relay::policy::{FromEngine, Policy, ToEngine};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use store::Hash;

/// Of the tests' own data directory, where it is the publisher, too.
fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn start(data: &Path, arguments: &[&str]) -> Engine {
    let engine = Engine::start(data, arguments);
    let mut policy = Policy { generation: 1, publishers: vec![*key().uid().as_bytes()], ..Policy::default() };
    policy.limits.drain_timeout_ms = 60_000;
    match engine.control().ask(&ToEngine::SetPolicy(policy)) {
        FromEngine::PolicyApplied { .. } => engine,
        other => panic!("{other:?}"),
    }
}

/// Starts the next engine, with which the one before it drains.
fn take_over(data: &Path, arguments: &[&str]) -> Engine {
    Engine::start(data, &[arguments, &["--take-over"]].concat())
}

fn address(engine: &Engine) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], engine.port()))
}

fn token() -> String {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = Claims {
        issuer: key().uid(),
        subject: key().uid(),
        audience: key().uid(),
        not_before_s: now_s - 10,
        expires_s: now_s + 7_200,
        token_id: [4; 16],
        action: Action::Put,
        scope: Scope::Any,
        bytes_max: None,
        lease_expires_s: None,
    };
    format!("Bearer {}", token::to_text(&claims.sign(&key())))
}

fn get(path: &str) -> [(&str, &str); 2] {
    [(":method", "GET"), (":path", path)]
}

/// Stores a segment over a connection; the status of the answer.
fn put(remote: &mut Remote, bytes: &[u8]) -> u16 {
    let (path, len, token) = (format!("/b3/{}", Hash::of(bytes)), bytes.len().to_string(), token());
    let fields = [(":method", "PUT"), (":path", &path), ("authorization", &token), ("content-length", &len)];
    remote.ask(&fields, bytes).status()
}

/// Datagrams that an engine has passed on to the one before it.
fn passed_on(engine: &Engine) -> u64 {
    let shards = engine.ready["shards"].as_array().expect("shards").len();
    let of = |shard| engine.metric(&format!("ioex_datagrams_passed_on_total{{shard=\"{shard}\"}}"));
    (0..shards).map(of).sum()
}

fn takes_over(arguments: &[&str]) {
    let data = data_directory();
    let mut old = start(data.path(), arguments);
    let (_, file) = segment(1, 16 << 20);
    let (_, imported) = old.control().publish(&file, 16 << 20);
    let path = format!("/b3/{}", Hash(imported.segments[0].0));

    // Both are in the middle of something when the new engine comes: the one of an answer, the other of an upload, of which the
    // first bytes have arrived.
    let mut reader = Remote::join(address(&old));
    // The answer is longer than its stream's window: it cannot end before it is read.
    reader.client.reads = false;
    let read = reader.client.request(&get(&path), b"");
    reader.until("some of it", |client| client.quic.stats().recv > 100);
    let mut writer = Remote::join(address(&old));
    let (_, upload) = segment(2, 16 << 20);
    let (to, len, token) = (format!("/b3/{}", Hash::of(&upload)), upload.len().to_string(), token());
    let fields = [(":method", "PUT"), (":path", &to), ("authorization", &token), ("content-length", &len)];
    let write = writer.client.request(&fields, &upload);
    writer.until("a part of it", |client| client.quic.stats().sent > 100);

    let mut new = take_over(data.path(), arguments);
    assert_eq!(new.port(), old.port());
    assert_eq!(new.ready["metrics"], old.ready["metrics"]);
    assert_ne!(new.pid(), old.pid());
    assert_eq!(new.control().status().pid, new.pid(), "the control socket is the new one's");
    assert!(old.has_ended().is_none(), "it has connections to finish: {}", old.log());

    // New connections are the new engine's, and so is the store.
    let mut next = Remote::join(address(&new));
    assert!(next.ask(&get(&path), b"").body == file);
    let (_, another) = segment(3, 300_000);
    assert_eq!(put(&mut next, &another), 201);
    let before = passed_on(&new);

    reader.client.reads = true;
    reader.until("the rest", |client| client.is_answered(read));
    let answer = &reader.client.answers[&read];
    assert!(answer.status() == 200 && answer.body == file, "{} bytes of {}", answer.body.len(), file.len());
    writer.until("the answer", |client| client.is_answered(write));
    assert_eq!(writer.client.answers[&write].status(), 201, "{}", new.log());
    assert!(passed_on(&new) > before, "through the new engine");
    for remote in [&mut reader, &mut writer] {
        remote.until("the end", |client| client.quic.peer_error().is_some());
        let error = remote.client.quic.peer_error().expect("it was closed").error_code;
        assert_eq!(error, quiche::h3::WireErrorCode::NoError as u64, "and not before it was done");
    }
    assert_eq!(old.wait().code(), Some(0), "{}", old.log());

    // What came through the old engine is in the store, after a restart, too.
    let uploaded = format!("/b3/{}", Hash::of(&upload));
    assert!(next.ask(&get(&uploaded), b"").body == upload);
    assert!(data.path().join("run/engine.sock").exists() && data.path().join("run/upgrade.sock").exists());
    new.signal(rustix::process::Signal::TERM);
    drop(next);
    assert_eq!(new.wait().code(), Some(0), "{}", new.log());
    let again = Engine::start(data.path(), arguments);
    let mut remote = Remote::join(address(&again));
    for (path, bytes) in [(&path, &file[..]), (&uploaded, &upload[..])] {
        assert!(remote.ask(&get(path), b"").body == bytes);
    }
}

#[test]
fn an_engine_on_epoll_takes_over_from_another() {
    takes_over(&["--driver", "epoll", "--storage", "threads"]);
}

#[test]
fn an_engine_on_the_ring_takes_over_from_another() {
    // Where the ring is blocked this is epoll once more, and the probe's tests say why.
    takes_over(&[]);
}

/// Says something to a running engine in the new one's place.
fn say(stream: &mut UnixStream, message: &Value) {
    let text = message.to_string();
    let mut frame = (text.len() as u32).to_le_bytes().to_vec();
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    stream.write_all(&frame).expect("the engine reads");
}

/// What it says. The descriptors that come along are lost.
fn hear(stream: &mut UnixStream) -> Value {
    let mut head = [0; 8];
    stream.read_exact(&mut head).expect("an answer");
    let [a, b, c, d, e, f, g, h] = head;
    let mut text = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
    stream.read_exact(&mut text).expect("an answer");
    let mut bytes = vec![0; u32::from_le_bytes([e, f, g, h]).div_ceil(64) as usize];
    stream.read_exact(&mut bytes).expect("a byte for every 64 descriptors");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn an_engine_goes_on_when_the_new_one_does_not_come_up() {
    let data = data_directory();
    let mut old = start(data.path(), &[]);
    let (_, file) = segment(1, 16 << 20);
    let (_, imported) = old.control().publish(&file, 16 << 20);
    let path = format!("/b3/{}", Hash(imported.segments[0].0));
    let mut reader = Remote::join(address(&old));
    let read = reader.client.request(&get(&path), b"");
    reader.until("some of it", |client| client.answers.values().any(|answer| !answer.body.is_empty()));
    let mut writer = Remote::join(address(&old));
    let mut seed = 10;
    let mut write = |writer: &mut Remote| {
        seed += 1;
        assert_eq!(put(writer, &segment(seed, 100_000).1), 201, "upload {seed}");
    };
    write(&mut writer);

    // Another program, another set of shards, other addresses: refused before anything is taken away.
    let socket = data.path().join("run/upgrade.sock");
    let mut stream = UnixStream::connect(&socket).expect("an engine that can be upgraded");
    say(&mut stream, &json!({ "hello": 99 }));
    assert!(hear(&mut stream)["refused"].as_str().expect("a refusal").contains("99"));
    let (code, log) = start_in_vain(data.path(), &["--take-over", "--listen", "127.0.0.1:1"]);
    assert!(code == 3 && log.contains("127.0.0.1:1") && log.contains("restart"), "{log}");
    let certificate = std::fs::read(data.path().join("tls/cert.pem")).expect("a file");
    std::fs::write(data.path().join("tls/cert.pem"), "damaged").expect("a file");
    let (code, log) = start_in_vain(data.path(), &["--take-over"]);
    assert!(code == 3, "{log}");
    std::fs::write(data.path().join("tls/cert.pem"), certificate).expect("a file");
    write(&mut writer);

    // One that dies when the store is its own, and one when the sockets are.
    for step in ["prepared", "initial_ids"] {
        let mut stream = UnixStream::connect(&socket).expect("an engine that can be upgraded");
        say(&mut stream, &json!({ "hello": 1 }));
        assert!(hear(&mut stream)["shards"].is_u64());
        say(&mut stream, &json!({ "prepare": true }));
        assert!(hear(&mut stream)["prepared"].is_boolean());
        if step == "initial_ids" {
            say(&mut stream, &json!({ "ready": true }));
            let ids = hear(&mut stream);
            let ids = ids["initial_ids"].as_array().expect("ids of every shard").clone();
            let known: usize = ids.iter().map(|shard| shard.as_array().expect("ids").len()).sum();
            assert!(known >= 2, "{ids:?}");
        }
        drop(stream);
        write(&mut writer);
        assert_eq!(Remote::join(address(&old)).ask(&get("/healthz"), b"").status(), 200, "{step}");
    }
    assert_eq!(old.control().status().pid, old.pid());
    assert!(!reader.client.goaway && !writer.client.goaway, "nobody was told to go");
    reader.until("the rest", |client| client.is_answered(read));
    assert!(reader.client.answers[&read].body == file);

    // And then one comes up.
    let new = take_over(data.path(), &[]);
    assert_eq!(new.control().status().pid, new.pid());
    drop((reader, writer));
    assert_eq!(old.wait().code(), Some(0), "{}", old.log());
}

#[test]
fn nobody_to_take_over_from_is_told() {
    let data = data_directory();
    let (code, log) = start_in_vain(data.path(), &["--take-over"]);
    assert!(code == 3 && log.contains("upgrade.sock") && log.contains("without --take-over"), "{log}");
    let relaying = ["--relay", "127.0.0.1:0", "--relay-ports", "50000-50100"];
    let engine = Engine::start(data.path(), &relaying);
    let (code, log) = start_in_vain(data.path(), &["--take-over"]);
    assert!(code == 3 && log.contains("TURN"), "{log}");
    assert_eq!(engine.control().status().pid, engine.pid());
}

/// What clients do while engines come and go.
#[derive(Default)]
struct Load {
    ended: AtomicBool,
    read: AtomicU64,
    written: AtomicU64,
    /// Tried again on a new connection, as a client does whose request was not begun (RFC 9114 section 5.2).
    again: AtomicU64,
}

impl Load {
    fn reads(&self, server: SocketAddr, files: &[(String, Vec<u8>)]) {
        let mut round = 0;
        while !self.ended.load(Relaxed) {
            let mut remote = Remote::join(server);
            for _ in 0..4 {
                let (path, bytes) = &files[round % files.len()];
                round += 1;
                if remote.client.h3.is_none() || remote.client.quic.is_closed() || remote.client.goaway {
                    break;
                }
                let answer = remote.try_ask(&get(path), b"");
                match answer {
                    Some(answer) => {
                        assert!(answer.status() == 200 && answer.body == *bytes, "{}", answer.status());
                        self.read.fetch_add(1, Relaxed);
                    }
                    None => drop(self.again.fetch_add(1, Relaxed)),
                }
            }
        }
    }

    fn writes(&self, server: SocketAddr) {
        let mut seed = 1_000;
        while !self.ended.load(Relaxed) {
            seed += 1;
            let (hash, bytes) = segment(seed, 200_000);
            let (path, len, token) = (format!("/b3/{hash}"), bytes.len().to_string(), token());
            let fields =
                [(":method", "PUT"), (":path", &path), ("authorization", &token), ("content-length", &len)];
            loop {
                let mut remote = Remote::join(server);
                let answer = remote.client.h3.is_some().then(|| remote.try_ask(&fields, &bytes)).flatten();
                if let Some(answer) = answer {
                    assert!(matches!(answer.status(), 200 | 201), "{}: {:?}", answer.status(), answer.fields);
                    break;
                }
                self.again.fetch_add(1, Relaxed);
            }
            self.written.fetch_add(1, Relaxed);
        }
    }
}

fn upgrades_in_a_row(count: usize, arguments: &[&str]) {
    let data = data_directory();
    let mut engine = start(data.path(), arguments);
    let server = address(&engine);
    let files: Vec<(String, Vec<u8>)> = (0..4)
        .map(|seed| {
            let (hash, bytes) = segment(seed, 1 << 20);
            engine.control().publish(&bytes, 1 << 20);
            (format!("/b3/{hash}"), bytes.to_vec())
        })
        .collect();
    let load = Load::default();
    std::thread::scope(|scope| {
        // Whatever happens here, the others end.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _ends = Ends(&load.ended);
        scope.spawn(|| load.reads(server, &files));
        scope.spawn(|| load.reads(server, &files));
        scope.spawn(|| load.writes(server));
        let mut before: Vec<Engine> = Vec::new();
        for upgrade in 0..count {
            let done = || load.read.load(Relaxed) + load.written.load(Relaxed);
            let so_far = done();
            let next = take_over(data.path(), arguments);
            before.push(std::mem::replace(&mut engine, next));
            assert_eq!(engine.control().status().pid, engine.pid(), "upgrade {upgrade}");
            before.retain_mut(|old| {
                let ended = old.has_ended();
                assert!(ended.is_none_or(|status| status.code() == Some(0)), "upgrade {upgrade}: {ended:?}");
                ended.is_none()
            });
            // Something goes through each of them.
            wait_until(|| (done() > so_far).then_some(()));
        }
        load.ended.store(true, Relaxed);
        for mut old in before {
            assert_eq!(old.wait().code(), Some(0), "{}", old.log());
        }
    });
    let Load { read, written, again, .. } = &load;
    let said = format!("segments read {read:?}, stored {written:?}, tried again {again:?}, failed 0");
    writeln!(std::io::stderr(), "{count} upgrades: {said}").expect("somebody listens");
    assert!(read.load(Relaxed) > 0 && written.load(Relaxed) > 0);
    // What was stored is there, whichever engine stored it.
    let mut remote = Remote::join(server);
    for seed in 1_001..=1_000 + written.load(Relaxed) {
        let (hash, bytes) = segment(seed, 200_000);
        let path = format!("/b3/{hash}");
        assert!(remote.ask(&get(&path), b"").body == bytes, "segment {seed}");
    }
}

#[test]
fn ten_upgrades_under_load_fail_no_transfer() {
    upgrades_in_a_row(5, &[]);
    upgrades_in_a_row(5, &["--driver", "epoll", "--storage", "threads"]);
}

#[test]
#[ignore = "some minutes; run it with -- --ignored --nocapture thousand"]
fn a_thousand_upgrades_under_load_fail_no_transfer() {
    upgrades_in_a_row(1_000, &[]);
}
