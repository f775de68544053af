//! Where commands write: results to standard output, everything else to standard error.

use std::io::{self, Write};

/// Writes results, as text or as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Whether a program reads along: one JSON object a result, no progress bar.
    pub json: bool,
}

impl Console {
    /// Writes text to standard output as it is. A reader that has gone away (`ioex ... | head`) is no
    /// failure.
    pub fn text(&self, text: &str) -> io::Result<()> {
        self.stream(text).map(drop)
    }

    /// The same, and tells whether anybody still reads: what has no end of its own stops when nobody does.
    pub fn stream(&self, text: &str) -> io::Result<bool> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Writes one JSON object: on one line for programs that read along, so that a line is a whole object.
    pub fn json(&self, value: &serde_json::Value) -> io::Result<()> {
        self.text(&format!("{value}\n"))
    }

    /// Tells the person at the terminal something that is no result. Silent with `--json`.
    pub fn note(&self, text: &str) {
        if !self.json {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}
