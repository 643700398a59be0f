//! From the bytes of the ring buffer to the output for users and programs. It does not access the kernel, /proc or
//! policies: names are resolved by [`Names`].
//!
//! ```text
//! bytes -decode-> Record -Correlator-> Item -Pipeline-> StreamItem: NamedEvent      -> text | JSON | Tally -> table
//!                                                                   NamedMigration  -> text | JSON
//!                                                                   Lost            -> text | JSON
//! ```

pub mod bound_name;
pub mod clock;
pub mod correlator;
pub mod decode;
pub mod escape;
pub mod event;
pub mod json;
pub mod local_address;
pub mod loss;
pub mod migration;
pub mod names;
pub mod pipeline;
pub mod record_bytes;
pub mod report_file;
pub mod summary;
pub mod tally;
pub mod target;
pub mod text;

#[cfg(test)]
pub(crate) mod test_records;

pub use clock::{Clock, ClockSource, SystemClocks};
pub use correlator::{Correlator, Item};
pub use decode::{DecodeError, Record, decode};
pub use event::Event;
pub use local_address::LocalAddress;
pub use loss::{LossCause, LossWatch, Lost};
pub use migration::{CgroupMigration, MigratedBy, NamedMigration};
pub use names::{Context, NamedEvent, Names, PolicyNames};
pub use pipeline::{LateKill, Pipeline, Skipped, StreamItem};
pub use report_file::{ReportError, ReportFile};
pub use summary::{Layout, PolicyCounters, table};
pub use tally::Tally;
pub use target::Target;
