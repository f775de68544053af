//! What is served: a file of random bytes, the same in every run, and the certificate that all servers share.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;

/// Name that the certificate is made out to.
pub const SERVER_NAME: &str = "localhost";

/// Name of the content file within its folder.
pub const CONTENT_FILE: &str = "content.bin";

/// A folder with the content, the certificate and its key.
pub struct Content {
    folder: tempfile::TempDir,
    /// The content in memory, to check what arrives.
    pub bytes: Bytes,
}

impl Content {
    /// Makes `len` bytes of content in a new folder under `parent`.
    pub fn create(parent: &Path, len: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(parent)?;
        let folder = tempfile::Builder::new().prefix("ioex-perf-").tempdir_in(parent)?;
        let path = folder.path().join(CONTENT_FILE);
        write_random(&path, len, 0).with_context(|| format!("writing {}", path.display()))?;
        let bytes = Bytes::from(fs::read(&path)?);
        let made = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned(), "127.0.0.1".to_owned()])?;
        fs::write(folder.path().join("cert.pem"), made.cert.pem())?;
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())?;
        Ok(Self { folder, bytes })
    }

    /// The folder; it goes when this does.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The content file.
    pub fn file(&self) -> PathBuf {
        self.folder().join(CONTENT_FILE)
    }

    /// The certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder().join("cert.pem")
    }

    /// Its private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.folder().join("key.pem")
    }
}

/// Writes `len` bytes that do not compress and depend on `seed` only: the output stream of BLAKE3.
pub fn write_random(path: &Path, len: u64, seed: u64) -> anyhow::Result<()> {
    let mut reader = blake3::Hasher::new().update(b"perf content").update(&seed.to_le_bytes()).finalize_xof();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    std::io::copy(&mut std::io::Read::take(&mut reader, len), &mut out)?;
    out.flush()?;
    Ok(())
}
