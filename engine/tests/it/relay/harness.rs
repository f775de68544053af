//! An engine with a relay, and what the tests need to talk to it.

use crate::services::engine::{Engine, data_directory, wait_until};
use relay::policy::{Cidr, FromEngine, Limits, Policy, RelayPolicy, RelayUser, ToEngine};
use relay::stun::StaticUser;
use std::net::SocketAddr;
use std::path::Path;
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
    policy.limits.allocations_per_min_per_user = 0;
    policy
}

/// A running engine. It is killed when the test ends.
pub(super) struct Relay {
    pub(super) engine: Engine,
    /// Where clients reach it.
    pub(super) address: SocketAddr,
    generation: u64,
    data: TempDir,
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
        let mut relay = Relay { engine, address, generation: 0, data };
        relay.set_policy(settings.policy);
        relay
    }

    /// Its data directory.
    pub(super) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Where clients reach it over TLS.
    pub(super) fn tls_address(&self) -> SocketAddr {
        let uris = self.engine.ready["relay"].as_array().expect("URIs");
        let tls = uris.iter().filter_map(|uri| uri.as_str()).find_map(|uri| uri.strip_prefix("turns:"));
        tls.expect("TLS").trim_end_matches("?transport=tcp").parse().expect("an address")
    }

    /// A number of the metrics endpoint, summed over the shards; `labels` begins with a comma where there are any.
    pub(super) fn sum(&self, name: &str, labels: &str) -> u64 {
        let shards = self.engine.ready["shards"].as_array().expect("shards").len();
        (0..shards).map(|shard| self.engine.metric(&format!("{name}{{shard=\"{shard}\"{labels}}}"))).sum()
    }

    /// Waits until so many allocations live.
    pub(super) fn until_allocations(&self, count: u64) {
        wait_until(|| (self.sum("ioex_relay_allocations", "") == count).then_some(()));
    }

    /// Puts a policy in force, as `ioex up` does.
    pub(super) fn set_policy(&mut self, policy: RelayPolicy) {
        self.put_in_force(Policy { relay: policy, ..Policy::default() });
    }

    /// How long a drain waits.
    pub(super) fn set_drain_timeout_ms(&mut self, drain_timeout_ms: u32) {
        let limits = Limits { drain_timeout_ms, ..Limits::default() };
        self.put_in_force(Policy { relay: policy(), limits, ..Policy::default() });
    }

    fn put_in_force(&mut self, policy: Policy) {
        self.generation += 1;
        let policy = Policy { generation: self.generation, ..policy };
        match self.engine.control().ask(&ToEngine::SetPolicy(policy)) {
            FromEngine::PolicyApplied { generation } => assert_eq!(generation, self.generation),
            other => panic!("{other:?}"),
        }
    }
}
