//! The records that the kernel programs write into the ring buffer, one kind per file. Each begins with a
//! [`RecordHeader`].
//!
//! Little endian, as all targets are; no padding. Fields are plain integers: the reader rejects values that
//! it does not know (`events::decode` in the engine).

mod attempt;
mod header;
mod local_address;
mod migration;
mod unix;

pub use attempt::{AttemptRecord, attempt_flag, reason};
pub use header::{RecordHeader, RecordKind};
pub use local_address::{LocalAddressRecord, MAX_PENDING_LOCAL_ADDRESSES};
pub use migration::{MigrationRecord, migration_flag};
pub use unix::UnixRecord;

/// Period after which a reader polls the ring buffer, milliseconds: records of allowed attempts do not
/// wake it.
pub const READER_PERIOD_MS: u64 = 100;

/// Causes of loss: indexes of the loss counters.
pub mod loss {
    /// The ring buffer was full.
    pub const RING_FULL: u32 = 0;
    /// Number of causes.
    pub const COUNT: u32 = 1;
}
