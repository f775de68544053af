//! `ioex fetch` refuses what it cannot mean, and says what it could.

use crate::node::on;
use crate::program::err;

#[test]
fn what_is_no_address_is_wrong_usage() {
    let root = tempfile::tempdir().unwrap();
    let hash = "ab".repeat(32);
    let fetch = |arguments: &[&str]| {
        let output = on(root.path(), "fetch").args(arguments).output().unwrap();
        (output.status.code().unwrap(), err(&output))
    };
    for (arguments, expected) in [
        (vec!["abc"], "64 hexadecimal digits"),
        (vec!["https://node.example:4433"], "names no content"),
        (vec!["https://node.example:4433/other"], "no path of content"),
        (vec!["https://node.example/list/00"], "has no port"),
        (vec![&hash, "--from", "node.example"], "--from"),
        (vec![&hash, "--from", "https://node.example:1", "--publisher", "me"], "is not a UID"),
    ] {
        let (code, text) = fetch(&arguments);
        assert!(code == 2 && text.contains(expected), "{arguments:?}: {code} {text}");
    }
    let (code, text) = fetch(&[&hash]);
    assert!(code == 3 && text.contains("--from"), "no node named and none running: {code} {text}");
}
