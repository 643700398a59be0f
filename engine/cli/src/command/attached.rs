//! What the commands on attached policies share: the cgroup options, opening the state, and hints for errors.

use std::{io::Write, path::PathBuf};

use crate::{Exit, Failure, environment};
use tidegate_core::{
    cgroup::{CgroupHandle, Hierarchy, HierarchyError},
    control::{Control, ControlError, Holder},
    events::escape::escaped,
    host::Unmet,
};

const CGROUP: &str = "Cgroup options";

/// Options that select a cgroup.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = false, multiple = false)]
pub struct CgroupArgs {
    /// Path of the cgroup, below the root cgroup (/system.slice/shop.service) or absolute
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath, help_heading = CGROUP)]
    pub cgroup: Option<PathBuf>,

    /// Cgroup of a systemd unit, such as shop.service, in any slice
    #[arg(long, value_name = "NAME", help_heading = CGROUP)]
    pub unit: Option<String>,

    /// Cgroup of a process
    #[arg(long, value_name = "PID", help_heading = CGROUP)]
    pub pid: Option<u32>,

    /// Root cgroup: all processes of this machine, including your shell and tidegate
    #[arg(long, help_heading = CGROUP)]
    pub host: bool,
}

impl CgroupArgs {
    /// The selected cgroup; `None` when no option was given.
    ///
    /// # Errors
    /// When it does not exist, or is the root cgroup and --host was not given.
    pub fn locate(&self, hierarchy: &Hierarchy) -> Result<Option<CgroupHandle>, Failure> {
        let located = match (&self.cgroup, &self.unit, self.pid) {
            (Some(path), ..) => CgroupHandle::by_path(hierarchy, path),
            (_, Some(unit), _) => CgroupHandle::by_unit(hierarchy, unit),
            (.., Some(pid)) => CgroupHandle::by_process(hierarchy, pid),
            _ if self.host => CgroupHandle::by_path(hierarchy, "/".as_ref()),
            _ => return Ok(None),
        };
        let located = located.map_err(|error| Failure::by(Exit::CouldNotRun, &error))?;
        if located.is_root() && !self.host {
            let message = "this is the root cgroup, which contains all processes of this machine";
            return Err(Failure::of(Exit::Usage, message).hint(
                "use --host to select it; a policy that denies can disconnect this machine, so try --mode audit first",
            ));
        }
        Ok(Some(located))
    }
}

/// Checks that the command runs as root.
///
/// # Errors
/// When it does not.
pub fn require_root(command: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let message = format!("tidegate {command} needs root");
    Err(Failure::of(Exit::CouldNotRun, message).hint("run it with sudo"))
}

/// The cgroup v2 hierarchy.
///
/// # Errors
/// When none is mounted.
pub fn hierarchy() -> Result<Hierarchy, Failure> {
    Hierarchy::find().map_err(|error: HierarchyError| Failure::by(Exit::CouldNotRun, &error))
}

/// Opens the attached policies; `None` when nothing is attached.
///
/// # Errors
/// As [`Control::open`], and when the command does not run as root.
pub fn open(command: &str) -> Result<Option<Control>, Failure> {
    require_root(command)?;
    Control::open(&environment::invocation()?, hierarchy()?, waiting).map_err(failed)
}

/// Prints which process holds the lock that this command waits for.
pub fn waiting(holder: &Holder) {
    // A closed standard error does not stop the command.
    let _ = writeln!(
        anstream::stderr(),
        "tidegate: waiting for process {} ({}) to release the lock",
        holder.pid,
        holder.command
    );
}

/// The failure for an error of a command on attached policies, with a hint.
pub fn failed(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Name(_) | ControlError::Twice { .. } => Exit::Usage,
        ControlError::Vanished(_) => Exit::Partial,
        _ => Exit::CouldNotRun,
    };
    let failure = Failure::by(exit, &error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The error for a policy name when no policies are attached.
///
/// # Errors
/// Always.
pub fn nothing_attached<T>(name: &str) -> Result<T, Failure> {
    Err(failed(ControlError::NotAttached {
        name: name.to_owned(),
        attached: Vec::new(),
    }))
}

/// One line per requirement that is not met.
pub(super) fn partial_lines(unmet: &[Unmet]) -> String {
    unmet
        .iter()
        .map(|one| format!("  partial: {}\n", escaped(one.to_string().as_bytes())))
        .collect()
}
