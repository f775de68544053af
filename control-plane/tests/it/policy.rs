//! What the control plane tells a real engine, and for how long that counts.

use crate::api::until;
use crate::mailbox::{LONG, join, key, next};
use crate::node::{Node, code, json, on};
use crate::program::err;
use crate::relay_node::{Client as TurnClient, relay, server};
use control_plane::data_directory::DataDirectory;
use control_plane::engine_socket::EngineSocket;
use control_plane::node_identity::NodeIdentity;
use peer::mailbox::{Kind, RelayCredentials};
use peer::{Client, ClientOptions, Event, Login, Mailbox, MailboxError};
use relay::policy::Status;
use relay::stun::rest_password;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use tokio::time::timeout;

/// A node whose policy counts for eight seconds.
fn up(home: &Path) -> Command {
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--relay", "127.0.0.1:0"]);
    up.env("IOEX_POLICY_VALIDITY_S", "8").env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000");
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
    one.flush().await.unwrap();
    let Event::Message { body, .. } = next(&mut two).await else { panic!("a message") };
    assert_eq!(body, b"still there");
    assert_eq!(phone.refresh(), 0);
    let list = published["urls"][0].as_str().unwrap();
    let fetched = on(home, "fetch").args([list, "-o", "-"]).output().unwrap();
    assert!(fetched.stdout == vec![7; 100_000], "{}", err(&fetched));
    // Nothing begins.
    let login = Login { key: key(3), nospam: [3; 4], friends: Vec::new(), latest_sent_us: 0 };
    let at = client.node(node.url().parse().unwrap());
    let refused =
        timeout(LONG, Mailbox::open(&at, login)).await.expect("in time").expect_err("nobody is let in");
    assert!(matches!(refused, MailboxError::PolicyExpired), "{refused}");
    assert_eq!(turn_client().allocate(), 508);
    let other = home.join("other.img");
    std::fs::write(&other, vec![8; 100_000]).unwrap();
    // A publisher tries again later, as 503 asks it to.
    let mut publishing = on(home, "publish").arg(&other).args(["--to", &node.url()]).spawn().unwrap();
    until(|| count(&status(home), "ioex_uploads_refused_total", "policy_expired") > 0);
    publishing.kill().unwrap();
    publishing.wait().unwrap();
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
    one.flush().await.unwrap();
    let Event::Message { body, .. } = next(&mut two).await else { panic!("a message") };
    assert_eq!(body, b"and on");
    drop((one, two));
    second.end();
}

fn policy(home: &Path, arguments: &[&str]) -> Command {
    let mut command = on(home, "policy");
    command.args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_is_gone_at_once_and_stays_away() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let path = home.join("firmware.img");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    // A publisher that the node trusts.
    let vendor = tempfile::tempdir().unwrap();
    let directory = DataDirectory::prepare(&vendor.path().join("data")).unwrap();
    let publisher = NodeIdentity::load_or_create(&directory).unwrap().0.uid();
    let start = || {
        let mut up = up(home);
        up.env("IOEX_POLICY_VALIDITY_S", "3600").env("IOEX_PUBLISHERS_TRUSTED", publisher.to_string());
        Node::start(up.env("IOEX_POLICY_DENY", key(9).uid().to_string()))
    };
    let node = start();
    let publish = |node: &Node| {
        let mut command = on(vendor.path(), "publish");
        command.arg(&path).args(["--to", &node.url()]);
        command
    };
    assert_eq!(code(&mut publish(&node)).0, 0);
    let uid = |n: u8| key(n).uid().to_string();
    let credential = json(&relay(home, &["credential", &uid(1), "--json"]).output().unwrap());
    let text = |name: &str| credential[name].as_str().unwrap();
    let turn_client = || TurnClient::new(server(&node.ready), text("username"), text("password"));
    let mut turn = turn_client();
    assert_eq!(turn.allocate(), 0);
    let client = Client::new(ClientOptions::default()).unwrap();
    let refused = async |node: &Node, n: u8| {
        let login = Login { key: key(n), nospam: [n; 4], friends: Vec::new(), latest_sent_us: 0 };
        let at = client.node(node.url().parse().unwrap());
        timeout(LONG, Mailbox::open(&at, login)).await.expect("in time").expect_err("it is not let in")
    };
    assert!(matches!(refused(&node, 9).await, MailboxError::Denied), "the configuration denies it");
    let mut one = join(&client, &node, 1, &[2]).await;
    let mut two = join(&client, &node, 2, &[1]).await;

    // Nothing else happens on these connections: the node ends the session by itself.
    let done = json(&policy(home, &["deny", &uid(1), "--json"]).output().unwrap());
    assert_eq!((&done["done"], &done["uid"]), (&"denied".into(), &uid(1).into()));
    let end = timeout(LONG, one.next()).await.expect("in time").expect_err("the session is over");
    assert!(matches!(end, MailboxError::Denied), "{end}");
    assert!(matches!(refused(&node, 1).await, MailboxError::Denied));
    let relay_sessions = || {
        let sessions = json(&relay(home, &["sessions", "--json"]).output().unwrap());
        sessions["sessions"].as_array().unwrap().len()
    };
    until(|| relay_sessions() == 0);
    assert_eq!((turn.refresh(), turn_client().allocate()), (403, 403));
    two.send(Kind::Message, &key(1).uid(), [0; 4], b"are you there").unwrap();
    assert!(matches!(next(&mut two).await, Event::NotDelivered { .. }));
    policy(home, &["deny", &publisher.to_string()]).output().unwrap();
    let (exit, said) = code(&mut publish(&node));
    assert!(exit != 0 && said.contains("denied here"), "{exit} {said}");
    let after = status(home);
    assert_eq!(count(&after, "ioex_mailbox_logins_total", "\"denied\""), 2);
    assert!(count(&after, "ioex_relay_users_refused_total", "\"denied\"") >= 2);
    assert!(count(&after, "ioex_uploads_refused_total", "uid_denied") > 0);

    // What was said holds after a restart, and goes over the configuration.
    node.end();
    let node = start();
    assert!(matches!(refused(&node, 1).await, MailboxError::Denied));
    let shown = json(&policy(home, &["show", "--json"]).output().unwrap());
    let rule = |n: u8| {
        let uids = shown["uids"].as_array().unwrap();
        let of = uids.iter().find(|rule| rule["uid"] == uid(n)).expect("a rule");
        (of["rule"].as_str().unwrap(), of["source"].as_str().unwrap())
    };
    assert_eq!((rule(1), rule(9)), (("deny", "command"), ("deny", "configuration")));
    assert_eq!((&shown["only_allowed"], &shown["expired"]), (&false.into(), &false.into()));
    let (exit, said) = code(&mut policy(home, &["forget", &uid(9)]));
    assert!(exit == 3 && said.contains("configuration"), "{exit} {said}");
    let own = node.ready["uid"].as_str().unwrap();
    assert_eq!(code(&mut policy(home, &["deny", own])).0, 2);
    assert_eq!(code(&mut policy(home, &["deny", "nobody"])).0, 2);

    // As soon as one is allowed, others are not.
    for (word, n) in [("forget", 1), ("allow", 1), ("allow", 9)] {
        let (exit, said) = code(&mut policy(home, &[word, &uid(n)]));
        assert_eq!(exit, 0, "{word} {n}: {said}");
    }
    drop(join(&client, &node, 1, &[]).await);
    drop(join(&client, &node, 9, &[]).await);
    assert!(matches!(refused(&node, 2).await, MailboxError::Denied));
    // The node serves itself all the same.
    assert_eq!(code(on(home, "publish").arg(&path).args(["--to", &node.url()])).0, 0);
    node.end();
    // Also while none runs.
    assert!(policy(home, &["forget", &uid(1)]).output().unwrap().status.success());
    assert_eq!(code(&mut policy(home, &["forget", &uid(1)])).0, 3);
}

/// Has coturn's client send 20 messages to itself over the relay; gives what it has counted: sent, received and lost, or nothing if it
/// could not begin.
fn uclient(server: SocketAddr, username: &str, password: &str) -> (Option<[u64; 3]>, String) {
    let output = Command::new("timeout")
        .args(["60", "turnutils_uclient", "-X", "-y", "-c", "-n", "10", "-m", "2"])
        .args(["-p", &server.port().to_string(), "-u", username, "-w", password, &server.ip().to_string()])
        .output()
        .expect("timeout runs");
    assert_ne!(output.status.code(), Some(127), "turnutils_uclient is missing; `make setup` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |before: &str| -> Option<u64> {
        let line = text.lines().rfind(|line| line.contains(before))?;
        let rest = &line[line.find(before)? + before.len()..];
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let counted = ["tot_send_msgs=", "tot_recv_msgs=", "Total lost packets "]
        .map(number)
        .into_iter()
        .collect::<Option<Vec<_>>>();
    (counted.map(|counted| [counted[0], counted[1], counted[2]]), text)
}

async fn credentials(mailbox: &mut Mailbox) -> RelayCredentials {
    mailbox.ask_relay();
    match next(mailbox).await {
        Event::Relay(credentials) => credentials,
        event => panic!("{event:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_relays_under_its_uid_with_what_its_node_has_issued() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let node = {
        let mut up = up(home);
        up.env("IOEX_POLICY_VALIDITY_S", "3600").env("IOEX_RELAY_ALLOCATIONS_PER_USER_MAX", "8");
        // Its clients send to each other, and to its own relayed addresses.
        Node::start(up.args(["--mailbox", "local"]).env("IOEX_RELAY_PEER_ALLOW", "127.0.0.0/8"))
    };
    let server = server(&node.ready);
    let client = Client::new(ClientOptions::default()).unwrap();
    let mut one = join(&client, &node, 1, &[]).await;
    let issued = credentials(&mut one).await;
    let uid = key(1).uid().to_string();
    assert_eq!(issued.uris[0], format!("turn:{server}?transport=udp"));
    assert_eq!(issued.username.split_once(':').unwrap().1, uid);
    let (counted, said) = uclient(server, &issued.username, &issued.password);
    let [sent, received, lost] = counted.unwrap_or_else(|| panic!("it counted nothing:\n{said}"));
    assert!(sent > 0 && (received, lost) == (sent, 0), "{said}");

    // It leaves its allocations behind.
    relay(home, &["kick", &uid]).output().unwrap();
    // The session is the UID's, and so are the quotas, whichever credentials it shows.
    until(|| count(&status(home), "ioex_relay_allocations{", "") == 0);
    let mut clients: Vec<TurnClient> = Vec::new();
    for _ in 0..8 {
        let issued = credentials(&mut one).await;
        let mut client = TurnClient::new(server, &issued.username, &issued.password);
        assert_eq!(client.allocate(), 0);
        clients.push(client);
    }
    assert_eq!(TurnClient::new(server, &issued.username, &issued.password).allocate(), 486);
    let sessions = json(&relay(home, &["sessions", "--json"]).output().unwrap());
    let users: Vec<_> = sessions["sessions"].as_array().unwrap().iter().map(|one| &one["user"]).collect();
    assert_eq!(users, vec![&serde_json::Value::from(uid.as_str()); 8]);

    // For another UID, for longer, or with another password they do not hold; nor do those that have expired.
    let other = issued.username.replace(&uid, &key(2).uid().to_string());
    let longer = format!("{}:{uid}", issued.expires_s + 1);
    assert_eq!(TurnClient::new(server, &other, &issued.password).allocate(), 401);
    assert_eq!(TurnClient::new(server, &longer, &issued.password).allocate(), 401);
    let (counted, _) = uclient(server, &other, &issued.password);
    assert!(counted.is_none_or(|[_, received, _]| received == 0), "{counted:?}");
    let secret = std::fs::read_to_string(home.join("data/relay/secret")).unwrap();
    let expired = format!("1700000000:{uid}");
    let password = rest_password(secret.trim().as_bytes(), &expired);
    assert_eq!(TurnClient::new(server, &expired, &password).allocate(), 401);
    assert!(count(&status(home), "ioex_relay_auth_failures_total", "\"expired\"") > 0);

    // The node's own peer has some too, and renews them.
    let shown = || json(&on(home, "peers").args(["--relay", "--json"]).output().unwrap());
    until(|| on(home, "peers").arg("--relay").output().unwrap().status.success());
    let own = shown();
    assert_eq!(
        own["username"].as_str().unwrap().split_once(':').unwrap().1,
        node.ready["uid"].as_str().unwrap()
    );

    // Denied, it has neither sessions nor new credentials, and those that it has are of no use.
    assert!(policy(home, &["deny", &uid]).output().unwrap().status.success());
    assert!(matches!(timeout(LONG, one.next()).await.expect("in time"), Err(MailboxError::Denied)));
    until(|| count(&status(home), "ioex_relay_allocations{", "") == 0);
    assert_eq!(TurnClient::new(server, &issued.username, &issued.password).allocate(), 403);
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_renewed_before_they_expire_and_are_of_no_use_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut up = up(home);
    up.args(["--mailbox", "local"]).env("IOEX_RELAY_CREDENTIAL_LIFETIME_S", "4");
    let node = Node::start(up.env("IOEX_POLICY_VALIDITY_S", "3600"));
    let server = server(&node.ready);
    let shown = || on(home, "peers").args(["--relay", "--json"]).output().unwrap();
    until(|| shown().status.success());
    let first = json(&shown());
    let text = |name: &str| first[name].as_str().unwrap();
    assert_eq!(TurnClient::new(server, text("username"), text("password")).allocate(), 0);
    until(|| shown().status.success() && json(&shown())["username"] != first["username"]);
    until(|| TurnClient::new(server, text("username"), text("password")).allocate() == 401);
    assert!(count(&status(home), "ioex_relay_auth_failures_total", "\"expired\"") > 0);
    node.end();
}
