//! A cgroup and its descendants.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{CgroupHandle, Hierarchy};

/// Limit of cgroups in one subtree.
const MAX_CGROUPS: usize = 100_000;

/// A snapshot of a cgroup, its descendants and the processes in them.
#[derive(Debug, Default)]
pub struct Subtree {
    cgroups: HashMap<u64, PathBuf>,
    processes: Vec<u32>,
}

impl Subtree {
    /// Takes a snapshot. Cgroups that are removed meanwhile are left out.
    ///
    /// # Errors
    /// When a directory cannot be read, or there are more than 100,000 cgroups.
    pub fn of(hierarchy: &Hierarchy, cgroup: &CgroupHandle) -> io::Result<Subtree> {
        let mut subtree = Subtree::default();
        let Some(root) = hierarchy.directory(cgroup.path()) else {
            return Ok(subtree);
        };
        let mut pending = vec![root];
        while let Some(directory) = pending.pop() {
            match subtree.add(hierarchy, &directory, &mut pending) {
                Err(error) if !is_removed(&error) => return Err(error),
                _ => {}
            }
            if subtree.cgroups.len() + pending.len() > MAX_CGROUPS {
                let message = format!("there are more than {MAX_CGROUPS} cgroups");
                return Err(io::Error::other(message));
            }
        }
        subtree.processes.sort_unstable();
        subtree.processes.dedup();
        Ok(subtree)
    }

    fn add(&mut self, hierarchy: &Hierarchy, directory: &Path, pending: &mut Vec<PathBuf>) -> io::Result<()> {
        let id = fs::metadata(directory)?.ino();
        self.cgroups.insert(id, hierarchy.hierarchy_path(directory));
        self.processes.extend(members(directory)?);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
        Ok(())
    }

    /// The path of the cgroup with this id (inode number) in the hierarchy; `None` when it is not in the subtree.
    pub fn path_of(&self, id: u64) -> Option<&Path> {
        self.cgroups.get(&id).map(PathBuf::as_path)
    }

    /// The ids of the processes, in ascending order.
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }
}

/// Processes of a cgroup; the threads of a threaded one, which does not list processes
/// (Documentation/admin-guide/cgroup-v2.rst, "Threads").
fn members(directory: &Path) -> io::Result<Vec<u32>> {
    let text = match fs::read_to_string(directory.join("cgroup.procs")) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            fs::read_to_string(directory.join("cgroup.threads"))?
        }
        text => text?,
    };
    // 0 is listed for a process outside the pid namespace.
    let ids = text.lines().filter_map(|line| line.parse().ok());
    Ok(ids.filter(|&id| id != 0).collect())
}

/// Whether the cgroup was removed while it was read.
fn is_removed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
