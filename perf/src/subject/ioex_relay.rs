//! ioex as a relay: `ioex-engine --relay` on a data directory without content.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use relay::policy::{Cidr, Policy, RelayLimits, RelayPolicy, RelayUser};
use sha2::Digest as _;

use super::Setting;
use super::caddy::free_port;
use super::ioex::Node;
use super::relay::{REALM, Relay};
use crate::turn::Credential;

/// Starts `engine` as a relay. `driver` is `auto`, `uring` or `epoll`; relayed addresses are made of `addresses`.
pub fn start(
    setting: &Setting,
    engine: &Path,
    driver: &str,
    credential: &Credential,
    addresses: &[IpAddr],
) -> anyhow::Result<Relay> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let folder = setting.folder().join(format!("relay-{}", address.port()));
    let node = Node::create(&folder, &setting.content.certificate(), &setting.content.key())?;
    let mut arguments = vec!["--relay".to_owned(), address.to_string()];
    for address in addresses {
        arguments.extend(["--relay-address".to_owned(), address.to_string()]);
    }
    let policy = Policy { generation: 1, relay: policy(credential)?, ..Policy::default() };
    let (process, _) = node.launch(setting, engine, driver, &arguments, policy)?;
    let status = node.status()?;
    let version = format!("{} ({})", status.version, status.driver);
    Ok(Relay { process, address, version, credential: Some(credential.clone()) })
}

/// One static user, peers on the loopback interface, and no bound that this load would meet.
fn policy(credential: &Credential) -> anyhow::Result<RelayPolicy> {
    let Credential { user, password } = credential;
    let text = format!("{user}:{REALM}:{password}");
    let key_md5 = md5::Md5::digest(&text).into();
    let key_sha256 = sha2::Sha256::digest(&text).into();
    Ok(RelayPolicy {
        realm: REALM.to_owned(),
        users: vec![RelayUser { name: user.clone(), key_md5, key_sha256 }],
        peer_allow: vec![Cidr::new(IpAddr::from([127, 0, 0, 0]), 8)?],
        limits: RelayLimits {
            allocations_max: 1_000_000,
            allocations_per_user_max: 0,
            allocations_per_min_per_user: 0,
            strangers_per_s: 1_000_000,
            ..RelayLimits::default()
        },
        ..RelayPolicy::default()
    })
}
