//! Where links are pinned: below `tidegate` in the BPF file system.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
};
use thiserror::Error;

use crate::procfs::MountTable;

/// Environment variable that names the BPF file system to use.
pub const BPFFS_VARIABLE: &str = "TIDEGATE_BPFFS";

/// Where the BPF file system is mounted by convention.
const CONVENTIONAL: &str = "/sys/fs/bpf";

/// Times that a folder is made anew when a sweep takes it away.
const TRIES: u32 = 16;

/// Why there is no place for pins.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinsError {
    /// No BPF file system, and none could be mounted.
    #[error(
        "no BPF file system is mounted, and none can be mounted at {CONVENTIONAL}: \
         run `mount -t bpf -o mode=700 bpf {CONVENTIONAL}`, or name one by {BPFFS_VARIABLE}"
    )]
    NotMounted(#[source] io::Error),
    /// A folder or pin could not be made, read or removed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folder of one gate's pins, 0700 root. While this value lives it is locked (flock), by which
/// [`sweep`](super::sweep) tells it from a left-over.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PinFolder {
    /// Makes `<bpffs>/tidegate/exec/<id>` for the cgroup with this id.
    ///
    /// # Errors
    /// [`PinsError`].
    pub fn create(cgroup: u64) -> Result<PinFolder, PinsError> {
        let path = exec_folder()?.join(cgroup.to_string());
        let mut tries = 0;
        loop {
            make(&path)?;
            tries += 1;
            match lock(&path) {
                Ok(Some(lock)) => return Ok(PinFolder { path, _lock: lock }),
                // Another run's sweep took the empty folder for a left-over.
                Ok(None) if tries < TRIES => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                Ok(None) => {
                    let source = io::ErrorKind::WouldBlock.into();
                    return Err(PinsError::Io {
                        step: "lock",
                        path,
                        source,
                    });
                }
                Err(source) => {
                    return Err(PinsError::Io {
                        step: "lock",
                        path,
                        source,
                    });
                }
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder and the pins in it. What is pinned lives on for as long as somebody
    /// holds it.
    ///
    /// # Errors
    /// [`PinsError::Io`].
    pub fn remove(self) -> Result<(), PinsError> {
        remove(&self.path)
    }
}

/// Removes what earlier gates left behind whose cgroup is gone, and gives how many; `is_alive` is
/// asked with the cgroup's id, which is the folder's name. One whose owner was killed but whose
/// processes live goes on enforcing.
///
/// # Errors
/// [`PinsError`].
pub(super) fn sweep(is_alive: impl Fn(u64) -> bool) -> Result<usize, PinsError> {
    let parent = exec_folder()?;
    let entries = fs::read_dir(&parent).map_err(|source| PinsError::Io {
        step: "read",
        path: parent.clone(),
        source,
    })?;
    let mut swept = 0;
    for folder in entries.flatten() {
        let folder = folder.path();
        let id = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let is_dead = id.is_some_and(|id| !is_alive(id));
        // The lock is held until the folder is gone.
        if is_dead && let Ok(Some(_held)) = lock(&folder) {
            remove(&folder)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Locks a folder; `None` when another holds it.
pub(super) fn lock(folder: &Path) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(File::open(folder)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn remove(folder: &Path) -> Result<(), PinsError> {
    let at = |step, path: &Path| {
        let path = path.to_owned();
        move |source| PinsError::Io { step, path, source }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Another run swept it first.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at("read", folder)(e)),
    };
    for entry in entries.flatten() {
        gone_is_fine(fs::remove_file(entry.path())).map_err(at("remove", &entry.path()))?;
    }
    gone_is_fine(fs::remove_dir(folder)).map_err(at("remove", folder))
}

/// Removes the pin of a link. Its program is attached no longer when this returns, so that it can be attached again:
/// with the pin alone the kernel lets go of a link some time later (`bpf_link_put`, kernel/bpf/syscall.c), and refuses
/// what is still attached (EBUSY); with a descriptor that is closed last, at once.
pub(super) fn remove_link(path: &Path) -> io::Result<()> {
    // One that cannot be opened is removed all the same.
    let held = super::syscall::open_pin(path);
    let removed = gone_is_fine(fs::remove_file(path));
    drop(held);
    removed
}

pub(super) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn exec_folder() -> Result<PathBuf, PinsError> {
    let exec = own_folder()?.join("exec");
    make(&exec)?;
    Ok(exec)
}

/// The folder of all pins of tidegate.
pub(super) fn own_folder() -> Result<PathBuf, PinsError> {
    let ours = bpffs()?.join("tidegate");
    make(&ours)?;
    Ok(ours)
}

impl PinsError {
    pub(super) fn io(step: &'static str, path: &Path) -> impl Fn(io::Error) -> PinsError {
        let path = path.to_owned();
        move |source| PinsError::Io {
            step,
            path: path.clone(),
            source,
        }
    }
}

/// Makes a folder that only root may enter; one that exists is closed to others.
pub(super) fn make(path: &Path) -> Result<(), PinsError> {
    let at = |step| {
        move |source| PinsError::Io {
            step,
            path: path.to_owned(),
            source,
        }
    };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            // Where others may write to the file system's root (a plain mount is 1777) it could be theirs, or
            // lead anywhere.
            let there = fs::symlink_metadata(path).map_err(at("look at"))?;
            if !there.is_dir() || there.uid() != nix::unistd::geteuid().as_raw() {
                let error = io::Error::other("somebody else put it there; remove it");
                return Err(at("use")(error));
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at("close to others"))
        }
        Err(e) => Err(at("make")(e)),
    }
}

/// The BPF file system: the one named, the first mounted, or one mounted now where systemd would.
fn bpffs() -> Result<PathBuf, PinsError> {
    if let Some(named) = std::env::var_os(BPFFS_VARIABLE) {
        return Ok(named.into());
    }
    if let Some(mounted) = mounted() {
        return Ok(mounted);
    }
    mount(
        Some("bpf"),
        CONVENTIONAL,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|errno| PinsError::NotMounted(errno.into()))?;
    Ok(CONVENTIONAL.into())
}

/// The mounted BPF file system to use: the one at the conventional directory if there are several.
fn mounted() -> Option<PathBuf> {
    let table = MountTable::read().ok()?;
    let mut found: Vec<&PathBuf> = table.reachable("bpf").map(|mount| &mount.mount_point).collect();
    // Stable: otherwise the first one in the table.
    found.sort_by_key(|point| *point != Path::new(CONVENTIONAL));
    found.first().map(|point| (*point).clone())
}
