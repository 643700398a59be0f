//! Signals as something to poll.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        signalfd::{SfdFlags, SignalFd, siginfo},
    },
};

/// What is taken from the kernel and passed on to the command.
const FORWARDED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// Blocks the signals meant for the command and hands them out. Open it before anything that has to
/// be cleaned up is made, and before any thread is started (a thread that does not block them would
/// receive them). Dropping it forgets what nobody has read, which was meant for the command, and gives
/// the former mask back.
#[derive(Debug)]
pub struct SignalSource {
    fd: SignalFd,
    former: SigSet,
}

/// Signal handling could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up signal handling ({step}): {source}")]
pub struct SignalError {
    step: &'static str,
    source: io::Error,
}

/// A signal that received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceivedSignal {
    pub(super) signal: Signal,
    /// Sent by the kernel (the terminal, mostly) and not by a process. The terminal sends to the
    /// whole foreground process group, so the command has it already.
    pub(super) by_kernel: bool,
}

impl SignalSource {
    /// Blocks the signals and opens the source.
    ///
    /// # Errors
    /// When the kernel refuses a step, for want of descriptors for instance.
    pub fn open() -> Result<SignalSource, SignalError> {
        let at = |step| {
            move |errno: Errno| SignalError {
                step,
                source: errno.into(),
            }
        };
        let mut set: SigSet = FORWARDED.into_iter().collect();
        set.add(Signal::SIGCHLD);
        let mut former = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut former)).map_err(at("sigprocmask"))?;
        let opened = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(at("signalfd"));
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => {
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&former), None);
                return Err(error);
            }
        };
        let source = SignalSource { fd, former };
        // Whoever ignores SIGCHLD, and that is inherited, never learns how a child ended.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default disposition runs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }.map_err(at("sigaction"))?;
        Ok(source)
    }

    /// The mask of before, which the command gets.
    pub(super) fn former_mask(&self) -> &SigSet {
        &self.former
    }

    /// The next signal, if one is there.
    pub(super) fn next(&self) -> Result<Option<ReceivedSignal>, SignalError> {
        loop {
            let read = self.fd.read_signal().map_err(|errno| SignalError {
                step: "read",
                source: errno.into(),
            })?;
            match read.map(|info| received(&info)) {
                None => return Ok(None),
                Some(Some(received)) => return Ok(Some(received)),
                // A number without a name, which the set does not hold.
                Some(None) => {}
            }
        }
    }
}

fn received(info: &siginfo) -> Option<ReceivedSignal> {
    let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
    Some(ReceivedSignal {
        signal,
        by_kernel: info.ssi_code == libc::SI_KERNEL,
    })
}

impl AsFd for SignalSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalSource {
    fn drop(&mut self) {
        // Unblocked, they would end this process, and its exit code with it.
        while let Ok(Some(_)) = self.next() {}
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.former), None);
    }
}
