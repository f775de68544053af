//! What `ioex up` tells the service manager that started it, as sd_notify(3) says: when it is ready, when it reads its configuration
//! again, when it stops and how long that may take. Without a manager (no `NOTIFY_SOCKET`) nothing is sent.

use sd_notify::NotifyState;
use std::time::Duration;

/// What of a stop is not the drain: friends are told, files are closed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The node serves; `status` is a line for `systemctl status`.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(first_line(status))]);
}

/// The configuration is read again; [`reloaded`] must follow.
pub fn reloading() {
    // systemd from 253 on wants the time beside it, to tell this reload from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no time for the service manager"),
    }
}

/// It was read, and the last [`status`] says what came of it.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// What has happened, in a line.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(first_line(text))]);
}

/// The node stops, and its engine may take as long as `drain` for that, whatever the manager's own patience is.
pub fn stopping(drain: Duration) {
    let microseconds = u32::try_from((drain + STOP_GRACE).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// A manager that does not listen is no reason to serve nobody.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// A line end would begin another assignment.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
