//! DIR/engine/tickets.key: the secrets of session tickets. A new one is drawn every day, and the last three are kept:
//! with the oldest go the means to open what clients sent as 0-RTT data under it.

use super::files::{DataDirectory, FileError, read_text, replace};
use crate::quic::{TICKET_LIFETIME_S, TicketKeys};

/// Age at which the newest secret is replaced, seconds.
const SECRET_AGE_MAX_S: u64 = 86_400;

/// Secrets that are kept: the newest, and as many more as tickets may be old.
const SECRETS: usize = 1 + (TICKET_LIFETIME_S as u64).div_ceil(SECRET_AGE_MAX_S) as usize;

/// The secrets as the file has them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TicketSecrets {
    /// When the newest was drawn, seconds since 1970.
    drawn_s: u64,
    /// Newest first, 1 to [`SECRETS`].
    secrets: Vec<[u8; 32]>,
}

impl TicketSecrets {
    /// Reads the secrets; draws a new one if there is none yet or the newest has had its day at `now_s`, seconds since
    /// 1970. One from the future has: a clock that was wrong would keep it for ever.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn load(directory: &DataDirectory, now_s: u64) -> Result<TicketSecrets, FileError> {
        let path = directory.ticket_keys();
        let held = match read_text(&path)? {
            None => None,
            Some(text) => Some(TicketSecrets::parse(&text).ok_or_else(|| FileError::Malformed {
                path: path.clone(),
                what: "a time and up to three secrets of 64 hexadecimal digits; remove it to draw a new one",
            })?),
        };
        if let Some(held) = &held
            && !held.is_due(now_s)
        {
            return Ok(held.clone());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(FileError::Random)?;
        let older = held.into_iter().flat_map(|held| held.secrets);
        let secrets = std::iter::once(secret).chain(older).take(SECRETS).collect();
        let drawn = TicketSecrets { drawn_s: now_s, secrets };
        replace(&path, drawn.to_text().as_bytes()).map_err(|source| FileError::Io { path, source })?;
        Ok(drawn)
    }

    /// Whether the newest has had its day.
    pub(super) fn is_due(&self, now_s: u64) -> bool {
        self.drawn_s.abs_diff(now_s) >= SECRET_AGE_MAX_S
    }

    pub(super) fn keys(&self) -> TicketKeys {
        let (newest, older) = self.secrets.split_first().expect("there is always a newest one");
        TicketKeys::new(*newest, older.to_vec())
    }

    fn parse(text: &str) -> Option<TicketSecrets> {
        let mut words = text.split_ascii_whitespace();
        let drawn_s = words.next()?.parse().ok()?;
        let secrets: Vec<[u8; 32]> =
            words.map(|word| blake3::Hash::from_hex(word).ok().map(Into::into)).collect::<Option<_>>()?;
        (1..=SECRETS).contains(&secrets.len()).then_some(TicketSecrets { drawn_s, secrets })
    }

    fn to_text(&self) -> String {
        let secrets = self.secrets.iter().map(|secret| blake3::Hash::from(*secret).to_hex());
        secrets.fold(format!("{}\n", self.drawn_s), |text, secret| text + &secret + "\n")
    }
}

impl std::fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketSecrets").field("drawn_s", &self.drawn_s).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_serves_a_day_and_is_known_for_two_more() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::new(directory.path());
        data.prepare().unwrap();
        let day = |day: u64| TicketSecrets::load(&data, 1_000_000 + day * SECRET_AGE_MAX_S).unwrap();
        let first = day(0);
        assert_eq!(TicketSecrets::load(&data, 1_000_000 + SECRET_AGE_MAX_S - 1).unwrap(), first);
        let (second, third, fourth) = (day(1), day(2), day(3));
        assert_eq!(second.secrets[1..], first.secrets);
        assert_eq!(third.secrets[1..], second.secrets);
        assert_eq!(fourth.secrets[1..], third.secrets[..2], "the oldest is gone");
        assert_ne!(fourth.secrets[0], third.secrets[0]);
        assert_eq!(day(3), fourth);
        // The clock is set right again after it was a month ahead.
        let ahead = day(30);
        let right = day(4);
        assert_eq!(right.secrets[1..], ahead.secrets[..2]);
        assert_eq!(std::fs::metadata(data.ticket_keys()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::new(directory.path());
        data.prepare().unwrap();
        TicketSecrets::load(&data, 1).unwrap();
        let whole = std::fs::read_to_string(data.ticket_keys()).unwrap();
        for text in ["", "1", "x", &whole[..whole.len() - 2], &whole.repeat(2)] {
            std::fs::write(data.ticket_keys(), text).unwrap();
            let error = TicketSecrets::load(&data, 1).unwrap_err().to_string();
            assert!(error.contains("tickets.key") && error.contains("remove it"), "{error}");
        }
    }
}
