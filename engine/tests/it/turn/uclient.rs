//! coturn's own test client, `turnutils_uclient`, in all its modes. Its exit code says nothing: what it
//! counted does.

use std::net::SocketAddr;
use std::process::Command;

use super::client::EchoPeer;
use super::node::{PASSWORD, REST_SECRET, Settings, TurnNode, USER};
use crate::node::DRIVERS;

/// What the client counted.
#[derive(Debug)]
struct Counted {
    sent: u64,
    received: u64,
    lost: u64,
}

/// Runs the client against a server for at most `seconds`, with these arguments in front of the server's.
fn run(server: SocketAddr, arguments: &[&str], seconds: &str) -> (Option<Counted>, String) {
    let port = server.port().to_string();
    let output = Command::new("timeout")
        .args([seconds, "turnutils_uclient", "-p", &port])
        .args(arguments)
        .arg(server.ip().to_string())
        .output()
        .expect("timeout runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_ne!(output.status.code(), Some(127), "turnutils_uclient is missing; `make setup` installs it");
    // Only the last line of each kind is the sum.
    let number = |before: &str| -> Option<u64> {
        let line = text.lines().rfind(|line| line.contains(before))?;
        let rest = &line[line.find(before)? + before.len()..];
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let counted = || {
        Some(Counted {
            sent: number("tot_send_msgs=")?,
            received: number("tot_recv_msgs=")?,
            lost: number("Total lost packets ")?,
        })
    };
    (counted(), text)
}

/// The client gets back all that it sent, and it sent `messages`.
fn assert_nothing_is_lost(node: &TurnNode, arguments: &[&str], messages: u64) {
    let credentials = ["-u", USER, "-w", PASSWORD];
    let (counted, text) = run(node.address, &[&credentials, arguments].concat(), "120");
    let Some(counted) = counted else { panic!("{arguments:?} counted nothing:\n{text}\n{}", node.log()) };
    assert_eq!(
        (counted.sent, counted.received, counted.lost),
        (messages, messages, 0),
        "{arguments:?}:\n{text}\n{}",
        node.log()
    );
}

/// A mode: arguments, and how many messages it makes of 20 a client.
type Mode = (&'static [&'static str], u64);

/// Runs the modes side by side against one node.
fn each_mode(settings: Settings, modes: &[Mode]) {
    let peer = EchoPeer::start(settings.ip);
    let node = TurnNode::start(settings);
    let (ip, port) = (peer.address.ip().to_string(), peer.address.port().to_string());
    let family = if peer.address.is_ipv4() { "-X" } else { "-x" };
    std::thread::scope(|scope| {
        for (mode, messages) in modes {
            let mut arguments = vec![family, "-c", "-n", "20"];
            // Without a peer the clients send to each other.
            if !mode.contains(&"-y") {
                arguments.extend(["-e", &ip, "-r", &port]);
            }
            arguments.extend(*mode);
            let node = &node;
            scope.spawn(move || assert_nothing_is_lost(node, &arguments, *messages));
        }
    });
}

#[test]
fn channel_data_send_indications_and_relay_to_relay_pass() {
    for driver in DRIVERS {
        for cores in ["0", "0,1"] {
            let modes: &[Mode] = &[
                (&["-g", "-m", "2"], 40),
                (&["-s", "-g", "-m", "2"], 40),
                // As both of a pair send and receive, each counts.
                (&["-y", "-g", "-m", "2"], 40),
                (&["-y", "-s", "-m", "2"], 40),
                // Payloads whose lengths are no multiple of four, and such that fill a packet.
                (&["-l", "101", "-D"], 20),
                (&["-l", "1200"], 20),
            ];
            each_mode(Settings { cores, ..Settings::on(driver) }, modes);
        }
    }
}

#[test]
fn mobility_extra_requests_and_expiring_users_pass() {
    for driver in DRIVERS {
        let modes: &[Mode] = &[
            (&["-M", "-m", "2"], 40),
            (&["-M", "-s", "-m", "2"], 40),
            (&["-M", "-t", "-m", "2"], 40),
            (&["-G", "-m", "2"], 40),
            (&["-W", REST_SECRET], 20),
        ];
        each_mode(Settings { cores: "0,1", ..Settings::on(driver) }, modes);
    }
}

// Not TLS: there the client leaves unread what its TLS library holds already, and counts it as lost, with
// coturn's server as well. aioice goes over TLS.
#[test]
fn tcp_passes() {
    for driver in DRIVERS {
        for cores in ["0", "0,1"] {
            let modes: &[Mode] = &[
                (&["-t", "-m", "2"], 40),
                (&["-t", "-s", "-m", "2"], 40),
                (&["-t", "-y", "-m", "2"], 40),
                (&["-t", "-l", "1001"], 20),
            ];
            each_mode(Settings { cores, ..Settings::on(driver) }, modes);
        }
    }
}

#[test]
fn ipv6_passes() {
    for driver in DRIVERS {
        let ip = "::1".parse().expect("an address");
        let modes: &[Mode] = &[(&["-g", "-m", "2"], 40), (&["-s"], 20), (&["-y", "-m", "2"], 40)];
        each_mode(Settings { ip, ..Settings::on(driver) }, modes);
    }
}

/// With `-R` the client damages every tenth message or so behind its FINGERPRINT, sends it again as often as
/// it likes, and waits for ever if nobody answers. RFC 8489 section 6.3 has the server discard such messages,
/// so most of the clients get nowhere; with coturn's server, too, two thirds do. Whoever gets through loses
/// nothing, and the server is none the worse.
#[test]
fn damaged_messages_hurt_nobody_but_their_sender() {
    for driver in DRIVERS {
        let settings = Settings { cores: "0,1", ..Settings::on(driver) };
        let peer = EchoPeer::start(settings.ip);
        let node = TurnNode::start(settings);
        let (ip, port) = (peer.address.ip().to_string(), peer.address.port().to_string());
        let damaging = ["-u", USER, "-w", PASSWORD, "-R", "-X", "-c", "-n", "20", "-e", &ip, "-r", &port];
        let passed = (0..20).any(|_| {
            let runs = std::thread::scope(|scope| {
                let start = |_| scope.spawn(|| run(node.address, &damaging, "10").0);
                let runs: Vec<_> = (0..8).map(start).collect();
                runs.into_iter().map(|run| run.join().expect("no panic")).collect::<Vec<_>>()
            });
            runs.into_iter().flatten().any(|run| (run.sent, run.received, run.lost) == (20, 20, 0))
        });
        assert!(passed, "{driver}: of 160 clients not one got through");
        assert!(node.dropped("malformed") > 0, "{driver}: what is damaged is seen to be");
        assert_nothing_is_lost(&node, &["-X", "-c", "-n", "20", "-e", &ip, "-r", &port], 20);
    }
}
