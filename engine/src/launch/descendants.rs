//! Processes that outlive the command.

use std::time::{Duration, Instant};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::Signal,
    unistd::{Pid, getpgid, getpgrp},
};

use super::{SuperviseError, Supervisor, TransientError, Watch};

/// How long processes that were asked to end may take before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// What is done about processes that outlive the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descendants {
    /// They are asked to end (SIGTERM), and killed if they have not after two seconds, or at once
    /// when we are told to end.
    #[default]
    End,
    /// They are waited for. Signals go to all of them; at the second SIGINT or SIGTERM they are
    /// killed.
    Wait,
    /// They are left running in the cgroup, under its policy.
    Keep,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// There were none, or they ended while waited for. The cgroup is empty.
    None,
    /// They ended when asked to. The cgroup is empty.
    Ended,
    /// They, or some of them, were killed. The cgroup is empty.
    Killed,
    /// They still run in the cgroup.
    Kept,
}

impl Descendants {
    /// Deals with what is left in the cgroup once the command has ended.
    pub(super) fn settle(
        self,
        supervisor: &Supervisor<'_>,
        watches: &mut [Watch<'_>],
    ) -> Result<Leftover, SuperviseError> {
        // What came while the command was ending was meant for it: a ^C that ended it says nothing
        // about the patience with its descendants. Only those waited for have not had it yet.
        while let Some(arrived) = supervisor.signals.next()? {
            if self == Descendants::Wait && !arrived.by_kernel && arrived.signal != Signal::SIGCHLD {
                pass_to_all(supervisor, arrived.signal, false)?;
            }
        }
        if !supervisor.cgroup.populated()? {
            return Ok(Leftover::None);
        }
        match self {
            Descendants::End => end(supervisor, watches),
            Descendants::Wait => wait(supervisor, watches),
            Descendants::Keep => Ok(Leftover::Kept),
        }
    }
}

fn end(supervisor: &Supervisor<'_>, watches: &mut [Watch<'_>]) -> Result<Leftover, SuperviseError> {
    let cgroup = supervisor.cgroup;
    cgroup.signal(Signal::SIGTERM)?;
    let end = Instant::now() + GRACE;
    while cgroup.populated()? {
        let left = end.saturating_duration_since(Instant::now());
        let mut impatient = false;
        if !left.is_zero() {
            // Rounded up, so that the last wait is not a busy one.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let events = PollFd::new(cgroup.events_fd(), PollFlags::POLLPRI);
            supervisor.wait(events, timeout, watches)?;
            while let Some(arrived) = supervisor.signals.next()? {
                impatient |= asks_to_end(arrived.signal);
            }
        }
        if left.is_zero() || impatient {
            cgroup.kill()?;
            return Ok(Leftover::Killed);
        }
    }
    Ok(Leftover::Ended)
}

fn wait(supervisor: &Supervisor<'_>, watches: &mut [Watch<'_>]) -> Result<Leftover, SuperviseError> {
    let cgroup = supervisor.cgroup;
    let mut asked = false;
    while cgroup.populated()? {
        let events = PollFd::new(cgroup.events_fd(), PollFlags::POLLPRI);
        supervisor.wait(events, PollTimeout::NONE, watches)?;
        while let Some(arrived) = supervisor.signals.next()? {
            match arrived.signal {
                Signal::SIGCHLD => {}
                signal if asks_to_end(signal) && asked => {
                    cgroup.kill()?;
                    return Ok(Leftover::Killed);
                }
                signal => {
                    asked |= asks_to_end(signal);
                    pass_to_all(supervisor, signal, arrived.by_kernel)?;
                    if signal == Signal::SIGTSTP {
                        supervisor.terminal.stop_self();
                    }
                }
            }
        }
    }
    Ok(Leftover::None)
}

fn asks_to_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGTERM)
}

/// What the terminal sent has reached the processes of our own group already.
fn pass_to_all(supervisor: &Supervisor<'_>, signal: Signal, by_terminal: bool) -> Result<(), TransientError> {
    let own = getpgrp();
    supervisor.cgroup.signal_where(signal, |pid| {
        !by_terminal || getpgid(Some(Pid::from_raw(pid))).is_ok_and(|group| group != own)
    })
}
