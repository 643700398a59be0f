//! What happened on a kernel, held against what must hold there.

use std::time::Duration;

use serde::Serialize;

use super::console::{Console, Ended};
use super::matrix::{self, Kernel};

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It passed, all of it.
    Passed,
    /// It did not, and kernels.toml says why it cannot.
    Cannot {
        /// Why.
        reason: String,
    },
    /// kernels.toml says that it cannot, but it did.
    Better {
        /// What kernels.toml says.
        reason: String,
    },
    /// It did not, and should have.
    Failed {
        /// What it said.
        why: String,
    },
}

/// A test and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Test {
    /// `program::test`.
    pub(crate) name: String,
    /// What became of it.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// A kernel and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Name of the row.
    pub(crate) kernel: String,
    /// Whether the kernel could be had at all.
    pub(crate) fetched: bool,
    /// The kernel's own name of its version.
    pub(crate) release: Option<String>,
    /// Active security modules.
    pub(crate) security_modules: Option<String>,
    /// All tests that were to run.
    pub(crate) tests: Vec<Test>,
    /// What went wrong apart from tests.
    pub(crate) troubles: Vec<String>,
    /// Why the first machine broke off, when this is of a second one.
    pub(crate) first_try: Option<String>,
    /// How many tests were not to run here.
    pub(crate) left_out: usize,
    /// What the tests said.
    #[serde(skip)]
    pub(crate) said: Vec<String>,
    /// Seconds from power-on to power-off.
    pub(crate) seconds: f64,
    /// Where the console is written down, when it was kept.
    pub(crate) log: Option<String>,
}

impl Row {
    /// Judges what the console showed of the tests that were to run.
    pub(crate) fn of(
        kernel: &Kernel,
        console: Console,
        expected: &[String],
        left_out: usize,
        took: Duration,
    ) -> Row {
        let judged = |name: &String| Test {
            name: name.clone(),
            verdict: judge(console.tests.get(name), matrix::reason(&kernel.cannot, name)),
        };
        Row {
            kernel: kernel.name.clone(),
            fetched: true,
            tests: expected.iter().map(judged).collect(),
            said: console
                .tests
                .values()
                .flat_map(|ended| ended.output.clone())
                .collect(),
            release: console.release,
            security_modules: console.security_modules,
            troubles: console.troubles,
            first_try: None,
            left_out,
            seconds: took.as_secs_f64(),
            log: None,
        }
    }

    /// A kernel that could not be had, or not be started.
    pub(crate) fn without_start(kernel: &Kernel, fetched: bool, why: String) -> Row {
        Row {
            kernel: kernel.name.clone(),
            fetched,
            release: None,
            security_modules: None,
            tests: Vec::new(),
            troubles: vec![why],
            first_try: None,
            left_out: 0,
            said: Vec::new(),
            seconds: 0.0,
            log: None,
        }
    }

    /// How many tests have a verdict like that.
    pub(crate) fn count(&self, is_it: impl Fn(&Verdict) -> bool) -> usize {
        self.tests.iter().filter(|test| is_it(&test.verdict)).count()
    }

    /// Whether all holds that must.
    pub(crate) fn holds(&self) -> bool {
        self.troubles.is_empty() && self.count(|verdict| matches!(verdict, Verdict::Failed { .. })) == 0
    }
}

fn judge(ended: Option<&Ended>, cannot: Option<&str>) -> Verdict {
    let why = match ended {
        None => Some("it was not run to its end".to_owned()),
        Some(ended) if ended.how != "ok" => Some(complaint(ended)),
        Some(ended) => (!ended.missing.is_empty()).then(|| ended.missing.join("; ")),
    };
    match (why, cannot.map(str::to_owned)) {
        (None, None) => Verdict::Passed,
        (None, Some(reason)) => Verdict::Better { reason },
        (Some(_), Some(reason)) => Verdict::Cannot { reason },
        (Some(why), None) => Verdict::Failed { why },
    }
}

/// The line that says where it failed, and what follows it.
fn complaint(ended: &Ended) -> String {
    const LINES: usize = 8;
    let start = ended.output.iter().position(|line| line.contains("panicked at"));
    let lines: Vec<&str> = ended.output[start.unwrap_or(0)..]
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty() && !line.starts_with("note: "))
        .take(LINES)
        .collect();
    if lines.is_empty() {
        return ended.how.clone();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(how: &str, missing: &[&str]) -> Ended {
        Ended {
            how: how.to_owned(),
            missing: missing.iter().map(|&what| what.to_owned()).collect(),
            output: vec![
                "chatter".into(),
                "thread 'x' panicked at a.rs:1:".into(),
                "no".into(),
            ],
        }
    }

    #[test]
    fn what_must_pass_must_not_leave_anything_out() {
        let failed = |why: &str| Verdict::Failed { why: why.to_owned() };
        assert_eq!(judge(Some(&ended("ok", &[])), None), Verdict::Passed);
        assert_eq!(
            judge(Some(&ended("ok", &["NOT IN THIS KERNEL: x"])), None),
            failed("NOT IN THIS KERNEL: x")
        );
        assert_eq!(
            judge(Some(&ended("FAILED", &[])), None),
            failed("thread 'x' panicked at a.rs:1:\nno")
        );
        assert_eq!(judge(None, None), failed("it was not run to its end"));
    }

    #[test]
    fn what_cannot_pass_may_and_that_is_told() {
        let reason = "old".to_owned();
        let cannot = Verdict::Cannot {
            reason: reason.clone(),
        };
        assert_eq!(judge(Some(&ended("FAILED", &[])), Some("old")), cannot);
        assert_eq!(judge(Some(&ended("ok", &["SKIPPED: y"])), Some("old")), cannot);
        assert_eq!(
            judge(Some(&ended("ok", &[])), Some("old")),
            Verdict::Better { reason }
        );
    }
}
