//! From a file to segments that may live with strangers, and back: cut, compress, encrypt, code, address. `docs/pipeline.md` tells the rules.
//!
//! - [`Encoder`] takes a file of any length through all stages on all cores, in bounded memory, and gives its shards group by group; at the end
//!   a [`ListBuilder`](crate::list::ListBuilder) that is ready to be signed.
//! - [`SealingKey`] is the key of one publication.
//! - [`SegmentOpener`] makes plain bytes of a verified segment; [`Restorer`] brings lost shards back, without any key.

mod buffers;
mod documents;
mod encoder;
mod input;
mod key;
mod open;
mod parity;
mod restore;
mod sample;
mod segment;
mod settings;

pub use encoder::{EncodeError, Encoded, EncodedGroup, Encoder, Stored};
pub use input::Input;
pub use key::{ConvergenceSecret, SealingKey};
pub use open::{
    OpenError, OpenerError, PlainHashesError, Scratch, SegmentOpener, make_plain_hashes, open_plain_hashes,
};
pub use restore::{GroupShards, RestoreError, Restorer};
pub use settings::{CompressionChoice, Settings, SettingsError};
