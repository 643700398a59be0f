//! The supervisor process: starts the measuring process and cleans up after it, however it ends.
//!
//! Pins are on a BPF file system in the mount namespace of the measuring process and are removed with it, like its
//! network namespaces. The supervisor removes the cgroups.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self, Command, ExitStatus},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigHandler, Signal, signal},
    },
};
use tidegate_core::{cgroup::Hierarchy, instance::BPFFS_VARIABLE};

use crate::cgroup;

/// Passes the cgroup to the measuring process.
const CGROUPS: &str = "TIDEGATE_BENCH_CGROUPS";
/// Passes the directory of files to it.
const FILES: &str = "TIDEGATE_BENCH_FILES";
/// Prefix of directory names; the process id of the supervisor follows.
const PREFIX: &str = "tidegate-bench-";

/// The directories of the measuring process.
pub(crate) struct WorkDirs {
    /// A cgroup that contains all others.
    pub(crate) cgroups: PathBuf,
    /// A directory for policies and address files.
    pub(crate) files: PathBuf,
}

/// Runs this program again as the measuring process, and removes what it leaves behind.
pub(crate) fn supervise() -> Result<ExitStatus> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark needs root: run it by `cargo xtask bench`"
    );
    let hierarchy = Hierarchy::find()?;
    let above = hierarchy.own_cgroup();
    sweep(&above, cgroup::clear);
    sweep(&env::temp_dir(), |dir| fs::remove_dir_all(dir));
    let cgroups = above.join(format!("{PREFIX}{}", process::id()));
    let files = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", process::id()))
        .tempdir()
        .context("cannot create a directory for files")?;
    fs::create_dir(&cgroups).with_context(|| format!("cannot create the cgroup {}", cgroups.display()))?;
    let ended = run_inside(&cgroups, files.path());
    if let Err(error) = cgroup::clear(&cgroups) {
        eprintln!("bench: failed to remove: {}: {error}", cgroups.display());
    }
    ended
}

fn run_inside(cgroups: &Path, files: &Path) -> Result<ExitStatus> {
    let bpffs = files.join("bpf");
    fs::create_dir(&bpffs)?;
    let mut inside = Command::new(env::current_exe()?);
    inside
        .args(env::args_os().skip(1))
        .env(CGROUPS, cgroups)
        .env(FILES, files)
        .env(BPFFS_VARIABLE, bpffs);
    for variable in ["SUDO_USER", "SUDO_UID", "SUDO_GID"] {
        inside.env_remove(variable);
    }
    let mut child = inside.spawn().context("failed to start the measuring process")?;
    // SIGINT from the terminal reaches both processes; the supervisor ignores it to clean up.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    Ok(child.wait()?)
}

/// Removes what killed supervisors left behind.
fn sweep(above: &Path, remove: impl Fn(&Path) -> io::Result<()>) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let supervisor = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let supervisor = supervisor.and_then(|supervisor| supervisor.split('-').next());
        let is_dead = supervisor.is_some_and(|supervisor| !Path::new("/proc").join(supervisor).exists());
        if is_dead && let Err(error) = remove(&entry.path()) {
            eprintln!("bench: failed to remove: {}: {error}", entry.path().display());
        }
    }
}

/// The directories if this is the measuring process; it then enters its own mount namespace and cgroup.
pub(crate) fn inside() -> Result<Option<WorkDirs>> {
    let (Some(cgroups), Some(files)) = (env::var_os(CGROUPS), env::var_os(FILES)) else {
        return Ok(None);
    };
    let work_dirs = WorkDirs {
        cgroups: cgroups.into(),
        files: files.into(),
    };
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWNS).context("failed to create a mount namespace")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    let bpffs = env::var_os(BPFFS_VARIABLE).context("no directory for pins")?;
    mount(
        Some("bpf"),
        bpffs.as_os_str(),
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=700"),
    )
    .context("failed to mount a BPF file system")?;
    // A process in the parent cgroup would prevent controllers in the children.
    let home = work_dirs.cgroups.join("home");
    fs::create_dir(&home)?;
    cgroup::enter(&home)?;
    Ok(Some(work_dirs))
}

impl WorkDirs {
    /// Migrates this process back to its own cgroup.
    pub(crate) fn enter_home_cgroup(&self) -> Result<()> {
        cgroup::enter(&self.cgroups.join("home"))
    }
}
