//! What operators need of it: TCP for who has the token, health, and numbers of both planes.

use super::{Answer, ask, get, until};
use crate::node::{Node, on};
use rustix::process::{Signal, kill_process};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A node that also answers over TCP.
fn up(home: &Path) -> Node {
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--mailbox", "local"]).env("IOEX_API_LISTEN", "0");
    Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
}

fn over_tcp(node: &Node, path: &str, header: &str) -> Answer {
    let mut stream = TcpStream::connect(node.ready["api"].as_str().unwrap()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    Answer::read(&mut stream)
}

#[test]
fn over_tcp_it_answers_whoever_shows_the_token() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let node = up(home);
    assert!(node.ready["api"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", node.ready["api"]);
    let path = home.join("data/api/token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert_eq!(token.len(), 64);
    for header in [
        String::new(),
        "authorization: Bearer\r\n".into(),
        format!("authorization: Bearer {}\r\n", &token[1..]),
        format!("authorization: Basic {token}\r\n"),
        format!("cookie: {token}\r\n"),
    ] {
        for path in ["/v1/node", "/metrics", "/healthz", "/nothing"] {
            let answer = over_tcp(&node, path, &header);
            assert_eq!(answer.status, 401, "{path} {header}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("bearer"));
            assert!(!answer.body.contains(&token) && answer.json()["detail"].is_string());
        }
    }
    let answer = over_tcp(&node, "/v1/node", &format!("authorization: bearer {token}\r\n"));
    assert_eq!((answer.status, &answer.json()["uid"]), (200, &node.ready["uid"]));
    node.end();
    // The next start keeps it.
    let node = up(home);
    assert_eq!(over_tcp(&node, "/healthz", &format!("Authorization: Bearer {token}\r\n")).status, 200);
    node.end();
    // One that can be guessed is refused.
    std::fs::write(&path, "secret\n").unwrap();
    let refused = on(home, "up").env("IOEX_API_LISTEN", "127.0.0.1:0").output().unwrap();
    assert!(!refused.status.success() && crate::program::err(&refused).contains("has 6 bytes"));
}

/// The numbers, by series.
fn metrics(home: &Path) -> Vec<(String, u64)> {
    let answer = get(home, "/metrics");
    assert_eq!(
        (answer.status, answer.header("content-type").unwrap().contains("version=0.0.4")),
        (200, true)
    );
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let mut samples = Vec::new();
    for line in answer.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = name.to_owned();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next().unwrap(), family, "{line} stands with its family");
            assert!(samples.iter().all(|(other, _)| other != series), "{series} comes twice");
            samples.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    samples
}

fn value(home: &Path, series: &str) -> Option<u64> {
    metrics(home).into_iter().find(|(name, _)| name == series).map(|(_, value)| value)
}

#[test]
fn health_and_numbers_follow_the_engine() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut node = Node::up(home, &["--mailbox", "local", "--dht", "127.0.0.1:0"]);
    assert_eq!(get(home, "/healthz").json()["healthy"], true);
    assert_eq!(get(home, "/readyz").json()["ready"], true);
    until(|| value(home, "ioex_mailbox_connected") == Some(1));
    for (series, expected) in [
        ("ioex_engine_up", 1),
        ("ioex_engine_restarts_total", 0),
        ("ioex_friends{standing=\"friend\"}", 0),
        ("ioex_messages_sent_total{result=\"delivered\"}", 0),
        ("ioex_dht_lists", 0),
        ("ioex_mailbox_sessions{shard=\"0\"}", 1),
    ] {
        assert_eq!(value(home, series), Some(expected), "{series}");
    }
    assert_eq!(value(home, "ioex_policy_generation"), node.ready["policy_generation"].as_u64());
    assert!(value(home, "ioex_policy_age_seconds").is_some() && value(home, "ioex_chain_height").is_none());

    kill_process(node.engine(), Signal::KILL).unwrap();
    node.event("engine_died");
    node.event("engine_started");
    assert_eq!(get(home, "/readyz").status, 200);
    assert_eq!(value(home, "ioex_engine_restarts_total"), Some(1));
    // Without an engine that answers it is not ready, and says so; the control plane lives.
    std::fs::rename(home.join("data/run/engine.sock"), home.join("data/run/away")).unwrap();
    let answer = get(home, "/readyz");
    assert_eq!((answer.status, answer.header("content-type")), (503, Some("application/problem+json")));
    assert_eq!(value(home, "ioex_engine_up"), Some(0));
    assert_eq!(ask(home, "HEAD /healthz", &[], b"").status, 200);
    std::fs::rename(home.join("data/run/away"), home.join("data/run/engine.sock")).unwrap();
    node.end();
}
