//! The session of one command under policies: everything between the policies and the exit code.
//!
//! ```text
//! ExecRequest -> Session::open (check policies, block signals, find the hierarchy, check privileges)
//!   -> Session::run (compile, load, unmet requirements, transient cgroup, attach, spawn, supervise, counters, clean up)
//!   -> ExecOutcome
//! ```
//!
//! Every item of the event stream goes to an [`EventSink`] while the command runs. This module prints nothing; the
//! instance, the environment of the command and the clock are handed in.

mod error;
mod live_policies;
mod session;
mod stream;

use std::{path::PathBuf, time::Duration};

use crate::{
    events::{PolicyCounters, Skipped},
    host::PolicyUnmet,
    launch::{CgroupManager, Command, Finished, OrphanAction},
    policy::Policy,
};

pub use error::ExecError;
pub use session::Session;
pub use stream::EventSink;

/// A command, and what it runs under.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// All of them are evaluated, and the strictest verdict is enforced: 1 to
    /// [`MAX_STACKED`](engine_common::limits::MAX_STACKED).
    pub policies: Vec<ExecPolicy>,
    /// The command.
    pub command: Command,
    /// What to do with processes that outlive it.
    pub orphans: OrphanAction,
    /// Whether a policy is accepted that this kernel cannot fully enforce.
    pub best_effort: bool,
    /// What creates its cgroup.
    pub cgroup_manager: CgroupManager,
}

/// A policy of a command.
#[derive(Clone, Debug)]
pub struct ExecPolicy {
    /// The policy. Its mode must be one that its hooks support.
    pub policy: Policy,
    /// Its origin, as messages name it: a file, `<stdin>` or `command line`.
    pub source: String,
}

/// The result, when the command has ended.
#[derive(Clone, Debug)]
pub struct ExecOutcome {
    /// How it ended, and what happened to the processes that outlived it.
    pub finished: Finished,
    /// Time from just before its start to its end, in CLOCK_BOOTTIME.
    pub duration: Duration,
    /// The counters of each policy, in the order of the request.
    pub counters: Vec<PolicyCounters>,
    /// Duplicate events that were suppressed and that no event has reported.
    pub suppressed_pending: u64,
    /// Records that could not be read: the loaded programs are of another version.
    pub skipped: Skipped,
    /// Path of the cgroup, if processes are left in it.
    pub kept: Option<PathBuf>,
    /// What this kernel does not enforce.
    pub unmet: Vec<PolicyUnmet>,
}
