//! What became of each way.

use serde::Serialize;

/// What became of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing arrived.
    Blocked,
    /// It arrived, and was reported: the policy denies nothing here (audit).
    Reported,
    /// It arrived, and the policy allows it.
    Allowed,
    /// The policy forbids it, and it arrived.
    Open,
    /// Without the gate it does not arrive either: this kernel does not have it.
    NotHere,
    /// Nothing arrived, but no hook said so.
    Failed,
}

impl Status {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Blocked => "blocked",
            Status::Reported => "reported",
            Status::Allowed => "allowed",
            Status::Open => "OPEN",
            Status::NotHere => "not on this kernel",
            Status::Failed => "failed",
        }
    }
}

/// A way and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The way.
    pub way: &'static str,
    /// The destination: its family, or what is particular of it.
    pub destination: &'static str,
    /// What became of it.
    pub status: Status,
    /// Whether the policy forbids it.
    pub forbidden: bool,
    /// Messages and connections that arrived at the receiver.
    pub arrived: usize,
    /// The hook that said what was done, as its event names it.
    pub hook: Option<&'static str>,
    /// What it said was done.
    pub outcome: Option<&'static str>,
    /// What the caller saw.
    pub errno: Option<String>,
    /// Whether a way that is open is known to be (SECURITY.md).
    pub known: bool,
    /// What else there is to say: why it is open, or not here.
    pub why: Option<String>,
}

/// The whole self-test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel, as `uname -r` says it.
    pub kernel: String,
    /// Name of the policy.
    pub policy: String,
    /// Its mode.
    pub mode: &'static str,
    /// Every way.
    pub ways: Vec<Line>,
}

impl Report {
    /// How many ways had this end.
    pub fn count(&self, status: Status) -> usize {
        self.ways.iter().filter(|line| line.status == status).count()
    }

    /// Whether a way is open that should not be.
    pub fn has_escaped(&self) -> bool {
        self.ways
            .iter()
            .any(|line| line.status == Status::Open && !line.known)
    }
}
