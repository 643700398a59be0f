//! Processes that outlive the command.

use std::time::{Duration, Instant};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::Signal,
    unistd::{Pid, getpgid, getpgrp},
};

use super::{SuperviseError, Supervisor, TransientError, Watch};

/// Time between SIGTERM and SIGKILL.
const GRACE_PERIOD: Duration = Duration::from_secs(2);

/// What to do with processes that outlive the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrphanAction {
    /// Send SIGTERM, and SIGKILL two seconds later, or at once when this process receives SIGINT or SIGTERM.
    #[default]
    Terminate,
    /// Wait until they exit. Signals are forwarded to all of them; the second SIGINT or SIGTERM kills them.
    Wait,
    /// Leave them running in the cgroup, under its policies.
    Keep,
}

/// What happened to the processes that outlived the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrphanOutcome {
    /// There were none, or they exited by themselves. The cgroup is empty.
    None,
    /// They exited after SIGTERM. The cgroup is empty.
    Terminated,
    /// At least one was killed. The cgroup is empty.
    Killed,
    /// They are still running in the cgroup.
    Kept,
}

impl OrphanAction {
    /// Handles the processes left in the cgroup after the command has exited.
    pub(super) fn apply(
        self,
        supervisor: &Supervisor<'_>,
        watches: &mut [Watch<'_>],
    ) -> Result<OrphanOutcome, SuperviseError> {
        // Signals received up to now were for the command: a ^C that ended it must not kill the others at once. With
        // `Wait` they have not received it yet.
        while let Some(received) = supervisor.signals.next()? {
            if self == OrphanAction::Wait && !received.by_kernel && received.signal != Signal::SIGCHLD {
                forward_to_all(supervisor, received.signal, false)?;
            }
        }
        if !supervisor.cgroup.populated()? {
            return Ok(OrphanOutcome::None);
        }
        match self {
            OrphanAction::Terminate => terminate(supervisor, watches),
            OrphanAction::Wait => wait(supervisor, watches),
            OrphanAction::Keep => Ok(OrphanOutcome::Kept),
        }
    }
}

fn terminate(
    supervisor: &Supervisor<'_>,
    watches: &mut [Watch<'_>],
) -> Result<OrphanOutcome, SuperviseError> {
    let cgroup = supervisor.cgroup;
    cgroup.signal(Signal::SIGTERM)?;
    let deadline = Instant::now() + GRACE_PERIOD;
    while cgroup.populated()? {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut interrupted = false;
        if !left.is_zero() {
            // Rounded up, so that the last wait does not spin.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let events = PollFd::new(cgroup.events_fd(), PollFlags::POLLPRI);
            supervisor.wait(events, timeout, watches)?;
            while let Some(received) = supervisor.signals.next()? {
                interrupted |= is_termination(received.signal);
            }
        }
        if left.is_zero() || interrupted {
            cgroup.kill()?;
            return Ok(OrphanOutcome::Killed);
        }
    }
    Ok(OrphanOutcome::Terminated)
}

fn wait(supervisor: &Supervisor<'_>, watches: &mut [Watch<'_>]) -> Result<OrphanOutcome, SuperviseError> {
    let cgroup = supervisor.cgroup;
    let mut forwarded_termination = false;
    while cgroup.populated()? {
        let events = PollFd::new(cgroup.events_fd(), PollFlags::POLLPRI);
        supervisor.wait(events, PollTimeout::NONE, watches)?;
        while let Some(received) = supervisor.signals.next()? {
            match received.signal {
                Signal::SIGCHLD => {}
                signal if is_termination(signal) && forwarded_termination => {
                    cgroup.kill()?;
                    return Ok(OrphanOutcome::Killed);
                }
                signal => {
                    forwarded_termination |= is_termination(signal);
                    forward_to_all(supervisor, signal, received.by_kernel)?;
                    if signal == Signal::SIGTSTP {
                        supervisor.terminal.stop_self();
                    }
                }
            }
        }
    }
    Ok(OrphanOutcome::None)
}

fn is_termination(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGTERM)
}

/// A signal of the terminal has already reached the processes in the process group of this process.
fn forward_to_all(
    supervisor: &Supervisor<'_>,
    signal: Signal,
    by_terminal: bool,
) -> Result<(), TransientError> {
    let own = getpgrp();
    supervisor.cgroup.signal_where(signal, |pid| {
        !by_terminal || getpgid(Some(Pid::from_raw(pid))).is_ok_and(|group| group != own)
    })
}
