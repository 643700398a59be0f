//! From a verdict to what is enforced: the policy's mode and the hook's ability to kill.

use crate::action::{Action, Mode};

/// Whether the hook can kill the calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillAbility {
    /// `bpf_send_signal` is allowed here (cgroup hooks: Linux 6.16, commit ee971630f20f).
    Now,
    /// The hook denies; user space sends the signal when it reads the event.
    Later,
    /// The calling task is not a process of this scope (a passed socket, a kernel thread): the attempt is
    /// denied and the task is not killed.
    OutOfScope,
}

/// What was enforced for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Outcome {
    /// Allowed, without an event.
    Allowed = 0,
    /// Allowed and reported.
    Audited = 1,
    /// Allowed because of audit mode; enforce mode would have denied it.
    WouldBlock = 2,
    /// Allowed because of audit mode; enforce mode would have killed the process.
    WouldKill = 3,
    /// Denied.
    Blocked = 4,
    /// Denied, and SIGKILL sent before the call returned.
    Killed = 5,
    /// Denied; user space has to send SIGKILL.
    KillPending = 6,
}

impl Outcome {
    /// Applies a policy's mode to its action. Audit mode is implemented only here.
    #[inline(always)]
    pub const fn of(action: Action, mode: Mode, kill: KillAbility) -> Outcome {
        match (action, mode) {
            (Action::Allow, _) => Outcome::Allowed,
            (Action::Audit, _) => Outcome::Audited,
            (Action::Block, Mode::Enforce) => Outcome::Blocked,
            (Action::Block, Mode::Audit) => Outcome::WouldBlock,
            (Action::Kill, Mode::Audit) => Outcome::WouldKill,
            (Action::Kill, Mode::Enforce) => match kill {
                KillAbility::Now => Outcome::Killed,
                KillAbility::Later => Outcome::KillPending,
                KillAbility::OutOfScope => Outcome::Blocked,
            },
        }
    }

    /// Whether the attempt was denied.
    #[inline(always)]
    pub const fn denied(self) -> bool {
        matches!(self, Outcome::Blocked | Outcome::Killed | Outcome::KillPending)
    }

    /// Whether the attempt is reported.
    #[inline(always)]
    pub const fn reported(self) -> bool {
        !matches!(self, Outcome::Allowed)
    }

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Audited => "audited",
            Outcome::WouldBlock => "would_block",
            Outcome::WouldKill => "would_kill",
            Outcome::Blocked => "blocked",
            Outcome::Killed => "killed",
            Outcome::KillPending => "kill_pending",
        }
    }

    /// The outcome with this discriminant; `None` for any other value.
    pub const fn from_u8(value: u8) -> Option<Outcome> {
        match value {
            0 => Some(Outcome::Allowed),
            1 => Some(Outcome::Audited),
            2 => Some(Outcome::WouldBlock),
            3 => Some(Outcome::WouldKill),
            4 => Some(Outcome::Blocked),
            5 => Some(Outcome::Killed),
            6 => Some(Outcome::KillPending),
            _ => None,
        }
    }
}
