//! `ioex top`: what it makes of two looks, how that is drawn, and a real node.

use crate::node::{Node, code, json, on};
use control_plane::top::{Look, Picture, draw, height};
use ratatui::backend::TestBackend;
use ratatui::{Terminal, TerminalOptions};
use relay::policy::Status;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A look at a node of two shards that has counted `times` times as much as after its first second, at that second.
fn seen(start: Instant, times: u64) -> Look {
    let mut counters = Vec::new();
    for shard in 0..2u64 {
        // The second shard does three times as much.
        let share = times * (1 + 2 * shard);
        for (name, value) in [
            ("ioex_busy_nanoseconds_total{shard=\"N\"}", share * 250_000_000),
            ("ioex_datagrams_received_total{shard=\"N\"}", share * 1_000),
            ("ioex_datagram_bytes_received_total{shard=\"N\"}", share * 100_000),
            ("ioex_datagrams_sent_total{shard=\"N\"}", share * 20_000),
            ("ioex_datagram_bytes_sent_total{shard=\"N\"}", share * 25_000_000),
            ("ioex_receive_dropped_total{shard=\"N\",cause=\"socket_buffer\"}", share * 7),
            ("ioex_connections{shard=\"N\"}", 10 + shard),
            ("ioex_relay_allocations{shard=\"N\"}", 3),
            ("ioex_relay_bytes_total{shard=\"N\",direction=\"to_peer\"}", share * 1_000_000),
            ("ioex_relay_bytes_total{shard=\"N\",direction=\"to_client\"}", share * 2_000_000),
            ("ioex_mailbox_sessions{shard=\"N\"}", 2),
            ("ioex_requests_total{shard=\"N\"}", share * 5),
        ] {
            counters.push((name.replace('N', &shard.to_string()), value));
        }
    }
    for (name, value) in [
        ("ioex_cpu_nanoseconds_total{threads=\"shards\"}", times * 900_000_000),
        ("ioex_cpu_nanoseconds_total{threads=\"storage\"}", times * 50_000_000),
        ("ioex_storage_appends_total{result=\"stored\"}", times * 4),
        ("ioex_storage_appends_total{result=\"full\"}", times * 100),
        // A loss of the past: it is counted, but does not grow.
        ("ioex_tcp_refused_total{cause=\"handshake\"}", 1_234),
        ("ioex_tcp_connections", 5),
        ("ioex_store_bytes", 3 << 30),
        ("ioex_store_bytes_max", 4 << 30),
        ("ioex_store_segments", 3_072),
        ("ioex_store_packs", 12),
    ] {
        counters.push((name.to_string(), value));
    }
    let engine = Status {
        pid: 77,
        version: "0.1.0".into(),
        uid: [7; 32],
        driver: "io_uring".into(),
        listeners: vec!["udp://[::]:4433".into(), "tcp://[::]:4433".into()],
        relay: vec!["turn:[::]:3478?transport=udp".into()],
        uptime_s: 3_600 + times,
        policy_generation: 12,
        policy_valid_until_s: 1_795_541_982,
        policy_expired: false,
        draining: false,
        store_bytes: 3 << 30,
        store_segments: 3_072,
        counters,
    };
    let dht = json!({ "listens": "0.0.0.0:6881", "server": true, "nodes": 84, "network_nodes_estimate": 213, "lists": 6,
                      "record": { "sequence_ms": 1_795_455_582_527_u64 } });
    let friend = |standing: &str, connected: bool| json!({ "standing": standing, "connected": connected });
    let friends = json!({ "node": { "connected": true, "mailbox": "https://a.example" },
                          "friends": [friend("friend", true), friend("friend", false), friend("asking", false)] });
    let at = start + Duration::from_secs(times);
    Look { at, engine, dht: Ok(Some(dht)), friends: Ok(Some(friends)) }
}

fn picture() -> Picture {
    let start = Instant::now();
    Picture::between(&seen(start, 2), &seen(start, 4))
}

#[test]
fn rates_are_what_has_grown_by_the_time_between() {
    let picture = serde_json::to_value(picture()).unwrap();
    assert_eq!((&picture["interval_s"], &picture["node"]["uptime_s"]), (&json!(2.0), &json!(3_604)));
    let shard = &picture["shards"][1];
    assert_eq!(
        (&shard["busy_percent"], &shard["connections"], &shard["received_datagrams_per_s"]),
        (&json!(75.0), &json!(11), &json!(3_000.0))
    );
    let all = &picture["all_shards"];
    // Two shards that are awake a quarter and three quarters of the time.
    assert_eq!((&all["busy_percent"], &all["connections"]), (&json!(50.0), &json!(21)));
    assert_eq!((&all["sent_bits_per_s"], &all["relayed_bits_per_s"]), (&json!(800e6), &json!(96e6)));
    assert_eq!(
        picture["cpu"],
        json!({ "shards_percent": 90.0, "services_percent": 0.0, "storage_percent": 5.0 })
    );
    let sessions = &picture["sessions"];
    assert_eq!(
        (&sessions["tcp"], &sessions["mailbox"], &sessions["requests_per_s"]),
        (&json!(5), &json!(4), &json!(20.0))
    );
    assert_eq!((&picture["store"]["appends_per_s"], &picture["store"]["packs"]), (&json!(4.0), &json!(12)));
    assert_eq!((&picture["dht"]["nodes"], &picture["dht"]["published"]), (&json!(84), &json!(true)));
    let friends = &picture["friends"];
    assert_eq!(
        (&friends["friends"], &friends["online"], &friends["asking"]),
        (&json!(2), &json!(1), &json!(1))
    );
    // What grows comes first, and a success is no loss.
    let losses: Vec<_> =
        picture["losses"].as_array().unwrap().iter().map(|loss| (&loss["cause"], &loss["per_s"])).collect();
    assert_eq!(
        losses,
        [
            (&json!("full"), &json!(100.0)),
            (&json!("socket buffer"), &json!(28.0)),
            (&json!("handshake"), &json!(0.0))
        ]
    );
}

#[test]
fn another_engine_has_no_past() {
    let start = Instant::now();
    let before = seen(start, 9);
    let mut after = seen(start + Duration::from_secs(10), 1);
    after.engine.pid += 1;
    (after.dht, after.friends) = (Ok(None), Err("no answer".into()));
    let picture = Picture::between(&before, &after);
    assert_eq!((picture.interval_s, picture.all_shards.received_datagrams_per_s), (0.0, 0.0));
    assert_eq!((picture.all_shards.connections, &picture.dht, &picture.friends), (21, &None, &None));
    assert_eq!(picture.notes, ["friends: no answer"]);
}

/// The screen of so many columns and rows.
fn screen(picture: &Picture, problem: Option<&str>, columns: u16, rows: u16) -> String {
    let backend = TestBackend::new(columns, rows);
    let mut terminal = Terminal::with_options(backend, TerminalOptions::default()).unwrap();
    terminal.draw(|frame| draw(picture, problem, frame.area(), frame.buffer_mut())).unwrap();
    let cells = terminal.backend().buffer().content.chunks(usize::from(columns));
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect::<String>();
    cells.map(|row| format!("{}\n", line(row).trim_end())).collect()
}

#[test]
fn the_screen_shows_it_on_a_small_terminal() {
    let picture = picture();
    assert_eq!(height(&picture), 23);
    assert_eq!(screen(&picture, None, 80, 24), SCREEN);
    // A shorter one leaves out what is at the bottom, and a reason stands where the addresses are.
    let gone = screen(&picture, Some("no engine runs here"), 80, 12);
    assert!(gone.contains("\n no engine runs here\n") && gone.contains("all"), "{gone}");
    for (columns, rows) in [(1, 1), (3, 200), (200, 3)] {
        screen(&picture, None, columns, rows);
    }
}

const SCREEN: &str = "\
\x20ioex 0.1.0  io_uring  up 1 h 0 min  policy 12  US517G5965aydkZ46HS38QLi7UQiSoju
 udp://[::]:4433  turn:[::]:3478?transport=udp
┌ shards; CPU 90 % of a core, services 0 %, storage 5 % ───────────────────────┐
│SHARD  BUSY  CONNS IN pkt/s IN bit/s OUT pkt/s OUT bit/s RELAYS RELAY bit/s   │
│  all  50 %     21    4.00k    3.20M     80.0k      800M      6       96.0M   │
│    0  25 %     10    1.00k     800k     20.0k      200M      3       24.0M   │
│    1  75 %     11    3.00k    2.40M     60.0k      600M      3       72.0M   │
└──────────────────────────────────────────────────────────────────────────────┘
┌ sessions ───────────────┐┌ store ─────────────────┐┌ network ────────────────┐
│content  21 QUIC, 5 TCP  ││holds    3.00 GiB, 75 % ││DHT      84 of about 213 │
│requests 20/s            ││segments 3072           ││record   published       │
│bodies   0bit/s          ││packs    12             ││lists    6               │
│relay    6 allocations   ││damaged  0              ││mailbox  connected       │
│streams  0 of its clients││reads    0/s            ││friends  1 of 2 online   │
│mailbox  4, 0/s          ││writes   4/s            ││requests 1               │
└─────────────────────────┘└────────────────────────┘└─────────────────────────┘
┌ lost, refused or cut short ──────────────────────────────────────────────────┐
│    100/s     400 in all  storage appends: full                               │
│     28/s     112 in all  receive dropped: socket buffer                      │
│      0/s   1.23k in all  tcp refused: handshake                              │
│                                                                              │
│                                                                              │
└──────────────────────────────────────────────────────────────────────────────┘

";

#[test]
fn many_shards_go_as_far_as_there_is_room() {
    let mut picture = picture();
    picture.shards = vec![picture.shards[0].clone(); 64];
    let text = screen(&picture, None, 80, 30);
    assert!(text.contains("sessions") && text.contains("lost, refused"), "{text}");
}

#[test]
fn a_real_node_is_told_of_once_as_json() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (exit, text) = code(on(home, "top").args(["--once", "--json"]));
    assert!(exit == 3 && text.contains("ioex up"), "{exit} {text}");
    let node = Node::up(home, &["--dht", "127.0.0.1:0", "--mailbox", "local"]);
    let picture = json(&on(home, "top").args(["--once", "--json", "--interval", "0.1"]).output().unwrap());
    assert_eq!(
        (&picture["node"]["uid"], &picture["node"]["pid"]),
        (&node.ready["uid"], &node.ready["engine"]["pid"])
    );
    assert_eq!(picture["shards"].as_array().map(Vec::len), Some(1));
    assert_eq!((&picture["store"]["segments"], &picture["notes"]), (&json!(0), &json!([])));
    assert_eq!(picture["dht"]["listens"], node.ready["dht"]);
    assert_eq!(picture["friends"]["friends"], 0);
    assert!(picture["interval_s"].as_f64().unwrap() >= 0.1, "{picture}");

    // A line each interval, until nobody reads.
    let mut top = on(home, "top");
    let mut top =
        top.args(["--json", "--interval", "0.1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(top.stdout.take().unwrap());
    for line in std::io::BufRead::lines(lines).take(3) {
        let picture: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(picture["node"]["uid"], node.ready["uid"]);
    }
    assert!(top.wait().unwrap().success());

    let text = crate::program::out(&on(home, "top").args(["--once", "--interval", "0.1"]).output().unwrap());
    assert!(text.contains(node.ready["uid"].as_str().unwrap()) && text.contains("SHARD"), "{text}");
    let (exit, text) = code(&mut on(home, "top"));
    assert!(exit == 2 && text.contains("--once"), "{exit} {text}");
}
