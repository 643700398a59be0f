//! Receives the signals of this process through a descriptor (signalfd(2)).

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

/// Signals that are forwarded to the command.
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

/// Blocks the forwarded signals and SIGCHLD, and receives them. Open it before creating anything that needs a cleanup,
/// and before starting threads: a thread that does not block the signals would receive them. Dropping it discards
/// unread signals, which were for the command, and restores the previous mask.
#[derive(Debug)]
pub struct SignalSource {
    fd: SignalFd,
    previous: SigSet,
}

/// Signal handling could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up signal handling ({step}): {source}")]
pub struct SignalError {
    step: &'static str,
    source: io::Error,
}

/// A received signal.
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
    /// When the kernel refuses a step, for example because of the descriptor limit.
    pub fn open() -> Result<SignalSource, SignalError> {
        let at = |step| {
            move |errno: Errno| SignalError {
                step,
                source: errno.into(),
            }
        };
        let mut set: SigSet = FORWARDED.into_iter().collect();
        set.add(Signal::SIGCHLD);
        let mut previous = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut previous)).map_err(at("sigprocmask"))?;
        let opened = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(at("signalfd"));
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => {
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&previous), None);
                return Err(error);
            }
        };
        let source = SignalSource { fd, previous };
        // An ignored SIGCHLD, which is inherited, would discard the exit status of the command.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default disposition runs no handler.
        unsafe { sigaction(Signal::SIGCHLD, &default) }.map_err(at("sigaction"))?;
        Ok(source)
    }

    /// The previous signal mask, which the command gets.
    pub(super) fn previous_mask(&self) -> &SigSet {
        &self.previous
    }

    /// The next pending signal.
    pub(super) fn next(&self) -> Result<Option<ReceivedSignal>, SignalError> {
        loop {
            let read = self.fd.read_signal().map_err(|errno| SignalError {
                step: "read",
                source: errno.into(),
            })?;
            match read.map(|info| received(&info)) {
                None => return Ok(None),
                Some(Some(received)) => return Ok(Some(received)),
                // A real-time signal, which is not in the set.
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
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.previous), None);
    }
}
