//! Why a command was not run under its policies.

use std::io;

use engine_common::limits::MAX_STACKED;
use thiserror::Error;

use crate::{
    cgroup::HierarchyError,
    compile::CompileError,
    datapath::{DatapathError, IdentifyError, RingError, TableError},
    hint::Hint,
    host::{self, Unmet},
    launch::{MissingPrivilege, PlacementError, SignalError, SpawnError, SuperviseError, TransientError},
};

/// The step that failed. Up to [`Spawn`](ExecError::Spawn) the command was not started; after that it may still run, under
/// its policies.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The request has no policy.
    #[error("no policy given")]
    NoPolicy,
    /// The request has more policies than a cgroup.
    #[error("{count} policies, but a cgroup can have at most {MAX_STACKED}")]
    TooManyPolicies {
        /// Number of policies.
        count: usize,
    },
    /// A policy in mode enforce has only the kprobe for a hook.
    #[error("policy {policy} has only the hook kprobe, which cannot deny")]
    OnlyReports {
        /// Origin of the policy.
        policy: String,
    },
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// The cgroup2 hierarchy was not found.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// This process lacks privileges.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// The clock cannot be read.
    #[error("cannot read the clock")]
    Clock(#[source] io::Error),
    /// A policy names a file that cannot be identified.
    #[error(transparent)]
    Identify(#[from] IdentifyError),
    /// A policy does not compile.
    #[error("the policy {policy} cannot be compiled")]
    Compile {
        /// Origin of the policy.
        policy: String,
        /// The reason.
        #[source]
        source: CompileError,
    },
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(DatapathError),
    /// This kernel cannot enforce all of a policy.
    #[error("{}", host::refusal(name, unmet))]
    Partial {
        /// Name of the policy.
        name: String,
        /// Its requirements that are not met.
        unmet: Vec<Unmet>,
    },
    /// The policies cannot be put live.
    #[error(transparent)]
    Install(TableError),
    /// The cgroup manager that was demanded cannot create the command's cgroup.
    #[error("systemd cannot create the cgroup of the command: {0}")]
    Placement(#[from] PlacementError),
    /// The cgroup of the command cannot be created.
    #[error(transparent)]
    Cgroup(#[from] TransientError),
    /// The programs cannot be attached to the cgroup.
    #[error(transparent)]
    Attach(DatapathError),
    /// The event ring cannot be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The command cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The command cannot be waited for.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// The counters cannot be read after the end of the command.
    #[error(transparent)]
    Counters(TableError),
}

impl ExecError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            ExecError::NoPolicy => "no_policy",
            ExecError::TooManyPolicies { .. } => "too_many_policies",
            ExecError::OnlyReports { .. } => "hooks_only_report",
            ExecError::Signals(_) => "signals_unavailable",
            ExecError::Hierarchy(_) => "cgroup_hierarchy_unusable",
            ExecError::Privilege(_) => "privileges_missing",
            ExecError::Clock(_) => "clock_unreadable",
            ExecError::Identify(error) => error.code(),
            ExecError::Compile { .. } => "policy_not_compiled",
            ExecError::Load(error) | ExecError::Attach(error) => error.code(),
            ExecError::Partial { .. } => host::NOT_FULLY_ENFORCEABLE,
            ExecError::Install(error) | ExecError::Counters(error) => error.code(),
            ExecError::Placement(_) => "cgroup_manager_unusable",
            ExecError::Cgroup(_) => "cgroup_not_created",
            ExecError::Ring(error) => error.code(),
            ExecError::Spawn(SpawnError::NotFound { .. }) => "command_not_found",
            ExecError::Spawn(SpawnError::NotExecutable { .. }) => "command_not_executable",
            ExecError::Spawn(_) => "command_not_started",
            ExecError::Supervise(_) => "supervision_failed",
        }
    }
}

impl Hint for ExecError {
    fn hint(&self) -> Option<String> {
        match self {
            ExecError::TooManyPolicies { .. } => Some("merge policies into one file".to_owned()),
            // A file with these hooks and this mode is not a valid policy.
            ExecError::OnlyReports { .. } => {
                Some("remove --mode, or use `hooks: [cgroup, kprobe]` in the policy".to_owned())
            }
            ExecError::Hierarchy(error) => error.hint(),
            ExecError::Privilege(error) => error.hint(),
            ExecError::Identify(error) => error.hint(),
            ExecError::Load(error) | ExecError::Attach(error) => error.hint(),
            ExecError::Cgroup(error) => error.hint(),
            ExecError::Spawn(error) => error.hint(),
            ExecError::Placement(_) => {
                Some("--cgroup-manager cgroupfs creates the cgroup without systemd".to_owned())
            }
            ExecError::Partial { unmet, .. } => Some(host::refusal_hint(unmet)),
            _ => None,
        }
    }
}
