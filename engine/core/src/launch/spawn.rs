//! Starts a command inside a cgroup: no instruction of it runs outside.

use std::{
    ffi::{NulError, OsString},
    fmt, fs,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use rustix::thread::{Gid, Uid};

use super::{
    Command, IsolationError, KeepFds, SignalSource,
    child::{Failure, Identity, Setup},
    isolation::Plan,
};
use crate::hint::Hint;

/// linux/sched.h; wider than the `int` that the C library declares.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// linux/sched.h: resets signal handlers in the child.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// A started command. Dropping it does not end the process.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    pidfd: OwnedFd,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

/// The pidfd: readable once the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A step of the child before it executes the command.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Step { $($(#[$doc])* $name,)* }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)*];

            fn text(self) -> &'static str {
                match self { $(Step::$name => $text,)* }
            }
        }
    };
}

steps! {
    /// Dispositions and mask.
    Signals = "reset its signals",
    /// unshare(CLONE_NEWNS).
    MountNamespace = "create a private mount namespace (this needs CAP_SYS_ADMIN)",
    /// Mount propagation.
    Propagation = "set the mount propagation",
    /// The cgroup2 mounts.
    ReadOnlyCgroups = "make the cgroup mounts read-only",
    /// The bpf mounts.
    CoverBpf = "cover the bpf file systems",
    /// The bounding set, and no_new_privs where it cannot be lowered.
    BoundingSet = "lower the capability bounding set",
    /// setgroups.
    Groups = "set its supplementary groups (this needs CAP_SETGID)",
    /// setresgid.
    Group = "change its group (this needs CAP_SETGID)",
    /// setresuid.
    User = "change its user (this needs CAP_SETUID)",
    /// capset.
    Capabilities = "drop capabilities",
    /// close_range.
    CloseFds = "close inherited descriptors (this needs Linux 5.9)",
    /// execve.
    Exec = "run the program",
}

impl Step {
    pub(super) fn from_id(id: u32) -> Option<Step> {
        Step::ALL.iter().copied().find(|step| *step as u32 == id)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The command was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program does not exist.
    #[error("{}: command not found", .program.display())]
    NotFound {
        /// As given on the command line.
        program: OsString,
    },
    /// The kernel does not execute the program.
    #[error("{}: cannot be executed: {source}", .program.display())]
    NotExecutable {
        /// As given on the command line.
        program: OsString,
        /// The kernel's error.
        source: io::Error,
    },
    /// The program, an argument or a variable contains a NUL byte.
    #[error("the command, an argument or an environment variable contains a NUL byte")]
    Nul(#[from] NulError),
    /// A descriptor to keep is not open.
    #[error("cannot keep descriptor {fd}: it was not open when tidegate started")]
    NoSuchFd {
        /// The descriptor.
        fd: RawFd,
    },
    /// The mount namespace could not be prepared.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    /// clone3(2) failed.
    #[error("cannot start a process in the cgroup: {source}")]
    Clone {
        /// The kernel's error.
        source: io::Error,
    },
    /// The pipe on which the child reports a failure.
    #[error("cannot monitor the start of the command: {0}")]
    Report(io::Error),
    /// A step of the child failed; no instruction of the command ran.
    #[error("the command was not started: its process could not {step}: {source}")]
    Setup {
        /// The step that failed.
        step: Step,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Hint for SpawnError {
    fn hint(&self) -> Option<String> {
        match self {
            SpawnError::Clone { source } => clone_hint(source).map(str::to_owned),
            _ => None,
        }
    }
}

fn clone_hint(error: &io::Error) -> Option<&'static str> {
    Some(match error.raw_os_error() {
        Some(libc::ENOSYS | libc::E2BIG | libc::EINVAL) => {
            "clone3 with CLONE_INTO_CGROUP needs Linux 5.7, and a seccomp filter must allow it"
        }
        Some(libc::EOPNOTSUPP | libc::EBUSY) => {
            "the parent cgroup does not allow processes here (see its cgroup.type and cgroup.subtree_control)"
        }
        Some(libc::EAGAIN) => "the limit of processes is reached (ulimit -u, pids.max)",
        _ => return None,
    })
}

impl SpawnError {
    /// The exit code as of env(1) and the shell: 127 not found, 126 not executable, 125 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            SpawnError::NotFound { .. } => 127,
            SpawnError::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

impl Command {
    /// Starts the command in the cgroup (clone3 with CLONE_INTO_CGROUP, Linux 5.7) and waits until the program is
    /// executed. It stays in the process group of this process, see [`Supervisor`](super::Supervisor).
    ///
    /// # Errors
    /// When it could not be started; then no instruction of it ran.
    pub fn spawn(&self, cgroup: BorrowedFd<'_>, signals: &SignalSource) -> Result<Child, SpawnError> {
        let (report, reported) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::Report(errno.into()))?;
        let mut setup = Setup {
            image: self.prepare()?,
            isolation: self.isolates().then(|| Plan::prepare(cgroup)).transpose()?,
            mask: signals.previous_mask(),
            drop: self.keep_capabilities.to_drop(),
            identity: self.user.groups().map(|groups| Identity {
                uid: Uid::from_raw(self.user.uid()),
                gid: Gid::from_raw(self.user.gid()),
                supplementary_groups: groups.iter().copied().map(Gid::from_raw).collect(),
            }),
            close: self.keep_fds.ranges_to_close(reported.as_raw_fd())?,
            report: reported.as_raw_fd(),
        };
        // SAFETY: the child only runs `setup`, which does not return.
        let child = unsafe {
            match clone_into(cgroup).map_err(|source| SpawnError::Clone { source })? {
                Some(child) => child,
                None => setup.run(),
            }
        };
        drop(reported);

        let mut bytes = Vec::with_capacity(Failure::SIZE);
        fs::File::from(report)
            .read_to_end(&mut bytes)
            .map_err(SpawnError::Report)?;
        let Some(failure) = Failure::decode(&bytes) else {
            // Closed without a report: the program was executed, or a signal ended the child before.
            return Ok(child);
        };
        child.reap();
        let source = io::Error::from_raw_os_error(failure.errno);
        Err(match (failure.step, failure.errno) {
            (Step::Exec, libc::ENOENT | libc::ENOTDIR) => SpawnError::NotFound {
                program: self.program.clone(),
            },
            (Step::Exec, _) => SpawnError::NotExecutable {
                program: self.program.clone(),
                source,
            },
            (step, _) => SpawnError::Setup { step, source },
        })
    }
}

impl Child {
    /// Reaps a child that has exited.
    fn reap(&self) {
        // SAFETY: a null siginfo is allowed.
        unsafe {
            libc::waitid(
                libc::P_PIDFD,
                self.pidfd.as_raw_fd() as libc::id_t,
                std::ptr::null_mut(),
                libc::WEXITED,
            )
        };
    }
}

/// Forks into a cgroup. Returns twice: in this process with the child, in the child with `None`.
///
/// # Safety
/// The child may only make system calls on data prepared before, and must exec or exit.
unsafe fn clone_into(cgroup: BorrowedFd<'_>) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields are integers, for which zero means *not set*.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP | CLONE_CLEAR_SIGHAND;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of the memory and returns here with 0.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some(Child {
            pid: pid as libc::pid_t,
            // SAFETY: the kernel has stored a new descriptor there, without another owner.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
        _ => Err(io::Error::last_os_error()),
    }
}

impl KeepFds {
    /// The ranges between the kept descriptors, above 2. Descriptors that this process opened cannot be kept: they are
    /// close-on-exec.
    fn ranges_to_close(&self, report: RawFd) -> Result<Vec<(u32, u32)>, SpawnError> {
        let kept = match self {
            KeepFds::All => return Ok(Vec::new()),
            KeepFds::Standard => &[][..],
            KeepFds::Also(kept) => kept,
        };
        for &fd in kept {
            // SAFETY: F_GETFD takes any integer and accesses no memory.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
            if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
                return Err(SpawnError::NoSuchFd { fd });
            }
        }
        Ok(gaps(kept.iter().copied().chain([report])))
    }
}

fn gaps(kept: impl Iterator<Item = RawFd>) -> Vec<(u32, u32)> {
    let mut kept: Vec<u32> = kept.filter_map(|fd| u32::try_from(fd).ok()).collect();
    kept.sort_unstable();
    let mut ranges = Vec::with_capacity(kept.len() + 1);
    let mut next = 3;
    for fd in kept {
        if fd > next {
            ranges.push((next, fd - 1));
        }
        next = next.max(fd + 1);
    }
    ranges.push((next, u32::MAX));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_leave_out_kept_descriptors() {
        let all = u32::MAX;
        assert_eq!(gaps([7].into_iter()), [(3, 6), (8, all)]);
        assert_eq!(gaps([3, 4, 9, 9, 0].into_iter()), [(5, 8), (10, all)]);
        assert_eq!(gaps([1, 5, 3].into_iter()), [(4, 4), (6, all)]);
    }

    #[test]
    fn steps_have_ids_and_texts() {
        for step in Step::ALL {
            assert_eq!(Step::from_id(*step as u32), Some(*step));
            assert!(!step.to_string().is_empty());
        }
        assert_eq!(Step::from_id(99), None);
    }
}
