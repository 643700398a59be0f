//! The cgroup of one command: created before it starts and removed after it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

#[cfg(feature = "systemd")]
use super::scope_unit::{ScopeError, ScopeUnit};
use super::{Placement, cgroup_events::CgroupEvents, cleanup};
use crate::{cgroup::Hierarchy, hint::Hint};

/// Prefix of the names of transient cgroups; the process id and a counter follow.
pub(super) const NAME_PREFIX: &str = "tidegate-exec-";

/// Limit of names tried. More than one is needed only beside stale cgroups of a process with the same id.
pub(super) const NAMES_TRIED: u32 = 1000;

/// The name of the command's cgroup in a scope of systemd.
#[cfg(feature = "systemd")]
const NAME_IN_SCOPE: &str = "command";

/// A cgroup below that of this process, or in a scope of systemd. It enables no controllers, so the rule against
/// processes in inner cgroups does not apply. Its directory is locked (flock) while this value exists: [`sweep_stale`](super::sweep_stale) removes
/// only cgroups without a lock.
///
/// Dropping it removes the cgroup if it is empty; processes in it stay there.
#[derive(Debug)]
pub struct TransientCgroup {
    path: PathBuf,
    directory: Flock<File>,
    events: CgroupEvents,
    id: u64,
    level: Option<u32>,
    pub(super) hierarchy: Hierarchy,
    remove_on_drop: bool,
    /// Dropped after the cgroup is removed: a scope without processes disappears.
    #[cfg(feature = "systemd")]
    scope: Option<ScopeUnit>,
}

/// An operation on a transient cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransientError {
    /// The directory could not be created.
    #[error("cannot create a cgroup below {parent}: {source}")]
    Create {
        /// The cgroup of this process, or the scope.
        parent: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// systemd did not create the scope.
    #[cfg(feature = "systemd")]
    #[error("cannot create a scope in {slice}: {source}")]
    Scope {
        /// The unit of the slice.
        slice: String,
        /// The cause.
        source: ScopeError,
    },
    /// A file of the cgroup could not be opened, read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The directory could not be removed.
    #[error("cannot remove the cgroup {path}: {source}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Processes did not exit after SIGKILL.
    #[error(
        "processes in {path} did not exit after SIGKILL; they may hang in the kernel (see `ps -o pid,stat,wchan`)"
    )]
    Unkillable {
        /// The directory.
        path: PathBuf,
    },
}

impl Hint for TransientError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            TransientError::Create { source, .. } => creation_hint(source),
            #[cfg(feature = "systemd")]
            TransientError::Scope { .. } => "--cgroup-manager cgroupfs creates the cgroup without systemd",
            TransientError::Remove { .. } => "remove it with rmdir when it is empty",
            TransientError::File { .. } | TransientError::Unkillable { .. } => return None,
        };
        Some(text.to_owned())
    }
}

fn creation_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "run tidegate as root, for example with sudo",
        Some(libc::EROFS) => {
            "the hierarchy is mounted read-only, as in most containers and inside `tidegate exec` \
             (`--keep-capability all` allows nesting)"
        }
        Some(libc::EAGAIN) => {
            "the limit cgroup.max.depth or cgroup.max.descendants of an ancestor is reached"
        }
        Some(libc::EBUSY | libc::EOPNOTSUPP) => {
            "this cgroup cannot have such children (see its cgroup.type); start tidegate in another cgroup"
        }
        _ => "check the cgroup2 hierarchy",
    }
}

impl TransientCgroup {
    /// Creates the cgroup at its place.
    ///
    /// # Errors
    /// When systemd does not start the scope, the directory cannot be created, or its files cannot be opened.
    pub fn create_at(
        hierarchy: &Hierarchy,
        placement: &Placement,
    ) -> Result<TransientCgroup, TransientError> {
        match placement {
            Placement::BelowOwn => TransientCgroup::create(hierarchy),
            #[cfg(feature = "systemd")]
            Placement::Scope(slice) => {
                let scope = ScopeUnit::start(hierarchy, slice).map_err(|source| TransientError::Scope {
                    slice: slice.unit().to_owned(),
                    source,
                })?;
                TransientCgroup::create_in(hierarchy, scope)
            }
            // `Placement::choose` selects none.
            #[cfg(not(feature = "systemd"))]
            Placement::Scope(_) => TransientCgroup::create(hierarchy),
        }
    }

    #[cfg(feature = "systemd")]
    fn create_in(hierarchy: &Hierarchy, scope: ScopeUnit) -> Result<TransientCgroup, TransientError> {
        let path = scope.directory().join(NAME_IN_SCOPE);
        let failed = |source| TransientError::Create {
            parent: scope.directory().to_owned(),
            source,
        };
        fs::create_dir(&path).map_err(failed)?;
        let directory = open_directory(&path).and_then(try_lock).map_err(failed)?;
        let directory = directory.ok_or_else(|| failed(io::ErrorKind::ResourceBusy.into()))?;
        let mut cgroup = TransientCgroup::open(hierarchy, path, directory)?;
        cgroup.scope = Some(scope);
        Ok(cgroup)
    }

    /// Creates `tidegate-exec-<pid>-<n>` below the cgroup of this process.
    ///
    /// # Errors
    /// When the directory cannot be created or its files cannot be opened.
    pub fn create(hierarchy: &Hierarchy) -> Result<TransientCgroup, TransientError> {
        let parent = hierarchy.own_cgroup();
        let failed = |source| TransientError::Create {
            parent: parent.clone(),
            source,
        };
        for number in 0..NAMES_TRIED {
            let path = parent.join(format!("{NAME_PREFIX}{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            }
            // Before it is locked, a sweep of another process may consider it stale: then that process holds the lock or
            // has removed the directory, and the next name is tried.
            if let Some(directory) = cleanup::lock(&path).map_err(failed)? {
                return TransientCgroup::open(hierarchy, path, directory);
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    fn open(
        hierarchy: &Hierarchy,
        path: PathBuf,
        directory: Flock<File>,
    ) -> Result<TransientCgroup, TransientError> {
        let file = |name: &str| {
            let path = path.join(name);
            move |source| TransientError::File { path, source }
        };
        let opened = CgroupEvents::open(&path).map_err(file(CgroupEvents::NAME));
        let metadata = directory.metadata().map_err(file(""));
        match (opened, metadata) {
            (Ok(events), Ok(metadata)) => Ok(TransientCgroup {
                events,
                id: metadata.ino(),
                level: hierarchy.level(&path),
                hierarchy: hierarchy.clone(),
                remove_on_drop: true,
                #[cfg(feature = "systemd")]
                scope: None,
                path,
                directory,
            }),
            (Err(error), _) | (_, Err(error)) => {
                // The first error is reported.
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its open directory, for clone3 and to attach programs.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its id: the inode number of the directory, as `bpf_get_current_cgroup_id` returns it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its depth below the root of the hierarchy, see [`Hierarchy::level`].
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Its `cgroup.events`, for poll(2): POLLPRI is set when [`populated`](Self::populated) may have changed since the
    /// last call.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether it or a descendant contains a process.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read.
    pub fn populated(&self) -> Result<bool, TransientError> {
        self.events
            .populated()
            .map_err(|source| self.file_error(CgroupEvents::NAME, source))
    }

    /// Waits until it is empty, at most for `limit`. Returns whether it is empty.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read or waited for.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, TransientError> {
        self.events
            .wait(false, limit)
            .map_err(|source| self.file_error(CgroupEvents::NAME, source))
    }

    /// Leaves the cgroup and its processes. When it is empty, a later [`sweep_stale`](super::sweep_stale) removes it.
    pub fn keep(mut self) -> PathBuf {
        self.remove_on_drop = false;
        self.path.clone()
    }

    /// Removes it and the cgroups that the command created in it. They must be empty.
    ///
    /// # Errors
    /// When it contains a process, or a directory cannot be removed.
    pub fn remove(mut self) -> Result<(), TransientError> {
        self.remove_on_drop = false;
        cleanup::remove_tree(&self.path).map_err(|source| TransientError::Remove {
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn file_error(&self, name: &str, source: io::Error) -> TransientError {
        let mut path: OsString = self.path.clone().into();
        if !name.is_empty() {
            path.push("/");
            path.push(name);
        }
        TransientError::File {
            path: path.into(),
            source,
        }
    }
}

impl Drop for TransientCgroup {
    fn drop(&mut self) {
        if self.remove_on_drop {
            // A caller that handles the error uses `remove`.
            let _ = cleanup::remove_tree(&self.path);
        }
    }
}

/// Opens a cgroup directory for locking and for clone3.
pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)
}

/// Locks an open directory; `None` when another process holds the lock.
pub(super) fn try_lock(directory: File) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}
