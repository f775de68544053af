//! GET and HEAD of segments and lists.

use super::harness::{Client, Network, Node, NodeOptions, bytes, client_config};
use identity::SecretKey;
use relay::policy::Limits;
use std::time::Duration;
use store::list::ListBuilder;
use store::{Hash, SEGMENT_LEN_MAX};

fn segment_path(hash: &Hash) -> String {
    format!("/b3/{hash}")
}

#[test]
fn a_segment_arrives_whole_and_in_full_batches() {
    let mut network = Network::of_one();
    let segment = bytes(4 << 20, 1);
    let hash = network.node.put(&segment);
    let client = network.join();
    let answer = network.get(client, &segment_path(&hash));
    assert_eq!(answer.status(), 200);
    assert!(answer.body == segment);
    assert_eq!(answer.field("content-length"), Some("4194304"));
    assert_eq!(answer.field("etag"), Some(format!("\"{hash}\"").as_str()));
    assert_eq!(answer.field("accept-ranges"), Some("bytes"));
    // Batching in the large: once the window is open, batches are full.
    let full = network.batches.iter().filter(|batch| batch.len.div_ceil(batch.segment_len) == 45).count();
    assert!(full >= 20, "{full} full batches of {}", network.batches.len());
    assert!(network.batches.iter().any(|batch| batch.segment_len == 1_452), "path MTU discovery");
}

#[test]
fn ranges_conditions_and_methods() {
    let mut network = Network::of_one();
    let segment = bytes(300_000, 2);
    let hash = network.node.put(&segment);
    let path = segment_path(&hash);
    let etag = format!("\"{hash}\"");
    let client = network.join();
    let mut ask = |method: &str, path: &str, extra: &[(&str, &str)]| {
        let mut fields = vec![(":method", method), (":path", path)];
        fields.extend(extra);
        network.ask(client, &fields, b"")
    };

    let answer = ask("GET", &path, &[("range", "bytes=1000-99999")]);
    assert_eq!((answer.status(), answer.field("content-range")), (206, Some("bytes 1000-99999/300000")));
    assert!(answer.body == segment[1_000..100_000]);
    let answer = ask("GET", &path, &[("range", "bytes=-1")]);
    assert_eq!((answer.status(), answer.body.as_slice()), (206, &segment[299_999..]));
    let answer = ask("GET", &path, &[("range", "bytes=300000-")]);
    assert_eq!((answer.status(), answer.field("content-range")), (416, Some("bytes */300000")));
    let answer = ask("GET", &path, &[("range", "bytes=0-9"), ("if-range", "\"other\"")]);
    assert_eq!((answer.status(), answer.body.len()), (200, 300_000));

    let answer = ask("GET", &path, &[("if-none-match", &etag)]);
    assert_eq!((answer.status(), answer.body.len()), (304, 0));
    let answer = ask("HEAD", &path, &[]);
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    assert_eq!(answer.field("content-length"), Some("300000"));

    let absent = segment_path(&Hash::of(b"absent"));
    let answer = ask("GET", &absent, &[]);
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    assert!(String::from_utf8_lossy(&answer.body).contains("\"status\":404"));
    assert_eq!(ask("HEAD", &absent, &[]).body.len(), 0);
    let answer = ask("PATCH", &path, &[]);
    assert_eq!((answer.status(), answer.field("allow")), (405, Some("GET, HEAD, PUT, POST, DELETE")));
    assert_eq!(ask("POST", &path, &[]).status(), 401);
    assert_eq!(ask("DELETE", &path, &[]).status(), 401);
    assert_eq!(ask("GET", "/b3/ABC", &[]).status(), 400);
    assert_eq!(ask("GET", "/", &[]).status(), 404);
    assert_eq!(ask("GET", "/healthz", &[]).body, b"ok\n");
    assert_eq!(ask("GET", &path, &[("x", &"a".repeat(20_000))]).status(), 431);
    assert_eq!(ask("GET", &path, &[("connection", "close")]).status(), 400);
    assert_eq!(network.node.counter(|counters| counters.requests_not_found.get()), 2);
}

#[test]
fn a_field_section_far_above_the_bound_ends_the_connection() {
    let mut network = Network::of_one();
    let client = network.join();
    let long = "a".repeat(100_000);
    network.clients[client].request(&[(":method", "GET"), (":path", "/healthz"), ("x", &long)], b"");
    network.until("the end", |network| network.clients[client].quic.peer_error().is_some());
    let error = network.clients[client].quic.peer_error().expect("there is one").error_code;
    assert_eq!(error, quiche::h3::WireErrorCode::ExcessiveLoad as u64);
}

#[test]
fn a_head_request_that_is_refused_gets_no_body() {
    let mut network = Network::of_one();
    let client = network.join();
    let long = "a".repeat(20_000);
    let answer = network.ask(client, &[(":method", "HEAD"), (":path", "/healthz"), ("x", &long)], b"");
    assert_eq!((answer.status(), answer.body.len()), (431, 0));
    assert_eq!(network.node.counter(|counters| counters.requests_refused_header.get()), 1);
}

/// A file of `lens.len()` segments and the list of it.
fn publish(network: &Network, lens: &[usize]) -> (Vec<u8>, Hash) {
    let mut file = Vec::new();
    let mut segments = Vec::new();
    for (i, len) in lens.iter().enumerate() {
        let segment = bytes(*len, 100 + i as u64);
        segments.push((network.node.put(&segment), u32::try_from(*len).unwrap()));
        file.extend_from_slice(&segment);
    }
    let list = ListBuilder {
        name: "file".into(),
        version: (1, 0, 0),
        counter: 1,
        expires_s: 0,
        target: String::new(),
        file_hash: Some(Hash::of(&file)),
        ..ListBuilder::plain(segments)
    };
    let document = list.sign(&SecretKey::from_seed([3; 32])).expect("a list");
    (file, network.node.put(&document))
}

#[test]
fn a_list_streams_its_file_in_order_with_ranges() {
    let mut network = Network::of_one();
    let (file, list) = publish(&network, &[70_000, 1, 200_000, 4_096, 65_536, 300_000]);
    let path = format!("/list/{list}");
    let client = network.join();
    let answer = network.get(client, &path);
    assert_eq!(answer.status(), 200);
    assert!(answer.body == file);
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=69999-70001", 69_999, 70_002),
        ("bytes=70000-70000", 70_000, 70_001),
        ("bytes=70001-", 70_001, file.len()),
        ("bytes=-300001", file.len() - 300_001, file.len()),
    ] {
        let answer = network.ask(client, &[(":method", "GET"), (":path", &path), ("range", range)], b"");
        assert_eq!(answer.status(), 206, "{range}");
        assert!(answer.body == file[start..end], "{range}");
    }
    let answer = network.ask(client, &[(":method", "HEAD"), (":path", &path)], b"");
    assert_eq!(answer.field("content-length"), Some(file.len().to_string().as_str()));
}

#[test]
fn what_is_no_list_and_what_has_gaps() {
    let mut network = Network::of_one();
    let (_, list) = publish(&network, &[100_000; 3]);
    let client = network.join();
    let plain = network.node.put(b"no list at all");
    assert_eq!(network.get(client, &format!("/list/{plain}")).status(), 404);

    // A forged list: one byte of a signed document changed, stored under its new address.
    let mut reader = network.node.store.reader();
    let store::Lookup::Ready(document) = reader.lookup(&list) else { panic!("the list is held") };
    let mut forged = document.bytes().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = network.node.put(&forged);
    assert_eq!(network.get(client, &format!("/list/{forged}")).status(), 404);

    // The second segment is missing: nothing is promised that needs it, as over TCP.
    let missing = ListBuilder {
        name: "gap".into(),
        version: (1, 0, 0),
        counter: 1,
        expires_s: 0,
        target: String::new(),
        file_hash: None,
        ..ListBuilder::plain(vec![(network.node.put(&bytes(80_000, 9)), 80_000), (Hash::of(b"nowhere"), 7)])
    };
    let missing = network.node.put(&missing.sign(&SecretKey::from_seed([3; 32])).expect("a list"));
    let path = format!("/list/{missing}");
    let answer = network.get(client, &path);
    assert_eq!((answer.status(), answer.field("content-type")), (404, Some("application/problem+json")));
    let fields = [(":method", "GET"), (":path", path.as_str()), ("range", "bytes=0-79999")];
    let answer = network.ask(client, &fields, b"");
    assert!(answer.status() == 206 && answer.body == bytes(80_000, 9));
}

/// A segment that is held and turns out to be damaged when its turn comes: what has been promised cannot be kept. That is
/// the node's doing, and not counted among what the client aborts.
#[test]
fn streams_that_the_node_resets_are_not_held_against_the_client() {
    let network = Network::of_one();
    let (_, list) = publish(&network, &[1_000, 100_000]);
    let (node, damaged) = (network.node, bytes(100_000, 101));
    let limits = Limits { streams_per_connection_max: 500, ..Limits::default() };
    let options = || NodeOptions { limits: limits.clone(), ..NodeOptions::default() };
    let dir = node.stop();
    flip_a_byte_of(dir.path(), &damaged);
    let mut network = Network::new(Node::start(options(), dir));
    let client = network.join();
    let path = format!("/list/{list}");
    let streams: Vec<u64> = (0..300)
        .map(|_| network.clients[client].request(&[(":method", "GET"), (":path", &path)], b""))
        .collect();
    network.until("the answers", |network| {
        streams.iter().all(|stream| network.clients[client].is_answered(*stream))
    });
    let answers = network.clients[client].answers.values();
    let codes: Vec<u64> = answers.filter_map(|answer| answer.reset).collect();
    assert!(codes.len() > 100, "{} streams were reset", codes.len());
    assert!(codes.iter().all(|code| *code == quiche::h3::WireErrorCode::InternalError as u64));
    assert_eq!(network.get(client, "/healthz").status(), 200, "the connection goes on");
}

#[test]
fn many_requests_at_once_and_a_slow_reader() {
    let mut network = Network::of_one();
    let segments: Vec<Vec<u8>> = (0..40).map(|i| bytes(100_000 + i, i as u64)).collect();
    let paths: Vec<String> =
        segments.iter().map(|segment| segment_path(&network.node.put(segment))).collect();
    let (quick, slow) = (network.join(), network.join());
    network.clients[slow].reads = false;
    let mut streams = Vec::new();
    for path in &paths {
        network.clients[slow].request(&[(":method", "GET"), (":path", path)], b"");
        streams.push(network.clients[quick].request(&[(":method", "GET"), (":path", path)], b""));
    }
    network.until("the quick one's answers", |network| {
        streams.iter().all(|stream| network.clients[quick].is_answered(*stream))
    });
    for (stream, segment) in streams.iter().zip(&segments) {
        assert!(network.clients[quick].answers[stream].body == *segment);
    }
    network.clients[slow].reads = true;
    network.until("the slow one's answers", |network| {
        network.clients[slow].answers.values().all(|answer| answer.finished)
    });
    assert_eq!(network.clients[slow].answers.len(), 40);
}

#[test]
fn a_segment_that_is_not_in_memory_is_loaded_while_others_go_on() {
    let segment = bytes(SEGMENT_LEN_MAX as usize, 4);
    let node = Node::new(NodeOptions::default());
    let hash = node.put(&segment);
    // A store that was opened anew has verified nothing.
    let mut network = Network::new(node.restart(NodeOptions::default()));
    let small = network.node.put(b"small");
    let client = network.join();
    let large = network.clients[client].request(&[(":method", "GET"), (":path", &segment_path(&hash))], b"");
    let answer = network.get(client, &segment_path(&small));
    assert_eq!((answer.status(), answer.body.as_slice()), (200, &b"small"[..]));
    network.until("the large one", |network| network.clients[client].is_answered(large));
    assert!(network.clients[client].answers[&large].body == segment);
    assert_eq!(network.node.counter(|counters| counters.segments_cold.get()), 1);
}

/// A client that takes its time over a segment: meanwhile the kernel needs the memory. The shard must not wait for the
/// disk, and what comes from there is verified again.
#[test]
fn pages_that_leave_memory_under_a_slow_reader_are_loaded_again() {
    // Not in /tmp, which may be a tmpfs, whose pages cannot be evicted.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let segment = bytes(4 << 20, 6);
    let mut network = Network::new(Node::start(NodeOptions::default(), dir));
    let hash = network.node.put(&segment);
    let mut config = client_config();
    config.set_initial_max_stream_data_bidi_local(200_000);
    let local = "[::1]:9000".parse().expect("an address");
    let client = network.connect(Client::with_config(local, &mut config));
    network.until("the handshake", |network| network.clients[client].h3.is_some());
    network.clients[client].reads = false;
    let stream = network.clients[client].request(&[(":method", "GET"), (":path", &segment_path(&hash))], b"");
    network.until("as much as the client takes", |network| {
        network.node.counter(|counters| counters.body_bytes.get()) > 100_000
    });
    network.settle(Duration::from_millis(1_200));
    evict(&network.node.dir.path().join("store/packs/0000000001.pack"));
    network.clients[client].reads = true;
    network.until("the answer", |network| network.clients[client].is_answered(stream));
    assert!(network.clients[client].answers[&stream].body == segment);
    assert_eq!(network.node.counter(|counters| counters.segments_cold.get()), 1);
}

/// Takes a file's pages out of this process's mappings and out of the page cache.
fn evict(path: &std::path::Path) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the kernel's list of mappings");
    let path_text = path.to_str().expect("a path of this test");
    for line in maps.lines().filter(|line| line.ends_with(path_text)) {
        let (start, rest) = line.split_once('-').expect("START-END");
        let (end, _) = rest.split_once(' ').expect("END and a space");
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).expect("hexadecimal"));
        // SAFETY: the range is a read-only mapping of a file; its pages come back from the file when they are touched.
        let status = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        assert_eq!(status, 0, "{line}");
    }
    let file = std::fs::File::open(path).expect("the pack");
    file.sync_all().expect("clean pages");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice that is taken");
}

#[test]
fn a_damaged_segment_is_never_served() {
    let node = Node::new(NodeOptions::default());
    let segment = bytes(1 << 20, 5);
    let hash = node.put(&segment);
    let packs = node.dir.path().join("store");
    let node = {
        let offline = node.stop();
        flip_a_byte_of(&packs, &segment);
        Node::start(NodeOptions::default(), offline)
    };
    let mut network = Network::new(node);
    let client = network.join();
    for _ in 0..2 {
        let answer = network.get(client, &segment_path(&hash));
        assert_eq!((answer.status(), answer.field("content-type")), (404, Some("application/problem+json")));
    }
}

/// Flips a byte in the middle of the pack's copy of `segment`.
fn flip_a_byte_of(dir: &std::path::Path, segment: &[u8]) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            flip_a_byte_of(&path, segment);
        } else if let Ok(mut file) = std::fs::read(&path)
            && let Some(at) = file.windows(64).position(|window| window == &segment[..64])
        {
            file[at + segment.len() / 2] ^= 1;
            std::fs::write(&path, file).expect("written");
        }
    }
}
