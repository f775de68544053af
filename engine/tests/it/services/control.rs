//! The policy socket, from honest and other clients.

use super::engine::{ControlClient, Engine, data_directory, start_in_vain};
use super::segment;
use relay::policy::{
    FromEngine, HEADER_LEN, MAGIC, Policy, RelaySelector, RelaySessions, ToEngine, VERSION, encode_to_engine,
};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use store::Hash;

#[test]
fn a_policy_is_checked_kept_and_survives_kill() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    assert_eq!(control.status().policy_generation, 0);
    let mut policy = Policy { generation: 5, publishers: vec![[1; 32], [2; 32]], ..Policy::default() };
    policy.limits.connections_max = 4_321;
    policy.limits.handshakes_max = 1_000;
    let applied = control.ask(&ToEngine::SetPolicy(policy.clone()));
    assert_eq!(applied, FromEngine::PolicyApplied { generation: 5 });

    let late = Policy { generation: 4, ..Policy::default() };
    let reason = rejected(control.ask(&ToEngine::SetPolicy(late)));
    assert!(reason.contains("generation 4 is older than generation 5"), "{reason}");
    let mut wrong = Policy { generation: 6, ..Policy::default() };
    wrong.limits.idle_timeout_ms = 1;
    let reason = rejected(control.ask(&ToEngine::SetPolicy(wrong)));
    assert!(reason.contains("idle_timeout_ms"), "{reason}");
    assert_eq!(control.status().policy_generation, 5);
    assert_eq!(engine.metric("ioex_policies_total{result=\"applied\"}"), 1);
    assert_eq!(engine.metric("ioex_policies_total{result=\"rejected\"}"), 2);

    engine.signal(rustix::process::Signal::KILL);
    engine.wait();
    let file = std::fs::read(data.path().join("engine/policy")).expect("the policy's file");
    assert_eq!(file, encode_to_engine(&ToEngine::SetPolicy(policy)).expect("a frame"));
    let engine = Engine::start(data.path(), &[]);
    assert_eq!(engine.control().status().policy_generation, 5);
}

#[test]
fn a_policy_that_has_expired_is_said_to_have_and_is_kept_over_a_restart() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    assert!(!control.status().policy_expired, "the defaults have no end");
    assert_eq!(engine.metric("ioex_policy_expired"), 0);
    let mut policy = Policy { generation: 1, valid_until_s: 1_700_000_000, ..Policy::default() };
    policy.limits.drain_timeout_ms = 4_321;
    control.ask(&ToEngine::SetPolicy(policy.clone()));
    engine.signal(rustix::process::Signal::KILL);
    engine.wait();

    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let status = control.status();
    assert_eq!((status.policy_generation, status.policy_valid_until_s), (1, 1_700_000_000));
    assert!(status.policy_expired);
    assert_eq!(engine.metric("ioex_policy_expired"), 1);
    assert_eq!(engine.metric("ioex_policy_valid_until_seconds"), 1_700_000_000);
    control.ask(&ToEngine::SetPolicy(Policy { generation: 2, valid_until_s: u64::MAX - 1, ..policy }));
    assert!(!control.status().policy_expired);
    assert_eq!(engine.metric("ioex_policy_expired"), 0);
}

#[test]
fn a_damaged_policy_file_stops_the_start_and_says_so() {
    let data = data_directory();
    let policy = Policy { generation: 5, ..Policy::default() };
    let mut frame = encode_to_engine(&ToEngine::SetPolicy(policy)).expect("a frame");
    std::fs::create_dir(data.path().join("engine")).expect("a directory");
    let path = data.path().join("engine/policy");
    *frame.last_mut().expect("a payload") ^= 1;
    std::fs::write(&path, &frame).expect("a file");
    let (code, log) = start_in_vain(data.path(), &[]);
    assert_eq!(code, 3);
    assert!(log.contains("engine/policy is damaged") && log.contains("remove it"), "{log}");

    std::fs::write(&path, &frame[..frame.len() - 3]).expect("a file");
    assert_eq!(start_in_vain(data.path(), &[]).0, 3);
    std::fs::write(&path, encode_to_engine(&ToEngine::Status).expect("a frame")).expect("a file");
    assert_eq!(start_in_vain(data.path(), &[]).0, 3);
}

#[test]
fn a_policy_file_of_an_earlier_version_is_no_reason_not_to_start() {
    let data = data_directory();
    let mut frame = encode_to_engine(&ToEngine::SetPolicy(Policy { generation: 5, ..Policy::default() }))
        .expect("a frame");
    frame[4..6].copy_from_slice(&(VERSION - 1).to_le_bytes());
    std::fs::create_dir(data.path().join("engine")).expect("a directory");
    std::fs::write(data.path().join("engine/policy"), &frame).expect("a file");
    let engine = Engine::start(data.path(), &[]);
    assert_eq!(engine.control().status().policy_generation, 0);
    drop(engine);
    // A later one may hold what this engine does not know to enforce.
    frame[4..6].copy_from_slice(&(VERSION + 1).to_le_bytes());
    std::fs::write(data.path().join("engine/policy"), &frame).expect("a file");
    assert_eq!(start_in_vain(data.path(), &[]).0, 3);
}

#[test]
fn the_relays_drain_is_kept_and_every_shard_is_asked_for_its_sessions() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let policy = Policy { generation: 3, ..Policy::default() };
    assert_eq!(
        control.ask(&ToEngine::SetPolicy(policy.clone())),
        FromEngine::PolicyApplied { generation: 3 }
    );
    let drained = control.ask(&ToEngine::RelayDrain { draining: true });
    assert_eq!(drained, FromEngine::PolicyApplied { generation: 3 });
    let none = FromEngine::RelaySessions(RelaySessions { sessions: Vec::new(), is_last: true });
    assert_eq!(control.ask(&ToEngine::RelaySessions), none);
    let kicked = control.ask(&ToEngine::RelayKick(RelaySelector::User("alice".into())));
    assert_eq!(kicked, FromEngine::RelayKicked { count: 0 });
    engine.signal(rustix::process::Signal::KILL);
    engine.wait();
    let mut draining = policy;
    draining.relay.draining = true;
    let file = std::fs::read(data.path().join("engine/policy")).expect("the policy's file");
    assert_eq!(file, encode_to_engine(&ToEngine::SetPolicy(draining)).expect("a frame"));
}

#[test]
fn status_says_what_runs() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let status = engine.control().status();
    assert_eq!(status.uid, *identity::SecretKey::from_seed([7; 32]).uid().as_bytes());
    assert_eq!(u64::from(status.pid), engine.ready["pid"].as_u64().expect("a number"));
    let listeners: Vec<_> = engine.ready["listeners"].as_array().expect("listeners").clone();
    assert_eq!(listeners, status.listeners);
    assert!(!status.draining && ["io_uring", "epoll"].contains(&status.driver.as_str()), "{status:?}");
    assert!(status.counters.iter().any(|(name, _)| name == "ioex_turns_total{shard=\"0\"}"), "{status:?}");
    let pid = std::fs::read_to_string(data.path().join("run/engine.pid")).expect("a pidfile");
    assert_eq!(pid.trim(), status.pid.to_string());
}

#[test]
fn a_file_is_imported_whole_and_twice_is_no_more() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (hash, bytes) = segment(1, 3_000_000);
    let imported = control.import(&bytes, 1 << 20);
    assert_eq!((imported.bytes, imported.file_hash), (3_000_000, hash.0));
    let lens: Vec<_> = imported.segments.iter().map(|(_, len)| *len).collect();
    assert_eq!(lens, [1 << 20, 1 << 20, 3_000_000 - (2 << 20)]);
    for ((hash, _), piece) in imported.segments.iter().zip(bytes.chunks(1 << 20)) {
        assert_eq!(*hash, Hash::of(piece).0);
    }
    assert_eq!(control.status().store_segments, 3);
    assert_eq!(control.import(&bytes, 1 << 20).segments, imported.segments);
    assert_eq!(control.status().store_segments, 3);
}

#[test]
fn the_limit_of_the_store_follows_the_policy() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let mut policy = Policy { generation: 1, ..Policy::default() };
    policy.limits.store_bytes_max = 16 << 20;
    control.ask(&ToEngine::SetPolicy(policy.clone()));
    assert_eq!(engine.metric("ioex_store_bytes_max"), 16 << 20);
    let (_, bytes) = segment(4, 24 << 20);
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&bytes).expect("room");
    std::io::Seek::rewind(&mut file).expect("a regular file");
    control.send_with_file(&ToEngine::Import { segment_len: 1 << 20 }, &file);
    let end = std::iter::from_fn(|| control.receive())
        .find(|answer| !matches!(answer, FromEngine::ImportProgress { .. }))
        .expect("an answer");
    assert!(rejected(end).contains("the store is full"));

    policy.generation = 2;
    policy.limits.store_bytes_max = 64 << 20;
    control.ask(&ToEngine::SetPolicy(policy));
    assert_eq!(control.import(&bytes, 1 << 20).bytes, 24 << 20);
}

#[test]
fn a_pipe_is_imported_to_its_end() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (hash, bytes) = segment(2, 2_500_000);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    control.send_with_file(&ToEngine::Import { segment_len: 1 << 16 }, &reader);
    drop(reader);
    let writing = std::thread::spawn(move || writer.write_all(&bytes).expect("the engine reads"));
    loop {
        match control.receive().expect("an answer") {
            FromEngine::ImportProgress { total, .. } => assert_eq!(total, None),
            FromEngine::Imported(imported) => {
                assert_eq!((imported.bytes, imported.file_hash), (2_500_000, hash.0));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    writing.join().expect("written");
}

#[test]
fn imports_without_a_usable_file_are_rejected_and_the_connection_goes_on() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let import = ToEngine::Import { segment_len: 1 << 20 };
    assert!(rejected(control.ask(&import)).contains("SCM_RIGHTS"));
    control.send_with_file(&import, std::fs::File::open("/").expect("a directory"));
    assert!(rejected(control.receive().expect("an answer")).contains("regular files"));
    let write_only = std::fs::File::create(data.path().join("out")).expect("a file");
    control.send_with_file(&import, write_only);
    assert!(rejected(control.receive().expect("an answer")).contains("not open for reading"));
    let file = std::fs::File::open("/proc/self/exe").expect("a file");
    control.send_with_file(&ToEngine::Import { segment_len: 12_345 }, file);
    assert!(rejected(control.receive().expect("an answer")).contains("12345"));
    assert_eq!(control.status().store_segments, 0);
}

#[test]
fn only_signed_lists_are_stored() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let (_, bytes) = segment(3, 100_000);
    let (hash, imported) = control.publish(&bytes, 4096);
    assert_eq!(imported.segments.len(), 25);
    let stored = control.status().store_segments;

    let document = engine.curl(&[&engine.url(&format!("/b3/{hash}"))]).stdout;
    assert_eq!(Hash::of(&document), hash);
    let mut forged = document;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(rejected(control.ask(&ToEngine::PutList(forged))).contains("not a content address list"));
    assert!(
        rejected(control.ask(&ToEngine::PutList(b"IOXL".to_vec()))).contains("not a content address list")
    );
    assert_eq!(control.status().store_segments, stored);
}

#[test]
fn bytes_that_are_no_frame_end_the_connection() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut oversize = Vec::from(MAGIC);
    oversize.extend(VERSION.to_le_bytes());
    oversize.extend(1u16.to_le_bytes());
    oversize.extend(u32::MAX.to_le_bytes());
    oversize.extend([0; 4]);
    let status = encode_to_engine(&ToEngine::Status).expect("a frame");
    let mut flipped = encode_to_engine(&ToEngine::PutList(vec![0; 100])).expect("a frame");
    flipped[HEADER_LEN + 7] ^= 4;
    let mut from_engine = status.clone();
    from_engine[6..8].copy_from_slice(&0x8001u16.to_le_bytes());
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin with"),
        (&oversize, "longer than"),
        (&flipped, "checksum"),
        (&from_engine, "direction"),
    ];
    for (bytes, expected) in cases {
        let mut client = engine.control();
        client.stream.write_all(bytes).expect("the engine reads");
        let reason = rejected(client.receive().expect("an answer"));
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(client.receive(), None, "the connection is closed");
    }
    assert_eq!(engine.metric("ioex_control_refused_total{cause=\"frame\"}"), 4);
    assert!(!engine.control().status().draining, "others are served on");
}

#[test]
fn a_frame_that_does_not_arrive_in_time_ends_the_connection() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut client = engine.control();
    client.stream.write_all(&MAGIC).expect("the engine reads");
    assert!(rejected(client.receive().expect("an answer")).contains("did not arrive"));
    assert_eq!(client.receive(), None);
    assert_eq!(engine.metric("ioex_control_refused_total{cause=\"timeout\"}"), 1);
}

#[test]
fn more_connections_than_allowed_are_closed_and_the_rest_served() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut held: Vec<_> = (0..16).map(|_| engine.control()).collect();
    // Each has been admitted once it is answered.
    for client in &mut held {
        client.status();
    }
    let mut one_more = engine.control();
    let _ = one_more.stream.write_all(&encode_to_engine(&ToEngine::Status).expect("a frame"));
    assert_eq!(one_more.receive(), None);
    held.pop();
    super::engine::wait_until(|| {
        let mut client = engine.control();
        let _ = client.stream.write_all(&encode_to_engine(&ToEngine::Status).expect("a frame"));
        client.receive()
    });
}

#[test]
fn another_user_is_not_let_in() {
    // Becoming another user takes root.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data.path().join("run")), 0o700);
    assert_eq!(mode(&data.path().join("run/engine.sock")), 0o600);

    // Every door on the way is opened, so that only the kernel's word on who is there (SO_PEERCRED) is left.
    for (path, open) in [("", 0o755), ("run", 0o755), ("run/engine.sock", 0o666)] {
        std::fs::set_permissions(data.path().join(path), PermissionsExt::from_mode(open)).expect("ours");
    }
    // On Linux the user belongs to the thread.
    let path = data.path().join("run/engine.sock");
    let stranger = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        ControlClient::connect(&path).receive()
    });
    assert_eq!(stranger.join().expect("an orderly end"), None, "the door is closed without a word");
    assert_eq!(engine.metric("ioex_control_refused_total{cause=\"user\"}"), 1);
    assert!(engine.log().contains("user 65534"), "{}", engine.log());
    assert!(!engine.control().status().draining, "its own user is served on");
}

pub(super) fn rejected(answer: FromEngine) -> String {
    match answer {
        FromEngine::Rejected { reason } => reason,
        other => panic!("{other:?}"),
    }
}
