//! What the commands on standing policies have in common.

use std::{io::Write, path::PathBuf};

use crate::{
    cgroup::{Hierarchy, HierarchyError, Located},
    cli::{Exit, Failure, environment},
    control::{Control, ControlError, Holder},
};

/// Which cgroup is meant.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = false, multiple = false)]
pub struct CgroupArgs {
    /// The cgroup: its path below the root, such as /system.slice/shop.service, or in full
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath, help_heading = "The cgroup")]
    pub cgroup: Option<PathBuf>,

    /// The cgroup of a unit of systemd, such as shop.service, wherever it is in the slices
    #[arg(long, value_name = "NAME", help_heading = "The cgroup")]
    pub unit: Option<String>,

    /// The cgroup that this process is in
    #[arg(long, value_name = "PID", help_heading = "The cgroup")]
    pub pid: Option<u32>,

    /// The root cgroup: every process of this machine, tidegate and your own shell among them
    #[arg(long, help_heading = "The cgroup")]
    pub host: bool,
}

impl CgroupArgs {
    /// The cgroup, if one is named.
    ///
    /// # Errors
    /// When there is none like that, or it is the root and --host does not say so.
    pub fn locate(&self, hierarchy: &Hierarchy) -> Result<Option<Located>, Failure> {
        let located = match (&self.cgroup, &self.unit, self.pid) {
            (Some(path), ..) => Located::by_path(hierarchy, path),
            (_, Some(unit), _) => Located::by_unit(hierarchy, unit),
            (.., Some(pid)) => Located::by_process(hierarchy, pid),
            _ if self.host => Located::by_path(hierarchy, "/".as_ref()),
            _ => return Ok(None),
        };
        let located = located.map_err(|error| Failure::by(Exit::CouldNotRun, &error))?;
        if located.is_root() && !self.host {
            let message = "that is the root cgroup, which holds every process of this machine";
            return Err(Failure::of(Exit::Usage, message).hint(
                "say --host if that is meant; a policy that denies can cut off this machine, so try it with --mode audit first",
            ));
        }
        Ok(Some(located))
    }
}

/// Refuses whoever is not root, in one sentence.
///
/// # Errors
/// That sentence.
pub fn require_root(command: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let message = format!("tidegate {command} needs root: run it with sudo");
    Err(Failure::of(Exit::CouldNotRun, message)
        .hint("policies that stand are pinned where only root may look"))
}

/// The hierarchy of cgroups.
///
/// # Errors
/// When there is none.
pub fn hierarchy() -> Result<Hierarchy, Failure> {
    Hierarchy::find().map_err(|error: HierarchyError| Failure::by(Exit::CouldNotRun, &error))
}

/// Opens what stands, if anything does.
///
/// # Errors
/// As [`Control::open`], and when the caller is not root.
pub fn open(command: &str) -> Result<Option<Control>, Failure> {
    require_root(command)?;
    Control::open(&environment::invocation()?, hierarchy()?, waiting).map_err(failed)
}

/// Tells who is waited for.
pub fn waiting(holder: &Holder) {
    // Where the reader is gone, there is nobody to tell.
    let _ = writeln!(
        anstream::stderr(),
        "tidegate: waiting for process {} ({}) to be done",
        holder.pid,
        holder.command
    );
}

/// The failure of a command on standing policies.
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

/// `NAME` where nothing stands at all.
///
/// # Errors
/// Always.
pub fn nothing_attached<T>(name: &str) -> Result<T, Failure> {
    Err(failed(ControlError::NotAttached {
        name: name.to_owned(),
        attached: Vec::new(),
    }))
}
