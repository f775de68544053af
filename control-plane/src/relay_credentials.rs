//! Who may use the relay: users with a password, and the secret that expiring credentials are made with.
//!
//! ```text
//! DIR/relay/users      0600   a user a line: NAME:REALM:MD5:SHA-256, keys in hexadecimal, never a password
//! DIR/relay/secret     0600   a secret a line; the first one issues, all are accepted
//! DIR/relay/draining          there as long as the relay refuses new allocations
//! ```
//!
//! To change the secret, put a new line before the old one, reload, and take the old one away when the last credential
//! made with it has expired.

use crate::configuration::Relay;
use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use relay::policy::{RELAY_SECRETS_MAX, RELAY_USER_LEN_MAX, RelayPolicy, RelayUser};
use relay::stun::{CredentialsError, StaticUser, rest_password};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a new secret before it is written down: as long as the output of the hash it keys.
const SECRET_LEN: usize = 32;

/// Bytes of the longest secret in a file.
const SECRET_LEN_MAX: usize = 256;

/// Why the relay's users and secrets are not known.
#[derive(Debug, thiserror::Error)]
pub enum RelayCredentialsError {
    /// A file's trouble.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// A file of secrets that the configuration names is not there.
    #[error("{path}, which relay.secrets names, does not exist", path = .path.display())]
    NoSecrets {
        /// The file.
        path: PathBuf,
    },
    /// A line is no secret.
    #[error("{path}:{line}: a secret has 1 to {SECRET_LEN_MAX} bytes", path = .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// More secrets than the relay tries.
    #[error(
        "{count} secrets are more than {RELAY_SECRETS_MAX}; take away those whose credentials have expired"
    )]
    TooManySecrets {
        /// How many there are.
        count: usize,
    },
    /// A line is no user.
    #[error("{path}:{line}: not NAME:REALM:MD5:SHA-256; `ioex relay user add NAME` writes such lines", path = .path.display())]
    User {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// The name cannot be a user's.
    #[error("`{name}` cannot be a user's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The password is empty, or has characters that no client would send.
    #[error("the password cannot be used: {reason}")]
    Password {
        /// Why not.
        reason: String,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// What the relay's files hold.
pub struct RelayFiles<'a> {
    directory: &'a DataDirectory,
    relay: &'a Relay,
}

/// A user as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUser {
    /// The realm that its keys are for.
    pub realm: String,
    /// Its name and keys.
    pub user: RelayUser,
}

/// What `ioex relay credential` gives (TURN REST convention, draft-uberti-behave-turn-rest-00).
pub struct Credential {
    /// `expiry:name`, the expiry in seconds since 1970.
    pub username: String,
    /// Base64 of HMAC-SHA1(secret, user name).
    pub password: Zeroizing<String>,
}

impl<'a> RelayFiles<'a> {
    /// The files of a node.
    pub fn new(directory: &'a DataDirectory, relay: &'a Relay) -> RelayFiles<'a> {
        RelayFiles { directory, relay }
    }

    /// The policy in force, of configuration and files. Makes the secret on the first start of a relay that needs one.
    pub fn policy(&self) -> Result<RelayPolicy, RelayCredentialsError> {
        if !self.relay.is_on() {
            return Ok(RelayPolicy::default());
        }
        let secrets = if self.relay.ephemeral { self.secrets()? } else { Vec::new() };
        let (users, others): (Vec<_>, Vec<_>) =
            self.users()?.into_iter().partition(|stored| stored.realm == self.relay.realm);
        if !others.is_empty() {
            tracing::warn!(
                users = others.len(),
                realm = self.relay.realm,
                "users of another realm cannot log in; give each its password again with: ioex relay user add NAME"
            );
        }
        let users = users.into_iter().map(|stored| stored.user).collect();
        Ok(self.relay.policy(users, secrets, self.is_draining()))
    }

    /// A credential of `name` that no session can begin with after `expiry_unix_s`.
    pub fn credential(
        &self,
        name: &str,
        expiry_unix_s: u64,
    ) -> Result<Option<Credential>, RelayCredentialsError> {
        let Some(secrets) = read_secrets(&self.directory.relay_secret())? else { return Ok(None) };
        let Some(secret) = secrets.first() else { return Ok(None) };
        let username = format!("{expiry_unix_s}:{name}");
        if name.is_empty() || username.len() > RELAY_USER_LEN_MAX || name.chars().any(char::is_control) {
            let reason = format!("it has 1 to {} bytes and no control characters", RELAY_USER_LEN_MAX - 21);
            return Err(RelayCredentialsError::Name { name: name.into(), reason });
        }
        let password = rest_password(secret, &username);
        Ok(Some(Credential { username, password }))
    }

    /// All users, of every realm.
    pub fn users(&self) -> Result<Vec<StoredUser>, RelayCredentialsError> {
        let path = self.users_path();
        let Some(text) = read_secret(&path)? else { return Ok(Vec::new()) };
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|(line, text)| {
                parse_user(text).ok_or_else(|| RelayCredentialsError::User { path: path.clone(), line })
            })
            .collect()
    }

    /// Adds a user, or gives one another password; tells whether it is new. The password is not kept.
    pub fn add_user(&self, name: &str, password: &str) -> Result<bool, RelayCredentialsError> {
        let bad_name =
            |reason: &str| RelayCredentialsError::Name { name: name.into(), reason: reason.into() };
        if name.contains([':', '\n', '\r']) || name.trim() != name || name.starts_with('#') {
            return Err(bad_name("it has no colon, line break, space at its ends or # at its start"));
        }
        if password.is_empty() {
            return Err(RelayCredentialsError::Password { reason: "it is empty".into() });
        }
        let derived = StaticUser::derive(name, &self.relay.realm, password).map_err(|error| match error {
            CredentialsError::Prepare { what: "the password", reason } => {
                RelayCredentialsError::Password { reason }
            }
            error => bad_name(&error.to_string()),
        })?;
        if derived.name.is_empty() || derived.name.len() > RELAY_USER_LEN_MAX {
            return Err(bad_name(&format!("it has 1 to {RELAY_USER_LEN_MAX} bytes")));
        }
        let user =
            RelayUser { name: derived.name, key_md5: derived.keys.md5, key_sha256: derived.keys.sha256 };
        let stored = StoredUser { realm: self.relay.realm.clone(), user };
        let mut users = self.users()?;
        let known = users.iter_mut().find(|other| other.user.name == stored.user.name);
        let is_new = known.is_none();
        match known {
            Some(known) => *known = stored,
            None => users.push(stored),
        }
        self.write_users(&users)?;
        Ok(is_new)
    }

    /// Takes a user away; tells whether there was one.
    pub fn remove_user(&self, name: &str) -> Result<bool, RelayCredentialsError> {
        let mut users = self.users()?;
        let count = users.len();
        users.retain(|stored| stored.user.name != name);
        if users.len() == count {
            return Ok(false);
        }
        self.write_users(&users)?;
        Ok(true)
    }

    /// Whether the relay refuses new allocations.
    pub fn is_draining(&self) -> bool {
        self.directory.relay_draining().exists()
    }

    /// Keeps in mind whether it does, for the time after the next start, too.
    pub fn set_draining(&self, draining: bool) -> Result<(), RelayCredentialsError> {
        let path = self.directory.relay_draining();
        if draining {
            return Ok(write_whole(&path, b"", 0o600)?);
        }
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(DataDirectoryError::Write { path, source }.into())
            }
            _ => Ok(()),
        }
    }

    /// Where users stand.
    pub fn users_path(&self) -> PathBuf {
        self.relay.users.clone().unwrap_or_else(|| self.directory.relay_users())
    }

    /// The node's own secrets, made if there are none, and those of the files that the configuration names.
    fn secrets(&self) -> Result<Vec<Vec<u8>>, RelayCredentialsError> {
        let own = self.directory.relay_secret();
        let mut secrets = match read_secrets(&own)? {
            Some(secrets) if !secrets.is_empty() => secrets,
            _ => {
                let secret = new_secret()?;
                write_whole(&own, format!("{}\n", *secret).as_bytes(), 0o600)?;
                vec![secret.as_bytes().to_vec()]
            }
        };
        for path in &self.relay.secrets {
            let more = read_secrets(path)?;
            secrets.extend(more.ok_or_else(|| RelayCredentialsError::NoSecrets { path: path.clone() })?);
        }
        if secrets.len() > RELAY_SECRETS_MAX {
            return Err(RelayCredentialsError::TooManySecrets { count: secrets.len() });
        }
        Ok(secrets)
    }

    fn write_users(&self, users: &[StoredUser]) -> Result<(), RelayCredentialsError> {
        let mut text = Zeroizing::new(String::from(
            "# Users of the relay: NAME:REALM:MD5:SHA-256. Written by `ioex relay user`; whoever reads this file can log in.\n",
        ));
        for StoredUser { realm, user } in users {
            let _ = writeln!(text, "{}:{realm}:{}:{}", user.name, hex(&user.key_md5), hex(&user.key_sha256));
        }
        Ok(write_whole(&self.users_path(), text.as_bytes(), 0o600)?)
    }
}

/// The secrets of a file, one a line; `None` if there is no file. Lines that start with # are remarks.
fn read_secrets(path: &Path) -> Result<Option<Vec<Vec<u8>>>, RelayCredentialsError> {
    let Some(text) = read_secret(path)? else { return Ok(None) };
    let mut secrets = Vec::new();
    for (i, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() > SECRET_LEN_MAX {
            return Err(RelayCredentialsError::Secret { path: path.into(), line: i });
        }
        secrets.push(line.as_bytes().to_vec());
    }
    Ok(Some(secrets))
}

/// A secret as text, which other programs (coturn's `static-auth-secret`, web servers) can take over as it stands.
fn new_secret() -> Result<Zeroizing<String>, RelayCredentialsError> {
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(RelayCredentialsError::Random)?;
    Ok(Zeroizing::new(hex(bytes.as_slice())))
}

fn parse_user(line: &str) -> Option<StoredUser> {
    let mut fields = line.split(':');
    let (name, realm, md5, sha256) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || name.is_empty() || name.len() > RELAY_USER_LEN_MAX {
        return None;
    }
    let user = RelayUser { name: name.into(), key_md5: unhex(md5)?, key_sha256: unhex(sha256)? };
    Some(StoredUser { realm: realm.into(), user })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
