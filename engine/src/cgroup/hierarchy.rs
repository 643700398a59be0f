//! The cgroup2 hierarchy: where it is mounted and where the caller stands in it.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use crate::procfs::{Mount, MountTable, unified_path};

/// Inode number of the initial cgroup namespace, the same on every machine
/// (`PROC_CGROUP_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";

/// A mounted cgroup2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount_point: PathBuf,
    /// The cgroup the mount starts at; `/` unless it is a bind mount of a part.
    root: PathBuf,
    /// The caller's own cgroup when the hierarchy was found, as the kernel spells it.
    own: PathBuf,
    /// Whether paths are counted from the real root, not from that of a cgroup namespace.
    real_root: bool,
}

/// Why the hierarchy is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HierarchyError {
    /// A file of procfs did not say what was looked for.
    #[error("cannot read {path}: {source}; is procfs mounted at /proc?")]
    Proc {
        /// The file.
        path: &'static str,
        /// What the kernel, or the parser, said.
        source: io::Error,
    },
    /// No cgroup2 mount that can be reached.
    #[error(
        "no cgroup2 file system is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup` \
         (or, beside cgroup v1, on a directory of its own)"
    )]
    NotMounted,
    /// The kernel has no cgroup2 for this process.
    #[error("/proc/self/cgroup has no line that starts with `0::`: the kernel was built without cgroup2")]
    NoUnifiedLine,
    /// There are mounts, but the caller's cgroup lies outside them all.
    #[error(
        "this process is in the cgroup {own}, which no cgroup2 mount shows ({mounts}); \
         run tidegate where the whole hierarchy is mounted, outside the container or its cgroup namespace"
    )]
    OutOfSight {
        /// The cgroup, as the kernel spells it.
        own: String,
        /// The mounts, with the cgroup each starts at.
        mounts: String,
    },
}

impl Hierarchy {
    /// Finds the hierarchy and the caller's place in it. Of several mounts one of the whole
    /// hierarchy is preferred, and a writable one.
    ///
    /// # Errors
    /// When cgroup2 is not mounted, or no mount shows the caller's cgroup.
    pub fn find() -> Result<Hierarchy, HierarchyError> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        const CGROUP: &str = "/proc/self/cgroup";
        let table = MountTable::read().map_err(|source| HierarchyError::Proc { path: MOUNTS, source })?;
        let text = fs::read(CGROUP).map_err(|source| HierarchyError::Proc { path: CGROUP, source })?;
        let own = unified_path(&text).ok_or(HierarchyError::NoUnifiedLine)?;
        // Without the link (a kernel without cgroup namespaces) there is only the real root.
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

    /// Whether the cgroup with this id (inode number) exists. True where it cannot be known.
    pub fn has(&self, id: u64) -> bool {
        match self.open(id) {
            Ok(_) => true,
            Err(error) => error.raw_os_error() != Some(libc::ESTALE),
        }
    }

    /// The cgroup with this id as the kernel spells it, while it exists and the mount shows it.
    pub fn path_of(&self, id: u64) -> Option<PathBuf> {
        let directory = self.open(id).ok()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        path.starts_with(&self.mount_point).then(|| self.spelled(&path))
    }

    /// Opens a cgroup by its file handle, whose form is kernfs's own (`kernfs_encode_fh`, FILEID_KERNFS, Linux 5.5).
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
        // SAFETY: the handle is laid out as the call wants it, and both live until it returns.
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
        // SAFETY: a new descriptor that nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Where the hierarchy is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The directory of the cgroup the caller was in when the hierarchy was found.
    pub fn own_cgroup(&self) -> PathBuf {
        // `choose` took a mount that shows it.
        self.directory(&self.own)
            .unwrap_or_else(|| self.mount_point.clone())
    }

    /// The directory of a cgroup given as the kernel spells it (`/system.slice/shop.service`), or
    /// `None` when the mount does not show it.
    pub fn directory(&self, cgroup: &Path) -> Option<PathBuf> {
        below(&self.root, cgroup).map(|rest| self.mount_point.join(rest))
    }

    /// The cgroup of a directory below the mount point, as the kernel spells it: `/system.slice/shop.service`.
    pub fn spelled(&self, directory: &Path) -> PathBuf {
        let below = directory.strip_prefix(&self.mount_point).unwrap_or(directory);
        if below.as_os_str().is_empty() {
            return self.root.clone();
        }
        self.root.join(below)
    }

    /// Depth of the directory of a cgroup below the root of the hierarchy, which is 0. `None` when
    /// it cannot be told: the directory is not below the mount, or the caller lives in a cgroup
    /// namespace, which hides how deep it lies.
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

/// The part of `cgroup` below `root`. A path with `..` lies outside the cgroup namespace, and one
/// that was removed has no directory any more.
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
    fn prefers_the_whole_then_the_writable() {
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
    fn a_part_serves_if_it_shows_us() {
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
    fn outside_a_namespace_or_removed() {
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
    fn says_what_to_mount() {
        let error = choose("3 1 0:7 / /c rw - cgroup c rw\n", "/").unwrap_err();
        assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
    }
}
