//! Supervises the command until it has exited.
//!
//! The command stays in the process group of tidegate. Its own group, made the foreground group of the terminal, would
//! take the terminal from the rest of a pipeline (`tidegate exec -- make | less`), and from the shell if tidegate were
//! killed. Therefore:
//!
//! - Signals of the terminal (^C, ^\, ^Z, resize, hang-up) reach the command directly. Tidegate receives them too, sees
//!   that the kernel sent them, and does not forward them.
//! - Signals sent by a process (`kill <pid of tidegate>`) are forwarded. Sent to the whole group (`kill %1`), they reach
//!   the command twice; the two cases cannot be distinguished.
//! - When the command stops, tidegate stops too, so that the shell sees a stopped job; when continued, it continues the
//!   command.
//! - An interactive shell as the command creates its own groups and sets the foreground group as usual.

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
    Child, OrphanAction, OrphanOutcome, SignalError, SignalSource, TransientCgroup, TransientError,
    cgroup_signal::send_signal, signal_source::ReceivedSignal, terminal::Terminal,
};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal terminated it.
    Signal(i32),
}

impl Exit {
    /// The exit code to return: that of the command, or 128 plus the signal number.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(number) => 128 + number,
        }
    }
}

/// The result of [`Supervisor::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the command ended.
    pub exit: Exit,
    /// What happened to processes that outlived it.
    pub orphans: OrphanOutcome,
}

/// A descriptor to poll while the command runs.
pub struct Watch<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Called when the descriptor is readable. It must read, or it is called again at once.
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
    #[error("cannot get the exit status of the command: {0}")]
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
    /// For a command that was spawned in this cgroup, with these signals.
    pub fn new(child: Child, cgroup: &'a TransientCgroup, signals: &'a SignalSource) -> Supervisor<'a> {
        Supervisor {
            child,
            cgroup,
            signals,
            terminal: Terminal::open(),
        }
    }

    /// Waits until the command has exited, and applies `orphans` to the processes that outlive it. Watched descriptors
    /// may still have data afterwards.
    ///
    /// # Errors
    /// When poll(2), waitid(2) or a file of the cgroup fails, which does not happen in practice.
    pub fn run(self, orphans: OrphanAction, watches: &mut [Watch<'_>]) -> Result<Finished, SuperviseError> {
        let exit = loop {
            if let Some(exit) = self.reap()? {
                break exit;
            }
            let child = PollFd::new(self.child.as_fd(), PollFlags::POLLIN);
            self.wait(child, PollTimeout::NONE, watches)?;
            while let Some(received) = self.signals.next()? {
                self.forward(received);
            }
        };
        self.terminal.take_back();
        let orphans = orphans.apply(&self, watches)?;
        Ok(Finished { exit, orphans })
    }

    /// Waits for a signal, for `also`, or for the timeout, and calls the watches that are readable.
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

    fn forward(&self, received: ReceivedSignal) {
        match received.signal {
            // `run` checks the child in each iteration.
            Signal::SIGCHLD => {}
            // SIGCONT to the group or to this process: a second one has no effect. An alarm set before this process was
            // executed is sent by the kernel to this process only.
            Signal::SIGCONT | Signal::SIGALRM => send_signal(self.child.as_fd(), received.signal),
            _ if received.by_kernel => {}
            signal => send_signal(self.child.as_fd(), signal),
        }
    }

    /// How the command ended; `None` while it runs. Stops this process when the command was stopped.
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
            // SAFETY: waitid filled in the fields of SIGCHLD, or left zeros when nothing changed.
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
