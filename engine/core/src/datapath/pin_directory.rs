//! The directory of pins: `tidegate` in the BPF file system, 0700 and root's.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
};

use super::{error::DatapathError, syscall};
use crate::instance::Instance;

/// Where the BPF file system is mounted by convention.
pub(super) const CONVENTIONAL_BPFFS: &str = "/sys/fs/bpf";

/// The directory, created if need be; where no BPF file system is mounted, one is mounted.
pub(super) fn own_directory(instance: &Instance) -> Result<PathBuf, DatapathError> {
    let directory = bpffs(instance)?.join("tidegate");
    make(&directory)?;
    Ok(directory)
}

/// The directory, if it exists. Changes nothing.
pub(super) fn existing_directory(instance: &Instance) -> Option<PathBuf> {
    let bpffs = instance.bpffs.clone().or_else(mounted)?;
    Some(bpffs.join("tidegate")).filter(|directory| directory.is_dir())
}

/// Creates a directory that only root may enter; one that exists is closed to others.
pub(super) fn make(path: &Path) -> Result<(), DatapathError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Where others may write to the root of the file system (a plain mount is 1777) it could be theirs, or a
            // symbolic link.
            let metadata = fs::symlink_metadata(path).map_err(at("read the owner of", path))?;
            if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
                let error = io::Error::other("it belongs to another user, or is not a directory; remove it");
                return Err(at("use", path)(error));
            }
            let mode = fs::Permissions::from_mode(0o700);
            fs::set_permissions(path, mode).map_err(at("change the permissions of", path))
        }
        Err(error) => Err(at("create", path)(error)),
    }
}

/// Locks a directory (flock); `None` when another process holds the lock, or the directory was removed meanwhile.
pub(super) fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
    let lock = match Flock::lock(File::open(directory)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno.into()),
    };
    let is_same =
        fs::metadata(directory).is_ok_and(|now| lock.metadata().is_ok_and(|then| now.ino() == then.ino()));
    Ok(is_same.then_some(lock))
}

/// Removes the pin of a link. Its program is detached when this returns, so that it can be attached again: if only the pin
/// is removed the kernel releases the link some time later (`bpf_link_put`, kernel/bpf/syscall.c), and refuses what is
/// still attached (EBUSY); closing the last descriptor releases it at once.
pub(super) fn remove_link(path: &Path) -> io::Result<()> {
    // A pin that cannot be opened is removed all the same.
    let held = syscall::open_pin(path);
    let removed = ignore_missing(fs::remove_file(path));
    drop(held);
    removed
}

pub(super) fn remove_directory(path: &Path) -> Result<(), DatapathError> {
    ignore_missing(fs::remove_dir(path)).map_err(at("remove", path))
}

pub(super) fn remove_tree(path: &Path) -> Result<(), DatapathError> {
    ignore_missing(fs::remove_dir_all(path)).map_err(at("remove", path))
}

pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The names in a directory; none where it does not exist.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at("read", directory))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

pub(super) fn at(step: &'static str, path: &Path) -> impl Fn(io::Error) -> DatapathError + use<> {
    let path = path.to_owned();
    move |source| DatapathError::Io {
        step,
        path: path.clone(),
        source,
    }
}

/// The BPF file system: the one of the instance, the first mounted, or one mounted now where systemd would.
fn bpffs(instance: &Instance) -> Result<PathBuf, DatapathError> {
    if let Some(path) = instance.bpffs.clone().or_else(mounted) {
        return Ok(path);
    }
    mount(
        Some("bpf"),
        CONVENTIONAL_BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|errno| DatapathError::NotMounted(errno.into()))?;
    Ok(CONVENTIONAL_BPFFS.into())
}

/// The mounted BPF file system to use: the one at the conventional directory if there are several.
fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut found = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let is_bpf = right.split(' ').next() == Some("bpf");
        let point = left.split(' ').nth(4)?;
        // A path with escaped characters is unusual: it is skipped.
        (is_bpf && !point.contains('\\')).then(|| PathBuf::from(point))
    });
    let first = found.next()?;
    if first == Path::new(CONVENTIONAL_BPFFS) {
        return Some(first);
    }
    Some(
        found
            .find(|p| p == Path::new(CONVENTIONAL_BPFFS))
            .unwrap_or(first),
    )
}
