//! The cgroup2 hierarchy: its mount point and the cgroup of this process.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use crate::{
    hint::Hint,
    procfs::{Mount, MountTable, unified_path},
};

/// Inode number of the initial cgroup namespace, the same on every machine
/// (`PROC_CGROUP_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";

/// A mounted cgroup2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount_point: PathBuf,
    /// The cgroup the mount starts at; `/` unless it is a bind mount of a part.
    root: PathBuf,
    /// Path of this process's cgroup in the hierarchy, when the hierarchy was found.
    own: PathBuf,
    /// Whether paths start at the real root, not at that of a cgroup namespace.
    real_root: bool,
}

/// The hierarchy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HierarchyError {
    /// A file of procfs cannot be read or parsed.
    #[error("cannot read {path}: {source}")]
    Proc {
        /// The file.
        path: &'static str,
        /// The error of the kernel or the parser.
        source: io::Error,
    },
    /// No cgroup2 mount is reachable.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// The kernel has no cgroup2 for this process.
    #[error("/proc/self/cgroup has no line that starts with `0::`: the kernel was built without cgroup2")]
    NoUnifiedLine,
    /// No mount shows the cgroup of this process.
    #[error("this process is in the cgroup {own}, which no cgroup2 mount shows ({mounts})")]
    OutOfSight {
        /// Its path in the hierarchy.
        own: String,
        /// The mounts, each with the cgroup that is its root.
        mounts: String,
    },
}

impl Hint for HierarchyError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            HierarchyError::Proc { .. } => "mount procfs at /proc",
            HierarchyError::NotMounted => {
                "mount it with `mount -t cgroup2 none /sys/fs/cgroup` (beside cgroup v1, on a directory of its own)"
            }
            HierarchyError::OutOfSight { .. } => {
                "run tidegate where the whole hierarchy is mounted: outside of the container or its cgroup namespace"
            }
            HierarchyError::NoUnifiedLine => return None,
        };
        Some(text.to_owned())
    }
}

impl Hierarchy {
    /// Finds the hierarchy and the cgroup of this process. Of several mounts it prefers one of the whole hierarchy,
    /// then a writable one.
    ///
    /// # Errors
    /// When cgroup2 is not mounted, or no mount shows the cgroup of this process.
    pub fn find() -> Result<Hierarchy, HierarchyError> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        const CGROUP: &str = "/proc/self/cgroup";
        let table = MountTable::read().map_err(|source| HierarchyError::Proc { path: MOUNTS, source })?;
        let text = fs::read(CGROUP).map_err(|source| HierarchyError::Proc { path: CGROUP, source })?;
        let own = unified_path(&text).ok_or(HierarchyError::NoUnifiedLine)?;
        // A kernel without cgroup namespaces has no link, and only the real root.
        let real_root = fs::read_link("/proc/self/ns/cgroup")
            .map_or(true, |name| name == Path::new(INITIAL_CGROUP_NAMESPACE));
        Hierarchy::choose(&table, own, real_root)
    }

    fn choose(table: &MountTable, own: PathBuf, real_root: bool) -> Result<Hierarchy, HierarchyError> {
        let mounts: Vec<&Mount> = table.reachable("cgroup2").collect();
        if mounts.is_empty() {
            return Err(HierarchyError::NotMounted);
        }
        let chosen = mounts
            .iter()
            .filter(|mount| below(&mount.root, &own).is_some())
            .min_by_key(|mount| (mount.root != Path::new("/"), mount.read_only()));
        match chosen {
            Some(mount) => Ok(Hierarchy {
                mount_point: mount.mount_point.clone(),
                root: mount.root.clone(),
                own,
                real_root,
            }),
            None => Err(HierarchyError::OutOfSight {
                own: own.display().to_string(),
                mounts: mounts
                    .iter()
                    .map(|mount| format!("{} shows {}", mount.mount_point.display(), mount.root.display()))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Whether the cgroup with this id (inode number) exists. True when that cannot be determined.
    pub fn has(&self, id: u64) -> bool {
        match self.open(id) {
            Ok(_) => true,
            Err(error) => error.raw_os_error() != Some(libc::ESTALE),
        }
    }

    /// The path of the cgroup with this id in the hierarchy; `None` when it does not exist or the mount does not show it.
    pub fn path_of(&self, id: u64) -> Option<PathBuf> {
        let directory = self.open(id).ok()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        path.starts_with(&self.mount_point)
            .then(|| self.hierarchy_path(&path))
    }

    /// Opens a cgroup by its file handle (`kernfs_encode_fh`, FILEID_KERNFS, Linux 5.5).
    fn open(&self, id: u64) -> io::Result<OwnedFd> {
        /// `struct file_handle` with the eight bytes that follow it.
        #[repr(C)]
        struct KernfsHandle {
            bytes: libc::c_uint,
            kind: libc::c_int,
            id: [u8; 8],
        }
        const FILEID_KERNFS: libc::c_int = 0xfe;
        let mount = fs::File::open(&self.mount_point)?;
        let mut handle = KernfsHandle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        // SAFETY: the handle has the layout of `struct file_handle` with eight bytes, and lives until the call returns.
        let fd = unsafe {
            libc::open_by_handle_at(
                mount.as_raw_fd(),
                (&raw mut handle).cast::<libc::file_handle>(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor without another owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Whether paths start at the root of the hierarchy, and not at that of a cgroup namespace.
    pub fn shows_real_root(&self) -> bool {
        self.real_root
    }

    /// The mount point of the hierarchy.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The directory of the cgroup that this process was in when the hierarchy was found.
    pub fn own_cgroup(&self) -> PathBuf {
        // `choose` selected a mount that shows it.
        self.directory(&self.own)
            .unwrap_or_else(|| self.mount_point.clone())
    }

    /// The directory of a cgroup given by its path in the hierarchy (`/system.slice/shop.service`); `None` when the mount
    /// does not show it.
    pub fn directory(&self, cgroup: &Path) -> Option<PathBuf> {
        below(&self.root, cgroup).map(|rest| self.mount_point.join(rest))
    }

    /// The path in the hierarchy (`/system.slice/shop.service`) of a directory below the mount point.
    pub fn hierarchy_path(&self, directory: &Path) -> PathBuf {
        let below = directory.strip_prefix(&self.mount_point).unwrap_or(directory);
        if below.as_os_str().is_empty() {
            return self.root.clone();
        }
        self.root.join(below)
    }

    /// Depth of a cgroup, given by its directory; the root has 0. `None` when the directory is not below the mount point,
    /// or this process is in a cgroup namespace, which hides the depth.
    pub fn level(&self, directory: &Path) -> Option<u32> {
        if !self.real_root {
            return None;
        }
        let rest = directory.strip_prefix(&self.mount_point).ok()?;
        let names = |path: &Path| {
            path.components()
                .filter(|component| matches!(component, Component::Normal(_)))
                .count()
        };
        u32::try_from(names(&self.root) + names(rest)).ok()
    }
}

/// The part of `cgroup` below `root`. A path with `..` is outside the cgroup namespace, and a removed cgroup has no
/// directory.
fn below<'a>(root: &Path, cgroup: &'a Path) -> Option<&'a Path> {
    let outside = |path: &Path| {
        path.components()
            .any(|component| component == Component::ParentDir)
    };
    let removed = cgroup.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    if outside(root) || outside(cgroup) || removed {
        return None;
    }
    cgroup.strip_prefix(root).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str, own: &str) -> Result<Hierarchy, HierarchyError> {
        let table = MountTable::parse(text.as_bytes()).unwrap();
        Hierarchy::choose(&table, PathBuf::from(own), true)
    }

    #[test]
    fn a_mount_of_the_whole_hierarchy_is_preferred_then_a_writable_one() {
        let text = "3 1 0:7 /a /part rw - cgroup2 c rw\n\
                    4 1 0:7 / /whole-ro ro - cgroup2 c rw\n\
                    5 1 0:7 / /whole rw - cgroup2 c rw\n";
        let found = choose(text, "/a/b").unwrap();
        assert_eq!(found.mount_point(), Path::new("/whole"));
        assert_eq!(found.own_cgroup(), Path::new("/whole/a/b"));
        assert_eq!(found.level(&found.own_cgroup()), Some(2));
        assert_eq!(found.level(Path::new("/whole")), Some(0));
    }

    #[test]
    fn a_bind_mount_is_used_if_it_shows_the_own_cgroup() {
        let text = "3 1 0:7 /other /one rw - cgroup2 c rw\n\
                    4 1 0:7 /a/b /two rw - cgroup2 c rw\n";
        let found = choose(text, "/a/b/c").unwrap();
        assert_eq!(found.own_cgroup(), Path::new("/two/c"));
        assert_eq!(found.level(&found.own_cgroup()), Some(3));
        assert!(matches!(
            choose(text, "/a"),
            Err(HierarchyError::OutOfSight { .. })
        ));
    }

    #[test]
    fn cgroups_outside_the_namespace_or_removed_are_not_shown() {
        let text = "3 1 0:7 / /c rw - cgroup2 c rw\n";
        assert!(choose(text, "/../x").is_err());
        assert!(choose(text, "/x (deleted)").is_err());
        assert!(choose("3 1 0:7 /.. /c rw - cgroup2 c rw\n", "/x").is_err());
    }

    #[test]
    fn a_namespace_hides_the_depth() {
        let table = MountTable::parse(b"3 1 0:7 / /c rw - cgroup2 c rw\n").unwrap();
        let found = Hierarchy::choose(&table, PathBuf::from("/a"), false).unwrap();
        assert_eq!(found.level(&found.own_cgroup()), None);
    }

    #[test]
    fn the_hint_says_what_to_mount() {
        let error = choose("3 1 0:7 / /c rw - cgroup c rw\n", "/").unwrap_err();
        assert!(error.hint().unwrap().contains("mount -t cgroup2"), "{error}");
    }
}
