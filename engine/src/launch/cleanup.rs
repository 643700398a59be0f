//! Removing cgroups: one with all below it, and those that dead owners left behind.

use crate::cgroup::Hierarchy;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::Flock;

use super::transient::{NAME_PREFIX, TransientError, open_directory, try_lock};

/// Removes the empty transient cgroups beside the caller whose owner is gone, and gives how many.
/// One that is still owned is locked; one with processes in it is left alone: they stay gated.
///
/// # Errors
/// When the caller's own cgroup cannot be listed. A left-over that resists is passed over.
pub fn sweep_stale(hierarchy: &Hierarchy) -> Result<usize, TransientError> {
    let parent = hierarchy.own_cgroup();
    let below = children(&parent).map_err(|source| TransientError::File { path: parent, source })?;
    Ok(below
        .iter()
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_transient_name)
        })
        // The lock is held until the directory is gone, so that nobody starts to use it meanwhile.
        .filter(|path| matches!(lock(path), Ok(Some(_held)) if sweep(path)))
        .count())
}

fn sweep(path: &Path) -> bool {
    let empty = fs::read_to_string(path.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|line| line == "populated 0"));
    empty && remove_tree(path).is_ok()
}

/// `tidegate-exec-<pid>-<n>`, and nothing a user may have named by hand.
fn is_transient_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix(NAME_PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, n)| number(pid) && number(n))
}

/// Locks the directory of a cgroup. `None`: another holds the lock, or it is gone.
pub(super) fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let directory = match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let locked = try_lock(directory)?;
    // The directory may have been removed between opening and locking it.
    Ok(locked.filter(|_| path.exists()))
}

/// Removes a cgroup and all below it, the deepest first.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    for directory in tree(path)?.iter().rev() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A cgroup and all below it; parents come before their children.
pub(super) fn tree(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let below = children(directory)?;
        found.extend(below);
        next += 1;
    }
    Ok(found)
}

/// The cgroups right below one. None when it is gone.
fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::is_transient_name;

    #[test]
    fn only_our_own_names_are_swept() {
        assert!(is_transient_name("tidegate-exec-17-0"));
        for name in [
            "tidegate-exec-17",
            "tidegate-exec-17-",
            "tidegate-exec--1",
            "tidegate-exec-17-0-x",
            "tidegate-exec-shop-1",
            "x-tidegate-exec-17-0",
        ] {
            assert!(!is_transient_name(name), "{name}");
        }
    }
}
