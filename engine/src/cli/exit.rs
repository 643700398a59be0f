//! Exit codes.

use std::process::ExitCode;

/// Exit codes of `tidegate`. `exec` adds the codes of the command it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// The command could not do its work: a file, a right or the kernel was in the way.
    CouldNotRun = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A policy is not valid.
    PolicyInvalid = 3,
    /// `explain`: the attempt would be denied.
    Denied = 4,
    /// Done, but not all of it is enforced, or enforced fully.
    Partial = 5,
    /// `selftest`: something arrived that the policy forbids.
    Escaped = 6,
    /// `exec`: failed before the command was started.
    ExecFailed = 125,
    /// `exec`: the command was found but cannot be executed.
    NotExecutable = 126,
    /// `exec`: the command was not found.
    NotFound = 127,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub const ALL: [Exit; 10] = [
        Exit::Fine,
        Exit::CouldNotRun,
        Exit::Usage,
        Exit::PolicyInvalid,
        Exit::Denied,
        Exit::Partial,
        Exit::Escaped,
        Exit::ExecFailed,
        Exit::NotExecutable,
        Exit::NotFound,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, as the help says it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Fine => "fine",
            Exit::CouldNotRun => "could not run: a file, a right or the kernel was in the way",
            Exit::Usage => "the command line is wrong",
            Exit::PolicyInvalid => "a policy is not valid",
            Exit::Denied => "explain: the attempt would be denied",
            Exit::Partial => "done, or read, but something is enforced only in part",
            Exit::Escaped => "selftest: something got out that the policy forbids",
            Exit::ExecFailed => "exec: tidegate itself failed, the command was not started",
            Exit::NotExecutable => "exec: the command was found but cannot be executed",
            Exit::NotFound => "exec: the command was not found",
        }
    }

    /// The table of exit codes that `tidegate --help` ends with.
    pub fn table() -> String {
        let mut text = "Exit codes:\n".to_owned();
        for exit in Exit::ALL {
            text += &format!("  {:<5}  {}\n", exit.code(), exit.meaning());
        }
        text += "  128+n  exec: the command was ended by signal n\n";
        text += "  other  exec: the command's own exit code";
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
