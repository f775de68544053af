//! A whole node with a relay: what `ioex relay` does is felt by a TURN client.

use crate::node::{Node, code, json, on};
use crate::program::out;
use relay::stun::{AttributeType, Class, Integrity, Message, Method, StaticUser, TransactionId, Writer};
use rustix::process::{Signal, kill_process};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TURN client over UDP with a user name and password.
pub struct Client {
    socket: UdpSocket,
    user: String,
    password: String,
    nonce: Vec<u8>,
    transactions: u64,
}

impl Client {
    pub fn new(server: SocketAddr, user: &str, password: &str) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        Client { socket, user: user.into(), password: password.into(), nonce: Vec::new(), transactions: 0 }
    }

    pub fn allocate(&mut self) -> u16 {
        self.ask(Method::Allocate)
    }

    pub fn refresh(&mut self) -> u16 {
        self.ask(Method::Refresh)
    }

    /// The code of the answer, 0 for success. Nonces are taken as they come; 401 is final when one was given.
    fn ask(&mut self, method: Method) -> u16 {
        for _ in 0..3 {
            let had_nonce = !self.nonce.is_empty();
            let answer = self.transact(method);
            let answer = Message::decode(&answer).unwrap();
            let code =
                answer.find(AttributeType::ERROR_CODE).map_or(0, |v| u16::from(v[2]) * 100 + u16::from(v[3]));
            if let Some(nonce) = answer.find(AttributeType::NONCE) {
                self.nonce = nonce.to_vec();
            }
            if !(code == 438 || code == 401 && !had_nonce) {
                return code;
            }
        }
        panic!("the relay takes none of its nonces");
    }

    /// Sends the request until it is answered, as RFC 8489 section 6.2.1 has clients do: an engine that starts again may have
    /// dropped it.
    fn transact(&mut self, method: Method) -> Vec<u8> {
        self.transactions += 1;
        let mut transaction = [9; 12];
        transaction[4..].copy_from_slice(&self.transactions.to_be_bytes());
        let mut out = [0; 1_024];
        let mut writer = Writer::new(&mut out, Class::Request, method, TransactionId(transaction));
        match method {
            Method::Allocate => writer.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
            _ => writer.lifetime_s(600),
        };
        if !self.nonce.is_empty() {
            let keys = StaticUser::derive(&self.user, "ioex", &self.password).unwrap().keys;
            writer.attribute(AttributeType::USERNAME, self.user.as_bytes());
            writer.attribute(AttributeType::REALM, b"ioex");
            writer.attribute(AttributeType::NONCE, &self.nonce);
            writer.integrity_with(Integrity::Sha1, &keys.md5);
        }
        let request = writer.finish().unwrap();
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let end = std::time::Instant::now() + PATIENCE;
        let mut answer = [0; 2_048];
        while std::time::Instant::now() < end {
            // Nobody listens while an engine starts: the kernel says so here or at the next receive.
            let _ = self.socket.send(request);
            if let Ok(len) = self.socket.recv(&mut answer)
                && answer[8..20] == transaction
            {
                return answer[..len].to_vec();
            }
        }
        panic!("no answer within {PATIENCE:?}");
    }
}

/// `ioex relay ARGUMENTS`, with the relay on as far as the command can tell.
pub fn relay(home: &Path, arguments: &[&str]) -> Command {
    let mut command = on(home, "relay");
    command.args(arguments).env("IOEX_RELAY_LISTEN", "127.0.0.1:0");
    command
}

pub fn add_user(home: &Path, name: &str, password: &str) -> String {
    let mut command = relay(home, &["user", "add", name]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    out(&child.wait_with_output().unwrap())
}

/// Where the relay of a node listens on UDP.
pub fn server(ready: &serde_json::Value) -> SocketAddr {
    let uris = ready["relay"].as_array().unwrap().iter().filter_map(serde_json::Value::as_str);
    let mut udp = uris.filter_map(|uri| uri.strip_prefix("turn:")?.strip_suffix("?transport=udp"));
    udp.next().expect("the relay listens on UDP").parse().unwrap()
}

#[test]
fn users_sessions_kick_and_drain_are_felt_by_clients_at_once() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let mut node = Node::up(home, &["--relay", "127.0.0.1:0"]);
    let server = server(&node.ready);

    // A user exists from the moment at which the command returns.
    let mut alice = Client::new(server, "alice", "correct horse");
    assert_eq!(alice.allocate(), 401);
    assert_eq!(add_user(home, "alice", "correct horse"), "added alice (in force)\n");
    node.event("reloaded");
    assert_eq!(alice.allocate(), 0);
    assert_eq!(Client::new(server, "alice", "wrong horse").allocate(), 401);

    // A credential that expires, as its own user.
    let credential = json(&relay(home, &["credential", "phone-17", "--json"]).output().unwrap());
    let text = |name: &str| credential[name].as_str().unwrap();
    assert_eq!(credential["uris"][0], format!("turn:{server}?transport=udp"));
    let mut phone = Client::new(server, text("username"), text("password"));
    assert_eq!(phone.allocate(), 0);

    let sessions = json(&relay(home, &["sessions", "--json"]).output().unwrap());
    let sessions = sessions["sessions"].as_array().unwrap();
    let mut users: Vec<_> = sessions.iter().map(|session| session["user"].as_str().unwrap()).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "phone-17"]);
    let of_alice = sessions.iter().find(|session| session["user"] == "alice").unwrap();
    assert_eq!(of_alice["client"], alice.socket.local_addr().unwrap().to_string());
    assert_eq!(of_alice["relayed"].as_array().unwrap().len(), 1);

    // Another reload drops nobody.
    node.signal(Signal::HUP);
    node.event("reloaded");
    assert_eq!((alice.refresh(), phone.refresh()), (0, 0));

    // A kick ends a session, and the others go on.
    assert_eq!(out(&relay(home, &["kick", "alice"]).output().unwrap()), "ended 1 session\n");
    assert_eq!((alice.refresh(), phone.refresh()), (437, 0));
    assert_eq!(code(&mut relay(home, &["kick", "alice"])).0, 3);

    // A drain refuses new allocations and keeps those that live; a reload does not undo it.
    assert!(relay(home, &["drain"]).output().unwrap().status.success());
    node.signal(Signal::HUP);
    node.event("reloaded");
    let mut late = Client::new(server, "alice", "correct horse");
    assert_eq!((late.allocate(), phone.refresh()), (508, 0));
    assert!(relay(home, &["drain", "--end"]).output().unwrap().status.success());
    assert_eq!(late.allocate(), 0);

    // Who is taken away cannot come again.
    let removed = out(&relay(home, &["user", "remove", "alice"]).output().unwrap());
    assert_eq!(removed, "removed alice (in force)\n");
    node.event("reloaded");
    assert_eq!(Client::new(server, "alice", "correct horse").allocate(), 401);
    node.end();
}

#[test]
fn clients_come_back_after_the_engine_was_killed() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    add_user(home, "alice", "correct horse");
    // A fixed port: clients know no other.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut node = Node::up(home, &["--relay", &listen]);
    let server = server(&node.ready);
    let mut alice = Client::new(server, "alice", "correct horse");
    assert_eq!(alice.allocate(), 0);
    kill_process(node.engine(), Signal::KILL).unwrap();
    node.event("engine_died");
    // What the engine knew is gone, its users are not.
    let mut again = Client::new(server, "alice", "correct horse");
    assert_eq!(again.allocate(), 0);
    node.event("engine_started");
    assert_eq!(alice.refresh(), 437);
    let sessions = json(&relay(home, &["sessions", "--json"]).output().unwrap());
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
    node.end();
}

#[test]
fn quotas_follow_the_configuration_without_dropping_a_session() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let file = home.join("ioex.toml");
    let settings = |more: &str| {
        let text =
            format!("[relay]\nlisten = [\"127.0.0.1:0\"]\n{more}\n[limits]\ndrain_timeout_ms = 1000\n");
        std::fs::write(&file, text).unwrap();
    };
    settings("allocations_per_user_max = 2");
    add_user(home, "alice", "correct horse");
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", "0", "--config"]).arg(&file);
    let mut node = Node::start(&mut up);
    let server = server(&node.ready);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(server, "alice", "correct horse")).collect();
    let codes: Vec<u16> = clients.iter_mut().map(Client::allocate).collect();
    assert_eq!(codes, [0, 0, 486, 486]);
    settings("allocations_per_user_max = 3");
    node.signal(Signal::HUP);
    node.event("reloaded");
    assert_eq!((clients[2].allocate(), clients[3].allocate()), (0, 486));
    settings("allocations_per_user_max = 1");
    node.signal(Signal::HUP);
    node.event("reloaded");
    assert_eq!([0, 1, 2].map(|n| clients[n].refresh()), [0, 0, 0]);
    assert_eq!(clients[3].allocate(), 486);
    settings("client_deny = [\"127.0.0.0/8\"]");
    node.signal(Signal::HUP);
    node.event("reloaded");
    assert_eq!(
        json(&relay(home, &["sessions", "--json"]).output().unwrap())["sessions"].as_array().unwrap().len(),
        3
    );
    node.end();
}
