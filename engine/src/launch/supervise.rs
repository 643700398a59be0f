//! Standing between the caller and the command until it has ended.
//!
//! The command stays in our process group. A group of its own, made the foreground group of the
//! terminal, would take the terminal from the rest of a pipeline (`tidegate exec -- make | less`),
//! and from the shell if we were killed. So:
//!
//! - What the terminal sends (^C, ^\, ^Z, resize, hang-up) reaches the command directly. We get it
//!   too, see that the kernel sent it, and do not send it again.
//! - What a process sends us (`kill <pid of tidegate>`) is passed on. Sent to the whole group
//!   (`kill %1`), it reaches the command twice; that cannot be told apart.
//! - When the command stops we stop too, so the shell sees a stopped job; continued, we continue it.
//! - An interactive shell as the command makes groups of its own and moves the terminal as it
//!   always does.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};

use super::{
    Child, Descendants, Leftover, SignalError, SignalSource, TransientCgroup, TransientError,
    member::send_signal, signal::Arrived, terminal::Terminal,
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The exit code to pass on: its own, or 128 and the number of the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(number) => 128 + number,
        }
    }
}

/// What is left after [`Supervisor::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the command ended.
    pub exit: Exit,
    /// What became of processes that outlived it.
    pub leftover: Leftover,
}

/// A descriptor to watch meanwhile, and what to do when it can be read.
pub struct Watch<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Called whenever it is readable; it must read, or it is called again at once.
    pub ready: &'a mut dyn FnMut(),
}

/// Supervision failed. The command may still run, inside its cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// poll(2).
    #[error("cannot wait for events: {0}")]
    Poll(io::Error),
    /// waitid(2).
    #[error("cannot learn how the command ended: {0}")]
    Wait(io::Error),
    /// Signals.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] TransientError),
}

/// Waits for a command, passing signals on.
#[derive(Debug)]
pub struct Supervisor<'a> {
    child: Child,
    pub(super) cgroup: &'a TransientCgroup,
    pub(super) signals: &'a SignalSource,
    pub(super) terminal: Terminal,
}

impl<'a> Supervisor<'a> {
    /// Of a command that was started in this cgroup, with these signals.
    pub fn new(child: Child, cgroup: &'a TransientCgroup, signals: &'a SignalSource) -> Supervisor<'a> {
        Supervisor {
            child,
            cgroup,
            signals,
            terminal: Terminal::open(),
        }
    }

    /// Runs until the command has ended and its descendants are dealt with. Watched descriptors may
    /// have more to read afterwards.
    ///
    /// # Errors
    /// When a system call that never fails in practice does.
    pub fn run(
        self,
        descendants: Descendants,
        watches: &mut [Watch<'_>],
    ) -> Result<Finished, SuperviseError> {
        let exit = loop {
            if let Some(exit) = self.reap()? {
                break exit;
            }
            let child = PollFd::new(self.child.as_fd(), PollFlags::POLLIN);
            self.wait(child, PollTimeout::NONE, watches)?;
            while let Some(arrived) = self.signals.next()? {
                self.pass_on(arrived);
            }
        };
        self.terminal.take_back();
        let leftover = descendants.settle(&self, watches)?;
        Ok(Finished { exit, leftover })
    }

    /// Waits for a signal, for `also`, or for the time to pass, and serves the watches.
    pub(super) fn wait(
        &self,
        also: PollFd<'_>,
        timeout: PollTimeout,
        watches: &mut [Watch<'_>],
    ) -> Result<(), SuperviseError> {
        let signals = PollFd::new(self.signals.as_fd(), PollFlags::POLLIN);
        let mut polled = vec![signals, also];
        polled.extend(
            watches
                .iter()
                .map(|watch| PollFd::new(watch.fd, PollFlags::POLLIN)),
        );
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(SuperviseError::Poll(errno.into())),
        }
        let readable: Vec<bool> = polled
            .iter()
            .skip(2)
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        for (watch, _) in watches.iter_mut().zip(readable).filter(|(_, readable)| *readable) {
            (watch.ready)();
        }
        Ok(())
    }

    fn pass_on(&self, arrived: Arrived) {
        match arrived.signal {
            // `run` looks after the child in each round.
            Signal::SIGCHLD => {}
            // Continued as a group or alone: it does no harm twice. An alarm set before we were
            // started comes from the kernel, and to us alone.
            Signal::SIGCONT | Signal::SIGALRM => send_signal(self.child.as_fd(), arrived.signal),
            _ if arrived.by_kernel => {}
            signal => send_signal(self.child.as_fd(), signal),
        }
    }

    /// How the command ended, if it has. Stops with it when it was stopped.
    fn reap(&self) -> Result<Option<Exit>, SuperviseError> {
        loop {
            // SAFETY: all fields are integers or unused; the kernel fills it in.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the descriptor is open and `info` lives across the call.
            let result = unsafe {
                libc::waitid(
                    libc::P_PIDFD,
                    self.child.as_fd().as_raw_fd() as libc::id_t,
                    &mut info,
                    libc::WEXITED | libc::WSTOPPED | libc::WNOHANG,
                )
            };
            match result {
                0 => {}
                _ if Errno::last() == Errno::EINTR => continue,
                _ => return Err(SuperviseError::Wait(io::Error::last_os_error())),
            }
            // SAFETY: waitid filled in the fields of SIGCHLD, or left zeroes when there is no news.
            let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
            match info.si_code {
                _ if pid == 0 => return Ok(None),
                libc::CLD_EXITED => return Ok(Some(Exit::Code(status))),
                libc::CLD_KILLED | libc::CLD_DUMPED => return Ok(Some(Exit::Signal(status))),
                _ => self.terminal.stop_self(),
            }
        }
    }
}
