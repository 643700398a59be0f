//! From the bytes of the ring to what people and machines read. Knows no kernel, no /proc and no
//! policy: names come in through [`Names`].
//!
//! ```text
//! bytes -decode-> Record -Correlator-> Told: Event -NamedEvent::new-> NamedEvent -> text line | JSON line | Tally -> table
//!                                      CgroupMigration -NamedMigration::new-> NamedMigration -> text line | JSON line
//! ```

pub mod bound_name;
pub mod clock;
pub mod context;
pub mod correlator;
pub mod decode;
pub mod escape;
pub mod event;
pub mod json;
pub mod loss;
pub mod migration;
pub mod protocol_name;
pub mod record_bytes;
pub mod report_file;
pub mod summary;
pub mod tally;
pub mod target;
pub mod text;

#[cfg(test)]
mod sample;

pub use clock::Clock;
pub use context::{Context, NamedEvent, Names, PolicyNames};
pub use correlator::{Correlator, Source, Told};
pub use decode::{DecodeError, Record, decode, decode_record};
pub use event::Event;
pub use loss::{Gap, LossWatch};
pub use migration::{CgroupMigration, MigratedBy, NamedMigration};
pub use report_file::{ReportError, ReportFile};
pub use summary::{Layout, PolicyCounters, table};
pub use tally::Tally;
pub use target::Target;
