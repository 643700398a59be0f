//! The cgroup made for one command, and removed after it.

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

/// How the names of transient cgroups start; process id and a number follow.
pub(super) const NAME_PREFIX: &str = "tidegate-exec-";

/// Names tried before giving up. More than one is only needed beside left-overs of a process that
/// had our id.
const NAMES_TRIED: u32 = 1000;

/// A cgroup below the caller's own. It enables no controllers, so the rule against processes in
/// inner cgroups does not concern it. While this value lives its directory is locked (flock), by
/// which [`sweep_stale`](super::sweep_stale) tells it from a left-over.
///
/// Dropping it removes the cgroup if nothing runs there any more; processes that do stay in it.
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

/// A step in the life of a transient cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransientError {
    /// The directory could not be made.
    #[error("cannot make a cgroup below {parent}: {source}; {}", creation_advice(.source))]
    Create {
        /// The caller's own cgroup.
        parent: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of it could not be opened, read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory could not be removed.
    #[error("cannot remove the cgroup {path}: {source}; once it is empty, `rmdir` it")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Killed processes did not go away.
    #[error(
        "processes in {path} are still there after SIGKILL; they may hang in the kernel (see `ps -o pid,stat,wchan`)"
    )]
    Unkillable {
        /// The directory.
        path: PathBuf,
    },
}

fn creation_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "run tidegate as root, for instance with sudo",
        Some(libc::EROFS) => {
            "the hierarchy is mounted read-only here, as in most containers and inside \
             `tidegate exec` (its --keep-capability all allows nesting)"
        }
        Some(libc::EAGAIN) => "cgroup.max.depth or cgroup.max.descendants of a cgroup above is reached",
        Some(libc::EBUSY | libc::EOPNOTSUPP) => {
            "this cgroup takes no such children (see its cgroup.type); start tidegate from another one"
        }
        _ => "is the cgroup2 hierarchy in order?",
    }
}

impl TransientCgroup {
    /// Makes `tidegate-exec-<pid>-<n>` below the caller's own cgroup.
    ///
    /// # Errors
    /// When the directory cannot be made (the text says what to do) or its files not opened.
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
            // Between the two steps a sweep may take the new directory for a left-over: then it
            // holds the lock or has removed it, and the next name is tried.
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
                // The first error is the one to tell.
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, opened: what clone3 and the attachment of programs want.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its id: the inode number of the directory, the number `bpf_get_current_cgroup_id` gives.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its depth below the root of the hierarchy, see [`Hierarchy::level`].
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Its `cgroup.events`, for poll(2): POLLPRI comes when [`populated`](Self::populated) may have
    /// changed since it was last asked.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether a process lives in it or below it.
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

    /// Waits until no process lives in it, at most `limit` long. Gives whether it is empty.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read or waited for.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, TransientError> {
        let end = Instant::now() + limit;
        loop {
            if !self.populated()? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Rounded up, so that the last wait is not a busy one.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.events_fd(), PollFlags::POLLPRI)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(self.file_error("cgroup.events", errno.into())),
            }
        }
    }

    /// Leaves the cgroup and what runs in it where they are. Once empty, a later
    /// [`sweep_stale`](super::sweep_stale) takes it away.
    pub fn keep(mut self) -> PathBuf {
        self.remove_on_drop = false;
        self.path.clone()
    }

    /// Removes it, and the cgroups the command made in it. Nothing may live there any more.
    ///
    /// # Errors
    /// When a process still lives there, or the kernel refuses for another reason.
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
            // Whoever wants to know calls `remove`.
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

/// Locks an open directory, or gives `None` when another holds it.
pub(super) fn try_lock(directory: File) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}
