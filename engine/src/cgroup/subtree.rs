//! A cgroup with all that is below it.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Hierarchy, Located};

/// Cgroups that are looked at.
const MAX_CGROUPS: usize = 100_000;

/// A cgroup and all below it, and the processes in them, as they were when looked at.
#[derive(Debug, Default)]
pub struct Subtree {
    cgroups: HashMap<u64, PathBuf>,
    processes: Vec<u32>,
}

impl Subtree {
    /// Looks at a cgroup and all below it. What goes meanwhile is not in it.
    ///
    /// # Errors
    /// When a folder cannot be read, or there are too many.
    pub fn of(hierarchy: &Hierarchy, located: &Located) -> io::Result<Subtree> {
        let mut subtree = Subtree::default();
        let Some(root) = hierarchy.directory(located.path()) else {
            return Ok(subtree);
        };
        let mut left = vec![root];
        while let Some(folder) = left.pop() {
            match subtree.take_in(hierarchy, &folder, &mut left) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
            if subtree.cgroups.len() + left.len() > MAX_CGROUPS {
                let message = format!("there are more than {MAX_CGROUPS} cgroups");
                return Err(io::Error::other(message));
            }
        }
        subtree.processes.sort_unstable();
        subtree.processes.dedup();
        Ok(subtree)
    }

    fn take_in(&mut self, hierarchy: &Hierarchy, folder: &Path, left: &mut Vec<PathBuf>) -> io::Result<()> {
        let id = fs::metadata(folder)?.ino();
        self.cgroups.insert(id, hierarchy.spelled(folder));
        self.processes.extend(members(folder)?);
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
        Ok(())
    }

    /// The path of the cgroup with this id (inode number), if it is one of these.
    pub fn path_of(&self, id: u64) -> Option<&Path> {
        self.cgroups.get(&id).map(PathBuf::as_path)
    }

    /// The processes in them, by their ids in ascending order.
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }
}

/// Processes of a cgroup; of a threaded one its threads, since it does not list processes
/// (Documentation/admin-guide/cgroup-v2.rst, "Threads").
fn members(folder: &Path) -> io::Result<Vec<u32>> {
    let text = match fs::read_to_string(folder.join("cgroup.procs")) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            fs::read_to_string(folder.join("cgroup.threads"))?
        }
        text => text?,
    };
    // A process that cannot be seen from here is listed as 0.
    let ids = text.lines().filter_map(|line| line.parse().ok());
    Ok(ids.filter(|&id| id != 0).collect())
}

/// A cgroup that is removed while it is read.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
