//! Under which URLs and names a node is reached.

use control_plane::configuration::Node;
use control_plane::reachable::{certificate_names, urls};
use identity::Uid;
use std::path::PathBuf;

fn node(names: &[&str]) -> Node {
    Node { role: None, data: PathBuf::from("/data"), names: names.iter().map(ToString::to_string).collect() }
}

#[test]
fn urls_pin_the_uid_and_bracket_ipv6() {
    let uid = Uid::from_bytes([5; 32]);
    let listeners = ["udp://127.0.0.1:4433", "tcp://127.0.0.1:4433", "udp://[::1]:443"].map(String::from);
    let expected = [format!("https://{uid}@127.0.0.1:4433"), format!("https://{uid}@[::1]:443")];
    assert_eq!(urls(uid, &node(&["relay.example"]), &listeners), expected);
}

#[test]
fn a_wildcard_address_is_replaced_by_the_names_of_the_configuration() {
    let uid = Uid::from_bytes([5; 32]);
    let found = urls(uid, &node(&["relay.example", "2001:db8::7"]), &["udp://[::]:4433".into()]);
    assert_eq!(
        found,
        [format!("https://{uid}@relay.example:4433"), format!("https://{uid}@[2001:db8::7]:4433")]
    );
    // Without names there is at least one URL that works on this machine.
    for url in urls(uid, &node(&[]), &["udp://[::]:4433".into()]) {
        assert!(url.parse::<peer::NodeUrl>().is_ok() && !url.contains("[::]"), "{url}");
    }
}

#[test]
fn certificates_require_only_what_was_configured() {
    let listen = ["203.0.113.7:443".parse().unwrap(), "[::]:4433".parse().unwrap()];
    let names = certificate_names(&node(&["relay.example"]), &listen);
    assert_eq!(
        names.required.iter().map(String::as_str).collect::<Vec<_>>(),
        ["203.0.113.7", "relay.example"]
    );
    assert!(names.required.is_subset(&names.all));
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert!(names.all.contains(name), "{name} is missing");
    }
}
