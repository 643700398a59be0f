//! The systemd of a dedicated machine (row 6.12-systemd of the kernel matrix): its units and their cgroups.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::unistd::Pid;

use crate::{
    cgroup::wait_until_removed,
    kernel::is_dedicated_machine,
    mount_table::mount_of,
    requirement::{Need, met},
    running_command::RunningCommand,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One test at a time: there is only one systemd, and a policy on a slice applies to the tests of others.
static SYSTEMD: Mutex<()> = Mutex::new(());

/// Lets a test use systemd, alone; prints what is missing if it cannot.
pub fn ready(test: &str) -> Option<MutexGuard<'static, ()>> {
    let booted = Path::new("/run/systemd/system").is_dir() && is_dedicated_machine();
    let needed = "systemd is not PID 1 of a machine for these tests (`cargo xtask vm --kernel 6.12-systemd`)";
    met(test, &[Need::Root, Need::Kernel(booted, needed)])
        .then(|| SYSTEMD.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs `systemctl` and returns its standard output.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn systemctl(args: &[&str]) -> String {
    let output = RunningCommand::run(Command::new("systemctl").args(args));
    output.expect_code(0);
    output.stdout
}

/// A property of a unit; of one that does not exist, the default.
///
/// # Panics
/// When systemd does not answer.
#[track_caller]
pub fn property(unit: &str, name: &str) -> String {
    let value = systemctl(&["show", "--property", name, "--value", unit]);
    value.trim_end().to_owned()
}

/// The path of the cgroup of a process, relative to the root cgroup.
///
/// # Panics
/// When the process has ended.
#[track_caller]
pub fn cgroup_of(process: Pid) -> String {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).expect("a running process");
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.expect("a cgroup2 entry").to_owned()
}

/// The directory of a cgroup.
///
/// # Panics
/// When no cgroup2 is mounted.
pub fn directory(cgroup: &str) -> PathBuf {
    let mount = mount_of("cgroup2").expect("a cgroup2 mount");
    mount.join(cgroup.trim_start_matches('/'))
}

/// A transient scope that tidegate asked for.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its unit.
    pub unit: String,
    /// Its cgroup, relative to the root cgroup.
    pub cgroup: String,
}

impl Scope {
    /// The scope whose child cgroup `command` contains this process.
    ///
    /// # Panics
    /// When the process is somewhere else.
    #[track_caller]
    pub fn of(process: Pid) -> Scope {
        let path = cgroup_of(process);
        let cgroup = path.strip_suffix("/command");
        let unit = cgroup.and_then(|cgroup| cgroup.rsplit('/').next());
        match (cgroup, unit) {
            (Some(cgroup), Some(unit)) if unit.starts_with("tidegate-exec-") && unit.ends_with(".scope") => {
                Scope {
                    unit: unit.to_owned(),
                    cgroup: cgroup.to_owned(),
                }
            }
            _ => panic!("{path} is not the cgroup of a command in a scope"),
        }
    }

    /// Waits until its cgroup is removed; then systemd does not know it any more.
    ///
    /// # Panics
    /// When it is not removed in time.
    #[track_caller]
    pub fn wait_until_removed(&self) {
        wait_until_removed(&directory(&self.cgroup));
        assert_eq!(property(&self.unit, "LoadState"), "not-found", "{}", self.unit);
    }
}

/// A transient service that only waits, with a cgroup that its user may change. Dropping it stops it.
pub struct Service {
    unit: String,
    /// Its process.
    pub main: Pid,
    /// Its cgroup, relative to the root cgroup.
    pub cgroup: String,
}

impl Service {
    /// Starts it in a slice, with further properties of the unit (`User=1000`).
    ///
    /// # Panics
    /// When systemd does not start it.
    #[track_caller]
    pub fn start(slice: &str, properties: &[&str]) -> Service {
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        let unit = format!("tidegate-test-{}-{index}.service", process::id());
        let mut run = Command::new("systemd-run");
        run.args(["--quiet", "--collect", "--unit", &unit, "--slice", slice]);
        for property in ["Type=exec", "Delegate=yes"].iter().chain(properties) {
            run.args(["--property", property]);
        }
        RunningCommand::run(run.args(["sleep", "100000"])).expect_code(0);
        let main = property(&unit, "MainPID").parse().expect("a process id");
        Service {
            main: Pid::from_raw(main),
            cgroup: property(&unit, "ControlGroup"),
            unit,
        }
    }

    /// `cgroup.procs` of its cgroup.
    pub fn procs_file(&self) -> PathBuf {
        directory(&self.cgroup).join("cgroup.procs")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Best effort: a failed cleanup does not change the result of the test.
        let _ = Command::new("systemctl").args(["stop", &self.unit]).output();
    }
}
