//! Which UIDs a node serves: what the configuration says, and what commands have said while it ran.
//!
//! ```text
//! DIR/policy/uids   0600   a line each: `allow UID` or `deny UID`; what stands here goes over the configuration
//! ```

use crate::configuration::PolicySettings;
use crate::data_directory::{DataDirectory, DataDirectoryError, read_secret, write_whole};
use identity::{Address, Uid};
use relay::policy::{UIDS_MAX, UidAccess};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// What holds for a UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UidRule {
    /// It is served; as soon as one is, only those that are allowed are.
    Allow,
    /// It is not.
    Deny,
}

/// Why the rules are not known, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyUidsError {
    /// The file's trouble.
    #[error(transparent)]
    File(#[from] DataDirectoryError),
    /// A line is no rule.
    #[error("{path}:{line}: not `allow UID` or `deny UID`; `ioex policy` writes such lines", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// More rules than a policy holds.
    #[error("{count} UIDs are more than {UIDS_MAX}; forget some")]
    TooMany {
        /// How many there would be.
        count: usize,
    },
    /// A node that does not serve itself cannot do its work.
    #[error("{uid} is this node itself, which is always served")]
    Oneself {
        /// The node.
        uid: Uid,
    },
}

impl UidRule {
    /// `allow` or `deny`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            UidRule::Allow => "allow",
            UidRule::Deny => "deny",
        }
    }
}

/// A UID as people name it: itself, or in an address.
///
/// # Errors
/// What is wrong with both.
pub fn parse_uid(text: &str) -> Result<Uid, String> {
    text.parse::<Uid>().or_else(|error| {
        let address = text.parse::<Address>();
        address
            .map(|address| address.uid)
            .map_err(|_| format!("`{text}` is neither a UID ({error}) nor an address"))
    })
}

/// The rules that commands have made.
#[derive(Clone, Debug)]
pub struct PolicyUids {
    path: PathBuf,
}

impl PolicyUids {
    /// Those of a node.
    #[must_use]
    pub fn of(directory: &DataDirectory) -> PolicyUids {
        PolicyUids { path: directory.policy_uids() }
    }

    /// All of them.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is no rule.
    pub fn load(&self) -> Result<BTreeMap<Uid, UidRule>, PolicyUidsError> {
        let Some(text) = read_secret(&self.path)? else { return Ok(BTreeMap::new()) };
        let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let rules = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        rules
            .map(|(line, text)| {
                parse_rule(text).ok_or_else(|| PolicyUidsError::Line { path: self.path.clone(), line })
            })
            .collect()
    }

    /// Makes a rule for `uid`, in place of the one that there may be. `node` is this node itself.
    ///
    /// # Errors
    /// [`PolicyUidsError`]; nothing is changed.
    pub fn set(&self, uid: Uid, rule: UidRule, node: &Uid) -> Result<(), PolicyUidsError> {
        if uid == *node && rule == UidRule::Deny {
            return Err(PolicyUidsError::Oneself { uid });
        }
        let mut rules = self.load()?;
        rules.insert(uid, rule);
        if rules.len() > UIDS_MAX {
            return Err(PolicyUidsError::TooMany { count: rules.len() });
        }
        self.write(&rules)
    }

    /// Takes the rule for `uid` away; tells whether there was one. What the configuration says of it then holds again.
    ///
    /// # Errors
    /// [`PolicyUidsError`]; nothing is changed.
    pub fn forget(&self, uid: &Uid) -> Result<bool, PolicyUidsError> {
        let mut rules = self.load()?;
        let had = rules.remove(uid).is_some();
        if had {
            self.write(&rules)?;
        }
        Ok(had)
    }

    /// What the engine of `node` is told.
    ///
    /// # Errors
    /// As [`PolicyUids::load`], and more UIDs than a policy holds.
    pub fn access(&self, settings: &PolicySettings, node: &Uid) -> Result<UidAccess, PolicyUidsError> {
        let mut rules = configured(settings);
        rules.extend(self.load()?);
        let of = |rule| rules.iter().filter(move |(_, is)| **is == rule).map(|(uid, _)| *uid.as_bytes());
        let mut access = UidAccess { allow: of(UidRule::Allow).collect(), deny: of(UidRule::Deny).collect() };
        // The node's own peer is at its own mailbox.
        if !access.allow.is_empty() {
            access.allow.push(*node.as_bytes());
        }
        access.deny.retain(|uid| uid != node.as_bytes());
        for list in [&mut access.allow, &mut access.deny] {
            list.sort_unstable();
            list.dedup();
            if list.len() > UIDS_MAX {
                return Err(PolicyUidsError::TooMany { count: list.len() });
            }
        }
        Ok(access)
    }

    fn write(&self, rules: &BTreeMap<Uid, UidRule>) -> Result<(), PolicyUidsError> {
        let mut text = String::from("# Which UIDs this node serves. Written by `ioex policy`.\n");
        for (uid, rule) in rules {
            let _ = writeln!(text, "{} {uid}", rule.word());
        }
        Ok(write_whole(&self.path, text.as_bytes(), 0o600)?)
    }
}

/// The rules of the configuration. A UID in both lists is denied.
#[must_use]
pub fn configured(settings: &PolicySettings) -> BTreeMap<Uid, UidRule> {
    let allow = settings.allow.iter().map(|uid| (*uid, UidRule::Allow));
    allow.chain(settings.deny.iter().map(|uid| (*uid, UidRule::Deny))).collect()
}

fn parse_rule(line: &str) -> Option<(Uid, UidRule)> {
    let (word, uid) = line.split_once(' ')?;
    let rule = [UidRule::Allow, UidRule::Deny].into_iter().find(|rule| rule.word() == word)?;
    Some((uid.trim().parse().ok()?, rule))
}
