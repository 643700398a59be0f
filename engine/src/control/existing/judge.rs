//! What policies say of a socket that exists: what they would say if it were made, or connected, now.

use engine_common::{
    Attempt, ExecutableId, Fault, KillAbility, Outcome, Reason, Verdict, destination::canonical,
};

use crate::{
    compile::{
        Image,
        explain::{UNKNOWN_EXECUTABLE, attempt_at},
    },
    sockets::Socket,
};

/// A policy as it is live.
pub(super) struct Judge {
    pub(super) policy: String,
    pub(super) image: Image,
    /// Names of its rules.
    pub(super) rules: Vec<String>,
}

/// Who uses the socket, as far as that can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executable {
    /// What it runs.
    Known(ExecutableId),
    /// Something that no policy can name.
    Nameless,
    /// Nobody was found, or it could not be told what he runs.
    Unknown,
}

/// The answer of the strictest.
pub(super) struct Answer<'a> {
    pub(super) judge: &'a Judge,
    pub(super) verdict: Verdict,
    /// Whether it denies, by its mode.
    pub(super) denied: bool,
}

impl Answer<'_> {
    /// The rule that said so.
    pub(super) fn rule(&self) -> Option<String> {
        match self.verdict.reason {
            Reason::Rule(rule) => self.judge.rules.get(usize::from(rule)).cloned(),
            Reason::Default | Reason::Fault(_) => None,
        }
    }

    /// What could not be read.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match self.verdict.reason {
            Reason::Fault(fault) => Some(fault.as_str()),
            Reason::Rule(_) | Reason::Default => None,
        }
    }
}

impl Judge {
    /// Whether it makes a difference what the caller runs.
    pub(super) fn needs_executable(&self) -> bool {
        self.image.header().needs_executable()
    }

    fn ask(&self, socket: &Socket, executable: Executable) -> Verdict {
        let executable = match executable {
            Executable::Known(id) => id,
            Executable::Unknown if self.needs_executable() => return Verdict::fault(Fault::NoExecutable),
            Executable::Nameless | Executable::Unknown => UNKNOWN_EXECUTABLE,
        };
        let (protocol, uid) = (socket.protocol, socket.uid);
        if !protocol.has_address_hook() {
            return self.image.decide_socket(socket.family, protocol, uid, executable);
        }
        let Some(peer) = socket.peer else {
            return Verdict::fault(Fault::BadContext);
        };
        let attempt = attempt_at(peer.ip(), peer.port(), protocol, uid, executable);
        self.image.decide(&Attempt {
            address: canonical(attempt.address),
            ..attempt
        })
    }
}

/// The strictest answer of all policies about all who use the socket; between equals the first. What denies
/// is stricter than what only would.
pub(super) fn strictest<'a>(
    judges: impl IntoIterator<Item = &'a Judge>,
    socket: &Socket,
    executables: &[Executable],
) -> Option<Answer<'a>> {
    let mut strictest: Option<Answer<'a>> = None;
    for judge in judges {
        let mode = judge.image.header().revision().mode;
        for &executable in executables {
            let verdict = judge.ask(socket, executable);
            // Nobody is killed for what he did before.
            let denied = Outcome::of(verdict.action, mode, KillAbility::OutOfScope).denied();
            let is_stricter = strictest
                .as_ref()
                .is_none_or(|other| (denied, verdict.action) > (other.denied, other.verdict.action));
            if is_stricter {
                strictest = Some(Answer {
                    judge,
                    verdict,
                    denied,
                });
            }
        }
    }
    strictest
}
