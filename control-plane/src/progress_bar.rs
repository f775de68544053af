//! The progress bar of a transfer, on standard error: how much, how fast, how much longer.

use crate::console::Console;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peer::{Phase, Progress};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// How often the bar is drawn, at most.
const REDRAW: Duration = Duration::from_millis(100);

/// A bar that is drawn only where a person watches: a terminal, and no `--json`.
#[derive(Debug)]
pub struct TransferBar {
    bar: ProgressBar,
}

impl TransferBar {
    /// A bar named `what`.
    pub fn new(console: Console, what: &str) -> TransferBar {
        // indicatif itself keeps silent if standard error is no terminal.
        let target = if console.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {prefix}  {bytes}  {binary_bytes_per_sec}  {msg}"));
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(REDRAW);
        TransferBar { bar }
    }

    /// Where the transfer stands: bytes done, and of how many if that is known.
    pub fn update(&self, bytes: u64, total: Option<u64>) {
        if let Some(total) = total
            && self.bar.length() != Some(total)
        {
            self.bar.set_length(total);
            self.bar.set_style(style(
                "{prefix}  [{wide_bar:.green}] {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}",
            ));
        }
        self.bar.set_position(bytes);
    }

    /// Follows a transfer of the peer library, and waits on when its sender is gone: the transfer's own end
    /// counts.
    pub async fn follow(&self, mut progress: watch::Receiver<Progress>) -> Infallible {
        let mut resumed = 0;
        while progress.changed().await.is_ok() {
            let now = progress.borrow_and_update().clone();
            if now.bytes_resumed > resumed {
                // What was there already says nothing about the rate.
                resumed = now.bytes_resumed;
                self.bar.reset_eta();
            }
            self.update(now.bytes_verified, now.bytes_total);
            let given_up = now.nodes.iter().filter(|node| node.given_up.is_some()).count();
            self.bar.set_message(match (now.phase, given_up) {
                (Phase::Starting, _) => "looking for it".into(),
                (Phase::Resuming, _) => "verifying what is there".into(),
                (Phase::Finishing | Phase::Done, _) => "finishing".into(),
                (Phase::Transferring, 0) => String::new(),
                (Phase::Transferring, n) => format!("{n} of {} nodes given up", now.nodes.len()),
            });
            tokio::time::sleep(REDRAW).await;
        }
        std::future::pending().await
    }
}

/// Takes the bar off the screen; the summary or the failure says the rest.
impl Drop for TransferBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is one of the two above, which are drawn in tests")
}
