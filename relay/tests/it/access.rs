//! Which peers and clients the relay lets through, in every spelling of their addresses.

use proptest::prelude::*;
use relay::policy::{Cidr, RelayPolicy};
use relay::turn::access::{AccessList, Denied, canonical};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn peer(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 9)
}

fn defaults() -> AccessList {
    AccessList::new(&RelayPolicy::default(), &[])
}

fn with_peers(allow: &[&str], deny: &[&str]) -> AccessList {
    let policy = RelayPolicy { peer_allow: cidrs(allow), peer_deny: cidrs(deny), ..RelayPolicy::default() };
    AccessList::new(&policy, &[ip("203.0.112.7"), ip("2a00:1::7")])
}

#[test]
fn nodes_are_reached_at_public_addresses_and_where_this_node_is() {
    let permits = |list: &AccessList, to: &str, listeners: &[&str]| {
        list.permits_node(ip(to), &listeners.iter().map(|text| ip(text)).collect::<Vec<_>>())
    };
    let list = defaults();
    for public in ["192.88.98.1", "2a00:1::7"] {
        assert!(permits(&list, public, &["0.0.0.0", "::"]));
    }
    for (to, here, elsewhere) in [
        ("127.0.0.1", "127.0.0.9", "10.0.0.1"),
        ("10.1.2.3", "10.0.0.1", "192.168.0.1"),
        ("192.168.3.4", "192.168.0.1", "127.0.0.1"),
        ("fd00::2", "fd00:9::1", "fe80::1"),
        ("::1", "::1", "127.0.0.1"),
    ] {
        assert!(permits(&list, to, &["192.0.112.1", here]), "{to} from {here}");
        assert!(!permits(&list, to, &[elsewhere]), "{to} from {elsewhere}");
        assert!(!permits(&list, to, &["0.0.0.0", "::"]), "{to}: to listen everywhere is not to be there");
    }
    // No other spelling leads there, and the unspecified address leads nowhere.
    for to in ["::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "0.0.0.0", "::", "0.0.0.1"] {
        assert!(!permits(&list, to, &["127.0.0.1", "0.0.0.0"]), "{to}");
    }
    assert!(permits(&list, "::ffff:127.0.0.1", &["127.0.0.1"]), "the same address");
    let list = with_peers(&["10.0.0.0/8"], &["192.88.98.0/24"]);
    assert!(permits(&list, "10.0.0.1", &["0.0.0.0"]));
    assert!(!permits(&list, "192.88.98.1", &["192.88.98.2"]));
}

/// Every way in which an IPv4 address can stand in an IPv6 address.
fn spellings_in_v6(v4: Ipv4Addr) -> Vec<(&'static str, Ipv6Addr)> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        ("mapped", Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low)),
        ("compatible", Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low)),
        ("translated", Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low)),
        ("6to4", Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)),
        ("NAT64", Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)),
        ("local NAT64 /96", Ipv6Addr::new(0x64, 0xff9b, 1, 0xfffe, 0, 0, high, low)),
        (
            "local NAT64 /48",
            Ipv6Addr::new(0x64, 0xff9b, 1, high, u16::from(c), u16::from(d) << 8, 0x0808, 0x0808),
        ),
        ("Teredo server", Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0808, !0x0808)),
        ("Teredo client", Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low)),
    ]
}

/// An address of every range of the page.
const DENIED_BY_DEFAULT: &[&str] = &[
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:1ff::1",
    "2001:db8::1",
    "2002::1",
    "3fff:fff::1",
    "5f00::1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "fc00::1",
    "fdff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
];

/// The addresses on either side of those ranges.
const PUBLIC: &[&str] = &[
    "1.0.0.0",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2003::1",
    "2606:4700:4700::1111",
    "3ffe::1",
    "3fff:1000::1",
    "100:0:0:2::1",
    "64:ff9b:2::1",
    "64:ff9a::1",
];

#[test]
fn special_purpose_ranges_are_denied_by_default_and_their_neighbours_are_not() {
    let list = defaults();
    for text in DENIED_BY_DEFAULT {
        assert_eq!(list.permits_peer(peer(text), false), Err(Denied::SpecialPurpose), "{text}");
    }
    for text in PUBLIC {
        assert_eq!(list.permits_peer(peer(text), false), Ok(()), "{text}");
    }
}

#[test]
fn cve_2020_26262_unspecified_is_not_a_way_to_loopback() {
    let list = defaults();
    for text in ["0.0.0.0", "0.0.0.1", "::", "::ffff:0.0.0.0"] {
        assert_eq!(list.permits_peer(peer(text), false), Err(Denied::SpecialPurpose), "{text}");
    }
    // Nor where somebody allows loopback for a test.
    let list = with_peers(&["127.0.0.0/8", "::1/128"], &[]);
    assert_eq!(list.permits_peer(peer("127.0.0.1"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("::1"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("0.0.0.0"), false), Err(Denied::SpecialPurpose));
    assert_eq!(list.permits_peer(peer("::"), false), Err(Denied::SpecialPurpose));
}

#[test]
fn cve_2026_27624_mapped_loopback_is_not_a_way_to_loopback() {
    for text in ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.1.2.3", "::ffff:169.254.169.254"] {
        assert_eq!(defaults().permits_peer(peer(text), false), Err(Denied::SpecialPurpose), "{text}");
    }
    // A rule for the IPv4 address holds for its mapped spelling.
    let list = with_peers(&[], &["8.8.8.0/24"]);
    assert_eq!(list.permits_peer(peer("::ffff:8.8.8.8"), false), Err(Denied::Listed));
    assert_eq!(canonical(ip("::ffff:8.8.8.8")), ip("8.8.8.8"));
}

#[test]
fn no_spelling_hides_an_address() {
    // Whoever allows all of IPv6 has not allowed what it leads to in IPv4.
    let list = with_peers(&["::/0"], &["9.9.9.0/24"]);
    for text in DENIED_BY_DEFAULT.iter().filter_map(|text| text.parse::<Ipv4Addr>().ok()) {
        for (spelling, v6) in spellings_in_v6(text) {
            let embeds_unspecified = matches!(v6.segments(), [0, 0, 0, 0, 0, 0, 0, 0 | 1]);
            if !embeds_unspecified {
                let peer = SocketAddr::new(v6.into(), 9);
                assert_eq!(
                    list.permits_peer(peer, false),
                    Err(Denied::SpecialPurpose),
                    "{text} {spelling} {v6}"
                );
            }
        }
    }
    for (spelling, v6) in spellings_in_v6(Ipv4Addr::new(9, 9, 9, 9)) {
        let peer = SocketAddr::new(v6.into(), 9);
        assert_eq!(list.permits_peer(peer, false), Err(Denied::Listed), "{spelling} {v6}");
    }
}

#[test]
fn a_nat64_that_is_allowed_leads_to_public_addresses_alone() {
    let list = with_peers(&["64:ff9b::/96"], &[]);
    assert_eq!(list.permits_peer(peer("64:ff9b::8.8.8.8"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("64:ff9b::10.0.0.1"), false), Err(Denied::SpecialPurpose));
    assert_eq!(list.permits_peer(peer("64:ff9b::203.0.112.7"), false), Err(Denied::OwnAddress));
}

#[test]
fn allow_beats_a_default_and_deny_beats_allow() {
    let list = with_peers(&["10.0.0.0/8", "8.8.0.0/16"], &["10.1.0.0/16", "8.8.8.8"]);
    assert_eq!(list.permits_peer(peer("10.0.0.1"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("10.1.0.1"), false), Err(Denied::Listed));
    assert_eq!(list.permits_peer(peer("10.1.0.1"), true), Err(Denied::Listed));
    assert_eq!(list.permits_peer(peer("8.8.8.8"), false), Err(Denied::Listed));
    assert_eq!(list.permits_peer(peer("8.8.4.4"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("9.9.9.9"), false), Ok(()));
    assert_eq!(list.permits_peer(peer("192.168.0.1"), false), Err(Denied::SpecialPurpose));
}

#[test]
fn the_nodes_own_addresses_are_reached_only_where_an_allocation_lives() {
    let list = with_peers(&[], &[]);
    for own in ["203.0.112.7", "::ffff:203.0.112.7", "2a00:1::7"] {
        assert_eq!(list.permits_peer(peer(own), false), Err(Denied::OwnAddress), "{own}");
        assert_eq!(list.permits_peer(peer(own), true), Ok(()), "{own}");
    }
    // An own address given in another spelling is the same address.
    let list = AccessList::new(&RelayPolicy::default(), &[ip("::ffff:203.0.112.7")]);
    assert_eq!(list.permits_peer(peer("203.0.112.7"), false), Err(Denied::OwnAddress));
    // A relay behind a NAT relays from a private address; others' allocations there may be reached, the rest not.
    let list = AccessList::new(&RelayPolicy::default(), &[ip("10.0.0.5")]);
    assert_eq!(list.permits_peer(peer("10.0.0.5"), true), Ok(()));
    assert_eq!(list.permits_peer(peer("10.0.0.5"), false), Err(Denied::OwnAddress));
}

#[test]
fn clients_are_let_in_by_address() {
    let list = |allow: &[&str], deny: &[&str]| {
        let policy =
            RelayPolicy { client_allow: cidrs(allow), client_deny: cidrs(deny), ..RelayPolicy::default() };
        AccessList::new(&policy, &[])
    };
    // Without lists everybody may come, from private networks too.
    for text in ["10.0.0.1", "127.0.0.1", "8.8.8.8", "::1", "2a00::1"] {
        assert!(list(&[], &[]).permits_client(ip(text)), "{text}");
    }
    let some = list(&["10.0.0.0/8", "2a00::/16"], &["10.1.0.0/16"]);
    assert!(some.permits_client(ip("10.0.0.1")) && some.permits_client(ip("::ffff:10.0.0.1")));
    assert!(some.permits_client(ip("2a00::1")));
    assert!(!some.permits_client(ip("10.1.0.1")) && !some.permits_client(ip("::ffff:10.1.0.1")));
    assert!(!some.permits_client(ip("2002:a01:1::1")), "10.1.0.1 in 6to4");
    assert!(!some.permits_client(ip("8.8.8.8")) && !some.permits_client(ip("2b00::1")));
}

/// The ranges of the page, written once more as text.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// The rules, word for word, with a scan over every list.
fn naive(policy: &RelayPolicy, own: &[IpAddr], peer: IpAddr, is_live_relayed: bool) -> Result<(), Denied> {
    let peer = peer.to_canonical();
    let mut spellings = vec![peer];
    if let IpAddr::V6(v6) = peer
        && u128::from(v6) > 1
    {
        let octets = v6.octets();
        let v4 = |at: [usize; 4]| IpAddr::V4(Ipv4Addr::from(at.map(|at| octets[at])));
        let within = |text: &str| text.parse::<Cidr>().expect("a prefix").contains(peer);
        let last = [12, 13, 14, 15];
        if ["::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"].into_iter().any(within) {
            spellings.push(v4(last));
        }
        if within("64:ff9b:1::/48") {
            spellings.push(v4([6, 7, 9, 10]));
        }
        if within("2002::/16") {
            spellings.push(v4([2, 3, 4, 5]));
        }
        if within("2001::/32") {
            spellings.push(v4([4, 5, 6, 7]));
            let inverted = last.map(|at| !octets[at]);
            spellings.push(IpAddr::V4(Ipv4Addr::from(inverted)));
        }
    }
    let is_in = |list: &[Cidr], ip: IpAddr| list.iter().any(|prefix| prefix.contains(ip));
    if spellings.iter().any(|ip| is_in(&policy.peer_deny, *ip)) {
        return Err(Denied::Listed);
    }
    if is_live_relayed {
        return Ok(());
    }
    let special = cidrs(SPECIAL);
    for ip in spellings {
        if is_in(&policy.peer_allow, ip) {
            continue;
        }
        if own.contains(&ip) {
            return Err(Denied::OwnAddress);
        }
        if is_in(&special, ip) {
            return Err(Denied::SpecialPurpose);
        }
    }
    Ok(())
}

/// Addresses near each other and near the ranges' edges, so that rules meet them.
fn any_ip() -> impl Strategy<Value = IpAddr> {
    let near_v4 = prop_oneof![
        any::<u32>(),
        (prop::sample::select(vec![0u32, 0x0a00_0000, 0x7f00_0001, 0xc0a8_0000, 0x0808_0808]), -2i64..3)
            .prop_map(|(base, delta)| (i64::from(base) + delta) as u32),
    ];
    let v4 = near_v4.prop_map(Ipv4Addr::from);
    prop_oneof![
        3 => v4.clone().prop_map(IpAddr::V4),
        3 => (v4, 0usize..9).prop_map(|(v4, which)| IpAddr::V6(spellings_in_v6(v4)[which].1)),
        1 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        1 => (0usize..DENIED_BY_DEFAULT.len()).prop_map(|at| ip(DENIED_BY_DEFAULT[at])),
        1 => (0usize..PUBLIC.len()).prop_map(|at| ip(PUBLIC[at])),
    ]
}

fn any_cidr() -> impl Strategy<Value = Cidr> {
    (any_ip(), 0u8..=128).prop_map(|(ip, len)| {
        let ip = ip.to_canonical();
        let (bits, len) = if ip.is_ipv4() { (32, len % 33) } else { (128, len) };
        let masked = match ip {
            IpAddr::V4(v4) => {
                IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(bits - u32::from(len)).unwrap_or(0)).into())
            }
            IpAddr::V6(v6) => IpAddr::V6(
                (u128::from(v6) & u128::MAX.checked_shl(bits - u32::from(len)).unwrap_or(0)).into(),
            ),
        };
        Cidr::new(masked, len).expect("masked")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_list_judges_as_the_naive_rules_do(
        allow in prop::collection::vec(any_cidr(), 0..8),
        deny in prop::collection::vec(any_cidr(), 0..8),
        own in prop::collection::vec(any_ip(), 0..3),
        peers in prop::collection::vec((any_ip(), any::<bool>()), 1..20),
    ) {
        let own: Vec<IpAddr> = own.into_iter().map(|ip| ip.to_canonical()).collect();
        let policy = RelayPolicy { peer_allow: allow, peer_deny: deny, ..RelayPolicy::default() };
        let list = AccessList::new(&policy, &own);
        for (ip, is_live_relayed) in peers {
            let peer = SocketAddr::new(ip, 3478);
            prop_assert_eq!(
                list.permits_peer(peer, is_live_relayed), naive(&policy, &own, ip, is_live_relayed), "{}", ip
            );
        }
    }

    #[test]
    fn clients_are_judged_as_by_a_scan(
        allow in prop::collection::vec(any_cidr(), 0..8),
        deny in prop::collection::vec(any_cidr(), 0..8),
        v4: u32, near in any_ip(),
    ) {
        let policy = RelayPolicy { client_allow: allow, client_deny: deny, ..RelayPolicy::default() };
        let list = AccessList::new(&policy, &[]);
        for ip in [IpAddr::V4(v4.into()), near.to_canonical()].into_iter().filter(IpAddr::is_ipv4) {
            let is_in = |list: &[Cidr]| list.iter().any(|prefix| prefix.contains(ip));
            let expected =
                !is_in(&policy.client_deny) && (policy.client_allow.is_empty() || is_in(&policy.client_allow));
            prop_assert_eq!(list.permits_client(ip), expected, "{}", ip);
        }
    }
}
