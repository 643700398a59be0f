//! The verdict of policies on an existing socket: the one that they would give if it were created, or connected, now.

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

/// A live policy.
pub(super) struct LivePolicy {
    pub(super) name: String,
    pub(super) image: Image,
    /// Names of its rules, in order.
    pub(super) rules: Vec<String>,
}

/// The executable of a process that uses the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executable {
    /// Its identity.
    Known(ExecutableId),
    /// One that no policy can name.
    Nameless,
    /// No process was found, or its executable could not be identified.
    Unknown,
}

/// The strictest verdict.
pub(super) struct PolicyVerdict<'a> {
    pub(super) policy: &'a LivePolicy,
    pub(super) verdict: Verdict,
    /// Whether it denies, in the mode of the policy.
    pub(super) denied: bool,
}

impl PolicyVerdict<'_> {
    /// The rule that matched.
    pub(super) fn rule(&self) -> Option<String> {
        match self.verdict.reason {
            Reason::Rule(rule) => self.policy.rules.get(usize::from(rule)).cloned(),
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

impl LivePolicy {
    /// Whether some rule selects by executable.
    pub(super) fn needs_executable(&self) -> bool {
        self.image.header().needs_executable()
    }

    fn evaluate(&self, socket: &Socket, executable: Executable) -> Verdict {
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

/// The strictest verdict of all policies for all processes that use the socket; between equals the first. A verdict that
/// denies is stricter than one in audit mode.
pub(super) fn strictest<'a>(
    policies: impl IntoIterator<Item = &'a LivePolicy>,
    socket: &Socket,
    executables: &[Executable],
) -> Option<PolicyVerdict<'a>> {
    let mut strictest: Option<PolicyVerdict<'a>> = None;
    for policy in policies {
        let mode = policy.image.header().revision().mode;
        for &executable in executables {
            let verdict = policy.evaluate(socket, executable);
            // A process is not killed for a socket that it connected before.
            let denied = Outcome::of(verdict.action, mode, KillAbility::OutOfScope).denied();
            let is_stricter = strictest
                .as_ref()
                .is_none_or(|other| (denied, verdict.action) > (other.denied, other.verdict.action));
            if is_stricter {
                strictest = Some(PolicyVerdict {
                    policy,
                    verdict,
                    denied,
                });
            }
        }
    }
    strictest
}
