//! Whether a node has fallen silent: who did is waited for once, and not again for each of many questions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backoff::Backoff;
use crate::exchange::ExchangeError;
use crate::node::ConnectError;

/// What is known of one node's silence. Shared by all questions to it.
#[derive(Debug)]
pub(crate) struct Silence {
    stalls_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Questions in a row that moved no byte.
    stalls: u32,
    /// Why the node is not asked any more.
    reason: Option<ExchangeError>,
}

impl Silence {
    pub(crate) fn new(backoff: &Backoff) -> Silence {
        Silence { stalls_max: backoff.failures_max.max(1), state: Mutex::default() }
    }

    /// Why there is no point in asking, if there is none.
    pub(crate) fn reason(&self) -> Option<ExchangeError> {
        self.lock().reason.clone()
    }

    /// It answered, whatever it said.
    pub(crate) fn is_broken(&self) {
        self.lock().stalls = 0;
    }

    /// A question came to nothing. A handshake that nobody answered was tried for as long as one is worth waiting; a
    /// request that stalled may be that request's trouble alone, so it takes several.
    pub(crate) fn note(&self, error: &ExchangeError) {
        let mut state = self.lock();
        let is_silent = match error {
            ExchangeError::Connect(ConnectError::Timeout { .. }) => true,
            ExchangeError::Stalled { .. } => {
                state.stalls += 1;
                state.stalls >= self.stalls_max
            }
            ExchangeError::Connect(_) | ExchangeError::Lost { .. } | ExchangeError::Truncated { .. } => false,
            _ => {
                state.stalls = 0;
                false
            }
        };
        if is_silent {
            state.reason.get_or_insert_with(|| error.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a locked section can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
