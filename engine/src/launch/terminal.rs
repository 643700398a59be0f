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

    /// Stops this process as its command was stopped, so that the shell takes over; comes back when
    /// it is continued. Without a terminal nobody would continue it, so it does not stop then.
    pub(super) fn stop_self(&self) {
        if self.0.is_some() {
            // It cannot fail for the process itself.
            let _ = kill(Pid::this(), Signal::SIGSTOP);
        }
    }

    /// Takes the terminal back if the command ended without giving it back: when its foreground
    /// group has no process any more, its next reader would be a shell that is not asked yet.
    pub(super) fn take_back(&self) {
        let Some(terminal) = &self.0 else { return };
        let gone = tcgetpgrp(terminal).is_ok_and(|group| killpg(group, None) == Err(Errno::ESRCH));
        if gone {
            // From the background tcsetpgrp stops the caller, unless it blocks SIGTTOU.
            let mut former = SigSet::empty();
            let block: SigSet = [Signal::SIGTTOU].into_iter().collect();
            if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&block), Some(&mut former)).is_ok() {
                let _ = tcsetpgrp(terminal, getpgrp());
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&former), None);
            }
        }
    }
}
