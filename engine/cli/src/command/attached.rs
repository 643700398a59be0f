//! What the commands on attached policies share: opening the state, and failures with hints.

use std::io::Write;

use crate::{Exit, Failure, environment};
use tidegate_core::{
    cgroup::{Hierarchy, HierarchyError},
    control::{Control, ControlError, Holder},
    events::escape::escaped,
    host::Unmet,
};

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

/// The failure for an error of a command on attached policies.
pub fn failed(error: ControlError) -> Failure {
    let exit = match &error {
        ControlError::Name(_) | ControlError::Twice { .. } => Exit::Usage,
        ControlError::Vanished(_) => Exit::Partial,
        _ => Exit::CouldNotRun,
    };
    Failure::by(exit, &error)
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
