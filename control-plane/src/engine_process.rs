//! One engine process, started here or adopted: waited for and signalled through a pidfd, which never means
//! another process, whatever becomes of the number.

use crate::configuration::{Configuration, Driver, StorageExecutor};
use crate::cores::Cores;
use crate::data_directory::DataDirectory;
use crate::engine_socket::{EngineSocket, EngineSocketError};
use relay::policy::Status;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use tokio::sync::watch;

/// A running engine.
#[derive(Debug)]
pub struct EngineProcess {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    /// Turns true when the process has ended.
    has_ended: watch::Receiver<bool>,
    /// The child to be reaped; absent if another process started it.
    child: Option<Child>,
}

/// Why there is no engine process to watch.
#[derive(Debug, thiserror::Error)]
pub enum EngineProcessError {
    /// The program does not start.
    #[error("cannot start {program}: {source}", program = .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel gives no pidfd.
    #[error("cannot watch the engine (process {pid}): {source}; pidfd_open needs Linux 5.3")]
    Watch {
        /// The process.
        pid: Pid,
        /// Why.
        source: io::Error,
    },
}

impl EngineProcess {
    /// Starts the engine, listening on `listen` and otherwise as `settings` say. Its log goes to this
    /// process's standard error.
    pub fn start(
        program: &Path,
        directory: &DataDirectory,
        settings: &Configuration,
        listen: &[SocketAddr],
    ) -> Result<EngineProcess, EngineProcessError> {
        let mut command = Command::new(program);
        if std::env::var_os("IOEX_LOG").is_none() {
            // Beside what `ioex up` itself says, a person needs to hear only of trouble.
            command.env("IOEX_LOG", "warn");
        }
        let child = command
            // A service manager listens to this process alone.
            .env_remove("NOTIFY_SOCKET")
            .args(arguments(directory, settings, listen))
            .stdin(Stdio::null())
            // What it listens on is asked over its control socket; two programs on one standard output would
            // mix.
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C at the terminal reaches `ioex up` alone, which drains the engine. It
            // lives on when this process dies, by design.
            .process_group(0)
            .spawn()
            .map_err(|source| EngineProcessError::Start { program: program.into(), source })?;
        let pid = Pid::from_child(&child);
        let (pidfd, has_ended) = watch(pid)?;
        Ok(EngineProcess { pid, pidfd, has_ended, child: Some(child) })
    }

    /// Adopts the engine at the other end of `socket`; tells how it is. `None` if it has ended meanwhile.
    pub fn adopt(socket: &mut EngineSocket) -> Result<Option<(EngineProcess, Status)>, EngineProcessError> {
        let pid = socket.pid();
        let (pidfd, has_ended) = match watch(pid) {
            Ok(watched) => watched,
            Err(EngineProcessError::Watch { source, .. })
                if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // An answer after the pidfd was opened proves that it means the process at the other end and not a
        // later one with the same number.
        match socket.status() {
            Ok(status) => Ok(Some((EngineProcess { pid, pidfd, has_ended, child: None }, status))),
            Err(EngineSocketError::Io { .. }) => Ok(None),
            Err(error) => Err(EngineProcessError::Watch { pid, source: io::Error::other(error) }),
        }
    }

    /// Its number, for people.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Whether another process started it.
    pub fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Waits until it has ended.
    pub async fn gone(&self) {
        // The sender goes away only after it has said so.
        let _ = self.has_ended.clone().wait_for(|ended| *ended).await;
    }

    /// Waits until it has ended; gives its status if it was started here.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        self.gone().await;
        self.child.as_mut().and_then(|child| child.wait().ok())
    }

    /// Sends it a signal. One that has just ended needs none.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal) {
            tracing::debug!(%error, pid = self.pid(), "signal not delivered");
        }
    }
}

/// Whoever gives up an engine that it started, by an error or a signal amid its start, does not leave it
/// behind. (A crash of this process runs no destructor: then the engine goes on, and the next `ioex up`
/// adopts it.)
impl Drop for EngineProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            self.signal(Signal::TERM);
        }
    }
}

/// Opens a pidfd and has a thread wait on it, which ends with the process it waits for.
fn watch(pid: Pid) -> Result<(Arc<OwnedFd>, watch::Receiver<bool>), EngineProcessError> {
    let fail = |source| EngineProcessError::Watch { pid, source };
    let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).map_err(|error| fail(error.into()))?);
    let (sender, has_ended) = watch::channel(false);
    let waited_on = pidfd.clone();
    let wait = move || {
        // A pidfd is readable once its process has ended. Polling it fails only when a signal comes in
        // between.
        while rustix::event::poll(&mut [PollFd::new(&waited_on, PollFlags::IN)], None).is_err() {}
        sender.send_replace(true);
    };
    std::thread::Builder::new().name("engine-watch".into()).spawn(wait).map_err(fail)?;
    Ok((pidfd, has_ended))
}

/// The engine's command line. Limits and publishers do not belong here: they are the policy, sent over the
/// socket.
fn arguments(directory: &DataDirectory, settings: &Configuration, listen: &[SocketAddr]) -> Vec<OsString> {
    let Configuration { engine, relay, .. } = settings;
    let mut arguments = vec!["--data".into(), directory.root().into()];
    let mut push = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    for address in listen {
        push("--listen", address.to_string());
    }
    if let Cores::List(_) = engine.cores {
        push("--cores", engine.cores.to_string());
    }
    if engine.driver != Driver::Auto {
        push("--driver", engine.driver.to_string());
    }
    if engine.storage != StorageExecutor::Auto {
        push("--storage", engine.storage.to_string());
    }
    if let Some(address) = engine.metrics {
        push("--metrics", address.to_string());
    }
    for address in &relay.listen {
        push("--relay", address.to_string());
    }
    for address in &relay.tls_listen {
        push("--relay-tls", address.to_string());
    }
    if relay.is_on() {
        for address in &relay.addresses {
            push("--relay-address", address.to_string());
        }
        push("--relay-ports", relay.ports.to_string());
    }
    if !engine.tcp {
        arguments.push("--no-tcp".into());
    }
    arguments
}
