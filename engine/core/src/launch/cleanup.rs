//! Removing cgroups: one with its descendants, and stale ones of processes that were killed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::Flock;

use super::transient_cgroup::{NAME_PREFIX, TransientError, open_directory, try_lock};
use crate::cgroup::Hierarchy;

/// Removes stale transient cgroups below the cgroup of this process: those that are empty and that no process has
/// locked. Returns their number. A cgroup with processes stays, and so do its policies.
///
/// # Errors
/// When the cgroup of this process cannot be listed. A cgroup that cannot be removed is skipped.
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
        // The lock is held until the directory is removed, so that no other process starts to use it.
        .filter(|path| matches!(lock(path), Ok(Some(_held)) if sweep(path)))
        .count())
}

fn sweep(path: &Path) -> bool {
    let empty = fs::read_to_string(path.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|line| line == "populated 0"));
    empty && remove_tree(path).is_ok()
}

/// Whether the name is `tidegate-exec-<pid>-<n>`, and not one chosen by a user.
fn is_transient_name(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix(NAME_PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, n)| is_number(pid) && is_number(n))
}

/// Locks the directory of a cgroup. `None`: another process holds the lock, or the cgroup was removed.
pub(super) fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    let directory = match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let locked = try_lock(directory)?;
    // The directory may have been removed between opening and locking it.
    Ok(locked.filter(|_| path.exists()))
}

/// Removes a cgroup and its descendants, the deepest first.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    for directory in tree(path)?.iter().rev() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A cgroup and its descendants; parents come before their children.
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

/// The child cgroups. Empty when the cgroup was removed.
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
    fn only_generated_names_are_swept() {
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
