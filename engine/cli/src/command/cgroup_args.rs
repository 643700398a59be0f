//! Options that select the cgroup of a command: what a policy is attached to.

use std::path::PathBuf;

use crate::{Exit, Failure};
use tidegate_core::cgroup::{CgroupHandle, Hierarchy};

const CGROUP: &str = "Cgroup options";

/// Options that select a cgroup.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(required = false, multiple = false)]
pub struct CgroupArgs {
    /// Path of the cgroup: from the root cgroup (/system.slice/shop.service) or in full
    /// (/sys/fs/cgroup/system.slice/shop.service)
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath, help_heading = CGROUP)]
    pub cgroup: Option<PathBuf>,

    /// Cgroup of a running systemd unit, such as shop.service, in any slice; `.service` can be omitted
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
    /// The names of its options, for groups and conflicts: a new option is added here and above.
    pub const OPTIONS: [&str; 4] = ["cgroup", "unit", "pid", "host"];

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

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::CgroupArgs;

    #[test]
    fn every_option_is_listed() {
        let command = CgroupArgs::augment_args(clap::Command::new("test"));
        let options: Vec<&str> = command
            .get_arguments()
            .map(|option| option.get_id().as_str())
            .collect();
        assert_eq!(options, CgroupArgs::OPTIONS);
    }
}
