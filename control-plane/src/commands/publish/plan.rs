//! What the command line of `ioex publish` asks for, checked.

use super::when::parse_expiry;
use crate::cli::{Encrypt, Publish};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::quantity::parse_bytes;
use identity::Uid;
use std::fs::File;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use store::SEGMENT_LEN_MAX;
use store::erasure::{Code, Shape};
use store::list::Chunking;
use store::pipeline::{CompressionChoice, ConvergenceSecret};

/// Shortest secret of convergent keys, in bytes.
const CONVERGENT_SECRET_LEN_MIN: usize = 16;

/// The level of zstd where nobody chose one.
const ZSTD_LEVEL: i32 = 3;

pub struct Plan {
    pub console: Console,
    pub input: Input,
    pub name: String,
    pub version: (u32, u32, u32),
    pub counter: u64,
    pub target: String,
    pub expires_s: u64,
    /// When leases end; none: as each node does it.
    pub lease_expires_s: Option<u64>,
    pub segment_len: u32,
    pub chunking: Chunking,
    pub compression: CompressionChoice,
    pub code: Option<(Code, Shape)>,
    pub encryption: Option<Encryption>,
}

pub enum Input {
    File(File, PathBuf),
    StandardInput,
}

pub struct Encryption {
    /// None: whoever has the list.
    pub readers: Option<Vec<Uid>>,
    /// The secret of a convergent key.
    pub convergent: Option<ConvergenceSecret>,
}

impl Plan {
    pub fn of(arguments: &Publish) -> Result<Plan, Failure> {
        let is_stdin = arguments.file.as_os_str() == "-";
        let name = match (&arguments.name, arguments.file.file_name()) {
            (Some(name), _) => name.clone(),
            (None, _) if is_stdin => {
                return Err(usage("standard input has no name: give one with --name".into()));
            }
            (None, Some(name)) => name.to_str().map(String::from).ok_or_else(|| {
                usage(format!("{} is not UTF-8: give another name with --name", arguments.file.display()))
            })?,
            (None, None) => return Err(usage(format!("{} names no file", arguments.file.display()))),
        };
        if !(1..=255).contains(&name.len()) {
            return Err(usage(format!("--name: {} bytes; allowed are 1 to 255", name.len())));
        }
        if arguments.target.len() > 255 {
            return Err(usage(format!(
                "--target: {} bytes; allowed are at most 255",
                arguments.target.len()
            )));
        }
        let segment_len =
            parse_bytes(&arguments.segment_size).map_err(|e| usage(format!("--segment-size: {e}")))?;
        let segment_len =
            u32::try_from(segment_len).ok().filter(|len| (1..=SEGMENT_LEN_MAX).contains(len)).ok_or_else(
                || usage(format!("--segment-size: {segment_len} bytes; allowed are 1 to {SEGMENT_LEN_MAX}")),
            )?;
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let pipeline = &arguments.pipeline;
        let end = |flag, text: &Option<String>| {
            text.as_deref().map(|text| parse_expiry(flag, text, now_s)).transpose().map_err(usage)
        };
        Ok(Plan {
            console: Console { json: arguments.json },
            version: parse_version(&arguments.version).map_err(usage)?,
            counter: arguments.counter.unwrap_or(now_s),
            target: arguments.target.clone(),
            expires_s: end("--expires", &arguments.expires)?.unwrap_or(0),
            lease_expires_s: end("--lease", &arguments.lease)?,
            segment_len,
            chunking: pipeline.chunks.as_deref().map_or(Ok(Chunking::Fixed), parse_chunks).map_err(usage)?,
            compression: parse_zstd(&pipeline.zstd).map_err(usage)?,
            code: pipeline.code.as_deref().map(parse_code).transpose().map_err(usage)?,
            encryption: encryption(arguments)?,
            input: if is_stdin { Input::StandardInput } else { Input::open(arguments)? },
            name,
        })
    }

    /// Whether segments are the file's bytes, cut evenly, and every node gets all of them: what the local node can do by
    /// itself.
    pub fn is_plain(&self) -> bool {
        self.chunking == Chunking::Fixed
            && self.compression == CompressionChoice::Off
            && self.code.is_none()
            && self.encryption.is_none()
    }
}

impl Input {
    fn open(arguments: &Publish) -> Result<Input, Failure> {
        let shown = arguments.file.display();
        let file = File::open(&arguments.file).map_err(|error| cannot_read(&shown, &error))?;
        if file.metadata()?.is_dir() {
            let what = format!(
                "{shown} is a directory; pack it first: tar c {shown} | ioex publish - --name NAME.tar"
            );
            return Err(Failure::message(Exit::Usage, what));
        }
        Ok(Input::File(file, arguments.file.clone()))
    }
}

fn encryption(arguments: &Publish) -> Result<Option<Encryption>, Failure> {
    let pipeline = &arguments.pipeline;
    let Some(encrypt) = pipeline.encrypt else { return Ok(None) };
    let uid = |text: &String| {
        let parsed: Result<Uid, _> = text.parse();
        parsed.map_err(|error| usage(format!("--for: `{text}` is not a UID: {error}")))
    };
    let mut readers: Vec<Uid> = pipeline.readers.iter().map(uid).collect::<Result<_, _>>()?;
    readers.sort_unstable();
    readers.dedup();
    let readers = match (encrypt, readers.is_empty()) {
        (Encrypt::Open, true) => None,
        (Encrypt::Private, false) => Some(readers),
        (Encrypt::Open, false) => {
            return Err(usage(
                "--encrypt open lets whoever has the list read the file; --for goes with private".into(),
            ));
        }
        (Encrypt::Private, true) => {
            return Err(usage("--encrypt private: say who may read the file with --for UID".into()));
        }
    };
    let secret = |path: &PathBuf| {
        let secret = std::fs::read(path).map_err(|error| cannot_read(&path.display(), &error))?;
        if secret.len() < CONVERGENT_SECRET_LEN_MIN {
            return Err(usage(format!(
                "--convergent: {} has {} bytes; a secret has at least {CONVERGENT_SECRET_LEN_MIN}: make one with \
                 head -c 32 /dev/urandom > {}",
                path.display(),
                secret.len(),
                path.display()
            )));
        }
        // Of any form and length: what counts is that nobody can guess it.
        let derived = blake3::derive_key("ioex 2026 secret file of convergent publications v1", &secret);
        Ok(ConvergenceSecret::from_bytes(derived))
    };
    Ok(Some(Encryption { readers, convergent: pipeline.convergent.as_ref().map(secret).transpose()? }))
}

fn cannot_read(shown: &impl std::fmt::Display, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    };
    Failure::message(exit, format!("cannot read {shown}: {error}"))
}

fn usage(message: String) -> Failure {
    Failure::message(Exit::Usage, message)
}

fn parse_version(text: &str) -> Result<(u32, u32, u32), String> {
    let wrong = || format!("--version: `{text}` is not MAJOR.MINOR.PATCH such as 1.4.2");
    let parts: Vec<u32> =
        text.split('.').map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    match parts[..] {
        [major, minor, patch] => Ok((major, minor, patch)),
        _ => Err(wrong()),
    }
}

fn parse_code(text: &str) -> Result<(Code, Shape), String> {
    let parts =
        text.split_once('+').and_then(|(k, m)| Some((k.trim().parse().ok()?, m.trim().parse().ok()?)));
    let Some((data, parity)) = parts else {
        return Err(format!("--code: `{text}` is no code such as 10+4 (segments of a group + parity)"));
    };
    let shape = Shape { data, parity };
    if data == 0 || parity == 0 || data.saturating_add(parity) > store::erasure::SHARDS_MAX {
        let max = store::erasure::SHARDS_MAX;
        return Err(format!("--code: {text}; allowed are at least 1+1 and at most {max} together"));
    }
    Ok((Code::fastest_for(shape), shape))
}

fn parse_zstd(text: &str) -> Result<CompressionChoice, String> {
    match text {
        "off" => Ok(CompressionChoice::Off),
        "auto" => Ok(CompressionChoice::IfItHelps(ZSTD_LEVEL)),
        level => {
            let level = level.parse().ok().filter(|level| (1..=22).contains(level));
            let wrong = || format!("--zstd: `{text}` is none of off, auto and the levels from 1 to 22");
            level.map(CompressionChoice::Level).ok_or_else(wrong)
        }
    }
}

fn parse_chunks(text: &str) -> Result<Chunking, String> {
    let average = parse_bytes(text).map_err(|e| format!("--chunks: {e}"))?;
    let (min, max) = (Chunking::AVERAGE_MIN, Chunking::AVERAGE_MAX);
    match u32::try_from(average) {
        Ok(average) if average.is_power_of_two() && (min..=max).contains(&average) => {
            Ok(Chunking::FastCdc { average })
        }
        _ => Err(format!("--chunks: {average} bytes; allowed are powers of two from {min} to {max}")),
    }
}
