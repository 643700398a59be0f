//! The only room that imports aya: loads the programs, puts images live, attaches scopes and reads
//! the ring.
//!
//! What enforces lives in the kernel: links are pinned, they hold the programs, and the programs
//! hold the tables. Ending this process changes nothing for the gated ones.

mod attachment;
mod btf;
mod cache;
mod executable;
mod features;
mod gate;
mod identified;
mod links;
mod lsm;
mod migration;
mod pinned;
mod pins;
mod program;
mod ring;
mod run_gate;
mod syscall;
mod tables;
mod task_scopes;
mod tracer;
pub mod trial;
mod unix_socket_id;

pub use attachment::{AttachError, Attachment};
pub use btf::{Btf, BtfError};
pub use executable::{IdentifyError, identify_process};
pub use features::{DISABLE_VARIABLE, Features, is_taken_away};
pub use gate::{Gate, LoadError, RING_BYTES_VARIABLE, WakeUp};
pub use identified::Identified;
pub use links::LinkState;
pub use lsm::lsm_unavailable_reason;
pub use migration::migration_unavailable_reason;
pub use pinned::{DatapathError, PinnedDatapath, other_versions};
pub use pins::{BPFFS_VARIABLE, PinFolder, PinsError};
pub use ring::{EventRing, RingError};
pub use run_gate::{RunGate, RunGateError};
pub use tables::{DedupCounts, LiveImage, Slot, TableError};
pub use tracer::{Probe, tracer_unavailable_reason};

/// Removes the pins that earlier runs of `exec` left behind and whose cgroup is gone, and gives how many;
/// `is_alive` is asked with the cgroup's id. What is attached to a cgroup that lives goes on enforcing.
///
/// # Errors
/// [`DatapathError`].
pub fn sweep(is_alive: impl Fn(u64) -> bool) -> Result<usize, DatapathError> {
    Ok(pins::sweep(&is_alive)? + cache::sweep_links(&is_alive)?)
}
