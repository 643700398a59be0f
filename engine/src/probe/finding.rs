//! One answer.

use std::borrow::Cow;

use serde::Serialize;

/// Whether it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It can.
    Yes,
    /// It was tried, and cannot.
    No,
    /// It could not be tried.
    Unknown,
}

impl Answer {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown => "?",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name.
    pub name: &'static str,
    /// What it is good for.
    pub purpose: Cow<'static, str>,
    /// Whether it can be used.
    pub answer: Answer,
    /// For hooks: whether this version of tidegate has a program for it.
    pub used: Option<bool>,
    /// How far a trial came: `loaded`, `attached`, `called`; `null` where nothing was loaded.
    pub reached: Option<&'static str>,
    /// What happened, or what there is.
    pub reason: Option<String>,
    /// The number of the kernel's error, by its name.
    pub errno: Option<String>,
    /// The verifier's own words.
    pub words: Option<String>,
    /// What to change, so that it can be used.
    pub remedy: Option<String>,
}

impl Finding {
    /// With an answer and nothing else to say.
    pub(super) fn new(name: &'static str, purpose: impl Into<Cow<'static, str>>, answer: Answer) -> Finding {
        Finding {
            name,
            purpose: purpose.into(),
            answer,
            used: None,
            reached: None,
            reason: None,
            errno: None,
            words: None,
            remedy: None,
        }
    }

    /// Whether it can be used, and is.
    pub(super) fn serves(&self) -> bool {
        self.answer == Answer::Yes && self.used != Some(false)
    }

    pub(super) fn used(mut self, used: bool) -> Finding {
        self.used = Some(used);
        self
    }

    pub(super) fn because(mut self, reason: impl Into<String>) -> Finding {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn reached(mut self, step: &'static str) -> Finding {
        self.reached = Some(step);
        self
    }
}
