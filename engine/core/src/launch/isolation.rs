//! The private mount namespace of a command.
//!
//! A command that runs as root, or as a user with delegated cgroups, could migrate itself to another
//! cgroup, and as root it could unlink pinned programs. Therefore it gets its own mount namespace: every
//! cgroup2 mount shows only the command's own cgroup, read-only, and an empty read-only directory
//! covers every BPF file system. (Read-only alone is not enough: clone3 with CLONE_INTO_CGROUP needs
//! only a descriptor of the other cgroup's directory, and checks the write permission of the inode, not of
//! the mount; `cgroup_may_write`, kernel/cgroup/cgroup.c.) The command cannot undo this because it also
//! loses CAP_SYS_ADMIN, and mounts inherited by a new user namespace are locked. A command that keeps
//! CAP_SYS_ADMIN could undo it and therefore gets no isolation: only then can one `exec` run inside
//! another.
//!
//! Limits: a command that runs as the same user as processes outside can make those act for it
//! (`/proc/<pid>/root`, ptrace, cron, a session bus), and as root it can write the files of the
//! host. A policy applies to a tree of processes, not to a user.
//!
//! New mounts of the host still propagate into the namespace (it is a slave, as automounters need).

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

/// The mount namespace cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolationError {
    /// The mounts cannot be listed.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Mounts(io::Error),
    /// The working directory is in a file system that the command must not access.
    #[error(
        "the working directory {0} is in a bpf or cgroup file system, which the command must not access; \
         start it from another directory"
    )]
    Inside(PathBuf),
    /// A standard descriptor is a directory that the command must not access.
    #[error(
        "descriptor {0} is a directory of a bpf or cgroup file system, which the command must not access"
    )]
    Inherited(i32),
}

/// The mounts to change, prepared for a process that must not allocate.
#[derive(Debug)]
pub(super) struct Plan {
    /// The command's cgroup, bind-mounted over each cgroup2 mount.
    own: CString,
    read_only: Vec<(CString, libc::c_ulong)>,
    covered: Vec<CString>,
}

/// The part of the plan that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Namespace,
    Propagation,
    ReadOnly,
    Cover,
}

impl Plan {
    /// For a command that starts in this cgroup.
    pub(super) fn prepare(cgroup: BorrowedFd<'_>) -> Result<Plan, IsolationError> {
        let is_protected =
            |status: Statfs| [BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC].contains(&status.filesystem_type());
        // A relative path would lead below the covering mount.
        if statfs(Path::new(".")).is_ok_and(is_protected) {
            let directory = std::env::current_dir().unwrap_or_else(|_| ".".into());
            return Err(IsolationError::Inside(directory));
        }
        for standard in 0..=2 {
            let path = format!("/proc/self/fd/{standard}");
            let is_directory = fs::metadata(&path).is_ok_and(|file| file.is_dir());
            if is_directory && statfs(Path::new(&path)).is_ok_and(is_protected) {
                return Err(IsolationError::Inherited(standard));
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
        // The mount that shows the command's cgroup comes last: until then it is the source of the bind mounts.
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

    /// Creates the namespace and changes the mounts in it; stops at the first failure.
    ///
    /// # Safety
    /// The process must have one thread, and exec or exit afterwards: the mounts are not restored. Async-signal-safe:
    /// system calls on prepared data only.
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
                // MS_REMOUNT with MS_BIND changes this mount, not the superblock.
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
    fn every_cgroup2_mount_and_every_bpffs_is_covered() {
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
