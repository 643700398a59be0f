//! Exit codes.

use std::process::ExitCode;

/// Exit codes of `tidegate`. `exec` passes on the exit code of the command that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Success = 0,
    /// A file cannot be read, a privilege is missing, or the kernel refuses. Nothing was changed, unless the message
    /// says so.
    CouldNotRun = 1,
    /// The command line is not valid.
    Usage = 2,
    /// A policy is not valid.
    PolicyInvalid = 3,
    /// `explain`: the attempt would be denied.
    Denied = 4,
    /// A policy is not fully enforced; `selftest`: a bypass that is a known limitation.
    Partial = 5,
    /// `selftest`: a packet arrived that the policy forbids.
    Bypass = 6,
    /// `exec`: failed before the command was started.
    ExecFailed = 125,
    /// `exec`: the command was found but cannot be executed.
    NotExecutable = 126,
    /// `exec`: the command was not found.
    NotFound = 127,
}

impl Exit {
    /// All exit codes, in ascending order.
    pub const ALL: [Exit; 10] = [
        Exit::Success,
        Exit::CouldNotRun,
        Exit::Usage,
        Exit::PolicyInvalid,
        Exit::Denied,
        Exit::Partial,
        Exit::Bypass,
        Exit::ExecFailed,
        Exit::NotExecutable,
        Exit::NotFound,
    ];

    /// The value that the process exits with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning, as `tidegate --help` prints it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "success",
            Exit::CouldNotRun => "could not run: cannot read a file, not root, or the kernel refuses",
            Exit::Usage => "invalid command line",
            Exit::PolicyInvalid => "a policy is not valid",
            Exit::Denied => "explain: the attempt would be denied",
            Exit::Partial => "a policy is not fully enforced; selftest: only known bypasses",
            Exit::Bypass => "selftest: found a bypass that is not a known limitation",
            Exit::ExecFailed => "exec: tidegate failed; the command was not started",
            Exit::NotExecutable => "exec: the command cannot be executed",
            Exit::NotFound => "exec: the command was not found",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
