//! Under which names and URLs others reach this node.

use crate::certificate::Names;
use crate::configuration::Node;
use identity::Uid;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// What the node's certificate names. Required are the configuration's names and the addresses that are
/// listened on. Loopback and this machine's own name and addresses are added when a certificate is made; they
/// change with the network that the machine happens to be in, and a certificate does not follow them.
pub fn certificate_names(node: &Node, listen: &[SocketAddr]) -> Names {
    let listened = listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let required: BTreeSet<_> = node.names.iter().cloned().chain(listened.map(|ip| ip.to_string())).collect();
    let mut names = required.clone();
    names.extend(["localhost", "127.0.0.1", "::1"].map(String::from));
    names.extend(outward_addresses().iter().map(ToString::to_string));
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if host
        .split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    {
        names.insert(host);
    }
    Names { all: names, required }
}

/// URLs for others, with the node's UID pinned: one for each name or address and port that `listeners` give.
///
/// `listeners` are as the engine reports them, `udp://ADDR:PORT`; TCP is on the same ports and gives no URL
/// of its own.
pub fn urls(uid: Uid, node: &Node, listeners: &[String]) -> Vec<String> {
    let mut urls = Vec::new();
    for listener in listeners {
        let Some(address) = listener.strip_prefix("udp://").and_then(|a| a.parse::<SocketAddr>().ok()) else {
            continue;
        };
        for host in hosts(node, address.ip()) {
            let url = format!("https://{uid}@{host}:{}", address.port());
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

/// `turn:` and `turns:` URIs (RFC 7065) for clients: one for each name or address and port that `listeners` give.
///
/// `listeners` are as the engine reports them, `turn:ADDR:PORT?transport=udp` and the like.
pub fn turn_uris(node: &Node, listeners: &[String]) -> Vec<String> {
    let mut uris = Vec::new();
    for listener in listeners {
        let parts = listener.split_once(':').and_then(|(scheme, rest)| {
            let (address, transport) = rest.split_once('?')?;
            Some((scheme, address.parse::<SocketAddr>().ok()?, transport))
        });
        let Some((scheme, address, transport)) = parts else { continue };
        for host in hosts(node, address.ip()) {
            let uri = format!("{scheme}:{host}:{}?{transport}", address.port());
            if !uris.contains(&uri) {
                uris.push(uri);
            }
        }
    }
    uris
}

/// Addresses for others, each once: what `listeners` give, in the form of [`urls`] or [`turn_uris`], UDP only, with names
/// resolved. Waits for the resolver.
pub fn addresses(node: &Node, listeners: &[String]) -> Vec<SocketAddr> {
    let listened = listeners.iter().filter_map(|listener| {
        let listener = match listener.strip_prefix("turn:") {
            Some(turn) => turn.strip_suffix("?transport=udp")?,
            None => listener.strip_prefix("udp://")?,
        };
        listener.parse::<SocketAddr>().ok()
    });
    let mut addresses = Vec::new();
    for listener in listened {
        for host in hosts(node, listener.ip()) {
            // A name that does not resolve is of no use to others either.
            let resolved = format!("{host}:{}", listener.port()).to_socket_addrs().into_iter().flatten();
            for address in resolved.filter(|address| address.is_ipv4() || listener.is_ipv6()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
    }
    addresses
}

/// The hosts under which others reach what listens on `ip`.
fn hosts(node: &Node, ip: IpAddr) -> Vec<String> {
    if !ip.is_unspecified() {
        return vec![host_of(ip)];
    }
    if !node.names.is_empty() {
        return node.names.iter().map(|name| name.parse().map_or_else(|_| name.clone(), host_of)).collect();
    }
    // [::] takes IPv4 too; 0.0.0.0 does not take IPv6.
    let fits = |outward: &IpAddr| outward.is_ipv4() || ip.is_ipv6();
    let outward: Vec<_> = outward_addresses().into_iter().filter(fits).map(host_of).collect();
    if outward.is_empty() { vec!["localhost".into()] } else { outward }
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The addresses that this machine has towards the world, by asking for the route to documentation addresses
/// (RFC 5737, RFC 3849). Connecting a UDP socket sends nothing.
fn outward_addresses() -> Vec<IpAddr> {
    let routes = [
        (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9))),
        (
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9)),
        ),
    ];
    let source = |(any, target): (SocketAddr, SocketAddr)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    routes.into_iter().filter_map(source).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()).collect()
}
