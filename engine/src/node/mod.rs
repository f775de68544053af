//! A node's data plane from start to end: what is opened in which order, how it is told to stop, how it stops.
//!
//! Start: limits of the process, data directory, last policy, store, storage executors, certificate, sockets, shards,
//! services. Stop: the same backwards, after what is in flight has been finished within the drain time-out.

mod cores;
mod error;
pub(crate) mod files;
mod observe;
mod policy_watch;
mod process;
mod ready;
mod relay;
mod shards;
mod signals;
mod sockets;
mod ticket_keys;
mod upgrade;

pub use cores::Cores;
pub use error::NodeError;
pub use files::{DataDirectory, FileError, QuicSecret};
pub use observe::Numbers;
pub use ready::Ready;
pub use relay::{RelayError, RelaySettings};
pub use shards::ShardsError;
pub use sockets::ListenError;
pub use upgrade::UpgradeError;

use crate::control::{self, Control, PolicyFile, RelayShards};
use crate::driver::DriverKind;
use crate::limits::DRAIN_GRACE;
use crate::metrics::NodeCounters;
use crate::quic::{TicketKeys, Tls};
use crate::storage::{self, Storage};
use crate::tcp::{self, Content, TcpConfig, TcpTls};
use crate::wall_clock::unix_time_s;
use ::relay::policy::Status;
use relay::RelayParts;
use shards::{Shards, ShardsOptions};
use signals::{Asked, Signals};
use sockets::Sockets;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use store::leases::{Found, Leases};
use store::{FileBackend, OpenReport, Store};
use ticket_keys::TicketSecrets;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use upgrade::{Giver, GiverParts, Offered, Taken};

/// Threads of the TCP service, the control socket and the metrics endpoint together. They share the shards' cores; two
/// serve on while one of them waits for a page.
const SERVICE_THREADS: usize = 2;

/// How often the age of the session tickets' secret is looked at; it is measured in days.
const TICKETS_CHECK: Duration = Duration::from_secs(600);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen, UDP and TCP. Empty: port 4433 on every address.
    pub listen: Vec<SocketAddr>,
    /// One shard a core. `None`: every core that this process may run on.
    pub cores: Option<Cores>,
    /// Which driver the shards use.
    pub driver: DriverKind,
    /// Which executor runs storage.
    pub storage: storage::Choice,
    /// Whether to serve over TCP.
    pub tcp: bool,
    /// Where to serve metrics, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Whether and where to relay.
    pub relay: RelaySettings,
    /// Whether to take the place of the engine that runs in the data directory.
    pub take_over: bool,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    directory: DataDirectory,
    runtime: Runtime,
    ready: Ready,
    shards: Shards,
    storage: Arc<Storage>,
    store: Store,
    policy: Arc<PolicyFile>,
    tcp_tls: Arc<TcpTls>,
    /// The relay's, if it speaks TLS.
    relay_tls: Option<Arc<TcpTls>>,
    tickets: TicketSecrets,
    counters: Arc<NodeCounters>,
    signals: Signals,
    drain: watch::Sender<bool>,
    services: JoinSet<()>,
    /// Hands this node over to another engine; made last.
    giver: Option<Giver>,
    metrics: Option<AbortHandle>,
    /// Ends with the process or with [`Node::run`], after the TCP connections.
    background: JoinSet<()>,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything in flight was finished, or the drain time-out passed.
    Drained,
    /// A second signal came while it drained.
    Forced,
}

impl Node {
    /// Starts a node. When this returns, every listener listens.
    ///
    /// # Errors
    /// [`NodeError`] says what is in the way; nothing keeps running.
    pub fn start(options: &NodeOptions) -> Result<Node, NodeError> {
        let started = Instant::now();
        process::raise_limits(options.relay.sockets_max());
        if options.relay.is_wanted() {
            process::take_small_pages();
        }
        let directory = DataDirectory::new(&options.data);
        let uid = directory.uid()?;
        directory.prepare()?;
        let policy = Arc::new(PolicyFile::open(&directory.policy())?);
        let cores = process::choose_cores(options.cores.as_ref())?;
        let mut taken = options.take_over.then(|| Taken::ask(&directory)).transpose()?;
        let mut quic_secret = directory.quic_secret()?;
        let tickets = TicketSecrets::load(&directory, unix_time_s())?;
        let keys = tickets.keys();
        let taken_sockets = match &mut taken {
            None => None,
            Some(taken) => {
                let sockets = Sockets::adopt(std::mem::take(&mut taken.udp), std::mem::take(&mut taken.tcp))?;
                taken.check(cores.numbers().len(), &options.listen, &sockets)?;
                quic_secret.generation = taken.generation.wrapping_add(1);
                // What can fail fails before the old engine stops writing.
                load_quic_tls(&directory, &keys)?;
                taken.prepare()?;
                Some(sockets)
            }
        };
        let (store, report) = open_store(&directory, &policy, taken.as_ref())?;
        policy.govern(store.clone());
        let counters = Arc::new(NodeCounters::default());
        let leases = Arc::new(open_leases(&store, &uid)?);
        let start = if taken.is_some() { Storage::start_beside } else { Storage::start };
        let storage = start(&leases, policy.shared(), options.storage, &counters)?;

        if report.packs_unchecked > 0 {
            storage.check_structure()?;
        }

        let quic_tls = load_quic_tls(&directory, &keys)?;
        let tcp_tls = Arc::new(TcpTls::load(&directory.certificate(), &directory.certificate_key(), &keys)?);

        let sockets = match taken_sockets {
            Some(sockets) => sockets,
            None => Sockets::bind(&options.listen, cores.numbers().len(), options.tcp)?,
        };
        let shared = sockets.share().map_err(NodeError::Share)?;
        let relay = RelayParts::open(&options.relay, &directory, &keys, cores.numbers().len())?;
        let relay_uris = relay.as_ref().map_or_else(Vec::new, |relay| relay.uris.clone());
        let relay_tls = relay.as_ref().and_then(|relay| relay.tls.clone());
        let (relay, session_events) =
            relay.map_or((None, None), |parts| (Some((parts.node, parts.listeners)), Some(parts.events)));
        if let Some((relay, _)) = &relay {
            let relay = relay.clone();
            // What fails is said by the shard that cannot use it.
            policy.shared().prepare_with(move |policy| drop(relay.prepare(policy, false)));
        }
        let (listeners, gro, gso) = (sockets.names(), sockets.has_gro(), sockets.has_gso());
        let shards = Shards::start(ShardsOptions {
            cores: &cores,
            udp: sockets.udp,
            relay,
            driver: options.driver,
            tls: quic_tls,
            secret: &quic_secret,
            uid,
            policy: policy.shared(),
            store: &store,
            storage: &storage,
            passages: taken.as_mut().map(|taken| std::mem::take(&mut taken.passages)).unwrap_or_default(),
        })?;

        if let Some(why) = shards.fallback() {
            tracing::warn!(why, "the shards run on epoll; io_uring would cost less");
        }

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVICE_THREADS)
            .thread_name("services")
            .max_blocking_threads(SERVICE_THREADS)
            // They stay, so that their CPU time stays countable.
            .thread_keep_alive(Duration::from_secs(365 * 86_400))
            .enable_all()
            .build()
            .map_err(NodeError::Runtime)?;
        // From here on signals wait for `run`.
        let signals = runtime.block_on(async { Signals::new() }).map_err(NodeError::Runtime)?;
        let numbers = Arc::new(Numbers {
            shards: shards.counters(),
            node: Arc::clone(&counters),
            store: store.clone(),
            policy: Arc::clone(policy.shared()),
            storage_cpu_ns: AtomicU64::new(0),
        });
        let old_metrics = taken.as_mut().and_then(|taken| taken.metrics.take());
        let metrics =
            options.metrics.map(|addr| runtime.block_on(bind_metrics(addr, old_metrics))).transpose()?;
        let ready = Ready {
            uid,
            listeners,
            relay: relay_uris,
            metrics: metrics.as_ref().map(|(_, addr)| *addr),
            control: directory.control_socket(),
            driver: shards.driver(),
            driver_fallback: shards.fallback(),
            cores,
            storage: storage.kind(),
            storage_fallback: storage.fallback().map(str::to_owned),
            gro,
            gso,
            store: report,
            start_time: started.elapsed(),
        };
        let (drain, _) = watch::channel(false);
        let mut node = Node {
            directory,
            runtime,
            ready,
            shards,
            storage: Arc::new(storage),
            store,
            policy,
            tcp_tls,
            relay_tls,
            tickets,
            counters,
            signals,
            drain,
            services: JoinSet::new(),
            giver: None,
            metrics: None,
            background: JoinSet::new(),
        };
        if let Some(events) = session_events {
            // Ends with the shards, after which nothing is left to be told.
            node.services.spawn_on(crate::relay::write_sessions(events), node.runtime.handle());
        }
        let watch = policy_watch::watch(Arc::clone(node.policy.shared()));
        node.background.spawn_on(watch, node.runtime.handle());
        let giver = GiverParts {
            offered: Offered { sockets: shared, metrics: None },
            shards: node.shards.mailboxes(),
            storage: Arc::downgrade(&node.storage),
            generation: quic_secret.generation,
            refusal: options.relay.is_wanted().then_some(
                "it relays (TURN), and its allocations would end with it: drain and restart instead",
            ),
        };
        let control = node.listen_for_control()?;
        if let Some(taken) = taken {
            node.take_over(taken, &quic_secret)?;
        }
        node.start_services(sockets.tcp, metrics.map(|(listener, _)| listener), numbers, (control, giver))?;
        Ok(node)
    }

    /// The control socket, aside until this engine serves.
    fn listen_for_control(&self) -> Result<UnixListener, NodeError> {
        let _context = self.runtime.enter();
        Ok(control::listen_aside(&self.directory.control_socket())?)
    }

    /// Everything is ready: takes the place of the engine that has the sockets.
    fn take_over(&mut self, mut taken: Taken, secret: &QuicSecret) -> Result<(), NodeError> {
        let initial_ids = taken.ready()?;
        self.shards.follow(initial_ids);
        let writes = taken.serving(self.shards.mailboxes(), Arc::downgrade(&self.storage))?;
        let client = self.storage.async_client();
        let serve = async move {
            if let Err(error) = storage::serve_writes(writes, client).await {
                tracing::error!(%error, "the engine before this one cannot have its uploads stored any more");
            }
        };
        self.background.spawn_on(serve, self.runtime.handle());
        // It serves, so this is no reason to end: a restart would answer old ids with silence instead of resets.
        if let Err(error) = self.directory.keep_quic_secret(secret) {
            tracing::error!(%error, "the generation of connection ids was not written down");
        }
        tracing::info!(generation = secret.generation, "this engine has taken over");
        Ok(())
    }

    /// What listens where, and on what it runs.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Has the node drain, from any thread, as SIGTERM does.
    #[must_use]
    pub fn drainer(&self) -> watch::Sender<bool> {
        self.drain.clone()
    }

    /// Serves until a signal, the control socket or [`Node::drainer`] ends it. SIGHUP reloads certificate and policy;
    /// SIGTERM and SIGINT drain; the second of these ends at once.
    ///
    /// # Errors
    /// A shard or an executor of storage died. The rest has been stopped.
    pub fn run(mut self) -> Result<End, NodeError> {
        let mut draining = self.drain.subscribe();
        let mut given = self.giver.as_ref().map(Giver::given);
        let died = loop {
            let event = self.runtime.block_on(async {
                tokio::select! {
                    _ = draining.wait_for(|draining| *draining) => Event::Drain,
                    asked = self.signals.next() => Event::Asked(asked),
                    died = self.shards.died() => Event::Died(died.into()),
                    () = tokio::time::sleep(TICKETS_CHECK) => Event::Tickets,
                    () = is_given(given.as_mut()) => Event::Given,
                    () = self.storage.ended() => Event::Died(NodeError::StorageEnded),
                }
            });
            match event {
                Event::Asked(Asked::Reload) => self.reload(),
                Event::Tickets => self.renew_tickets(),
                Event::Asked(Asked::End) | Event::Drain | Event::Given => break None,
                Event::Died(error) => break Some(error),
            }
        };
        let is_given = self.giver.as_ref().is_some_and(Giver::end);
        self.drain.send_replace(true);
        if let Some(metrics) = self.metrics.take().filter(|_| is_given) {
            // The other engine answers now.
            metrics.abort();
        }
        let forced = self.finish(is_given);
        match died {
            Some(error) => Err(error),
            None if forced => Ok(End::Forced),
            None => Ok(End::Drained),
        }
    }

    /// Has new session tickets sealed under a new secret when the one in use has had its day.
    fn renew_tickets(&mut self) {
        let now_s = unix_time_s();
        if !self.tickets.is_due(now_s) {
            return;
        }
        let renewed =
            TicketSecrets::load(&self.directory, now_s).map_err(NodeError::from).and_then(|tickets| {
                self.tickets = tickets;
                self.reload_tls()
            });
        match renewed {
            Ok(()) => tracing::info!("session tickets are sealed under a new secret"),
            Err(error) => tracing::error!(%error, "session tickets stay under the old secret"),
        }
    }

    /// Gives certificate and session tickets' keys to every service, as they stand in the data directory.
    fn reload_tls(&self) -> Result<(), NodeError> {
        let (certificate, key) = (self.directory.certificate(), self.directory.certificate_key());
        let keys = self.tickets.keys();
        let tls = load_quic_tls(&self.directory, &keys)?;
        let others = [Some(&self.tcp_tls), self.relay_tls.as_ref()];
        others.into_iter().flatten().try_for_each(|other| other.reload(&certificate, &key, &keys))?;
        self.shards.reload_tls(&tls);
        Ok(())
    }

    /// Reads certificate and policy again. What fails is logged and counted; the old one stays in use.
    fn reload(&self) {
        match self.reload_tls() {
            Ok(()) => {
                self.counters.certificate_reloads.increment();
                tracing::info!("the certificate was read again");
            }
            Err(error) => {
                self.counters.certificate_reloads_failed.increment();
                tracing::error!(%error, "the old certificate stays in use");
            }
        }
        match self.policy.reload() {
            Ok(()) => tracing::info!(
                generation = self.policy.shared().load().generation,
                "the policy was read again"
            ),
            Err(error) => {
                self.counters.policies_rejected.increment();
                tracing::error!(%error, "the old policy stays in force");
            }
        }
    }

    /// Finishes what is in flight, then takes everything down in the order that keeps promises: services and shards end
    /// before storage, which writes all it has acknowledged anyway. Store and run directory of an engine that is handed over
    /// (`is_given`) are another's. Says whether a signal cut it short.
    fn finish(&mut self, is_given: bool) -> bool {
        let timeout = Duration::from_millis(self.policy.shared().load().limits.drain_timeout_ms.into());
        tracing::info!(timeout_ms = timeout.as_millis() as u64, "draining");
        self.shards.drain(Instant::now() + timeout);
        let Node { runtime, services, shards, signals, .. } = self;
        let forced = runtime.block_on(async {
            let finished = async {
                while services.join_next().await.is_some() {}
                shards.ended().await;
            };
            tokio::select! {
                () = finished => false,
                () = tokio::time::sleep(timeout + DRAIN_GRACE) => {
                    tracing::warn!("the drain time-out has passed; what is still in flight is cut off");
                    false
                }
                () = signals.end() => true,
            }
        });
        self.background.abort_all();
        self.services.abort_all();
        if let Err(error) = self.policy.keep() {
            tracing::error!(%error, "the last changes of the policy were not written; the next start has an earlier one");
        }
        if forced {
            return true;
        }
        self.shards.stop();
        if is_given {
            tracing::info!("stopped; another engine has taken over");
            return false;
        }
        // Observed time is kept now and then; what passed since would only make leases last longer.
        if let Err(error) = self.storage.leases().tidy(storage::now()) {
            tracing::warn!(%error, "the time that leases go by was not written down");
        }
        // A snapshot is not needed for anything but a fast start.
        if let Err(error) = self.store.snapshot() {
            tracing::warn!(%error, "the index snapshot was not written; the next start takes longer");
        }
        // Nobody answers on them any more.
        let _ = std::fs::remove_file(self.directory.control_socket());
        let _ = std::fs::remove_file(self.directory.upgrade_socket());
        let _ = std::fs::remove_file(self.directory.pid_file());
        tracing::info!("stopped");
        false
    }

    fn start_services(
        &mut self,
        tcp: Vec<(std::net::TcpListener, u16)>,
        metrics: Option<TcpListener>,
        numbers: Arc<Numbers>,
        (listener, mut giver): (UnixListener, GiverParts),
    ) -> Result<(), NodeError> {
        let _context = self.runtime.enter();
        let handle = self.runtime.handle();
        let content = Arc::new(Content::new(self.store.clone(), self.storage.async_client()));
        for (listener, http3_port) in tcp {
            let listener = TcpListener::from_std(listener).map_err(NodeError::Runtime)?;
            let config = TcpConfig {
                tls: Arc::clone(&self.tcp_tls),
                policy: Arc::clone(self.policy.shared()),
                content: Arc::clone(&content),
                counters: Arc::clone(&self.counters),
                http3_port,
            };
            self.services.spawn_on(tcp::serve(listener, config, self.drain.subscribe()), handle);
        }
        if let Some(metrics) = metrics {
            giver.offered.metrics =
                Some(metrics.as_fd().try_clone_to_owned().map_err(NodeError::Share)?.into());
            let listener = metrics;
            let serving =
                self.background.spawn_on(observe::serve_metrics(listener, Arc::clone(&numbers)), handle);
            self.metrics = Some(serving);
        }
        self.background.spawn_on(Arc::clone(&self.policy).keep_changes(), handle);
        let control = Control {
            policy: Arc::clone(&self.policy),
            storage: Arc::clone(&self.storage),
            client: self.storage.async_client(),
            relay: RelayShards::new(self.shards.mailboxes()),
            counters: Arc::clone(&self.counters),
            status: self.status(numbers),
            drain: self.drain.clone(),
        };
        self.write_pid_file();
        control::put_in_place(&self.directory.control_socket())?;
        self.background.spawn_on(control::serve(listener, Arc::new(control)), handle);
        let giver = Giver::start(&self.directory.upgrade_socket(), giver).map_err(NodeError::Runtime)?;
        self.giver = Some(giver);
        Ok(())
    }

    /// The store's lock keeps a second engine out, and the control socket says who answers; this file is for people. So
    /// a full disk is no reason not to serve, but a number that is no longer true must not stay.
    fn write_pid_file(&self) {
        let path = self.directory.pid_file();
        if let Err(error) = files::replace(&path, format!("{}\n", std::process::id()).as_bytes()) {
            tracing::warn!(path = %path.display(), %error, "the process id was not written down");
            let _ = std::fs::remove_file(&path);
        }
    }

    fn status(&self, numbers: Arc<Numbers>) -> Box<dyn Fn() -> Status + Send + Sync> {
        let (ready, since) = (self.ready.clone(), Instant::now());
        let (policy, draining) = (Arc::clone(self.policy.shared()), self.drain.subscribe());
        Box::new(move || {
            let stats = numbers.store.stats();
            let policy = policy.load();
            Status {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uid: *ready.uid.as_bytes(),
                driver: ready.driver_name().to_owned(),
                listeners: ready.listeners.clone(),
                relay: ready.relay.clone(),
                uptime_s: since.elapsed().as_secs(),
                policy_generation: policy.generation,
                policy_valid_until_s: policy.valid_until_s,
                policy_expired: policy.has_expired(unix_time_s()),
                draining: *draining.borrow(),
                store_bytes: stats.bytes_used,
                store_segments: stats.segments,
                counters: numbers.samples(),
            }
        })
    }
}

/// What ends the wait of a running node.
enum Event {
    Asked(Asked),
    /// The age of the tickets' secret is to be looked at.
    Tickets,
    Drain,
    /// Another engine has taken over.
    Given,
    Died(NodeError),
}

/// Waits until another engine has taken over.
async fn is_given(given: Option<&mut watch::Receiver<bool>>) {
    if let Some(given) = given
        && given.wait_for(|given| *given).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn open_store(
    directory: &DataDirectory,
    policy: &PolicyFile,
    taken: Option<&Taken>,
) -> Result<(Store, OpenReport), NodeError> {
    let options = store::Options {
        bytes_max: policy.shared().load().limits.store_bytes_max,
        ..store::Options::default()
    };
    let (path, backend) = (directory.store(), Arc::new(FileBackend::new()));
    let (store, report) = match taken {
        None => Store::open(&path, options, backend)?,
        Some(taken) => {
            let lock = taken.lock.try_clone().map_err(NodeError::Share)?;
            Store::take_over(&path, options, backend, lock)?
        }
    };
    for cut in &report.cut {
        tracing::warn!(path = %cut.path.display(), offset = cut.offset, bytes = cut.len, "an append that was never acknowledged was cut off");
    }
    for damage in &report.damage {
        tracing::error!(%damage, "quarantined: not served any more");
    }
    tracing::info!(
        segments = report.segments,
        packs = report.packs,
        recovered = report.recovered,
        elapsed_ms = report.elapsed.as_millis() as u64,
        "the store is open"
    );
    Ok((store, report))
}

fn open_leases(store: &Store, node: &identity::Uid) -> Result<Leases, NodeError> {
    let (leases, found) = Leases::open(store, *node.as_bytes(), storage::now())?;
    match found {
        Found::Whole => {}
        Found::New => tracing::info!("no leases yet; what the store holds is the node's own, without an end"),
        Found::Lost => tracing::error!(
            "the leases were damaged and moved to quarantine/; everything is kept until the operator removes it"
        ),
    }
    Ok(leases)
}

fn load_quic_tls(directory: &DataDirectory, tickets: &TicketKeys) -> Result<Arc<Tls>, NodeError> {
    let read = |path: PathBuf| std::fs::read(&path).map_err(|source| FileError::Io { path, source });
    let certificate = read(directory.certificate())?;
    let key = read(directory.certificate_key())?;
    Ok(Arc::new(Tls::from_pem(&certificate, &key, tickets)?))
}

/// Listens on `addr`, or goes on with the listener of the engine before this one if it has that address.
async fn bind_metrics(
    addr: SocketAddr,
    old: Option<std::net::TcpListener>,
) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Metrics { addr, source };
    let has_address = |old: &std::net::TcpListener| {
        let is_it = |old: SocketAddr| old.ip() == addr.ip() && [0, old.port()].contains(&addr.port());
        old.local_addr().is_ok_and(is_it)
    };
    let listener = match old.filter(has_address) {
        Some(old) => TcpListener::from_std(old).map_err(failed)?,
        None => TcpListener::bind(addr).await.map_err(failed)?,
    };
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}
