//! Server processes: pinned to a core, their output kept, ended with this program.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::Signal;
use rustix::thread::CpuSet;

/// A running server.
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

/// Pins the calling thread, and what it starts from now on, to one core.
pub fn pin_to_core(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set)
        .with_context(|| format!("there is no core {core} to run on"))
}

impl Process {
    /// Starts `command` on `core`; its standard error goes to `log`.
    pub fn start(mut command: Command, core: usize, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        // SAFETY: the closure runs between fork and exec and makes two system calls; it allocates nothing and
        // takes no lock.
        unsafe {
            command.pre_exec(move || {
                let mut set = CpuSet::new();
                set.set(core);
                rustix::thread::sched_setaffinity(None, &set)?;
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(())
            });
        }
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let stdin = child.stdin.take();
        Ok(Self { child, stdout, stdin, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output.
    pub fn read_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let _ = self.child.wait();
            bail!("the server ended early; it said:\n{}", self.log_tail());
        }
        Ok(line)
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The last of what it wrote to standard error.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
