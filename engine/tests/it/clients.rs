//! Programs by others against the engine: libcurl's ngtcp2 build, aioquic and plain curl, over both drivers.

use serde_json::Value;

use crate::lossy_path::{Faults, LossyPath};
use crate::node::{DRIVERS, Node, Settings, noise, python};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// One request by libcurl over HTTP/3 and nothing else.
fn curl_http3(node: &Node, path: &str, arguments: &[&str]) -> Value {
    let url = format!("https://{}{path}", node.address);
    let answer = python("libcurl_http3.py", &[&[url.as_str()], arguments].concat());
    if answer["error"].is_null() {
        // 30 is CURL_HTTP_VERSION_3.
        assert_eq!(answer["http_version"], 30, "{answer}");
    }
    answer
}

fn header<'a>(answer: &'a Value, name: &str) -> Option<&'a str> {
    answer["headers"].as_array()?.iter().find(|h| h[0] == name)?[1].as_str()
}

#[test]
fn libcurl_reads_segments_and_lists() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let file = node.published();
        let hash = node.segments()[0];
        let first = &file[..MIB];
        let path = format!("/b3/{hash}");

        let answer = curl_http3(&node, &path, &["--output", &node.scratch("whole")]);
        assert_eq!(answer["status"], 200, "{driver}: {answer}");
        assert_eq!(header(&answer, "content-length"), Some("1048576"));
        assert_eq!(header(&answer, "accept-ranges"), Some("bytes"));
        assert!(header(&answer, "cache-control").expect("cache-control").contains("immutable"));
        let etag = header(&answer, "etag").expect("etag").to_owned();
        assert_eq!(etag, format!("\"{hash}\""));
        assert_eq!(node.read_scratch("whole"), first);

        let head = curl_http3(&node, &path, &["--method", "HEAD"]);
        assert_eq!((&head["status"], &head["bytes"]), (&Value::from(200), &Value::from(0)));
        assert_eq!(header(&head, "content-length"), Some("1048576"));

        let range = curl_http3(
            &node,
            &path,
            &["--header", "range: bytes=1000-4999", "--output", &node.scratch("range")],
        );
        assert_eq!(range["status"], 206, "{driver}: {range}");
        assert_eq!(header(&range, "content-range"), Some("bytes 1000-4999/1048576"));
        assert_eq!(node.read_scratch("range"), &first[1000..5000]);

        let fresh = curl_http3(&node, &path, &["--header", &format!("if-none-match: {etag}")]);
        assert_eq!((&fresh["status"], &fresh["bytes"]), (&Value::from(304), &Value::from(0)));

        let beyond = curl_http3(&node, &path, &["--header", "range: bytes=1048576-"]);
        assert_eq!(beyond["status"], 416);
        assert_eq!(header(&beyond, "content-range"), Some("bytes */1048576"));

        let whole =
            curl_http3(&node, &format!("/list/{}", node.list()), &["--output", &node.scratch("file")]);
        assert_eq!(whole["status"], 200, "{driver}: {whole}");
        assert_eq!(node.read_scratch("file"), file);

        // A range that crosses two segment borders.
        let across = curl_http3(
            &node,
            &format!("/list/{}", node.list()),
            &["--header", "range: bytes=1048000-3200000", "--output", &node.scratch("across")],
        );
        assert_eq!(across["status"], 206);
        assert_eq!(node.read_scratch("across"), &file[1_048_000..=3_200_000]);
    }
}

#[test]
fn libcurl_is_refused_with_problem_documents() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let unknown = "0".repeat(64);
        let huge = format!("x-padding: {}", "a".repeat(60_000));
        let held = format!("/b3/{}", node.segments()[0]);
        for (path, arguments, status) in [
            (format!("/b3/{unknown}"), vec![], 404),
            (format!("/list/{unknown}"), vec![], 404),
            ("/b3/xyz".to_owned(), vec![], 400),
            ("/".to_owned(), vec![], 404),
            (held.clone(), vec!["--method", "PATCH"], 405),
            (held.clone(), vec!["--method", "POST"], 401),
            (held.clone(), vec!["--header", &huge], 431),
        ] {
            let answer = curl_http3(&node, &path, &arguments);
            assert_eq!(answer["status"], status, "{driver}: {path}: {answer}");
            assert_eq!(header(&answer, "content-type"), Some("application/problem+json"), "{answer}");
            let problem: Value =
                serde_json::from_str(answer["body"].as_str().expect("body")).expect("a JSON problem");
            assert_eq!(problem["status"], status);
            assert!(problem["title"].is_string());
        }
        let health = curl_http3(&node, "/healthz", &[]);
        assert_eq!(health["status"], 200);
    }
}

#[test]
fn libcurl_uploads_with_a_token() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let bytes = noise(77, 3 * MIB / 2);
        let hash = store::Hash::of(&bytes);
        let path = format!("/b3/{hash}");
        let upload = node.scratch("upload");
        std::fs::write(&upload, &bytes).expect("write the upload");
        let put = |arguments: &[&str]| {
            curl_http3(&node, &path, &[&["--method", "PUT", "--upload", &upload], arguments].concat())
        };

        assert_eq!(put(&[])["status"], 401, "{driver}");
        let stranger = format!("authorization: Bearer {}", node.token_of_a_stranger(&hash));
        assert_eq!(put(&["--header", &stranger])["status"], 401, "{driver}: no token of a publisher");
        let other = store::Hash::of(&noise(78, 10));
        let elsewhere = format!("authorization: Bearer {}", node.token(&other));
        assert_eq!(put(&["--header", &elsewhere])["status"], 403, "{driver}: a token for another hash");
        assert_eq!(curl_http3(&node, &path, &[])["status"], 404, "{driver}: refused means absent");

        let authorization = format!("authorization: Bearer {}", node.token(&hash));
        let stored = put(&["--header", &authorization]);
        assert_eq!(stored["status"], 201, "{driver}: {stored}");
        let back = curl_http3(&node, &path, &["--output", &node.scratch("back")]);
        assert_eq!(back["status"], 200);
        assert_eq!(node.read_scratch("back"), bytes);

        let again = put(&["--header", &authorization]);
        assert_eq!(again["status"], 200, "{driver}: held already: {again}");

        // The same length, another content: whether the hash is held or not, the body is compared.
        let mut wrong = bytes.clone();
        wrong[MIB] ^= 1;
        std::fs::write(&upload, &wrong).expect("write the wrong upload");
        let refused = put(&["--header", &authorization]);
        assert!([409, 422].contains(&refused["status"].as_u64().unwrap_or(0)), "{driver}: {refused}");
        let absent = format!("/b3/{other}");
        let authorization = format!("authorization: Bearer {}", node.token(&other));
        let refused =
            curl_http3(&node, &absent, &["--method", "PUT", "--upload", &upload, "--header", &authorization]);
        assert_eq!(refused["status"], 422, "{driver}: {refused}");
        assert_eq!(curl_http3(&node, &absent, &[])["status"], 404);
    }
}

#[test]
fn curl_reads_the_same_over_http_2_and_1_1() {
    let node = Node::start(Settings::default());
    let file = node.published();
    for (version, shown) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for (path, range, status, expected) in [
            (format!("/list/{}", node.list()), None, "200", file),
            (format!("/list/{}", node.list()), Some("100-2000000"), "206", &file[100..=2_000_000]),
            (format!("/b3/{}", node.segments()[0]), Some("-10"), "206", &file[MIB - 10..MIB]),
        ] {
            let output = node.scratch("tcp");
            let mut curl = std::process::Command::new("curl");
            curl.args(["--silent", "--show-error", "--insecure", "--max-time", "60", version]);
            curl.args(["--output", &output, "--dump-header", "-"]);
            curl.args(["--write-out", "%{http_code} %{http_version}"]);
            if let Some(range) = range {
                curl.args(["--range", range]);
            }
            let out = curl.arg(format!("https://{}{path}", node.address)).output().expect("curl runs");
            let text = String::from_utf8_lossy(&out.stdout).to_lowercase();
            assert!(
                out.status.success(),
                "{version} {path}: {text} {}",
                String::from_utf8_lossy(&out.stderr)
            );
            assert!(text.ends_with(&format!("{status} {shown}")), "{text}");
            assert!(text.contains("alt-svc: h3="), "{text}");
            assert_eq!(node.read_scratch("tcp"), expected);
        }
    }
}

/// Runs a scenario of the aioquic client against the node.
fn scripted(node: &Node, scenario: &str, path: &str, arguments: &[&str]) -> Value {
    let port = node.address.port().to_string();
    python("scripted_http3.py", &[&[scenario, "127.0.0.1", &port, path], arguments].concat())
}

#[test]
fn aioquic_moves_between_ports_in_the_middle_of_a_transfer() {
    for (driver, shards) in [("uring", 1), ("epoll", 1), ("uring", 2), ("epoll", 2)] {
        let node = Node::start(Settings { driver, shards, ..Settings::default() });
        let path = format!("/list/{}", node.list());
        let seen = scripted(&node, "migrate", &path, &["--count", "3", "--output", &node.scratch("moved")]);
        assert_eq!(seen["done"], true, "{driver}, {shards} shards: {seen}");
        assert!(seen["moves"].as_u64().expect("moves") >= 1, "{seen}");
        assert_eq!(node.read_scratch("moved"), node.published(), "{driver}, {shards} shards");
        let migrated = node.counter("ioex_paths_total", "result=\"migrated\"");
        assert!(migrated >= 1, "{driver}, {shards} shards: the server noticed");
    }
}

#[test]
fn aioquic_is_answered_as_rfc_9114_says_when_it_breaks_the_rules() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let seen = scripted(&node, "malformed", "/healthz", &[]);
        const H3_STREAM_CREATION_ERROR: u64 = 0x103;
        const H3_FRAME_UNEXPECTED: u64 = 0x105;
        const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
        for (violation, code) in [
            ("data-first", H3_FRAME_UNEXPECTED),
            ("settings-on-request", H3_FRAME_UNEXPECTED),
            ("second-control-stream", H3_STREAM_CREATION_ERROR),
            ("qpack-garbage", QPACK_DECOMPRESSION_FAILED),
        ] {
            assert_eq!(seen[violation]["closed_with"], code, "{driver}: {violation}: {seen}");
        }
        assert!(seen["truncated-frame"]["status"].is_null(), "{driver}: no answer to half a frame: {seen}");
        // The node is none the worse.
        assert_eq!(curl_http3(&node, "/healthz", &[])["status"], 200);
    }
}

#[test]
fn unknown_versions_and_unknown_connections_are_answered_sparingly() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let seen = scripted(&node, "version", "/", &[]);
        assert_eq!(seen["version_field"], 0, "{driver}: {seen}");
        assert_eq!(seen["ids_echoed"], true);
        assert!(seen["versions"].as_array().expect("versions").contains(&Value::from(1)), "{seen}");
        assert!(seen["answer_bytes"].as_u64().expect("bytes") <= 3 * 1200);
        assert_eq!(seen["small_answered"], false);

        let seen = scripted(&node, "reset", "/", &[]);
        let answers = |of: &str| -> Vec<(u64, u64, bool)> {
            let number = |value: &Value| value.as_u64().expect("a number");
            let list = seen[of].as_array().expect("a list");
            list.iter().map(|a| (number(&a[0]), number(&a[1]), a[2] == true)).collect()
        };
        for (sent, received, is_token) in answers("known") {
            assert!(received < sent, "{driver}: a reset is smaller than what provoked it: {seen}");
            assert!(is_token == (received > 0), "{driver}: the token is the connection's: {seen}");
            assert!(sent < 43 || received >= 21, "{driver}: no reset came: {seen}");
        }
        // An id that this server never made is not worth an answer.
        assert!(answers("unknown").iter().all(|(_, received, _)| *received == 0), "{driver}: {seen}");
    }
}

#[test]
fn clients_that_vanish_dawdle_or_flood_cost_others_nothing() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, retry_above: 64, ..Settings::default() });
        let path = format!("/list/{}", node.list());
        assert_eq!(scripted(&node, "vanish", &path, &["--count", "10"])["asked"], 10, "{driver}");

        let before = node.resident_bytes();
        let flood = scripted(&node, "half-open", "/", &["--count", "10000"]);
        let (sent, received) = (&flood["sent_bytes"], &flood["received_bytes"]);
        assert!(
            received.as_u64().expect("received") <= 3 * sent.as_u64().expect("sent"),
            "{driver}: amplification: {flood}"
        );
        // What the client saw of them is what its socket had room for.
        let retries = node.counter("ioex_stateless_answers_total", "kind=\"retry\"");
        assert!(retries > 1_000, "{driver}: {retries} Retries under load: {flood}");
        let grown = node.resident_bytes().saturating_sub(before);
        assert!(grown < 64 * MIB as u64, "{driver}: 10,000 half-open handshakes took {grown} bytes");

        let get = scripted(&node, "get", &path, &["--output", &node.scratch("after")]);
        assert_eq!(get["done"], true, "{driver}: {get}");
        assert_eq!(node.read_scratch("after"), node.published());

        let slow = scripted(&node, "slow", &path, &[]);
        assert_eq!(slow["status"], 200, "{driver}: {slow}");
        let rapid = scripted(&node, "rapid", &path, &["--count", "2000"]);
        assert!(rapid["sent"].as_u64().expect("sent") > 100, "{driver}: {rapid}");
        assert_eq!(curl_http3(&node, "/healthz", &[])["status"], 200, "{driver}: still alive");
    }
}

#[test]
fn a_client_with_a_retry_token_is_let_in_under_load() {
    for driver in DRIVERS {
        let node = Node::start(Settings { driver, retry_above: 0, ..Settings::default() });
        let path = format!("/b3/{}", node.segments()[0]);
        let seen = scripted(&node, "get", &path, &["--output", &node.scratch("retried")]);
        assert_eq!((&seen["done"], &seen["retried"]), (&true.into(), &true.into()), "{driver}: {seen}");
        assert_eq!(node.read_scratch("retried"), &node.published()[..MIB]);
    }
}

#[test]
fn transfers_survive_loss_reordering_duplication_and_delay() {
    for (driver, seed) in [("uring", 1), ("epoll", 2)] {
        let node = Node::start(Settings { driver, ..Settings::default() });
        let path = LossyPath::to(
            node.address,
            Faults {
                lost_permille: 20,
                duplicated_permille: 20,
                reordered_permille: 50,
                delay_max: Duration::from_millis(3),
                seed,
            },
        );
        let port = path.address.port().to_string();
        let list = format!("/list/{}", node.list());
        let output = node.scratch("lossy");
        let seen = python("scripted_http3.py", &["get", "127.0.0.1", &port, &list, "--output", &output]);
        assert_eq!(seen["done"], true, "{driver}: {seen}");
        assert_eq!(node.read_scratch("lossy"), node.published(), "{driver}");
        assert!(path.dropped() > 0, "a path that loses nothing proves nothing");
    }
}
