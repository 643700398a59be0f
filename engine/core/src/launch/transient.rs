//! The cgroup of one command: created before it starts and removed after it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::cleanup;
use crate::cgroup::Hierarchy;

/// Prefix of the names of transient cgroups; the process id and a counter follow.
pub(super) const NAME_PREFIX: &str = "tidegate-exec-";

/// Limit of names tried. More than one is needed only beside stale cgroups of a process with the same id.
const NAMES_TRIED: u32 = 1000;

/// A cgroup below that of this process. It enables no controllers, so the rule against processes in inner cgroups does
/// not apply. Its directory is locked (flock) while this value exists: [`sweep_stale`](super::sweep_stale) removes
/// only cgroups without a lock.
///
/// Dropping it removes the cgroup if it is empty; processes in it stay there.
#[derive(Debug)]
pub struct TransientCgroup {
    path: PathBuf,
    directory: Flock<File>,
    events: File,
    id: u64,
    level: Option<u32>,
    pub(super) hierarchy: Hierarchy,
    remove_on_drop: bool,
}

/// An operation on a transient cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransientError {
    /// The directory could not be created.
    #[error("cannot create a cgroup below {parent}: {source}; {}", creation_hint(.source))]
    Create {
        /// The cgroup of this process.
        parent: PathBuf,
        /// The kernel's error.
        source: io::Error,
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
    #[error("cannot remove the cgroup {path}: {source}; remove it with rmdir when it is empty")]
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
        let opened = File::open(path.join("cgroup.events")).map_err(file("cgroup.events"));
        let metadata = directory.metadata().map_err(file(""));
        match (opened, metadata) {
            (Ok(events), Ok(metadata)) => Ok(TransientCgroup {
                events,
                id: metadata.ino(),
                level: hierarchy.level(&path),
                hierarchy: hierarchy.clone(),
                remove_on_drop: true,
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
        let mut text = String::new();
        let mut events = &self.events;
        events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text))
            .map_err(|source| self.file_error("cgroup.events", source))?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// Waits until it is empty, at most for `limit`. Returns whether it is empty.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read or waited for.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, TransientError> {
        let deadline = Instant::now() + limit;
        loop {
            if !self.populated()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up, so that the last wait does not spin.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.events_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.file_error("cgroup.events", errno.into())),
            }
        }
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
