//! Why a command on standing policies did not do its work.

use std::{io, path::PathBuf};

use engine_common::limits::MAX_STACKED;
use thiserror::Error;

use crate::{
    compile::CompileError,
    datapath::{AttachError, DatapathError, IdentifyError, PinsError, RingError, TableError},
    sockets::DiagError,
};

/// Why a command on standing policies did not do its work. What stood before stands, unless the text
/// says otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The journal, or a folder of it, could not be read or written.
    #[error("cannot {step} {}", path.display())]
    Journal {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the journal is not one of ours.
    #[error("{} is not a record of the journal; `tidegate detach --all` starts over", path.display())]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What the journal names is not in the kernel.
    #[error(
        "nothing is enforced: {} stood, by the journal, and is not in the kernel any more",
        .0.join(", ")
    )]
    Vanished(Vec<String>),
    /// Somebody else reads the events.
    #[error("the events are being read by {}: there is one reader at a time", reader(*pid, command))]
    ReaderBusy {
        /// The reader.
        pid: u32,
        /// What it runs.
        command: String,
    },
    /// Programs or tables of the pinned gate.
    #[error(transparent)]
    Gate(#[from] DatapathError),
    /// There is no place for pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Another version of tidegate has policies standing.
    #[error(
        "policies of another version of tidegate stand ({}): take them away with that version's `tidegate detach --all`",
        .0.display()
    )]
    OtherVersion(PathBuf),
    /// The programs could not be attached.
    #[error("cannot attach to the cgroup {cgroup}")]
    Attach {
        /// Its path.
        cgroup: String,
        /// Why.
        #[source]
        source: Box<AttachError>,
    },
    /// The scope of a cgroup could not be read or written.
    #[error("cannot {step} the policies of the cgroup {cgroup}")]
    Scope {
        /// What was tried.
        step: &'static str,
        /// The cgroup.
        cgroup: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup has as many policies as it can have.
    #[error("the cgroup {cgroup} carries {MAX_STACKED} policies already, which is the most")]
    Stacked {
        /// The cgroup.
        cgroup: String,
    },
    /// The policy does not compile.
    #[error("the policy {name} cannot be compiled")]
    Compile {
        /// The policy.
        name: String,
        /// Why.
        #[source]
        source: CompileError,
    },
    /// A policy names an executable that cannot be identified.
    #[error("the policy {name} names an executable that cannot be identified")]
    Identify {
        /// The policy.
        name: String,
        /// Why.
        #[source]
        source: IdentifyError,
    },
    /// This kernel cannot do what the policy says.
    #[error("the policy {name} cannot be enforced fully here: {}", reasons.join("; "))]
    Partial {
        /// The policy.
        name: String,
        /// What is lacking.
        reasons: Vec<String>,
    },
    /// The policy is for a probe alone, and was to act.
    #[error(
        "the policy {name} is for the probe alone (`hooks: [kprobe]`), which only watches: it cannot be in mode enforce"
    )]
    OnlyWatches {
        /// The policy.
        name: String,
    },
    /// Another version of a policy is for other hooks.
    #[error("the policy {name} is for other hooks than the version that stands")]
    OtherHooks {
        /// The policy.
        name: String,
    },
    /// No policy of that name stands.
    #[error("no policy named {name} stands; {}", told(standing))]
    NotAttached {
        /// The name.
        name: String,
        /// Those that do.
        standing: Vec<String>,
    },
    /// A policy of that name stands, and is another one.
    #[error("another version of the policy {name} stands already")]
    Different {
        /// The name.
        name: String,
    },
    /// A policy of that name stands in another mode than the one asked for.
    #[error("the policy {name} stands already, in mode {live}")]
    OtherMode {
        /// The name.
        name: String,
        /// Its mode.
        live: &'static str,
    },
    /// Several policies of one command have the same name.
    #[error(
        "two of the policies are named {name}; give one of them another name (--name, or a third word in its line of a batch), or attach it to the other cgroup by a command of its own"
    )]
    Twice {
        /// The name.
        name: String,
    },
    /// The policy does not stand on that cgroup.
    #[error("the policy {name} does not stand on the cgroup {cgroup}")]
    NotThere {
        /// The policy.
        name: String,
        /// The cgroup.
        cgroup: String,
    },
    /// Sockets that exist cannot be found, or not be ended, on this kernel.
    #[error("sockets that exist cannot be found and ended here, so nothing was attached")]
    Existing(#[source] DiagError),
    /// A name that no record can have.
    #[error("`{0}` cannot be the name of a policy: it has 1 to 63 letters, digits, `.`, `-` or `_`")]
    Name(String),
}

fn reader(pid: u32, command: &str) -> String {
    match pid {
        // It has not yet said who it is.
        0 => "another process".to_owned(),
        pid => format!("process {pid} ({command})"),
    }
}

fn told(standing: &[String]) -> String {
    match standing {
        [] => "nothing stands".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    }
}
