//! Endpoints that stay far behind what others have proved.

use crate::chain::rpc::{Endpoint, Fault, Lie};

/// How many blocks an endpoint may be behind what is proved before it is said to withhold, or on a branch of its
/// own before it is said to be on another fork. An honest node is a block or two behind.
pub const LAG_BLOCKS_MAX: u64 = 6;

/// In how many rounds in a row it must be.
pub const LAG_ROUNDS_MAX: u32 = 2;

/// In how many rounds in a row an endpoint was far behind.
#[derive(Debug, Default)]
pub(super) struct Lag(u32);

impl Lag {
    /// Ends a round in which blocks up to `tip` are proved. An endpoint that withholds is noted once.
    pub(super) fn judge(&mut self, endpoint: &Endpoint, tip: u64) {
        let Some(said) = endpoint.standing().last_word() else { return };
        if said + LAG_BLOCKS_MAX >= tip {
            self.0 = 0;
            return;
        }
        self.0 = self.0.saturating_add(1);
        if self.0 == LAG_ROUNDS_MAX {
            let detail = format!("it says that its last block is {said}, others have proved {tip}");
            endpoint.note(&Fault::lie(Lie::WithheldHeaders, detail));
        }
    }
}
