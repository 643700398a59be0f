//! The controlling terminal and job control.

use std::fs::File;

use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};

/// The controlling terminal, if there is one.
#[derive(Debug)]
pub(super) struct Terminal(Option<File>);

impl Terminal {
    pub(super) fn open() -> Terminal {
        Terminal(File::options().read(true).write(true).open("/dev/tty").ok())
    }

    /// Stops this process when its command was stopped, so that the shell gets control; returns when it is continued.
    /// Does nothing without a terminal: no shell would continue it.
    pub(super) fn stop_self(&self) {
        if self.0.is_some() {
            // Cannot fail for this process itself.
            let _ = kill(Pid::this(), Signal::SIGSTOP);
        }
    }

    /// Makes the group of this process the foreground group again if the command exited without restoring it: when the
    /// foreground group has no process, the shell does not get the terminal back.
    pub(super) fn take_back(&self) {
        let Some(terminal) = &self.0 else { return };
        let is_empty = tcgetpgrp(terminal).is_ok_and(|group| killpg(group, None) == Err(Errno::ESRCH));
        if is_empty {
            // From the background tcsetpgrp stops the caller, unless it blocks SIGTTOU.
            let mut previous = SigSet::empty();
            let block: SigSet = [Signal::SIGTTOU].into_iter().collect();
            if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&block), Some(&mut previous)).is_ok() {
                let _ = tcsetpgrp(terminal, getpgrp());
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&previous), None);
            }
        }
    }
}
