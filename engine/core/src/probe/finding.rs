//! The result for one feature.

use std::borrow::Cow;

use serde::Serialize;

/// Whether a feature can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// It can be used.
    Yes,
    /// It was tried and cannot be used.
    No,
    /// It could not be tried.
    Unknown,
}

impl Support {
    /// The text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Support::Yes => "yes",
            Support::No => "no",
            Support::Unknown => "?",
        }
    }
}

/// The last step of the trial of a program that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The verifier accepted it.
    Loaded,
    /// It was attached to its hook.
    Attached,
    /// The kernel called it.
    Called,
}

impl Reached {
    /// The text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reached::Loaded => "loaded",
            Reached::Attached => "attached",
            Reached::Called => "called",
        }
    }
}

/// The result for one feature.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Unique in a report.
    pub name: &'static str,
    /// What Tidegate uses the feature for.
    pub purpose: Cow<'static, str>,
    /// Whether it can be used.
    pub support: Support,
    /// For hooks: whether this version of Tidegate has a program for it.
    pub used: Option<bool>,
    /// The last step of the trial that succeeded; `None` when no program was loaded.
    pub reached: Option<Reached>,
    /// What was found, or why the feature cannot be used.
    pub reason: Option<String>,
    /// Name of the kernel's error (`EPERM`).
    pub errno: Option<String>,
    /// The relevant lines of the verifier's log.
    pub verifier_log: Option<String>,
    /// What to change to make the feature available.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding without details.
    pub(super) fn new(
        name: &'static str,
        purpose: impl Into<Cow<'static, str>>,
        support: Support,
    ) -> Finding {
        Finding {
            name,
            purpose: purpose.into(),
            support,
            used: None,
            reached: None,
            reason: None,
            errno: None,
            verifier_log: None,
            hint: None,
        }
    }

    /// Whether the kernel supports it and Tidegate uses it.
    pub(super) fn is_effective(&self) -> bool {
        self.support == Support::Yes && self.used != Some(false)
    }

    pub(super) fn used(mut self, used: bool) -> Finding {
        self.used = Some(used);
        self
    }

    pub(super) fn reason(mut self, reason: impl Into<String>) -> Finding {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn reached(mut self, reached: Reached) -> Finding {
        self.reached = Some(reached);
        self
    }
}
