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
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(&encode_to_engine(request)?)?;
    let mut decoder = Decoder::<FromEngine>::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = decoder.next_message()? {
            return Ok(answer);
        }
        let len = stream.read(&mut buffer).context("waiting for ioex-engine's answer")?;
        ensure!(len > 0, "ioex-engine closed its policy socket without an answer");
        decoder.push(&buffer[..len]);
    }
}
