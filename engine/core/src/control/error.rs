//! Errors of changes and queries of attached policies.

use std::{io, path::PathBuf};

use engine_common::{Mode, limits::MAX_STACKED};
use thiserror::Error;

use crate::{
    compile::CompileError,
    datapath::{DatapathError, IdentifyError, RingError, TableError},
    hint::Hint,
    host::{self, Unmet},
    sockets::DiagError,
};

/// Why a change failed. What was attached before stays attached, unless the text says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A file of the journal or of the desired state, or its directory, could not be read or written.
    #[error("cannot {step} {}", path.display())]
    Journal {
        /// What was tried.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A file of the journal or of the desired state is not a record.
    #[error("{} is not a valid record of an attached policy", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// A record has a format that this version does not know.
    #[error(
        "{} has format version {found}; this version of tidegate supports format version {supported}",
        path.display()
    )]
    RecordVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that is supported.
        supported: u32,
    },
    /// The stored text of a policy is no longer a valid policy.
    #[error("policy {name} cannot be loaded again from its stored text: {reason}")]
    Reload {
        /// The policy.
        name: String,
        /// The first error of the text.
        reason: String,
    },
    /// The journal names policies, and there are no pinned programs.
    #[error("{}; nothing is enforced", vanished(.0))]
    Vanished(Vec<String>),
    /// Another process reads the events.
    #[error("event stream already in use by {}", reader(*pid, command))]
    ReaderBusy {
        /// Its process id; 0 where it is not known yet.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// Pinned programs or maps could not be loaded, opened or removed.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A map could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The event ring could not be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Another version of tidegate has policies attached.
    #[error("another version of tidegate has policies attached ({})", .0.display())]
    OtherVersion(PathBuf),
    /// Programs could not be attached.
    #[error("cannot attach to the cgroup {cgroup}")]
    Attach {
        /// Path of the cgroup.
        cgroup: String,
        /// The reason.
        #[source]
        source: Box<DatapathError>,
    },
    /// The list of policies of a cgroup could not be read or written.
    #[error("cannot {step} the policies of the cgroup {cgroup}")]
    Scope {
        /// `read` or `write`.
        step: &'static str,
        /// Path or id of the cgroup.
        cgroup: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The cgroup has the maximum number of policies.
    #[error("the cgroup {cgroup} already has {MAX_STACKED} policies, which is the maximum")]
    Stacked {
        /// Path of the cgroup.
        cgroup: String,
    },
    /// The policy does not compile.
    #[error("cannot compile policy {name}")]
    Compile {
        /// The policy.
        name: String,
        /// The reason.
        #[source]
        source: CompileError,
    },
    /// The policy names an executable that cannot be identified.
    #[error("policy {name} names an executable that cannot be identified")]
    Identify {
        /// The policy.
        name: String,
        /// The reason.
        #[source]
        source: IdentifyError,
    },
    /// This kernel cannot enforce all of the policy.
    #[error("{}", host::refusal(name, unmet))]
    Partial {
        /// The policy.
        name: String,
        /// The requirements that it does not meet.
        unmet: Vec<Unmet>,
    },
    /// The policy has only the tracer for a hook, and was to enforce.
    #[error(
        "policy {name} uses only the hook `kprobe`, which reports and cannot deny: it cannot be in mode enforce"
    )]
    OnlyReports {
        /// The policy.
        name: String,
    },
    /// The new version of a policy uses other hooks than the attached one.
    #[error("policy {name}: the new version uses other hooks than the attached version")]
    OtherHooks {
        /// The policy.
        name: String,
    },
    /// No policy of that name is attached.
    #[error("no policy named {name} is attached; {}", names(attached))]
    NotAttached {
        /// The name.
        name: String,
        /// Names of the attached policies.
        attached: Vec<String>,
    },
    /// A different policy of that name is attached.
    #[error("a different version of policy {name} is already attached")]
    Different {
        /// The name.
        name: String,
    },
    /// The policy is attached in another mode than the requested one.
    #[error("policy {name} is already attached in mode {}", live.as_str())]
    OtherMode {
        /// The name.
        name: String,
        /// Its mode.
        live: Mode,
    },
    /// Several policies of one command have the same name.
    #[error("two of the policies are named {name}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The policy is not attached to that cgroup.
    #[error("policy {name} is not attached to the cgroup {cgroup}")]
    NotAttachedToCgroup {
        /// The policy.
        name: String,
        /// Path of the cgroup.
        cgroup: String,
    },
    /// Existing sockets cannot be listed or destroyed on this kernel.
    #[error("existing sockets cannot be listed or destroyed on this kernel; nothing was attached")]
    Existing(#[source] DiagError),
    /// A name that a policy cannot be attached under.
    #[error("invalid policy name `{0}`: must be 1 to 63 letters, digits, `.`, `-` or `_`")]
    Name(String),
}

impl ControlError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            ControlError::Journal { .. } => "journal_io",
            ControlError::Record { .. } => "record_invalid",
            ControlError::RecordVersion { .. } => "record_version_unsupported",
            ControlError::Reload { .. } => "stored_policy_invalid",
            ControlError::Vanished(_) => "programs_vanished",
            ControlError::ReaderBusy { .. } => "event_stream_in_use",
            ControlError::Datapath(error) => error.code(),
            ControlError::Table(error) => error.code(),
            ControlError::Ring(error) => error.code(),
            ControlError::OtherVersion(_) => "other_version_attached",
            ControlError::Attach { source, .. } => source.code(),
            ControlError::Scope { .. } => "scope_failed",
            ControlError::Stacked { .. } => "too_many_policies",
            ControlError::Compile { .. } => "policy_not_compiled",
            ControlError::Identify { source, .. } => source.code(),
            ControlError::Partial { .. } => host::NOT_FULLY_ENFORCEABLE,
            ControlError::OnlyReports { .. } => "hooks_only_report",
            ControlError::OtherHooks { .. } => "hooks_differ",
            ControlError::NotAttached { .. } => "not_attached",
            ControlError::Different { .. } => "policy_differs",
            ControlError::OtherMode { .. } => "mode_differs",
            ControlError::Twice { .. } => "duplicate_name",
            ControlError::NotAttachedToCgroup { .. } => "not_attached_to_cgroup",
            ControlError::Existing(_) => "existing_sockets_unavailable",
            ControlError::Name(_) => "invalid_name",
        }
    }
}

impl Hint for ControlError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            ControlError::Record { .. } => {
                "`tidegate detach --all` removes all policies and their records".to_owned()
            }
            ControlError::RecordVersion { .. } => {
                "use the version of tidegate that wrote it; `tidegate detach --all` removes all policies and their records"
                    .to_owned()
            }
            ControlError::Reload { name, .. } => {
                format!("`tidegate policy show {name} --text` prints the text; apply a valid version")
            }
            ControlError::Vanished(_) => {
                "the pins were removed: attach the policies again, or remove their records with `tidegate detach --all`"
                    .to_owned()
            }
            ControlError::ReaderBusy { .. } => {
                "end that process first; events that it has read are not available to others".to_owned()
            }
            ControlError::OtherVersion(_) => {
                "with that version, save their texts (`tidegate policy show NAME --text`), then run `tidegate detach --all`"
                    .to_owned()
            }
            ControlError::Partial { unmet, .. } => host::refusal_hint(unmet),
            ControlError::OnlyReports { .. } => {
                "add the hooks of the cgroup (`hooks: [cgroup, kprobe]`), or leave `hooks` out".to_owned()
            }
            ControlError::OtherHooks { name } => {
                format!("run `tidegate detach {name}`, then attach the new version")
            }
            ControlError::Different { name } => format!(
                "replace it with `tidegate apply -f FILE` (add --name {name} if the file has another name), or attach yours \
                 under another name with --name"
            ),
            ControlError::OtherMode { name, live } => {
                let other = match live {
                    Mode::Audit => Mode::Enforce,
                    Mode::Enforce => Mode::Audit,
                };
                format!(
                    "a policy has one mode on all its cgroups: leave --mode out, or run `tidegate set-mode {name} {}` first",
                    other.as_str()
                )
            }
            ControlError::Twice { .. } => {
                "give one of them another name with --name, or attach them with separate commands".to_owned()
            }
            ControlError::Existing(_) => {
                "`modprobe -a tcp_diag udp_diag` loads the missing modules, if this kernel has them; --existing allow \
                 attaches without looking at existing sockets"
                    .to_owned()
            }
            ControlError::Datapath(error) => return error.hint(),
            ControlError::Attach { source, .. } => return source.hint(),
            ControlError::Identify { source, .. } => return source.hint(),
            _ => return None,
        };
        Some(text)
    }
}

fn vanished(names: &[String]) -> String {
    match names {
        [name] => format!("policy {name} is recorded as attached but its pinned programs are gone"),
        names => format!(
            "policies {} are recorded as attached but their pinned programs are gone",
            names.join(", ")
        ),
    }
}

fn reader(pid: u32, command: &str) -> String {
    match pid {
        // It holds the lock and has not yet written who it is.
        0 => "another process".to_owned(),
        pid => format!("process {pid} ({command})"),
    }
}

fn names(attached: &[String]) -> String {
    match attached {
        [] => "no policies attached".to_owned(),
        names => format!("attached: {}", names.join(", ")),
    }
}
