//! Friends and messages through a real node: two services that know nothing of each other but an address.

use crate::node::{Node, on};
use identity::{Address, SecretKey, Uid};
use peer::friends::{
    ASKING_MAX, Connection, FriendBook, FriendError, FriendView, Friends, FriendsOptions, MESSAGE_LEN_MAX,
    NodeFinder, Outcome, Presence, Profile, SendError, Standing,
};
use peer::mailbox::{Kind, Status};
use peer::{Client, ClientOptions, Event, Login, Mailbox};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(30);

pub fn up(home: &Path) -> Node {
    let cores = if std::thread::available_parallelism().unwrap().get() > 1 { "0-1" } else { "0" };
    let mut up = on(home, "up");
    up.args(["--listen", "127.0.0.1:0", "--cores", cores]);
    Node::start(up.env("IOEX_LIMITS_DRAIN_TIMEOUT_MS", "1000"))
}

pub fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

pub fn uid(n: u8) -> Uid {
    key(n).uid()
}

pub fn address(n: u8) -> Address {
    Address { uid: uid(n), nospam: [n; 4] }
}

/// Number `n`, whose nospam value is its number four times and whose book is kept in `home`.
pub struct Peer {
    pub friends: Friends,
    service: JoinHandle<()>,
}

impl Peer {
    pub async fn start(home: &Path, node: &Node, n: u8) -> Peer {
        Peer::start_with(home, node, n, None).await
    }

    /// The same with somebody who is asked where friends are.
    pub async fn start_with(home: &Path, node: &Node, n: u8, finder: Option<NodeFinder>) -> Peer {
        let book = FriendBook::open(&home.join(format!("friends-{n}.redb"))).unwrap();
        let url = node.url();
        let (friends, service) = Friends::new(FriendsOptions {
            key: key(n),
            nospam: [n; 4],
            book,
            client: Client::new(ClientOptions::default()).unwrap(),
            node: Box::new(move || {
                let chosen = url.parse().map_err(|error| format!("{error}"));
                Box::pin(std::future::ready(chosen))
            }),
            reached_at: Box::new(Vec::new),
            finder,
        });
        let peer = Peer { friends, service: tokio::spawn(service) };
        peer.until(async |friends| {
            matches!(friends.status().await.unwrap().connection, Connection::Connected { .. }).then_some(())
        })
        .await;
        peer
    }

    /// Waits until something is so.
    pub async fn until<T>(&self, look: impl AsyncFn(&Friends) -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(found) = look(&self.friends).await {
                    return found;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, looking).await.expect("in time")
    }

    pub async fn until_standing(&self, other: u8, standing: Standing) -> FriendView {
        self.until(async |friends| {
            let view = friends.view(uid(other)).await.unwrap();
            view.filter(|view| view.friend.standing == standing)
        })
        .await
    }

    pub async fn until_connected(&self, other: u8) {
        self.until(async |friends| {
            let view = friends.view(uid(other)).await.unwrap();
            view.filter(|view| view.is_connected).map(drop)
        })
        .await;
    }

    pub async fn send(&self, to: u8, text: &str) -> Result<Outcome, SendError> {
        timeout(LONG, self.friends.send(uid(to).to_string(), text.into())).await.expect("in time")
    }

    pub async fn texts(&self) -> Vec<String> {
        self.friends.inbox(0, 1_000).await.unwrap().into_iter().map(|message| message.text).collect()
    }

    /// Ends without a word, as a process that is killed.
    pub async fn kill(self) {
        self.service.abort();
        let _ = self.service.await;
    }
}

/// Two that have become friends.
async fn befriended(home: &Path, node: &Node) -> (Peer, Peer) {
    let (one, two) = (Peer::start(home, node, 1).await, Peer::start(home, node, 2).await);
    assert_eq!(one.friends.add(address(2), "it is me".into()).await.unwrap(), Standing::Asked);
    two.until_standing(1, Standing::Asking).await;
    two.friends.accept(uid(1)).await.unwrap();
    one.until_standing(2, Standing::Friend).await;
    one.until_connected(2).await;
    two.until_connected(1).await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_become_friends_and_write_to_each_other() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let one = Peer::start(home.path(), &node, 1).await;
    let profile = Profile { name: "One".into(), description: "the first".into(), presence: Presence::Busy };
    one.friends.set_profile(profile.clone()).await.unwrap();
    // A request to somebody who is not there is sent again when both are; here because the other side comes up and is asked anew.
    let two = Peer::start(home.path(), &node, 2).await;
    one.friends.add(address(2), "it is me".into()).await.unwrap();
    let asked = two.until_standing(1, Standing::Asking).await;
    assert_eq!((asked.friend.greeting.as_str(), asked.friend.profile.name.as_str()), ("it is me", "One"));
    assert!(matches!(
        one.send(2, "too early").await,
        Err(SendError::NotFriend { standing: Some(Standing::Asked), .. })
    ));
    two.friends.accept(uid(1)).await.unwrap();
    one.until_standing(2, Standing::Friend).await;
    two.until(async |friends| {
        friends.view(uid(1)).await.unwrap().filter(|view| view.friend.profile == profile).map(drop)
    })
    .await;
    two.friends.label(uid(1), Some("kitchen".into()), Some("by the window".into())).await.unwrap();

    // By label, address and UID; both ways at once, each in order.
    let longest = "x".repeat(MESSAGE_LEN_MAX);
    let there = async {
        for n in 0..30 {
            assert!(matches!(one.send(2, &format!("there {n}")).await.unwrap(), Outcome::Delivered(_)));
        }
        assert!(matches!(one.send(2, &longest).await.unwrap(), Outcome::Delivered(_)));
    };
    let back = async {
        for to in ["kitchen".to_owned(), address(1).to_string(), uid(1).to_string()] {
            assert!(matches!(two.friends.send(to, "back".into()).await.unwrap(), Outcome::Delivered(_)));
        }
    };
    tokio::join!(there, back);
    let mut expected: Vec<_> = (0..30).map(|n| format!("there {n}")).collect();
    expected.push(longest);
    assert_eq!(two.texts().await, expected);
    assert_eq!(one.texts().await, ["back"; 3]);
    // Many that do not wait for each other keep their order, too.
    let sends: Vec<_> = (0..60)
        .map(|n| {
            let friends = one.friends.clone();
            async move { friends.send(uid(2).to_string(), format!("{n}")).await }
        })
        .collect();
    let sent = futures_util::future::join_all(sends).await;
    assert!(sent.iter().all(|outcome| matches!(outcome, Ok(Outcome::Delivered(_)))), "{sent:?}");
    assert_eq!(two.texts().await[31..], (0..60).map(|n| format!("{n}")).collect::<Vec<_>>());
    for peer in [&one, &two] {
        let counters = peer.friends.status().await.unwrap().counters;
        assert_eq!(
            (counters.malformed, counters.unexpected, counters.repeated, counters.dropped),
            (0, 0, 0, 0)
        );
    }
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_checked_in_order_before_it_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let one = Peer::start(home.path(), &node, 1).await;
    let send = async |to: &str, text: &str| one.friends.send(to.into(), text.into()).await;
    let long = "x".repeat(MESSAGE_LEN_MAX + 1);
    assert!(matches!(send("nobody", "").await, Err(SendError::Empty)));
    assert!(matches!(send("nobody", &long).await, Err(SendError::TooLong { len: 1_025 })));
    assert!(matches!(send("nobody", "text").await, Err(SendError::BadAddress { .. })));
    // Every character of an address counts.
    let text = address(2).to_string();
    for at in [0, 20, text.len() - 1] {
        let mut wrong = text.clone().into_bytes();
        wrong[at] = if wrong[at] == b'2' { b'3' } else { b'2' };
        let wrong = String::from_utf8(wrong).unwrap();
        assert!(matches!(send(&wrong, "text").await, Err(SendError::BadAddress { .. })), "{wrong}");
    }
    assert!(matches!(send(&uid(1).to_string(), "text").await, Err(SendError::Oneself { .. })));
    assert!(matches!(
        send(&uid(2).to_string(), "text").await,
        Err(SendError::NotFriend { standing: None, .. })
    ));
    node.end();
    one.until(async |friends| {
        matches!(friends.status().await.unwrap().connection, Connection::Connecting { .. }).then_some(())
    })
    .await;
    assert!(matches!(send(&uid(1).to_string(), "text").await, Err(SendError::Oneself { .. })));
    assert!(matches!(send(&uid(2).to_string(), "text").await, Err(SendError::NotConnected { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_friend_that_is_killed_comes_back_with_all_that_it_has_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let (one, mut two) = befriended(home.path(), &node).await;
    let mut delivered = Vec::new();
    for round in 0..4 {
        for n in 0..5 {
            let text = format!("{round} {n}");
            assert!(matches!(one.send(2, &text).await.unwrap(), Outcome::Delivered(_)), "{text}");
            delivered.push(text);
        }
        two.kill().await;
        two = Peer::start(home.path(), &node, 2).await;
        assert_eq!(two.texts().await, delivered);
        // The first side has keys that the second has lost, and is told so.
        let text = format!("{round} after");
        let outcome = one.send(2, &text).await.unwrap();
        assert!(matches!(outcome, Outcome::Delivered(_)), "{text}: {outcome:?}");
        delivered.push(text);
    }
    assert_eq!(two.texts().await, delivered, "each once, in order");
    // One that leaves says so.
    two.friends.leave().await;
    one.until(async |friends| {
        friends.view(uid(2)).await.unwrap().filter(|view| !view.is_connected).map(drop)
    })
    .await;
    assert_eq!(one.send(2, "anybody there?").await.unwrap(), Outcome::Offline);
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_declined_or_removed_is_told_and_gets_nothing_through() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let (one, two) = befriended(home.path(), &node).await;
    two.friends.remove(uid(1)).await.unwrap();
    one.until_standing(2, Standing::Ended).await;
    assert!(matches!(
        one.send(2, "why").await,
        Err(SendError::NotFriend { standing: Some(Standing::Ended), .. })
    ));
    one.friends.add(address(2), "please".into()).await.unwrap();
    two.until_standing(1, Standing::Asking).await;
    two.friends.decline(uid(1)).await.unwrap();
    one.until_standing(2, Standing::Declined).await;
    assert!(two.friends.list().await.unwrap().is_empty());
    // The next one is declined without anybody being asked.
    one.friends.add(address(2), "pretty please".into()).await.unwrap();
    one.until_standing(2, Standing::Declined).await;
    assert_eq!(two.friends.status().await.unwrap().counters.requests_declined, 1);
    assert!(matches!(two.friends.accept(uid(1)).await, Err(FriendError::Unknown { .. })));
    // Whoever has declined may ask; a request of each to the other makes them friends without more ado.
    one.friends.remove(uid(2)).await.unwrap();
    two.friends.add(address(1), "after all".into()).await.unwrap();
    one.until_standing(2, Standing::Asking).await;
    assert_eq!(one.friends.add(address(2), String::new()).await.unwrap(), Standing::Friend);
    two.until_standing(1, Standing::Friend).await;
    assert!(matches!(one.send(2, "at last").await.unwrap(), Outcome::Delivered(_)));
    assert_eq!(two.texts().await, ["at last"]);
    // An address that was revoked is of no use any more.
    two.friends.set_nospam([9; 4]).await.unwrap();
    let three = Peer::start(home.path(), &node, 3).await;
    three
        .until(async |friends| {
            let _ = friends.remove(uid(2)).await;
            friends.add(address(2), String::new()).await.unwrap();
            sleep(Duration::from_millis(200)).await;
            friends.view(uid(2)).await.unwrap().filter(|view| view.friend.is_address_revoked).map(drop)
        })
        .await;
    node.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_peers_are_counted_and_friends_do_not_notice() {
    let home = tempfile::tempdir().unwrap();
    let node = up(home.path());
    let (one, two) = befriended(home.path(), &node).await;
    let client = Client::new(ClientOptions::default()).unwrap();
    let join = async |n: u8, friend: u8| {
        let login = Login { key: key(n), nospam: [n; 4], friends: vec![(uid(friend), 0)], latest_sent_us: 0 };
        Mailbox::open(&client.node(node.url().parse().unwrap()), login).await.unwrap()
    };
    // A stranger that knows the UID, and one whose requests are no requests.
    let mut stranger = join(50, 2).await;
    stranger.send(Kind::Message, &uid(2), [0; 4], &[0x03]).unwrap();
    let told = timeout(LONG, stranger.next()).await.unwrap().unwrap();
    assert!(matches!(told, Event::NotDelivered { status: Status::Refused, .. }), "{told:?}");
    stranger.send(Kind::Request, &uid(2), [2; 4], &[7; 100]).unwrap();
    stranger.flush().await.unwrap();
    two.until(async |friends| (friends.status().await.unwrap().counters.malformed == 1).then_some(())).await;
    // A flood of them: what goes beyond the rate never reaches the friends' node.
    for _ in 0..50 {
        stranger.send(Kind::Request, &uid(2), [2; 4], &[7; 100]).unwrap();
    }
    stranger.flush().await.unwrap();
    let mut busy = 0;
    while busy < 40 {
        match timeout(LONG, stranger.next()).await.unwrap().unwrap() {
            Event::NotDelivered { status: Status::Busy, .. } => busy += 1,
            event => panic!("{event:?}"),
        }
    }
    assert!(two.friends.list().await.unwrap().len() <= 1 + ASKING_MAX);

    // A friend that has turned: number 60, whose key signs whatever its program says.
    two.friends.add(address(60), String::new()).await.unwrap();
    let mut turned = join(60, 2).await;
    // The node may hear of the permission after this login; until then it refuses.
    let accepting = async {
        while two
            .friends
            .view(uid(60))
            .await
            .unwrap()
            .is_none_or(|view| view.friend.standing != Standing::Friend)
        {
            turned.send(Kind::Message, &uid(2), [0; 4], &[0x01]).unwrap();
            turned.flush().await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LONG, accepting).await.expect("in time");
    let before = two.friends.status().await.unwrap().counters;
    let bodies: [&[u8]; 7] = [
        &[],
        &[0x77; 40],
        &[0x01, 0x00],
        &[0x11; 5],
        &[[0x11].as_slice(), &[0; 32]].concat(),
        &[[0x12].as_slice(), &[0; 56]].concat(),
        &[[0x13].as_slice(), &[1; 60]].concat(),
    ];
    for body in bodies {
        turned.send(Kind::Message, &uid(2), [0; 4], body).unwrap();
    }
    turned.flush().await.unwrap();
    two.until(async |friends| {
        (friends.status().await.unwrap().counters.malformed >= before.malformed + 4).then_some(())
    })
    .await;
    // It floods its friend with handshakes, each of which would be answered.
    for _ in 0..100 {
        turned.send(Kind::Message, &uid(2), [0; 4], &[[0x11].as_slice(), &[9; 32]].concat()).unwrap();
    }
    turned.flush().await.unwrap();
    two.until(async |friends| (friends.status().await.unwrap().counters.flooded >= 50).then_some(())).await;
    assert!(matches!(one.send(2, "all is well").await.unwrap(), Outcome::Delivered(_)));
    assert_eq!(two.texts().await, ["all is well"]);
    node.end();
}
