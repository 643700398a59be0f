//! Signals to the processes of a transient cgroup.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{TransientCgroup, TransientError, cleanup};
use crate::{cgroup::Hierarchy, procfs::unified_path};

/// Time for processes to exit after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl TransientCgroup {
    /// Sends a signal to every process in the cgroup and its descendants, with SIGCONT after a signal that terminates, for
    /// stopped processes. Processes that are forked meanwhile are missed.
    ///
    /// # Errors
    /// When the processes cannot be listed.
    pub fn signal(&self, signal: Signal) -> Result<(), TransientError> {
        self.signal_where(signal, |_| true)
    }

    /// Like [`signal`](Self::signal), for the process ids that `wanted` accepts.
    pub(super) fn signal_where(
        &self,
        signal: Signal,
        wanted: impl Fn(libc::pid_t) -> bool,
    ) -> Result<(), TransientError> {
        for (pid, process) in self.members()? {
            if wanted(pid) {
                send_signal(process.as_fd(), signal);
                if matches!(signal, Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT) {
                    send_signal(process.as_fd(), Signal::SIGCONT);
                }
            }
        }
        Ok(())
    }

    /// Kills one process if it is in the cgroup or a descendant, and returns whether it is. The process id is relative
    /// to the pid namespace of this process.
    pub fn kill_member(&self, pid: u32) -> bool {
        kill_in(&self.hierarchy, self.path(), pid)
    }

    /// Kills every process in the cgroup and its descendants, and waits until they have exited.
    ///
    /// # Errors
    /// When a file of the cgroup cannot be used, or a process does not exit within ten seconds.
    pub fn kill(&self) -> Result<(), TransientError> {
        match fs::write(self.path().join("cgroup.kill"), "1") {
            Ok(()) => {}
            // Before Linux 5.14.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.freeze_and_kill(),
            Err(source) => return Err(self.file_error("cgroup.kill", source)),
        }
        if self.wait_empty(KILL_LIMIT)? {
            Ok(())
        } else {
            Err(TransientError::Unkillable {
                path: self.path().to_path_buf(),
            })
        }
    }

    /// [`kill`](Self::kill) for kernels without `cgroup.kill`: frozen processes cannot fork, but can be killed.
    ///
    /// # Errors
    /// As for [`kill`](Self::kill).
    pub fn freeze_and_kill(&self) -> Result<(), TransientError> {
        let freeze = |state: &str| {
            fs::write(self.path().join("cgroup.freeze"), state)
                .map_err(|source| self.file_error("cgroup.freeze", source))
        };
        freeze("1")?;
        let deadline = Instant::now() + KILL_LIMIT;
        let empty = loop {
            // Processes are frozen one after the other and may fork until then, so the list is read again.
            let killed = self.signal(Signal::SIGKILL);
            match killed.and_then(|()| self.wait_empty(Duration::from_millis(20))) {
                Ok(false) if Instant::now() < deadline => {}
                result => break result,
            }
        };
        freeze("0")?;
        if empty? {
            Ok(())
        } else {
            Err(TransientError::Unkillable {
                path: self.path().to_path_buf(),
            })
        }
    }

    /// The processes in the cgroup and its descendants. A process id may be reused after the list was read, so each
    /// process is pinned by a pidfd before its cgroup is checked.
    fn members(&self) -> Result<Vec<(libc::pid_t, OwnedFd)>, TransientError> {
        let mut found = Vec::new();
        for directory in cleanup::tree(self.path()).map_err(|source| self.file_error("", source))? {
            let text = match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => text,
                // Removed meanwhile, or threaded: its processes are listed in an ancestor.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                    ) =>
                {
                    continue;
                }
                Err(source) => return Err(self.file_error("cgroup.procs", source)),
            };
            for pid in text.lines().filter_map(|line| line.parse::<libc::pid_t>().ok()) {
                // 0 is listed for a process outside the pid namespace.
                if pid > 0
                    && let Some(process) = open_process(pid)
                    && self.holds(pid)
                {
                    found.push((pid, process));
                }
            }
        }
        Ok(found)
    }

    fn holds(&self, pid: libc::pid_t) -> bool {
        holds(&self.hierarchy, self.path(), pid)
    }
}

/// Kills one process if it is in the cgroup with this directory or in a descendant, and returns whether it is. The
/// process id is relative to the pid namespace of this process.
pub fn kill_in(hierarchy: &Hierarchy, directory: &Path, pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return false;
    };
    match open_process(pid) {
        // The pidfd is opened first: the process id cannot be reused for another process then.
        Some(process) if holds(hierarchy, directory, pid) => {
            send_signal(process.as_fd(), Signal::SIGKILL);
            true
        }
        _ => false,
    }
}

fn holds(hierarchy: &Hierarchy, directory: &Path, pid: libc::pid_t) -> bool {
    fs::read(format!("/proc/{pid}/cgroup"))
        .ok()
        .and_then(|text| unified_path(&text))
        .and_then(|cgroup| hierarchy.directory(&cgroup))
        .is_some_and(|of| of.starts_with(directory))
}

/// pidfd_open(2); `None` when the process does not exist.
fn open_process(pid: libc::pid_t) -> Option<OwnedFd> {
    // SAFETY: takes two integers and accesses no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: a non-negative result is a new descriptor without another owner.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2). Errors are ignored: the process may have exited, or this process may not signal it.
pub(super) fn send_signal(process: BorrowedFd<'_>, signal: Signal) {
    // SAFETY: the descriptor is open, and a null siginfo is allowed.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
}
