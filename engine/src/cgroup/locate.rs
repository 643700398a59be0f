//! Finds a cgroup by what people call it: its path, a process in it, or a unit of systemd.

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
use crate::procfs::unified_path;

/// Cgroups that are looked at in search of a unit.
const MAX_SEARCHED: usize = 100_000;

/// A cgroup that exists, with its directory open.
#[derive(Debug)]
pub struct Located {
    directory: File,
    path: PathBuf,
    id: u64,
    level: Option<u32>,
}

/// Why a cgroup was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// There is no such directory, or it cannot be opened.
    #[error("there is no cgroup {}: {source}; give its path below {}, such as /system.slice/shop.service", path.display(), mount.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path that leads somewhere else.
    #[error("{} is not in the cgroup2 hierarchy at {}", path.display(), mount.display())]
    Elsewhere {
        /// What was asked for.
        path: PathBuf,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// There is no such process, or it has no cgroup that can be seen from here.
    #[error("cannot tell the cgroup of process {pid}: {source}")]
    Process {
        /// Its id.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No cgroup has the unit's name.
    #[error(
        "no cgroup is named {unit}: is the unit running? `systemctl status {unit}` tells; a unit without processes has no cgroup"
    )]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// There are more than are looked at.
    #[error("there are more than {MAX_SEARCHED} cgroups, too many to search for {unit}: name it by --cgroup")]
    TooMany {
        /// The unit.
        unit: String,
    },
    /// Several have.
    #[error("several cgroups are named {unit}: {}; choose one by --cgroup", join(found))]
    ManyUnits {
        /// The unit.
        unit: String,
        /// The cgroups.
        found: Vec<PathBuf>,
    },
}

fn join(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    texts.join(", ")
}

impl Located {
    /// By its path: below the root of the hierarchy (`/system.slice/shop.service`), or as the file
    /// system shows it (`/sys/fs/cgroup/system.slice/shop.service`).
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn by_path(hierarchy: &Hierarchy, given: &Path) -> Result<Located, LocateError> {
        let mount = hierarchy.mount_point();
        let missing = |source| LocateError::Missing {
            path: given.to_owned(),
            mount: mount.to_owned(),
            source,
        };
        let elsewhere = || LocateError::Elsewhere {
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
        Ok(Located {
            id: metadata.ino(),
            level: hierarchy.level(&directory),
            path: hierarchy.spelled(&directory),
            directory: opened,
        })
    }

    /// By a process that is in it now.
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn by_process(hierarchy: &Hierarchy, pid: u32) -> Result<Located, LocateError> {
        let failed = |source| LocateError::Process { pid, source };
        let text = fs::read(format!("/proc/{pid}/cgroup")).map_err(failed)?;
        let path = unified_path(&text).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        Located::by_path(hierarchy, &path)
    }

    /// By the name of a unit of the system, such as `shop.service`: systemd gives each a cgroup of that name,
    /// somewhere below the slices (systemd.slice(5)). `.service` may be left out.
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn by_unit(hierarchy: &Hierarchy, unit: &str) -> Result<Located, LocateError> {
        let unit = if unit.contains('.') {
            unit.to_owned()
        } else {
            format!("{unit}.service")
        };
        let unit = unit.as_str();
        let found = named(hierarchy.mount_point(), &escaped(unit), MAX_SEARCHED);
        let found = found.ok_or_else(|| LocateError::TooMany {
            unit: unit.to_owned(),
        })?;
        let found: Vec<PathBuf> = found.iter().map(|folder| hierarchy.spelled(folder)).collect();
        match found.as_slice() {
            [] => Err(LocateError::NoUnit {
                unit: unit.to_owned(),
            }),
            [one] => Located::by_path(hierarchy, one),
            _ => Err(LocateError::ManyUnits {
                unit: unit.to_owned(),
                found,
            }),
        }
    }

    /// The open directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its path below the root of the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its depth below the root, which is 0; `None` where that cannot be told.
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Whether it is the root, which holds every process of the machine.
    pub fn is_root(&self) -> bool {
        self.path == Path::new("/")
    }
}

/// The folders of this name, outermost only, not below folders that belong to others than the root does; `None` where there are more folders than may be looked at.
fn named(root: &Path, name: &str, most: usize) -> Option<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    let mut searched = 0;
    // In a part that was delegated to somebody, folders are called what he likes.
    let owner = fs::metadata(root).map_or(0, |folder| folder.uid());
    while let Some(folder) = left.pop() {
        // A cgroup that goes while we look was not the one.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            searched += 1;
            if searched > most {
                return None;
            }
            if entry.file_name() == *name {
                found.push(entry.path());
            } else if entry.metadata().is_ok_and(|folder| folder.uid() == owner) {
                left.push(entry.path());
            }
        }
    }
    found.sort();
    Some(found)
}

/// A unit's name as systemd writes it in the hierarchy (`cg_escape`, src/basic/cgroup-util.c): one that the
/// kernel could take for a file of its own starts with `_`.
fn escaped(unit: &str) -> String {
    let of_kernel = ["cgroup.", "notify_on_release", "release_agent", "tasks"]
        .iter()
        .any(|name| unit.starts_with(name));
    if of_kernel || unit.starts_with(['_', '.']) {
        format!("_{unit}")
    } else {
        unit.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_counted_and_files_are_not() {
        let root = tempfile::tempdir().unwrap();
        let (slice, other) = (root.path().join("a.slice"), root.path().join("b.slice"));
        for folder in [&slice.join("x.service/x.service"), &other] {
            fs::create_dir_all(folder).unwrap();
            for file in 0..9 {
                fs::write(folder.join(file.to_string()), "").unwrap();
            }
        }
        let search = |name: &str, most| named(root.path(), name, most);
        assert_eq!(search("x.service", 3), Some(vec![slice.join("x.service")]));
        assert_eq!(search("y.service", 4), Some(vec![]));
        assert_eq!(search("y.service", 3), None);
    }

    #[test]
    fn names_that_the_kernel_could_own_are_escaped() {
        assert_eq!(escaped("shop.service"), "shop.service");
        assert_eq!(escaped("cgroup.service"), "_cgroup.service");
        assert_eq!(escaped("_x.service"), "__x.service");
    }
}
