//! Changes of few entries of the policy, over the socket.

use super::control::rejected;
use super::engine::{ControlClient, Engine, data_directory, wait_until};
use relay::policy::{
    Decoder, FromEngine, HEADER_LEN, POLICY_EDITS_MAX, POLICY_WITHOUT_END, Policy, PolicyChange, PolicyDraft,
    PolicyEdit, RelayUser, ToEngine, encode_to_engine,
};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const APPLIED: &str = "ioex_policy_changes_total{result=\"applied\"}";
const REJECTED: &str = "ioex_policy_changes_total{result=\"rejected\"}";

fn change(base_generation: u64, edits: Vec<PolicyEdit>) -> ToEngine {
    ToEngine::ChangePolicy(PolicyChange {
        base_generation,
        generation: base_generation + 1,
        valid_until_s: POLICY_WITHOUT_END,
        edits,
    })
}

fn number(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

/// What is on disk, as the frame that it is.
fn kept(data: &Path) -> Vec<u8> {
    std::fs::read(data.join("engine/policy")).expect("the policy's file")
}

fn frame(policy: Policy) -> Vec<u8> {
    encode_to_engine(&ToEngine::SetPolicy(policy)).expect("a frame")
}

fn set(control: &mut ControlClient, policy: &Policy) {
    let applied = control.ask(&ToEngine::SetPolicy(policy.clone()));
    assert_eq!(applied, FromEngine::PolicyApplied { generation: policy.generation });
}

#[test]
fn changes_come_into_force_are_kept_and_survive_kill() {
    let data = data_directory();
    let mut engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let policy = Policy { generation: 5, publishers: vec![[1; 32]], ..Policy::default() };
    set(&mut control, &policy);
    let mut draft = PolicyDraft::new(&policy);
    for generation in 5..25 {
        let user = RelayUser { name: format!("user {generation}"), key_md5: [1; 16], key_sha256: [2; 32] };
        let edits = vec![PolicyEdit::AddPublisher(number(generation)), PolicyEdit::SetUser(user)];
        let change = PolicyChange {
            base_generation: generation,
            generation: generation + 1,
            valid_until_s: POLICY_WITHOUT_END,
            edits,
        };
        draft.apply(change.clone()).expect("a change");
        let applied = control.ask(&ToEngine::ChangePolicy(change));
        assert_eq!(applied, FromEngine::PolicyApplied { generation: generation + 1 });
        assert_eq!(control.status().policy_generation, generation + 1, "in force when it is answered");
    }
    assert_eq!((engine.metric(APPLIED), engine.metric("ioex_policy_edits_total")), (20, 40));
    assert_eq!(engine.metric("ioex_policy_generation"), 25);
    // On disk at last, without anybody asking.
    wait_until(|| (kept(data.path()) == frame(draft.policy())).then_some(()));
    engine.signal(Signal::KILL);
    engine.wait();
    let engine = Engine::start(data.path(), &[]);
    assert_eq!(engine.control().status().policy_generation, 25);
}

#[test]
fn a_kill_amid_changes_leaves_a_policy_that_was_once_in_force() {
    let data = data_directory();
    let policy = Policy { generation: 1, ..Policy::default() };
    let mut engine = Engine::start(data.path(), &[]);
    set(&mut engine.control(), &policy);
    // What each generation is: the first so many of the publishers.
    let of = |generation: u64| {
        let mut publishers: Vec<[u8; 32]> = (1..generation).map(number).collect();
        publishers.sort_unstable();
        Policy { generation, publishers, ..Policy::default() }
    };
    for round in 0..3 {
        let mut control = engine.control();
        let first = control.status().policy_generation;
        for base in first..first + 40 * (round + 1) {
            let applied = control.ask(&change(base, vec![PolicyEdit::AddPublisher(number(base))]));
            assert_eq!(applied, FromEngine::PolicyApplied { generation: base + 1 });
        }
        let last = control.status().policy_generation;
        engine.signal(Signal::KILL);
        engine.wait();
        engine = Engine::start(data.path(), &[]);
        let mut control = engine.control();
        let found = control.status().policy_generation;
        assert!((first..=last).contains(&found), "{first} {found} {last}");
        assert_eq!(kept(data.path()), frame(of(found)));
        // Whoever goes on from what was lost is told so, and then sends all of it.
        if found < last {
            let reason = rejected(control.ask(&change(last, vec![PolicyEdit::AddPublisher(number(last))])));
            assert!(reason.contains(&format!("generation {found} is in force")), "{reason}");
        }
        set(&mut control, &of(last));
        assert_eq!(kept(data.path()), frame(of(last)));
    }
}

#[test]
fn a_change_for_another_policy_or_too_large_changes_nothing() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    let policy = Policy { generation: 5, ..Policy::default() };
    set(&mut control, &policy);
    let add = || vec![PolicyEdit::AddPublisher([1; 32])];
    for base in [4, 6] {
        let reason = rejected(control.ask(&change(base, add())));
        assert!(reason.contains("send the whole policy") && reason.contains("generation 5"), "{reason}");
    }
    let back =
        PolicyChange { base_generation: 5, generation: 5, valid_until_s: POLICY_WITHOUT_END, edits: add() };
    assert!(rejected(control.ask(&ToEngine::ChangePolicy(back))).contains("not above"));
    let many = vec![PolicyEdit::RelayDraining(true); POLICY_EDITS_MAX + 1];
    assert!(rejected(control.ask(&change(5, many))).contains("4097 edits"));
    let nameless = RelayUser { name: String::new(), key_md5: [0; 16], key_sha256: [0; 32] };
    let edits = vec![PolicyEdit::AddPublisher([1; 32]), PolicyEdit::SetUser(nameless)];
    assert!(rejected(control.ask(&change(5, edits))).contains("relay user name length"));
    assert_eq!((engine.metric(REJECTED), engine.metric(APPLIED)), (5, 0));
    assert_eq!(kept(data.path()), frame(policy));

    // A frame that is none ends its connection and no other.
    let mut damaged = encode_to_engine(&change(5, add())).expect("a frame");
    damaged[HEADER_LEN] ^= 1;
    let mut hostile = UnixStream::connect(data.path().join("run/engine.sock")).expect("the engine listens");
    hostile.write_all(&damaged).expect("room");
    let mut answer = Vec::new();
    hostile.read_to_end(&mut answer).expect("the engine closes it");
    let mut decoder = Decoder::<FromEngine>::new();
    decoder.push(&answer);
    let reason = rejected(decoder.next_message().expect("a frame").expect("an answer"));
    assert!(reason.contains("checksum"), "{reason}");
    assert_eq!(
        control.ask(&change(5, add())),
        FromEngine::PolicyApplied { generation: 6 },
        "the others go on"
    );
}

#[test]
fn changes_on_many_connections_are_put_in_force_together_and_a_whole_policy_overtakes_them() {
    let data = data_directory();
    let engine = Engine::start(data.path(), &[]);
    let mut control = engine.control();
    set(&mut control, &Policy { generation: 1, ..Policy::default() });
    // Each sends on what the one before made of the policy, before that one has its answer.
    let mut clients: Vec<ControlClient> = (0..8).map(|_| engine.control()).collect();
    for (n, client) in (1..).zip(&mut clients) {
        client.send(&change(n, vec![PolicyEdit::AddPublisher(number(n))]));
        // Drafted, whether in force or not: another change of the same generation is refused from then on.
        wait_until(|| {
            let again =
                PolicyChange { base_generation: n, generation: n, valid_until_s: 0, edits: Vec::new() };
            let reason = rejected(control.ask(&ToEngine::ChangePolicy(again)));
            reason.contains(&format!("generation {} is in force", n + 1)).then_some(())
        });
    }
    for (n, client) in (1..).zip(&mut clients) {
        assert_eq!(client.receive(), Some(FromEngine::PolicyApplied { generation: n + 1 }));
    }
    set(&mut control, &Policy { generation: 9, ..Policy::default() });
    assert_eq!(
        control.ask(&change(9, vec![PolicyEdit::AddPublisher([1; 32])])),
        FromEngine::PolicyApplied { generation: 10 }
    );
    // The relay's drain is a change beside the generation, and neither is lost by the other.
    assert_eq!(
        control.ask(&ToEngine::RelayDrain { draining: true }),
        FromEngine::PolicyApplied { generation: 10 }
    );
    assert_eq!(control.ask(&change(10, Vec::new())), FromEngine::PolicyApplied { generation: 11 });
    let mut expected = Policy { generation: 11, publishers: vec![[1; 32]], ..Policy::default() };
    expected.relay.draining = true;
    wait_until(|| (kept(data.path()) == frame(expected.clone())).then_some(()));
}
