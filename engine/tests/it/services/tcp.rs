//! Plain curl over HTTP/1.1 and HTTP/2.

use super::engine::{Engine, data_directory, wait_until};
use super::segment;
use relay::policy::{FromEngine, Policy, ToEngine};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use store::Hash;
use tokio_rustls::rustls;

/// An answer as curl shows it: version and status of the first line, fields, body.
struct Answer {
    version: String,
    status: u16,
    fields: HashMap<String, String>,
    body: Vec<u8>,
}

fn get(engine: &Engine, arguments: &[&str]) -> Answer {
    let output = engine.curl(&[&["--include"], arguments].concat());
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").expect("a header's end");
    let header = std::str::from_utf8(&output.stdout[..end]).expect("text");
    let mut lines = header.lines();
    let mut first = lines.next().expect("a status line").split(' ');
    Answer {
        version: first.next().expect("a version").to_owned(),
        status: first.next().and_then(|status| status.parse().ok()).expect("a status"),
        fields: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: output.stdout[end + 4..].to_vec(),
    }
}

const VERSIONS: [(&str, &str); 2] = [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")];

#[test]
fn segments_and_files_are_served_like_over_http3() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let (_, bytes) = segment(1, 700_001);
    let (list, imported) = engine.control().publish(&bytes, 1 << 16);
    let (first, len) = imported.segments[0];
    let first = Hash(first);
    let alt_svc = format!("h3=\":{}\"; ma=86400", engine.port());
    for (option, version) in VERSIONS {
        let get = |arguments: &[&str]| {
            let answer = get(&engine, &[&[option], arguments].concat());
            assert_eq!(answer.version, version);
            assert_eq!(answer.fields["alt-svc"], alt_svc, "{arguments:?}");
            answer
        };
        let segment_url = engine.url(&format!("/b3/{first}"));
        let whole = get(&[&segment_url]);
        assert_eq!((whole.status, whole.body.as_slice()), (200, &bytes[..len as usize]));
        assert_eq!(whole.fields["etag"], format!("\"{first}\""));
        assert_eq!(whole.fields["accept-ranges"], "bytes");
        assert!(whole.fields["cache-control"].contains("immutable"));

        let part = get(&["--range", "10-19", &segment_url]);
        assert_eq!((part.status, part.body.as_slice()), (206, &bytes[10..20]));
        assert_eq!(part.fields["content-range"], format!("bytes 10-19/{len}"));

        let held = get(&["--header", &format!("if-none-match: \"{first}\""), &segment_url]);
        assert_eq!((held.status, held.body.len()), (304, 0));

        let head = get(&["--head", &segment_url]);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.fields["content-length"], len.to_string());

        let beyond = get(&["--range", "999999-", &segment_url]);
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.fields["content-type"], "application/problem+json");

        let file_url = engine.url(&format!("/list/{list}"));
        let file = get(&[&file_url]);
        assert_eq!((file.status, file.body.as_slice()), (200, bytes.as_ref()));
        // Across two borders between segments.
        let part = get(&["--range", "65530-200000", &file_url]);
        assert_eq!((part.status, part.body.as_slice()), (206, &bytes[65_530..=200_000]));
        let tail = get(&["--range", "-5", &file_url]);
        assert_eq!((tail.status, tail.body.as_slice()), (206, &bytes[bytes.len() - 5..]));

        assert_eq!(get(&[&engine.url("/healthz")]).body, b"ok\n");
        assert_eq!(get(&[&engine.url(&format!("/b3/{}", segment(9, 1).0))]).status, 404);
        assert_eq!(get(&[&engine.url(&format!("/list/{first}"))]).status, 404, "a segment is no list");
        assert_eq!(get(&[&engine.url("/b3/xyz")]).status, 400);
        assert_eq!(get(&[&engine.url("/")]).status, 404);
    }
}

#[test]
fn writing_is_refused_with_a_word_on_where_to_write() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let (hash, bytes) = segment(1, 1000);
    let file = data.path().join("segment");
    std::fs::write(&file, &bytes).expect("a file");
    let url = engine.url(&format!("/b3/{hash}"));
    for (option, _) in VERSIONS {
        let answer = get(
            &engine,
            &[option, "--header", "expect:", "--upload-file", file.to_str().expect("a path"), &url],
        );
        assert_eq!((answer.status, answer.fields["allow"].as_str()), (405, "GET, HEAD"));
        assert!(String::from_utf8_lossy(&answer.body).contains("HTTP/3"));
    }
    assert_eq!(engine.control().status().store_segments, 0);
}

#[test]
fn headers_beyond_the_limit_get_431() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let url = engine.url("/healthz");
    for (option, _) in VERSIONS {
        let header = format!("x-padding: {}", "a".repeat(20_000));
        let output = engine.curl(&[
            option,
            "--write-out",
            "%{http_code}",
            "--output",
            "/dev/null",
            "--header",
            &header,
            &url,
        ]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "431", "{option}");
        let header = format!("x-padding: {}", "a".repeat(5_000));
        assert_eq!(get(&engine, &[option, "--header", &header, &url]).status, 200);
    }
}

#[test]
fn a_list_with_a_segment_that_is_not_here_is_not_half_served() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (_, bytes) = segment(1, 8192);
    let imported = control.import(&bytes, 4096);
    let mut segments: Vec<_> = imported.segments.iter().map(|(hash, len)| (Hash(*hash), *len)).collect();
    segments.push((segment(2, 4096).0, 4096));
    let list = store::list::ListBuilder {
        name: "file".into(),
        version: (1, 0, 0),
        counter: 1,
        expires_s: 0,
        target: String::new(),
        file_hash: None,
        ..store::list::ListBuilder::plain(segments)
    };
    let document = list.sign(&identity::SecretKey::from_seed([7; 32])).expect("a list");
    let hash = Hash::of(&document);
    assert_eq!(control.ask(&ToEngine::PutList(document)), FromEngine::ListStored { hash: hash.0 });
    let url = engine.url(&format!("/list/{hash}"));
    assert_eq!(get(&engine, &[&url]).status, 404);
    let part = get(&engine, &["--range", "0-8191", &url]);
    assert_eq!((part.status, part.body.as_slice()), (206, bytes.as_ref()), "what is here can be had");
}

#[test]
fn cold_segments_come_through_storage() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let (_, bytes) = segment(1, 3 << 20);
    let (list, _) = engine.control().publish(&bytes, 1 << 20);
    engine.signal(rustix::process::Signal::TERM);
    assert_eq!(engine.wait().code(), Some(0), "{}", engine.log());
    // Nothing is verified since it was last read once the engine has started anew, but for the last commit, the list.
    let engine = Engine::start(data.path(), &[]);
    let file = get(&engine, &[&engine.url(&format!("/list/{list}"))]);
    assert_eq!((file.status, file.body.as_slice()), (200, bytes.as_ref()));
    let loaded = engine.metric("ioex_storage_loads_total{result=\"loaded\"}");
    assert!(loaded >= 3, "three segments, not {loaded}");
}

#[test]
fn a_client_that_stops_reading_is_cut_off() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let mut policy = Policy { generation: 1, ..Policy::default() };
    policy.limits.idle_timeout_ms = 1_000;
    assert_eq!(control.ask(&ToEngine::SetPolicy(policy)), FromEngine::PolicyApplied { generation: 1 });
    let (hash, bytes) = segment(1, 16 << 20);
    control.import(&bytes, 16 << 20);

    let mut client = tls_client(&data.path().join("tls/cert.pem"), engine.port());
    write!(client, "GET /b3/{hash} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("the engine reads");
    let mut start = [0; 12];
    client.read_exact(&mut start).expect("an answer begins");
    assert_eq!(&start, b"HTTP/1.1 200");
    wait_until(|| (engine.metric("ioex_tcp_slow_clients_total") == 1).then_some(()));
    wait_until(|| (engine.metric("ioex_tcp_connections") == 0).then_some(()));
    let mut rest = Vec::new();
    let ended = client.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.len() < bytes.len(), "all of it arrived");
    assert_eq!(get(&engine, &[&engine.url("/healthz")]).status, 200, "others are served on");
}

#[test]
fn a_connection_without_tls_is_counted_and_dropped() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", engine.port())).expect("a listener");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the engine reads");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    wait_until(|| (engine.metric("ioex_tcp_refused_total{cause=\"handshake\"}") == 1).then_some(()));
}

#[test]
fn a_download_in_flight_is_finished_when_the_node_drains() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let (hash, bytes) = segment(1, 8 << 20);
    engine.control().import(&bytes, 8 << 20);
    for (option, _) in VERSIONS {
        let url = engine.url(&format!("/b3/{hash}"));
        let download = engine
            .curl_command(&[option, "--limit-rate", "6M", &url])
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl runs");
        wait_until(|| (engine.metric("ioex_tcp_body_bytes_total") > 0).then_some(()));
        engine.signal(rustix::process::Signal::TERM);
        let output = download.wait_with_output().expect("curl ends");
        assert!(output.status.success(), "{option}");
        assert_eq!(Hash::of(&output.stdout), hash, "{option}");
        assert_eq!(engine.wait().code(), Some(0), "{}", engine.log());
        engine = Engine::start(data.path(), &[]);
    }
}

#[test]
fn without_tcp_nothing_listens() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &["--no-tcp"]);
    assert!(TcpStream::connect(("127.0.0.1", engine.port())).is_err());
    assert_eq!(engine.ready["listeners"].as_array().map(Vec::len), Some(1));
}

type TlsClient = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn tls_client(certificate: &std::path::Path, port: u16) -> TlsClient {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(certificate).expect("PEM"))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    rustls::StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).expect("a listener"))
}
