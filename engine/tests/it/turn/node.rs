//! A running engine that relays, on addresses of loopback that no other test uses.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};

use relay::policy::{
    Cidr, FromEngine, POLICY_WITHOUT_END, Policy, PolicyChange, PolicyEdit, RelayPolicy, RelaySelector,
    RelaySession, RelayUser, ToEngine,
};
use relay::stun::StaticUser;
use rustix::process::Signal;
use tempfile::TempDir;

use super::namespace::Namespace;
use crate::services::engine::{Engine, data_directory, wait_until};

pub(super) const REALM: &str = "ioex";
pub(super) const USER: &str = "u";
pub(super) const PASSWORD: &str = "p";
/// A second user, with the same password.
pub(super) const OTHER_USER: &str = "v";
/// The secret of expiring user names.
pub(super) const REST_SECRET: &str = "a secret of the tests";

/// How an engine is started.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) driver: &'static str,
    /// `--cores`: as many shards as cores are named.
    pub(super) cores: &'static str,
    /// Where it listens over UDP and TCP, and what relayed addresses are made of.
    pub(super) ip: IpAddr,
    /// `--relay-ports`.
    pub(super) ports: Option<&'static str>,
    /// Whether it listens for TLS, too.
    pub(super) has_tls: bool,
    /// Where it runs.
    pub(super) namespace: Option<Namespace>,
    pub(super) policy: RelayPolicy,
}

impl Settings {
    pub(super) fn on(driver: &'static str) -> Settings {
        Settings {
            driver,
            cores: "0",
            ip: own_loopback_address(),
            ports: None,
            has_tls: false,
            namespace: None,
            policy: policy(),
        }
    }
}

/// An address of 127.0.0.0/8 for one relay: tests that run side by side, in this process or another, have all
/// their ports to themselves.
pub(super) fn own_loopback_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed) as u8;
    Ipv4Addr::new(127, 64 | (high & 0x3f), low, next).into()
}

/// Lets two users in, and whoever knows the secret, to peers on loopback.
pub(super) fn policy() -> RelayPolicy {
    let user = |name: &str| {
        let keys = StaticUser::derive(name, REALM, PASSWORD).expect("plain text").keys;
        RelayUser { name: name.into(), key_md5: keys.md5, key_sha256: keys.sha256 }
    };
    let mut policy = RelayPolicy {
        realm: REALM.into(),
        users: vec![user(USER), user(OTHER_USER)],
        rest_secrets: vec![REST_SECRET.into()],
        peer_allow: vec![cidr("127.0.0.0/8"), cidr("::1/128")],
        ..RelayPolicy::default()
    };
    policy.limits.allocations_per_user_max = 0;
    policy.limits.allocations_per_min_per_user = 0;
    policy
}

pub(super) fn cidr(text: &str) -> Cidr {
    text.parse().expect("a prefix")
}

/// A running engine. It is killed when the test ends.
pub(super) struct TurnNode {
    /// Where clients reach it over UDP and TCP.
    pub(super) address: SocketAddr,
    /// Where they reach it over TLS.
    pub(super) tls: Option<SocketAddr>,
    engine: Engine,
    settings: Settings,
    generation: u64,
    data: TempDir,
}

impl TurnNode {
    pub(super) fn start(settings: Settings) -> TurnNode {
        let data = data_directory();
        let any = SocketAddr::new(settings.ip, 0);
        let (engine, address, tls) = spawn(&settings, &data, any, settings.has_tls.then_some(any));
        let mut node = TurnNode { address, tls, engine, settings, generation: 0, data };
        node.set_policy(node.settings.policy.clone());
        node
    }

    /// Kills the engine without a warning.
    pub(super) fn kill(&mut self) {
        self.engine.signal(Signal::KILL);
        self.engine.wait();
    }

    /// Starts the engine again after [`kill`](Self::kill), where it was. It has kept its policy.
    pub(super) fn start_again(&mut self) {
        let (engine, address, tls) = spawn(&self.settings, &self.data, self.address, self.tls);
        assert_eq!((address, tls), (self.address, self.tls));
        self.engine = engine;
    }

    /// The policy that was set last.
    pub(super) fn policy(&self) -> RelayPolicy {
        self.settings.policy.clone()
    }

    /// Puts a policy in force on every shard, as `ioex up` does.
    pub(super) fn set_policy(&mut self, policy: RelayPolicy) {
        self.generation += 1;
        self.settings.policy = policy.clone();
        let policy = Policy { generation: self.generation, relay: policy, ..Policy::default() };
        match self.engine.control().ask(&ToEngine::SetPolicy(policy)) {
            FromEngine::PolicyApplied { generation } => assert_eq!(generation, self.generation),
            other => panic!("the engine did not take the policy: {other:?}"),
        }
    }

    /// Changes entries of the policy in force.
    pub(super) fn change_policy(&mut self, edits: Vec<PolicyEdit>) {
        let base_generation = self.generation;
        self.generation += 1;
        let change = PolicyChange {
            base_generation,
            generation: self.generation,
            valid_until_s: POLICY_WITHOUT_END,
            edits,
        };
        match self.engine.control().ask(&ToEngine::ChangePolicy(change)) {
            FromEngine::PolicyApplied { generation } => assert_eq!(generation, self.generation),
            other => panic!("the engine did not take the change: {other:?}"),
        }
    }

    /// What the operator sees of the sessions.
    pub(super) fn sessions(&self) -> Vec<RelaySession> {
        let mut control = self.engine.control();
        control.send(&ToEngine::RelaySessions);
        let mut sessions = Vec::new();
        loop {
            match control.receive() {
                Some(FromEngine::RelaySessions(page)) => {
                    sessions.extend(page.sessions);
                    if page.is_last {
                        return sessions;
                    }
                }
                other => panic!("no list of sessions: {other:?}"),
            }
        }
    }

    /// Ends sessions; says how many.
    pub(super) fn kick(&self, selector: RelaySelector) -> u32 {
        match self.engine.control().ask(&ToEngine::RelayKick(selector)) {
            FromEngine::RelayKicked { count } => count as u32,
            other => panic!("not kicked: {other:?}"),
        }
    }

    /// The sum over the shards of a metric, such as `ioex_relay_dropped_total` with `cause="malformed"`.
    pub(super) fn metric(&self, name: &str, label: &str) -> u64 {
        let url = self.engine.ready["metrics"].as_str().expect("metrics are served");
        let address: SocketAddr =
            url.trim_start_matches("http://").trim_end_matches("/metrics").parse().expect("an address");
        let connect = || TcpStream::connect(address).expect("connect to the metrics endpoint");
        let mut stream = match &self.settings.namespace {
            Some(namespace) => namespace.within(connect),
            None => connect(),
        };
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("metrics");
        let is_it = |line: &&str| line.starts_with(name) && line.contains(label);
        let values: Vec<u64> =
            text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        assert!(!values.is_empty(), "no metric {name} with {label}");
        values.iter().sum()
    }

    /// Waits until a metric has come to a value: an answer is sent before it is counted.
    pub(super) fn until(&self, name: &str, label: &str, value: u64) {
        wait_until(|| (self.metric(name, label) == value).then_some(()));
    }

    /// Packets and messages that were dropped for a cause.
    pub(super) fn dropped(&self, cause: &str) -> u64 {
        self.metric("ioex_relay_dropped_total", &format!("cause=\"{cause}\""))
    }

    /// The engine's own memory, without mapped files.
    pub(super) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.engine.pid());
        let status = std::fs::read_to_string(path).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    pub(super) fn log(&self) -> String {
        self.engine.log()
    }
}

fn spawn(
    settings: &Settings,
    data: &TempDir,
    address: SocketAddr,
    tls: Option<SocketAddr>,
) -> (Engine, SocketAddr, Option<SocketAddr>) {
    let mut arguments =
        vec!["--driver".into(), settings.driver.into(), "--cores".into(), settings.cores.into()];
    arguments.extend(["--relay".to_owned(), address.to_string()]);
    arguments.extend(["--relay-address".to_owned(), settings.ip.to_string()]);
    if let Some(tls) = tls {
        arguments.extend(["--relay-tls".to_owned(), tls.to_string()]);
    }
    if let Some(ports) = settings.ports {
        arguments.extend(["--relay-ports".to_owned(), ports.to_owned()]);
    }
    let wrapper = settings.namespace.as_ref().map(Namespace::wrapper).unwrap_or_default();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let engine = Engine::start_as(&wrapper, data.path(), &arguments);
    let uris: Vec<&str> =
        engine.ready["relay"].as_array().expect("relays").iter().filter_map(|uri| uri.as_str()).collect();
    let address_of = |scheme: &str, transport: &str| {
        let of = |uri: &&str| uri.strip_prefix(scheme)?.strip_suffix(transport)?.parse().ok();
        uris.iter().find_map(of)
    };
    let address = address_of("turn:", "?transport=udp").expect("a listener over UDP");
    let tls = address_of("turns:", "?transport=tcp");
    (engine, address, tls)
}
