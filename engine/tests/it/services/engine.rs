//! The engine as a process of its own, with a data directory, a certificate and a control client.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use relay::policy::{Decoder, FromEngine, Imported, Status, ToEngine, encode_to_engine};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine: whoever waits this long waits for ever.
pub(crate) const FOREVER: Duration = Duration::from_secs(60);

/// A data directory as `ioex up` leaves it on a first start.
pub(crate) fn data_directory() -> TempDir {
    let data = tempfile::tempdir().expect("a temporary directory");
    let uid = identity::SecretKey::from_seed([7; 32]).uid();
    std::fs::create_dir(data.path().join("identity")).expect("a directory");
    std::fs::create_dir(data.path().join("tls")).expect("a directory");
    std::fs::write(data.path().join("identity/uid.pub"), format!("{uid}\n")).expect("a file");
    new_certificate(data.path());
    data
}

/// Puts a new self-signed certificate for this machine in place; gives its serial number in hexadecimal.
pub(crate) fn new_certificate(data: &Path) -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("names");
    let mut serial = [0; 8];
    getrandom::fill(&mut serial).expect("randomness");
    serial[0] = 0x5a;
    params.serial_number = Some(serial.to_vec().into());
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(data.join("tls/cert.pem"), certificate.pem()).expect("a file");
    std::fs::write(data.join("tls/key.pem"), key.serialize_pem()).expect("a file");
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A running `ioex-engine`. It is killed when the test ends.
pub(crate) struct Engine {
    pub(crate) ready: Value,
    child: Child,
    data: PathBuf,
}

impl Engine {
    /// Starts it on a free port with metrics, and waits until it is ready.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Engine {
        Self::start_as(&[], data, arguments)
    }

    /// The same under another program, such as `prlimit --memlock=65536`.
    pub(crate) fn start_as(wrapper: &[&str], data: &Path, arguments: &[&str]) -> Engine {
        Self::spawn(command(wrapper, data, arguments), data)
    }

    /// The same where io_uring is blocked, as it is in containers by default.
    pub(crate) fn start_without_io_uring(data: &Path) -> Engine {
        let mut command = command(&[], data, &[]);
        block_io_uring(&mut command);
        Self::spawn(command, data)
    }

    fn spawn(mut command: Command, data: &Path) -> Engine {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the engine starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a readable pipe");
        if line.is_empty() {
            panic!("the engine did not become ready: {:?}; its log:\n{}", child.wait(), log(data));
        }
        let ready = serde_json::from_str(&line).expect("one line of JSON");
        Engine { ready, child, data: data.to_path_buf() }
    }

    /// The port of HTTP/3 and TCP.
    pub(crate) fn port(&self) -> u16 {
        let listener = self.ready["listeners"][0].as_str().expect("a listener");
        listener.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port())
    }

    /// Runs curl with this engine's certificate.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Output {
        self.curl_command(arguments).output().expect("curl runs")
    }

    pub(crate) fn curl_command(&self, arguments: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
            .arg(self.data.join("tls/cert.pem"));
        curl.args(arguments);
        curl
    }

    /// A number of the metrics endpoint.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let url = self.ready["metrics"].as_str().expect("metrics are served");
        let output = Command::new("curl").args(["-sS", "--max-time", "60", url]).output().expect("curl runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().expect("a number")
    }

    pub(crate) fn control(&self) -> ControlClient {
        ControlClient::connect(&self.data.join("run/engine.sock"))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until(|| self.has_ended())
    }

    /// Its resident memory without pages of files.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub(crate) fn log(&self) -> String {
        log(&self.data)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An engine that is expected not to start: its exit code and its log.
pub(crate) fn start_in_vain(data: &Path, arguments: &[&str]) -> (i32, String) {
    let status = command(&[], data, arguments).stdout(Stdio::null()).status().expect("the engine starts");
    (status.code().expect("an exit code"), log(data))
}

fn command(wrapper: &[&str], data: &Path, arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_ioex-engine");
    let mut command = match wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        None => Command::new(program),
    };
    let log = File::options().create(true).append(true).open(data.join("log")).expect("a log");
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--json"]);
    command.args(arguments).stderr(log);
    command
}

/// Has the kernel answer EPERM to the three calls of io_uring, as Docker's default seccomp profile does.
fn block_io_uring(command: &mut Command) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (first, last) = (libc::SYS_io_uring_setup as u32, libc::SYS_io_uring_register as u32);
    let mut filter = [
        // The number of the call, which stands at offset 0 of what the program sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 2, first),
        step(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, last),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: both calls take plain numbers and a program that outlives them; they change this process alone.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, install) };
}

fn log(data: &Path) -> String {
    std::fs::read_to_string(data.join("log")).unwrap_or_default()
}

/// Asks until there is an answer.
pub(crate) fn wait_until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + FOREVER;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "nothing after {FOREVER:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client of the policy socket.
pub(crate) struct ControlClient {
    pub(crate) stream: UnixStream,
    decoder: Decoder<FromEngine>,
}

impl ControlClient {
    pub(crate) fn connect(path: &Path) -> ControlClient {
        let stream = UnixStream::connect(path).expect("a control socket");
        stream.set_read_timeout(Some(FOREVER)).expect("a time-out");
        ControlClient { stream, decoder: Decoder::new() }
    }

    pub(crate) fn send(&mut self, message: &ToEngine) {
        self.stream.write_all(&encode_to_engine(message).expect("a frame")).expect("the engine reads");
    }

    /// The next answer; `None` when the engine has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<FromEngine> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(message) = self.decoder.next_message().expect("a frame of the protocol") {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Ok(len) => self.decoder.push(&buffer[..len]),
                // A machine that is put to sleep and woken interrupts whoever waits with a time-out.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, message: &ToEngine) -> FromEngine {
        self.send(message);
        self.receive().expect("an answer")
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.ask(&ToEngine::Status) {
            FromEngine::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request with a file's descriptor.
    pub(crate) fn send_with_file(&mut self, message: &ToEngine, file: impl AsFd) {
        let frame = encode_to_engine(message).expect("a frame");
        let descriptors = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(&self.stream, &[IoSlice::new(&frame)], &mut control, SendFlags::empty());
        assert_eq!(sent.expect("the engine reads"), frame.len());
    }

    /// Imports `bytes` in segments of `segment_len`.
    pub(crate) fn import(&mut self, bytes: &[u8], segment_len: u32) -> Imported {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("room");
        std::io::Seek::rewind(&mut file).expect("a regular file");
        self.send_with_file(&ToEngine::Import { segment_len }, &file);
        loop {
            match self.receive().expect("an answer") {
                FromEngine::ImportProgress { bytes: done, total } => {
                    assert_eq!(total, Some(bytes.len() as u64));
                    assert!(done <= bytes.len() as u64);
                }
                FromEngine::Imported(imported) => return imported,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Imports `bytes` and stores a signed list of them; gives the list's address and the segments.
    pub(crate) fn publish(&mut self, bytes: &[u8], segment_len: u32) -> (store::Hash, Imported) {
        let imported = self.import(bytes, segment_len);
        let list = store::list::ListBuilder {
            name: "file".into(),
            version: (1, 0, 0),
            counter: 1,
            expires_s: 0,
            target: String::new(),
            file_hash: Some(store::Hash(imported.file_hash)),
            ..store::list::ListBuilder::plain(
                imported.segments.iter().map(|(hash, len)| (store::Hash(*hash), *len)),
            )
        };
        let document = list.sign(&identity::SecretKey::from_seed([7; 32])).expect("a list");
        let hash = store::Hash::of(&document);
        match self.ask(&ToEngine::PutList(document)) {
            FromEngine::ListStored { hash: stored } => assert_eq!(stored, hash.0),
            other => panic!("{other:?}"),
        }
        (hash, imported)
    }
}
