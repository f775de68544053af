//! Five bootstrap nodes on machines of their own, each in another /24: a network that is cut in two and grows together, nodes that are
//! killed, and nodes that have lost their disks. Takes root; without it nothing is tested.

#[expect(dead_code, reason = "the engine's tests use more of it")]
#[path = "../../../../engine/tests/it/turn/namespace.rs"]
mod namespace;
mod wire;

use crate::bootstrap::{entry, kill, uid, until};
use crate::dht::independent::{hex, script};
use crate::node::{Node, json, on};
use control_plane::dht::{RECORD_SALT, Record};
use identity::SecretKey;
use n0_mainline::MutableItem;
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;
use wire::{Machine, Switch, Wire};

const DHT_PORT: u16 = 6881;

/// A machine with a disk, on which a node may run.
struct Site {
    node: Option<Node>,
    machine: Machine,
    home: TempDir,
}

impl Site {
    fn new(wire: &Wire, number: u8, switch: Switch) -> Site {
        Site { machine: wire.machine(number, switch), home: tempfile::tempdir().unwrap(), node: None }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn dht(&self) -> String {
        format!("{}:{DHT_PORT}", self.machine.ip())
    }

    /// `ioex up` with the defaults of this role, looking and publishing every two seconds.
    fn up(&mut self, role: &str, dht_bootstrap: &[String]) {
        let mut up = on(self.home(), "up");
        up.args(["--role", role, "--cores", "0"]);
        for known in dht_bootstrap {
            up.args(["--dht-bootstrap", known]);
        }
        up.env("IOEX_DHT_REPUBLISH_S", "2").env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000");
        self.node = Some(Node::start(&mut self.machine.on(&up)));
    }

    fn uid(&self) -> String {
        uid(self.node.as_ref().expect("it runs"))
    }

    /// As if its power were cut.
    fn kill(&mut self) {
        kill(self.node.take().expect("it runs"));
    }

    /// Waits until it has found all of these up.
    fn until_up(&self, uids: &[&String]) {
        until(self.home(), &["bootstrap", "list"], |list| {
            uids.iter().all(|uid| entry(list, uid)["up"] == true)
        });
    }

    fn until_down(&self, uids: &[&String]) {
        until(self.home(), &["bootstrap", "list"], |list| {
            uids.iter().all(|uid| entry(list, uid)["up"] == false)
        });
    }

    fn announce(&self, list: &str) {
        until(self.home(), &["dht", "put", list], |announced| announced["announced"] == true);
    }

    /// Waits until it finds that `uid` provides the list.
    fn until_provided(&self, list: &str, uid: &String) {
        until(self.home(), &["dht", "get", list], |found| {
            found["providers"].as_array().is_some_and(|all| all.iter().any(|provider| provider == uid))
        });
    }
}

/// npm's bittorrent-dht, on this machine.
fn independent(machine: &Machine, arguments: &[&str]) -> Value {
    json(&machine.on(&script(arguments)).output().unwrap())
}

#[expect(clippy::print_stderr, reason = "says why it was skipped")]
fn wire() -> Option<Wire> {
    match Wire::new() {
        Ok(wire) => Some(wire),
        Err(reason) => {
            eprintln!("skipped: no network namespaces with bridges here ({reason}); they take root");
            None
        }
    }
}

/// Everybody has found everybody else up.
fn until_whole(sites: &[Site]) -> Vec<String> {
    let uids: Vec<_> = sites.iter().map(Site::uid).collect();
    for (i, site) in sites.iter().enumerate() {
        site.until_up(
            &uids.iter().enumerate().filter(|(other, _)| *other != i).map(|(_, uid)| uid).collect::<Vec<_>>(),
        );
    }
    uids
}

#[test]
fn five_nodes_outlive_a_partition_and_the_loss_of_disks() {
    let Some(wire) = wire() else { return };
    let mut sites: Vec<_> = (1..=5).map(|number| Site::new(&wire, number, Switch::West)).collect();
    let first = [sites[0].dht()];
    sites[0].up("bootstrap", &[]);
    sites[1..].iter_mut().for_each(|site| site.up("bootstrap", &first));
    let mut peer = Site::new(&wire, 6, Switch::West);
    peer.up("peer", &first);
    let visitor = wire.machine(7, Switch::West);
    let uids = until_whole(&sites);
    let knows_all = |peers: &Value| {
        peers["node"]["connected"] == true && uids.iter().all(|uid| entry(peers, uid)["up"] == true)
    };
    let before = until(peer.home(), &["peers"], knows_all);
    let at = before["node"]["url"].as_str().unwrap().to_string();
    let lost = uids.iter().position(|uid| at.contains(uid)).expect("it is at one of the five");

    // The peer's node and one other stay in the west, the peer and three nodes find themselves in the east.
    let beside = (lost + 1) % 5;
    let (mut west, mut east) = (vec![lost, beside], Vec::new());
    west.sort_unstable();
    east.extend((0..5).filter(|i| !west.contains(i)));
    let list = |number: u8| hex(&[number; 32]);
    sites[west[0]].announce(&list(1));
    sites[east[0]].announce(&list(2));
    east.iter().for_each(|i| wire.plug(&sites[*i].machine, Switch::East));
    wire.plug(&peer.machine, Switch::East);
    let of = |side: &[usize]| side.iter().map(|i| &uids[*i]).collect::<Vec<_>>();
    west.iter().for_each(|i| sites[*i].until_down(&of(&east)));
    east.iter().for_each(|i| sites[*i].until_down(&of(&west)));
    // The peer has moved to a node that it can reach, and says so in its record.
    let moved = until(peer.home(), &["peers"], |peers| {
        let url = peers["node"]["url"].as_str().unwrap_or_default();
        peers["node"]["connected"] == true && east.iter().any(|i| url.contains(&uids[*i]))
    });
    assert_ne!(moved["node"]["url"].as_str(), Some(at.as_str()));
    // Each side goes on by itself; so does another implementation in the west, which is heard once and never again.
    sites[west[1]].announce(&list(3));
    sites[east[1]].announce(&list(4));
    let key = SecretKey::from_seed([77; 32]);
    let salt = String::from_utf8(RECORD_SALT.to_vec()).unwrap();
    let record = hex(&Record { lifetime_s: 3_600, ..Record::default() }.encode());
    let written = independent(
        &visitor,
        &["put", &sites[west[0]].dht(), &hex(key.seed()), &salt, "7", &record, &hex(key.seed())],
    );
    assert!(written["error"].is_null() && written["count"].as_u64() > Some(0), "{written}");

    east.iter().for_each(|i| wire.plug(&sites[*i].machine, Switch::West));
    wire.plug(&peer.machine, Switch::West);
    until_whole(&sites);
    let providers = [(1, west[0]), (2, east[0]), (3, west[1]), (4, east[1])];
    let is_in_east = |record: &Value| {
        record["over"] == false
            && record["bootstrap_nodes"][0].as_str().is_some_and(|at| of(&east).iter().any(|uid| *uid == at))
    };
    std::thread::scope(|scope| {
        for site in sites.iter().chain([&peer]) {
            scope.spawn(|| {
                providers.iter().for_each(|(number, i)| site.until_provided(&list(*number), &uids[*i]));
                until(site.home(), &["dht", "get", &peer.uid()], is_in_east);
                let found =
                    until(site.home(), &["dht", "get", &key.uid().to_string()], |found| !found.is_null());
                assert_eq!((&found["sequence_ms"], &found["over"]), (&7.into(), &true.into()));
            });
        }
    });
    let target = MutableItem::target_from_key(key.uid().as_bytes(), Some(RECORD_SALT)).to_string();
    let read = independent(&visitor, &["get", &sites[east[2]].dht(), &target, &salt]);
    assert_eq!((&read["v"], &read["seq"]), (&record.as_str().into(), &7.into()), "{read}");

    // One loses everything but its key, and is the same again; then the key as well, and is another. Nobody tells the others.
    let wiped = &mut sites[3];
    wiped.kill();
    let identity = wiped.home().join("identity");
    std::fs::rename(wiped.home().join("data/identity"), &identity).unwrap();
    std::fs::remove_dir_all(wiped.home().join("data")).unwrap();
    std::fs::create_dir(wiped.home().join("data")).unwrap();
    std::fs::rename(&identity, wiped.home().join("data/identity")).unwrap();
    sites.iter().filter(|site| site.node.is_some()).for_each(|site| site.until_down(&[&uids[3]]));
    sites[3].up("bootstrap", &first);
    assert_eq!(until_whole(&sites), uids);
    sites[3].kill();
    std::fs::remove_dir_all(sites[3].home().join("data")).unwrap();
    sites[3].up("bootstrap", &first);
    let now = until_whole(&sites);
    assert_ne!(now[3], uids[3]);
    // Nobody is the old one any more.
    sites.iter().filter(|site| site.home() != sites[3].home()).for_each(|site| site.until_down(&[&uids[3]]));

    // The first, through which all others came, with an empty disk and nobody named to it: they call on it.
    sites[0].kill();
    std::fs::remove_dir_all(sites[0].home().join("data")).unwrap();
    sites[0].up("bootstrap", &[]);
    until_whole(&sites);
}

/// As after a cut that lasted so long that neither half remembers the other's nodes, but for the one address in the configuration.
#[test]
fn two_networks_that_have_never_met_become_one() {
    let Some(wire) = wire() else { return };
    let sides = [Switch::West, Switch::West, Switch::East, Switch::East, Switch::East];
    let mut sites: Vec<_> = (1..=5).zip(sides).map(|(number, side)| Site::new(&wire, number, side)).collect();
    let (first, third) = (sites[0].dht(), sites[2].dht());
    for (site, known) in sites.iter_mut().zip([
        vec![],
        vec![first.clone()],
        vec![first.clone()],
        vec![third.clone()],
        vec![third],
    ]) {
        site.up("bootstrap", &known);
    }
    let uids: Vec<_> = sites.iter().map(Site::uid).collect();
    sites[0].until_up(&[&uids[1]]);
    sites[3].until_up(&[&uids[2], &uids[4]]);
    sites[4].until_up(&[&uids[2], &uids[3]]);
    let list = hex(&[9; 32]);
    sites[4].announce(&list);
    sites[2..].iter().for_each(|site| wire.plug(&site.machine, Switch::West));
    until_whole(&sites);
    sites.iter().for_each(|site| site.until_provided(&list, &uids[4]));
}
