//! Peers that reach each other through a real node: the engine's mailbox service and the peers' side of it, which are made of
//! different QUIC and TLS libraries.

use crate::node::{Node, on};
use identity::SecretKey;
use peer::mailbox::{Kind, Receipt, Status};
use peer::{Client, ClientOptions, Event, Login, Mailbox, MailboxError};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

const NONE: [u8; 4] = [0; 4];

/// Far longer than anything here takes; a test that waits this long has failed.
pub const LONG: Duration = Duration::from_secs(30);

fn up(home: &Path) -> Node {
    let cores = if std::thread::available_parallelism().unwrap().get() > 1 { "0-1" } else { "0" };
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", cores]);
    Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
}

pub fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

/// Logs in as number `n`, whose nospam value is its number four times.
pub async fn join(client: &Client, node: &Node, n: u8, friends: &[u8]) -> Mailbox {
    let friends = friends.iter().map(|n| (key(*n).uid(), 0)).collect();
    let login = Login { key: key(n), nospam: [n; 4], friends, latest_sent_us: 0 };
    let node = client.node(node.url().parse().unwrap());
    timeout(LONG, Mailbox::open(&node, login)).await.expect("in time").expect("the node lets it in")
}

pub async fn next(mailbox: &mut Mailbox) -> Event {
    timeout(LONG, mailbox.next()).await.expect("in time").expect("the session goes on")
}

async fn not_delivered(mailbox: &mut Mailbox) -> (u64, Status) {
    match next(mailbox).await {
        Event::NotDelivered { time_us, status, .. } => (time_us, status),
        event => panic!("{event:?}"),
    }
}

/// Receives `count` messages of number `from`, each the next number, and acknowledges them: some by themselves, some together.
async fn receive(mailbox: &mut Mailbox, from: u8, count: u8) {
    let mut waiting = Vec::new();
    for expected in 0..count {
        match next(mailbox).await {
            Event::Message { from: sender, body, receipt } => {
                assert_eq!((sender, body), (key(from).uid(), vec![expected]));
                waiting.push(receipt);
                if expected < 3 {
                    mailbox.acknowledge(&sender, &waiting.pop().unwrap()).unwrap();
                } else if waiting.len() == 5 || expected + 1 == count {
                    mailbox.acknowledge_via(None, &sender, &std::mem::take(&mut waiting)).unwrap();
                }
            }
            event => panic!("{event:?}"),
        }
    }
    mailbox.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn friends_reach_each_other_in_order_and_have_it_in_writing() {
    const FRIENDS: std::ops::Range<u8> = 1..8;
    const EACH: u8 = 20;
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let client = Client::new(ClientOptions::default()).unwrap();
    let mut sender = join(&client, &node, 100, &FRIENDS.collect::<Vec<_>>()).await;
    let mut receiving = tokio::task::JoinSet::new();
    for n in FRIENDS {
        let mut mailbox = join(&client, &node, n, &[100]).await;
        // It stays until the sender has heard of everything.
        receiving.spawn(async move {
            receive(&mut mailbox, 100, EACH).await;
            mailbox
        });
    }
    let mut expected: BTreeSet<(u8, u64, [u8; 32])> = BTreeSet::new();
    for body in 0..EACH {
        for n in FRIENDS {
            let Receipt { time_us, hash } = sender.send(Kind::Message, &key(n).uid(), NONE, &[body]).unwrap();
            expected.insert((n, time_us, hash));
        }
    }
    while !expected.is_empty() {
        let Event::Delivered { by, receipt } = next(&mut sender).await else {
            panic!("{} left", expected.len())
        };
        let n = FRIENDS.clone().find(|n| key(*n).uid() == by).unwrap();
        assert!(expected.remove(&(n, receipt.time_us, receipt.hash)), "what was not sent, or a second time");
    }
    assert_eq!(sender.dropped(), 0);
    drop(receiving.join_all().await);
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_friend_gets_nothing_through_but_a_request_to_the_right_address() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let client = Client::new(ClientOptions::default()).unwrap();
    let mut one = join(&client, &node, 1, &[2]).await;
    let mut two = join(&client, &node, 2, &[]).await;
    let (uid_one, uid_two) = (key(1).uid(), key(2).uid());

    let sent = one.send(Kind::Message, &uid_two, NONE, b"we are no friends").unwrap();
    assert_eq!(not_delivered(&mut one).await, (sent.time_us, Status::Refused));
    one.send(Kind::Message, &key(3).uid(), NONE, b"is anybody there").unwrap();
    assert_eq!(not_delivered(&mut one).await.1, Status::Offline);
    one.send(Kind::Request, &uid_two, [9; 4], b"guessed").unwrap();
    assert_eq!(not_delivered(&mut one).await.1, Status::NospamWrong);
    let long = one.send(Kind::Message, &uid_two, NONE, &[0; 2_000]);
    assert!(matches!(long, Err(MailboxError::Envelope(_))));

    one.send(Kind::Request, &uid_two, [2; 4], b"let us be friends").unwrap();
    one.flush().await.unwrap();
    let Event::Request { from, body, .. } = next(&mut two).await else { panic!("no request") };
    assert_eq!((from, body), (uid_one, b"let us be friends".to_vec()));
    two.allow(&[(uid_one, 0)]).unwrap();
    two.send(Kind::Message, &uid_one, NONE, b"yes").unwrap();
    two.flush().await.unwrap();
    let Event::Message { from, body, .. } = next(&mut one).await else { panic!("no answer") };
    assert_eq!((from, body), (uid_two, b"yes".to_vec()));
    one.send(Kind::Message, &uid_two, NONE, b"hello, friend").unwrap();
    one.flush().await.unwrap();
    assert!(matches!(next(&mut two).await, Event::Message { body, .. } if body == b"hello, friend"));

    // The address is changed: who knows the old one is refused, and friends stay.
    two.set_nospam([7; 4]);
    two.flush().await.unwrap();
    let mut three = join(&client, &node, 3, &[]).await;
    loop {
        three.send(Kind::Request, &uid_two, [2; 4], b"with the old address").unwrap();
        // The change and the request come over different connections, so the first may come before.
        tokio::select! {
            event = next(&mut three) => {
                assert!(matches!(event, Event::NotDelivered { status: Status::NospamWrong, .. }), "{event:?}");
                break;
            }
            event = next(&mut two) => assert!(matches!(event, Event::Request { .. }), "{event:?}"),
        }
    }
    one.send(Kind::Message, &uid_two, NONE, b"still").unwrap();
    one.flush().await.unwrap();
    assert!(matches!(next(&mut two).await, Event::Message { body, .. } if body == b"still"));
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_logins_wins_and_a_node_that_ends_says_so() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let client = Client::new(ClientOptions::default()).unwrap();
    let mut one = join(&client, &node, 1, &[2]).await;
    let mut older = join(&client, &node, 2, &[1]).await;
    let mut newer = join(&client, &node, 2, &[1]).await;
    let told = timeout(LONG, older.next()).await.expect("in time").unwrap_err();
    assert!(matches!(told, MailboxError::Displaced), "{told}");
    one.send(Kind::Message, &key(2).uid(), NONE, b"to the newer").unwrap();
    one.flush().await.unwrap();
    assert!(matches!(next(&mut newer).await, Event::Message { body, .. } if body == b"to the newer"));
    // Nobody is there any more once that one has left; how soon the node knows is the network's.
    newer.close();
    loop {
        one.send(Kind::Message, &key(2).uid(), NONE, b"anybody").unwrap();
        one.flush().await.unwrap();
        if let Ok(event) = timeout(Duration::from_millis(100), one.next()).await {
            assert!(matches!(event, Ok(Event::NotDelivered { status: Status::Offline, .. })), "{event:?}");
            break;
        }
    }
    node.end();
    let told = loop {
        match timeout(LONG, one.next()).await.expect("in time") {
            // Each question above has an answer, which may be late.
            Ok(Event::NotDelivered { status: Status::Offline, .. }) => {}
            Ok(event) => panic!("{event:?}"),
            Err(told) => break told,
        }
    };
    assert!(matches!(told, MailboxError::GoingAway), "{told}");
}
