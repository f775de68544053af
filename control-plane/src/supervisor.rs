//! Keeps one engine running: starts or adopts it, hands it its policy, restarts it when it dies, drains it at
//! the end.

use crate::configuration::Configuration;
use crate::data_directory::DataDirectory;
use crate::engine_history::EngineHistory;
use crate::engine_process::{EngineProcess, EngineProcessError};
use crate::engine_program::{self, EngineProgramError};
use crate::engine_socket::{EngineSocket, EngineSocketError};
use crate::policy_uids::{PolicyUids, PolicyUidsError};
use crate::relay_credentials::{RelayCredentialsError, RelayFiles};
use identity::Uid;
use relay::policy::{CutOff, Policy, Status};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the engine may take until it answers. A store of ten million segments opens in seconds; a repair
/// of its tail after power loss reads one pack.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a starting engine is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// The longest time between two looks at whether the policy is to be renewed: the clock may be set, and what was in the way
/// of the last renewal may be gone.
const RENEWAL_LOOK_MAX: Duration = Duration::from_secs(30);

/// What a drain may take beyond its own limit before the engine is killed: closing the store syncs it.
pub const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// The wait before a restart: doubled with each death from the first to the last, and back to the first after
/// an engine that lived for [`LIVED_WELL`].
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
const LIVED_WELL: Duration = Duration::from_secs(60);

/// Why there is no engine to supervise.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Another `ioex up` supervises this data directory.
    #[error(
        "another `ioex up` (process {pid}) already runs this node; end it first, or choose another --data"
    )]
    Supervised {
        /// Its process id, as it wrote it down.
        pid: String,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {path}: {source}", path = .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No program.
    #[error(transparent)]
    Program(#[from] EngineProgramError),
    /// No process.
    #[error(transparent)]
    Process(#[from] EngineProcessError),
    /// No answer.
    #[error(transparent)]
    Socket(#[from] EngineSocketError),
    /// The relay's users or secrets cannot be read.
    #[error(transparent)]
    Relay(#[from] RelayCredentialsError),
    /// Which UIDs are served is not known.
    #[error(transparent)]
    Uids(#[from] PolicyUidsError),
    /// It ended before it was ready.
    #[error("the engine ended at its start ({status}); its own message stands above")]
    EndedAtStart {
        /// How it ended.
        status: String,
    },
    /// It does not become ready.
    #[error("the engine did not answer within {} s of its start; its log stands above", READY_TIMEOUT.as_secs())]
    NotReady,
    /// The engine that runs here is another node's.
    #[error("the engine that runs in {root} has the UID {found}, this node {expected}; end it (process {pid}) and try again",
            root = .root.display())]
    OtherNode {
        /// The data directory.
        root: PathBuf,
        /// The engine's UID.
        found: Uid,
        /// The identity's UID.
        expected: Uid,
        /// The engine's process.
        pid: u32,
    },
}

/// The one supervisor of a data directory.
#[derive(Debug)]
pub struct Supervisor {
    directory: DataDirectory,
    uid: Uid,
    backoff: Duration,
    history: Arc<EngineHistory>,
    /// What the last engine listened on. One that takes its place listens on the same ports, also where the
    /// configuration leaves the choice (port 0): its URLs are in others' hands.
    bound: Vec<SocketAddr>,
    /// When the policy that an engine has taken last expires, seconds since 1970; 0 before that.
    valid_until_s: u64,
    /// The policy that an engine was given last, and by which process it was taken.
    given: Option<(u32, Policy)>,
    /// Held as long as this process lives.
    _lock: File,
}

/// An engine that has answered and has its policy.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub process: EngineProcess,
    /// How it was when it had taken its policy.
    pub status: Status,
    /// When that was.
    pub since: Instant,
}

impl Supervisor {
    /// Becomes the supervisor of `directory`.
    pub fn lock(directory: DataDirectory, uid: Uid) -> Result<Supervisor, SupervisorError> {
        let path = directory.supervisor_lock();
        let fail = |source| SupervisorError::Lock { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The number is for the message alone; without it the message is still right.
                let _ = file.read_to_string(&mut pid);
                return Err(SupervisorError::Supervised { pid: pid.trim().into() });
            }
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(fail)?;
        Ok(Supervisor {
            directory,
            uid,
            backoff: BACKOFF_FIRST,
            history: Arc::default(),
            bound: Vec::new(),
            valid_until_s: 0,
            given: None,
            _lock: file,
        })
    }

    /// What has become of its engines.
    pub fn history(&self) -> Arc<EngineHistory> {
        Arc::clone(&self.history)
    }

    /// Adopts the engine that runs here, or starts one, and hands it its policy.
    pub async fn adopt_or_start(
        &mut self,
        configuration: &Configuration,
    ) -> Result<Running, SupervisorError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match self.adopt().await? {
                Some(process) => return self.hand_over(process, configuration),
                // By an engine that does not answer yet (its `ioex up` was killed amid the start), or by one that was
                // killed and has not quite ended. A second one would find the store taken.
                None if self.is_store_held() && Instant::now() < deadline => {
                    tokio::time::sleep(READY_POLL).await;
                }
                None => match self.start(configuration).await {
                    // Another engine was faster to the store, so it is the one to adopt.
                    Err(SupervisorError::EndedAtStart { .. })
                        if self.is_store_held() && Instant::now() < deadline => {}
                    outcome => return outcome,
                },
            }
        }
    }

    /// Starts an engine and hands it its policy.
    pub async fn start(&mut self, configuration: &Configuration) -> Result<Running, SupervisorError> {
        let program = engine_program::find()?;
        let listen = self.listen(&configuration.engine.listen);
        let mut process = EngineProcess::start(&program, &self.directory, configuration, &listen)?;
        let ready = async {
            loop {
                if self.is_ready(&process)? {
                    return Ok(());
                }
                tokio::time::sleep(READY_POLL).await;
            }
        };
        let outcome = tokio::select! {
            () = process.gone() => None,
            outcome = tokio::time::timeout(READY_TIMEOUT, ready) => {
                Some(outcome.unwrap_or(Err(SupervisorError::NotReady)))
            }
        };
        match outcome {
            None => {
                let status = describe(process.ended().await);
                return Err(SupervisorError::EndedAtStart { status });
            }
            Some(Err(error)) => {
                self.kill(&mut process).await;
                return Err(error);
            }
            Some(Ok(())) => {}
        }
        self.hand_over(process, configuration)
    }

    /// Waits before the next start: longer with each death, unless the engine that died had lived well.
    pub async fn back_off(&mut self, lived: Duration) -> Duration {
        let wait = if lived >= LIVED_WELL { BACKOFF_FIRST } else { self.backoff };
        self.backoff = (wait * 2).min(BACKOFF_LAST);
        tokio::time::sleep(wait).await;
        wait
    }

    /// Puts the configuration's policy in force on a running engine; gives the engine's state after it. An engine that has the policy
    /// given last is told what has changed, if that is little.
    pub fn set_policy(&mut self, configuration: &Configuration) -> Result<Status, SupervisorError> {
        // Whatever fails here is tried again with the next look.
        self.valid_until_s = 0;
        let mut socket = EngineSocket::connect(&self.directory.engine_socket())?;
        let status = socket.status()?;
        let found = Uid::from_bytes(status.uid);
        if found != self.uid {
            let root = self.directory.root().to_path_buf();
            return Err(SupervisorError::OtherNode { root, found, expected: self.uid, pid: status.pid });
        }
        // The engine keeps its policy and the policy's generation on disk; the next one is always above it.
        let policy = self.policy(configuration, status.policy_generation + 1)?;
        let change = match self.given.take() {
            Some((pid, given)) if (pid, given.generation) == (status.pid, status.policy_generation) => {
                given.change_to(&policy)
            }
            _ => None,
        };
        let is_changed = match change.map(|change| socket.change_policy(change)) {
            Some(Ok(())) => true,
            Some(Err(EngineSocketError::Rejected { reason })) => {
                tracing::info!(reason, "the engine gets the whole policy");
                false
            }
            Some(Err(error)) => return Err(error.into()),
            None => false,
        };
        if !is_changed {
            socket.set_policy(policy.clone())?;
        }
        self.valid_until_s = policy.valid_until_s;
        self.given = Some((status.pid, policy));
        self.history.note_policy();
        Ok(socket.status()?)
    }

    /// How long to wait before looking whether the engine's policy is to be renewed.
    pub fn renewal_look(configuration: &Configuration) -> Duration {
        (Duration::from_secs(configuration.policy.validity_s) / 8).min(RENEWAL_LOOK_MAX)
    }

    /// Renews the policy of a running engine, from when a quarter of its time has passed. What fails is logged, and tried again
    /// with the next look.
    pub fn renew_policy(&mut self, configuration: &Configuration) {
        let validity_s = configuration.policy.validity_s;
        let left_s = self.valid_until_s.saturating_sub(unix_time_s());
        // More is left than there was only where the clock was set back.
        if left_s > validity_s * 3 / 4 && left_s <= validity_s {
            return;
        }
        match self.set_policy(configuration) {
            Ok(status) => tracing::debug!(generation = status.policy_generation, "the policy was renewed"),
            // It has just died; the next one gets its policy at its start.
            Err(SupervisorError::Socket(EngineSocketError::NotRunning { .. })) => {}
            Err(error) => tracing::warn!(%error, "the engine's policy was not renewed"),
        }
    }

    /// Lets the engine finish what is in flight and waits for its end. If that takes too long, or `hurry`
    /// comes first, it is killed. Tells whether it ended by itself.
    pub async fn drain(
        &self,
        process: &mut EngineProcess,
        configuration: &Configuration,
        hurry: impl Future<Output = ()>,
    ) -> bool {
        process.signal(Signal::TERM);
        let patience = Duration::from_millis(configuration.limits.drain_timeout_ms.into()) + DRAIN_GRACE;
        tokio::select! {
            _ = process.ended() => return true,
            () = tokio::time::sleep(patience) => {}
            () = hurry => {}
        }
        self.kill(process).await;
        false
    }

    /// The engine that runs here, if one does. One that is draining is waited for, since it takes no
    /// connections any more.
    async fn adopt(&self) -> Result<Option<EngineProcess>, SupervisorError> {
        let mut socket = match EngineSocket::connect(&self.directory.engine_socket()) {
            Ok(socket) => socket,
            Err(EngineSocketError::NotRunning { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some((mut process, status)) = EngineProcess::adopt(&mut socket)? else { return Ok(None) };
        if status.draining {
            process.ended().await;
            return Ok(None);
        }
        Ok(Some(process))
    }

    /// Whether an engine has the store. Where that cannot be told, the engine to be started will say why.
    fn is_store_held(&self) -> bool {
        let lock = File::open(self.directory.store_lock());
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Whether this very process answers on the control socket and listens.
    fn is_ready(&self, process: &EngineProcess) -> Result<bool, SupervisorError> {
        let mut socket = match EngineSocket::connect(&self.directory.engine_socket()) {
            Ok(socket) => socket,
            Err(EngineSocketError::NotRunning { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if socket.pid().as_raw_pid() != process.pid() {
            return Ok(false);
        }
        Ok(!socket.status()?.listeners.is_empty())
    }

    fn hand_over(
        &mut self,
        process: EngineProcess,
        configuration: &Configuration,
    ) -> Result<Running, SupervisorError> {
        let status = match self.set_policy(configuration) {
            Ok(status) => status,
            // It runs under an earlier policy, as it would without this process: to serve on is worth more than the
            // change, which a reload brings once the reason is gone (a full disk, say).
            Err(SupervisorError::Socket(error @ EngineSocketError::Rejected { .. })) => {
                let status = EngineSocket::connect(&self.directory.engine_socket())?.status()?;
                if status.policy_generation == 0 {
                    return Err(error.into());
                }
                let generation = status.policy_generation;
                tracing::warn!(
                    %error, generation,
                    "the engine keeps its earlier policy; remove the reason, then send SIGHUP"
                );
                status
            }
            Err(error) => return Err(error),
        };
        let udp = status.listeners.iter().filter_map(|listener| listener.strip_prefix("udp://"));
        self.bound = udp.filter_map(|address| address.parse().ok()).collect();
        Ok(Running { process, status, since: Instant::now() })
    }

    /// The configured addresses, with the last engine's ports in place of those left open.
    fn listen(&self, configured: &[SocketAddr]) -> Vec<SocketAddr> {
        let of_last = |(i, address): (usize, &SocketAddr)| match self.bound.get(i) {
            Some(bound) if address.port() == 0 && bound.ip() == address.ip() => *bound,
            _ => *address,
        };
        configured.iter().enumerate().map(of_last).collect()
    }

    fn policy(&self, configuration: &Configuration, generation: u64) -> Result<Policy, SupervisorError> {
        let relay = RelayFiles::new(&self.directory, &configuration.relay).policy()?;
        let mut publishers: Vec<[u8; 32]> = std::iter::once(&self.uid)
            .chain(&configuration.publishers.trusted)
            .map(|uid| *uid.as_bytes())
            .collect();
        publishers.sort_unstable();
        publishers.dedup();
        let revocations = &configuration.publishers;
        let cut_off = |cut: &crate::configuration::CutOff| CutOff {
            issuer: *cut.issuer.as_bytes(),
            before_s: cut.before_s,
        };
        Ok(Policy {
            generation,
            valid_until_s: unix_time_s().saturating_add(configuration.policy.validity_s),
            publishers,
            revoked_tokens: revocations.revoked.iter().map(|id| id.0).collect(),
            cut_offs: revocations.cut_off.iter().map(cut_off).collect(),
            uids: PolicyUids::of(&self.directory).access(&configuration.policy, &self.uid)?,
            limits: configuration.limits.clone(),
            relay,
        })
    }

    async fn kill(&self, process: &mut EngineProcess) {
        process.signal(Signal::KILL);
        process.ended().await;
    }
}

/// Has the `ioex up` that runs this data directory's node read its configuration again, and tells its process id; `None` if
/// none does.
pub fn ask_to_reload(directory: &DataDirectory) -> Option<i32> {
    let mut lock = File::open(directory.supervisor_lock()).ok()?;
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // Whoever holds the lock has written its number there: a process of that number that was opened before is that one.
    let is_held = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
    (is_held && pidfd_send_signal(pidfd, Signal::HUP).is_ok()).then(|| pid.as_raw_pid())
}

/// Seconds since 1970; a clock before that is as good as 1970.
fn unix_time_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How a process ended, for people. What another process started leaves no status.
pub fn describe(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "ended".into(), |status| status.to_string())
}
