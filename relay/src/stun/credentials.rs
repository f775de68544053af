//! Who may relay: static users, of whom only keys are kept, and the secrets that user names with an expiry are proved by
//! (the TURN REST convention, draft-uberti-behave-turn-rest-00).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::integrity::{Key, PasswordAlgorithm};
use super::nonce::Features;
use crate::policy::RelayPolicy;

/// Bytes of a realm up to which a 401 with PASSWORD-ALGORITHMS answers the shortest Allocate, of 28 bytes, with at most
/// 3.5 times as many: 20 header + 8 ERROR-CODE + 4 + 12 REALM + 4 + 36 NONCE + 12 PASSWORD-ALGORITHMS = 96 of 98.
const REALM_LEN_MAX_WITH_ALGORITHMS: usize = 12;

/// Bytes of a user name, exclusive (RFC 8489 section 14.3: "a UTF-8-encoded sequence of fewer than 509 bytes").
const USER_NAME_LEN_END: usize = 509;

/// Keys of one user in one realm. Whoever has them can authenticate as the user, but does not know the password.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct UserKeys {
    /// MD5 of `name:realm:password` (RFC 8489 section 18.5.1.1).
    pub md5: [u8; 16],
    /// SHA-256 of the same (section 18.5.1.2).
    pub sha256: [u8; 32],
}

/// A user who stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticUser {
    /// What comes in USERNAME.
    pub name: String,
    /// What the password was made into.
    pub keys: UserKeys,
}

/// Everybody who may relay on this node, in one realm. Made anew whenever the policy changes. `Default` is nobody.
#[derive(Clone, Default)]
pub struct Credentials {
    realm: String,
    /// Sorted by name.
    users: Vec<StaticUser>,
    /// USERHASH of each user and its place in `users`, sorted.
    hashes: Vec<([u8; 32], usize)>,
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

/// Why credentials cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The realm is empty or too long.
    #[error("the realm has {len} bytes; it must have 1 to {max}", max = Credentials::REALM_LEN_MAX)]
    RealmLength {
        /// How long it is.
        len: usize,
    },
    /// The realm has characters that SASLprep changes or forbids, or that a quoted string would need to escape.
    #[error("the realm {realm:?} has characters that clients would not send back as they are")]
    RealmCharacters {
        /// The realm.
        realm: String,
    },
    /// A user name is empty or too long.
    #[error("user name {name:?} has {len} bytes; it must have 1 to 508", len = name.len())]
    UserNameLength {
        /// The name.
        name: String,
    },
    /// Two users have one name.
    #[error("user {name:?} is there twice")]
    UserTwice {
        /// The name.
        name: String,
    },
    /// An empty secret would let everybody in.
    #[error("a REST secret is empty")]
    EmptySecret,
    /// Every request is tried with every secret.
    #[error("{count} REST secrets are more than {max}", max = Credentials::SECRETS_MAX)]
    TooManySecrets {
        /// How many there are.
        count: usize,
    },
    /// A name, realm or password has characters that SASLprep forbids, as control characters.
    #[error("{what} {reason}")]
    Prepare {
        /// Which of them.
        what: &'static str,
        /// What SASLprep says.
        reason: String,
    },
}

/// What a request claims, once found in the store: keys to try.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim<'a> {
    /// A static user.
    Static(&'a StaticUser),
    /// A user name with an expiry.
    Rest {
        /// The whole user name, which the password is made of.
        user_name: &'a str,
        /// What follows the expiry; empty if nothing does.
        name: &'a str,
        /// Seconds since 1970.
        expires_s: u64,
    },
}

impl UserKeys {
    fn of(name: &str, realm: &str, password: &str) -> Self {
        let mut md5 = Md5::new();
        let mut sha256 = Sha256::new();
        for part in [name, ":", realm, ":", password] {
            Digest::update(&mut md5, part);
            Digest::update(&mut sha256, part);
        }
        Self { md5: md5.finalize().into(), sha256: sha256.finalize().into() }
    }

    fn key(&self, algorithm: PasswordAlgorithm) -> Key {
        match algorithm {
            PasswordAlgorithm::Md5 => Key::md5(&self.md5),
            PasswordAlgorithm::Sha256 => Key::sha256(&self.sha256),
        }
    }
}

impl fmt::Debug for UserKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKeys(hidden)")
    }
}

impl StaticUser {
    /// A user from name and password, neither of which is kept as it came: both and the realm are prepared with SASLprep
    /// (RFC 4013), as RFC 5389 asks and the vectors of RFC 5769 and RFC 8489 have it. ASCII stays as it is.
    pub fn derive(name: &str, realm: &str, password: &str) -> Result<Self, CredentialsError> {
        let name = prepare("the user name", name)?;
        let keys = UserKeys::of(&name, &prepare("the realm", realm)?, &prepare("the password", password)?);
        Ok(Self { name: String::clone(&name), keys })
    }
}

/// The password that belongs to a user name `expiry:name` under a secret of the TURN REST convention: base64 of
/// HMAC-SHA1. `expiry` is in seconds since 1970.
pub fn rest_password(secret: &[u8], user_name: &str) -> Zeroizing<String> {
    // HMAC takes keys of every length: the other arm is never taken, and gives a password that fits nothing.
    let Ok(mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(secret) else { return Zeroizing::default() };
    Zeroizing::new(STANDARD.encode(mac.chain_update(user_name).finalize().into_bytes()))
}

/// USERHASH: SHA-256 of `name:realm` (RFC 8489 section 14.4), both prepared.
pub fn user_hash(name: &str, realm: &str) -> [u8; 32] {
    Sha256::new().chain_update(name).chain_update(":").chain_update(realm).finalize().into()
}

impl Credentials {
    /// Bytes of the longest realm: with more, the shortest Allocate could not be answered with a 401 within 3.5 times
    /// its length even without PASSWORD-ALGORITHMS.
    pub const REALM_LEN_MAX: usize = 24;

    /// REST secrets at once: the one in use, one on its way out, and room for other issuers. A request with a wrong password
    /// is tried with each, which takes about a microsecond.
    pub const SECRETS_MAX: usize = 16;

    /// Users and REST secrets of a realm.
    ///
    /// With a realm of 13 to 24 bytes the server offers MD5 keys alone, since a 401 that lists algorithms would be too
    /// long for somebody who has proved nothing.
    pub fn new(
        realm: &str,
        users: impl IntoIterator<Item = StaticUser>,
        rest_secrets: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Self, CredentialsError> {
        if !(1..=Self::REALM_LEN_MAX).contains(&realm.len()) {
            return Err(CredentialsError::RealmLength { len: realm.len() });
        }
        // What is hashed into keys is the prepared realm, what clients send is what they were sent.
        let is_prepared = stringprep::saslprep(realm).is_ok_and(|prepared| prepared == realm);
        if !is_prepared || realm.contains(['"', '\\']) {
            return Err(CredentialsError::RealmCharacters { realm: realm.to_owned() });
        }
        let mut users: Vec<StaticUser> = users.into_iter().collect();
        users.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(user) = users.iter().find(|user| !(1..USER_NAME_LEN_END).contains(&user.name.len())) {
            return Err(CredentialsError::UserNameLength { name: user.name.clone() });
        }
        if let Some([user, _]) = users.array_windows().find(|[a, b]| a.name == b.name) {
            return Err(CredentialsError::UserTwice { name: user.name.clone() });
        }
        let secrets: Vec<Zeroizing<Vec<u8>>> = rest_secrets.into_iter().map(Zeroizing::new).collect();
        if secrets.iter().any(|secret| secret.is_empty()) {
            return Err(CredentialsError::EmptySecret);
        }
        if secrets.len() > Self::SECRETS_MAX {
            return Err(CredentialsError::TooManySecrets { count: secrets.len() });
        }
        let mut hashes: Vec<_> =
            users.iter().enumerate().map(|(i, user)| (user_hash(&user.name, realm), i)).collect();
        hashes.sort_unstable();
        Ok(Self { realm: realm.to_owned(), users, hashes, secrets })
    }

    /// The realm, as clients see it.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// What the nonce announces. A hash of a user name with an expiry cannot be looked up, so USERHASH is offered only
    /// while all users are static.
    pub(super) fn features(&self) -> Features {
        Features {
            password_algorithms: self.realm.len() <= REALM_LEN_MAX_WITH_ALGORITHMS,
            userhash: self.secrets.is_empty() && !self.users.is_empty(),
        }
    }

    /// Who a USERNAME claims to be.
    pub(super) fn claim<'a>(&'a self, user_name: &'a str) -> Option<Claim<'a>> {
        if let Ok(i) = self.users.binary_search_by(|user| user.name.as_str().cmp(user_name)) {
            return self.users.get(i).map(Claim::Static);
        }
        let (expiry, name) = user_name.split_once(':').unwrap_or((user_name, ""));
        let is_number = !expiry.is_empty() && expiry.bytes().all(|byte| byte.is_ascii_digit());
        let expires_s = expiry.parse().ok().filter(|_| is_number && !self.secrets.is_empty())?;
        Some(Claim::Rest { user_name, name, expires_s })
    }

    /// Who a USERHASH claims to be. Found only while USERHASH is offered.
    pub(super) fn claim_hash(&self, hash: &[u8]) -> Option<Claim<'_>> {
        let hash: &[u8; 32] = hash.try_into().ok().filter(|_| self.features().userhash)?;
        let found = self.hashes.binary_search_by(|(known, _)| known.cmp(hash)).ok()?;
        self.users.get(self.hashes.get(found)?.1).map(Claim::Static)
    }

    /// The first of the claim's keys that `is_right` takes: one for a static user, one a secret for others.
    pub(super) fn find_key(
        &self,
        claim: Claim<'_>,
        algorithm: PasswordAlgorithm,
        is_right: impl Fn(&Key) -> bool,
    ) -> Option<Key> {
        match claim {
            Claim::Static(user) => Some(user.keys.key(algorithm)).filter(is_right),
            Claim::Rest { user_name, .. } => self
                .secrets
                .iter()
                .map(|secret| {
                    let password = rest_password(secret, user_name);
                    UserKeys::of(user_name, &self.realm, &password).key(algorithm)
                })
                .find(is_right),
        }
    }
}

impl TryFrom<&RelayPolicy> for Credentials {
    type Error = CredentialsError;

    /// Those that a policy names.
    fn try_from(policy: &RelayPolicy) -> Result<Self, CredentialsError> {
        let users = policy.users.iter().map(|user| StaticUser {
            name: user.name.clone(),
            keys: UserKeys { md5: user.key_md5, sha256: user.key_sha256 },
        });
        Self::new(&policy.realm, users, policy.rest_secrets.iter().cloned())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// SASLprep of what people type.
fn prepare(what: &'static str, text: &str) -> Result<Zeroizing<String>, CredentialsError> {
    match stringprep::saslprep(text) {
        Ok(prepared) => Ok(Zeroizing::new(prepared.into_owned())),
        Err(error) => Err(CredentialsError::Prepare { what, reason: error.to_string() }),
    }
}
