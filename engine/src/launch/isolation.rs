//! The private mount namespace of a command.
//!
//! A command that runs as root, or as a user to whom cgroups were delegated, could write itself
//! into another cgroup, and a command that runs as root could unlink pinned programs. So it gets
//! its own mount namespace, in which every cgroup2 mount shows the command's own cgroup and nothing
//! above it, read-only, and every bpffs is covered by an empty, read-only directory. (Read-only alone would
//! not do: clone3 with CLONE_INTO_CGROUP wants no more than a descriptor of the other cgroup's directory,
//! and asks the file system for the right to write, not the mount; `cgroup_may_write`, kernel/cgroup/cgroup.c.) The locks hold because the command also loses CAP_SYS_ADMIN, and
//! because user namespaces it makes are not allowed to lift what a namespace above set. A command
//! that keeps CAP_SYS_ADMIN could lift all this, so it is spared it: only then can one `exec` run
//! inside another.
//!
//! What this does not promise: a command that runs as the same user as processes outside can ask
//! those to act for it (`/proc/<pid>/root`, ptrace, cron, a session bus), and one that runs as root
//! owns the files of the machine. The gate binds a tree of processes, not a user.
//!
//! New mounts of the host still arrive in the namespace (it is a slave, as automounters need).

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
    ptr,
};

use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, Statfs, statfs};

use crate::procfs::MountTable;

/// The namespace cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolationError {
    /// The mounts cannot be listed.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mounts(io::Error),
    /// The caller stands where the command may not be.
    #[error(
        "the working directory {0} lies in a bpf or cgroup file system, which is closed to the command; \
         start it from another directory"
    )]
    Inside(PathBuf),
    /// The command would be handed a way out.
    #[error("descriptor {0} is a directory of a bpf or cgroup file system, which is closed to the command")]
    Handed(i32),
}

/// The mounts to change, made ready for a process that may not allocate.
#[derive(Debug)]
pub(super) struct Plan {
    /// The command's cgroup, put over each mount of its file system.
    own: CString,
    read_only: Vec<(CString, libc::c_ulong)>,
    covered: Vec<CString>,
}

/// The part of the plan that failed, for the parent's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Namespace,
    Propagation,
    ReadOnly,
    Cover,
}

impl Plan {
    /// For a command that is to start in this cgroup.
    pub(super) fn prepare(cgroup: BorrowedFd<'_>) -> Result<Plan, IsolationError> {
        let is_closed =
            |status: Statfs| [BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC].contains(&status.filesystem_type());
        // From inside, a relative path would lead below the cover.
        if statfs(Path::new(".")).is_ok_and(is_closed) {
            let directory = std::env::current_dir().unwrap_or_else(|_| ".".into());
            return Err(IsolationError::Inside(directory));
        }
        for standard in 0..=2 {
            let path = format!("/proc/self/fd/{standard}");
            let is_directory = fs::metadata(&path).is_ok_and(|file| file.is_dir());
            if is_directory && statfs(Path::new(&path)).is_ok_and(is_closed) {
                return Err(IsolationError::Handed(standard));
            }
        }
        let own =
            fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).map_err(IsolationError::Mounts)?;
        Plan::from_table(&MountTable::read().map_err(IsolationError::Mounts)?, &own)
    }

    fn from_table(table: &MountTable, own: &Path) -> Result<Plan, IsolationError> {
        let path = |path: &Path| {
            CString::new(path.as_os_str().to_owned().into_vec())
                .map_err(|error| IsolationError::Mounts(error.into()))
        };
        let mut mounts: Vec<_> = table.reachable("cgroup2").collect();
        // The one that shows the command's cgroup last: until then it leads to what covers the others.
        mounts.sort_by_key(|mount| own.starts_with(&mount.mount_point));
        Ok(Plan {
            own: path(own)?,
            read_only: mounts
                .into_iter()
                .map(|mount| Ok((path(&mount.mount_point)?, mount.flags() | libc::MS_RDONLY)))
                .collect::<Result<_, _>>()?,
            covered: table
                .reachable("bpf")
                .map(|mount| path(&mount.mount_point))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Makes the namespace and changes the mounts in it; the first failure ends it.
    ///
    /// # Safety
    /// Only in a process that has one thread and that will exec or exit: it changes the mounts for
    /// good. Async-signal-safe: it makes system calls on prepared data only.
    pub(super) unsafe fn apply(&self) -> Result<(), (Part, i32)> {
        // SAFETY: system calls with NUL-terminated strings that live across them.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS), Part::Namespace)?;
            let changed = libc::mount(
                ptr::null(),
                c"/".as_ptr(),
                ptr::null(),
                libc::MS_REC | libc::MS_SLAVE,
                ptr::null(),
            );
            check(changed, Part::Propagation)?;
            for (path, flags) in &self.read_only {
                let covered = libc::mount(
                    self.own.as_ptr(),
                    path.as_ptr(),
                    ptr::null(),
                    libc::MS_BIND,
                    ptr::null(),
                );
                check(covered, Part::ReadOnly)?;
                // Bind and remount together change this mount, not the file system behind it.
                let changed = libc::mount(
                    ptr::null(),
                    path.as_ptr(),
                    ptr::null(),
                    libc::MS_REMOUNT | libc::MS_BIND | flags,
                    ptr::null(),
                );
                check(changed, Part::ReadOnly)?;
            }
            for path in &self.covered {
                let changed = libc::mount(
                    c"tidegate".as_ptr(),
                    path.as_ptr(),
                    c"tmpfs".as_ptr(),
                    libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                    c"size=4k,mode=555".as_ptr().cast(),
                );
                check(changed, Part::Cover)?;
            }
        }
        Ok(())
    }
}

fn check(result: libc::c_int, part: Part) -> Result<(), (Part, i32)> {
    if result == 0 {
        Ok(())
    } else {
        Err((part, nix::errno::Errno::last_raw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cgroup2_mount_and_every_bpffs() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:7 / /sys/fs/cgroup rw,nosuid - cgroup2 c rw\n\
            3 1 0:7 /x /mnt/a\\040b rw - cgroup2 c rw\n\
            4 1 0:9 / /sys/fs/bpf rw - bpf bpf rw\n\
            5 1 0:8 / /sys/fs/cgroup/cpu rw - cgroup c rw\n";
        let own = Path::new("/sys/fs/cgroup/x/y");
        let plan = Plan::from_table(&MountTable::parse(text).unwrap(), own).unwrap();
        assert_eq!(
            plan.read_only,
            [
                (c"/mnt/a b".to_owned(), libc::MS_RDONLY),
                (c"/sys/fs/cgroup".to_owned(), libc::MS_NOSUID | libc::MS_RDONLY),
            ]
        );
        assert_eq!(plan.covered, [c"/sys/fs/bpf".to_owned()]);
    }
}
