//! What a policy answers about an attempt, and why.

use crate::{action::Action, event::reason};

/// What the kernel side could not read or find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fault {
    /// The cgroup carries programs but no policy was written for it.
    NoScope = 0,
    /// The slot holds no image, or one of another ABI.
    NoImage = 1,
    /// A page that the image refers to is missing.
    NoPage = 2,
    /// The calling task's executable could not be read.
    NoExecutable = 3,
    /// A field of the socket or its address could not be read.
    BadContext = 4,
    /// A socket that has listened is to connect: its packets could not be told from answers.
    HasListened = 5,
    /// The headers of a packet could not be read, or are more than are looked at.
    BadPacket = 6,
}

impl Fault {
    /// The fault's name as events print it.
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

    /// Reads the number of a fault; `None` for a number that is none.
    pub const fn from_u16(number: u16) -> Option<Fault> {
        match number {
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

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The rule with this index decided.
    Rule(u16),
    /// No rule matched: the policy's default.
    Default,
    /// Something could not be read; a fault is never a pass.
    Fault(Fault),
}

/// What a policy says about an attempt, before its mode is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What is to be done.
    pub action: Action,
    /// Who said so.
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

/// A [`Verdict`] in one word: bits 0 to 7 the action, 8 to 15 a number of [`reason`], 16 to 31 the
/// rule or fault. What the kernel programs carry about: of an enum without payload the compiler
/// copies bytes that were never written, and the verifier refuses to read those.
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

    /// The action. A number that is none reads as block.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match Action::from_u8(self.0 as u8) {
            Some(action) => action,
            None => Action::Block,
        }
    }

    /// Number of the reason, as events carry it.
    #[inline(always)]
    pub const fn reason(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The rule's index or the fault's number, by the reason.
    #[inline(always)]
    pub const fn detail(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Index of the answer's counter in an image of so many rules: rules first, then default, then
    /// fault.
    #[inline(always)]
    pub const fn counter(self, rule_count: u32) -> u32 {
        match self.reason() {
            reason::RULE => self.detail() as u32,
            reason::DEFAULT => rule_count,
            _ => rule_count + 1,
        }
    }
}
