//! Identities of the executables that a policy names.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use engine_common::{ExecutableId, UnixSocketId};
use thiserror::Error;

use crate::procfs::Mount;

const MAX_DEPTH: usize = UnixSocketId::MAX_DEPTH;

/// Why a file that a policy names could not be identified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// It could not be opened or looked at.
    #[error("cannot identify the executable {}", path.display())]
    Io {
        /// As the policy names it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no regular file.
    #[error("{} is not a regular file, so nothing can run it", path.display())]
    NotAFile {
        /// As the policy names it.
        path: PathBuf,
    },
    /// Its file system shows user space other identities than the kernel's.
    #[error(
        "{} is on {file_system}, where the kernel knows executables by identities that user space cannot see: \
         name a file outside of it, or select by uid", path.display()
    )]
    UnstableIdentity {
        /// As the policy names it.
        path: PathBuf,
        /// The file system's type.
        file_system: String,
    },
    /// The folder that a unix socket is or will be in could not be looked at.
    #[error("cannot tell where the unix socket {} is", path.display())]
    Socket {
        /// As the policy names it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It lies deeper in its file system than the kernel programs go.
    #[error(
        "the path of the unix socket {} has {depth} parts in its file system, and programs look at {MAX_DEPTH}",
        path.display()
    )]
    TooDeep {
        /// As the policy names it.
        path: PathBuf,
        /// Parts of its path.
        depth: usize,
    },
    /// Its mount was not found.
    #[error("cannot find the file system of {} in mountinfo", path.display())]
    NoMount {
        /// As the policy names it.
        path: PathBuf,
    },
}

/// Identity of the executable that a process runs; `None` where its file system shows user space another
/// one than the kernel knows, which is that of no executable a policy can name.
///
/// # Errors
/// [`IdentifyError`] where it cannot be known, as of a process that has ended.
pub fn identify_process(pid: u32) -> Result<Option<ExecutableId>, IdentifyError> {
    let path = PathBuf::from(format!("/proc/{pid}/exe"));
    // Its mounts are those of its own mount namespace.
    match identify_among(&path, &format!("/proc/{pid}/mountinfo")) {
        Ok((id, _)) => Ok(Some(id)),
        Err(IdentifyError::UnstableIdentity { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Identity of a file, following symbolic links, and the file, held open.
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
    fn folders_are_refused() {
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
