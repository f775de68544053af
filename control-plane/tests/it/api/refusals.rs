//! What is wrong with a request is said in a problem document, and costs little.

use super::{Answer, ask, connect, get};
use crate::node::Node;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

const JSON: &str = "content-type: application/json";

fn assert_problem(answer: &Answer, status: u16, detail: &str) {
    assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")));
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["type"]), (&status.into(), &"about:blank".into()));
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
}

#[test]
fn every_refusal_is_a_problem_document() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let node = Node::up(home, &["--mailbox", "local"]);
    let mode = std::fs::metadata(home.join("data/run/api.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A request that never ends is not waited for. Others are answered meanwhile.
    let mut stalled = connect(home);
    stalled.write_all(b"GET /v1/node HTTP/1.1\r\nhost: loc").unwrap();

    let state = get(home, "/v1/node").json();
    assert_eq!(state["uid"], node.ready["uid"]);
    assert_eq!(state["engine"]["pid"], node.ready["engine"]["pid"]);
    let long = format!("{{\"to\":\"{}\",\"text\":\"x\"}}", "x".repeat(64 << 10));
    let too_long = "x".repeat((5 << 20) + 1);
    for (request, headers, body, status, detail) in [
        ("GET /", vec![], "", 404, "/openapi.json"),
        ("GET /v1/friends/", vec![], "", 404, "/openapi.json"),
        ("DELETE /v1/friends", vec![], "", 405, "no such method"),
        ("GET /v1/dht", vec![], "", 404, "dht.listen"),
        ("GET /v1/relay/sessions", vec![], "", 404, "relay.listen"),
        ("GET /v1/relay/sessions?limit=10001", vec![], "", 400, "10000"),
        ("GET /v1/inbox?after=-1", vec![], "", 400, "after"),
        ("GET /v1/inbox?aftr=1", vec![], "", 400, "aftr"),
        ("GET /v1/inbox?limit=0", vec![], "", 400, "limit is 0"),
        ("GET /v1/inbox/events", vec!["last-event-id: x"], "", 400, "Last-Event-ID"),
        ("GET /v1/friends/nobody", vec![], "", 400, "no friend's label"),
        ("DELETE /v1/friends/%ff", vec![], "", 400, "UTF-8"),
        ("POST /v1/messages", vec![], "{}", 415, "Content-Type"),
        ("POST /v1/messages", vec![JSON], "{", 400, ""),
        ("POST /v1/messages", vec![JSON], "{}", 422, "to"),
        ("POST /v1/messages", vec![JSON], r#"{"to":"x","text":"x","cc":"y"}"#, 422, "cc"),
        ("POST /v1/messages", vec![JSON], r#"{"to":"x","text":""}"#, 422, "empty"),
        ("POST /v1/messages", vec![JSON], long.as_str(), 413, ""),
        ("POST /v1/files?to=x", vec![], "x", 400, "name"),
        ("POST /v1/files?to=x&name=y", vec![], "", 422, "empty"),
        ("POST /v1/files?to=x&name=%2E%2E", vec![], "x", 422, "directory"),
        ("POST /v1/files?to=x&name=y", vec![], "x", 422, "no friend's label"),
        ("POST /v1/files?to=x&name=y", vec![], too_long.as_str(), 413, "5 MiB"),
        ("GET /v1/files/1", vec![], "", 404, "no file 1"),
        ("GET /v1/inbox/1/file", vec![], "", 404, "message 1"),
        ("POST /v1/friends", vec![JSON], r#"{"address":"x"}"#, 400, "`x`"),
        ("PATCH /v1/profile", vec![JSON], r#"{"presence":"gone"}"#, 422, "gone"),
    ] {
        let answer = ask(home, request, &headers, body.as_bytes());
        assert_problem(&answer, status, detail);
    }
    assert_eq!(stalled.read(&mut [0; 1]).unwrap_or(0), 0, "the connection was closed without a word");
    node.end();
}

#[test]
fn a_node_without_a_mailbox_says_how_to_get_one() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::up(home.path(), &[]);
    assert_eq!(get(home.path(), "/v1/node").json()["mailbox"], "off");
    for path in ["/v1/friends", "/v1/profile", "/v1/inbox", "/v1/inbox/events", "/v1/inbox/1/file"] {
        assert_problem(&get(home.path(), path), 404, "ioex up --mailbox");
    }
    node.end();
}
