//! Who writes to the store, and how that is brought to an end for another process to take it over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Counts those who write; closed, it lets nobody in.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    inside: usize,
}

/// The right to write. Given back when dropped.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// `None`: it is closed.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.enter_or(|| ()).ok()
    }

    /// Where it is closed `otherwise` is done instead, and the gate does not open before that is done.
    pub(super) fn enter_or<T>(self: &Arc<Self>, otherwise: impl FnOnce() -> T) -> Result<Pass, T> {
        let mut state = self.state();
        if state.is_closed {
            return Err(otherwise());
        }
        state.inside += 1;
        Ok(Pass(Arc::clone(self)))
    }

    /// Lets nobody in any more and waits until all are out. `false`: they were not by then, and it is open again.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        state.is_closed = true;
        while state.inside > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.is_closed = false;
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(super) fn open(&self) {
        self.state().is_closed = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state().inside -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_closes_when_the_last_is_out() {
        let gate = Arc::<Gate>::default();
        let pass = gate.enter().unwrap();
        assert!(!gate.close(Instant::now()), "somebody is inside");
        let second = gate.enter().unwrap();
        drop(pass);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close(Instant::now() + Duration::from_secs(60)));
            while gate.enter().is_some() {
                std::thread::yield_now();
            }
            drop(second);
            assert!(closing.join().unwrap());
        });
        assert!(gate.enter().is_none());
        gate.open();
        assert!(gate.enter().is_some());
    }
}
