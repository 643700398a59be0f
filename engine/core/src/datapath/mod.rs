//! The only module that uses aya: loads programs, puts images live, attaches programs to cgroups and reads the event ring.
//!
//! ```text
//! Features::detect -> load (programs by program_group) -> pinned set -> PinnedDatapath | RunDatapath
//! ```
//! Enforcement is in the kernel: links are pinned, links hold the programs, and programs hold the maps. When this process
//! ends, nothing changes for the processes under a policy.

mod btf;
mod canary;
mod cgroup_programs;
mod error;
mod executable;
mod features;
mod identified;
mod links;
mod load;
mod maps;
mod offsets;
mod pin_directory;
mod pinned_datapath;
mod program;
mod program_group;
mod ring;
mod run_datapath;
mod scope;
mod stop;
mod syscall;
mod task_scopes;
pub mod trial;
mod unix_socket_id;

pub use btf::{Btf, BtfError};
pub use canary::{Calls, Canary};
pub use cgroup_programs::has_programs;
pub use error::{DatapathError, RingError, TableError};
pub use executable::{IdentifyError, identify_process, path_of_process};
pub use features::{Features, Tracer};
pub use identified::Identified;
pub use links::LinkState;
pub use load::WakeUp;
pub use maps::{DedupCounts, LiveImage, Slot};
pub use pinned_datapath::{PinnedDatapath, other_versions};
pub use program_group::{GroupName, GroupSet, disable_words};
pub use ring::EventRing;
pub use run_datapath::{RunDatapath, sweep};
pub use stop::Stop;
