//! Identities of the executables that a policy names.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use engine_common::ExecutableId;
use thiserror::Error;

use crate::compile::Executables;

/// Why an executable could not be identified.
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
    /// Its mount was not found.
    #[error("cannot find the file system of {} in mountinfo", path.display())]
    NoMount {
        /// As the policy names it.
        path: PathBuf,
    },
}

/// Executables identified, and held open so that their inode numbers cannot be given to other
/// files for as long as this lives.
#[derive(Debug, Default)]
pub struct IdentifiedExecutables {
    /// The identities.
    pub executables: Executables,
    held: Vec<OwnedFd>,
}

impl IdentifiedExecutables {
    /// Identifies the files, following symbolic links.
    ///
    /// # Errors
    /// [`IdentifyError`] about the first that fails.
    pub fn identify(paths: &BTreeSet<&Path>) -> Result<IdentifiedExecutables, IdentifyError> {
        let mut identified = IdentifiedExecutables::default();
        for &path in paths {
            let (id, fd) = identify(path)?;
            identified.executables.insert(path.to_owned(), id);
            identified.held.push(fd);
        }
        Ok(identified)
    }

    /// How many files are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
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

fn identify(path: &Path) -> Result<(ExecutableId, OwnedFd), IdentifyError> {
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
    // st_dev may be another number than the superblock's (btrfs): mountinfo shows the latter.
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).map_err(io)?;
    let mounts = fs::read_to_string(mounts).map_err(io)?;
    let mount = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .and_then(|id| mount_of(&mounts, id.trim()))
        .ok_or_else(|| IdentifyError::NoMount {
            path: path.to_owned(),
        })?;
    if mount.file_system == "overlay" || mount.file_system.starts_with("fuse") {
        return Err(IdentifyError::UnstableIdentity {
            path: path.to_owned(),
            file_system: mount.file_system,
        });
    }
    let id = ExecutableId {
        device: mount.device,
        inode: metadata.ino(),
    };
    Ok((id, file.into()))
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// In the kernel's encoding, see [`ExecutableId::device`].
    device: u64,
    file_system: String,
}

/// The mount with this id (Documentation/filesystems/proc.rst, 3.5).
fn mount_of(mountinfo: &str, id: &str) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        if fields.next()? != id {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some(Mount {
            device: major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?,
            file_system: right.split(' ').next()?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_id() {
        let text =
            "36 35 98:1 /a /b rw shared:1 - ext4 /dev/root rw\n361 35 0:27 / /c rw - overlay overlay rw\n";
        let mount = mount_of(text, "36").unwrap();
        assert_eq!((mount.device, mount.file_system.as_str()), (98 << 20 | 1, "ext4"));
        assert_eq!(mount_of(text, "361").unwrap().file_system, "overlay");
        assert_eq!(mount_of(text, "3"), None);
    }

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
