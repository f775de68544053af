//! The shards of a node together: started, told, and watched until they end.

use super::cores::Cores;
use super::files::QuicSecret;
use super::relay::ShardListeners;
use crate::cid::Keys;
use crate::driver::{DriverKind, UdpSocket, Waker};
use crate::limits::SharedPolicy;
use crate::mailbox::{self, Receiver, Sender};
use crate::metrics::ShardCounters;
use crate::passage::Passage;
use crate::quic::{DATAGRAM_LEN_MAX, RetryTokens, Tls};
use crate::relay::NodeRelay;
use crate::shard::{self, Command, MAILBOX_LEN, MAILBOX_TRIES, RelayConfig, ShardConfig, ShardError};
use crate::storage::Storage;
use identity::Uid;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::mpsc;

/// Stack of a thread that waits for a shard's end and says so.
const WATCH_STACK_LEN: usize = 64 << 10;

/// What shards are made of.
#[derive(Debug)]
pub(super) struct ShardsOptions<'a> {
    /// One shard each.
    pub(super) cores: &'a Cores,
    /// The sockets of each shard.
    pub(super) udp: Vec<Vec<UdpSocket>>,
    /// The relay, and what each shard listens with for it.
    pub(super) relay: Option<(NodeRelay, Vec<ShardListeners>)>,
    pub(super) driver: DriverKind,
    pub(super) tls: Arc<Tls>,
    pub(super) secret: &'a QuicSecret,
    pub(super) uid: Uid,
    pub(super) policy: &'a Arc<SharedPolicy>,
    pub(super) store: &'a Store,
    pub(super) storage: &'a Storage,
    /// One a shard, if another engine still has the sockets: they receive nothing before [`Shards::follow`].
    pub(super) passages: Vec<Passage>,
}

/// The running shards. When this is dropped they end.
#[derive(Debug)]
pub(super) struct Shards {
    commands: Vec<Sender<Command>>,
    counters: Vec<Arc<ShardCounters>>,
    driver: DriverKind,
    fallback: Option<String>,
    ends: mpsc::UnboundedReceiver<Result<(), ShardError>>,
    running: usize,
}

impl Shards {
    /// Starts one shard after the other; if one does not start, those before it end.
    pub(super) fn start(options: ShardsOptions<'_>) -> Result<Shards, ShardsError> {
        let count = options.udp.len();
        let mut commands = Vec::with_capacity(count);
        let mut inboxes: Vec<(Waker, Receiver<Command>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let waker = Waker::new().map_err(ShardsError::Waker)?;
            let (sender, receiver) = mailbox::channel(MAILBOX_LEN, waker.clone());
            commands.push(sender);
            inboxes.push((waker, receiver));
        }
        let mailbox_seed = mailbox_seed(options.secret);
        let (ended, ends) = mpsc::unbounded_channel();
        let mut shards = Shards {
            commands,
            counters: Vec::new(),
            driver: options.driver,
            fallback: None,
            ends,
            running: 0,
        };
        let mut relay = options.relay.map(|(node, listeners)| (node, listeners.into_iter()));
        let mut passages = options.passages.into_iter();
        let shares = options.cores.numbers().iter().zip(options.udp).zip(inboxes);
        for (index, ((core, sockets), (waker, inbox))) in shares.enumerate() {
            let counters = Arc::new(ShardCounters::default());
            let running = shard::spawn(ShardConfig {
                index,
                count,
                core: Some(*core),
                sockets,
                relay: relay.as_mut().map(|(node, listeners)| {
                    let ShardListeners { udp: sockets, tcp: streams } = listeners.next().unwrap_or_default();
                    RelayConfig { node: node.clone(), sockets, streams }
                }),
                driver: options.driver,
                storage: options.storage.client(waker.clone()),
                waker,
                commands: inbox,
                shards: shards.commands.clone(),
                tls: Arc::clone(&options.tls),
                keys: Keys::new(&options.secret.key, options.secret.generation),
                retry_tokens: RetryTokens::new(&options.secret.key),
                mailbox_seed,
                datagram_len_max: DATAGRAM_LEN_MAX,
                node: options.uid,
                policy: options.policy.view(),
                reader: options.store.reader(),
                leases: Arc::clone(options.storage.leases()),
                counters: Arc::clone(&counters),
                passage: passages.next(),
            })?;
            shards.driver = running.driver;
            shards.fallback = running.why_not_uring.map(|error| error.to_string());
            shards.counters.push(counters);
            shards.running += 1;
            let ended = ended.clone();
            let watch = move || {
                // Nobody listens any more when the node has given up.
                let _ = ended.send(running.thread.join().unwrap_or(Err(ShardError::Ended { index })));
            };
            std::thread::Builder::new()
                .name(format!("watch-{index}"))
                .stack_size(WATCH_STACK_LEN)
                .spawn(watch)
                .map_err(ShardsError::Watch)?;
        }
        Ok(shards)
    }

    /// The mailboxes of each, for whoever asks them something.
    pub(super) fn mailboxes(&self) -> Vec<Sender<Command>> {
        self.commands.clone()
    }

    /// The counters of each.
    pub(super) fn counters(&self) -> Vec<Arc<ShardCounters>> {
        self.counters.clone()
    }

    /// The driver that they run.
    pub(super) fn driver(&self) -> DriverKind {
        self.driver
    }

    /// Why it is not the ring, if that was tried.
    pub(super) fn fallback(&self) -> Option<String> {
        self.fallback.clone()
    }

    /// Has new connections use this certificate.
    pub(super) fn reload_tls(&self, tls: &Arc<Tls>) {
        self.tell(|| Command::ReloadTls(Arc::clone(tls)));
    }

    /// Has every shard receive on what another engine has handed over. `initial_ids`: for each, what that engine's clients
    /// chose for their first flights.
    pub(super) fn follow(&self, mut initial_ids: Vec<Vec<Box<[u8]>>>) {
        initial_ids.resize_with(self.commands.len(), Vec::new);
        let follow = |index: usize| Command::Follow { initial_ids: initial_ids[index].clone() };
        for (index, mailbox) in self.commands.iter().enumerate() {
            tell_one(index, mailbox, || follow(index));
        }
    }

    /// Has every shard finish what is in flight until `deadline`, and end.
    pub(super) fn drain(&self, deadline: Instant) {
        self.tell(|| Command::Drain { deadline });
    }

    /// Waits until a shard ends that was not told to.
    pub(super) async fn died(&mut self) -> ShardsError {
        match self.ends.recv().await {
            Some(Err(error)) => {
                self.running -= 1;
                error.into()
            }
            Some(Ok(())) => {
                self.running -= 1;
                ShardsError::EndedEarly
            }
            // Every watching thread has spoken: then a shard's end has been returned before.
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended.
    pub(super) async fn ended(&mut self) {
        while self.running > 0 {
            match self.ends.recv().await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(%error, "a shard did not end well"),
                None => return,
            }
            self.running -= 1;
        }
    }

    /// Ends those that still run, at once.
    pub(super) fn stop(&mut self) {
        if self.running > 0 {
            self.tell(|| Command::Stop);
        }
        while self.running > 0 && self.ends.blocking_recv().is_some() {
            self.running -= 1;
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for (index, mailbox) in self.commands.iter().enumerate() {
            tell_one(index, mailbox, &command);
        }
    }
}

fn tell_one(index: usize, mailbox: &Sender<Command>, command: impl Fn() -> Command) {
    let mut tries = 0;
    while !mailbox.is_closed() && mailbox.send(command()).is_err() {
        tries += 1;
        if tries == MAILBOX_TRIES {
            tracing::error!(shard = index, "the shard does not empty its mailbox; a command is lost");
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        // Each shard holds the mailboxes of all, so none would notice that the node is gone.
        self.tell(|| Command::Stop);
    }
}

/// The same for all shards of a process, and unknown to peers.
fn mailbox_seed(secret: &QuicSecret) -> u64 {
    let hash = blake3::derive_key("ioex 2026 mailbox home shard v1", &secret.key);
    u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

/// Why the shards do not run.
#[derive(Debug, thiserror::Error)]
pub enum ShardsError {
    /// The process has no file descriptor left.
    #[error("no eventfd for a shard's waker: {0}")]
    Waker(io::Error),
    /// A shard does not start, or died.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A shard ended although nobody told it to.
    #[error("a shard ended although nobody told it to")]
    EndedEarly,
    /// No thread to watch a shard.
    #[error("no thread to watch a shard: {0}")]
    Watch(io::Error),
}
