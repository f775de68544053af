//! The client of the engine's control socket.

use crate::fake_engine;
use control_plane::engine_socket::{EngineSocket, EngineSocketError};
use relay::policy::Policy;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

#[test]
fn every_request_gets_its_answer_on_one_connection() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("engine.sock");
    let seen = fake_engine::listen(&path, [9; 32], None);
    let mut socket = EngineSocket::connect(&path).unwrap();
    assert_eq!(socket.pid().as_raw_pid(), std::process::id() as i32);
    assert_eq!(socket.status().unwrap().uid, [9; 32]);
    socket.set_policy(Policy { generation: 5, publishers: vec![[1; 32]], ..Policy::default() }).unwrap();
    assert_eq!(socket.status().unwrap().policy_generation, 5);

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 1000]).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut progress = Vec::new();
    let imported =
        socket.import(file.as_fd(), 300, &mut |bytes, total| progress.push((bytes, total))).unwrap();
    assert_eq!(imported.segments.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [300, 300, 300, 100]);
    assert_eq!(progress, [(1000, Some(1000))]);
    // A list longer than a socket's buffer goes through whole.
    let list = vec![3; 4 << 20];
    assert_eq!(socket.put_list(list.clone()).unwrap(), store::Hash::of(&list).0);

    let seen = seen.lock().unwrap();
    assert_eq!(seen.policies[0].publishers, [[1; 32]]);
    assert_eq!(seen.imports, [(300, vec![7; 1000])]);
    assert_eq!(seen.lists, [list]);
}

#[test]
fn a_refusal_carries_the_engines_reason() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("engine.sock");
    fake_engine::listen(&path, [9; 32], Some("the disk is full"));
    let mut socket = EngineSocket::connect(&path).unwrap();
    let file = tempfile::tempfile().unwrap();
    let error = socket.import(file.as_fd(), 300, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "the engine refused: the disk is full");
}

#[test]
fn without_an_engine_it_says_how_to_start_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("engine.sock");
    let absent = EngineSocket::connect(&path).unwrap_err();
    assert!(matches!(absent, EngineSocketError::NotRunning { .. }), "{absent}");
    assert!(absent.to_string().contains("ioex up"), "{absent}");
    // A socket that a dead engine left behind.
    drop(UnixListener::bind(&path).unwrap());
    let dead = EngineSocket::connect(&path).unwrap_err();
    assert!(matches!(dead, EngineSocketError::NotRunning { .. }), "{dead}");
}

#[test]
fn an_answer_that_is_no_frame_and_an_early_end_are_errors() {
    let root = tempfile::tempdir().unwrap();
    for (name, answer) in [("noise", &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]), ("early", b"IOXP\x01\x00")] {
        let path = root.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(answer).unwrap());
        let mut socket = EngineSocket::connect(&path).unwrap();
        server.join().unwrap();
        let error = socket.status().unwrap_err();
        assert!(
            matches!(error, EngineSocketError::Frame(_) | EngineSocketError::Io { .. }),
            "{name}: {error}"
        );
    }
}
