//! The process that stands outside: it starts the one that measures, and cleans up however that ends.
//!
//! Pins live on a BPF file system in the measuring process's own mount namespace, and go with it; networks
//! likewise. Cgroups are the keeper's to remove.

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
use tidegate::{cgroup::Hierarchy, datapath::BPFFS_VARIABLE};

use crate::cgroup;

/// Names the folder of cgroups to the process inside.
const CGROUPS: &str = "TIDEGATE_BENCH_CGROUPS";
/// Names the folder of files to it.
const FILES: &str = "TIDEGATE_BENCH_FILES";
/// How the names of our folders start; the keeper's process id follows.
const PREFIX: &str = "tidegate-bench-";

/// Where the measuring process may write.
pub(crate) struct WorkDirs {
    /// A cgroup; all others are made below it.
    pub(crate) cgroups: PathBuf,
    /// A folder for policies and address files.
    pub(crate) files: PathBuf,
}

/// Runs this program again, inside, and removes what it leaves behind.
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
        .context("no folder for files")?;
    fs::create_dir(&cgroups).with_context(|| format!("cannot make the cgroup {}", cgroups.display()))?;
    let ended = run_inside(&cgroups, files.path());
    if let Err(error) = cgroup::clear(&cgroups) {
        eprintln!("bench: left behind: {}: {error}", cgroups.display());
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
    let mut child = inside.spawn().context("cannot start the process that measures")?;
    // An interrupt from the terminal reaches both; this one stays to clean up.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    Ok(child.wait()?)
}

/// Removes what a keeper left that was killed.
fn sweep(above: &Path, remove: impl Fn(&Path) -> io::Result<()>) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let supervisor = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let supervisor = supervisor.and_then(|supervisor| supervisor.split('-').next());
        let is_dead = supervisor.is_some_and(|supervisor| !Path::new("/proc").join(supervisor).exists());
        if is_dead && let Err(error) = remove(&entry.path()) {
            eprintln!("bench: left over: {}: {error}", entry.path().display());
        }
    }
}

/// The places, when this is the process inside; it then has mounts of its own and is in a cgroup of its own.
pub(crate) fn inside() -> Result<Option<WorkDirs>> {
    let (Some(cgroups), Some(files)) = (env::var_os(CGROUPS), env::var_os(FILES)) else {
        return Ok(None);
    };
    let work_dirs = WorkDirs {
        cgroups: cgroups.into(),
        files: files.into(),
    };
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    let bpffs = env::var_os(BPFFS_VARIABLE).context("no folder for pins")?;
    mount(
        Some("bpf"),
        bpffs.as_os_str(),
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=700"),
    )
    .context("cannot mount a BPF file system")?;
    // What starts cgroups below its own must not be beside them in ours.
    let home = work_dirs.cgroups.join("home");
    fs::create_dir(&home)?;
    cgroup::enter(&home)?;
    Ok(Some(work_dirs))
}

impl WorkDirs {
    /// The cgroup in which this process is while it is in no other.
    pub(crate) fn enter_home_cgroup(&self) -> Result<()> {
        cgroup::enter(&self.cgroups.join("home"))
    }
}
