//! Running one command in a transient cgroup: identity, isolation, spawning and supervision.
//! Independent of policies: the caller attaches them between [`TransientCgroup::create_at`] and
//! [`Command::spawn`]. Reads no environment variables: the caller hands in an [`Environment`].
//!
//! This order loses no signal and leaves nothing behind:
//!
//! ```text
//! SignalSource::open -> Hierarchy::find -> Placement::choose -> TransientCgroup::create_at -> (attach policies)
//!   -> Command::spawn -> Supervisor::run -> (report) -> TransientCgroup::remove
//! ```

mod capability;
mod cgroup_events;
mod cgroup_signal;
mod child;
mod cleanup;
mod command;
mod environment;
mod isolation;
mod orphans;
mod placement;
mod privilege;
#[cfg(feature = "systemd")]
mod scope_unit;
mod signal_source;
mod spawn;
mod supervise;
mod target_user;
mod terminal;
mod transient_cgroup;

pub use capability::{Capability, CapabilitySet, DANGEROUS, UnknownCapability};
pub use cgroup_signal::kill_in;
pub use cleanup::sweep_stale;
pub use command::{Command, KeepFds};
pub use environment::{Environment, EnvironmentChange};
pub use isolation::IsolationError;
pub use orphans::{OrphanAction, OrphanOutcome};
pub use placement::{CgroupManager, Placement, PlacementError, Slice};
pub use privilege::{MissingPrivilege, RequiredPrivileges};
#[cfg(feature = "systemd")]
pub use scope_unit::ScopeError;
pub use signal_source::{SignalError, SignalSource};
pub use spawn::{Child, SpawnError, Step};
pub use supervise::{Exit, Finished, SuperviseError, Supervisor, Watch};
pub use target_user::{IdentityError, TargetUser};
pub use transient_cgroup::{TransientCgroup, TransientError};
