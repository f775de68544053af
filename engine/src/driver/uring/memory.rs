//! The memory that the kernel reads while operations are in flight.

use super::setup::RingError;
use crate::driver::buffers::Pool;
use crate::driver::intake::Intake;
use crate::driver::transmit::{SEND_BUFFER_STRIDE, Transmit};

/// Send buffers: those of one submission, and some for sockets whose send buffer is full.
pub const SEND_BUFFERS: u16 = 16;

/// What the kernel reads while operations are in flight. None of it moves before `Drop`.
pub struct Memory {
    /// What is received.
    pub intake: Intake,
    /// What is sent.
    pub send_pool: Pool,
    /// How it is sent: one header a send buffer.
    pub transmits: Box<[Transmit]>,
}

impl Memory {
    /// Maps it.
    ///
    /// # Errors
    /// [`RingError`] when memory runs out.
    pub fn new() -> Result<Self, RingError> {
        let resources = |source| RingError::Resources { source };
        let intake = Intake::new().map_err(resources)?;
        let send_pool = Pool::new(SEND_BUFFERS, SEND_BUFFER_STRIDE).map_err(resources)?;
        let transmits = (0..SEND_BUFFERS).map(|_| Transmit::new()).collect();
        Ok(Self { intake, send_pool, transmits })
    }
}
