//! What `ioex top` shows: [`Look`] asks a running node how it is, [`Picture`] says what has changed between two looks (pure), and
//! [`draw`] lays that out (pure).

mod look;
mod numbers;
mod picture;
mod view;

pub use look::{Look, look};
pub use picture::Picture;
pub use view::{draw, height};
