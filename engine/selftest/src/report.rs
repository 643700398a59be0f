//! The result of each test case.

use serde::Serialize;

use tidegate_core::{host::Unmet, policy::Policy};

/// Version of the JSON document.
const SCHEMA_VERSION: u32 = 1;

/// Result of a test case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TestResult {
    /// Nothing arrived at the receiver.
    Blocked,
    /// It arrived and an event reported it: the policy denies nothing here (audit).
    Reported,
    /// It arrived, and the policy allows it.
    Allowed,
    /// It arrived, although the policy denies it.
    Bypass,
    /// It does not arrive without a policy either: this kernel does not support the method.
    Unsupported,
    /// Nothing arrived, but no event says that a hook denied it.
    Failed,
}

impl TestResult {
    /// All of them, in the order of the summary line.
    pub const ALL: [TestResult; 6] = [
        TestResult::Blocked,
        TestResult::Reported,
        TestResult::Allowed,
        TestResult::Bypass,
        TestResult::Failed,
        TestResult::Unsupported,
    ];

    /// The word in the text output.
    pub const fn as_str(self) -> &'static str {
        match self {
            TestResult::Blocked => "BLOCKED",
            TestResult::Reported => "REPORTED",
            TestResult::Allowed => "ALLOWED",
            TestResult::Bypass => "BYPASS",
            TestResult::Unsupported => "UNSUPPORTED",
            TestResult::Failed => "FAILED",
        }
    }
}

/// A test case and its result.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Name of the egress method.
    pub method: &'static str,
    /// What the process does, in one line.
    pub about: &'static str,
    /// The destination: its address family, or the form of its address.
    pub destination: &'static str,
    /// The result.
    pub result: TestResult,
    /// Whether the policy denies the attempt.
    pub forbidden: bool,
    /// Messages and connections that arrived at the receiver under the policy.
    pub arrived: usize,
    /// The hook that reported the attempt, as its event names it.
    pub hook: Option<&'static str>,
    /// The outcome that this event reports, in snake_case.
    pub outcome: Option<String>,
    /// The errno that the test client saw; `KILLED` when it died before it could report one.
    pub errno: Option<String>,
    /// Whether a bypass is a documented limitation (SECURITY.md).
    pub known_limitation: bool,
    /// Why the result is a bypass, unsupported or failed.
    pub reason: Option<String>,
}

/// The whole self-test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema_version: u32,
    /// The kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Name of the policy.
    pub policy: String,
    /// Mode of the policy.
    pub mode: &'static str,
    /// Requirements of the policy that this kernel does not meet.
    pub unmet: Vec<Unmet>,
    /// Every test case, in the order they ran.
    pub cases: Vec<CaseResult>,
}

impl Report {
    /// The report of a finished self-test.
    pub fn new(kernel: String, policy: &Policy, unmet: Vec<Unmet>, cases: Vec<CaseResult>) -> Report {
        Report {
            schema_version: SCHEMA_VERSION,
            kernel,
            policy: policy.name.clone(),
            mode: policy.mode.as_str(),
            unmet,
            cases,
        }
    }

    /// How many test cases have this result.
    pub fn count(&self, result: TestResult) -> usize {
        self.cases.iter().filter(|case| case.result == result).count()
    }

    /// Whether there is a bypass that is not a documented limitation.
    pub fn has_unknown_bypass(&self) -> bool {
        self.cases
            .iter()
            .any(|case| case.result == TestResult::Bypass && !case.known_limitation)
    }
}
