//! Running one command inside a transient cgroup: identity, isolation, spawning and supervision.
//! Knows no policy; whoever gates the cgroup does so between [`TransientCgroup::create`] and
//! [`Command::spawn`].
//!
//! The order that loses no signal and leaves nothing behind:
//!
//! ```text
//! SignalSource::open -> Hierarchy::find -> TransientCgroup::create -> (gate it)
//!   -> Command::spawn -> Supervisor::run -> (report) -> TransientCgroup::remove
//! ```

mod capability;
mod child;
mod cleanup;
mod command;
mod descendants;
mod environment;
mod identity;
mod isolation;
mod member;
mod requirement;
mod signal;
mod spawn;
mod supervise;
mod terminal;
mod transient;

pub use capability::{Capability, CapabilitySet, DANGEROUS, UnknownCapability};
pub use cleanup::sweep_stale;
pub use command::{Command, KeepFds};
pub use descendants::{Descendants, Leftover};
pub use environment::{Environment, EnvironmentChange};
pub use identity::{IdentityError, TargetUser};
pub use isolation::IsolationError;
pub use member::kill_in;
pub use requirement::{Needs, Unmet};
pub use signal::{SignalError, SignalSource};
pub use spawn::{Child, SpawnError, Step};
pub use supervise::{Exit, Finished, SuperviseError, Supervisor, Watch};
pub use transient::{TransientCgroup, TransientError};
