//! Network namespaces: machines of their own, with addresses, routes and a firewall, inside this one.
//!
//! They have no names: a namespace goes with the last process or descriptor that holds it, so nothing is left
//! behind even by a test that is killed.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace, held by descriptor.
#[derive(Clone, Debug)]
pub(super) struct Namespace(Arc<File>);

impl Namespace {
    /// A namespace whose loopback is up; or why there is none: it takes root.
    pub(super) fn new() -> Result<Namespace, String> {
        let make = || {
            // SAFETY: only the network namespace is unshared: memory, descriptors and signals stay what they
            // are. The thread ends right after.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|e| format!("unshare: {e}"))?;
            File::open("/proc/thread-self/ns/net").map_err(|e| format!("/proc/thread-self/ns/net: {e}"))
        };
        let file = std::thread::spawn(make).join().expect("the thread does not panic")?;
        let namespace = Namespace(Arc::new(file));
        namespace.run("ip", &["link", "set", "lo", "up"]);
        Ok(namespace)
    }

    /// Does something on a thread of this namespace. Sockets that it opens stay in it.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                        .expect("the namespace is there");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A file that names it to other programs as long as this process lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The beginning of a command line that runs the rest of it inside.
    pub(super) fn wrapper(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.path())]
    }

    /// Runs a program inside, to its end.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) {
        self.try_run(program, arguments, "")
            .unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    }

    /// The same with something to read; what it said on standard error if it failed.
    pub(super) fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
        let wrapper = self.wrapper();
        let mut child = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).map_err(|e| e.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Puts a rule set of nftables in force.
    pub(super) fn firewall(&self, rules: &str) -> Result<(), String> {
        self.try_run("nft", &["-f", "-"], rules)
    }

    /// A cable between two namespaces: an interface on each, with an address and its prefix length.
    pub(super) fn connect(&self, own: (&str, &str), other: &Namespace, theirs: (&str, &str)) {
        let path = other.path();
        let peer = ["type", "veth", "peer", "name", theirs.0, "netns", &path];
        self.run("ip", &[&["link", "add", own.0][..], &peer].concat());
        for (namespace, (name, address)) in [(self, own), (other, theirs)] {
            namespace.run("ip", &["address", "add", address, "dev", name]);
            namespace.run("ip", &["link", "set", name, "up"]);
        }
    }
}
