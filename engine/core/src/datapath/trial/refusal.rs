//! Why the kernel refused a trial.

use std::{fmt, io};

/// The step of a trial that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creating or using a map.
    Map,
    /// Loading a program.
    Load,
    /// Attaching a program.
    Attach,
    /// Making a call that an attached program must see.
    Call,
}

/// A trial that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The step that failed.
    pub step: Step,
    /// The errno, where the kernel returned one.
    pub errno: Option<i32>,
    /// The relevant line of the verifier's log, or a reason where there is no errno.
    pub detail: Option<String>,
}

impl Refusal {
    pub(super) fn at(step: Step, error: io::Error) -> Refusal {
        Refusal {
            step,
            errno: error.raw_os_error(),
            detail: error.raw_os_error().is_none().then(|| error.to_string()),
        }
    }

    pub(super) fn described(step: Step, reason: String) -> Refusal {
        Refusal {
            step,
            errno: None,
            detail: Some(reason),
        }
    }

    pub(in crate::datapath) fn of_call(error: io::Error) -> Refusal {
        Refusal::at(Step::Call, error)
    }

    /// With the last line of the verifier's log that is about the program, not a statistic.
    pub(super) fn by_verifier(error: io::Error, log: &[u8]) -> Refusal {
        let log = String::from_utf8_lossy(log);
        let statistics = ["processed ", "verification time", "stack depth", "max_states"];
        let last = log
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)));
        Refusal {
            detail: last.map(str::to_owned),
            ..Refusal::at(Step::Load, error)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            Step::Map => "refused to create or use the map",
            Step::Load => "refused to load the program",
            Step::Attach => "refused to attach the program",
            Step::Call => "refused the call that the program must see",
        };
        write!(f, "{what}")?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", nix::errno::Errno::from_raw(errno))?;
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_log_is_used_without_statistics() {
        let log = "0: R1=ctx() R10=fp0\n0: (b7) r1 = 0\n1: (85) call bpf_set_retval#187\ninvalid func unknown#187\n\
                   processed 2 insns (limit 1000000) max_states_per_insn 0\nstack depth 0\n\n";
        let refusal = Refusal::by_verifier(io::Error::from_raw_os_error(libc::EINVAL), log.as_bytes());
        assert_eq!(refusal.detail.as_deref(), Some("invalid func unknown#187"));
        assert_eq!(
            refusal.to_string(),
            "refused to load the program: EINVAL: Invalid argument: invalid func unknown#187"
        );
        let without_log = Refusal::by_verifier(io::Error::from_raw_os_error(libc::EPERM), b"");
        assert_eq!((without_log.detail, without_log.errno), (None, Some(libc::EPERM)));
    }
}
