//! What a rule says ([`Action`]) and whether a policy may act on it ([`Mode`]).

/// What a rule, or a policy's default, says about an attempt. Ordered by strictness: where several
/// answers meet, the greatest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Action {
    /// Let it pass and say nothing.
    Allow = 0,
    /// Let it pass and report it.
    Audit = 1,
    /// Deny with the policy's errno and report it.
    Block = 2,
    /// Deny, send SIGKILL to the process, and report it.
    Kill = 3,
}

impl Action {
    /// All actions, mildest first.
    pub const ALL: [Action; 4] = [Action::Allow, Action::Audit, Action::Block, Action::Kill];

    /// Reads the number of an action; `None` for a number that is none.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> Option<Action> {
        match number {
            0 => Some(Action::Allow),
            1 => Some(Action::Audit),
            2 => Some(Action::Block),
            3 => Some(Action::Kill),
            _ => None,
        }
    }

    /// Whether the action denies the attempt (in enforce mode).
    #[inline(always)]
    pub const fn denies(self) -> bool {
        matches!(self, Action::Block | Action::Kill)
    }

    /// The word of the policy language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Audit => "audit",
            Action::Block => "block",
            Action::Kill => "kill",
        }
    }
}

/// Whether a policy acts or only watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Block and kill are carried out.
    Enforce = 0,
    /// Block and kill become reports marked *would block*, *would kill*. Nothing is ever denied.
    Audit = 1,
}

impl Mode {
    /// The word of the policy language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        }
    }
}
