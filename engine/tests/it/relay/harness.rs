//! An engine with a relay, and what the tests need to talk to it.

use crate::services::engine::{Engine, data_directory};
use relay::policy::{Cidr, FromEngine, Policy, RelayPolicy, RelayUser, ToEngine};
use relay::stun::StaticUser;
use std::net::SocketAddr;
use tempfile::TempDir;

pub(super) const REALM: &str = "ioex";
pub(super) const USER: &str = "u";
pub(super) const PASSWORD: &str = "p";

/// Makes a test of each function for each driver.
macro_rules! on_both_drivers {
    ($($test:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test("uring"); })+
        }
        mod epoll {
            $(#[test] fn $test() { super::$test("epoll"); })+
        }
    };
}
pub(super) use on_both_drivers;

/// How an engine is started.
pub(super) struct Settings {
    pub(super) driver: &'static str,
    pub(super) cores: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) policy: RelayPolicy,
}

impl Settings {
    pub(super) fn on(driver: &'static str) -> Settings {
        Settings { driver, cores: "0", arguments: Vec::new(), policy: policy() }
    }
}

/// Lets in the one user, to peers on loopback.
pub(super) fn policy() -> RelayPolicy {
    let keys = StaticUser::derive(USER, REALM, PASSWORD).expect("a name and a password").keys;
    let loopback = |prefix: &str| prefix.parse::<Cidr>().expect("a prefix");
    let mut policy = RelayPolicy {
        realm: REALM.into(),
        users: vec![RelayUser { name: USER.into(), key_md5: keys.md5, key_sha256: keys.sha256 }],
        peer_allow: vec![loopback("127.0.0.0/8"), loopback("::1/128")],
        ..RelayPolicy::default()
    };
    policy.limits.allocations_per_user_max = 0;
    policy
}

/// A running engine. It is killed when the test ends.
pub(super) struct Relay {
    pub(super) engine: Engine,
    /// Where clients reach it.
    pub(super) address: SocketAddr,
    generation: u64,
    _data: TempDir,
}

impl Relay {
    pub(super) fn start(settings: Settings) -> Relay {
        let data = data_directory();
        let mut arguments: Vec<String> =
            ["--driver", settings.driver, "--cores", settings.cores].map(str::to_owned).into();
        arguments.extend(settings.arguments);
        if !arguments.iter().any(|argument| argument == "--relay") {
            arguments.extend(["--relay", "127.0.0.1:0"].map(str::to_owned));
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let engine = Engine::start(data.path(), &arguments);
        let uri = engine.ready["relay"][0].as_str().expect("a relay");
        let address =
            uri.trim_start_matches("turn:").trim_end_matches("?transport=udp").parse().expect("an address");
        let mut relay = Relay { engine, address, generation: 0, _data: data };
        relay.set_policy(settings.policy);
        relay
    }

    /// Puts a policy in force, as `ioex up` does.
    pub(super) fn set_policy(&mut self, policy: RelayPolicy) {
        self.generation += 1;
        let policy = Policy { generation: self.generation, relay: policy, ..Policy::default() };
        match self.engine.control().ask(&ToEngine::SetPolicy(policy)) {
            FromEngine::PolicyApplied { generation } => assert_eq!(generation, self.generation),
            other => panic!("{other:?}"),
        }
    }
}
