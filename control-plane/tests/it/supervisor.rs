//! What the supervisor tells an engine of its policy: all of it, or what has changed.

use crate::fake_engine;
use control_plane::configuration::Configuration;
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::supervisor::Supervisor;
use identity::SecretKey;
use relay::policy::{Policy, PolicyEdit};

#[test]
fn a_reload_sends_what_has_changed_and_all_of_it_where_that_does_not_fit() {
    let home = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&home.path().join("data")).unwrap();
    let uid = SecretKey::from_seed([9; 32]).uid();
    let socket = directory.engine_socket();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let seen = fake_engine::listen(&socket, *uid.as_bytes(), None);
    let mut supervisor = Supervisor::lock(directory, uid).unwrap();
    let mut configuration = Configuration::default();
    let counts = || {
        let seen = seen.lock().unwrap();
        (seen.policies.len(), seen.changes.len())
    };

    assert_eq!(supervisor.set_policy(&configuration).unwrap().policy_generation, 1);
    assert_eq!(counts(), (1, 0), "an engine that is new here gets all of it");
    let friend = SecretKey::from_seed([1; 32]).uid();
    configuration.publishers.trusted.push(friend);
    assert_eq!(supervisor.set_policy(&configuration).unwrap().policy_generation, 2);
    assert_eq!(counts(), (2, 1));
    {
        let seen = seen.lock().unwrap();
        let edits = [PolicyEdit::RelayDraining(false), PolicyEdit::AddPublisher(*friend.as_bytes())];
        assert_eq!(seen.changes[0].edits, edits);
        assert!(seen.policies[1].trusts(friend.as_bytes()) && seen.policies[1].trusts(uid.as_bytes()));
    }

    configuration.limits.idle_timeout_ms += 1;
    supervisor.set_policy(&configuration).unwrap();
    assert_eq!(counts(), (3, 1), "a bound is no entry of a list");

    // Somebody else has set another policy meanwhile, which is not one to patch.
    let mut other = EngineSocket::connect(&socket).unwrap();
    other.set_policy(Policy { generation: 40, ..Policy::default() }).unwrap();
    drop(other);
    configuration.publishers.trusted.clear();
    assert_eq!(supervisor.set_policy(&configuration).unwrap().policy_generation, 41);
    assert_eq!(counts(), (5, 1));
    let seen = seen.lock().unwrap();
    let last = seen.policies.last().unwrap();
    assert_eq!(
        (last.publishers.len(), last.limits.idle_timeout_ms),
        (1, configuration.limits.idle_timeout_ms)
    );
}
