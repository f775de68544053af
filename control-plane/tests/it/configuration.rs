//! What is wrong with a configuration is said with file, line, column and what is allowed.

use crate::program::{err, ioex, out};
use control_plane::configuration::{Flags, Sources, keys, load, parse};
use proptest::prelude::*;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Loads `content` as `ioex.toml` with `environment` over it and gives the messages, with the directory's
/// name left out.
fn problems(content: &str, environment: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ioex.toml");
    std::fs::write(&file, content).unwrap();
    let error = load(&sources(Some(file), environment)).expect_err("the configuration is wrong");
    error.to_string().replace(&format!("{}/", directory.path().display()), "")
}

fn sources(file: Option<PathBuf>, environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Sources { file, environment, flags: Flags::default() }
}

#[test]
fn unknown_key_names_its_place_and_the_nearest_key() {
    assert_eq!(
        problems("[engine]\ncores = \"0-1\"\n  lisen = [\"[::]:4433\"]\n", &[]),
        "\
ioex.toml:3:3: unknown key `lisen` in [engine]
  |
3 |   lisen = [\"[::]:4433\"]
  |   ^^^^^
  = did you mean `listen`?
  = allowed in [engine]: listen, cores, driver, storage, tcp, metrics"
    );
}

#[test]
fn bad_element_of_a_list_is_pointed_at() {
    assert_eq!(
        problems("[engine]\nlisten = [\"[::]:4433\", \"localhost\"]\n", &[]),
        "\
ioex.toml:2:24: bad value of `engine.listen`: `localhost` is not ADDRESS:PORT
  |
2 | listen = [\"[::]:4433\", \"localhost\"]
  |                        ^^^^^^^^^^^
  = allowed is a list of ADDRESS:PORT such as [\"[::]:4433\"] or [\"203.0.113.7:443\"]; [::] takes IPv4 too"
    );
}

#[test]
fn wrong_type_and_range_are_told_apart() {
    assert_eq!(
        problems("[engine]\ntcp = \"yes\"\n[limits]\nidle_timeout_ms = 5\nconnections_max = 1.5\n", &[]),
        "\
ioex.toml:2:7: bad value of `engine.tcp`: text is not true or false
  |
2 | tcp = \"yes\"
  |       ^^^^^
  = allowed is true or false
ioex.toml:4:19: bad value of `limits.idle_timeout_ms`: 5 is not within 1000 to 600000
  |
4 | idle_timeout_ms = 5
  |                   ^
  = allowed is a whole number from 1000 to 600000
ioex.toml:5:19: bad value of `limits.connections_max`: a number with a fraction is not a whole number
  |
5 | connections_max = 1.5
  |                   ^^^
  = allowed is a whole number from 1 to 1000000"
    );
}

#[test]
fn unknown_section_and_key_outside_of_sections() {
    assert_eq!(
        problems("listen = [\"[::]:1\"]\n[limit]\n", &[]),
        "\
ioex.toml:1:1: key `listen` stands outside any section
  |
1 | listen = [\"[::]:1\"]
  | ^^^^^^
  = `listen` belongs into [engine]
  = sections are [node], [engine], [publishers], [limits], [policy], [relay], [peer], [friends], [dht], [api], [chain]
ioex.toml:2:2: unknown section [limit]
  |
2 | [limit]
  |  ^^^^^
  = did you mean [limits]?
  = sections are [node], [engine], [publishers], [limits], [policy], [relay], [peer], [friends], [dht], [api], [chain]"
    );
}

#[test]
fn malformed_toml_names_the_place() {
    let open = problems("[engine]\nlisten = [\"[::]:4433\"\ncores = \"all\"\n", &[]);
    assert!(open.starts_with("ioex.toml:"), "{open}");
    assert!(open.contains("not valid TOML"), "{open}");
    let twice = problems("[engine]\ntcp = true\ntcp = false\n", &[]);
    assert!(twice.starts_with("ioex.toml:3:1: not valid TOML: duplicate key"), "{twice}");
}

#[test]
fn columns_count_characters() {
    assert_eq!(
        problems("[node]\nnames = [\"bücher\",\t\"-x\"]\n", &[]).lines().next().unwrap(),
        "ioex.toml:2:10: bad value of `node.names`: `bücher` is neither a host name nor an IP address"
    );
    assert_eq!(
        problems("[node]\nnames = [\"a\", # ü\n \"-x\"]\n", &[]).lines().next().unwrap(),
        "ioex.toml:3:2: bad value of `node.names`: `-x` is neither a host name nor an IP address"
    );
}

#[test]
fn environment_goes_over_the_file_and_is_checked_alike() {
    let environment = [
        ("IOEX_ENGINE_CORES", "3-1"),
        ("IOEX_ENGINE_LISTN", "[::]:1"),
        ("IOEX_LIMITS_NOPE", "1"),
        ("IOEX_X", "1"),
    ];
    assert_eq!(
        problems("", &environment),
        "\
environment variable IOEX_ENGINE_CORES: bad value of `engine.cores`: the range `3-1` runs backwards
 = allowed is \"all\", or numbers and ranges such as \"0-3,8\"
environment variable IOEX_ENGINE_LISTN: no setting has this name
 = did you mean IOEX_ENGINE_LISTEN?
environment variable IOEX_LIMITS_NOPE: no setting has this name
 = `ioex config print` lists every setting; its variable is IOEX_SECTION_KEY"
    );
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let text = problems("[limits]\nconnections_max = 300\nhandshakes_max = 400\n", &[]);
    assert!(
        text.starts_with("configuration: handshakes_max is 400, above connections_max, which is 300"),
        "{text}"
    );
}

#[test]
fn the_relays_settings_say_what_they_may_be() {
    assert_eq!(
        problems("[relay]\nlisten = [\"[::]:3478\"]\npeer_allow = [\"10.0.0.0/8\", \"10.1.0.1/16\"]\n", &[]),
        "\
ioex.toml:3:29: bad value of `relay.peer_allow`: bits are set behind the prefix; 10.1.0.0/16 is the prefix that contains this address
  |
3 | peer_allow = [\"10.0.0.0/8\", \"10.1.0.1/16\"]
  |                             ^^^^^^^^^^^^^
  = allowed is a list of addresses or prefixes such as [\"10.0.0.0/8\", \"2001:db8::/32\"]"
    );
    for (line, expected) in [
        ("ports = \"80-90\"", "`80-90` is no range of ports"),
        ("ports = \"50000\"", "1024 <= MIN < MAX <= 65535"),
        ("addresses = [\"10.0.0.5=2001:db8::1\"]", "of different families"),
        ("addresses = [\"0.0.0.0\"]", "no address of a machine"),
        ("realm = \"an example\"", "visible ASCII"),
        ("realm = \"much.too.long.a.realm.example\"", "allowed are 1 to 24"),
        ("bytes_per_s = \"2 TB\"", "not within 0 to 1000000000000"),
        ("strangers_per_s = 0", "not within 1 to 1000000"),
        ("secrets = [\"\"]", "a path is empty"),
        ("lisen = []", "did you mean `listen`?"),
    ] {
        let text = problems(&format!("[relay]\n{line}\n"), &[]);
        assert!(text.starts_with("ioex.toml:2:") && text.contains(expected), "{line}: {text}");
    }
    let text = problems("", &[("IOEX_RELAY_LIFETIME_DEFAULT_S", "4000")]);
    assert!(text.contains("lifetime_default_s is 4000, above lifetime_max_s, which is 3600"), "{text}");
}

#[test]
fn missing_file_is_an_error_with_its_name() {
    let error = load(&sources(Some(PathBuf::from("/nowhere/ioex.toml")), &[])).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/ioex.toml: cannot be read: "), "{error}");
}

#[test]
fn every_layer_is_read_and_its_origin_kept() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ioex.toml");
    std::fs::write(&file, "[engine]\ndriver = \"epoll\"\ncores = 1\n[limits]\nstore_bytes_max = \"2 GiB\"\n")
        .unwrap();
    let output = ioex(directory.path())
        .args(["config", "print", "--config"])
        .arg(&file)
        .env("IOEX_ENGINE_LISTEN", "127.0.0.1:7001, [::1]:7001")
        .output()
        .unwrap();
    assert_eq!(err(&output), "");
    let printed = out(&output);
    let line =
        |start: &str| printed.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_string();
    assert!(line("driver").ends_with(&format!("# {}:2", file.display())), "{printed}");
    assert!(line("cores").starts_with("cores = \"1\""), "{printed}");
    assert!(line("listen").starts_with("listen = [\"127.0.0.1:7001\", \"[::1]:7001\"]"), "{printed}");
    assert!(line("listen").ends_with("# IOEX_ENGINE_LISTEN"), "{printed}");
    assert!(line("store_bytes_max").starts_with("store_bytes_max = 2147483648"), "{printed}");
    assert!(line("realm").starts_with("realm = \"ioex\""), "{printed}");
    assert!(line("tcp").ends_with("# default"), "{printed}");
}

#[test]
fn a_role_sets_defaults_and_everything_else_goes_over_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ioex.toml");
    std::fs::write(&file, "[node]\nrole = \"phone\"\n[dht]\nserver = true\n").unwrap();
    let of = |flags: &[(&'static str, &'static str, &str)]| {
        let flags = Flags(flags.iter().map(|(flag, path, text)| (*flag, *path, text.to_string())).collect());
        load(&Sources { file: Some(file.clone()), environment: Vec::new(), flags }).unwrap()
    };
    let key = |path: &str| keys().find(|key| key.path() == path).unwrap();
    let phone = of(&[]);
    let configuration = &phone.configuration;
    assert_eq!(
        (configuration.limits.store_bytes_max, configuration.peer.mailbox.to_string()),
        (0, "auto".into())
    );
    assert!(configuration.dht.listen.is_some() && configuration.dht.server);
    assert_eq!(phone.origin(key("peer.mailbox")).to_string(), "role phone");
    assert_eq!(phone.origin(key("dht.server")).to_string(), format!("{}:4", file.display()));
    assert_eq!(phone.origin(key("relay.listen")).to_string(), "default");
    // A flag names another role, whose defaults are then the only ones.
    let bootstrap = of(&[("--role", "node.role", "bootstrap"), ("--relay", "relay.listen", "[::1]:3478")]);
    let configuration = &bootstrap.configuration;
    assert!(configuration.dht.bootstrap_node && configuration.peer.mailbox.to_string().is_empty());
    assert_eq!(configuration.relay.listen, [SocketAddr::from((Ipv6Addr::LOCALHOST, 3478))]);
    assert_eq!(bootstrap.origin(key("node.role")).to_string(), "--role");
    assert_eq!(bootstrap.origin(key("dht.bootstrap_node")).to_string(), "role bootstrap");
    for role in ["bootstrap", "peer", "phone", "spn", "cache"] {
        of(&[("--role", "node.role", role)]);
    }
    let text = problems("[node]\nrole = \"server\"\n", &[]);
    assert!(text.contains("`server` is none of bootstrap, peer, phone, spn, cache"), "{text}");
}

#[test]
fn what_is_printed_can_be_used_again_and_names_every_setting() {
    let directory = tempfile::tempdir().unwrap();
    let printed = out(&ioex(directory.path()).args(["config", "print", "--explain"]).output().unwrap());
    for key in keys() {
        assert!(printed.contains(&format!("\n{} = ", key.name)), "{} is missing in\n{printed}", key.path());
        assert!(printed.contains(&key.variable()), "{} is missing in\n{printed}", key.variable());
    }
    let file = directory.path().join("again.toml");
    std::fs::write(&file, &printed).unwrap();
    let check = ioex(directory.path()).args(["config", "check", "--config"]).arg(&file).output().unwrap();
    assert!(check.status.success(), "{}", err(&check));
    assert_eq!(out(&check), format!("the configuration is right ({})\n", file.display()));
}

#[test]
fn a_wrong_configuration_ends_commands_as_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, "[engine]\ndriver = \"dpdk\"\n").unwrap();
    let output = ioex(directory.path()).args(["config", "check", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        err(&output).replace(&file.display().to_string(), "wrong.toml"),
        "\
error: 1 problem in the configuration
wrong.toml:2:10: bad value of `engine.driver`: `dpdk` is none of auto, uring, epoll
  |
2 | driver = \"dpdk\"
  |          ^^^^^^
  = allowed is \"auto\", \"uring\" or \"epoll\"
"
    );
}

/// Lines that are nearly right, so that random files get past the first character.
fn nearly_right() -> impl Strategy<Value = String> {
    let names = keys().map(|key| key.name).collect::<Vec<_>>();
    let values =
        r#"(-?[0-9]{1,20}|"[^"\\\\\n]{0,12}"|true|\[("[a-z:.\[\]0-9]{0,9}",? ?){0,3}\]?|\{|1\.5|[^\n]{0,8})"#;
    let line = prop_oneof![
        "\\[(node|engine|publishers|limits|relay|[a-z]{0,6})\\]",
        (proptest::sample::select(names), values).prop_map(|(name, value)| format!("{name} = {value}")),
        "[^\n]{0,20}",
    ];
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever a file holds, it is read or its faults are named with places that exist in it.
    #[test]
    fn no_file_is_too_strange(content in nearly_right()) {
        if let Err(error) = parse(Path::new("f"), &content) {
            prop_assert!(!error.problems.is_empty());
            let text = error.to_string();
            for line in text.lines().filter_map(|line| line.strip_prefix("f:")) {
                let number: usize = line.split(':').next().unwrap().parse().unwrap();
                prop_assert!((1..=content.split('\n').count()).contains(&number), "{text}");
            }
        }
    }
}

#[test]
fn a_chain_that_is_followed_must_have_a_beginning_and_endpoints_that_can_be_asked() {
    let text = problems("[chain]\npow_endpoints = [\"http://127.0.0.1:1\"]\n", &[]);
    assert!(text.contains("chain.pow_endpoints needs chain.pow_genesis"), "{text}");
    let text = problems("[chain]\ndpos_endpoints = [\"https://a.example/rpc\"]\n", &[]);
    assert!(text.contains("chain.dpos_endpoints needs chain.dpos_checkpoint"), "{text}");
    for (line, expected) in [
        ("pow_endpoints = [\"127.0.0.1:1\"]", "is neither http://HOST:PORT nor https://HOST:PORT"),
        ("pow_endpoints = [\"ws://a.example\"]", "is neither http://HOST:PORT nor https://HOST:PORT"),
        ("dpos_endpoints = [\"https://u:p@a.example\"]", "a user and password in the URL would be shown"),
        ("pow_genesis = \"00\"", "`00` is not 64 hexadecimal digits"),
        ("dpos_checkpoint = \"0x11\"", "`0x11` is not HEIGHT:HASH"),
        ("workload_contract = \"0x123\"", "`0x123` is not 40 hexadecimal digits"),
        ("pow_network = \"prod\"", "`prod` is none of main, test, reg"),
    ] {
        let text = problems(&format!("[chain]\n{line}\n"), &[]);
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_bare_port_of_the_api_is_one_of_loopback() {
    for (text, expected) in [
        ("8645", Some("127.0.0.1:8645")),
        ("\"8645\"", Some("127.0.0.1:8645")),
        ("\"[::1]:8645\"", Some("[::1]:8645")),
        ("\"\"", None),
    ] {
        let loaded = parse(Path::new("ioex.toml"), &format!("[api]\nlisten = {text}\n")).unwrap();
        assert_eq!(loaded.configuration.api.listen.map(|address| address.to_string()).as_deref(), expected);
    }
    assert!(problems("[api]\nlisten = 65536\n", &[]).contains("not within 0 to 65535"));
    assert!(problems("[api]\nlisten = \"localhost\"\n", &[]).contains("a port of loopback"));
}
