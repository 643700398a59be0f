//! Opens a cgroup by its path, by a process in it, or by a systemd unit.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::Hierarchy;
use crate::{hint::Hint, procfs::unified_path};

/// Limit of cgroups in the search for a unit.
const MAX_SEARCHED: usize = 100_000;

/// A cgroup with its directory open.
#[derive(Debug)]
pub struct CgroupHandle {
    directory: File,
    path: PathBuf,
    id: u64,
    level: Option<u32>,
}

/// A cgroup was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupLookupError {
    /// The directory does not exist or cannot be opened.
    #[error("there is no cgroup {}: {source}", path.display())]
    Missing {
        /// The requested path.
        path: PathBuf,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The path leads out of the hierarchy.
    #[error("{} is not in the cgroup2 hierarchy at {}", path.display(), mount.display())]
    Elsewhere {
        /// The requested path.
        path: PathBuf,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// There is no such process, or its cgroup is outside the mounted hierarchy.
    #[error("cannot determine the cgroup of process {pid}: {source}")]
    Process {
        /// Process id.
        pid: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// No cgroup has the unit's name.
    #[error("no cgroup is named {unit}")]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// The search was given up.
    #[error("more than {MAX_SEARCHED} cgroups, too many to search for {unit}")]
    TooMany {
        /// The unit.
        unit: String,
    },
    /// Several cgroups have the unit's name.
    #[error("several cgroups are named {unit}: {}", join(found))]
    ManyUnits {
        /// The unit.
        unit: String,
        /// The cgroups.
        found: Vec<PathBuf>,
    },
}

impl Hint for CgroupLookupError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            CgroupLookupError::Missing { mount, .. } => format!(
                "give its path below {}, such as /system.slice/shop.service",
                mount.display()
            ),
            CgroupLookupError::NoUnit { unit } => format!(
                "check with `systemctl status {unit}` that the unit is running: a unit without processes has no cgroup"
            ),
            CgroupLookupError::TooMany { .. } => "give its path with --cgroup".to_owned(),
            CgroupLookupError::ManyUnits { .. } => "choose one with --cgroup".to_owned(),
            CgroupLookupError::Elsewhere { .. } | CgroupLookupError::Process { .. } => return None,
        };
        Some(text)
    }
}

fn join(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    texts.join(", ")
}

impl CgroupHandle {
    /// By path: relative to the root of the hierarchy (`/system.slice/shop.service`), or in the file system
    /// (`/sys/fs/cgroup/system.slice/shop.service`).
    ///
    /// # Errors
    /// When there is no such directory, it cannot be opened, or it is not in the hierarchy.
    pub fn by_path(hierarchy: &Hierarchy, given: &Path) -> Result<CgroupHandle, CgroupLookupError> {
        let mount = hierarchy.mount_point();
        let missing = |source| CgroupLookupError::Missing {
            path: given.to_owned(),
            mount: mount.to_owned(),
            source,
        };
        let elsewhere = || CgroupLookupError::Elsewhere {
            path: given.to_owned(),
            mount: mount.to_owned(),
        };
        if given.as_os_str().is_empty() || given.components().any(|part| part == Component::ParentDir) {
            return Err(elsewhere());
        }
        let directory = if given.starts_with(mount) {
            given.to_owned()
        } else {
            let below = given.strip_prefix("/").unwrap_or(given);
            hierarchy
                .directory(&Path::new("/").join(below))
                .ok_or_else(elsewhere)?
        };
        let directory = fs::canonicalize(&directory).map_err(missing)?;
        if !directory.starts_with(mount) {
            return Err(elsewhere());
        }
        let opened = File::open(&directory).map_err(missing)?;
        let metadata = opened.metadata().map_err(missing)?;
        let system = fstatfs(&opened).map_err(|errno| missing(errno.into()))?;
        if !metadata.is_dir() || system.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(elsewhere());
        }
        Ok(CgroupHandle {
            id: metadata.ino(),
            level: hierarchy.level(&directory),
            path: hierarchy.hierarchy_path(&directory),
            directory: opened,
        })
    }

    /// The cgroup that a process is in now.
    ///
    /// # Errors
    /// When there is no such process, or the mount does not show its cgroup.
    pub fn by_process(hierarchy: &Hierarchy, pid: u32) -> Result<CgroupHandle, CgroupLookupError> {
        let failed = |source| CgroupLookupError::Process { pid, source };
        let text = fs::read(format!("/proc/{pid}/cgroup")).map_err(failed)?;
        let path = unified_path(&text).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        CgroupHandle::by_path(hierarchy, &path)
    }

    /// By the name of a system unit, such as `shop.service`: systemd gives each unit a cgroup of that name
    /// below its slice (systemd.slice(5)). `.service` may be omitted.
    ///
    /// # Errors
    /// When no cgroup or several have that name, or there are too many to search.
    pub fn by_unit(hierarchy: &Hierarchy, unit: &str) -> Result<CgroupHandle, CgroupLookupError> {
        let unit = if unit.contains('.') {
            unit.to_owned()
        } else {
            format!("{unit}.service")
        };
        let unit = unit.as_str();
        let found = named(hierarchy.mount_point(), &escaped(unit), MAX_SEARCHED);
        let found = found.ok_or_else(|| CgroupLookupError::TooMany {
            unit: unit.to_owned(),
        })?;
        let found: Vec<PathBuf> = found
            .iter()
            .map(|directory| hierarchy.hierarchy_path(directory))
            .collect();
        match found.as_slice() {
            [] => Err(CgroupLookupError::NoUnit {
                unit: unit.to_owned(),
            }),
            [one] => CgroupHandle::by_path(hierarchy, one),
            _ => Err(CgroupLookupError::ManyUnits {
                unit: unit.to_owned(),
                found,
            }),
        }
    }

    /// The open directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its path, relative to the root of the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the inode number of its directory, as `bpf_get_current_cgroup_id` returns it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its depth; the root has 0. `None` in a cgroup namespace, which hides the depth.
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Whether it is the root of the hierarchy, which contains every process of the system.
    pub fn is_root(&self) -> bool {
        self.path == Path::new("/")
    }
}

/// The outermost directories of this name, without the subtrees delegated to another owner than that of `root`; `None`
/// when there are more than `limit` directories.
fn named(root: &Path, name: &str, limit: usize) -> Option<Vec<PathBuf>> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    let mut searched = 0;
    // The owner of a delegated subtree chooses the names in it.
    let owner = fs::metadata(root).map_or(0, |directory| directory.uid());
    while let Some(directory) = pending.pop() {
        // A cgroup that is removed meanwhile is skipped.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            searched += 1;
            if searched > limit {
                return None;
            }
            if entry.file_name() == *name {
                found.push(entry.path());
            } else if entry.metadata().is_ok_and(|directory| directory.uid() == owner) {
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    Some(found)
}

/// The directory name of a unit (`cg_escape`, src/basic/cgroup-util.c): systemd puts `_` before names that collide with
/// the kernel's files.
fn escaped(unit: &str) -> String {
    let is_reserved = ["cgroup.", "notify_on_release", "release_agent", "tasks"]
        .iter()
        .any(|name| unit.starts_with(name));
    if is_reserved || unit.starts_with(['_', '.']) {
        format!("_{unit}")
    } else {
        unit.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_counted_and_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        let (slice, other) = (root.path().join("a.slice"), root.path().join("b.slice"));
        for directory in [&slice.join("x.service/x.service"), &other] {
            fs::create_dir_all(directory).unwrap();
            for file in 0..9 {
                fs::write(directory.join(file.to_string()), "").unwrap();
            }
        }
        let search = |name: &str, limit| named(root.path(), name, limit);
        assert_eq!(search("x.service", 3), Some(vec![slice.join("x.service")]));
        assert_eq!(search("y.service", 4), Some(vec![]));
        assert_eq!(search("y.service", 3), None);
    }

    #[test]
    fn reserved_names_are_escaped() {
        assert_eq!(escaped("shop.service"), "shop.service");
        assert_eq!(escaped("cgroup.service"), "_cgroup.service");
        assert_eq!(escaped("_x.service"), "__x.service");
    }
}
