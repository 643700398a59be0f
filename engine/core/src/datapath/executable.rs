//! Identities of the executables that a policy names.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, UnixSocketId};
use thiserror::Error;

use crate::{hint::Hint, procfs::Mount};

const MAX_DEPTH: usize = UnixSocketId::MAX_DEPTH;

/// Why a file that a policy names could not be identified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// It could not be opened or read.
    #[error("cannot identify the executable {}", path.display())]
    Io {
        /// As the policy names it.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("{} is not a regular file, so nothing can run it", path.display())]
    NotAFile {
        /// As the policy names it.
        path: PathBuf,
    },
    /// Its file system shows user space other identities than the kernel uses.
    #[error(
        "{} is on {file_system}, where executables have identities that user space cannot see: \
         name a file on another file system, or select by uid", path.display()
    )]
    UnstableIdentity {
        /// As the policy names it.
        path: PathBuf,
        /// The file system's type.
        file_system: String,
    },
    /// The directory of a unix socket could not be read.
    #[error("cannot locate the unix socket {}", path.display())]
    Socket {
        /// As the policy names it.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Its path has more components than the kernel programs look at.
    #[error(
        "the path of the unix socket {} has {depth} components in its file system; at most {MAX_DEPTH} are supported",
        path.display()
    )]
    TooDeep {
        /// As the policy names it.
        path: PathBuf,
        /// Components of its path.
        depth: usize,
    },
    /// Its mount was not found.
    #[error("cannot find the file system of {} in mountinfo", path.display())]
    NoMount {
        /// As the policy names it.
        path: PathBuf,
    },
}

impl IdentifyError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            IdentifyError::Io { .. } => "executable_unreadable",
            IdentifyError::NotAFile { .. } => "executable_not_a_file",
            IdentifyError::UnstableIdentity { .. } => "executable_identity_unstable",
            IdentifyError::Socket { .. } => "unix_socket_unreadable",
            IdentifyError::TooDeep { .. } => "unix_socket_path_too_deep",
            IdentifyError::NoMount { .. } => "mount_not_found",
        }
    }
}

impl Hint for IdentifyError {
    fn hint(&self) -> Option<String> {
        match self {
            IdentifyError::Io { .. } | IdentifyError::NotAFile { .. } => {
                Some("rules select executables by the file that exists when the policy goes live".to_owned())
            }
            _ => None,
        }
    }
}

/// Identity of the executable of a process; `None` where its file system shows user space another identity than the
/// kernel uses: no policy can name such an executable.
///
/// # Errors
/// [`IdentifyError`] when it cannot be read, for example after the process has ended.
pub fn identify_process(pid: u32) -> Result<Option<ExecutableId>, IdentifyError> {
    let path = PathBuf::from(format!("/proc/{pid}/exe"));
    // The process may be in another mount namespace.
    match identify_among(&path, &format!("/proc/{pid}/mountinfo")) {
        Ok((id, _)) => Ok(Some(id)),
        Err(IdentifyError::UnstableIdentity { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Path of the executable of a process; `None` if the process has exited, or has executed another file than the one with
/// this identity.
pub fn path_of_process(pid: u32, id: ExecutableId) -> Option<PathBuf> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).ok()?;
    // Checked after the link was read, so that the path is that of this executable.
    let is_same = fs::metadata(&link).is_ok_and(|file| file.ino() == id.inode);
    is_same.then_some(path)
}

/// Identity of a file, following symbolic links, and the open file.
pub(super) fn identify(path: &Path) -> Result<(ExecutableId, OwnedFd), IdentifyError> {
    identify_among(path, "/proc/self/mountinfo")
}

fn identify_among(path: &Path, mounts: &str) -> Result<(ExecutableId, OwnedFd), IdentifyError> {
    let io = |source| IdentifyError::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(IdentifyError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mount = Mount::of(file.as_fd(), Path::new(mounts)).map_err(io)?;
    let mount = mount.ok_or_else(|| IdentifyError::NoMount {
        path: path.to_owned(),
    })?;
    if mount.fs_type == "overlay" || mount.fs_type.starts_with("fuse") {
        return Err(IdentifyError::UnstableIdentity {
            path: path.to_owned(),
            file_system: mount.fs_type,
        });
    }
    let id = ExecutableId {
        device: mount.device,
        inode: metadata.ino(),
    };
    Ok((id, file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_its_file() {
        let own = std::env::current_exe().unwrap();
        let by_process = identify_process(std::process::id());
        match identify(&own) {
            Ok((id, _)) => assert_eq!(by_process.unwrap(), Some(id)),
            // The tests are on such a file system.
            Err(IdentifyError::UnstableIdentity { .. }) => assert_eq!(by_process.unwrap(), None),
            Err(error) => panic!("{error}"),
        }
        assert!(matches!(
            identify_process(u32::MAX),
            Err(IdentifyError::Io { .. })
        ));
    }

    #[test]
    fn the_path_of_a_process_is_that_of_the_identity() {
        let own = std::env::current_exe().unwrap();
        let inode = fs::metadata(&own).unwrap().ino();
        let path_of = |pid, inode| path_of_process(pid, ExecutableId { device: 0, inode });
        assert_eq!(path_of(std::process::id(), inode), Some(own));
        assert_eq!(path_of(std::process::id(), inode + 1), None);
        assert_eq!(path_of(u32::MAX, inode), None);
    }

    #[test]
    fn directories_are_refused() {
        assert!(matches!(
            identify(Path::new("/")),
            Err(IdentifyError::NotAFile { .. })
        ));
        assert!(matches!(
            identify(Path::new("/no/such/file")),
            Err(IdentifyError::Io { .. })
        ));
    }
}
