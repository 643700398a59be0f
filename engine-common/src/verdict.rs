//! The verdict of a policy on an attempt, and its reason.

use crate::{action::Action, record::reason};

/// Why a kernel program could not evaluate a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Fault {
    /// Programs are attached to the cgroup, but no scope was written for it.
    NoScope = 0,
    /// The slot has no image, or one of another ABI version.
    NoImage = 1,
    /// A page that the image refers to is missing.
    NoPage = 2,
    /// The calling task's executable could not be read.
    NoExecutable = 3,
    /// A field of the socket or its address could not be read.
    BadContext = 4,
    /// A socket that has listened is about to connect: its packets could not be distinguished from replies.
    HasListened = 5,
    /// The headers of a packet could not be read, or exceed the limits of the parser.
    BadPacket = 6,
}

impl Fault {
    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::NoScope => "no scope",
            Fault::NoImage => "no image",
            Fault::NoPage => "no page",
            Fault::NoExecutable => "executable unreadable",
            Fault::BadContext => "socket unreadable",
            Fault::HasListened => "socket has listened before",
            Fault::BadPacket => "packet unreadable",
        }
    }

    /// The fault with this discriminant; `None` for any other value.
    pub const fn from_u16(value: u16) -> Option<Fault> {
        match value {
            0 => Some(Fault::NoScope),
            1 => Some(Fault::NoImage),
            2 => Some(Fault::NoPage),
            3 => Some(Fault::NoExecutable),
            4 => Some(Fault::BadContext),
            5 => Some(Fault::HasListened),
            6 => Some(Fault::BadPacket),
            _ => None,
        }
    }
}

/// What decided a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The rule with this index.
    Rule(u16),
    /// The policy's default: no rule matched.
    Default,
    /// A fault, which denies.
    Fault(Fault),
}

/// A policy's decision on an attempt, before its mode is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The action of the rule or default that decided; block for a fault.
    pub action: Action,
    /// What decided.
    pub reason: Reason,
}

impl Verdict {
    /// The verdict of a fault: deny.
    #[inline(always)]
    pub const fn fault(fault: Fault) -> Verdict {
        Verdict {
            action: Action::Block,
            reason: Reason::Fault(fault),
        }
    }
}

/// A [`Verdict`] in one word: bits 0 to 7 the action, 8 to 15 a constant of [`reason`], 16 to 31 the
/// rule or fault. The kernel programs use it because the compiler copies the uninitialised payload bytes
/// of enum variants without payload, and the verifier rejects reads of uninitialised stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct VerdictWord(pub u32);

impl VerdictWord {
    /// The word of a result.
    #[inline(always)]
    pub const fn of(result: Result<Verdict, Fault>) -> VerdictWord {
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(fault) => Verdict::fault(fault),
        };
        let (kind, detail) = match verdict.reason {
            Reason::Rule(rule) => (reason::RULE, rule),
            Reason::Default => (reason::DEFAULT, 0),
            Reason::Fault(fault) => (reason::FAULT, fault as u16),
        };
        VerdictWord(verdict.action as u32 | (kind as u32) << 8 | (detail as u32) << 16)
    }

    /// The action; block for an invalid value.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match Action::from_u8(self.0 as u8) {
            Some(action) => action,
            None => Action::Block,
        }
    }

    /// A constant of [`reason`].
    #[inline(always)]
    pub const fn reason(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The rule's index or the fault's discriminant, depending on the reason.
    #[inline(always)]
    pub const fn detail(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Index of the verdict's counter in an image with `rule_count` rules: rules first, then default, then
    /// faults.
    #[inline(always)]
    pub const fn counter(self, rule_count: u32) -> u32 {
        match self.reason() {
            reason::RULE => self.detail() as u32,
            reason::DEFAULT => rule_count,
            _ => rule_count + 1,
        }
    }
}
