//! Friends at different nodes, which pass envelopes on to each other.

use crate::friends::{Peer, address, key, uid, up};
use crate::node::Node;
use peer::friends::{NodeAddress, NodeFinder, Outcome, Standing};
use peer::mailbox::{Kind, Status};
use peer::{Client, ClientOptions, Event, Login, Mailbox, NodeUrl};
use rustix::process::{Signal, kill_process};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

fn homes<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| tempfile::tempdir().unwrap())
}

/// Where a node is, as senders at others have to know it.
fn place(node: &Node) -> NodeAddress {
    let url: NodeUrl = node.url().parse().unwrap();
    NodeAddress::new(*url.uid().unwrap(), (url.address().unwrap(), url.port()).into())
}

/// Number 1 at the first node and number 2 at the second have become friends.
async fn befriended(home: &TempDir, nodes: [&Node; 2]) -> (Peer, Peer) {
    let one = Peer::start(home.path(), nodes[0], 1).await;
    let two = Peer::start(home.path(), nodes[1], 2).await;
    let standing = one.friends.add_at(address(2), "it is me".into(), vec![place(nodes[1])]).await.unwrap();
    assert_eq!(standing, Standing::Asked);
    // The second has been told where the first is, by its request.
    let asked = two.until_standing(1, Standing::Asking).await;
    assert_eq!(asked.friend.nodes, [place(nodes[0])]);
    two.friends.accept(uid(1)).await.unwrap();
    one.until_standing(2, Standing::Friend).await;
    one.until_connected(2).await;
    two.until_connected(1).await;
    (one, two)
}

/// Sends until it is delivered: where a friend is may take until its next word to be known.
async fn deliver(from: &Peer, to: u8, text: &str) {
    let sending = async {
        while !matches!(from.send(to, text).await, Ok(Outcome::Delivered(_))) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, sending).await.unwrap_or_else(|_| panic!("{text} was never delivered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_at_different_nodes_write_to_each_other_and_move() {
    let [home, first_home, second_home] = homes();
    let (first, second) = (up(first_home.path()), up(second_home.path()));
    let (one, mut two) = befriended(&home, [&first, &second]).await;
    let there = async {
        for n in 0..25 {
            assert!(matches!(one.send(2, &format!("there {n}")).await.unwrap(), Outcome::Delivered(_)));
        }
    };
    let back = async {
        for n in 0..25 {
            assert!(matches!(two.send(1, &format!("back {n}")).await.unwrap(), Outcome::Delivered(_)));
        }
    };
    tokio::join!(there, back);
    let mut expected: Vec<_> = (0..25).map(|n| format!("there {n}")).collect();
    assert_eq!(two.texts().await, expected);
    assert_eq!(one.texts().await, (0..25).map(|n| format!("back {n}")).collect::<Vec<_>>());
    for peer in [&one, &two] {
        let counters = peer.friends.status().await.unwrap().counters;
        let odd = (counters.malformed, counters.unexpected, counters.repeated, counters.dropped);
        assert_eq!(odd, (0, 0, 0, 0));
    }
    // The second goes where the first is, and back. Each time it says so.
    for (n, node) in [&first, &second, &first].into_iter().enumerate() {
        two.kill().await;
        two = Peer::start(home.path(), node, 2).await;
        one.until(async |friends| {
            let view = friends.view(uid(2)).await.unwrap();
            view.filter(|view| view.is_connected && view.friend.nodes == [place(node)]).map(drop)
        })
        .await;
        let text = format!("moved {n}");
        deliver(&one, 2, &text).await;
        expected.push(text);
        deliver(&two, 1, "heard").await;
    }
    // What was given up as unknown and sent again has another id, so it may be there twice; nothing else may.
    let mut texts = two.texts().await;
    texts.dedup();
    assert_eq!(texts, expected);
    // Who leaves says so to a friend elsewhere, too.
    two.kill().await;
    let two = Peer::start(home.path(), &second, 2).await;
    one.until_connected(2).await;
    two.friends.leave().await;
    one.until(async |friends| {
        friends.view(uid(2)).await.unwrap().filter(|view| !view.is_connected).map(drop)
    })
    .await;
    assert_eq!(one.send(2, "anybody there?").await.unwrap(), Outcome::Offline);
    first.end();
    second.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_whose_node_is_killed_is_found_at_the_next() {
    let [home, first_home, second_home, third_home] = homes();
    let (first, second) = (up(first_home.path()), up(second_home.path()));
    let third = up(third_home.path());
    let (one, two) = befriended(&home, [&first, &second]).await;
    deliver(&one, 2, "before").await;
    // Without a word, and its supervisor with it.
    second.signal(Signal::KILL);
    kill_process(second.engine(), Signal::KILL).unwrap();
    let outcome = one.send(2, "into the void").await;
    assert!(matches!(outcome, Ok(Outcome::Unknown | Outcome::Offline)), "{outcome:?}");
    // The second notices, too, some time; here it is told.
    two.kill().await;
    let two = Peer::start(home.path(), &third, 2).await;
    one.until(async |friends| {
        let view = friends.view(uid(2)).await.unwrap();
        view.filter(|view| view.is_connected && view.friend.nodes == [place(&third)]).map(drop)
    })
    .await;
    deliver(&one, 2, "after").await;
    deliver(&two, 1, "here I am").await;
    let mut texts = two.texts().await;
    texts.dedup();
    assert_eq!(texts, ["before", "after"]);
    assert_eq!(one.texts().await.last().map(String::as_str), Some("here I am"));
    first.end();
    third.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nowhere_that_is_known_is_looked_up() {
    let [home, first_home, second_home, third_home] = homes();
    let (first, second, third) = (up(first_home.path()), up(second_home.path()), up(third_home.path()));
    // What others have published, and who was looked up.
    let published = Arc::new(Mutex::new(vec![place(&second)]));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let finder = || -> Option<NodeFinder> {
        let (published, asked) = (published.clone(), asked.clone());
        Some(Box::new(move |uid| {
            asked.lock().unwrap().push(uid);
            let nodes = published.lock().unwrap().clone();
            Box::pin(std::future::ready(nodes))
        }))
    };
    let one = Peer::start_with(home.path(), &first, 1, finder()).await;
    let two = Peer::start(home.path(), &second, 2).await;
    // An address is enough.
    one.friends.add(address(2), "it is me".into()).await.unwrap();
    two.until_standing(1, Standing::Asking).await;
    two.friends.accept(uid(1)).await.unwrap();
    one.until_connected(2).await;
    deliver(&one, 2, "before").await;
    assert_eq!(*asked.lock().unwrap(), [uid(2)]);
    // Both move while the other is not there, so that neither hears of it.
    one.kill().await;
    two.kill().await;
    *published.lock().unwrap() = vec![place(&third)];
    asked.lock().unwrap().clear();
    let two = Peer::start(home.path(), &third, 2).await;
    let one = Peer::start_with(home.path(), &second, 1, finder()).await;
    assert!(matches!(one.send(2, "after").await, Ok(Outcome::Delivered(_))));
    assert_eq!(one.friends.view(uid(2)).await.unwrap().unwrap().friend.nodes[0], place(&third));
    assert_eq!(*asked.lock().unwrap(), [uid(2)]);
    // Who is nowhere is offline as soon as that is known, and is not looked up with every message.
    two.friends.leave().await;
    one.until(async |friends| {
        friends.view(uid(2)).await.unwrap().filter(|view| !view.is_connected).map(drop)
    })
    .await;
    for _ in 0..3 {
        assert_eq!(one.send(2, "anybody there?").await.unwrap(), Outcome::Offline);
    }
    assert!(asked.lock().unwrap().len() < 4, "once when it was found, and not with every message");
    first.end();
    second.end();
    third.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_through_to_another_node_than_to_its_own() {
    let [first_home, second_home] = homes();
    let (first, second) = (up(first_home.path()), up(second_home.path()));
    let client = Client::new(ClientOptions::default()).unwrap();
    let join = async |node: &Node, n: u8, friends: &[u8]| {
        let friends = friends.iter().map(|n| (uid(*n), 0)).collect();
        let login = Login { key: key(n), nospam: [n; 4], friends, latest_sent_us: 0 };
        Mailbox::open(&client.node(node.url().parse().unwrap()), login).await.unwrap()
    };
    let mut one = join(&first, 1, &[2]).await;
    let mut two = join(&second, 2, &[]).await;
    assert_eq!((one.node(), two.node()), (Some(place(&first)), Some(place(&second))));
    let at = place(&second);
    let told = async |one: &mut Mailbox, via, kind, to: u8, nospam| {
        let sent = one.send_via(Some(via), kind, &uid(to), nospam, b"x").unwrap();
        match timeout(LONG, one.next()).await.expect("in time").expect("the session goes on") {
            Event::NotDelivered { to: receiver, time_us, status } => {
                assert_eq!((receiver, time_us), (uid(to), sent.time_us));
                status
            }
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(told(&mut one, at, Kind::Message, 2, [0; 4]).await, Status::Refused);
    assert_eq!(told(&mut one, at, Kind::Message, 3, [0; 4]).await, Status::Offline);
    assert_eq!(told(&mut one, at, Kind::Request, 2, [9; 4]).await, Status::NospamWrong);
    // Somebody else answers there; nobody does; and a network that this node is not in.
    let impostor = NodeAddress::new(uid(77), at.address());
    assert_eq!(told(&mut one, impostor, Kind::Message, 2, [0; 4]).await, Status::Offline);
    let nobody = NodeAddress::new(uid(77), "127.0.0.1:9".parse().unwrap());
    assert_eq!(told(&mut one, nobody, Kind::Message, 2, [0; 4]).await, Status::Offline);
    let private = NodeAddress::new(*at.uid(), "10.0.0.1:4433".parse().unwrap());
    assert_eq!(told(&mut one, private, Kind::Message, 2, [0; 4]).await, Status::Offline);
    // The right address gets a request through, and the answer comes back the same way.
    one.send_via(Some(at), Kind::Request, &uid(2), [2; 4], b"friends?").unwrap();
    one.flush().await.unwrap();
    let Ok(Ok(Event::Request { from, body, .. })) = timeout(LONG, two.next()).await else {
        panic!("no request")
    };
    assert_eq!((from, body.as_slice()), (uid(1), b"friends?".as_slice()));
    two.allow(&[(uid(1), 0)]).unwrap();
    two.send_via(one.node(), Kind::Message, &uid(1), [0; 4], b"yes").unwrap();
    two.flush().await.unwrap();
    let Ok(Ok(Event::Message { body, .. })) = timeout(LONG, one.next()).await else { panic!("no answer") };
    assert_eq!(body, b"yes");
    assert_eq!((one.dropped(), two.dropped()), (0, 0));
    first.end();
    second.end();
}
