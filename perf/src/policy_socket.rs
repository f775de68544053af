//! The few words that perf says to `ioex-engine` over its policy socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use relay::policy::{Decoder, FromEngine, ToEngine, encode_to_engine};

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Sends one request and reads its answer.
pub fn ask(socket: &Path, request: &ToEngine) -> anyhow::Result<FromEngine> {
    PolicySocket::connect(socket)?.ask(request)
}

/// A connection for many requests, one at a time.
pub struct PolicySocket {
    stream: UnixStream,
    decoder: Decoder<FromEngine>,
}

impl PolicySocket {
    /// Connects to the engine.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, decoder: Decoder::new() })
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: &ToEngine) -> anyhow::Result<FromEngine> {
        self.stream.write_all(&encode_to_engine(request)?)?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = self.decoder.next_message()? {
                return Ok(answer);
            }
            let len = self.stream.read(&mut buffer).context("waiting for ioex-engine's answer")?;
            ensure!(len > 0, "ioex-engine closed its policy socket without an answer");
            self.decoder.push(&buffer[..len]);
        }
    }
}
