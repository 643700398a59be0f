//! The action of a rule ([`Action`]) and the mode of a policy ([`Mode`]).

/// Action of a rule or of a policy's default. Ordered by strictness: of several verdicts the
/// greatest action is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Action {
    /// Allow, without an event.
    Allow = 0,
    /// Allow and report.
    Audit = 1,
    /// Deny with the policy's errno and report.
    Block = 2,
    /// Deny, send SIGKILL to the process, and report.
    Kill = 3,
}

impl Action {
    /// All actions, the least strict first.
    pub const ALL: [Action; 4] = [Action::Allow, Action::Audit, Action::Block, Action::Kill];

    /// The action with this discriminant; `None` for any other value.
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<Action> {
        match value {
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

    /// The name in policies, JSON and text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Audit => "audit",
            Action::Block => "block",
            Action::Kill => "kill",
        }
    }
}

/// Whether a policy enforces its verdicts or only reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Mode {
    /// Block and kill are carried out.
    Enforce = 0,
    /// Block and kill are only reported, as *would block* and *would kill*. Nothing is denied.
    Audit = 1,
}

impl Mode {
    /// The name in policies, JSON and text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        }
    }
}
