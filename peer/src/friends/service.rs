//! The service: keeps a session at a mailbox, and does there what the state says.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use identity::{Address, SecretKey, Uid};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::book::FriendBook;
use super::bulk::{File, FileTransfer};
use super::error::{FriendError, SendError};
use super::record::{Message, NODES_MAX, Profile, Standing};
use super::state::{Connection, DISPLACED, Due, FriendView, Outcome, Parcel, State, Status};
use crate::backoff::Backoff;
use crate::mailbox::{Event, Login, Mailbox, MailboxError, NodeAddress, RelayCredentials};
use crate::{Client, NodeUrl};

/// Says at which node's mailbox the next session is to be, or why at none now. Asked before every attempt; it may take its time, as
/// somebody does who knows that many others have lost the same node. May be dropped and asked again.
pub type NodeChoice = Box<dyn FnMut() -> Choosing + Send>;

/// A choice under way.
pub type Choosing = Pin<Box<dyn Future<Output = Result<NodeUrl, String>> + Send>>;

/// Says at which addresses others reach the node at whose mailbox this peer is, where that is not the address that the peer itself
/// uses: at its own node. Empty if it is. Asked after every login.
pub type ReachedAt = Box<dyn FnMut() -> Vec<SocketAddr> + Send>;

/// Looks somebody up who is at none of the nodes at which it is believed to be: gives the nodes at which it is reached by what it has
/// published itself, the best first.
pub type NodeFinder = Box<dyn Fn(Uid) -> Finding + Send>;

/// A search under way.
pub type Finding = Pin<Box<dyn Future<Output = Vec<NodeAddress>> + Send>>;

/// What the service is made of.
pub struct FriendsOptions {
    /// The key of this node's UID.
    pub key: SecretKey,
    /// The nospam value of its address.
    pub nospam: [u8; 4],
    /// What is kept.
    pub book: FriendBook,
    /// The client whose socket is used.
    pub client: Client,
    /// Where to go.
    pub node: NodeChoice,
    /// Where others find it.
    pub reached_at: ReachedAt,
    /// Where others are; `None` if there is nobody to ask.
    pub finder: Option<NodeFinder>,
}

/// A handle to the service. Clones are of the same one.
#[derive(Clone)]
pub struct Friends {
    wishes: mpsc::Sender<Wish>,
    at: watch::Receiver<Option<NodeUrl>>,
    relay: watch::Receiver<Option<RelayCredentials>>,
}

/// The service has ended, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service of friends has ended")]
pub struct ServiceEnded;

/// Something to be done with the state.
type Wish = Box<dyn FnOnce(&mut State) -> After + Send>;

#[derive(PartialEq, Eq)]
enum After {
    GoOn,
    Leave,
    /// Choose a node again.
    Move,
}

/// Wishes that may wait.
const WISHES_MAX: usize = 256;

/// The time between envelopes, and how many may go at once: within what a mailbox lets a peer send (`relay/docs/mailbox.md`, 50 a
/// second and 200).
const INTERVAL: Duration = Duration::from_millis(22);
const SENDS_BURST: u32 = 150;

/// Of these so many are not for parts of files: messages go at once beside them, and a peer that was just started does not send more parts than its friend takes.
const KEPT_FROM_PARTS: u32 = 100;

/// The longest wait between attempts to connect.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often the state looks at the time.
const TICK: Duration = Duration::from_millis(250);

/// Searches at once, and how long one may take: messages that wait for it have ten seconds.
const SEARCHES_MAX: usize = 8;
const SEARCH_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest time between two askings: as long as a node may have its credentials last.
const RELAY_RENEWAL_MAX: Duration = Duration::from_secs(86_400);

/// When credentials for the relay are asked for again where there were none.
const RELAY_RETRY: Duration = Duration::from_secs(60);

/// How long leaving may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Friends {
    /// The handle, and the service itself, which runs as long as it is polled and until [`Friends::leave`].
    pub fn new(options: FriendsOptions) -> (Friends, impl Future<Output = ()> + Send) {
        let (wishes, receiver) = mpsc::channel(WISHES_MAX);
        let FriendsOptions { key, nospam, book, client, node, reached_at, finder } = options;
        let state = State::new(key, nospam, book, finder.is_some());
        let (session, at) = watch::channel(None);
        let (relay, relay_at) = watch::channel(None);
        let searches = JoinSet::new();
        let service =
            Service { state, client, node, reached_at, finder, searches, wishes: receiver, session, relay };
        (Friends { wishes, at, relay: relay_at }, service.run())
    }

    /// How the service is.
    pub async fn status(&self) -> Result<Status, ServiceEnded> {
        self.ask(|state| state.status()).await
    }

    /// Asks somebody to be a friend, or accepts if they have asked already; gives how it stands then. The request goes as soon
    /// as both are connected.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn add(&self, address: Address, greeting: String) -> Result<Standing, FriendError> {
        self.add_at(address, greeting, Vec::new()).await
    }

    /// The same for somebody who is known to be at the mailbox of one of these nodes.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn add_at(
        &self,
        address: Address,
        greeting: String,
        nodes: Vec<NodeAddress>,
    ) -> Result<Standing, FriendError> {
        self.ask(move |state| state.add(address, &greeting, nodes)).await?
    }

    /// Accepts a request.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn accept(&self, uid: Uid) -> Result<(), FriendError> {
        self.ask(move |state| state.accept(&uid)).await?
    }

    /// Declines a request, and those that will come of the same UID.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn decline(&self, uid: Uid) -> Result<(), FriendError> {
        self.ask(move |state| state.decline(&uid)).await?
    }

    /// Ends a friendship, withdraws a request, or forgets somebody who has declined.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn remove(&self, uid: Uid) -> Result<(), FriendError> {
        self.ask(move |state| state.remove(&uid)).await?
    }

    /// Gives a friend a name of this node's own, or notes; `None` leaves it as it is.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn label(
        &self,
        uid: Uid,
        label: Option<String>,
        notes: Option<String>,
    ) -> Result<(), FriendError> {
        self.ask(move |state| state.label(&uid, label, notes)).await?
    }

    /// Everybody of whom something is known.
    pub async fn list(&self) -> Result<Vec<FriendView>, ServiceEnded> {
        self.ask(|state| state.list()).await
    }

    /// One of them.
    pub async fn view(&self, uid: Uid) -> Result<Option<FriendView>, ServiceEnded> {
        self.ask(move |state| state.view(&uid)).await
    }

    /// Who is meant by a UID, an address, or a friend's label; else what is wrong with it.
    pub async fn resolve(&self, who: String) -> Result<Result<Uid, String>, ServiceEnded> {
        self.ask(move |state| state.resolve(&who)).await
    }

    /// Changes what this node says about itself, and tells friends that are connected.
    ///
    /// # Errors
    /// [`FriendError`]
    pub async fn set_profile(&self, profile: Profile) -> Result<(), FriendError> {
        self.ask(move |state| state.set_profile(profile)).await?
    }

    /// The address has another nospam value.
    pub async fn set_nospam(&self, nospam: [u8; 4]) -> Result<(), ServiceEnded> {
        self.ask(move |state| state.set_nospam(nospam)).await
    }

    /// Sends a message to a friend (a UID, an address or a label) and waits until it is known how that went: at most 10 s.
    ///
    /// # Errors
    /// [`SendError`], in the order of its variants; nothing was sent then.
    pub async fn send(&self, to: String, text: String) -> Result<Outcome, SendError> {
        let outcome = self.ask(move |state| state.send(&to, text)).await??;
        outcome.await.map_err(|_| SendError::Ended(ServiceEnded))
    }

    /// Sends a file of 1 byte to 5 MiB to a friend (a UID, an address or a label), in parts. It goes on when this returns, over
    /// sessions that end and begin, and waits five minutes for a friend that is gone amid it.
    ///
    /// # Errors
    /// [`SendError`], in the order of its variants; nothing was sent then.
    pub async fn send_file(&self, to: String, name: String, bytes: Bytes) -> Result<FileTransfer, SendError> {
        self.ask(move |state| state.send_file(&to, name, bytes)).await?
    }

    /// The file that is message `number`, whole: at most 5 MiB. `None` if that is no file, or one that is not kept any more.
    ///
    /// # Errors
    /// [`FriendError::Book`]
    pub async fn file(&self, number: u64) -> Result<Option<(File, Vec<u8>)>, FriendError> {
        Ok(self.ask(move |state| state.book().file(number)).await??)
    }

    /// Messages that were received, with numbers above `after`, at most `count`, in order.
    ///
    /// # Errors
    /// [`FriendError::Book`]
    pub async fn inbox(&self, after: u64, count: usize) -> Result<Vec<Message>, FriendError> {
        Ok(self.ask(move |state| state.book().inbox(after, count)).await??)
    }

    /// Changes with every message that comes.
    pub async fn watch(&self) -> Result<watch::Receiver<u64>, ServiceEnded> {
        self.ask(|state| state.watch()).await
    }

    /// Has the service choose a node again: a session is ended and begun elsewhere, a wait is over.
    pub async fn choose_again(&self) -> Result<(), ServiceEnded> {
        self.wishes.send(Box::new(|_| After::Move)).await.map_err(|_| ServiceEnded)
    }

    /// The node at which it has a session, and every change of that.
    pub fn node(&self) -> watch::Receiver<Option<NodeUrl>> {
        self.at.clone()
    }

    /// Credentials for the relay of the node at which it has its session, renewed long before they expire, and every change of them;
    /// none while there is no session, or where the node issues none.
    pub fn relay(&self) -> watch::Receiver<Option<RelayCredentials>> {
        self.relay.clone()
    }

    /// Tells friends that this node leaves, and ends the service. Comes back when it has ended.
    pub async fn leave(&self) {
        let wish: Wish = Box::new(|state| {
            state.leave();
            After::Leave
        });
        if self.wishes.send(wish).await.is_ok() {
            self.wishes.closed().await;
        }
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        wish: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, ServiceEnded> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let wish: Wish = Box::new(move |state| {
            // Whoever asked may not wait any more.
            let _ = reply.send(wish(state));
            After::GoOn
        });
        self.wishes.send(wish).await.map_err(|_| ServiceEnded)?;
        answer.await.map_err(|_| ServiceEnded)
    }
}

struct Service {
    state: State,
    client: Client,
    node: NodeChoice,
    reached_at: ReachedAt,
    finder: Option<NodeFinder>,
    searches: JoinSet<(Uid, Vec<NodeAddress>)>,
    wishes: mpsc::Receiver<Wish>,
    session: watch::Sender<Option<NodeUrl>>,
    relay: watch::Sender<Option<RelayCredentials>>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// There is no node to go to.
    #[error("{0}")]
    NoNode(String),
    /// The node, or the way to it.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

/// How a part of the service's life ends.
enum End {
    /// The owner wants it.
    Left,
    /// Another node is to be chosen.
    Moved,
    Lost(Problem),
}

impl Service {
    async fn run(mut self) {
        let backoff = Backoff { max: RETRY_MAX, ..Backoff::default() };
        let mut failures = 0;
        loop {
            let end = match self.open().await {
                Ok(mailbox) => {
                    failures = 0;
                    self.live(mailbox).await
                }
                Err(end) => end,
            };
            self.session.send_if_modified(|at| at.take().is_some());
            self.relay.send_if_modified(|credentials| credentials.take().is_some());
            let problem = match end {
                End::Left => return,
                End::Moved => {
                    self.state.on_loss(Connection::Connecting { reason: "it moves to another node".into() });
                    continue;
                }
                End::Lost(problem) => problem,
            };
            failures += 1;
            let wait = if let Problem::Mailbox(MailboxError::Displaced) = problem {
                tracing::warn!("{DISPLACED}");
                self.state.on_loss(Connection::Displaced);
                None
            } else {
                tracing::debug!(%problem, "no session at a mailbox");
                self.state.on_loss(Connection::Connecting { reason: problem.to_string() });
                Some(backoff.wait(failures, crate::backoff::random_u32()))
            };
            if self.wait(wait).await == After::Leave {
                return;
            }
        }
    }

    /// Begins a session; wishes are heard meanwhile.
    async fn open(&mut self) -> Result<Mailbox, End> {
        let choosing = (self.node)();
        let login = Login {
            key: self.state.key().clone(),
            nospam: self.state.nospam(),
            friends: self.state.allowed(),
            latest_sent_us: self.state.signed_us(),
        };
        let client = &self.client;
        let mut opening = pin!(async move {
            let url = choosing.await.map_err(Problem::NoNode)?;
            let mailbox = Mailbox::open(&client.node(url.clone()), login).await?;
            Ok::<_, Problem>((url, mailbox))
        });
        let (url, mailbox) = loop {
            tokio::select! {
                opened = &mut opening => break opened.map_err(End::Lost)?,
                // To choose again is what it does.
                wish = self.wishes.recv() => if obey(&mut self.state, wish) == After::Leave {
                    return Err(End::Left);
                },
            }
        };
        // What the owner has wished meanwhile is not in the login; that some of it is said twice does no harm.
        let own_nodes = mailbox.node().map_or_else(Vec::new, |node| {
            let others: Vec<_> = (self.reached_at)().into_iter().take(NODES_MAX).collect();
            let addresses = if others.is_empty() { vec![node.address()] } else { others };
            addresses.into_iter().map(|address| NodeAddress::new(*node.uid(), address)).collect()
        });
        self.state.on_login(url.to_string(), own_nodes, mailbox.clock_offset_us());
        self.session.send_replace(Some(url));
        Ok(mailbox)
    }

    /// Lives a session to its end.
    async fn live(&mut self, mut mailbox: Mailbox) -> End {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new();
        let mut relay_due = Instant::now();
        loop {
            if relay_due <= Instant::now() {
                mailbox.ask_relay();
                // Until there is an answer.
                relay_due = Instant::now() + RELAY_RETRY;
            }
            if let Err(error) = self.send_due(&mut mailbox, &mut pace) {
                return End::Lost(error.into());
            }
            self.state.set_dropped(mailbox.dropped());
            self.begin_searches();
            let has_due = self.state.has_due();
            let has_part = !has_due && self.state.has_part();
            tokio::select! {
                event = mailbox.next() => match event {
                    Ok(Event::Relay(credentials)) => {
                        relay_due = Instant::now() + renewal(&credentials, mailbox.clock_offset_us());
                        self.relay.send_replace(Some(credentials));
                    }
                    Ok(Event::NoRelay(reason)) => {
                        tracing::debug!(%reason, "no credentials for the node's relay");
                        self.relay.send_if_modified(|credentials| credentials.take().is_some());
                    }
                    Ok(event) => self.state.on_event(event),
                    Err(error) => return End::Lost(error.into()),
                },
                wish = self.wishes.recv() => {
                    let end = match obey(&mut self.state, wish) {
                        After::GoOn => continue,
                        After::Leave => End::Left,
                        After::Move => End::Moved,
                    };
                    // Whatever fails here, the end is the same.
                    let _ = self.send_due(&mut mailbox, &mut pace);
                    let _ = timeout(LEAVE_TIMEOUT, mailbox.leave()).await;
                    return end;
                }
                Some(found) = self.searches.join_next() => self.on_found(found),
                () = sleep_until(pace.next), if has_due => {}
                () = sleep_until(relay_due) => {}
                () = sleep_until(pace.next_part()), if has_part => {}
                _ = tick.tick() => self.state.on_time(),
            }
        }
    }

    fn begin_searches(&mut self) {
        let Some(finder) = &self.finder else { return };
        while self.searches.len() < SEARCHES_MAX
            && let Some(uid) = self.state.poll_search()
        {
            let finding = finder(uid);
            self.searches
                .spawn(async move { (uid, timeout(SEARCH_TIMEOUT, finding).await.unwrap_or_default()) });
        }
    }

    fn on_found(&mut self, found: Result<(Uid, Vec<NodeAddress>), JoinError>) {
        match found {
            Ok((uid, nodes)) => self.state.on_found(&uid, &nodes),
            // Who was sought by a search that panicked is sought no more until the next login.
            Err(error) => tracing::error!(%error, "a search for a friend"),
        }
    }

    /// Does what is due, as far as the node's rate allows.
    fn send_due(&mut self, mailbox: &mut Mailbox, pace: &mut Pace) -> Result<(), MailboxError> {
        // Parts of files go when there is nothing else to say.
        while pace.is_free() && (self.state.has_due() || (pace.is_free_for_parts() && self.state.send_part()))
        {
            match self.state.poll_due() {
                Some(Due::Allow(uid)) => {
                    let heard_us = self.state.heard_us(&uid);
                    // With more than the node takes this one is not heard; its request stays open.
                    match mailbox.allow(&[(uid, heard_us)]) {
                        Err(error @ MailboxError::AllowedMax { .. }) => tracing::warn!(%error),
                        allowed => allowed?,
                    }
                }
                Some(Due::Forbid(uid)) => mailbox.forbid(&[uid]),
                Some(Due::Nospam(nospam)) => mailbox.set_nospam(nospam),
                Some(Due::Receipt(to, receipt)) => {
                    // As many as have come since there was last room to send.
                    let receipts = self.state.take_receipts(&to, receipt);
                    mailbox.acknowledge_via(self.state.via(&to), &to, &receipts)?;
                    pace.take();
                }
                Some(Due::Send(Parcel { to, kind, nospam, body, about, via })) => {
                    let via = via.or_else(|| self.state.via(&to));
                    let receipt = mailbox.send_via(via, kind, &to, nospam, &body)?;
                    self.state.on_signed(&to, about, receipt);
                    pace.take();
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Hears wishes for so long, or for ever.
    async fn wait(&mut self, wait: Option<Duration>) -> After {
        let until = wait.map(|wait| Instant::now() + wait);
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return After::GoOn,
                wish = self.wishes.recv() => match obey(&mut self.state, wish) {
                    After::GoOn => {}
                    After::Leave => return After::Leave,
                    // Of an identity that is used elsewhere a session would only displace the other one.
                    After::Move if until.is_some() => return After::GoOn,
                    After::Move => {}
                },
                _ = tick.tick() => self.state.on_time(),
            }
        }
    }
}

/// When credentials are to be renewed: when three quarters of their time have passed, and not more than once a second.
fn renewal(credentials: &RelayCredentials, clock_offset_us: i64) -> Duration {
    let local_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let now_us = u64::try_from(local_us).unwrap_or(u64::MAX).saturating_add_signed(clock_offset_us);
    let left_us = credentials.expires_s.saturating_mul(1_000_000).saturating_sub(now_us);
    Duration::from_micros(left_us / 4 * 3).clamp(Duration::from_secs(1), RELAY_RENEWAL_MAX)
}

/// Without a handle nobody can wish anything any more, and nobody reads what comes.
fn obey(state: &mut State, wish: Option<Wish>) -> After {
    wish.map_or(After::Leave, |wish| wish(state))
}

/// A rate of envelopes, as the virtual time at which the next one's token is there.
struct Pace {
    next: Instant,
}

impl Pace {
    fn new() -> Pace {
        Pace { next: Instant::now() - INTERVAL * (SENDS_BURST - 1) }
    }

    fn is_free(&self) -> bool {
        self.next <= Instant::now()
    }

    /// When a part of a file may go.
    fn next_part(&self) -> Instant {
        self.next + INTERVAL * KEPT_FROM_PARTS
    }

    fn is_free_for_parts(&self) -> bool {
        self.next_part() <= Instant::now()
    }

    fn take(&mut self) {
        let burst_from = Instant::now().checked_sub(INTERVAL * (SENDS_BURST - 1));
        self.next = burst_from.map_or(self.next, |from| self.next.max(from)) + INTERVAL;
    }
}
