//! From the bytes of the ring to what people and machines read. Knows no kernel, no /proc and no
//! policy: names come in through [`Names`].
//!
//! ```text
//! bytes -decode-> Record -Join-> Told: Event -NamedEvent::new-> NamedEvent -> text line | JSON line | Tally -> table
//!                                      Departure -NamedDeparture::new-> NamedDeparture -> text line | JSON line
//! ```

pub mod bound_name;
pub mod clock;
pub mod context;
pub mod decode;
pub mod departure;
pub mod escape;
pub mod event;
pub mod join;
pub mod json;
pub mod loss;
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
pub use decode::{DecodeError, Record, decode, decode_record};
pub use departure::{Departure, Mover, NamedDeparture};
pub use event::Event;
pub use join::{Join, Source, Told};
pub use loss::{Gap, LossWatch};
pub use report_file::{ReportError, ReportFile};
pub use summary::{Layout, PolicyCounters, table};
pub use tally::Tally;
pub use target::Target;
