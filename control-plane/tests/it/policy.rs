//! What the control plane tells a real engine, and for how long that counts.

use crate::api::until;
use crate::mailbox::{LONG, join, key, next};
use crate::node::{Node, code, json, on};
use crate::program::err;
use crate::relay_node::{Client as TurnClient, relay, server};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use peer::mailbox::Kind;
use peer::{Client, ClientOptions, Event, Login, Mailbox, MailboxError};
use relay::policy::Status;
use std::path::Path;
use std::process::Command;
use tokio::time::timeout;

/// A node whose policy counts for three seconds.
fn up(home: &Path) -> Command {
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--relay", "127.0.0.1:0"]);
    up.env("IOEX_POLICY_VALIDITY_S", "3").env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000");
    up
}

fn status(home: &Path) -> Status {
    let directory = DataDirectory::existing(&home.join("data"));
    EngineSocket::connect(&directory.engine_socket()).unwrap().status().unwrap()
}

fn count(status: &Status, name: &str, result: &str) -> u64 {
    let of = status.counters.iter().filter(|(series, _)| series.starts_with(name) && series.contains(result));
    of.map(|(_, value)| value).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_control_plane_is_gone_keeps_its_promises_and_makes_none() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = home.join("firmware.img");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let mut node = Node::start(&mut up(home));
    let published = json(&on(home, "publish").arg(&path).arg("--json").output().unwrap());
    let credential = json(&relay(home, &["credential", "phone", "--json"]).output().unwrap());
    let turn_client = || {
        let text = |name: &str| credential[name].as_str().unwrap();
        TurnClient::new(server(&node.ready), text("username"), text("password"))
    };
    let mut phone = turn_client();
    assert_eq!(phone.allocate(), 0);
    let client = Client::new(ClientOptions::default()).unwrap();
    let mut one = join(&client, &node, 1, &[2]).await;
    let mut two = join(&client, &node, 2, &[1]).await;

    // It is renewed again and again, long before its end.
    let first = status(home);
    until(|| status(home).policy_generation >= first.policy_generation + 3);
    let renewed = status(home);
    assert!(renewed.policy_valid_until_s > first.policy_valid_until_s && !renewed.policy_expired);

    node.up.kill().unwrap();
    node.up.wait().unwrap();
    until(|| status(home).policy_expired);
    // What was there goes on.
    one.send(Kind::Message, &key(2).uid(), [0; 4], b"still there").unwrap();
    let Event::Message { body, .. } = next(&mut two).await else { panic!("a message") };
    assert_eq!(body, b"still there");
    assert_eq!(phone.refresh(), 0);
    let list = published["urls"][0].as_str().unwrap();
    let fetched = on(home, "fetch").args([list, "-o", "-"]).output().unwrap();
    assert!(fetched.stdout == vec![7; 100_000], "{}", err(&fetched));
    // Nothing begins.
    let login = Login { key: key(3), nospam: [3; 4], friends: Vec::new(), latest_sent_us: 0 };
    let refused = Mailbox::open(&client.node(node.url().parse().unwrap()), login);
    let refused = timeout(LONG, refused).await.expect("in time").expect_err("nobody is let in");
    assert!(matches!(refused, MailboxError::PolicyExpired), "{refused}");
    assert_eq!(turn_client().allocate(), 508);
    let other = home.join("other.img");
    std::fs::write(&other, vec![8; 100_000]).unwrap();
    let (exit, text) = code(on(home, "publish").arg(&other).args(["--to", &node.url()]));
    assert!(exit != 0 && text.contains("has not renewed its policy"), "{exit} {text}");
    let after = status(home);
    assert_eq!(count(&after, "ioex_mailbox_logins_total", "policy_expired"), 1);
    assert_eq!(count(&after, "ioex_relay_allocations_refused_total", "policy_expired"), 1);
    assert!(count(&after, "ioex_uploads_refused_total", "policy_expired") > 0);
    assert_eq!(count(&after, "ioex_policy_expired", ""), 1);

    // The next control plane brings a policy that counts, and everything begins again.
    let second = Node::start(&mut up(home));
    assert_eq!(second.ready["engine"]["adopted"], true);
    assert!(!status(home).policy_expired);
    join(&client, &second, 3, &[]).await;
    assert_eq!(turn_client().allocate(), 0);
    let output = on(home, "publish").arg(&other).args(["--to", &second.url()]).output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    one.send(Kind::Message, &key(2).uid(), [0; 4], b"and on").unwrap();
    drop((one, two));
    second.end();
}
