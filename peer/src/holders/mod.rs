//! Who holds what of a list: the list and what it names, and the nodes asked for it. Repair and audit begin here; no
//! record is kept of where shards were placed, for nodes can be asked.

mod catalog;
mod silence;
mod survey;

pub(crate) use self::catalog::{Catalog, Document, DocumentKind};
pub(crate) use self::silence::Silence;
pub(crate) use self::survey::{Depth, Found, Standing, Survey, Surveyed, survey};
