//! The API under schemathesis, a program by others, which makes requests from the document that the node itself serves.

use super::{get, until};
use crate::node::{Node, on};
use std::path::Path;
use std::process::Command;

/// Requests of each kind that are drawn at random; some twenty more are made by rule.
const EXAMPLES: &str = "8";

#[test]
fn it_answers_what_its_document_says() {
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, two) = (homes[0].path(), homes[1].path());
    let first = Node::up(two, &["--dht", "127.0.0.1:0"]);
    let listens = first.ready["dht"].as_str().unwrap();
    let mut up = on(one, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--relay", "127.0.0.1:0", "--mailbox", "local"]);
    up.args(["--dht", "127.0.0.1:0", "--dht-bootstrap", listens]).env("IOEX_API_LISTEN", "0");
    let node = Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"));
    // Here it is to have everything.
    until(|| get(one, "/v1/node").json()["mailbox"] == "connected");
    until(|| get(one, "/v1/dht").json()["record"]["sequence_ms"].is_number());

    let address = node.ready["api"].as_str().unwrap();
    let token = std::fs::read_to_string(one.join("data/api/token")).unwrap();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/schemathesis");
    assert!(program.exists(), "{} is missing; run: .ci/setup test", program.display());
    let mut schemathesis = Command::new(program);
    schemathesis
        .current_dir(one)
        .arg("--config-file")
        .arg(clients.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{address}/openapi.json"));
    schemathesis.args(["--header", &format!("Authorization: Bearer {}", token.trim())]);
    // What a name in a request means is not in the document, so that requests which fit it may still be refused.
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,unsupported_method";
    schemathesis.args(["--checks", checks, "--phases", "examples,coverage,fuzzing"]);
    schemathesis.args(["--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "60", "--no-color"]);
    // Its answer has no end.
    schemathesis.args(["--exclude-path", "/v1/inbox/events"]);
    let output = schemathesis.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    // So that a document it cannot read is not taken for one without faults.
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: ")?.parse::<u32>().ok());
    assert!(tested >= Some(20), "{said}");
    assert_eq!(get(one, "/readyz").status, 200);
    node.end();
    first.end();
}
