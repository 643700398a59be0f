//! What a policy answers about an attempt, and why.

use crate::action::Action;

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
