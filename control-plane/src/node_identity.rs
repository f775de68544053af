//! The node's identity on disk: made once, then only read.

use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use identity::{Address, SecretKey, SeedError, Uid};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The key of this node, and the address it hands out.
#[derive(Debug)]
pub struct NodeIdentity {
    /// Signs lists, tokens and the certificate.
    pub key: SecretKey,
    /// The nospam value of the address; friend requests that lack it are refused.
    pub nospam: [u8; 4],
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum NodeIdentityError {
    /// A file's trouble.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// No identity has been made in this data directory yet.
    #[error("there is no identity in {root}; `ioex up` makes one on its first start, `ioex id create` makes one alone",
            root = .root.display())]
    Missing {
        /// The data directory.
        root: PathBuf,
    },
    /// The seed's file does not hold a seed.
    #[error("{path} is not an identity: {source}", path = .path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SeedError,
    },
    /// The UID's file names another UID than the seed gives: one of the two was exchanged.
    #[error("{public} says {found}, but the key beside it belongs to {expected}; restore the key that belongs to the \
             UID, or delete {public} to go on as {expected}", public = .public.display())]
    Mismatch {
        /// The UID's file.
        public: PathBuf,
        /// What it says.
        found: String,
        /// The UID of the key.
        expected: Uid,
    },
    /// The nospam file does not hold 8 hexadecimal digits.
    #[error("{path} does not hold 8 hexadecimal digits; delete it to draw a new nospam value (old addresses end)",
            path = .path.display())]
    Nospam {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

impl NodeIdentity {
    /// The UID.
    pub fn uid(&self) -> Uid {
        self.key.uid()
    }

    /// The address.
    pub fn address(&self) -> Address {
        Address { uid: self.uid(), nospam: self.nospam }
    }

    /// Reads the identity of a data directory and creates nothing but what a whole identity lacks.
    pub fn load(directory: &DataDirectory) -> Result<NodeIdentity, NodeIdentityError> {
        let path = directory.identity_key();
        let text = read_secret(&path)?
            .ok_or_else(|| NodeIdentityError::Missing { root: directory.root().to_path_buf() })?;
        let key =
            SecretKey::from_seed_text(&text).map_err(|source| NodeIdentityError::Seed { path, source })?;
        check_public(directory, key.uid())?;
        let nospam = load_nospam(directory)?;
        Ok(NodeIdentity { key, nospam })
    }

    /// Reads the identity, or makes it on the first start; tells whether it was made.
    pub fn load_or_create(directory: &DataDirectory) -> Result<(NodeIdentity, bool), NodeIdentityError> {
        match NodeIdentity::load(directory) {
            Err(NodeIdentityError::Missing { .. }) => {}
            loaded => return loaded.map(|identity| (identity, false)),
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(NodeIdentityError::Random)?;
        let key = SecretKey::from_seed(*seed);
        // The seed goes last: whoever finds it finds everything that belongs to it.
        write_whole(&directory.identity_public(), format!("{}\n", key.uid()).as_bytes(), 0o644)?;
        write_whole(&directory.identity_key(), key.to_seed_text().as_bytes(), 0o600)?;
        let nospam = load_nospam(directory)?;
        Ok((NodeIdentity { key, nospam }, true))
    }
}

/// Compares the UID's file with the key, and writes it again if it is missing.
fn check_public(directory: &DataDirectory, uid: Uid) -> Result<(), NodeIdentityError> {
    let public = directory.identity_public();
    match std::fs::read_to_string(&public) {
        Ok(text) if text.trim() == uid.to_string() => Ok(()),
        Ok(text) => Err(NodeIdentityError::Mismatch { public, found: text.trim().into(), expected: uid }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(write_whole(&public, format!("{uid}\n").as_bytes(), 0o644)?)
        }
        Err(source) => Err(DataDirectoryError::Read { path: public, source }.into()),
    }
}

fn load_nospam(directory: &DataDirectory) -> Result<[u8; 4], NodeIdentityError> {
    let path = directory.nospam();
    if let Some(text) = read_secret(&path)? {
        let digits = text.trim();
        let value = u32::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 8);
        return value.map(u32::to_be_bytes).ok_or(NodeIdentityError::Nospam { path });
    }
    let mut nospam = [0; 4];
    getrandom::fill(&mut nospam).map_err(NodeIdentityError::Random)?;
    write_whole(&path, format!("{:08x}\n", u32::from_be_bytes(nospam)).as_bytes(), 0o600)?;
    Ok(nospam)
}
