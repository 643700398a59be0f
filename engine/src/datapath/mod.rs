//! The only room that imports aya: loads the programs, puts images live, attaches scopes and reads
//! the ring.
//!
//! What enforces lives in the kernel: links are pinned, they hold the programs, and the programs
//! hold the tables. Ending this process changes nothing for the gated ones.

mod attachment;
mod btf;
mod executable;
mod features;
mod gate;
mod pins;
mod ring;
mod syscall;

pub use attachment::{AttachError, Attachment};
pub use btf::{Btf, BtfError};
pub use executable::{IdentifiedExecutables, IdentifyError};
pub use features::{DISABLE_VARIABLE, Features};
pub use gate::{Gate, LoadError, RING_BYTES_VARIABLE, Slot, TableError};
pub use pins::{BPFFS_VARIABLE, PinFolder, PinsError, sweep};
pub use ring::{EventRing, RingError};
