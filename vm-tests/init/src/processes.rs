//! The processes that are killed after a test program.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Which processes belong to a test program.
pub(crate) enum Processes {
    /// All except init, which is PID 1.
    OfMachine,
    /// Those in this cgroup and below.
    OfCgroup(PathBuf),
}

impl Processes {
    /// Creates a cgroup with this name below the cgroup of init.
    ///
    /// # Errors
    /// When init has no cgroup, or a cgroup with this name exists.
    pub(crate) fn below_own_cgroup(name: &str) -> Result<Processes> {
        let own = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
        let own = own.trim_end().strip_prefix("0::/").context("no cgroup of init")?;
        let cgroup = Path::new(CGROUPS).join(own).join(name);
        fs::create_dir(&cgroup).with_context(|| cgroup.display().to_string())?;
        Ok(Processes::OfCgroup(cgroup))
    }

    /// Makes a command one of them when it is started.
    ///
    /// # Errors
    /// When the cgroup was removed.
    pub(crate) fn include(&self, command: &mut Command) -> Result<()> {
        let Processes::OfCgroup(cgroup) = self else {
            return Ok(());
        };
        let path = cgroup.join("cgroup.procs");
        let mut procs = File::options()
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let migrate = move || -> io::Result<()> { procs.write_all(b"0") };
        // SAFETY: between fork and exec only write(2) is called, on a descriptor opened before.
        unsafe { command.pre_exec(migrate) };
        Ok(())
    }

    /// Kills them. Processes that have ended are not an error.
    pub(crate) fn kill(&self) {
        match self {
            // Every process except init itself (kill(2)).
            Processes::OfMachine => drop(kill(Pid::from_raw(-1), Signal::SIGKILL)),
            Processes::OfCgroup(cgroup) => drop(fs::write(cgroup.join("cgroup.kill"), "1")),
        }
    }
}
