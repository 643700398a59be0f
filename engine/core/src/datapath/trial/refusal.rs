//! What the kernel said when it refused.

use std::{fmt, io};

/// How far a trial came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A table was to be made or used.
    Table,
    /// A program was to be loaded.
    Load,
    /// A program was to be attached.
    Attach,
}

impl Step {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Table => "table",
            Step::Load => "load",
            Step::Attach => "attach",
        }
    }
}

/// A trial that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// What was to be done.
    pub step: Step,
    /// The errno, where the kernel returned one.
    pub errno: Option<i32>,
    /// The verifier's words, or other ones that say more than the number.
    pub words: Option<String>,
}

impl Refusal {
    pub(super) fn at(step: Step, error: io::Error) -> Refusal {
        Refusal {
            step,
            errno: error.raw_os_error(),
            words: error.raw_os_error().is_none().then(|| error.to_string()),
        }
    }

    pub(super) fn described(step: Step, words: String) -> Refusal {
        Refusal {
            step,
            errno: None,
            words: Some(words),
        }
    }

    /// With the verifier's words: the last line of its log that is about the program.
    pub(super) fn by_verifier(error: io::Error, log: &[u8]) -> Refusal {
        let log = String::from_utf8_lossy(log);
        let statistics = ["processed ", "verification time", "stack depth", "max_states"];
        let last = log
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
        Refusal {
            words: last.map(str::to_owned),
            ..Refusal::at(Step::Load, error)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            Step::Table => "refused to make or use the table",
            Step::Load => "refused to load the program",
            Step::Attach => "refused to attach the program",
        };
        write!(f, "{what}")?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", nix::errno::Errno::from_raw(errno))?;
        }
        match &self.words {
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_told_without_its_statistics() {
        let log = "0: R1=ctx() R10=fp0\n0: (b7) r1 = 0\n1: (85) call bpf_set_retval#187\ninvalid func unknown#187\n\
                   processed 2 insns (limit 1000000) max_states_per_insn 0\nstack depth 0\n\n";
        let refusal = Refusal::by_verifier(io::Error::from_raw_os_error(libc::EINVAL), log.as_bytes());
        assert_eq!(refusal.words.as_deref(), Some("invalid func unknown#187"));
        assert_eq!(
            refusal.to_string(),
            "refused to load the program: EINVAL: Invalid argument: invalid func unknown#187"
        );
        let silent = Refusal::by_verifier(io::Error::from_raw_os_error(libc::EPERM), b"");
        assert_eq!((silent.words, silent.errno), (None, Some(libc::EPERM)));
    }
}
