//! What this machine's kernel offers the data plane: each part is tried, not looked up, on sockets and rings of the probe's
//! own. `ioex-engine --probe` prints the result as JSON, and `ioex doctor` shows it to people.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::driver::epoll::EpollDriver;
use crate::driver::sockets::{SOCKET_BUFFER_BYTES_DEFAULT, SocketOptions};
use crate::driver::uring::{self, TaskRun, UringDriver};
use crate::driver::{
    Counters, Driver, DriverKind, GSO_SEGMENTS_MAX, RecvMeta, SendMeta, UdpSocket, Waker, sys,
};
use crate::steering::Steering;

/// Longer than loopback takes, even on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the kernel offers.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The kernel's release, as `uname -r` tells it.
    pub kernel: String,
    /// The driver that runs unless the operator says otherwise.
    pub driver: DriverKind,
    /// One finding a part.
    pub findings: Vec<Finding>,
}

/// What was found of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part, as an identifier (`io_uring`, `udp_gso`, ...).
    pub name: &'static str,
    /// Whether it works as the engine wants it.
    pub is_ok: bool,
    /// What was found: a number, a mode, or the kernel's refusal.
    pub found: String,
    /// What the engine loses without it.
    pub cost: &'static str,
    /// How to mend it; empty where it works.
    pub mend: String,
}

impl Finding {
    fn new(name: &'static str, cost: &'static str, outcome: Result<String, Refusal>) -> Self {
        match outcome {
            Ok(found) => Self { name, is_ok: true, found, cost, mend: String::new() },
            Err(Refusal { found, mend }) => Self { name, is_ok: false, found, cost, mend },
        }
    }
}

/// Why a part does not work, and how to mend that.
struct Refusal {
    found: String,
    mend: String,
}

impl Refusal {
    fn new(found: &impl ToString, mend: impl Into<String>) -> Self {
        Self { found: found.to_string(), mend: mend.into() }
    }
}

impl Probe {
    /// Tries everything. Takes milliseconds where all works, and at most some seconds.
    #[must_use]
    pub fn run() -> Self {
        let ring = UringDriver::check().map_err(|error| error.to_string());
        let mut findings = vec![Finding::new(
            "io_uring",
            "the epoll driver runs instead: 4 to 9 % more CPU for batches of 10 datagrams and fewer, and a system call for each \
             wake between shards",
            ring.clone()
                .map(|()| "multishot POLL and RECV work".to_owned())
                .map_err(|error| ring_refusal(&error)),
        )];
        if ring.is_ok() {
            findings.extend([task_run(), ring_wakes()]);
        }
        findings.extend([udp_gso(), udp_gso_segments(), udp_gro(), steering(), precise_waits()]);
        findings.extend(socket_buffers());
        findings.extend([locked_memory(), open_files()]);
        let driver = if ring.is_ok() { DriverKind::Uring } else { DriverKind::Epoll };
        Self { kernel: kernel_release(), driver, findings }
    }

    /// Whether every part works.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.is_ok)
    }

    /// The finding of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }

    /// `{"kernel": "...", "driver": "uring", "findings": [{"name", "ok", "found", "cost", "mend"}, ...]}`
    #[must_use]
    pub fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            let Finding { name, is_ok, found, cost, mend } = finding;
            json!({ "name": name, "ok": is_ok, "found": found, "cost": cost, "mend": mend })
        };
        let findings: Vec<_> = self.findings.iter().map(finding).collect();
        json!({ "kernel": self.kernel, "driver": self.driver.to_string(), "findings": findings })
    }
}

fn ring_refusal(error: &str) -> Refusal {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let mend = match disabled.trim() {
        "1" => "sysctl kernel.io_uring_disabled=0 (it is 1: only members of kernel.io_uring_group may)",
        "2" => "sysctl kernel.io_uring_disabled=0 (it is 2: forbidden for everyone)",
        _ if has_seccomp_filter() => {
            "a seccomp profile that permits io_uring_setup, io_uring_enter and io_uring_register (docker run \
             --security-opt seccomp=PROFILE.json)"
        }
        _ => "Linux 6.1 or later",
    };
    Refusal::new(&error, mend)
}

fn has_seccomp_filter() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

fn task_run() -> Finding {
    let outcome = match uring::can_run_tasks(TaskRun::Deferred) {
        Ok(()) => Ok("deferred (SINGLE_ISSUER, DEFER_TASKRUN)".to_owned()),
        Err(error) => {
            Err(Refusal::new(&format!("cooperative (COOP_TASKRUN): {error}"), "Linux 6.1 or later"))
        }
    };
    Finding::new("io_uring_task_run", "completion work interrupts the shard at every system call", outcome)
}

fn ring_wakes() -> Finding {
    let outcome = match uring::is_supported(io_uring::opcode::MsgRingData::CODE) {
        Ok(true) => Ok("MSG_RING".to_owned()),
        Ok(false) => Err(Refusal::new(&"eventfd", "Linux 5.18 or later")),
        Err(error) => Err(Refusal::new(&error, "Linux 5.18 or later")),
    };
    Finding::new("io_uring_msg_ring", "waking another shard takes a system call (about 1 us)", outcome)
}

fn udp_gso() -> Finding {
    let outcome = loopback_batch(8).map_err(|error| Refusal::new(&error, "Linux 4.18 or later")).and_then(
        |(_, sent)| match sent.send_gso_refused {
            0 => Ok("UDP_SEGMENT".to_owned()),
            _ => Err(Refusal::new(&"the kernel refuses to segment", "Linux 4.18 or later")),
        },
    );
    Finding::new(
        "udp_gso",
        "every datagram is sent on its own: about five times the CPU for serving",
        outcome,
    )
}

fn udp_gso_segments() -> Finding {
    const WANTED: usize = 128;
    let takes = |segments| loopback_batch(segments).is_ok_and(|(_, sent)| sent.send_gso_refused == 0);
    let outcome = if takes(WANTED) {
        Ok(WANTED.to_string())
    } else {
        let found = if takes(GSO_SEGMENTS_MAX) { GSO_SEGMENTS_MAX } else { 1 };
        Err(Refusal::new(&found, "Linux 6.8 or later"))
    };
    Finding::new(
        "udp_gso_segments_max",
        "none while segments are longer than 1,023 bytes: 64 of those fill a batch",
        outcome,
    )
}

fn udp_gro() -> Finding {
    // Before that, loopback cuts what was sent as one batch, and what a network card's driver merges is not seen here.
    let mend = "Linux 6.1 or later; with an older one (5.0 or later) it may work on other interfaces than loopback, where it was tried";
    let outcome = loopback_batch(8).map_err(|error| Refusal::new(&error, mend)).and_then(|(received, _)| {
        if received.len > received.segment_len {
            Ok("UDP_GRO".to_owned())
        } else {
            Err(Refusal::new(&"the kernel does not merge datagrams", mend))
        }
    });
    Finding::new(
        "udp_gro",
        "every datagram is received on its own: several times the CPU for uploads",
        outcome,
    )
}

fn steering() -> Finding {
    let outcome = steer_to_second_of_two().map(|()| "SO_ATTACH_REUSEPORT_CBPF".to_owned());
    let cost = "datagrams of a connection may reach another shard and are handed over, and a client that changes its address \
                changes its shard";
    Finding::new("reuseport_cbpf", cost, outcome.map_err(|error| Refusal::new(&error, "Linux 4.5 or later")))
}

fn steer_to_second_of_two() -> io::Result<()> {
    let group = UdpSocket::bind_group(loopback(), 2, &SocketOptions::default()).map_err(io::Error::other)?;
    let to = group[0].local_addr();
    Steering::attach(&group).map_err(io::Error::other)?;
    let mut shards = Vec::new();
    for socket in group {
        shards.push(EpollDriver::new(vec![socket], Waker::new()?)?);
    }
    let mut client = epoll_on_loopback()?.0;
    transmit(&mut client, to, &[0x40, 1], 2)?;
    let received = receive(&mut shards[1])?;
    if received.len == 2 { Ok(()) } else { Err(io::Error::other("another datagram arrived")) }
}

fn precise_waits() -> Finding {
    let outcome = sys::has_precise_epoll_wait().map(|()| "epoll_pwait2".to_owned());
    let cost = "with the epoll driver, pacing and timers are exact to a millisecond only";
    Finding::new(
        "precise_waits",
        cost,
        outcome.map_err(|error| {
            Refusal::new(&error, "Linux 5.11 or later, and seccomp must permit epoll_pwait2")
        }),
    )
}

fn socket_buffers() -> [Finding; 2] {
    let socket = UdpSocket::bind(loopback(), &SocketOptions::default());
    let finding = |name, sysctl: &str, found: io::Result<usize>| {
        let mend = format!("sysctl {sysctl}={SOCKET_BUFFER_BYTES_DEFAULT}, or CAP_NET_ADMIN for the engine");
        let outcome = match found {
            Ok(bytes) if bytes >= SOCKET_BUFFER_BYTES_DEFAULT => Ok(format!("{bytes} bytes")),
            Ok(bytes) => Err(Refusal::new(&format!("{bytes} bytes"), mend)),
            Err(error) => Err(Refusal::new(&error, mend)),
        };
        Finding::new(name, "bursts of datagrams are lost at high rates", outcome)
    };
    let bytes = |get: fn(&UdpSocket) -> io::Result<usize>| match &socket {
        Ok(socket) => get(socket),
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    [
        finding("recv_buffer", "net.core.rmem_max", bytes(UdpSocket::recv_buffer_bytes)),
        finding("send_buffer", "net.core.wmem_max", bytes(UdpSocket::send_buffer_bytes)),
    ]
}

fn locked_memory() -> Finding {
    /// One shard's rings on kernels before 5.12, which count them as locked memory.
    const WANTED: u64 = 512 << 10;
    let cost = "none on Linux 5.12 or later; before that, rings cannot be made";
    let outcome = sys::resource_limit(libc::RLIMIT_MEMLOCK as i32)
        .map_err(|error| Refusal::new(&error, "a kernel that tells the limit"))
        .and_then(|bytes| match bytes {
            Some(bytes) if bytes < WANTED => Err(Refusal::new(
                &format!("{bytes} bytes"),
                "ulimit -l unlimited, or LimitMEMLOCK=infinity in systemd",
            )),
            Some(bytes) => Ok(format!("{bytes} bytes")),
            None => Ok("unlimited".to_owned()),
        });
    Finding::new("locked_memory", cost, outcome)
}

fn open_files() -> Finding {
    const WANTED: u64 = 4096;
    let cost = "TCP connections and packs beyond the limit are refused";
    let outcome = sys::resource_limit(libc::RLIMIT_NOFILE as i32)
        .map_err(|error| Refusal::new(&error, "a kernel that tells the limit"))
        .and_then(|files| match files {
            Some(files) if files < WANTED => {
                Err(Refusal::new(&files, format!("ulimit -n {WANTED}, or LimitNOFILE={WANTED} in systemd")))
            }
            Some(files) => Ok(files.to_string()),
            None => Ok("unlimited".to_owned()),
        });
    Finding::new("open_files", cost, outcome)
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |it| it.trim().to_owned())
}

/// Sends a batch of datagrams of eight bytes over loopback, and tells how it arrived and what the sender counted.
fn loopback_batch(segments: usize) -> io::Result<(RecvMeta, Counters)> {
    let (mut receiver, to) = epoll_on_loopback()?;
    let (mut sender, _) = epoll_on_loopback()?;
    transmit(&mut sender, to, &vec![0x40; segments * 8], 8)?;
    let received = receive(&mut receiver)?;
    Ok((received, *sender.counters()))
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn epoll_on_loopback() -> io::Result<(EpollDriver, SocketAddr)> {
    let socket = UdpSocket::bind(loopback(), &SocketOptions::default()).map_err(io::Error::other)?;
    let addr = socket.local_addr();
    Ok((EpollDriver::new(vec![socket], Waker::new()?)?, addr))
}

fn transmit(driver: &mut EpollDriver, to: SocketAddr, bytes: &[u8], segment_len: usize) -> io::Result<()> {
    let buffer = driver.send_buffer().ok_or_else(|| io::Error::other("no send buffer"))?;
    driver.buffer_mut(&buffer)[..bytes.len()].copy_from_slice(bytes);
    driver.send(
        buffer,
        SendMeta { socket: 0, from: None, to, segment_len, len: bytes.len(), dont_fragment: false },
    );
    Ok(())
}

fn receive(driver: &mut EpollDriver) -> io::Result<RecvMeta> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        driver.wait(Some(deadline))?;
        if let Some(batch) = driver.received() {
            let meta = batch.meta;
            driver.recycle(batch);
            return Ok(meta);
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a datagram over loopback did not arrive"))
}
