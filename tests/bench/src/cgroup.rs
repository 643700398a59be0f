//! Cgroups below the cgroup of the benchmark.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use engine_common::scope::Scope;
use tidegate_core::cgroup::Hierarchy;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A cgroup, removed when dropped; no process may be in it then.
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: File,
    id: u64,
    level: u32,
}

impl Cgroup {
    /// Creates a cgroup below `dir`.
    pub(crate) fn create(hierarchy: &Hierarchy, dir: &Path) -> Result<Cgroup> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(number.to_string());
        fs::create_dir(&path).with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        let directory = File::open(&path)?;
        Ok(Cgroup {
            id: directory.metadata()?.ino(),
            level: hierarchy.level(&path).unwrap_or(Scope::UNKNOWN_LEVEL),
            path,
            directory,
        })
    }

    /// Migrates this process into the cgroup: new sockets belong to it.
    pub(crate) fn enter(&self) -> Result<()> {
        enter(&self.path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The cgroup id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Depth below the root of the hierarchy.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The supervisor removes what cannot be removed now.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Migrates this process into a cgroup.
pub(crate) fn enter(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot enter the cgroup {}", cgroup.display()))
}

/// Kills all processes in a cgroup and its descendants, and removes them.
pub(crate) fn clear(cgroup: &Path) -> io::Result<()> {
    // Since Linux 5.14; earlier kernels can only remove empty cgroups.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let mut tries = 0;
    loop {
        match remove(cgroup) {
            // The killed processes have not exited yet.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < 200 => tries += 1,
            other => return other,
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
