//! The API of a running node.

mod document;
mod operation;
mod refusals;
mod schemathesis;

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// An answer.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    /// Reads one to its end.
    pub fn read(stream: &mut impl Read) -> Answer {
        let mut bytes = Vec::new();
        // What was not read of a request that is refused resets the connection, behind the answer.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.into() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub fn connect(home: &Path) -> UnixStream {
    UnixStream::connect(home.join("data/run/api.sock")).unwrap()
}

/// Sends a request of these lines and a body over the node's socket.
pub fn ask(home: &Path, request: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = connect(home);
    let mut head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // It may be refused before all of it was read.
    let _ = stream.write_all(body);
    Answer::read(&mut stream)
}

pub fn get(home: &Path, path: &str) -> Answer {
    ask(home, &format!("GET {path}"), &[], b"")
}

/// Waits until it is so: far longer than it takes.
pub fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}
